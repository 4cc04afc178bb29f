"""Distillation between texts: SIA's relation one level up.

Teacher: softmax over the full-width similarities of a text to all others of the step, whatever
their column, and to those remembered of earlier steps; detached. Student: the same at a prefix.
    sum_i mean_b KL(softmax(cos(z_b, z) / tau) || softmax(cos(z_b[:d_i], z[:d_i]) / tau))
for the prefixes up to a fifth of the full width.
"""

from __future__ import annotations

from collections.abc import Iterator

from mipic_llm import losses
from mipic_llm.config import Config, narrow_dims
from mipic_llm.objective.term import Seen, Term, Value


class Sentences(Term):
    def __init__(self, config: Config, width: int, depth: int, weight: float) -> None:
        super().__init__(weight)
        self.dims, self.tau = narrow_dims(config), config.objective.tau
        self.parts, self.memory = len(self.dims), config.sia.memory or 0

    def across(self, seen: Seen, drawn: tuple[int, ...]) -> Iterator[Value]:
        mine = seen.mine()
        value = losses.neighbourhood_kl(
            mine, seen.everyone(), dims=self.dims, tau=self.tau,
            own_B=seen.place(seen.rows.per_rank, len(mine)), kept_MD=seen.remembered_MD,
        )  # fmt: skip
        yield Value("sentences", seen.part(value, len(mine)))
