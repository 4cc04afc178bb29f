"""How the vectors of a point are made: readouts of a layer, as they are or through what is fitted.

Shape legend: N texts, L layers, D full width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mipic_llm.evaluation.bits import Quantiser
from mipic_llm.evaluation.lens import Lens, fit_lens
from mipic_llm.evaluation.pca import Pca
from mipic_llm.evaluation.tasks.base import (
    DOCUMENT,
    SYMMETRIC,
    Task,
    Vectors,
    distinct,
)
from mipic_llm.report.scores import LENS, PCA, PREFIX
from mipic_llm.types import Point

# (texts, kind) -> (N, L, D) raw readouts of the asked layers, float32, on CPU. kind: symmetric,
# query or document, which decides the prompt.
Encode = Callable[[list[str], str], Tensor]
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
            (self.layers is None or point.layer in self.layers)
            and (self.bits is None or point.bits in self.bits)
            and (self.widest is None or point.dim <= self.widest)
        )

    def of(self, kind: str) -> Side:
        return self.document if kind == DOCUMENT else self.query


class Encoded(NamedTuple):
    """Readouts of all texts of one kind, and each text's row in them."""

    rows: dict[str, int]
    readouts_NLD: Tensor
    layers: tuple[int, ...]

    def at(self, layer: int, texts: Sequence[str]) -> Tensor:
        at_N = torch.tensor([self.rows[text] for text in texts], dtype=torch.int64)
        return self.readouts_NLD[at_N, self.layers.index(layer)].float()


class Fitted:
    """The readouts of all models, and what is fitted on them: axes and quantisers, each once."""

    def __init__(
        self, readouts: dict[str, dict[str, Encoded]], texts: dict[str, list[str]],
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
            quantiser = self._quantiser(side.model, layer, route, point.dim)
            return quantiser.asking(z_Nd) if side.floating else quantiser.stored(z_Nd, point.bits)

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


def asked_texts(tasks: Sequence[Task], also: Sequence[str]) -> dict[str, list[str]]:
    """Per kind, the texts of the tasks and those that something is fitted on."""
    asked: dict[str, list[str]] = {}
    for task in tasks:
        for kind, texts in task.texts().items():
            asked.setdefault(kind, []).extend(texts)
    if also:
        asked.setdefault(SYMMETRIC, []).extend(also)
    return asked


def encode_once(
    asked: dict[str, list[str]], encode: Encode, layers: Sequence[int]
) -> dict[str, Encoded]:
    encoded = {}
    for kind, texts in asked.items():
        rows = {text: i for i, text in enumerate(distinct(texts))}
        readouts_NLD = encode(list(rows), kind)
        if readouts_NLD.ndim != 3 or readouts_NLD.shape[:2] != (len(rows), len(layers)):
            raise ValueError(
                f"{len(rows)} texts at {len(layers)} layers were asked for, encode gave "
                f"{tuple(readouts_NLD.shape)}"
            )
        encoded[kind] = Encoded(rows, readouts_NLD, tuple(layers))
    return encoded
