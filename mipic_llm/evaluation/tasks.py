"""Evaluation tasks: they name their texts, and score readouts at every point.

Shape legend: N texts (of the task, each once), L layers, D full width, P points' dims of a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mipic_llm.evaluation.metrics import prefix_cosines, spearman
from mipic_llm.types import Point, Score


class Pair(Protocol):
    """What `mipic_llm.data.formats.ScoredPair` is."""

    @property
    def sentence1(self) -> str: ...
    @property
    def sentence2(self) -> str: ...
    @property
    def score(self) -> float: ...


class StsTask:
    """Semantic textual similarity: Spearman of the cosine with people's scores.

    Both sides are texts of one kind ("query"): the task is symmetric, and so is the prompt.
    """

    kind = "query"

    def __init__(self, name: str, pairs: Sequence[Pair]) -> None:
        """Raises ValueError without pairs."""
        if not pairs:
            raise ValueError(f"task {name} has no pairs")
        self.name = name
        self.pairs = pairs
        both = (text for pair in pairs for text in (pair.sentence1, pair.sentence2))
        self._row = {text: i for i, text in enumerate(dict.fromkeys(both))}

    def texts(self) -> list[str]:
        """Each distinct text once, in first-seen order."""
        return list(self._row)

    def scores(
        self, readouts_NLD: Tensor, layers: Sequence[int], points: Sequence[Point]
    ) -> list[Score]:
        """One score per point, in their order; n = number of pairs, nan where undefined.

        readouts_NLD: raw readouts of `texts()`, row by row; layers: which layers L are, in order.
        Raises ValueError for a point at another layer or beyond the width.
        """
        if readouts_NLD.shape[:2] != (len(self._row), len(layers)):
            raise ValueError(
                f"task {self.name}: {len(self._row)} texts at {len(layers)} layers need as many "
                f"readouts, got {tuple(readouts_NLD.shape)}"
            )
        for point in points:
            if point.layer not in layers:
                raise ValueError(f"point {point}: layer {point.layer} is not among {list(layers)}")
        left_n = torch.tensor([self._row[pair.sentence1] for pair in self.pairs])
        right_n = torch.tensor([self._row[pair.sentence2] for pair in self.pairs])
        gold_n = np.array([pair.score for pair in self.pairs], dtype=np.float64)
        value: dict[Point, float] = {}
        for column, layer in enumerate(layers):
            dims = sorted({point.dim for point in points if point.layer == layer})
            if not dims:
                continue
            z_ND = readouts_NLD[:, column, : dims[-1]]
            if dims[-1] > z_ND.shape[1]:
                raise ValueError(f"dim {dims[-1]} is beyond the width {z_ND.shape[1]} of the model")
            cosines_Pn = prefix_cosines(z_ND[left_n], z_ND[right_n], dims).numpy()
            for dim, cosine_n in zip(dims, cosines_Pn, strict=True):
                value[Point(layer, dim)] = spearman(cosine_n, gold_n)
        n = len(self.pairs)
        return [Score(self.name, "spearman", Point(*p), value[Point(*p)], n) for p in points]


def load_tasks(specs: Sequence[str]) -> list[StsTask]:
    """The same as `suite.load_tasks`, under the name that the training room imports."""
    from mipic_llm.evaluation import suite  # suite imports this file

    return suite.load_tasks(specs)


def run_tasks(
    tasks: Sequence[StsTask],
    encode: Callable[[list[str]], Tensor],
    layers: Sequence[int],
    points: Sequence[Point],
) -> list[Score]:
    """`suite.run_suite` for an encoder that knows one kind of text only."""
    from mipic_llm.evaluation import suite

    return suite.run_suite(tasks, lambda texts, kind: encode(texts), layers=layers, points=points)
