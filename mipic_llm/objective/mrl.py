"""Matryoshka contrastive loss (Eq 1 and 19 of arXiv 2604.24374).

    L_MRL = sum_i weight_i InfoNCE_tau(q[:, :d_i], c[:, :d_i])
candidates: the positives and hard negatives of all ranks, but for those whose text is that of the
anchor or of its positive, and those that `objective.false_negative_margin` leaves out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from mipic_llm import losses
from mipic_llm.config import OBJECTIVES, Config, trained_dims
from mipic_llm.objective.term import Seen, Term, Value, per_dim


def task(seen: Seen, readout_ND: Tensor, dims: Sequence[int], tau: float) -> Tensor:
    """InfoNCE of this rank's anchors at each dim, (n_dims,)."""
    return losses.mrl_per_dim(
        *seen.sides(readout_ND), target_B=seen.target(), dims=dims, tau=tau,
        keys=seen.sides(seen.key_N), near_BN=seen.near(),
    )  # fmt: skip


def dims_and_weights(config: Config, width: int) -> tuple[list[int], list[float] | None]:
    """The prefixes under the task loss, and what each one weighs; None = 1."""
    o, form, dims = config.objective, OBJECTIVES[config.objective.name], trained_dims(config)
    weights = o.dim_weights if form.widths == "all" else None
    if weights is None and form.mixed:
        weights = [o.wide_weight if 2 * d > width else 1.0 for d in dims]
    return dims, weights


class Mrl(Term):
    def __init__(self, config: Config, width: int, depth: int, weight: float) -> None:
        super().__init__(weight)
        self.tau, (self.dims, self.weights) = config.objective.tau, dims_and_weights(config, width)

    def across(self, seen: Seen, drawn: tuple[int, ...]) -> Iterator[Value]:
        value_P = task(seen, seen.everyone(), self.dims, self.tau)
        yield per_dim("mrl", value_P, self.dims, self.weights)
