"""A suite: several tasks, one encoding of all their texts, scores at every point.

The model is nothing but `encode`; how it is sharded over ranks is not known here.
Shape legend: N texts, L layers, D full width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mipic_llm.data.tokenise import TextEncoder
from mipic_llm.evaluation.routes import Encode, Fitted, Route, asked_texts, encode_once
from mipic_llm.evaluation.tasks.base import (
    DOCUMENT,
    Figure,
    Task,
    Vectors,
    digest,
)
from mipic_llm.report.scores import LENS, PCA
from mipic_llm.types import Point, Score

# (family, task, metric, *Point.place) -> the figure's rows; ("gold", task) -> what is right.
Rows = dict[tuple, np.ndarray]


def all_points(
    layers: Sequence[int], dims: Sequence[int], bits: Sequence[int] = (32,)
) -> list[Point]:
    """Every dim at every layer, layer by layer, for each number of bits."""
    return [Point(layer, dim, b) for b in bits for layer in layers for dim in dims]


def in_turn(jobs: Sequence[Callable[[], Any]]) -> list[Any]:
    """Do every job here. With ranks, `encode.spread_over_ranks` shares them out."""
    return [job() for job in jobs]


def run_suite(
    tasks: Sequence[Task], encode: Encode, *, layers: Sequence[int], points: Sequence[Point],
    pca_texts: Sequence[str] = (), pca_widest: int | None = None,
    lens_texts: Sequence[str] = (), bits_texts: Sequence[str] = (), centre: bool = False,
    more: Sequence[Route] = (), models: Mapping[str, tuple[Encode, Sequence[int]]] | None = None,
    rows: Rows | None = None, spread: Callable[[Sequence[Callable[[], Any]]], list[Any]] = in_turn,
) -> dict[str, list[Score]]:  # fmt: skip
    """Scores of all tasks at all points, by family: `prefix`, `pca` where pca_texts are given,
    `lens` where lens_texts are, and those of `more`.

    Each family: task by task, metric by metric, points in their order. Each distinct text is
    encoded once per kind, all of a kind in one call, so that the encoder can sort by length over
    the whole suite. layers: those that `encode` gives, in its order. pca_texts: training text that
    the principal components are fitted on, per layer, for dims up to pca_widest. lens_texts: text
    that the lenses of the points' layers below the last of `layers` are fitted on. bits_texts: text
    that the ranges of int8 (and with `centre` the means before the sign) are fitted on; none = the
    texts that are scored, not their labels. models: others that routes of `more` name, with the
    layers that each gives. spread: does the jobs and gives their results in order. rows: a
    dictionary to fill with every figure's rows and the tasks' gold. Raises ValueError for readouts
    of another shape than asked for, or a point outside of them.
    """
    if missing := [point for point in points if point.layer not in layers]:
        raise ValueError(f"point {missing[0]}: its layer is not among {list(layers)}")
    principal = Route(PCA, pca=True, widest=pca_widest)
    inner = tuple({p.layer for p in points} - {layers[-1]})
    lens = [Route(LENS, lens=True, layers=inner)] if lens_texts and inner else []
    routes = [Route(), *([principal] if pca_texts else []), *lens, *more]
    fitted_on = list(dict.fromkeys([*pca_texts, *lens_texts, *bits_texts]))
    encoders = {"": (encode, layers), **(models or {})}
    searches = [task for task in tasks if DOCUMENT in task.texts()]
    asked = {"": asked_texts(tasks, fitted_on)}
    asked |= {name: asked_texts(searches, bits_texts) for name in models or ()}
    readouts = {name: encode_once(asked[name], *one) for name, one in encoders.items()}
    widest = max((p.dim for p in points), default=0)
    components = max((p.dim for p in points if principal.has(p)), default=0)
    texts = {PCA: list(pca_texts), LENS: list(lens_texts)}
    made = Fitted(readouts, texts, list(bits_texts), centre, components)
    for name, found in readouts.items():
        width = min((e.readouts_NLD.shape[2] for e in found.values()), default=widest)
        if widest > width:
            of = f"model {name}" if name else "the model"
            raise ValueError(f"dim {widest} is beyond the width {width} of {of}")
    jobs: dict[tuple[str, int, Point], Callable[[], list[Figure]]] = {}
    for route in routes:
        mine = [p for p in points if route.has(p)]
        for layer, bits in dict.fromkeys((p.layer, p.bits) for p in mine):
            dims = sorted({p.dim for p in mine if (p.layer, p.bits) == (layer, bits)})
            # Prefixes are nested, so that a task scores all of them at once; codes are not.
            for some in [dims] if bits == 32 else [[dim] for dim in dims]:
                point = Point(layer, some[-1], bits)
                vectors = made.vectors(route, point)
                for i, task in enumerate(tasks):
                    if not route.searches or task in searches:
                        jobs[route.name, i, point] = _job(task, vectors, some, rows is not None)
    figures = {
        (family, i, f.metric, at._replace(dim=f.dim)): f
        for (family, i, at), found in zip(jobs, spread(list(jobs.values())), strict=True)
        for f in found
    }
    if rows is not None:
        rows |= {("gold", t.name): gold for t in tasks if (gold := t.gold()) is not None}
        rows |= {
            (family, tasks[i].name, metric, *point.place): f.rows_N
            for (family, i, metric, point), f in figures.items()
            if f.rows_N is not None
        }
    metrics = list(dict.fromkeys((family, i, metric) for family, i, metric, _ in figures))
    return {
        route.name: [
            Score(task.name, metric, point, figures[route.name, i, metric, point].value,
                  figures[route.name, i, metric, point].n)
            for i, task in enumerate(tasks)
            for metric in [m for f, j, m in metrics if (f, j) == (route.name, i)]
            for point in points if route.has(point)
        ]
        for route in routes
    }  # fmt: skip


def about(tasks: Sequence[Task], encoder: TextEncoder, name: str) -> dict[str, Any]:
    """What an evaluation was of: the model, tokens of a text, prompts, the data by content."""
    return {"model": name, "max_length": encoder.max_length, "prompts": encoder.prompts,
            "data": {task.name: digest(task) for task in tasks}}  # fmt: skip


def _job(task: Task, vectors: Vectors, dims: list[int], keep: bool) -> Callable[[], list[Figure]]:
    def job() -> list[Figure]:
        figures = task.score(vectors, dims)
        return figures if keep else [f._replace(rows_N=None) for f in figures]

    return job
