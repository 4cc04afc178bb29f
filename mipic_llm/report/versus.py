"""A comparison for people: text, Markdown, one HTML page, a picture, JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mipic_llm.report.comparison import Comparison, Difference, write_record
from mipic_llm.report.curves import bytes_figure, comparison_plot, heat_figure
from mipic_llm.report.evaluations import Evaluation
from mipic_llm.report.html import from_markdown, page, picture
from mipic_llm.report.plots import INK, panel_figure, put_title, style
from mipic_llm.report.tables import families_table, figures_table, label, main_metrics


class Comparisons(list[Comparison]):
    """Comparisons with one model; a list that prints, and shows in a notebook, as its report."""

    def __repr__(self) -> str:
        return as_text(self)

    def _repr_markdown_(self) -> str:
        return as_text(self, markdown=True)


def as_text(found: Sequence[Comparison], *, markdown: bool = False) -> str:
    """Verdicts and notes, then every figure."""
    blocks = []
    for one in found:
        lines = [*one.verdict(), *one.notes]
        title = f"{one.new} against {one.old}"
        tables = [families_table(one.families, markdown=markdown),
                  figures_table(one, markdown=markdown)]  # fmt: skip
        if markdown:
            head = f"## {title}\n\n**{lines[0]}**\n\n" + "".join(f"- {x}\n" for x in lines[1:])
            blocks.append(f"{head}\n" + "\n\n".join(filter(None, tables)) + "\n")
        else:
            blocks.append("\n".join([*(f"{t}\n" for t in reversed(tables) if t), *lines]))
    return ("\n" if markdown else "\n\n").join(blocks)


def gaps_figure(found: Sequence[Comparison]) -> Any:
    """Differences of the main metric of each task with their intervals, against the size (deepest
    layer). -> a matplotlib Figure."""
    mains = main_metrics(d for one in found for d in one.differences)
    figure, grid, _ = panel_figure(len(mains), (4.6, 3.5))
    for axes, (task, metric) in zip(grid, mains.items(), strict=True):
        rows = [[d for d in _of(one, task, metric) if math.isfinite(d.span.gap)] for one in found]
        last = max((d.point.layer for many in rows for d in many), default=0)
        dims = sorted({d.point.dim for many in rows for d in many if d.point.layer == last})
        axes.axhline(0, color=INK, linewidth=0.9)
        for number, (one, many) in enumerate(zip(found, rows, strict=True)):
            some = sorted((d for d in many if d.point.layer == last), key=lambda d: d.point)
            nudge = 0.08 * (number - (len(found) - 1) / 2)
            bars = [[0.0 if math.isnan(x) else 100 * abs(d.span.gap - x) for d in some
                     for x in [d.span[1 + side]]] for side in (0, 1)]  # fmt: skip
            axes.errorbar(
                [dims.index(d.point.dim) + nudge for d in some],
                [100 * d.span.gap for d in some], yerr=bars, capsize=3, linewidth=1.2,
                label=f"{one.new} minus {one.old}", **style(number + 1),
            )  # fmt: skip
        axes.set_xticks(range(len(dims)), [str(d) for d in dims])
        put_title(axes, f"{task}, layer {last}")
        axes.set_xlabel("dimensions kept")
        axes.set_ylabel(f"change of {label(metric)} x 100")
        axes.tick_params(labelbottom=True)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _of(one: Comparison, task: str, metric: str) -> list[Difference]:
    """The differences of a metric in float32."""
    return [d for d in one.differences
            if (d.task, d.metric, d.point.bits) == (task, metric, 32)]  # fmt: skip


def write_page(found: Sequence[Comparison], of: Sequence[Evaluation], out: Path) -> None:
    """comparison.md, .json, .png and .html of comparisons with the first of `of`."""
    out.mkdir(parents=True, exist_ok=True)
    text = as_text(found, markdown=True)
    (out / "comparison.md").write_text(text, encoding="utf-8")
    write_record(out / "comparison.json", found)
    gaps, names = gaps_figure(found), f"{', '.join(one.new for one in found)} against {of[0].name}"
    curves = comparison_plot({e.name: e.scores for e in of if e.scores}, None)
    pictures = [
        picture(
            gaps,
            f"{names}: change against the size; bars are 95 % intervals over test rows, paired",
            out / "comparison.png",
        ),
        picture(curves, f"{names}: quality against the size, last layer"),
    ]
    if stored := bytes_figure({e.name: e.scores for e in of}):
        pictures.append(picture(stored, f"{names}: quality against the bytes of a vector"))
    for one in found:
        pictures += _heat(one)
    body = [from_markdown(_verdicts(found)), *pictures, from_markdown(text)]
    page(names, body, out / "comparison.html")


def _verdicts(found: Sequence[Comparison]) -> str:
    title = f"# {', '.join(one.new for one in found)} against {found[0].old}\n\n"
    return title + "".join(f"**{one.verdict()[0]}**\n\n" for one in found)


def _heat(one: Comparison) -> list[str]:
    """A map of changes over layer and dim per task, where there is more than one layer."""
    mains, maps = main_metrics(one.differences), {}
    for task, metric in mains.items():
        cells = {d.point[:2]: 100 * d.span.gap for d in _of(one, task, metric)
                 if math.isfinite(d.span.gap)}  # fmt: skip
        if len({layer for layer, _ in cells}) > 1:
            maps[task] = cells
    words = f"{one.new} minus {one.old}: change x 100 at every layer and dim"
    return [picture(heat_figure(maps, "change x 100"), words)] if maps else []
