"""A picture per suite, from the CSV alone: `python benchmarks/run.py plot`.

Bars are the newest rows of each case; hatches, not colours, tell versions apart, so a grey print
reads the same. Targets are dashed lines. Rows of a dry run are left out.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

from benchmarks.harness import PLOTS  # noqa: E402

CSVRow = dict[str, str]
HATCHES = ("", "//", "..", "xx", "\\\\", "oo")
# suite -> the column drawn, and its label
FIGURES = {
    "sia": ("median_ms", "CPU ms, forward and backward (log)"),
    "step": ("ratio", "MIPIC over MRL"),
    "peers": ("tokens_per_s", "useful tokens per CPU second"),
    "gradcache": ("peak_mib", "peak of the process, MiB"),
    "scaling": ("ratio", "CPU time of a step over the base's"),
    "startup": ("median_ms", "wall ms to the first step"),
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
    figure, axes = plt.subplots(figsize=(8, 0.9 + 0.34 * len(bars)))
    for i, (_, variant, value) in enumerate(bars):
        k = variants.index(variant) % len(HATCHES)
        axes.barh(i, value, color=str(0.9 - 0.1 * k), edgecolor="black", hatch=HATCHES[k])
        axes.text(
            value, i - 0.15, f" {value:,.3g}" if value < 100 else f" {value:,.0f}", va="center"
        )
    axes.set_yticks(range(len(bars)), [f"{case}: {variant}" for case, variant, _ in bars])
    axes.invert_yaxis()
    if suite == "sia":
        axes.set_xscale("log")
    for i, (case, variant, _) in enumerate(bars):
        if (x := limit(rows, suite, case, variant)) is not None:
            axes.vlines(x, i - 0.5, i + 0.5, colors="black", linestyles="--")
            label = FIGURES[suite][1] + " (dashed: target)"
    axes.set_xlabel(label)
    axes.margins(x=0.12)
    machines = sorted({r["machine"] for r in rows if r["suite"] == suite and r["machine"]})
    axes.set_title(f"{suite}  ({'; '.join(machines)})" if machines else suite, fontsize=10)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{suite}.png"
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
    return [path]


def draw_all(rows: Sequence[CSVRow], folder: Path = PLOTS) -> list[Path]:
    """Every suite that has rows."""
    return [path for suite in FIGURES for path in draw(suite, rows, folder)]
