"""GOR, the spread-out regulariser (losses/gor.py): the vectors of different texts are orthogonal.

sum_i  mean over a != b of cos(x_a[:d_i], x_b[:d_i])^2,  among anchors, and among candidates
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from mipic_llm import losses
from mipic_llm.config import Config
from mipic_llm.objective.term import Seen, Term, Value, per_dim


class Gor(Term):
    def __init__(self, config: Config, width: int, depth: int, weight: float) -> None:
        super().__init__(weight)
        self.dims = config.objective.dims or [width]
        self.parts = len(self.dims)

    def across(self, seen: Seen, drawn: tuple[int, ...]) -> Iterator[Value]:
        anchors, positives, negatives = seen.columns()
        n, mine, own = seen.n_anchors, seen.mine(), seen.place(seen.rows.anchors, seen.n_anchors)
        others = len(positives) + seen.place(seen.rows.negatives, seen.n_negatives)
        sides = (
            (mine[:n], anchors, own),
            (mine[n:], torch.cat([positives, negatives]), torch.cat([own, others])),
        )
        values = [
            losses.gor_per_dim(x, seen.everyone()[column], own_B=at, dims=self.dims)
            for x, column, at in sides
        ]
        parts = [seen.part(v, len(s[0]), len(s[1])) for v, s in zip(values, sides, strict=True)]
        yield per_dim("gor", parts[0] + parts[1], self.dims)
