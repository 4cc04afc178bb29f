"""Pictures of a run's losses, and the style of all pictures. No model needed, no display either."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mipic_llm.errors import UserError
from mipic_llm.report.scores import rows_of

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
# Titles of the loss panels; a part that is not here goes by its own name.
TITLES = {"loss": "total", "loss/mrl": "MRL", "loss/chain": "PIC chain",
          "loss/relation": "SIA relation", "loss/geometry": "SIA geometry",
          "loss/cosent": "CoSENT", "loss/angle": "AnglE"}  # fmt: skip
SOURCE = "loss_source/"
Points = list[tuple[int, float]]  # (step, value)


def loss_parts(metrics_jsonl: str | Path) -> dict[str, dict[str, Points]]:
    """Every loss of a run as panels: title -> label -> points.

    The total and each `loss/<part>` have a panel with one unnamed line; the totals of several
    sources share a panel, one line each, and the `loss/<part>@<dim>` of a part share a panel, one
    line per dim. Order: as in the file, the shared panels last.
    """
    parts: dict[str, dict[str, Points]] = {}
    per_dim: dict[str, dict[str, Points]] = {}
    for _, row in rows_of(metrics_jsonl):
        for key, value in row.items():
            if not (key == "loss" or key.startswith(("loss/", SOURCE))) or "step" not in row:
                continue
            part, _, dim = key.partition("@")
            title = TITLES.get(part, part.removeprefix("loss/")) + (" per dim" if dim else "")
            if key.startswith(SOURCE):
                title, dim = "total per source", key.removeprefix(SOURCE)
            points = (per_dim if dim else parts).setdefault(title, {}).setdefault(dim, [])
            if isinstance(value, int | float):
                points.append((row["step"], value))
    for title, lines in per_dim.items():
        per_dim[title] = dict(sorted(lines.items(), key=lambda item: (len(item[0]), item[0])))
    found = {t: {k: p for k, p in v.items() if p} for t, v in (parts | per_dim).items()}
    return {title: lines for title, lines in found.items() if lines}


def loss_plot(metrics_jsonl: str | Path, path: str | Path) -> None:
    """PNG of the total loss and its parts over steps, one panel each (their scales differ)."""
    panels = loss_parts(metrics_jsonl)
    if not panels:
        raise UserError(f"{metrics_jsonl}: no plot: it has no losses yet")
    figure, grid, columns = panel_figure(len(panels), (3.3, 2.5))
    for axes, (title, lines) in zip(grid, panels.items(), strict=True):
        for number, (dim, points) in enumerate(lines.items()):
            steps, values = zip(*points, strict=True)
            smooth = _smooth(values)
            if dim:  # dark = wide, and the dash differs too
                shade = str(0.65 - 0.6 * number / max(1, len(lines) - 1))
                axes.plot(steps, smooth or values, color=shade, linewidth=1.4, label=dim,
                          linestyle=("-", "--", "-.", ":")[number % 4])  # fmt: skip
            elif smooth is None:
                axes.plot(steps, values, color=INK, linewidth=1.5)
            else:
                axes.plot(steps, values, color=GREY, linewidth=0.7, alpha=0.7)
                axes.plot(steps, smooth, color=INK, linewidth=1.8)
        if "" not in lines:
            axes.legend(
                frameon=False,
                fontsize=7,
                ncols=2,
                handlelength=2.2,
                columnspacing=1.0,
                title="dim" if title.endswith(" per dim") else None,
                title_fontsize=7,
            )
        put_title(axes, title)
    for axes in grid[-columns:]:
        axes.set_xlabel("step")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.tick_params(labelbottom=True)
    for axes in grid[::columns]:
        axes.set_ylabel("loss")
    longest = max(len(points) for lines in panels.values() for points in lines.values())
    smooth = f": mean over {2 * (longest // 40) + 1} points; grey: each" if longest >= 40 else ""
    figure.suptitle(f"Training loss and its parts{smooth}", x=0.01, ha="left", fontweight="bold")
    save(figure, path)


def _smooth(values: Sequence[float]) -> list[float] | None:
    """Centred running mean over about a twentieth of the run; None where there is too little."""
    n, half = len(values), len(values) // 40
    if half < 1:
        return None
    sums, at = np.cumsum([0.0, *values]), np.arange(n)
    first, end = np.maximum(0, at - half), np.minimum(n, at + half + 1)
    return ((sums[end] - sums[first]) / (end - first)).tolist()


def style(number: int) -> dict[str, Any]:
    """The matplotlib options of a plot's n-th line."""
    colour, dash, marker, fill = STYLES[number % len(STYLES)]
    return {"color": colour, "linestyle": dash, "marker": marker, "markerfacecolor": fill,
            "markeredgecolor": colour}  # fmt: skip


def panel_figure(panels: int, size: tuple[float, float]) -> tuple[Any, list[Any], int]:
    """-> (figure, axes of so many panels in rows of at most three, columns); size: inches of one.

    Drawn by Agg without pyplot: no display needed, and a caller's own backend stays as it is.
    matplotlib is imported here, so that only those who draw pay for it.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(3, panels)
    lines = -(-panels // columns)
    look = {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
            "grid.color": "#d9dce0", "grid.linewidth": 0.6, "axes.axisbelow": True,
            "axes.edgecolor": "#5b6068", "axes.titlesize": 11}  # fmt: skip
    with matplotlib.rc_context(look):
        inches = (size[0] * columns, size[1] * lines + 0.3)
        figure = Figure(figsize=inches, layout="constrained")
        FigureCanvasAgg(figure)
        grid = list(figure.subplots(lines, columns, squeeze=False, sharex=panels > 1).flat)
    for axes in grid[panels:]:
        axes.set_visible(False)
    return figure, grid[:panels], columns


def put_title(axes: Any, title: str) -> None:
    """A panel's title, above its frame. With the height given, matplotlib does not look for one
    that is clear of all ticks, which took a seventh of the time of a picture."""
    axes.set_title(title, loc="left", fontweight="bold", y=1.0)


def save(figure: Any, path: str | Path) -> None:
    """Write a figure of `panel_figure` as PNG, its folder too. `savefig` gives the same pixels, but
    draws twice: once for the layout, which this drawing sees to itself."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    own = figure.get_dpi()
    figure.set_dpi(160)
    try:
        figure.canvas.print_png(str(path))
    finally:
        figure.set_dpi(own)
