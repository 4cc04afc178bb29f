"""How many sequences each rank holds in a step."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from mipic_llm.runtime import ranks as dist


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
        return _columns(self.anchors, self.negatives, device)


@lru_cache(maxsize=4)  # asked for by every term of a step, and steps are alike
def _columns(
    anchors: tuple[int, ...], negatives: tuple[int, ...], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    a_W, n_W = torch.tensor(anchors), torch.tensor(negatives)
    size_W = 2 * a_W + n_W
    start_W = size_W.cumsum(0) - size_W

    def places(first_W: Tensor, count_W: Tensor) -> Tensor:
        """count_W[r] places from first_W[r] on, for every rank r."""
        before_W = count_W.cumsum(0) - count_W
        return (first_W - before_W).repeat_interleave(count_W) + torch.arange(int(count_W.sum()))

    found = (places(start_W, a_W), places(start_W + a_W, a_W), places(start_W + 2 * a_W, n_W))
    found_anchors, positives, found_negatives = (column.to(device) for column in found)
    return found_anchors, positives, found_negatives


def agree(n_anchors: int, n_negatives: int, n_chunks: int) -> Rows:
    """Every rank's counts, and the most chunks that any rank wants. All ranks must call."""
    anchors, negatives, chunks = dist.all_counts(n_anchors, n_negatives, n_chunks)
    return Rows(anchors, negatives, max(chunks))
