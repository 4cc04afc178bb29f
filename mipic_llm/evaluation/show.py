"""The figures of an evaluation for people: tables and pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mipic_llm.evaluation.searches import by_query_layer
from mipic_llm.report import write_scores
from mipic_llm.report.curves import Estimate, Panels, bytes_figure, bytes_table, curves_figure
from mipic_llm.report.plots import save
from mipic_llm.types import BITS, Point, Score


def write_and_show(out: Path, scores: dict[str, list[Score]], length: int) -> None:
    """All families onto the screen, then into one file: a full disk does not take the figures."""
    for family, found in scores.items():
        words = f", {length} tokens" + (f", {family}" if len(scores) > 1 else "")
        print("\n" + points_table(found, words), flush=True)
    for i, (family, found) in enumerate(scores.items()):
        write_scores(out / "scores.jsonl", found, append=i > 0, readout=family, max_length=length)
    if figure := bytes_figure(scores):
        save(figure, out / "bytes.png")
        print("\n" + bytes_table(scores) + f"\n\nplot: {out / 'bytes.png'}")
    print(f"\nscores: {out / 'scores.jsonl'}", flush=True)


def points_table(scores: Sequence[Score], words: str) -> str:
    """Plain text: a table per task, metric and number of bits, layers down, dims across, values x
    100 with two decimals, `-` where undefined or not asked for. words: the end of each title."""
    blocks = []
    for task, metric, bits in dict.fromkeys((s.task, s.metric, s.point.bits) for s in scores):
        chosen = {s.point: s for s in scores
                  if (s.task, s.metric, s.point.bits) == (task, metric, bits)}  # fmt: skip
        dims = sorted({point.dim for point in chosen})
        n = next(iter(chosen.values())).n
        stored = "" if bits == 32 else f", {BITS[bits]}"
        title = f"{task}: {metric} x 100, {n:,} rows{words}{stored}"
        rows = [["layer", *map(str, dims)]]
        for layer in sorted({point.layer for point in chosen}):
            found = [chosen.get(Point(layer, dim, bits)) for dim in dims]
            values = [math.nan if s is None else 100 * s.value for s in found]
            rows.append([str(layer), *(f"{v:.2f}" if math.isfinite(v) else "-" for v in values)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(c.rjust(w) for c, w in zip(r, widths, strict=True)) for r in rows]
        blocks.append("\n".join([title, *lines]))
    return "\n\n".join(blocks)


def depth_figure(scores: dict[str, list[Score]], times: Mapping[int, float]) -> Any:
    """Quality of queries of each layer against documents of the deepest, a curve per dim, over the
    time of a query. times: layer -> milliseconds (`evaluation.timing`)."""
    panels: Panels = {}
    for (task, metric, dim), cells in by_query_layer(scores).items():
        last = max(layer for _, layer in cells)
        curve = {k: Estimate(100 * v) for (k, n), v in sorted(cells.items()) if n == last}
        panels.setdefault(f"{task}: {metric}", {})[f"{dim} channels"] = curve
    return curves_figure(panels, "quality x 100, documents at the deepest layer", (5.4, 3.9),
                         "milliseconds a query, to layer (n)", places=times)  # fmt: skip
