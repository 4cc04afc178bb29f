"""Two evaluations, figure by figure: differences, paired 95 % intervals, and a verdict in words.

What both models said of each test row is drawn again with the same rows (`report.bootstrap`).
Where that was not kept there are differences and no intervals.
Shape legend: R resamples, N test rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mipic_llm.report.bootstrap import merit_of, middle, resampled
from mipic_llm.report.comparison import Comparison, Difference, Family, Span
from mipic_llm.report.evaluations import Evaluation
from mipic_llm.report.scores import PREFIX
from mipic_llm.report.tables import main_metrics
from mipic_llm.types import Point

_MANY = 6  # tasks; above, the verdict speaks of kinds of tasks


def compare_two(old: Evaluation, new: Evaluation) -> Comparison:
    """Every figure that one of them has. A task whose rows are not the same is left out, and said;
    other lengths and prompts are said."""
    notes = _unlike(old, new)
    one, two = ({s[:3]: s for s in e.scores} for e in (old, new))
    tasks = {key[0] for key in one} | {key[0] for key in two}
    for task in sorted(tasks):
        if why := _other_rows(old, new, task):
            notes.append(why)
            tasks.remove(task)
    mains, found = main_metrics([*old.scores, *new.scores]), []
    draws: dict[str, dict[Point, Part]] = {}  # of main figures, by task
    for key in dict.fromkeys([*one, *two]):
        task, metric, point = key
        if task not in tasks:
            continue
        a, b = (side[key].value if key in side else math.nan for side in (one, two))
        gap_R = _gaps(old, new, key) if math.isfinite(b - a) else None
        span = Span(b - a, *(middle(gap_R) if gap_R is not None else ()))
        found.append(Difference(*key, a, b, span, (one.get(key) or two[key]).n))
        if mains[task] == metric and point.bits == 32 and math.isfinite(b - a):
            draws.setdefault(task, {})[point] = (b - a, gap_R)
    by_task = {task: _mean(list(parts.values())) for task, parts in draws.items()}
    metrics = {task: {d.metric for d in found if d.task == task} for task in by_task}
    kinds = {task: kind_of(metrics[task]) for task in by_task}
    names = {task: f"{task} ({kinds[task]})" for task in by_task}
    groups = names if len(by_task) <= _MANY else kinds
    means = {group: _span(_mean([by_task[t] for t in by_task if groups[t] == group]))
             for group in dict.fromkeys(groups.values())}  # fmt: skip
    whole = _span(_mean(list(by_task.values()))) if by_task else Span(math.nan)
    families = {}
    for kind in dict.fromkeys(kinds.values()):
        mine = [task for task in by_task if kinds[task] == kind]
        points = sorted({p for task in mine for p in draws[task]}, key=lambda p: (-p.layer, p.dim))
        families[names[mine[0]] if len(mine) == 1 else kind] = Family(
            {p: _span(_mean([draws[t][p] for t in mine if p in draws[t]])) for p in points},
            _span(_mean([by_task[t] for t in mine])),
        )
    lengths = {e.about.get("max_length") for e in (old, new) if e.scores}
    same = lengths.pop() if len(lengths) == 1 else None
    return Comparison(old.name, new.name, found, means, whole, families, notes, same)


def kind_of(metrics: Iterable[str]) -> str:
    """The kind of a task with these metrics."""
    names = {metric.partition("@")[0] for metric in metrics}
    if "average_precision" in names:
        return "pairs"
    if names & {"ndcg", "mrr", "map", "recall"}:
        return "retrieval"
    return "classification" if "macro_f1" in names else "STS" if "spearman" in names else "task"


Part = tuple[float, "np.ndarray | None"]  # a difference, and the same on resampled rows


def _mean(parts: Sequence[Part]) -> Part:
    draws = [d for _, d in parts if d is not None]
    mean_R = np.mean(draws, axis=0) if len(draws) == len(parts) else None
    return float(np.mean([gap for gap, _ in parts])), mean_R


def _span(part: Part) -> Span:
    return Span(part[0], *(middle(part[1]) if part[1] is not None else ()))


def _gaps(old: Evaluation, new: Evaluation, key: tuple[str, str, Point]) -> np.ndarray | None:
    """(R,) differences on resampled rows; None where a side has no rows of this figure."""
    task, metric, point = key
    name = (PREFIX, task, metric, *point.place)
    if name not in old.rows or name not in new.rows:
        return None
    gold_N = new.rows.get(("gold", task))
    a_R, b_R = (resampled(metric, e.rows[name], gold_N) for e in (old, new))
    return b_R - a_R


def gap_of(
    rows: Mapping[tuple, np.ndarray], task: str, metric: str, old: tuple[str, Point],
    new: tuple[str, Point],
) -> Span:  # fmt: skip
    """A figure of one (family, point) minus that of another, of one evaluation, on the same rows.
    rows: see Evaluation."""
    gold = rows.get(("gold", task))
    a, b = (rows[family, task, metric, *point.place] for family, point in (old, new))
    whole = np.ones((1, len(a)))
    gap = float(merit_of(metric, b, gold)(whole)[0] - merit_of(metric, a, gold)(whole)[0])
    return Span(gap, *middle(resampled(metric, b, gold) - resampled(metric, a, gold)))


def _other_rows(old: Evaluation, new: Evaluation, task: str) -> str | None:
    """Why a task of both is not the same; None where it is, as far as one can know."""
    one, two = (e.about.get("data", {}).get(task) for e in (old, new))
    sizes = [{s.n for s in e.scores if s.task == task} for e in (old, new)]
    gold = ("gold", task)
    unequal = gold in old.rows and gold in new.rows and not np.array_equal(
        old.rows[gold], new.rows[gold])  # fmt: skip
    if not all(sizes) or not (unequal or sizes[0] != sizes[1] or (one and two and one != two)):
        return None
    return (f"{task} is left out: its rows are not the same in {old.name} and {new.name}; evaluate "
            "both on the same files")  # fmt: skip


def _unlike(old: Evaluation, new: Evaluation) -> list[str]:
    """Lines on what was read in another way."""
    notes = []
    one, two = (e.about.get("max_length") for e in (old, new))
    if one and two and one != two:
        notes.append(f"warning: {old.name} read {one} tokens of a text, {new.name} {two}; evaluate "
                     "both with one --data.max_length")  # fmt: skip
    for kind in ("symmetric", "query", "document"):
        said = [(e.about.get("prompts") or {}).get(kind, "") for e in (old, new)]
        if said[0] != said[1] and old.about and new.about:
            notes.append(f"note: prompt of {kind} texts: {said[0]!r} in {old.name}, {said[1]!r} in "
                         f"{new.name}")  # fmt: skip
    return notes
