"""mipic merge"""

from __future__ import annotations

from typing import Literal

from mipic_llm.config import Section, load_config, need, opt
from mipic_llm.errors import EXIT_DONE

ABOUT = """Scale what a run learnt, or merge what several runs of one base learnt. One process.

  mipic merge --runs RUN --scale 0.5 --to DIR                    half way from base to run
  mipic merge --runs RUN --scale 0 .25 .5 .75 1 1.2 --to DIR     the best of them on validation data
  mipic merge --runs RUN1 RUN2 RUN3 --to DIR                     their average
  mipic merge --runs RUN1 RUN2 --how slerp --to DIR              their average on the sphere

DIR is like the directory of a run: export and evaluate read it."""


class Flags(Section, frozen=False):
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
        "no family (tasks of one metric) is below the base in its mean")  # fmt: skip
    data: list[str] = opt([], "what several scales are scored on, as for evaluate; none = "
                          "data.validation of the first run")  # fmt: skip


def main(argv: list[str]) -> int:
    uses = ("model.name", "model.trust_remote_code", "eval.batch_size")
    config = load_config(argv, extra=Flags, about=ABOUT, uses=uses)
    own = config.extra
    n = len(own.runs)
    need(n > 0, "runs: give the output directory of one run or more: --runs RUN ...")
    need(bool(own.to), "to: give a directory to write into: --to DIR")
    need(own.to not in own.runs, "to: it is one of the runs; give another directory")
    need(own.how != "slerp" or n == 2, f"how: slerp is of two runs, and there are {n}")
    weights = own.weights or [1.0] * n
    need(len(weights) == n, f"weights: {len(weights)} for {n} runs; give one for each")
    need(own.how == "add" or min(weights) >= 0 < sum(weights),
         f"weights: of {own.how} they are not negative, and not all 0")  # fmt: skip
    need(own.scale and own.scale != [0.0], "scale: at 0 it is the base; give another one")
    from mipic_llm.export.merge import merge

    merge(config)
    return EXIT_DONE
