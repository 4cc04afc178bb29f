"""Whether a trained model is better than before, from a run's comparison.json."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

from mipic_llm.report.comparison import families_of
from mipic_llm.report.tables import main_metrics
from mipic_llm.types import Judgement, Point


def judged(run: Path, best: str | None = None, point: Point | None = None) -> Judgement:
    """By the figure `best` (<task>/<metric>@<dim>@<layer>); else by the main metric of each task:
    at `point` where one is given (better = one rose and none fell), else the mean of all sizes
    (better = it rose and no family of tasks fell)."""
    try:
        (found,) = json.loads((run / "comparison.json").read_text("utf-8"))
        figures = found["figures"]
    except (OSError, ValueError, KeyError, TypeError):
        return Judgement("", None, 0, False, "there is no comparison with the model before")
    mains = main_metrics((f["task"], f["metric"]) for f in figures)

    def wanted(f: dict[str, Any]) -> bool:
        if best is not None:
            return _name(f) == best
        at = _point(f)
        return f["metric"] == mains[f["task"]] and (
            at == point or (point is None and at.bits == 32)
        )

    chosen = [f for f in figures if f["difference"] is not None and wanted(f)]
    if not chosen:
        where = best or (f"the size {point}" if point else "any size")
        return Judgement("", None, 0, False, f"{where} was not evaluated before and after")
    value, n = fmean(f["new"] for f in chosen), sum(f["n"] for f in chosen)
    fell = [f"{name} {one.mean}" for name, one in families_of(found).items() if one.mean.sign < 0]
    also = f"; but {' and '.join(fell)} fell" * bool(fell)
    if best is None and point is None:
        rose = ((found.get("whole") or {}).get("low") or 0) > 0
        return Judgement(f"mean of {len(chosen)} figures", value, n, rose and not fell,
                         found["verdict"][0] + also)  # fmt: skip
    signs = [((f["low"] or 0) > 0) - ((f["high"] or 0) < 0) for f in chosen]
    words = "; ".join(f"{_name(f)} {_span(f)} against the model before training" for f in chosen)
    return Judgement(", ".join(map(_name, chosen)), value, n, min(signs) >= 0 < max(signs),
                     words + also)  # fmt: skip


def _name(figure: dict[str, Any]) -> str:
    return f"{figure['task']}/{figure['metric']}@{_point(figure)}"


def _point(figure: dict[str, Any]) -> Point:
    return Point(figure["layer"], figure["dim"], figure.get("bits", 32))


def _span(figure: dict[str, Any]) -> str:
    text = f"{100 * figure['difference']:+.2f}"
    if figure["low"] is None:
        return f"{text} (interval not known)"
    return f"{text} [{100 * figure['low']:+.2f}, {100 * figure['high']:+.2f}]"
