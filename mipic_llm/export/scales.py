"""`mipic merge --scale ..`: several factors of what was learnt, scored; the best by a rule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mipic_llm.config import Config, need
from mipic_llm.data.tokenise import TextEncoder
from mipic_llm.evaluation.encode import encode
from mipic_llm.evaluation.read import load_tasks
from mipic_llm.evaluation.suite import all_points, run_suite
from mipic_llm.export.mixture import Mixture
from mipic_llm.report import label, write_scores
from mipic_llm.report.scores import PREFIX
from mipic_llm.report.tables import main_metrics, plain_table
from mipic_llm.runtime.engine import Engine
from mipic_llm.runtime.ranks import say
from mipic_llm.types import Score


class Swept(NamedTuple):
    """The best scale, the scores of each (0 = the base), and a table of them."""

    best: float
    found: dict[float, list[Score]]
    table: str


def sweep(
    mix: Mixture, engine: Engine, encoder: TextEncoder, run: Config, own: Any, out: Path
) -> Swept:  # fmt: skip
    """Score the base and each scale at every dim of the last layer; the best is so by own.rule.

    Writes sweep.jsonl, and scores.jsonl with the base's figures as before and the best one's as
    after."""
    specs = own.data or run.data.validation
    need(bool(specs), "data: the run has no data.validation; give files to score the scales on")
    tasks, lines = load_tasks(specs, split="validation")
    for line in lines:
        say(line)
    last = engine.module.backbone.n_layers
    points = all_points([last], run.objective.dims or [engine.module.backbone.width])
    found: dict[float, list[Score]] = {}
    for i, scale in enumerate(sorted({0.0, *own.scale})):
        mix.scale(scale, engine)
        found[scale] = run_suite(
            tasks, lambda texts, kind: encode(engine, encoder, texts, [last], kind=kind,
                                              batch_size=run.eval.batch_size),
            layers=[last], points=points,
        )[PREFIX]  # fmt: skip
        write_scores(out / "sweep.jsonl", found[scale], append=i > 0, stage=f"scale {scale:g}",
                     max_length=encoder.max_length)  # fmt: skip
    best, table = choose(found, own.rule, own.scale, own.slack)
    say(f"\n{table}\n")
    words = "the highest mean" if own.rule == "mean" else "the highest mean that lowers no family"
    say(f"scale {best:g}: {words} of {len(tasks)} task(s) and {len(points)} dim(s)")
    say("note: chosen on these very data, so its figures here are a little too good; test it on "
        "data that had no part in it")  # fmt: skip
    for stage, scale in (("before", 0.0), ("after", best)):
        write_scores(out / "scores.jsonl", found[scale], append=stage == "after", stage=stage,
                     max_length=encoder.max_length)  # fmt: skip
    return Swept(best, found, table)


def choose(
    found: Mapping[float, Sequence[Score]], rule: str, asked: Sequence[float], slack: float = 0.0
) -> tuple[float, str]:
    """The best of the scales asked for, and two tables x 100: each task's main figure, mean over
    dims; and the mean over tasks at each dim.

    found: scale -> scores, 0 (the base) too. rule: mean = the highest mean over tasks; safe = that
    among those where no family, the tasks of one metric, is more than slack points below the base;
    if there is none, 0.
    """
    mains = main_metrics(s for scores in found.values() for s in scores)
    means: dict[float, dict[str, float]] = {}
    for scale, scores in found.items():
        values = {t: [s.value for s in scores if s[:2] == (t, metric) and math.isfinite(s.value)]
                  for t, metric in mains.items()}  # fmt: skip
        means[scale] = {t: sum(v) / len(v) if v else math.nan for t, v in values.items()}
    known = [t for t in mains if all(math.isfinite(one[t]) for one in means.values())]
    need(bool(known), "data: no figure can be had of any task; give others")
    families: dict[str, list[str]] = {}
    for task in known:
        families.setdefault(label(mains[task]), []).append(task)

    def mean(scale: float, tasks: Sequence[str]) -> float:
        return sum(means[scale][t] for t in tasks) / len(tasks)

    def safe(scale: float) -> bool:
        least = slack / 100 + 1e-9
        return all(mean(scale, some) >= mean(0.0, some) - least for some in families.values())

    fit = [s for s in sorted(set(asked)) if rule == "mean" or safe(s)]
    best = max(fit, key=lambda s: mean(s, known), default=0.0)
    rows = [["scale", *(f"{t} {label(mains[t])}" for t in known), "mean"]]
    for scale in sorted(means):
        values = [*(means[scale][t] for t in known), mean(scale, known)]
        marks = ("*" if scale == best else "") + ("" if safe(scale) else " -")
        rows.append([f"{scale:g}{marks}", *(f"{100 * v:.2f}" for v in values)])
    words = "x 100, mean over dims; * = best, - = a family is below the base (scale 0)"
    dims = sorted({s.point.dim for scores in found.values() for s in scores})
    sizes = [["scale", *map(str, dims)]]
    for scale in sorted(means):
        at = {d: [s.value for s in found[scale] if s.point.dim == d and s.task in known
                  and s.metric == mains[s.task]] for d in dims}  # fmt: skip
        sizes.append([f"{scale:g}", *(f"{100 * sum(v) / len(v):.2f}" for v in at.values())])
    return best, (f"{words}\n{plain_table(rows)}\n\nx 100, mean over tasks at each dim\n"
                  f"{plain_table(sizes)}")  # fmt: skip
