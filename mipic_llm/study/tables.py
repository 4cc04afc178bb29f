"""A study's figures as Markdown: one table per condition, metric and layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

from mipic_llm.report.comparison import Span
from mipic_llm.report.scores import LENS, PCA, PREFIX
from mipic_llm.report.tables import main_metrics, markdown_table
from mipic_llm.study.collect import Cell, Cost, Key
from mipic_llm.study.spec import UNTRAINED, Study
from mipic_llm.types import BITS


def markdown(
    study: Study, cells: dict[Key, Cell], cost: dict[tuple[str, str], Cost],
    notes: Sequence[str] = (), missing: Sequence[str] = (),
) -> str:  # fmt: skip
    """The whole report: verdicts and what is missing, averages, then each task, at the layers of a
    condition (of more than three the deepest, a middle one and the first)."""
    blocks = [
        f"# Study {study.name}\n",
        *(f"- {line}" for line in [*summary(study, cells), *verdict(study, cells), *missing]),
        f"\n{len(study.methods)} methods, {len(study.conditions)} condition(s), "
        f"{len(study.seeds)} seed(s). Figures are x 100: mean over seeds, +- standard deviation; "
        f"in brackets the 95 % interval of the difference from `{study.baseline}` (paired "
        "bootstrap over test rows, Student's t over seeds); **bold** where it excludes zero. Rows "
        '"less untrained" are differences from the untrained model, with their interval.\n',
        *(f"{note}\n" for note in notes),
    ]
    tasks = dict.fromkeys([*study.averages, *(key.task for key in cells)])
    places = {(k.condition, k.task, k.metric, k.point.layer) for k in cells}
    for condition in study.conditions:
        layers = sorted({k.point.layer for k in cells if k.condition == condition}, reverse=True)
        if len(layers) > 3:
            layers = [layers[0], layers[len(layers) // 2], layers[-1]]
        blocks += [f"## {condition}\n", *_cost_table(study, condition, cost)]
        for task in tasks:
            for metric in dict.fromkeys(k.metric for k in cells if k.task == task):
                for layer in layers:
                    if (place := (condition, task, metric, layer)) in places:
                        blocks += _table(study, cells, place)
    return "\n".join(blocks)


def main_cells(study: Study, cells: dict[Key, Cell]) -> dict[Key, Cell]:
    """What verdicts speak of: averages (without them: tasks) on their main metric, float32."""
    shown = {*(study.averages or (k.task for k in cells))}
    mains = main_metrics((k.task, k.metric) for k in cells)
    return {k: c for k, c in cells.items() if k.task in shown and k.metric == mains[k.task]
            and (k.family, k.point.bits) == (PREFIX, 32)}  # fmt: skip


def summary(study: Study, cells: dict[Key, Cell]) -> list[str]:
    """A sentence per method: at how many sizes, of all tasks (or averages) and layers, it is better
    or worse than the baseline and than the untrained model by more than chance."""
    told, lines = main_cells(study, cells), []
    for method in study.methods:
        mine = [c for k, c in told.items() if k.method == method]
        parts = []
        for name, gaps in ((study.baseline, [c.gap for c in mine]),
                           (UNTRAINED, [c.gap0 for c in mine])):  # fmt: skip
            if signs := [gap.sign for gap in gaps if gap.known]:
                better, worse = signs.count(1), signs.count(-1)
                rest = ", not told apart at the others" * (better + worse < len(signs))
                words = f"better at {better}, worse at {worse} of {len(signs)} sizes{rest}"
                if not better + worse:
                    words = f"not told apart at any of {len(signs)} sizes"
                parts.append(f"against {name} {words}")
        if parts:
            lines.append(f"**{method}**: {'; '.join(parts)}")
    return lines


def verdict(study: Study, cells: dict[Key, Cell]) -> list[str]:
    """A sentence per condition, average (without averages: task) and method on its main metric at
    its deepest layer: at which dims it is better than the baseline, or than the untrained model,
    or worse, by more than chance."""
    told, found = main_cells(study, cells), []
    shown = dict.fromkeys(study.averages or (k.task for k in cells))
    last: dict[str, int] = {}  # other conditions may have other models
    for key in cells:
        last[key.condition] = max(key.point.layer, last.get(key.condition, 0))
    known = [condition for condition in study.conditions if condition in last]
    for condition, task, method in product(known, shown, study.methods):
        layer = last[condition]
        mine = {k.point.dim: c for k, c in told.items()
                if (k.condition, k.task, k.point.layer, k.method)
                == (condition, task, layer, method)}  # fmt: skip
        parts = []
        for name, gaps in ((study.baseline, {dim: c.gap for dim, c in mine.items()}),
                           (UNTRAINED, {dim: c.gap0 for dim, c in mine.items()})):  # fmt: skip
            groups: dict[str, list[str]] = {"better": [], "worse": [], "not told apart": []}
            for dim, gap in sorted(gaps.items()):
                if gap.known:
                    groups[["not told apart", "better", "worse"][gap.sign]].append(str(dim))
            words = "; ".join(f"{how} at {', '.join(dims)}" for how, dims in groups.items() if dims)
            parts += [f"against {name}: {words} dims"] * bool(words)
        if parts:
            found.append(f"{condition}, {task}, layer {layer}, **{method}** {'; and '.join(parts)}")
    return found


def _table(study: Study, cells: dict[Key, Cell], place: tuple[str, str, str, int]) -> list[str]:
    """Methods down, dims across, at one (condition, task, metric, layer)."""
    _, task, metric, layer = place
    here = {((k.family, k.point.bits), k.method, k.point.dim): c for k, c in cells.items()
            if (k.condition, k.task, k.metric, k.point.layer) == place}  # fmt: skip
    dims = sorted({dim for _, _, dim in here})
    rows = [["method", "tokens", *map(str, dims)]]
    for family in dict.fromkeys(family for family, _, _ in here):
        for method in study.names():
            found = [here.get((family, method, dim)) for dim in dims]
            if not any(found):
                continue
            name = family_name(method, *family)
            lengths = "/".join(dict.fromkeys(c.max_length for c in found if c))
            rows.append([name, lengths or "-", *map(_cell, found)])
            if any(c and c.gap0.known for c in found):
                than = family_name(UNTRAINED, *family)
                gaps = [_gap(c.gap0) if c else "-" for c in found]
                rows.append([f"{name} less {than}", "", *gaps])
    what = f"\nmean of {', '.join(study.averages[task])}\n" if task in study.averages else ""
    return [f"### {task}, {metric}, layer {layer}\n{what}", markdown_table(rows, "---"), ""]


def family_name(method: str, family: str, bits: int = 32) -> str:
    """What a row or a curve is called: the method, what was done to its vectors, and how they are
    stored where that is not float32."""
    also = {PREFIX: "", PCA: " + PCA", LENS: " + lens"}.get(family, f", {family}")
    return f"{method}{also}{'' if bits == 32 else f' {BITS[bits]}'}"


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    text = f"{100 * cell.mean:.2f}"
    if math.isfinite(cell.spread):
        text += f" +- {100 * cell.spread:.2f}"
    return _marked(text, cell.gap)


def _gap(span: Span) -> str:
    return _marked(f"{100 * span.gap:+.2f}", span) if span.known else "-"


def _marked(text: str, span: Span) -> str:
    """With the interval behind it, if there is one; bold where that excludes zero."""
    text = f"**{text}**" if span.sign else text
    return f"{text} {span.interval}".rstrip()


def _cost_table(study: Study, condition: str, cost: dict[tuple[str, str], Cost]) -> list[str]:
    head = ["method", "training, s (whole command)", "useful tokens/s", "peak memory, GiB"]
    rows = [
        [m, f"{c.seconds:.0f}", f"{c.tokens_per_second:,.0f}", f"{c.memory_gib:.2f}"]
        for m in study.methods
        if (c := cost.get((condition, m)))
    ]
    return ["### cost\n", markdown_table([head, *rows], "---"), ""] if rows else []
