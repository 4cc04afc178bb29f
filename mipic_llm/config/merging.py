"""The options of `mipic merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from mipic_llm.config.check import need
from mipic_llm.config.fields import Section, opt


class MergeFlags(Section, frozen=False):
    runs: list[str] = opt([], "output directories of finished runs that began with one base")
    to: str | None = opt(None, "directory to write into")
    how: Literal["average", "add", "slerp"] = opt("average", "of what the runs learnt, weights "
        "less the base's: average, add = their sum, slerp = of two, along the sphere, tensor by "
        "tensor; LoRA runs become one adapter, of the sum of their ranks")  # fmt: skip
    weights: list[float] | None = opt(None, "of the runs; None = equal (add: 1)")
    scale: list[float] = opt([1.0], "factor of what was learnt: 0 = the base, 1 = as trained; "
                             "several = score each, and the base, and write the best")  # fmt: skip
    rule: Literal["mean", "safe"] = opt("mean", "which is best: mean = the highest mean of the "
        "tasks' main figures over all dims of the last layer; safe = that of the scales at which "
        "no family (tasks of one metric) is below the base in its mean by more than slack"
        )  # fmt: skip
    slack: float = opt(0.0, "of safe: points (x 100) that a family may lose", ge=0)
    data: list[str] = opt([], "what several scales are scored on, as for evaluate; none = "
                          "data.validation of the first run")  # fmt: skip


def check_merge(own: Any) -> None:
    """UserError for what can be refused before any model is read."""
    n = len(own.runs)
    need(n > 0, "runs: give the output directory of one run or more: --runs RUN ...")
    need(bool(own.to), "to: give a directory to write into: --to DIR")
    there = Path(own.to)
    need(
        not (there / "config.yaml").exists() or (there / "merge.json").exists(),
        f"to: {there} holds a run; give another directory",
    )
    need(there.resolve() not in [Path(run).resolve() for run in own.runs],
         f"to: {there} is one of the runs; give another directory")  # fmt: skip
    need(own.how != "slerp" or n == 2, f"how: slerp is of two runs, and there are {n}")
    weights = own.weights or [1.0] * n
    need(len(weights) == n, f"weights: {len(weights)} for {n} runs; give one for each")
    need(own.how == "add" or min(weights) >= 0 < sum(weights),
         f"weights: of {own.how} they are not negative, and not all 0")  # fmt: skip
    need(own.scale and min(own.scale) >= 0, "scale: give one or more, from 0 (the base) on")
    idle = [name for name in ("data", "rule") if getattr(own, name) not in ([], "mean")]
    need(len(own.scale) > 1 or not idle, f"{' and '.join(idle)}: of use with several scales alone; "
         "give more than one --scale")  # fmt: skip
    need(own.rule == "safe" or own.slack == 0, "slack: it goes with --rule safe")
    need(own.scale != [0.0], "scale: at 0 it is the base; give another one")
