"""Matryoshka contrastive loss (Eq 1 and 19 of arXiv 2604.24374).

    L_MRL = sum_i weight_i InfoNCE_tau(q[:, :d_i], c[:, :d_i])
candidates: the positives and hard negatives of all ranks, but for those whose text is that of the
anchor or of its positive, and those that `objective.false_negative_margin` leaves out.
With more of `objective.directions` the anchors are candidates too, and the mean is taken with what
the positives find among the anchors (and the other positives).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from mipic_llm import losses
from mipic_llm.config import OBJECTIVES, Config, trained_dims
from mipic_llm.objective.heads import Temperature
from mipic_llm.objective.seen import Seen
from mipic_llm.objective.term import Inside, Needs, Term, Value, per_dim


class Contrast:
    """InfoNCE as the options say it. Each of `views` is (back, same), see `Seen.sides`."""

    def __init__(self, config: Config) -> None:
        self.hardness = config.objective.hardness
        self.tau, asked = config.objective.tau, config.objective.directions
        self.views = [(False, "query_to_query" in asked)]
        if "doc_to_query" in asked:
            self.views.append((True, "doc_to_doc" in asked))

    def __call__(
        self, seen: Seen, readout_ND: Tensor, dims: Sequence[int], tau: Tensor | None = None
    ) -> Tensor:
        """InfoNCE of this rank's rows at each dim, the mean over views, (n_dims,). tau: in place of
        `objective.tau`."""
        values = [
            losses.mrl_per_dim(
                *seen.sides(readout_ND, *view), target_B=seen.target(), dims=dims,
                tau=self.tau if tau is None else tau,
                keys=seen.sides(seen.same_N, *view), near_BN=seen.near(*view),
                right_BN=seen.right(*view),
                hardness=0.0 if view[0] else self.hardness,
            )
            for view in self.views
        ]  # fmt: skip
        return values[0] if len(values) == 1 else torch.stack(values).mean(0)


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
        self.task, (self.dims, self.weights) = Contrast(config), dims_and_weights(config, width)
        self.last = depth
        if config.objective.tau_learnable:
            self.units = 1
            self.heads["temperature"] = nn.ModuleList([Temperature(self.task.tau)])

    def needs(self, drawn: tuple[int, ...]) -> Needs:
        return Needs(crossing=1) if self.heads else Needs()

    def crossing(self, inside: Inside, drawn: tuple[int, ...]) -> tuple[Tensor, ...]:
        """The temperature beside each sequence: so its gradient comes back as that of readouts."""
        return tuple(head(inside.readout[self.last]) for head in self.heads.get("temperature", ()))

    def across(self, seen: Seen, drawn: tuple[int, ...]) -> Iterator[Value]:
        tau = seen.crossing[0].mean() if seen.crossing else None
        value_P = self.task(seen, seen.everyone(), self.dims, tau)
        value = per_dim("mrl", value_P, self.dims, self.weights)
        if tau is not None:
            value = value._replace(details=(*value.details, ("tau", tau.detach())))
        yield value
