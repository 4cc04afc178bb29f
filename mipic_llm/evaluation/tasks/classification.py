"""Text classification: a logistic regression on frozen vectors.

Shape legend: N rows, d dims of the point.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch.nn.functional import normalize

from mipic_llm.data.read.cells import plain
from mipic_llm.evaluation.metrics import accuracy, macro_f1
from mipic_llm.evaluation.tasks.base import SYMMETRIC, Figure, Vectors, distinct

TOLERANCE, MAX_ITERATIONS = 1e-5, 100_000
FOLDS, FOLD_SEED = 5, 0


class LabelledTexts(NamedTuple):
    """Rows of one split."""

    texts: list[str]
    labels: list[str]


class Probe(NamedTuple):
    """A fitted classifier: standardise by mean_d and scale_d, then the logistic regression."""

    mean_d: np.ndarray
    scale_d: np.ndarray
    model: Any
    c: float

    def guess(self, x_Nd: np.ndarray) -> np.ndarray:
        return self.model.predict((x_Nd - self.mean_d) / self.scale_d)


class ClassificationTask:
    """Macro-F1 and accuracy on the test rows of a probe fitted on the train rows.

    c: inverse strengths of the L2 penalty. With several, the one with the best macro-F1 is taken:
    on the validation rows if there are any, else in 5-fold cross-validation within train.
    """

    metrics = (macro_f1.__name__, accuracy.__name__)

    def __init__(
        self, name: str, *, train: LabelledTexts, validation: LabelledTexts | None,
        test: LabelledTexts, c: Sequence[float] = (1.0,),
    ) -> None:  # fmt: skip
        self.name, self.train, self.validation, self.test = name, train, validation, test
        self.c = tuple(c)

    def texts(self) -> dict[str, list[str]]:
        chosen = [self.train, self.test]
        if len(self.c) > 1 and self.validation is not None:
            chosen.append(self.validation)
        return {SYMMETRIC: distinct(*(split.texts for split in chosen))}

    def fit(self, vectors: Vectors, dim: int) -> Probe:
        """The probe at one dim. Touches no test row."""
        x_Nd, y_N = _matrix(self.train, vectors, dim), np.array(self.train.labels)
        if len(self.c) > 1 and self.validation is None:
            return fit_probe(x_Nd, y_N, _by_folds(x_Nd, y_N, self.c))
        probes = [fit_probe(x_Nd, y_N, c) for c in self.c]
        if len(probes) == 1:
            return probes[0]
        assert self.validation is not None
        held_x, held_y = _matrix(self.validation, vectors, dim), self.validation.labels
        return probes[int(np.argmax([macro_f1(held_y, p.guess(held_x)) for p in probes]))]

    def score(self, vectors: Vectors, dims: Sequence[int]) -> list[Figure]:
        classes, gold_N = self._classes(), np.array(self.test.labels)
        guesses = [self.fit(vectors, d).guess(_matrix(self.test, vectors, d)) for d in dims]
        return [
            Figure(metric.__name__, dim, metric(gold_N, guess_N), len(guess_N),
                   np.searchsorted(classes, guess_N))
            for metric in (macro_f1, accuracy)
            for dim, guess_N in zip(dims, guesses, strict=True)
        ]  # fmt: skip

    def _classes(self) -> np.ndarray:
        return np.unique([*self.train.labels, *self.test.labels])

    def gold(self) -> np.ndarray:
        return np.searchsorted(self._classes(), self.test.labels)

    def content(self) -> Iterator[Any]:
        yield self.c
        roles = {"train": self.train, "validation": self.validation, "test": self.test}
        for role, rows in roles.items():
            for row in zip(*rows, strict=True) if rows else ():
                yield role, *row


def _matrix(rows: LabelledTexts, vectors: Vectors, dim: int) -> np.ndarray:
    """The vectors that an export gives: prefixes of length 1."""
    return normalize(vectors(SYMMETRIC, rows.texts)[:, :dim].double(), dim=1).numpy()


def fit_probe(x_Nd: np.ndarray, y_N: np.ndarray, c: float) -> Probe:
    """Standardise, then minimise C * sum of log losses + |w|^2 / 2, to convergence.

    Raises RuntimeError where it does not converge: a half-fitted probe is no measure of vectors.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    mean_d, scale_d = x_Nd.mean(0), x_Nd.std(0)
    scale_d = np.where(scale_d > 0, scale_d, 1.0)  # a constant channel tells nothing
    model = LogisticRegression(C=c, tol=TOLERANCE, max_iter=MAX_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            model.fit((x_Nd - mean_d) / scale_d, y_N)
        except ConvergenceWarning as warning:
            raise RuntimeError(f"logistic regression did not converge: {warning}") from None
    return Probe(mean_d, scale_d, model, c)


def _by_folds(x_Nd: np.ndarray, y_N: np.ndarray, choices: Sequence[float]) -> float:
    """The C with the best mean macro-F1 over folds of the train rows."""
    from sklearn.model_selection import StratifiedKFold

    fewest = int(np.unique(y_N, return_counts=True)[1].min())
    folds = StratifiedKFold(max(2, min(FOLDS, fewest)), shuffle=True, random_state=FOLD_SEED)
    splits = list(folds.split(x_Nd, y_N))
    merit = [
        np.mean([macro_f1(y_N[b], fit_probe(x_Nd[a], y_N[a], c).guess(x_Nd[b])) for a, b in splits])
        for c in choices
    ]
    return choices[int(np.argmax(merit))]


def halves(rows: LabelledTexts) -> tuple[LabelledTexts, LabelledTexts] | None:
    """Rows to train a probe on and others to score it on, by a hash of their texts, so that no text
    is on both sides; None for fewer than 20 rows, or a half without two classes."""
    side = [hashlib.blake2b(plain(text).encode()).digest()[0] % 2 for text in rows.texts]

    def of(n: int) -> LabelledTexts:
        return LabelledTexts(*([x for x, s in zip(column, side, strict=True) if s == n]
                               for column in rows))  # fmt: skip

    one, two = of(0), of(1)
    if len(side) < 20 or min(len(set(half.labels)) for half in (one, two)) < 2:
        return None
    return one, two
