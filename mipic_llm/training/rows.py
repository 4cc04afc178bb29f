"""How many sequences each rank holds in a step."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mipic_llm.data.collate import StepBatch
from mipic_llm.training import distributed as dist


class Rows(NamedTuple):
    """Counts on every rank, in rank order; chunks: the most forward passes that any rank wants."""

    anchors: tuple[int, ...]
    negatives: tuple[int, ...]
    chunks: int

    @property
    def per_rank(self) -> tuple[int, ...]:
        return tuple(2 * a + n for a, n in zip(self.anchors, self.negatives, strict=True))

    @property
    def total(self) -> int:
        return sum(self.per_rank)

    def columns(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Where all anchors, positives and negatives stand among the rows of all ranks, gathered
        in rank order; each in rank order."""
        found: tuple[list[Tensor], ...] = ([], [], [])
        start = 0
        for a, n in zip(self.anchors, self.negatives, strict=True):
            for column, size in zip(found, (a, a, n), strict=True):
                column.append(torch.arange(start, start + size, device=device))
                start += size
        anchors, positives, negatives = (torch.cat(parts) for parts in found)
        return anchors, positives, negatives


def count_rows(batch: StepBatch, n_chunks: int) -> Rows:
    """All ranks must call."""
    anchors, negatives, chunks = dist.all_counts(batch.n_anchors, batch.n_negatives, n_chunks)
    return Rows(anchors, negatives, max(chunks))
