"""Tables of figures: of two models, or of one before and after its training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mipic_llm.report.paired import Comparison, Difference


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
            blocks.append(f"**{caption}**\n\n{markdown_table(cells)}" if markdown
                          else f"{caption}\n{plain_table(cells)}")  # fmt: skip
    return "\n\n".join(blocks) if blocks else "no scores"


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
