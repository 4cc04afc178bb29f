"""Distillation between texts: SIA's relation one level up.

Teacher: softmax over the full-width similarities of a text to all others of the step, whatever
their column, and to those remembered of earlier steps; detached. Copies of the text are no others,
but for the text's own partner (unlabelled text is its own positive). Student: the same at a prefix.
    sum_i mean_b KL(softmax(cos(z_b, z) / tau) || softmax(cos(z_b[:d_i], z[:d_i]) / tau))
for the prefixes up to a fifth of the full width.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from mipic_llm import losses
from mipic_llm.config import Config, narrow_dims
from mipic_llm.objective.term import Seen, Term, Value
from mipic_llm.types import Traits


class Sentences(Term):
    def __init__(self, config: Config, width: int, depth: int, weight: float) -> None:
        super().__init__(weight)
        self.dims, self.tau = narrow_dims(config), config.objective.tau
        self.parts, self.memory = len(self.dims), config.sia.memory or 0

    def takes(self, source: Traits) -> bool:
        return True  # it reads no label

    def across(self, seen: Seen, drawn: tuple[int, ...]) -> Iterator[Value]:
        mine, n, (kept_MD, key_M) = seen.mine(), seen.n_anchors, seen.remembered
        own_B = seen.place(seen.rows.per_rank, len(mine))
        partner_B = torch.cat([own_B[n : 2 * n], own_B[:n], own_B[2 * n :]])
        key_n = torch.cat([seen.key_N, key_M])
        out = losses.LeftOut(own_B, partner_B, seen.key_N[seen.own], key_n)
        value = losses.neighbourhood_kl(
            mine, seen.everyone(), dims=self.dims, tau=self.tau, left_out=out, kept_MD=kept_MD
        )
        yield Value("sentences", seen.part(value, len(mine)))
