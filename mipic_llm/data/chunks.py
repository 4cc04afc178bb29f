"""The sequences of a step cut into forward passes ("chunks"), padded or packed.

Chunks permute the step's sequences by length (less padding) and say how, so that readouts are put
back by `out[chunk.index_S] = readout`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mipic_llm.data.batch import StepBatch
from mipic_llm.data.tokenise import pack, pad
from mipic_llm.types import Known, Packing

MOST_GROUPS = 8  # length groups of one step; more save little


class Chunk(NamedTuple):
    """One forward pass. Padding of the chunk count has weight 0 and an empty index_S.

    index_S: positions of these sequences in the step's order, int64.
    ids_ST, mask_ST: int64; packed: (1, N) and a Packing. A weight-0 chunk holds one dummy sequence,
    so that a rank with fewer chunks still takes part in every ZeRO-3 gather; its outputs must enter
    the loss times 0.
    """

    index_S: Tensor
    ids_ST: Tensor
    mask_ST: Tensor | Packing
    weight: float

    def rows_within(self, n: int) -> tuple[Tensor, Tensor]:
        """Which of these sequences are among the step's first n, and their places there; int64, on
        the host, so that no device has to be asked."""
        here = (self.index_S < n).nonzero().flatten()
        return here, self.index_S[here]

    def to(self, device: torch.device) -> Chunk:
        """Ids and mask on the device; pinned ones are copied while the host goes on."""
        return self._each(lambda t: t.to(device, non_blocking=True))

    def pinned(self) -> Chunk:
        """The same in page-locked memory."""
        return self._each(lambda t: t.pin_memory())

    def _each(self, move: Callable[[Tensor], Tensor]) -> Chunk:
        mask = self.mask_ST
        mask = mask.each(move) if isinstance(mask, Packing) else move(mask)
        return self._replace(ids_ST=move(self.ids_ST), mask_ST=mask)


class Padding(NamedTuple):
    """Tokens of a step's forward passes: real ones, and pads (dummies count as pads)."""

    useful: int
    padded: int


class Prepared(NamedTuple):
    """A rank's step, ready for the device.

    known: of the batch's sequences. chunks: all of them, longest first. dummy: a weight-0 chunk
    (see `Chunk`).
    """

    batch: StepBatch
    known: Known
    chunks: tuple[Chunk, ...]
    dummy: Chunk

    def passes(self, n: int) -> tuple[Chunk, ...]:
        """The chunks, and dummies up to the n that ranks agreed on (the most that any has)."""
        assert n >= len(self.chunks), f"{len(self.chunks)} chunks do not fit in {n} passes"
        return self.chunks + (self.dummy,) * (n - len(self.chunks))

    def tokens(self, n: int) -> Padding:
        """Real and padded tokens of n passes."""
        useful = sum(map(len, self.batch.ids))
        return Padding(useful, sum(c.ids_ST.numel() for c in self.passes(n)) - useful)


def prepare(
    batch: StepBatch,
    chunk_size: int,
    chunk_tokens: int = 0,
    pass_cost: int = 0,
    packed: bool = False,
    pin: bool | None = None,
) -> Prepared:
    """The step in chunks of at most chunk_size sequences and chunk_tokens padded tokens (0 = no
    limit). Nothing is asked of other ranks, so a thread may do it ahead.

    Without a limit: as many length groups as pay, where one more forward pass costs as much as
    `pass_cost` padded tokens (0 = one group). packed: each chunk is one row without pads;
    chunk_tokens counts real tokens, and without a limit one chunk holds all.
    pin: put tensors in page-locked memory; None = where there is a GPU.
    Longest first, so that a step that cannot fit in memory fails at once.
    """
    order = sorted(range(len(batch.ids)), key=lambda s: -len(batch.ids[s]))  # stable
    lengths, starts = [len(batch.ids[s]) for s in order], [0]
    if chunk_size or chunk_tokens:
        starts = _starts(lengths, chunk_size, chunk_tokens, packed)
    elif pass_cost and not packed:
        starts = min(_groupings(lengths), key=lambda g: g[0] + len(g[1]) * pass_cost)[1]
    pin = torch.cuda.is_available() if pin is None else pin

    def join(index: list[int], weight: float) -> Chunk:
        rows = [batch.ids[s] for s in index]
        skips = batch.skips and [batch.skips[s] for s in index]
        made = pack(rows, skips) if packed else pad(
            rows, batch.pad_id, batch.padding_side, skips)  # fmt: skip
        chunk = Chunk(torch.tensor(index if weight else [], dtype=torch.int64), *made, weight)
        return chunk.pinned() if pin else chunk

    stops = [*starts[1:], len(order)]
    made = [join(order[a:b], 1.0) for a, b in zip(starts, stops, strict=True)]
    facts = (batch.keys, batch.scores, batch.teacher_SK, batch.rows, batch.groups, batch.whose,
             batch.also)  # fmt: skip
    known = Known(*(None if x is None else torch.as_tensor(x) for x in facts))
    known = known.each(Tensor.pin_memory) if pin else known
    return Prepared(batch, known, tuple(made), join(order[-1:], 0.0))


def _starts(lengths: list[int], chunk_size: int, chunk_tokens: int, packed: bool) -> list[int]:
    """First rows of chunks within both limits (0 = none); lengths fall. A chunk has a row at least,
    so one text longer than chunk_tokens is a chunk of its own."""
    starts, first, real = [0], 0, lengths[0]
    for i in range(1, len(lengths)):
        real += lengths[i]
        size = i + 1 - first
        tokens = real if packed else size * lengths[first]
        if (chunk_size and size > chunk_size) or (chunk_tokens and tokens > chunk_tokens):
            starts.append(i)
            first, real = i, lengths[i]
    return starts


def _groupings(lengths: Sequence[int], most: int = MOST_GROUPS) -> list[tuple[int, list[int]]]:
    """For 1 .. most groups of rows (lengths fall): fewest padded tokens, and the first rows.

    Dynamic programming over the distinct lengths: best[j] with one more group is the minimum over
    i of best[i] + (rows from i to j) * (length at i). Fewer than `most` where lengths are fewer.
    """
    falling, count = np.unique(-np.asarray(lengths), return_counts=True)
    edge = np.concatenate([[0], np.cumsum(count)])  # rows before each distinct length
    n = len(falling)
    cost = (edge[None, 1:] - edge[:-1, None]) * -falling[:, None]  # [i, j]: lengths i .. j together
    cost = np.where(np.arange(n)[None] >= np.arange(n)[:, None], cost, np.inf)
    best, cuts, found = cost[0], [np.zeros(n, dtype=np.int64)], []
    for k in range(1, min(most, n) + 1):
        if k > 1:
            before = np.concatenate([[np.inf], best[:-1]])  # all lengths before i, in k - 1 groups
            table = before[:, None] + cost
            cuts.append(table.argmin(0))
            best = table.min(0)
        starts, j = [], n - 1
        for level in reversed(range(k)):
            i = int(cuts[level][j])
            starts.append(int(edge[i]))
            j = i - 1
        found.append((int(best[-1]), starts[::-1]))
    return found
