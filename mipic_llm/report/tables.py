"""The table of a training run: before, after, change."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from mipic_llm.types import Score


def before_after_table(
    before: Sequence[Score], after: Sequence[Score], *, layer: int, markdown: bool = False
) -> str:
    """Each task's main figure x 100 before and after training: per dim of `layer`, then per other
    point.

    One pair of blocks per task. A figure that is missing shows as `-`.
    """
    blocks = []
    for task, metric in main_metrics([*before, *after]).items():
        old, new = (
            {s.point: s for s in scores if (s.task, s.metric) == (task, metric)}
            for scores in (before, after)
        )
        points = sorted(set(old) | set(new))
        n = next(iter({**old, **new}.values())).n
        what, rows_of = (label(metric), "pairs" if is_spearman(metric) else "rows")
        for title, head, chosen in (
            (f"layer {layer}", "dim", [p for p in points if p.layer == layer]),
            ("ladder", "dim@layer", [p for p in points if p.layer != layer]),
        ):
            if not chosen:
                continue
            rows = [[head, "before", "after", "change"]]
            for point in chosen:
                a, b = (side[point].value if point in side else math.nan for side in (old, new))
                name = str(point.dim) if head == "dim" else str(point)
                rows.append([name, _x100(a), _x100(b), _x100(b - a, sign=True)])
            caption = f"{task}: {what} x 100, {title}, {n:,} {rows_of}"
            blocks.append(f"**{caption}**\n\n{markdown_table(rows)}" if markdown
                          else f"{caption}\n{plain_table(rows)}")  # fmt: skip
    return "\n\n".join(blocks) if blocks else "no scores"


def main_metrics(scores: Iterable[Score]) -> dict[str, str]:
    """Task -> the metric that speaks for it: Spearman where it has that, else its first."""
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
