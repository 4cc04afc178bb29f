"""A suite: several tasks, one encoding of all their texts, scores at every point.

The model is nothing but `encode`; how it is sharded over ranks is not known here.
Shape legend: N texts, L layers, D full width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mipic_llm.data.tokenise import TextEncoder
from mipic_llm.evaluation.pca import Pca
from mipic_llm.evaluation.tasks.base import SYMMETRIC, Figure, Task, digest, distinct
from mipic_llm.types import Point, Score

# (texts, kind) -> (N, L, D) raw readouts of the asked layers, float32, on CPU. kind: symmetric,
# query or document, which decides the prompt.
Encode = Callable[[list[str], str], Tensor]

# (family, task, metric, layer, dim) -> the figure's rows; ("gold", task) -> what is right.
Rows = dict[tuple, np.ndarray]

# Families of vectors at a point. prefix: the first d channels of the readout. pca: the first d
# principal components of the whole readout, what a user gets without Matryoshka training.
PREFIX, PCA = "prefix", "pca"


def all_points(layers: Sequence[int], dims: Sequence[int]) -> list[Point]:
    """Every dim at every layer, layer by layer."""
    return [Point(layer, dim) for layer in layers for dim in dims]


def in_turn(jobs: Sequence[Callable[[], Any]]) -> list[Any]:
    """Do every job here. With ranks, `encode.spread_over_ranks` shares them out."""
    return [job() for job in jobs]


def run_suite(
    tasks: Sequence[Task], encode: Encode, *, layers: Sequence[int], points: Sequence[Point],
    pca_texts: Sequence[str] = (), rows: Rows | None = None,
    spread: Callable[[Sequence[Callable[[], Any]]], list[Any]] = in_turn,
) -> dict[str, list[Score]]:  # fmt: skip
    """Scores of all tasks at all points, by family (`prefix`, and `pca` where pca_texts are given).

    Each family: task by task, metric by metric, points in their order. Each distinct text is
    encoded once per kind, all of a kind in one call, so that the encoder can sort by length over
    the whole suite. layers: those that `encode` gives, in its order. pca_texts: training text that
    the principal components are fitted on, per layer. spread: does the jobs and gives their
    results in order. rows: a dictionary to fill with every figure's rows and the tasks' gold.
    Raises ValueError for readouts of another shape than asked for, or a point outside of them.
    """
    if missing := [point for point in points if point.layer not in layers]:
        raise ValueError(f"point {missing[0]}: its layer is not among {list(layers)}")
    encoded = _encode_once(tasks, encode, len(layers), pca_texts)
    widest = max((point.dim for point in points), default=0)
    width = min((e.readouts_NLD.shape[2] for e in encoded.values()), default=widest)
    if widest > width:
        raise ValueError(f"dim {widest} is beyond the width {width} of the model")
    jobs: dict[tuple[str, int, int], Callable[[], list[Figure]]] = {}
    families = (PREFIX, PCA) if pca_texts else (PREFIX,)
    for column, layer in enumerate(layers):
        dims = sorted({p.dim for p in points if p.layer == layer})
        for family in families if dims else ():
            vectors = _Layer(encoded, column, None)
            if family == PCA:
                train_ND = vectors(SYMMETRIC, list(pca_texts))
                vectors = _Layer(encoded, column, Pca.fit(train_ND, dims[-1]))
            for i, task in enumerate(tasks):
                jobs[family, i, layer] = _job(task, vectors, dims, keep=rows is not None)
    figures = {
        (family, i, f.metric, Point(layer, f.dim)): f
        for (family, i, layer), found in zip(jobs, spread(list(jobs.values())), strict=True)
        for f in found
    }
    if rows is not None:
        rows |= {("gold", t.name): gold for t in tasks if (gold := t.gold()) is not None}
        rows |= {
            (family, tasks[i].name, metric, *point): f.rows_N
            for (family, i, metric, point), f in figures.items()
            if f.rows_N is not None
        }
    metrics = list(dict.fromkeys((family, i, metric) for family, i, metric, _ in figures))
    return {
        family: [
            Score(task.name, metric, point, figures[family, i, metric, point].value,
                  figures[family, i, metric, point].n)
            for i, task in enumerate(tasks)
            for metric in [m for f, j, m in metrics if (f, j) == (family, i)]
            for point in (Point(*p) for p in points)
        ]
        for family in families
    }  # fmt: skip


def about(tasks: Sequence[Task], encoder: TextEncoder, name: str) -> dict[str, Any]:
    """What an evaluation was of: the model, tokens of a text, prompts, the data by content."""
    return {"model": name, "max_length": encoder.max_length, "prompts": encoder.prompts,
            "data": {task.name: digest(task) for task in tasks}}  # fmt: skip


class _Encoded(NamedTuple):
    """Readouts of all texts of one kind, and each text's row in them."""

    rows: dict[str, int]
    readouts_NLD: Tensor


class _Layer(NamedTuple):
    """`Vectors` of one layer: looks texts up, and turns them onto principal axes if asked to."""

    encoded: dict[str, _Encoded]
    column: int
    pca: Pca | None

    def __call__(self, kind: str, texts: Sequence[str]) -> Tensor:
        rows, readouts_NLD = self.encoded[kind]
        at_N = torch.tensor([rows[text] for text in texts], dtype=torch.int64)
        z_ND = readouts_NLD[at_N, self.column].float()
        return z_ND if self.pca is None else self.pca.turn(z_ND)


def _job(task: Task, vectors: _Layer, dims: list[int], keep: bool) -> Callable[[], list[Figure]]:
    def job() -> list[Figure]:
        figures = task.score(vectors, dims)
        return figures if keep else [f._replace(rows_N=None) for f in figures]

    return job


def _encode_once(
    tasks: Sequence[Task], encode: Encode, n_layers: int, pca_texts: Sequence[str]
) -> dict[str, _Encoded]:
    asked: dict[str, list[str]] = {}
    for task in tasks:
        for kind, texts in task.texts().items():
            asked.setdefault(kind, []).extend(texts)
    if pca_texts:
        asked.setdefault(SYMMETRIC, []).extend(pca_texts)
    encoded = {}
    for kind, texts in asked.items():
        rows = {text: i for i, text in enumerate(distinct(texts))}
        readouts_NLD = encode(list(rows), kind)
        if readouts_NLD.ndim != 3 or readouts_NLD.shape[:2] != (len(rows), n_layers):
            raise ValueError(
                f"{len(rows)} texts at {n_layers} layers were asked for, encode gave "
                f"{tuple(readouts_NLD.shape)}"
            )
        encoded[kind] = _Encoded(rows, readouts_NLD)
    return encoded
