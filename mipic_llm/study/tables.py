"""A study's figures as Markdown: one table per condition, metric and layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

from mipic_llm.report.tables import main_metrics, markdown_table
from mipic_llm.study.collect import Cell, Cost, Key
from mipic_llm.study.spec import Study
from mipic_llm.types import BITS


def markdown(
    study: Study, cells: dict[Key, Cell], cost: dict[tuple[str, str], Cost], layers: Sequence[int],
    notes: Sequence[str] = (),
) -> str:  # fmt: skip
    """The whole report: averages first, then each task, at the given layers (deepest first)."""
    blocks = [
        f"# Study {study.name}\n\n{len(study.methods)} methods, {len(study.conditions)} "
        f"condition(s), {len(study.seeds)} seed(s). Figures are x 100: mean over seeds, +- "
        f"standard deviation; in brackets the 95 % interval of the difference from "
        f"`{study.baseline}` (paired bootstrap over test rows, Student's t over seeds); **bold** "
        "where it excludes zero.\n",
        *(f"- {line}" for line in (verdict(study, cells, layers[0]) if layers else ())),
        "",
        *(f"{note}\n" for note in notes),
    ]
    tasks = dict.fromkeys([*study.averages, *(key.task for key in cells)])
    places = {(k.condition, k.task, k.metric, k.point.layer) for k in cells}
    for condition in study.conditions:
        blocks += [f"## {condition}\n", *_cost_table(study, condition, cost)]
        for task in tasks:
            for metric in dict.fromkeys(k.metric for k in cells if k.task == task):
                for layer in layers:
                    if (place := (condition, task, metric, layer)) in places:
                        blocks += _table(study, cells, place)
    return "\n".join(blocks)


def verdict(study: Study, cells: dict[Key, Cell], layer: int) -> list[str]:
    """A sentence per condition, method and average (without averages: task) on its main metric at
    the deepest layer: at which dims it is better than the baseline, or worse, by more than chance.
    """
    found = []
    shown = dict.fromkeys(study.averages or (k.task for k in cells))
    mains = main_metrics((k.task, k.metric) for k in cells)
    for condition, task in product(study.conditions, shown):
        for method in study.methods:
            mine = {k.point.dim: c for k, c in cells.items()
                    if (k.condition, k.task, k.metric, k.point.layer, k.family, k.method)
                    == (condition, task, mains.get(task), layer, "prefix", method)
                    and k.point.bits == 32}  # fmt: skip
            if method == study.baseline or not mine:
                continue
            groups = {"better": [], "worse": [], "not told apart": []}
            for dim, cell in sorted(mine.items()):
                sign = (cell.low > 0) - (cell.high < 0)
                groups[["not told apart", "better", "worse"][sign]].append(str(dim))
            words = "; ".join(f"{how} at {', '.join(dims)}" for how, dims in groups.items() if dims)
            found.append(f"{condition}, {task}, layer {layer}: **{method}** against "
                         f"{study.baseline}: {words} dims")  # fmt: skip
    return found


def _table(study: Study, cells: dict[Key, Cell], place: tuple[str, str, str, int]) -> list[str]:
    """Methods down, dims across, at one (condition, task, metric, layer)."""
    _, task, metric, layer = place
    here = {((k.family, k.point.bits), k.method, k.point.dim): c for k, c in cells.items()
            if (k.condition, k.task, k.metric, k.point.layer) == place}  # fmt: skip
    dims = sorted({dim for _, _, dim in here})
    rows = [["method", *map(str, dims)]]
    for family in dict.fromkeys(family for family, _, _ in here):
        for method in study.names():
            found = [here.get((family, method, dim)) for dim in dims]
            if any(found):
                rows.append([family_name(method, *family), *map(_cell, found)])
    what = f"\nmean of {', '.join(study.averages[task])}\n" if task in study.averages else ""
    return [f"### {task}, {metric}, layer {layer}\n{what}", markdown_table(rows, "---"), ""]


def family_name(method: str, family: str, bits: int = 32) -> str:
    """What a row or a curve is called: the method, what was done to its vectors, and how they are
    stored where that is not float32."""
    also = {"prefix": "", "pca": " + PCA"}.get(family, f", {family}")
    return f"{method}{also}{'' if bits == 32 else f' {BITS[bits]}'}"


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
    head = ["method", "training, s (whole command)", "useful tokens/s", "peak memory, GiB"]
    rows = [
        [m, f"{c.seconds:.0f}", f"{c.tokens_per_second:,.0f}", f"{c.memory_gib:.2f}"]
        for m in study.methods
        if (c := cost.get((condition, m)))
    ]
    return ["### cost\n", markdown_table([head, *rows], "---"), ""] if rows else []
