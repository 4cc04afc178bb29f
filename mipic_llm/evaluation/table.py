"""Scores as text: one table per task and metric, layers down, dims across."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mipic_llm.types import Point, Score


def points_table(scores: Sequence[Score], family: str = "") -> str:
    """Plain text, values x 100 with two decimals, `-` where undefined or not asked for."""
    blocks = []
    for task, metric in dict.fromkeys((s.task, s.metric) for s in scores):
        chosen = {s.point: s for s in scores if (s.task, s.metric) == (task, metric)}
        dims = sorted({point.dim for point in chosen})
        n = next(iter(chosen.values())).n
        title = f"{task}: {metric} x 100, {n:,} rows" + (f", {family}" if family else "")
        rows = [["layer", *(str(dim) for dim in dims)]]
        for layer in sorted({point.layer for point in chosen}):
            values = [chosen.get(Point(layer, dim)) for dim in dims]
            rows.append([str(layer), *(_x100(s.value if s else math.nan) for s in values)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(c.rjust(w) for c, w in zip(r, widths, strict=True)) for r in rows]
        blocks.append("\n".join([title, *lines]))
    return "\n\n".join(blocks)


def _x100(value: float) -> str:
    return f"{100 * value:.2f}" if math.isfinite(value) else "-"
