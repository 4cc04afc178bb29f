"""Matryoshka contrastive loss (Eq 1 and 19 of arXiv 2604.24374).

    L_MRL = sum_i weight_i InfoNCE_tau(q[:, :d_i], c[:, :d_i])
candidates: the positives and hard negatives of all ranks, but for those whose text is that of the
anchor or of its positive.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from mipic_llm import losses
from mipic_llm.config import OBJECTIVES, Config, trained_dims
from mipic_llm.losses.numerics import constant
from mipic_llm.objective.term import Seen, Term, Value, per_dim


def task(seen: Seen, readout_ND: Tensor, dims: Sequence[int], tau: float) -> Tensor:
    """InfoNCE of this rank's anchors at each dim, (n_dims,)."""
    return losses.mrl_per_dim(
        *seen.sides(readout_ND), target_B=seen.target(), dims=dims, tau=tau,
        keys=seen.sides(seen.key_N),
    )  # fmt: skip


class Mrl(Term):
    def __init__(self, config: Config, width: int, depth: int, weight: float) -> None:
        super().__init__(weight)
        o, form = config.objective, OBJECTIVES[config.objective.name]
        self.dims, self.tau = trained_dims(config), o.tau
        self.weights = o.dim_weights if form.widths == "all" else None
        if self.weights is None and form.mixed:
            self.weights = [o.wide_weight if 2 * d > width else 1.0 for d in self.dims]

    def across(self, seen: Seen, drawn: tuple[int, ...]) -> Iterator[Value]:
        value_P = task(seen, seen.everyone(), self.dims, self.tau)
        weights_P = None
        if self.weights is not None:
            weights_P = constant(tuple(self.weights), value_P.dtype, value_P.device)
        yield per_dim("mrl", value_P, self.dims, weights_P)
