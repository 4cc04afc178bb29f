"""GOR, the spread-out regulariser (losses/gor.py): the vectors of different texts are orthogonal.

sum_i  mean_a mean_b of cos(x_a[:d_i], x_b[:d_i])^2,  among anchors, and among candidates
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

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
        sides = (
            (mine[:n], anchors, key_S[:n]),
            (mine[n:], torch.cat([positives, negatives]), key_S[n:]),
        )
        values = [
            losses.gor_per_dim(
                x, seen.everyone()[column], keys=(key_B, seen.same_N[column]), dims=self.dims
            )
            for x, column, key_B in sides
        ]
        parts = [seen.part(v, len(s[0]), len(s[1])) for v, s in zip(values, sides, strict=True)]
        yield per_dim("gor", parts[0] + parts[1], self.dims)
