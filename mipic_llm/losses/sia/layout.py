"""Where the tokens of SIA's sentences lie: padded to one length, or packed one after another.

Shape legend:
    S sentences, T tokens of the longest, D full width
    N rows of a layer's tokens, (N, D): S * T padded, the sum of the lengths packed
    g sentences of one block, t tokens of its longest

Scores, masks and ranks are small and always padded, (S, T). Packed tokens are read and written
in blocks of sentences of similar length.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from mipic_llm.losses.numerics import moved

SIMILAR = 0.5  # a block's shortest sentence is longer than this share of its longest
# Of a block's gathered tokens: cache sized on a CPU, few launches elsewhere.
_BLOCK_BYTES = {"cpu": 16 * 2**20}
_BLOCK_BYTES_DEVICE = 512 * 2**20


class Block(NamedTuple):
    """Sentences start to stop; the longest has `longest` tokens."""

    start: int
    stop: int
    longest: int


def similar_blocks(lengths: Sequence[int]) -> list[Block]:
    """Neighbours of similar length together. Few blocks when lengths are sorted."""
    made: list[Block] = []
    start, low, high = 0, lengths[0], lengths[0]
    for s, n in enumerate(lengths):
        if min(low, n) <= SIMILAR * max(high, n):
            made.append(Block(start, s, high))
            start, low, high = s, n, n
        low, high = min(low, n), max(high, n)
    return [*made, Block(start, len(lengths), high)]


def cut_blocks(blocks: Sequence[Block], most: Sequence[int]) -> list[Block]:
    """Each block cut into pieces of at most most[i] sentences (1 or more)."""
    return [
        Block(start, min(start + most[i], b.stop), b.longest)
        for i, b in enumerate(blocks)
        for start in range(b.start, b.stop, most[i])
    ]


class Layout:
    """Padded when lengths is None: mask_ST is True at real tokens, and pads are rows too.

    Packed: sentence s begins after the sum of the lengths before it, and there are no pads. A
    gradient has one more row at its end, the sink: index tables send what pads would write there.

    row_ST: row of each token. similar: blocks of similar length; blocks: those cut to a workspace.
    """

    def __init__(
        self, mask_ST: Tensor | None, lengths: Sequence[int] | None, query_LSD: Tensor
    ) -> None:
        self.packed, self.width, device = lengths is not None, query_LSD.shape[2], query_LSD.device
        if lengths is None:
            assert mask_ST is not None
            self.mask_ST, self.count_S = mask_ST, mask_ST.sum(1)
            self.S, self.T = mask_ST.shape
            self.n_rows = self.n_real = self.S * self.T
            self.row_ST = torch.arange(self.n_rows, device=device).view(self.S, self.T)
            self.blocks = self.similar = [Block(0, self.S, self.T)]
            return
        self.S, self.T, self.n_real = len(lengths), max(lengths), sum(lengths)
        self.n_rows = self.n_real + 1
        self.starts = (0, *accumulate(lengths))
        at_T = torch.arange(self.T, device=device)
        self.count_S = moved(lengths, torch.int64, device)
        self.mask_ST = at_T < self.count_S[:, None]
        start_S1 = (self.count_S.cumsum(0) - self.count_S)[:, None]
        self.row_ST = torch.where(self.mask_ST, start_S1 + at_T, self.n_real)
        self.similar = similar_blocks(lengths)
        budget = _BLOCK_BYTES.get(device.type, _BLOCK_BYTES_DEVICE)
        most = [max(1, budget // (4 * self.width * b.longest)) for b in self.similar]
        self.blocks = cut_blocks(self.similar, most)

    def read(self, flat_ND: Tensor, b: Block) -> Tensor:
        """A block's tokens, (g, t, D); rows past a sentence's end are some other real token."""
        if not self.packed:
            return flat_ND.view(self.S, self.T, self.width)
        if self._even(b):
            rows = flat_ND[self.starts[b.start] : self.starts[b.stop]]
            return rows.view(b.stop - b.start, b.longest, self.width)
        row_gt = self.row_ST[b.start : b.stop, : b.longest].clamp_max(self.n_real - 1)
        return flat_ND.index_select(0, row_gt.flatten()).view(*row_gt.shape, self.width)

    def write(self, flat_ND: Tensor, b: Block, values_gtD: Tensor) -> None:
        """Put a packed block's values into the rows of its real tokens."""
        here = flat_ND[self.starts[b.start] : self.starts[b.stop]]
        flat = values_gtD.reshape(-1, self.width)
        if self._even(b):
            here.copy_(flat)
            return
        real = self.mask_ST[b.start : b.stop, : b.longest].flatten()
        # positions of the True, whose number is known: nothing waits for a device
        at = torch.nonzero_static(real, size=len(here))[:, 0]
        torch.index_select(flat, 0, at, out=here)

    def _even(self, b: Block) -> bool:
        """Whether all sentences of a packed block are equally long."""
        n = self.starts[b.stop] - self.starts[b.start]
        return n == (b.stop - b.start) * b.longest
