"""Evaluation tasks: they name their texts, and score the vectors of one layer at every dim.

A task knows no model. It asks `vectors(kind, texts)` for rows of readouts, and what it fits (a
threshold, a probe) it fits on its train and validation rows only.
Shape legend: N rows asked for, D full width, P dims.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from mipic_llm.evaluation.metrics import prefix_cosines, spearman

# What a text is in its task, which decides its prompt: one side of a search, or neither.
SYMMETRIC, QUERY, DOCUMENT = "symmetric", "query", "document"

# (kind, texts) -> (N, D) readouts of one layer, float32 on CPU, row by row; texts may repeat.
Vectors = Callable[[str, Sequence[str]], Tensor]


class Figure(NamedTuple):
    """One figure of merit at one dim; n = number of test rows behind it.

    rows_N: what the model said of each test row, from which (with the task's `gold`) the value can
    be computed again on resampled rows; see `mipic_llm.report.bootstrap`.
    """

    metric: str
    dim: int
    value: float
    n: int
    rows_N: np.ndarray | None = None


class Task(Protocol):
    """Interface of an evaluation task: it lists its texts and scores vectors."""

    name: str
    metrics: Sequence[str]  # names of its figures

    def texts(self) -> dict[str, list[str]]:
        """Per kind, each distinct text once."""
        ...

    def score(self, vectors: Vectors, dims: Sequence[int]) -> list[Figure]:
        """Every metric at every dim of one layer: metric by metric, dims in their order."""
        ...

    def gold(self) -> np.ndarray | None:
        """Per test row what is right (scores, 0/1, class numbers); None where rows speak alone."""
        ...

    def content(self) -> Iterable[Any]:
        """All that decides the figures beside the vectors, in small parts that JSON can hold."""
        ...


def digest(task: Task) -> str:
    """What names a task's data by content: equal where rows, labels and their order are."""
    found = hashlib.blake2b(type(task).__name__.encode(), digest_size=12)
    for part in task.content():
        found.update(json.dumps(part).encode() + b"\n")
    return found.hexdigest()


def distinct(*groups: Sequence[str]) -> list[str]:
    """Every text once, in first-seen order."""
    return list(dict.fromkeys(text for group in groups for text in group))


class StsTask:
    """Semantic textual similarity: Spearman of the cosine with people's scores, nan where it is
    undefined. pairs: objects with sentence1, sentence2 and score."""

    metrics = ("spearman",)

    def __init__(self, name: str, pairs: Sequence[Any]) -> None:
        """Raises ValueError without pairs."""
        if not pairs:
            raise ValueError(f"task {name} has no pairs")
        self.name = name
        self.left = [pair.sentence1 for pair in pairs]
        self.right = [pair.sentence2 for pair in pairs]
        self.gold_N = np.array([pair.score for pair in pairs], dtype=np.float64)

    def texts(self) -> dict[str, list[str]]:
        return {SYMMETRIC: distinct(self.left, self.right)}

    def score(self, vectors: Vectors, dims: Sequence[int]) -> list[Figure]:
        left_ND, right_ND = vectors(SYMMETRIC, self.left), vectors(SYMMETRIC, self.right)
        cosines_PN = prefix_cosines(left_ND, right_ND, dims).numpy()
        return [
            Figure("spearman", dim, spearman(cosine_N, self.gold_N), len(self.gold_N), cosine_N)
            for dim, cosine_N in zip(dims, cosines_PN, strict=True)
        ]

    def gold(self) -> np.ndarray:
        return self.gold_N

    def content(self) -> Iterable[Any]:
        return zip(self.left, self.right, self.gold_N.tolist(), strict=True)
