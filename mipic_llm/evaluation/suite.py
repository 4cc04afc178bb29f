"""A suite: several tasks, one encoding of all their texts, scores at every point.

The model is nothing but `encode`; how it is sharded over ranks is not known here.
Shape legend: N texts, L layers, D full width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mipic_llm.data.tokenise import TextEncoder
from mipic_llm.evaluation.bits import Quantiser
from mipic_llm.evaluation.lens import Lens, fit_lens
from mipic_llm.evaluation.pca import Pca
from mipic_llm.evaluation.tasks.base import (
    DOCUMENT,
    SYMMETRIC,
    Figure,
    Task,
    Vectors,
    digest,
    distinct,
)
from mipic_llm.types import Point, Score

# (texts, kind) -> (N, L, D) raw readouts of the asked layers, float32, on CPU. kind: symmetric,
# query or document, which decides the prompt.
Encode = Callable[[list[str], str], Tensor]

# (family, task, metric, *Point.place) -> the figure's rows; ("gold", task) -> what is right.
Rows = dict[tuple, np.ndarray]

# Families of vectors at a point. prefix: the first d channels of the readout. pca: the first d
# principal components of the whole readout, what a user gets without Matryoshka training. lens: an
# inner layer's readout mapped onto the last layer's, without training too.
PREFIX, PCA, LENS = "prefix", "pca", "lens"
CALIBRATION = 20_000  # texts at most that fix the ranges of int8


class Side(NamedTuple):
    """Where a route has one side's vectors from. layer: None = the point's. model: a key of
    `models`; "" = the evaluated one. floating: float32, whatever the bits of the point."""

    layer: int | None = None
    model: str = ""
    floating: bool = False


class Route(NamedTuple):
    """A family of figures: how the vectors of a point are made. query: of all that is no document.
    lens: layers below the last one are mapped onto it.

    searches: of tasks with queries and documents alone. layers, bits, widest: of the points that it
    has (dims up to widest); None = all.
    """

    name: str = PREFIX
    pca: bool = False
    lens: bool = False
    query: Side = Side()
    document: Side = Side()
    searches: bool = False
    layers: tuple[int, ...] | None = None
    bits: tuple[int, ...] | None = None
    widest: int | None = None

    def has(self, point: Point) -> bool:
        return (
            point.layer in (self.layers or (point.layer,))
            and point.bits in (self.bits or (point.bits,))
            and point.dim <= (self.widest or point.dim)
        )

    def of(self, kind: str) -> Side:
        return self.document if kind == DOCUMENT else self.query


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
    asked = {
        "": _asked(tasks, fitted_on),
        **{name: _asked([t for t in tasks if _searches(t)], bits_texts) for name in models or ()},
    }
    readouts = {name: _encode_once(asked[name], *one) for name, one in encoders.items()}
    widest = max((p.dim for p in points), default=0)
    components = max((p.dim for p in points if principal.has(p)), default=0)
    texts = {PCA: list(pca_texts), LENS: list(lens_texts)}
    made = _Made(readouts, texts, list(bits_texts), centre, components)
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
                    if not route.searches or _searches(task):
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


def _searches(task: Task) -> bool:
    return DOCUMENT in task.texts()


def about(tasks: Sequence[Task], encoder: TextEncoder, name: str) -> dict[str, Any]:
    """What an evaluation was of: the model, tokens of a text, prompts, the data by content."""
    return {"model": name, "max_length": encoder.max_length, "prompts": encoder.prompts,
            "data": {task.name: digest(task) for task in tasks}}  # fmt: skip


class _Encoded(NamedTuple):
    """Readouts of all texts of one kind, and each text's row in them."""

    rows: dict[str, int]
    readouts_NLD: Tensor
    layers: tuple[int, ...]

    def at(self, layer: int, texts: Sequence[str]) -> Tensor:
        at_N = torch.tensor([self.rows[text] for text in texts], dtype=torch.int64)
        return self.readouts_NLD[at_N, self.layers.index(layer)].float()


class _Made:
    """The readouts of all models, and what is fitted on them: axes and quantisers, each once."""

    def __init__(
        self, readouts: dict[str, dict[str, _Encoded]], texts: dict[str, list[str]],
        bits_texts: list[str], centre: bool, components: int,
    ) -> None:  # fmt: skip
        self.readouts, self.texts, self.bits_texts = readouts, texts, bits_texts
        self.centre, self.components = centre, components
        self.axes: dict[int, Pca] = {}
        self.lenses: dict[int, Lens] = {}
        self.quantisers: dict[tuple, Quantiser] = {}

    def vectors(self, route: Route, point: Point) -> Vectors:
        """What tasks ask: the vectors of a point on a route, (N, D) for 32 bits, else (N, dim)."""

        def found(kind: str, texts: Sequence[str]) -> Tensor:
            side = route.of(kind)
            layer = side.layer or point.layer
            z_ND = self._read(side.model, kind, layer, texts, route)
            if point.bits == 32:
                return z_ND
            z_Nd = z_ND[:, : point.dim]
            if side.floating:
                return z_Nd
            quantiser = self._quantiser(side.model, layer, route, point.dim)
            return quantiser.stored(z_Nd, point.bits)

        return found

    def _read(
        self, model: str, kind: str, layer: int, texts: Sequence[str], route: Route
    ) -> Tensor:  # fmt: skip
        found = self.readouts[model]
        z_ND = found[kind].at(layer, texts)
        if route.pca:
            if layer not in self.axes:
                train_ND = found[SYMMETRIC].at(layer, self.texts[PCA])
                self.axes[layer] = Pca.fit(train_ND, self.components)
            return self.axes[layer].turn(z_ND)
        last = found[kind].layers[-1]
        if route.lens and layer != last:
            if layer not in self.lenses:
                read = found[SYMMETRIC]
                pair = (read.at(k, self.texts[LENS]) for k in (layer, last))
                self.lenses[layer] = fit_lens(*pair)
            return self.lenses[layer].dense.linear(z_ND)
        return z_ND

    def _quantiser(self, model: str, layer: int, route: Route, dim: int) -> Quantiser:
        key = (model, layer, route.pca, route.lens, dim)
        if key not in self.quantisers:
            found = self.readouts[model]
            chosen = {SYMMETRIC: self.bits_texts} if self.bits_texts else {
                kind: list(e.rows) for kind, e in found.items()}  # fmt: skip
            every = -(-sum(map(len, chosen.values())) // CALIBRATION)
            parts = [self._read(model, kind, layer, texts[::every], route)[:, :dim]
                     for kind, texts in chosen.items()]  # fmt: skip
            self.quantisers[key] = Quantiser.fit(torch.cat(parts), self.centre)
        return self.quantisers[key]


def _job(task: Task, vectors: Vectors, dims: list[int], keep: bool) -> Callable[[], list[Figure]]:
    def job() -> list[Figure]:
        figures = task.score(vectors, dims)
        return figures if keep else [f._replace(rows_N=None) for f in figures]

    return job


def _asked(tasks: Sequence[Task], also: Sequence[str]) -> dict[str, list[str]]:
    """Per kind, the texts of the tasks and those that something is fitted on."""
    asked: dict[str, list[str]] = {}
    for task in tasks:
        for kind, texts in task.texts().items():
            asked.setdefault(kind, []).extend(texts)
    if also:
        asked.setdefault(SYMMETRIC, []).extend(also)
    return asked


def _encode_once(
    asked: dict[str, list[str]], encode: Encode, layers: Sequence[int]
) -> dict[str, _Encoded]:
    encoded = {}
    for kind, texts in asked.items():
        rows = {text: i for i, text in enumerate(distinct(texts))}
        readouts_NLD = encode(list(rows), kind)
        if readouts_NLD.ndim != 3 or readouts_NLD.shape[:2] != (len(rows), len(layers)):
            raise ValueError(
                f"{len(rows)} texts at {len(layers)} layers were asked for, encode gave "
                f"{tuple(readouts_NLD.shape)}"
            )
        encoded[kind] = _Encoded(rows, readouts_NLD, tuple(layers))
    return encoded
