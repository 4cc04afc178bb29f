"""A picture per suite, from the CSV alone: `python benchmarks/run.py plot`.

Bars are the newest rows of each case, in the style of the package's own pictures; each version has
a hatch beside its colour, so a grey print reads the same. Targets are dashed lines. Rows of a dry
run are left out.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.results import PLOTS
from mipic_llm.report.plots import GREY, INK, STYLES, panel_figure, save

CSVRow = dict[str, str]
HATCHES = ("", "//", "..", "xx", "\\\\", "oo")
# suite -> the column drawn, and its label
FIGURES = {
    "sia": ("median_ms", "CPU ms, forward and backward (log)"),
    "step": ("ratio", "MIPIC over MRL"),
    "peers": ("tokens_per_s", "useful tokens per CPU second"),
    "gradcache": ("peak_mib", "peak of the process, MiB"),
    "scaling": ("ratio", "CPU time of a step over the base's"),
    "startup": ("median_ms", "wall ms to the first step; of answers, CPU ms"),
    "profile": ("median_ms", "CPU ms of a step"),
    "gpu": ("tokens_per_s", "useful tokens/s"),
}


def newest(rows: Sequence[CSVRow], suite: str, column: str) -> dict[str, dict[str, float]]:
    """case -> variant -> median of the column over the last run (date) that has that case."""
    usable = [r for r in rows
              if r["suite"] == suite and r[column] and "dry" not in r["note"]]  # fmt: skip
    last = {r["case"]: max(q["date"] for q in usable if q["case"] == r["case"]) for r in usable}
    values: dict[str, dict[str, list[float]]] = {}
    for r in usable:
        if r["date"] == last[r["case"]]:
            values.setdefault(r["case"], {}).setdefault(r["variant"], []).append(float(r[column]))
    return {c: {v: statistics.median(x) for v, x in by.items()} for c, by in values.items()}


def limit(rows: Sequence[CSVRow], suite: str, case: str, variant: str) -> float | None:
    """The newest target of this bar, in the unit that is drawn (startup's are seconds)."""
    bar = (suite, case, variant)
    found = [r["target"] for r in rows
             if (r["suite"], r["case"], r["variant"]) == bar and r["target"]]  # fmt: skip
    if not found or FIGURES[suite][0] not in ("ratio", "median_ms") or suite == "sia":
        return None
    return float(found[-1].lstrip("<>=")) * (1e3 if suite == "startup" else 1)


def draw(suite: str, rows: Sequence[CSVRow], folder: Path = PLOTS) -> list[Path]:
    """Draw one suite; nothing (an empty list) when no row of it holds a figure."""
    column, label = FIGURES[suite]
    values = newest(rows, suite, column)
    if not values:
        return []
    variants = list(dict.fromkeys(v for by in values.values() for v in by))
    bars = [(c, v, x) for c, by in values.items() for v, x in by.items()]
    figure, (axes,), _ = panel_figure(1, (8, 0.8 + 0.34 * len(bars)))
    for i, (_, variant, value) in enumerate(bars):
        k = variants.index(variant)
        axes.barh(i, value, height=0.72, color=STYLES[k % len(STYLES)][0], edgecolor="white",
                  hatch=HATCHES[k % len(HATCHES)])  # fmt: skip
        axes.annotate(f"{value:,.3g}" if value < 100 else f"{value:,.0f}", (value, i), (4, 0),
                      textcoords="offset points", va="center", fontsize=8, color=INK,
                      bbox={"color": "white", "pad": 0.5}, zorder=3)  # fmt: skip
    axes.set_yticks(range(len(bars)), [f"{case}: {variant}" for case, variant, _ in bars])
    axes.tick_params(axis="y", length=0, labelsize=9)
    axes.grid(False, axis="y")
    axes.set_ylim(len(bars) - 0.4, -0.6)
    if suite == "sia":
        axes.set_xscale("log")
    for i, (case, variant, _) in enumerate(bars):
        if (x := limit(rows, suite, case, variant)) is not None:
            axes.vlines(x, i - 0.5, i + 0.5, colors=INK, linestyles="--")
            label = FIGURES[suite][1] + " (dashed: target)"
    axes.set_xlabel(label)
    axes.margins(x=0.12)
    axes.set_title(suite, loc="left", fontweight="bold")
    machines = sorted({r["machine"] for r in rows if r["suite"] == suite and r["machine"]})
    axes.set_title("; ".join(machines), loc="right", fontsize=8, color=GREY)
    path = folder / f"{suite}.png"
    save(figure, path)
    return [path]


def draw_all(rows: Sequence[CSVRow], folder: Path = PLOTS) -> list[Path]:
    """Every suite that has rows."""
    return [path for suite in FIGURES for path in draw(suite, rows, folder)]
