"""Tables of figures: of two models, or of one before and after its training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mipic_llm.types import Point

if TYPE_CHECKING:
    from mipic_llm.report.comparison import Comparison, Difference, Family


def figures_table(found: Comparison, *, markdown: bool = False) -> str:
    """Every figure x 100 of two models, its change and the change's 95 % interval: per task and
    metric (the main one first) the dims of the deepest layer, then other layers' points.

    A figure that is missing shows as `-`; without intervals there is no column for them.
    """
    mains, blocks = main_metrics(found.differences), []
    chosen: dict[tuple[str, str], list[Difference]] = {}
    for one in found.differences:
        chosen.setdefault((one.task, one.metric), []).append(one)
    tasks = list(mains)
    order = sorted(chosen, key=lambda k: (tasks.index(k[0]), k[1] != mains[k[0]]))
    cut = f", {found.max_length} tokens" if found.max_length else ""
    for task, metric in order:
        rows = sorted(chosen[task, metric], key=lambda d: (-d.point.bits, d.point))
        last = max(d.point.layer for d in rows)
        unit, spans = "pairs" if is_spearman(metric) else "rows", any(d.span.known for d in rows)
        for title, head, some in (
            (f"layer {last}", "dim", [d for d in rows if d.point.layer == last]),
            ("other layers", "dim@layer", [d for d in rows if d.point.layer != last]),
        ):
            if not some:
                continue
            cells = [[head, found.old, found.new, "change", *["95 % interval"] * spans]]
            for d in some:
                name = d.point.size if head == "dim" else str(d.point)
                cells.append([name, _x100(d.old), _x100(d.new), _x100(d.span.gap, sign=True)])
                if spans:
                    low, high = (_x100(x, sign=True) for x in (d.span.low, d.span.high))
                    cells[-1].append(f"{low} .. {high}" if d.span.known else "-")
            caption = f"{task}: {label(metric)} x 100, {title}, {some[0].n:,} {unit}{cut}"
            blocks.append(_titled(caption, cells, markdown))
    return "\n\n".join(blocks) if blocks else "no scores"


def families_table(families: Mapping[str, Family], *, markdown: bool = False) -> str:
    """Change x 100 of each family of tasks at each size, `*` where its 95 % interval excludes zero;
    empty for one family."""
    if len(families) < 2:
        return ""
    points = {p for family in families.values() for p in family.sizes}
    dims = sorted({p.dim for p in points})
    rows = [["change x 100", *map(str, dims), "all sizes"]]
    for layer in sorted({p.layer for p in points}, reverse=True):
        for name, family in families.items():
            spans = [family.sizes.get(Point(layer, dim)) for dim in dims]
            mean = _starred(family.mean) if layer == max(p.layer for p in points) else ""
            rows.append([f"layer {layer}, {name}", *map(_starred, spans), mean])
    note = "families of tasks, by dims; * = more than chance (the 95 % interval excludes zero)"
    return _titled(note, rows, markdown, ":---")


def _starred(span: Any) -> str:
    if span is None or math.isnan(span.gap):
        return "-"
    return f"{100 * span.gap:+.2f}" + "*" * (span.sign != 0)


def main_metrics(scores: Iterable[Any]) -> dict[str, str]:
    """Task -> the metric that speaks for it: Spearman where it has that, else its first. scores:
    Score, Difference or other tuples that begin with a task and a metric."""
    found: dict[str, str] = {}
    for task, metric, *_ in scores:
        if task not in found or (is_spearman(metric) and not is_spearman(found[task])):
            found[task] = metric
    return found


def is_spearman(metric: str) -> bool:
    return metric.endswith("spearman")


def label(metric: str) -> str:
    """A metric's name in tables and pictures."""
    return "Spearman" if is_spearman(metric) else metric


def _x100(value: float, sign: bool = False) -> str:
    return "-" if math.isnan(value) else f"{100 * value:{'+' if sign else ''}.2f}"


def _titled(title: str, rows: Sequence[Sequence[str]], markdown: bool, first: str = "---:") -> str:
    """A table below its title; first: see `markdown_table`."""
    if markdown:
        return f"**{title}**\n\n{markdown_table(rows, first)}"
    return f"{title}\n{plain_table(rows)}"


def plain_table(rows: Sequence[Sequence[str]]) -> str:
    """Right-aligned columns; the first row is the head."""
    widths = [
        max(map(len, column)) + (3 if i else 2) for i, column in enumerate(zip(*rows, strict=True))
    ]
    lines = ["".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([lines[0], "  " + "-" * (sum(widths) - 2), *lines[1:]])


def markdown_table(rows: Sequence[Sequence[str]], first: str = "---:") -> str:
    """The same in Markdown; first: alignment of the first column."""
    head, *lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|".join(["", first, *["---:"] * (len(rows[0]) - 1), ""]), *lines])
