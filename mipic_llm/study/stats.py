"""Is the difference real? Paired bootstrap over test rows and seeds.

A resample draws test rows with replacement, the same ones for every method and seed, and seeds with
replacement, the same ones for both methods. An interval holds the middle 95 % of the differences.
Shape legend: R resamples, N test rows, K seeds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from mipic_llm.evaluation.metrics import average_precision

RESAMPLES, LEVEL = 1000, 0.95


def draw_rows(n: int, seed: int, resamples: int = RESAMPLES) -> np.ndarray:
    """(R, N) row numbers; the same for the same n and seed."""
    return np.random.default_rng((seed, n)).integers(0, n, (resamples, n), dtype=np.int32)


def resampled(
    metric: str, rows_N: np.ndarray, gold_N: np.ndarray | None, draw_RN: np.ndarray
) -> np.ndarray:
    """(R,) values of a metric on resampled rows.

    spearman: the ranks are those of all rows, correlated on the resampled ones. Metrics without
    gold (nDCG, recall) are means over queries. Raises ValueError for a metric unknown here.
    """
    if metric == "spearman":
        assert gold_N is not None
        return _correlations(rankdata(rows_N), rankdata(gold_N), draw_RN)
    if metric == "accuracy":
        return (rows_N == gold_N)[draw_RN].mean(1)
    if metric == "macro_f1":
        assert gold_N is not None
        return _macro_f1(gold_N, rows_N, draw_RN)
    if metric == "average_precision":
        assert gold_N is not None
        return np.array([average_precision(gold_N[d], rows_N[d]) for d in draw_RN])
    if metric.startswith(("ndcg", "recall")):
        return rows_N[draw_RN].mean(1)
    raise ValueError(f"no bootstrap for metric {metric}")


def _correlations(x_N: np.ndarray, y_N: np.ndarray, draw_RN: np.ndarray) -> np.ndarray:
    x_N, y_N = x_N - x_N.mean(), y_N - y_N.mean()
    count_RN = np.stack([np.bincount(d, minlength=len(x_N)) for d in draw_RN]).astype(np.float64)
    n = draw_RN.shape[1]
    sums = count_RN @ np.stack([x_N, y_N, x_N * y_N, x_N**2, y_N**2], axis=1) / n
    mx, my, xy, xx, yy = sums.T
    with np.errstate(invalid="ignore", divide="ignore"):
        return (xy - mx * my) / np.sqrt((xx - mx**2) * (yy - my**2))


def _macro_f1(gold_N: np.ndarray, guess_N: np.ndarray, draw_RN: np.ndarray) -> np.ndarray:
    f1, there = [], []
    for c in np.unique(np.concatenate([gold_N, guess_N])):
        is_gold, is_guess = gold_N == c, guess_N == c
        hits, golds, guesses = (m[draw_RN].sum(1) for m in (is_gold & is_guess, is_gold, is_guess))
        there.append(golds + guesses > 0)
        f1.append(2 * hits / np.maximum(1, golds + guesses))
    return np.sum(f1, axis=0) / np.sum(there, axis=0)


def interval(
    method_KR: Sequence[np.ndarray], baseline_KR: Sequence[np.ndarray], seed: int = 0
) -> tuple[float, float]:
    """95 % interval of mean(method) - mean(baseline), seed by seed on the same resampled rows.

    Both hold one (R,) array per seed, in the same order of seeds.
    """
    gap_KR = np.stack(method_KR) - np.stack(baseline_KR)
    k, r = gap_KR.shape
    chosen_RK = np.random.default_rng((seed, k, r)).integers(0, k, (r, k))
    gap_R = gap_KR[chosen_RK, np.arange(r)[:, None]].mean(1)
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.nanpercentile(gap_R, [tail, 100 - tail])
    return float(low), float(high)
