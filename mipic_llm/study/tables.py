"""A study's figures as Markdown: one table per condition, metric and layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mipic_llm.study.collect import Cell, Cost, Key
from mipic_llm.study.spec import UNTRAINED, Study
from mipic_llm.types import Point


def markdown(
    study: Study, cells: dict[Key, Cell], cost: dict[tuple[str, str], Cost], layers: Sequence[int]
) -> str:
    """The whole report: averages first, then each task, at the given layers (deepest first)."""
    n = len(study.seeds)
    head = (
        f"# Study {study.name}\n\n{len(study.methods)} methods, {len(study.conditions)} "
        f"condition(s), {n} seed(s). Figures are x 100: mean over seeds, +- standard deviation; in "
        f"brackets the 95 % interval of the difference from `{study.baseline}` (paired bootstrap "
        "over test rows and seeds); **bold** where it excludes zero.\n"
    )
    blocks = [head]
    families = list(dict.fromkeys(key.family for key in cells))
    tasks = list(study.averages)
    tasks += [t for t in dict.fromkeys(key.task for key in cells) if t not in tasks]
    for condition in study.conditions:
        blocks.append(f"## {condition}\n")
        blocks += _cost_table(study, condition, cost)
        for task in tasks:
            metrics = dict.fromkeys(k.metric for k in cells if k.task == task)
            for metric in metrics:
                for layer in layers:
                    blocks += _table(study, cells, condition, task, metric, layer, families)
    return "\n".join(blocks)


def _table(study, cells, condition, task, metric, layer, families) -> list[str]:
    dims = sorted({
        k.point.dim for k in cells
        if (k.condition, k.task, k.metric, k.point.layer) == (condition, task, metric, layer)
    })  # fmt: skip
    if not dims:
        return []
    rows = []
    for family in families:
        for method in ([UNTRAINED] if study.untrained else []) + list(study.methods):
            found = [cells.get(Key(condition, method, family, task, metric, Point(layer, d)))
                     for d in dims]  # fmt: skip
            if any(found):
                name = method if family == "prefix" else f"{method} + PCA"
                rows.append([name, *(_cell(c) for c in found)])
    what = "mean of " + ", ".join(study.averages[task]) if task in study.averages else task
    title = f"### {task}, {metric}, layer {layer}\n" + (f"\n{what}\n" if what != task else "")
    return [title, _grid(["method", *map(str, dims)], rows), ""]


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    text = f"{100 * cell.mean:.2f}"
    if math.isfinite(cell.spread):
        text += f" +- {100 * cell.spread:.2f}"
    if not math.isfinite(cell.low):
        return text
    if cell.low > 0 or cell.high < 0:
        text = f"**{text}**"
    return f"{text} [{100 * cell.low:+.2f}, {100 * cell.high:+.2f}]"


def _cost_table(study: Study, condition: str, cost: dict[tuple[str, str], Cost]) -> list[str]:
    rows = [
        [m, f"{c.seconds:.0f}", f"{c.tokens_per_second:,.0f}", f"{c.memory_gib:.2f}"]
        for m in study.methods
        if (c := cost.get((condition, m)))
    ]
    if not rows:
        return []
    head = ["method", "training, s (whole command)", "useful tokens/s", "peak memory, GiB"]
    return ["### cost\n", _grid(head, rows), ""]


def _grid(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
