"""Terms of other packages: functions under the entry point group `mipic_llm.terms`.

    [project.entry-points."mipic_llm.terms"]
    spread = "my_package:spread"

    def spread(anchors, candidates, facts):
        cosine = anchors @ candidates.T
        return cosine.masked_fill(facts.left_out, 0).square().mean()

asked for by name: `objective.plugins: [spread=0.1]`. Such a function sees the readouts of all
ranks, one prefix at a time, and gives this rank's mean. Gathering, GradCache, every ZeRO stage,
packing and logs per dim are those of every term.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mipic_llm.config import Config, nearest, trained_dims
from mipic_llm.errors import UserError, one_line
from mipic_llm.objective.seen import Seen
from mipic_llm.objective.term import Term, Value, per_dim

GROUP = "mipic_llm.terms"
OURS = frozenset(
    """
    mrl express compress align cosent angle relation geometry chain sentences mic_cross mic_floor
    mic_even mic_spread teacher_relation teacher_vector teacher_scores teacher_margin gor
""".split()
)  # what this package's own terms log


class Facts(NamedTuple):
    """What a plug-in knows beside the readouts (B anchors of this rank, N candidates of all).

    dim: of the prefix; tau: `objective.tau`. target: int64 (B,), where each anchor's positive
    stands among the candidates. left_out: bool (B, N), candidates that are no negatives, since they
    have the text of the anchor or of its positive, or are too near by the margin rule; the
    positive is never left out. score: float32 (N,), of each candidate for its own anchor, NaN where
    the data say nothing; None: they have none.
    """

    dim: int
    tau: float
    target: Tensor
    left_out: Tensor
    score: Tensor | None


Function = Callable[[Tensor, Tensor, Facts], Tensor]  # (B, dim) and (N, dim), unit rows -> scalar


class Plugin(Term):
    """One function of another package, at every trained prefix."""

    def __init__(self, name: str, function: Function, config: Config, weight: float) -> None:
        super().__init__(weight)
        self.name, self.function, self.tau = name, function, config.objective.tau
        self.dims = trained_dims(config)

    def across(self, seen: Seen, drawn: tuple[int, ...]) -> Iterator[Value]:
        (anchor_BD, candidate_ND), target_B = seen.sides(seen.everyone()), seen.target()
        key_B, key_N = seen.sides(seen.same_N)
        out_BN = (key_N == key_B[:, None]) | (key_N == key_N[target_B][:, None])
        if (near_BN := seen.near()) is not None:
            out_BN |= near_BN
        out_BN.scatter_(1, target_B[:, None], False)
        score_N = None if seen.score_N is None else seen.sides(seen.score_N)[1]
        values = []
        for dim in self.dims:
            facts = Facts(dim, self.tau, target_B, out_BN, score_N)
            unit = (normalize(x[:, :dim], dim=1) for x in (anchor_BD, candidate_ND))
            value = self.function(*unit, facts)
            if not isinstance(value, Tensor) or value.dim() or not value.requires_grad:
                raise UserError(
                    f"objective.plugins: {self.name} gave {_shown(value)} at dim {dim}; it must "
                    "give a scalar tensor that depends on the readouts"
                )
            values.append(value)
        yield per_dim(self.name, torch.stack(values), self.dims)


def plugins(config: Config) -> list[Plugin]:
    """The terms of `objective.plugins`. UserError for one that cannot be loaded, one that is named
    twice, and one whose values would be added to those that another term logs."""
    asked = [parse(text) for text in config.objective.plugins]
    for n, (name, _) in enumerate(asked):
        if name in dict(asked[:n]):
            raise UserError(f"objective.plugins: {name} is there twice; give it once, with one "
                            "weight")  # fmt: skip
        if name in OURS:
            raise UserError(f"objective.plugins: this package logs a value {name} of its own; give "
                            "the entry point another name")  # fmt: skip
    return [Plugin(name, _load(name), config, weight) for name, weight in asked]


def parse(text: str) -> tuple[str, float]:
    """NAME or NAME=WEIGHT. UserError for what is neither, and for a weight below 0."""
    name, found, number = text.partition("=")
    try:
        weight = float(number) if found else 1.0
    except ValueError:
        weight = math.nan
    if not name or not math.isfinite(weight):
        raise UserError(f"objective.plugins: {text!r} is not NAME or NAME=WEIGHT")
    if weight < 0:
        raise UserError(f"objective.plugins: {text!r}: a weight must be 0 or more")
    return name, weight


def _load(name: str) -> Function:
    known = {point.name: point for point in entry_points(group=GROUP)}
    if name not in known:
        have = ", ".join(sorted(known)) or "none"
        raise UserError(f"objective.plugins: no installed package has the term {name} (group "
                        f"{GROUP}; installed: {have}){nearest([name], known)}")  # fmt: skip
    try:
        return known[name].load()
    except Exception as error:  # whatever the package does when it is imported
        raise UserError(f"objective.plugins: {name} cannot be loaded from "
                        f"{known[name].value}: {one_line(error, 200)}") from error  # fmt: skip


def _shown(value: object) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
