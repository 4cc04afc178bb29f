"""GOR, the spread-out regulariser (losses/gor.py): the vectors of different texts are orthogonal.

sum_i  mean_a mean_b of cos(x_a[:d_i], x_b[:d_i])^2,  among anchors, and among candidates
but for the positives of one anchor, and for texts of other rows where those are no negatives
(`in_batch: false`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from torch import Tensor

from mipic_llm import losses
from mipic_llm.config import Config
from mipic_llm.objective.seen import Seen
from mipic_llm.objective.term import Term, Value, per_dim


class Gor(Term):
    def __init__(self, config: Config, width: int, depth: int, weight: float) -> None:
        super().__init__(weight)
        self.dims = config.objective.dims or [width]
        self.parts = len(self.dims)

    def across(self, seen: Seen, drawn: tuple[int, ...]) -> Iterator[Value]:
        anchors, positives, negatives = seen.columns()
        n, mine, key_S = seen.n_anchors, seen.mine(), seen.same_N[seen.own]
        sides = ((slice(n), anchors), (slice(n, None), torch.cat([positives, negatives])))
        values = [
            losses.gor_per_dim(
                mine[here], seen.everyone()[column], keys=(key_S[here], seen.same_N[column]),
                dims=self.dims, out_BN=self._together(seen, here, column),
            )
            for here, column in sides
        ]  # fmt: skip
        parts = [
            seen.part(value, len(mine[here]), len(column))
            for value, (here, column) in zip(values, sides, strict=True)
        ]
        yield per_dim("gor", parts[0] + parts[1], self.dims)

    def _together(self, seen: Seen, here: slice, column: Tensor) -> Tensor | None:
        """(B, N) bool: which of these texts are not to be driven apart, whatever they say."""
        found = []
        if seen.row_N is not None:
            found.append(seen.row_N[seen.own][here, None] != seen.row_N[column])
        if seen.also_N is not None:
            right_N = seen.also_N.bool()
            right_N[seen.columns()[1]] = True
            anchor_N = seen.anchor_of().masked_fill(~right_N, -1)
            own_B1 = anchor_N[seen.own][here, None]
            found.append((own_B1 == anchor_N[column]) & (own_B1 >= 0))
        return functools.reduce(torch.logical_or, found) if found else None
