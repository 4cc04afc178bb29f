"""Scored pairs: the nearer, the higher their score, at every prefix (losses/cosent.py).

    sum_i weight_i CoSENT_tau(x[:, :d_i], y[:, :d_i], scores),  or AnglE, or their sum
over the pairs of all ranks; the task loss of a step of a scored source, in place of InfoNCE.
"""

from __future__ import annotations

from collections.abc import Iterator

from mipic_llm import losses
from mipic_llm.config import Config
from mipic_llm.objective.mrl import dims_and_weights
from mipic_llm.objective.seen import Seen
from mipic_llm.objective.term import Term, Value, per_dim
from mipic_llm.types import Traits


class Scored(Term):
    def __init__(self, config: Config, width: int, depth: int, weight: float) -> None:
        super().__init__(weight)
        self.names = {"both": ("cosent", "angle")}.get(config.scored.loss, (config.scored.loss,))
        self.tau, (self.dims, self.weights) = config.scored.tau, dims_and_weights(config, width)

    def takes(self, source: Traits) -> bool:
        return source.kind == "scored"

    def across(self, seen: Seen, drawn: tuple[int, ...]) -> Iterator[Value]:
        # Every rank has all pairs: the mean over ranks is this value, and so is the gradient.
        anchors, positives, _ = seen.columns()
        assert seen.score_N is not None
        everyone, score_N = seen.everyone(), seen.score_N[positives]
        for name in self.names:
            value_P = losses.cosent_per_dim(
                everyone[anchors], everyone[positives], score_N, dims=self.dims, tau=self.tau,
                angle=name == "angle",
            )  # fmt: skip
            yield per_dim(name, value_P, self.dims, self.weights)
