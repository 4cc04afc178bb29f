"""Searches whose queries and documents are not made alike: queries of a shallow layer against
documents of a deep one, and queries of a new model against the vectors that an old one left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mipic_llm.errors import UserError
from mipic_llm.evaluation.suite import PREFIX, Route, Rows, Side
from mipic_llm.evaluation.tasks.base import DOCUMENT, Task
from mipic_llm.report.paired import gap_of
from mipic_llm.report.tables import main_metrics, plain_table
from mipic_llm.types import Point, Score

OLD = "old"  # the name of the older model
OLD_ON_OLD, NEW_ON_OLD = "old queries on old documents", "new queries on old documents"
_INDEX = ("ndcg@10", "recall@10")


def need_searches(flag: str, tasks: Sequence[Task]) -> None:
    """UserError where no task has queries and documents."""
    if not any(DOCUMENT in task.texts() for task in tasks):
        raise UserError(
            f"{flag}: no task has queries and documents; give a BEIR folder with --data"
        )


def asymmetric(layers: Sequence[int]) -> list[Route]:
    """Queries of each layer against documents of every other one, the same prefix of both."""
    if len(layers) < 2:
        raise UserError("--asymmetric: queries and documents of one layer are what is scored "
                        "anyway; give two --layers or more")  # fmt: skip
    return [Route(f"queries at {k}", query=Side(layer=k), searches=True, bits=(32,),
                  layers=tuple(n for n in layers if n != k)) for k in layers]  # fmt: skip


def same_index(last: int, old_last: int) -> list[Route]:
    """Old queries, and new ones, against old documents; listed at the new model's layer `last`."""
    old = Side(layer=old_last, model=OLD)
    options = {"document": old, "searches": True, "layers": (last,)}
    return [Route(OLD_ON_OLD, query=old, **options), Route(NEW_ON_OLD, **options)]


def by_query_layer(scores: Mapping[str, Iterable[Score]]) -> dict[tuple, dict[tuple, float]]:
    """(task, metric, dim) -> (layer of the queries, layer of the documents) -> value, of the main
    metric of each search."""
    searched = {s.task for f, many in scores.items() if f.startswith("queries at ") for s in many}
    mains = main_metrics(s for many in scores.values() for s in many)
    found: dict[tuple, dict[tuple, float]] = {}
    for family, many in scores.items():
        own = family.startswith("queries at ")
        for s in many if own or family == PREFIX else ():
            if s.task in searched and mains[s.task] == s.metric and s.point.bits == 32:
                of = int(family.split()[-1]) if own else s.point.layer
                cells = found.setdefault((s.task, s.metric, s.point.dim), {})
                cells[of, s.point.layer] = s.value
    return found


def asymmetric_tables(scores: Mapping[str, Iterable[Score]]) -> str:
    """The matrices as text: queries' layers down, documents' layers across, x 100."""
    blocks = []
    for (task, metric, dim), cells in by_query_layer(scores).items():
        layers = sorted({layer for key in cells for layer in key})
        rows = [["queries at", *(f"documents at {n}" for n in layers)]]
        rows += [[str(k), *(f"{100 * cells[k, n]:.2f}" for n in layers)] for k in layers]
        blocks.append(f"{task}: {metric} x 100, {dim} channels\n{plain_table(rows)}")
    return "\n\n".join(blocks)


def index_table(scores: Mapping[str, Iterable[Score]], rows: Rows | None) -> str:
    """New queries against an old index, dims across; with rows, the 95 % intervals of what the new
    queries gain there over the old ones."""
    known = {(f, s.task, s.metric, s.point): s.value for f, many in scores.items() for s in many}
    blocks = []
    places = [key[1:] for key in known if key[0] == OLD_ON_OLD and key[3].bits == 32]
    for task in dict.fromkeys(task for task, _, _ in places):
        metrics = list(dict.fromkeys(m for t, m, _ in places if t == task))
        for metric in [m for m in _INDEX if m in metrics] or metrics[:1]:
            points: list[Point] = sorted(p for t, m, p in places if (t, m) == (task, metric))
            lines = [["x 100", *(str(p.dim) for p in points)]]
            for words, family in ((OLD_ON_OLD, OLD_ON_OLD), (NEW_ON_OLD, NEW_ON_OLD),
                                  ("new queries on new documents", PREFIX)):  # fmt: skip
                values = [known[family, task, metric, p] for p in points]
                lines.append([words, *(f"{100 * v:.2f}" for v in values)])
            if rows is not None:
                spans = [gap_of(rows, task, metric, (OLD_ON_OLD, p), (NEW_ON_OLD, p))
                         for p in points]  # fmt: skip
                lines.append(["new minus old queries, old documents", *map(str, spans)])
            blocks.append(f"{task}: {metric}, layer {points[0].layer}\n{plain_table(lines)}")
    return "\n\n".join(blocks)
