"""Searches whose queries and documents are not made alike: queries of a shallow layer against
documents of a deep one, and queries of a new model against the vectors that an old one left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mipic_llm.errors import UserError
from mipic_llm.evaluation.routes import Route, Side
from mipic_llm.evaluation.tasks.base import DOCUMENT, Task
from mipic_llm.report.index import NEW_ON_OLD, OLD_ON_OLD
from mipic_llm.report.scores import LENS, PCA, PREFIX
from mipic_llm.report.tables import main_metrics, plain_table
from mipic_llm.types import Score

OLD = "old"  # the name of the older model
FLOAT = "float queries"


def searched(tasks: Sequence[Task]) -> bool:
    """Whether a task has queries and documents."""
    return any(DOCUMENT in task.texts() for task in tasks)


def need_searches(flag: str, tasks: Sequence[Task]) -> None:
    """UserError where no task has queries and documents."""
    if not searched(tasks):
        raise UserError(
            f"{flag}: no task has queries and documents; give a BEIR folder with --data"
        )


def float_queries(pca: bool = False) -> list[Route]:
    """Queries in float32 against documents of signs: an index of the same bytes, a better order."""
    options = {"query": Side(floating=True), "searches": True, "bits": (1,)}
    return [
        Route(FLOAT, **options),
        *([Route(f"{PCA}, {FLOAT}", pca=True, **options)] if pca else []),
    ]


def asymmetric(layers: Sequence[int], lens: bool = False) -> list[Route]:
    """Queries of each layer against documents of every other one, the same prefix of both. lens:
    inner layers are mapped onto the last one."""
    if len(layers) < 2:
        raise UserError("--asymmetric: queries and documents of one layer are what is scored "
                        "anyway; give two --layers or more")  # fmt: skip
    return [Route(f"queries at {k}", lens=lens, query=Side(layer=k), searches=True, bits=(32,),
                  layers=tuple(n for n in layers if n != k)) for k in layers]  # fmt: skip


def same_index(last: int, old_last: int) -> list[Route]:
    """Old queries, and new ones, against old documents; listed at the new model's layer `last`."""
    old = Side(layer=old_last, model=OLD)
    options = {"document": old, "searches": True, "layers": (last,)}
    return [Route(OLD_ON_OLD, query=old, **options), Route(NEW_ON_OLD, **options)]


def by_query_layer(scores: Mapping[str, Iterable[Score]]) -> dict[tuple, dict[tuple, float]]:
    """(task, metric, dim) -> (layer of the queries, layer of the documents) -> value, of the main
    metric of each search; of inner layers through a lens where they have one."""
    tasks = {s.task for f, many in scores.items() if f.startswith("queries at ") for s in many}
    mains = main_metrics(s for many in scores.values() for s in many)
    found: dict[tuple, dict[tuple, float]] = {}
    for family, many in scores.items():
        own = family.startswith("queries at ")
        for s in many if own or family in (PREFIX, LENS) else ():
            if s.task in tasks and mains[s.task] == s.metric and s.point.bits == 32:
                of = int(family.split()[-1]) if own else s.point.layer
                cells = found.setdefault((s.task, s.metric, s.point.dim), {})
                cells[of, s.point.layer] = s.value
    return found


def asymmetric_tables(
    scores: Mapping[str, Iterable[Score]], times: Mapping[int, float]
) -> str:  # fmt: skip
    """The matrices as text: queries' layers down, documents' layers across, x 100. times: layer ->
    milliseconds a query (`evaluation.timing`)."""
    blocks = []
    for (task, metric, dim), cells in by_query_layer(scores).items():
        layers = sorted({layer for key in cells for layer in key})
        rows = [["queries at", *(f"documents at {n}" for n in layers), "ms a query"]]
        rows += [[str(k), *(f"{100 * cells[k, n]:.2f}" for n in layers), f"{times[k]:.1f}"]
                 for k in layers]  # fmt: skip
        blocks.append(f"{task}: {metric} x 100, {dim} channels\n{plain_table(rows)}")
    return "\n\n".join(blocks)
