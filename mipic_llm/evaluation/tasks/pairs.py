"""Pair classification: are two sentences alike? A threshold on their cosine decides.

Shape legend: N rows, D full width, P dims.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from mipic_llm.evaluation.metrics import accuracy, average_precision, macro_f1, prefix_cosines
from mipic_llm.evaluation.tasks.base import SYMMETRIC, Figure, Vectors, distinct


class LabelledPairs(NamedTuple):
    """Rows of one split; label 1 = alike, 0 = not."""

    left: list[str]
    right: list[str]
    label_N: np.ndarray


class Thresholds(NamedTuple):
    """Cosines from which on a pair counts as alike, each the best on the tuning rows."""

    accuracy: float
    macro_f1: float


class PairsTask:
    """Accuracy, macro-F1 and average precision of the cosine on the test rows.

    Each of the first two has its own threshold, the best for it on the tuning rows (validation
    or train, never test). Without tuning rows only the average precision is given.
    """

    def __init__(self, name: str, *, tune: LabelledPairs | None, test: LabelledPairs) -> None:
        self.name, self.tune, self.test = name, tune, test
        fitted = ("accuracy", "macro_f1") if tune is not None else ()
        self.metrics = (*fitted, "average_precision")

    def texts(self) -> dict[str, list[str]]:
        splits = [split for split in (self.tune, self.test) if split is not None]
        return {SYMMETRIC: distinct(*(side for s in splits for side in (s.left, s.right)))}

    def fit(self, vectors: Vectors, dims: Sequence[int]) -> list[Thresholds]:
        """Thresholds at every dim, from the tuning rows."""
        assert self.tune is not None
        cosines_PN = _cosines(self.tune, vectors, dims)
        return [best_thresholds(cosine_N, self.tune.label_N) for cosine_N in cosines_PN]

    def score(self, vectors: Vectors, dims: Sequence[int]) -> list[Figure]:
        cosines_PN = _cosines(self.test, vectors, dims)
        label_N, n = self.test.label_N, len(self.test.label_N)
        figures = []
        if self.tune is not None:
            fitted = self.fit(vectors, dims)
            for metric in (accuracy, macro_f1):
                for dim, cosine_N, best in zip(dims, cosines_PN, fitted, strict=True):
                    name = metric.__name__
                    guess_N = (cosine_N >= getattr(best, name)).astype(int)
                    figures.append(Figure(name, dim, metric(label_N, guess_N), n, guess_N))
        return figures + [
            Figure("average_precision", dim, average_precision(label_N, cosine_N), n, cosine_N)
            for dim, cosine_N in zip(dims, cosines_PN, strict=True)
        ]

    def gold(self) -> np.ndarray:
        return self.test.label_N

    def content(self) -> Iterator[Any]:
        for role, rows in (("tune", self.tune), ("test", self.test)):
            for left, right, label in zip(*rows, strict=True) if rows else ():
                yield role, left, right, int(label)


def _cosines(rows: LabelledPairs, vectors: Vectors, dims: Sequence[int]) -> np.ndarray:
    left_ND, right_ND = vectors(SYMMETRIC, rows.left), vectors(SYMMETRIC, rows.right)
    return prefix_cosines(left_ND, right_ND, dims).numpy()


def best_thresholds(cosine_N: np.ndarray, label_N: np.ndarray) -> Thresholds:
    """The thresholds with the best accuracy and the best macro-F1 on these rows.

    Candidates lie halfway between neighbouring distinct cosines, and beyond both ends (all alike,
    none alike). Of equally good ones the lowest.
    """
    order = np.argsort(cosine_N, kind="stable")
    c_N, y_N = cosine_N[order], label_N[order].astype(int)
    cuts = np.flatnonzero(np.diff(c_N)) + 1  # rows from the cut on count as alike
    cuts = np.concatenate([[0], cuts, [len(c_N)]])
    between = (c_N[cuts[1:-1] - 1] + c_N[cuts[1:-1]]) / 2
    values = np.concatenate([[-np.inf], between, [np.inf]])
    below = np.concatenate([[0], np.cumsum(y_N)])[cuts]  # alike ones below the cut
    n, alike = len(y_N), int(y_N.sum())
    hits, no_hits = alike - below, cuts - below  # rightly alike, rightly not alike
    right = (hits + no_hits) / n
    with np.errstate(invalid="ignore"):
        f1_yes = 2 * hits / (alike + n - cuts)
        f1_no = 2 * no_hits / (n - alike + cuts)
    # A class that is neither there nor guessed is no class (0 / 0).
    f1 = np.nanmean(np.stack([f1_yes, f1_no]), axis=0)
    return Thresholds(float(values[right.argmax()]), float(values[f1.argmax()]))
