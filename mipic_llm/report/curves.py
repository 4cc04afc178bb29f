"""Pictures that compare sizes, runs and methods: curves with spreads, heat maps, retention.

Told apart by dash, marker and fill as well as by colour, so that they are right in greyscale.
Values are x 100 everywhere here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mipic_llm.errors import UserError
from mipic_llm.report.plots import INK, panel_figure, put_title, save, style
from mipic_llm.report.scores import PREFIX
from mipic_llm.report.tables import label, main_metrics, plain_table
from mipic_llm.types import BITS, Point, Score


class Estimate(NamedTuple):
    """A figure with its spread (standard deviation over seeds; nan for one seed)."""

    mean: float
    spread: float = math.nan


Curves = Mapping[str, Mapping[int, Estimate]]  # method -> dim -> estimate
Panels = dict[str, dict[str, dict[int, Estimate]]]  # title -> method -> dim -> estimate


def quality_plot(before: Sequence[Score], after: Sequence[Score], path: str | Path) -> None:
    """PNG of quality against dim (last layer, mean over tasks), before and after training."""
    comparison_plot({"before training": before, "after training": after}, path)


def comparison_plot(runs: Mapping[str, Sequence[Score]], path: str | Path | None) -> Any:
    """Quality against dim at the last layer, one line per named set of scores, one panel per main
    metric of tasks. -> the Figure.

    path: of the PNG; None = not written. Raises UserError where there are no scores.
    """
    mains = main_metrics(s for many in runs.values() for s in many)
    if not mains:
        where = f"{path}: " if path else ""
        raise UserError(f"{where}no plot: there are no scores; set data.validation")
    panels = _panels(runs, "dim")
    first, *_ = panels
    what, _, where = first.partition(": ")
    panels = {f"Quality against size: {where}": panels.pop(first)} | panels
    figure = curves_figure(panels, f"{what} x 100", (6.4, 3.9))
    for axes, curves in zip(figure.axes, panels.values(), strict=False):
        if list(curves) != ["before training", "after training"]:
            continue
        one, two = curves.values()
        for place, dim in enumerate(sorted({*one, *two})):
            if dim in one and dim in two:
                old, new = one[dim].mean, two[dim].mean
                axes.annotate(
                    f"{new - old:+.1f}", (place, max(new, old)), (-4, 9), color=INK,
                    textcoords="offset points", ha="center", fontsize=9,
                )  # fmt: skip
    if path is not None:
        save(figure, path)
    return figure


def _panels(runs: Mapping[str, Sequence[Score]], size: str) -> Panels:
    """Title -> line -> size -> 100 * mean over tasks of their main metric, at the deepest layer.

    size: dim, with float32 alone, or bytes, with a line per run and number of bits. Tasks share a
    panel where the same lines have them: means over other tasks could not be compared. Nor is there
    a mean at a size where a task of the panel has no value.
    """
    mains = main_metrics(s for many in runs.values() for s in many)
    lines: dict[str, list[Score]] = {}
    for name, many in runs.items():
        for s in many:
            if s.metric == mains[s.task] and (size == "bytes" or s.point.bits == 32):
                line = name if size == "dim" else f"{name} {BITS[s.point.bits]}".strip()
                lines.setdefault(line, []).append(s)
    groups: dict[tuple, list[str]] = {}
    for task, metric in mains.items():
        has = tuple(line for line, many in lines.items()
                    if any(s.task == task and math.isfinite(s.value) for s in many))  # fmt: skip
        groups.setdefault((label(metric), has), []).append(task)
    panels: Panels = {}
    for (what, has), tasks in groups.items():
        title = f"{what}: " + (tasks[0] if len(tasks) == 1 else f"mean of {len(tasks)} tasks")
        title += f" ({', '.join(tasks)})" * (title in panels)
        panels[title] = {line: _curve([s for s in lines[line] if s.task in tasks], size, len(tasks))
                         for line in has}  # fmt: skip
    return panels


def _curve(scores: Sequence[Score], size: str, n_tasks: int) -> dict[int, Estimate]:
    last = max(s.point.layer for s in scores)
    values: dict[int, list[float]] = {}
    for s in scores:
        if s.point.layer == last and math.isfinite(s.value):
            values.setdefault(getattr(s.point, size), []).append(100 * s.value)
    return {k: Estimate(sum(v) / n_tasks) for k, v in sorted(values.items()) if len(v) == n_tasks}


def bytes_figure(runs: Mapping[str, Sequence[Score]]) -> Any:
    """Quality against the bytes of a stored vector, deepest layer: a line per named set of scores
    and number of bits, a panel per main metric. -> the Figure; None where all is float32."""
    if {s.point.bits for many in runs.values() for s in many} <= {32}:
        return None
    return curves_figure(_panels(runs, "bytes"), "quality x 100", (6.4, 3.9), "bytes a vector")


def bytes_table(scores: Mapping[str, Sequence[Score]]) -> str:
    """Quality against the bytes of a stored vector, deepest layer: for each size the best way to
    have it, by the mean of the main metric x 100 over the tasks that have every number of bits."""
    mains = main_metrics(s for many in scores.values() for s in many)
    bits: dict[str, set[int]] = {task: set() for task in mains}
    for s in (s for many in scores.values() for s in many):
        bits[s.task].add(s.point.bits)
    every = set.union(*bits.values())
    last = max(s.point.layer for many in scores.values() for s in many)
    means: dict[tuple[str, Point], list[float]] = {}
    for family, many in scores.items():
        for s in many:
            if mains[s.task] == s.metric and s.point.layer == last and bits[s.task] == every:
                means.setdefault((family, s.point), []).append(100 * s.value)
    whole = max(map(len, means.values()))  # a route of searches alone is another mean
    found = {k: sum(v) / len(v) for k, v in means.items() if len(v) == whole}
    rows = [["bytes", "quality", "stored as"]]
    for size in sorted({point.bytes for _, point in found}):
        here = {k: v for k, v in found.items() if k[1].bytes == size and math.isfinite(v)}
        if here:
            family, point = max(here, key=here.__getitem__)
            words = point.size + ("" if family == PREFIX else f", {family}")
            rows.append([f"{size:,}", f"{here[family, point]:.2f}", words])
    return f"bytes a vector, the best at each size, layer {last}\n" + plain_table(rows)


def curves_figure(
    panels: Mapping[str, Curves], ylabel: str, size: tuple[float, float] = (4.6, 3.5),
    xlabel: str = "dimensions kept", places: Mapping[int, float] | None = None,
) -> Any:  # fmt: skip
    """Quality against size, one panel per title, spread as error bars. -> a matplotlib Figure.

    places: where each size stands on the axis, in the unit of xlabel, with the size in brackets;
    None = side by side.
    """
    figure, grid, _ = panel_figure(len(panels), size)
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    for axes, (title, curves) in zip(grid, panels.items(), strict=True):
        dims = sorted({dim for curve in curves.values() for dim in curve})
        at = places or {dim: place for place, dim in enumerate(dims)}
        words = [f"{at[dim]:.1f}\n({dim})" if places else str(dim) for dim in dims]
        if places:  # twelve at most, the last one always
            words = [w if (len(words) - 1 - i) % -(-len(words) // 12) == 0 else ""
                     for i, w in enumerate(words)]  # fmt: skip
        for number, (name, curve) in enumerate(curves.items()):
            nudge = 0 if places else 0.05 * (number - (len(curves) - 1) / 2)  # bars side by side
            known = {d: e for d, e in sorted(curve.items()) if math.isfinite(e.mean)}
            axes.errorbar(
                [at[d] + nudge for d in known], [e.mean for e in known.values()],
                yerr=[0.0 if math.isnan(e.spread) else e.spread for e in known.values()],
                markersize=5.5, linewidth=1.6, capsize=2.5, elinewidth=0.9, label=name,
                **style(names.index(name)),
            )  # fmt: skip
        axes.set_xticks([at[dim] for dim in dims], words)
        axes.margins(x=0.06, y=0.14)
        _titled(axes, title, xlabel)
    grid[0].set_ylabel(ylabel)
    lines = {words: line for axes in grid
             for line, words in zip(*axes.get_legend_handles_labels(), strict=True)}  # fmt: skip
    figure.legend(lines.values(), lines, loc="outside lower center", ncols=min(6, len(lines) or 1),
                  frameon=False, handlelength=3.0)  # fmt: skip
    return figure


def heat_figure(maps: Mapping[str, Mapping[tuple[int, int], float]], label: str) -> Any:
    """Layer x dim, one map per title on one scale, each cell with its number."""
    values = [v for cells in maps.values() for v in cells.values() if math.isfinite(v)]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    figure, panels, _ = panel_figure(len(maps), (4.4, 3.1))
    for axes, (title, cells) in zip(panels, maps.items(), strict=True):
        layers, dims = (sorted({key[i] for key in cells}) for i in (0, 1))
        grid = [[cells.get((layer, d), math.nan) for d in dims] for layer in layers]
        image = axes.imshow(grid, origin="lower", aspect="auto", cmap="cividis", vmin=low,
                            vmax=high)  # fmt: skip
        for row, line in enumerate(grid):
            for column, value in enumerate(line):
                if math.isfinite(value):
                    dark = value < low + 0.55 * (high - low)
                    axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8,
                              color="white" if dark else "black")  # fmt: skip
        axes.set_xticks(range(len(dims)), [str(d) for d in dims])
        axes.set_yticks(range(len(layers)), [str(layer) for layer in layers])
        axes.grid(False)
        _titled(axes, title)
    panels[0].set_ylabel("layer")
    figure.colorbar(image, ax=panels, label=label, shrink=0.9)
    return figure


def _titled(axes: Any, title: str, xlabel: str = "dimensions kept") -> None:
    put_title(axes, title)
    axes.set_xlabel(xlabel)
    axes.tick_params(labelbottom=True)


def retention(curves: Curves) -> dict[str, dict[int, Estimate]]:
    """100 x score at d over score at the full width, of the same method.

    A method that scores 0 or less at the full width is left out: a share of that means nothing.
    """
    found = {}
    for name, curve in curves.items():
        full = curve[max(curve)].mean if curve else math.nan
        if full > 0:
            found[name] = {d: Estimate(100 * e.mean / full, 100 * e.spread / full)
                           for d, e in curve.items()}  # fmt: skip
    return found
