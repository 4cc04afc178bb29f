"""Pictures of runs, from their files. No model needed, no display either."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mipic_llm.errors import UserError
from mipic_llm.report.scores import rows_of
from mipic_llm.report.tables import is_spearman
from mipic_llm.types import Score

INK, GREY = "#16324f", "#8a8f98"  # dark and light enough to stay apart in greyscale
# One style per line of a plot: colour, dash, marker, fill. Told apart by three signs, not by hue.
STYLES = [
    (GREY, "--", "o", "white"),
    (INK, "-", "s", INK),
    ("#b5542c", "-.", "^", "#b5542c"),
    ("#3d7d6b", ":", "D", "white"),
    ("#7a4f96", (0, (6, 1.5)), "v", "#7a4f96"),
    ("#a08a2c", (0, (3, 1, 1, 1, 1, 1)), "P", "white"),
    ("#1f1f1f", (0, (1, 1)), "X", "#1f1f1f"),
    ("#6fa3c9", (0, (8, 2, 2, 2)), "<", "#6fa3c9"),
]


def quality_plot(before: Sequence[Score], after: Sequence[Score], path: str | Path) -> None:
    """PNG of Spearman against dim (last layer, mean over tasks), before and after training."""
    comparison_plot({"before training": before, "after training": after}, path)


def comparison_plot(runs: Mapping[str, Sequence[Score]], path: str | Path) -> None:
    """PNG of Spearman against dim at the last layer, one line per named set of scores."""
    scored = [s for scores in runs.values() for s in scores if is_spearman(s)]
    if not scored:
        raise UserError(f"{path}: no plot: there are no Spearman scores; set data.validation")
    tasks = list(dict.fromkeys(s.task for s in scored))
    figure, (axes,) = new_figure(1, 1, (6.4, 4.2))
    curves = {name: _curve(scores) for name, scores in runs.items()}
    curves = {name: curve for name, curve in curves.items() if curve}
    for number, (name, curve) in enumerate(curves.items()):
        colour, dash, marker, fill = STYLES[number % len(STYLES)]
        axes.plot(
            list(curve), list(curve.values()), color=colour, linestyle=dash, marker=marker,
            markerfacecolor=fill, markeredgecolor=colour, markersize=6.5, linewidth=1.8, label=name,
        )  # fmt: skip
    if list(curves) == ["before training", "after training"]:
        first, last = curves.values()
        for dim in sorted(set(first) & set(last)):
            change = last[dim] - first[dim]
            axes.annotate(
                f"{change:+.1f}", (dim, max(last[dim], first[dim])), (-4, 9), color=INK,
                textcoords="offset points", ha="center", fontsize=9,
            )  # fmt: skip
    dims = sorted({dim for curve in curves.values() for dim in curve})
    axes.set_xscale("log", base=2)
    axes.set_xticks(dims, [str(dim) for dim in dims])
    axes.minorticks_off()
    axes.margins(x=0.06, y=0.14)
    axes.set_xlabel("dimensions kept (log scale)")
    axes.set_ylabel("Spearman x 100")
    where = tasks[0] if len(tasks) == 1 else f"mean of {len(tasks)} tasks"
    axes.set_title(f"Quality against size: {where}", loc="left", fontweight="bold")
    axes.legend(frameon=False, loc="best", handlelength=3.0)
    save(figure, path)


def _curve(scores: Sequence[Score]) -> dict[int, float]:
    """dim -> 100 * mean Spearman over tasks, at the deepest layer present."""
    scores = [s for s in scores if is_spearman(s) and math.isfinite(s.value)]
    last = max((s.point.layer for s in scores), default=0)
    values: dict[int, list[float]] = {}
    for s in scores:
        if s.point.layer == last:
            values.setdefault(s.point.dim, []).append(100 * s.value)
    return {dim: sum(v) / len(v) for dim, v in sorted(values.items())}


def loss_plot(metrics_jsonl: str | Path, path: str | Path) -> None:
    """PNG of the total loss and its parts over steps, one panel each (their scales differ)."""
    rows = [row for _, row in rows_of(metrics_jsonl) if "step" in row]
    keys = ["loss", "loss/mrl", "loss/relation", "loss/geometry", "loss/chain"]
    series = {key: _series(rows, key) for key in keys}
    series = {key: points for key, points in series.items() if points}
    if not series:
        raise UserError(f"{metrics_jsonl}: no plot: it has no losses yet")
    names = {key for row in rows for key in row if key.startswith("loss/mrl@")}
    per_dim = sorted(names, key=lambda key: int(key.split("@")[1]))
    panels = len(series) + bool(per_dim)
    columns = min(3, panels)
    lines = math.ceil(panels / columns)
    figure, flat = new_figure(lines, columns, (3.3 * columns, 2.5 * lines + 0.3))
    titles = {"loss": "total", "loss/mrl": "MRL", "loss/chain": "PIC chain",
              "loss/relation": "SIA relation", "loss/geometry": "SIA geometry"}  # fmt: skip
    for axes, (key, points) in zip(flat, series.items(), strict=False):
        steps, values = zip(*points, strict=True)
        smooth = _smooth(values)
        if smooth is None:
            axes.plot(steps, values, color=INK, linewidth=1.5)
        else:
            axes.plot(steps, values, color=GREY, linewidth=0.7, alpha=0.7)
            axes.plot(steps, smooth, color=INK, linewidth=1.8)
        axes.set_title(titles[key], loc="left", fontweight="bold")
    if per_dim:
        _per_dim_panel(flat[len(series)], [(k.split("@")[1], _series(rows, k)) for k in per_dim])
    for number, axes in enumerate(flat):
        axes.set_visible(number < panels)
        if panels - columns <= number < panels:
            axes.set_xlabel("step")
            axes.tick_params(labelbottom=True)
    figure.suptitle("Training loss and its parts", x=0.01, ha="left", fontweight="bold")
    save(figure, path)


def _per_dim_panel(axes: Any, lines: list[tuple[str, list[tuple[int, float]]]]) -> None:
    """InfoNCE at every prefix: dark = wide, and the dash differs too."""
    dashes = ["-", "--", "-.", ":"]
    for number, (dim, points) in enumerate(lines):
        if not points:
            continue
        steps, values = zip(*points, strict=True)
        shade = 0.65 - 0.6 * number / max(1, len(lines) - 1)
        axes.plot(
            steps, _smooth(values) or values, color=str(shade), linewidth=1.4, label=dim,
            linestyle=dashes[number % len(dashes)],
        )  # fmt: skip
    axes.set_title("MRL per dim", loc="left", fontweight="bold")
    axes.legend(frameon=False, fontsize=7, ncols=2, handlelength=2.2, columnspacing=1.0)


def _series(rows: list[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    return [(row["step"], row[key]) for row in rows if isinstance(row.get(key), int | float)]


def _smooth(values: Sequence[float]) -> list[float] | None:
    """Centred running mean over about a twentieth of the run; None where there is too little."""
    half = len(values) // 40
    if half < 1:
        return None
    windows = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def new_figure(lines: int, columns: int, size: tuple[float, float]) -> tuple[Any, list[Any]]:
    """An empty figure in our style and its axes, row by row.

    Drawn by Agg without pyplot: no display needed, and a caller's own backend stays as it is.
    matplotlib is imported here, so that only those who draw pay for it.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style = {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
             "grid.color": "#d9dce0", "grid.linewidth": 0.6, "axes.axisbelow": True,
             "axes.edgecolor": "#5b6068", "axes.titlesize": 11}  # fmt: skip
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(lines, columns, squeeze=False, sharex=lines * columns > 1)
    return figure, list(grid.flat)


def save(figure: Any, path: str | Path) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160, format="png")
