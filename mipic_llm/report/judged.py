"""Whether a trained model is better than before, from a run's comparison.json."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import fmean

from mipic_llm.report.comparison import Difference, differences_of, families_of
from mipic_llm.report.tables import main_metrics
from mipic_llm.types import Judgement, Point


def judged(run: Path, best: str | None = None, point: Point | None = None) -> Judgement:
    """By the figure `best` (<task>/<metric>@<dim>@<layer>); else by the main metric of each task:
    at `point` where one is given (better = one rose and none fell), else the mean of all sizes
    (better = it rose and no family of tasks fell)."""
    try:
        (found,) = json.loads((run / "comparison.json").read_text("utf-8"))
        figures = differences_of(found)
    except (OSError, ValueError, KeyError, TypeError):
        return Judgement("", None, 0, False, "there is no comparison with the model before")
    mains = main_metrics(figures)

    def wanted(d: Difference) -> bool:
        if best is not None:
            return d.name == best
        return d.metric == mains[d.task] and (
            d.point == point or (point is None and d.point.bits == 32)
        )

    chosen = [d for d in figures if math.isfinite(d.span.gap) and wanted(d)]
    if not chosen:
        where = best or (f"the size {point}" if point else "any size")
        return Judgement("", None, 0, False, f"{where} was not evaluated before and after")
    value, n = fmean(d.new for d in chosen), sum(d.n for d in chosen)
    fell = [f"{name} {one.mean}" for name, one in families_of(found).items() if one.mean.sign < 0]
    also = f"; but {' and '.join(fell)} fell" * bool(fell)
    if best is None and point is None:
        rose = ((found.get("whole") or {}).get("low") or 0) > 0
        return Judgement(f"mean of {len(chosen)} figures", value, n, rose and not fell,
                         found["verdict"][0] + also)  # fmt: skip
    signs = [d.span.sign for d in chosen]
    words = "; ".join(f"{d.name} {d.span}{'' if d.span.known else ' (interval not known)'} against "
                      "the model before training" for d in chosen)  # fmt: skip
    return Judgement(", ".join(d.name for d in chosen), value, n, min(signs) >= 0 < max(signs),
                     words + also)  # fmt: skip
