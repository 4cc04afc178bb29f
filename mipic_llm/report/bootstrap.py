"""Is the difference real? Paired bootstrap over test rows and seeds.

A resample draws test rows with replacement, the same ones for every method and seed. Seeds are few,
and drawn with replacement they vary too little (with three, every twelfth comparison of a method
with itself was "better"), so what they add comes from Student's t. An interval holds the middle
95 % of it all.
Shape legend: R resamples, N test rows, K seeds, C classes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np

RESAMPLES, LEVEL = 1000, 0.95
_BLOCK = 1 << 23  # counts held at once
_MEANS = re.compile(r"(ndcg|mrr|recall|accuracy)@\d+|map")  # of a value per query


def draw_rows(n: int, seed: int = 0, resamples: int = RESAMPLES) -> Iterator[np.ndarray]:
    """(B, N) row numbers in blocks, R in all; the same for the same n and seed."""
    rng, block = np.random.default_rng((seed, n)), max(1, _BLOCK // n)
    for start in range(0, resamples, block):
        yield rng.integers(0, n, (min(block, resamples - start), n), dtype=np.int32)


def resampled(
    metric: str, rows_N: np.ndarray, gold_N: np.ndarray | None, *, seed: int = 0,
    resamples: int = RESAMPLES,
) -> np.ndarray:  # fmt: skip
    """(R,) values of a metric on the rows that `draw_rows` draws.

    spearman: the ranks are those of all rows, correlated on the resampled ones. Retrieval's metrics
    have no gold: they are means over queries. Raises ValueError for a metric unknown here.
    """
    merit = merit_of(metric, rows_N, gold_N)
    n = len(rows_N)
    return np.concatenate([
        merit(np.stack([np.bincount(d, minlength=n) for d in draw_BN]).astype(np.float64))
        for draw_BN in draw_rows(n, seed, resamples)
    ])  # fmt: skip


Merit = Callable[[np.ndarray], np.ndarray]  # how often each row was drawn, (B, N) -> values (B,)


def merit_of(metric: str, rows_N: np.ndarray, gold_N: np.ndarray | None) -> Merit:
    """A metric as a function of how often each row counts. ValueError for one unknown here."""
    if _MEANS.fullmatch(metric):
        return lambda count_BN: count_BN @ rows_N.astype(np.float64) / len(rows_N)
    if metric not in ("spearman", "accuracy", "macro_f1", "average_precision"):
        raise ValueError(f"no bootstrap for metric {metric}")
    assert gold_N is not None
    if metric == "accuracy":
        return lambda count_BN: count_BN @ (rows_N == gold_N).astype(np.float64) / len(rows_N)
    made = {"spearman": _correlation, "macro_f1": _macro_f1, "average_precision": _precision}
    return made[metric](gold_N, rows_N)


def average_ranks(x_N: np.ndarray) -> np.ndarray:
    """Ranks from 1, ties share their mean: `scipy.stats.rankdata` without its import (0.7 s)."""
    _, which_N, count = np.unique(x_N, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[which_N]


def _correlation(gold_N: np.ndarray, said_N: np.ndarray) -> Merit:
    x_N, y_N = (ranks - ranks.mean() for ranks in map(average_ranks, (said_N, gold_N)))
    parts_N5 = np.stack([x_N, y_N, x_N * y_N, x_N**2, y_N**2], axis=1)

    def merit(count_BN: np.ndarray) -> np.ndarray:
        mx, my, xy, xx, yy = (count_BN @ parts_N5 / len(x_N)).T
        with np.errstate(invalid="ignore", divide="ignore"):
            return (xy - mx * my) / np.sqrt((xx - mx**2) * (yy - my**2))

    return merit


def _macro_f1(gold_N: np.ndarray, guess_N: np.ndarray) -> Merit:
    classes_C = np.unique(np.concatenate([gold_N, guess_N]))
    gold_NC, guess_NC = gold_N[:, None] == classes_C, guess_N[:, None] == classes_C
    hits_NC, both_NC = (gold_NC & guess_NC).astype(float), 1.0 * gold_NC + guess_NC

    def merit(count_BN: np.ndarray) -> np.ndarray:
        hits_BC, both_BC = count_BN @ hits_NC, count_BN @ both_NC
        return (2 * hits_BC / np.maximum(1, both_BC)).sum(1) / (both_BC > 0).sum(1)

    return merit


def _precision(gold_N: np.ndarray, score_N: np.ndarray) -> Merit:
    """Average precision; equal scores are one step."""
    order = np.argsort(-score_N, kind="stable")
    right_N, sorted_N = gold_N[order].astype(bool), score_N[order]
    ends = np.append(np.flatnonzero(np.diff(sorted_N)), len(order) - 1)

    def merit(count_BN: np.ndarray) -> np.ndarray:
        count_BN = count_BN[:, order]
        found = np.cumsum(count_BN, axis=1)[:, ends]
        hits = np.cumsum(count_BN * right_N, axis=1)[:, ends]
        with np.errstate(invalid="ignore", divide="ignore"):
            gained = np.diff(hits, prepend=0, axis=1) / hits[:, -1:]
        return (gained * hits / np.maximum(1, found)).sum(1)

    return merit


def interval(
    method_KR: Sequence[np.ndarray], baseline_KR: Sequence[np.ndarray], seed: int = 0
) -> tuple[float, float]:
    """95 % interval of mean(method) - mean(baseline), seed by seed on the same resampled rows.

    Both hold one (R,) array per seed, in the same order of seeds. To the mean over K seeds on the
    drawn rows comes t s / sqrt(K): s is the deviation of the seeds' differences, t of K - 1 degrees
    of freedom, its R quantiles in random order: R draws of so wide a distribution have other
    quantiles. With one seed the interval says nothing of other seeds.
    """
    gap_KR = np.stack(method_KR) - np.stack(baseline_KR)
    k, r = gap_KR.shape
    gap_R = gap_KR.mean(0)
    if k > 1:
        from scipy.special import stdtrit  # scipy.stats costs a start 0.7 s

        evenly_R = (np.random.default_rng((seed, k, r)).permutation(r) + 0.5) / r
        s = np.ma.masked_invalid(gap_KR).mean(1).std(ddof=1)  # a resample may have no value
        gap_R = gap_R + stdtrit(k - 1, evenly_R) * np.ma.filled(s, np.nan) / k**0.5
    return middle(gap_R)


def middle(gap_R: np.ndarray) -> tuple[float, float]:
    """The bounds of the middle 95 % of resampled differences; nan where all of them are."""
    tail = 100 * (1 - LEVEL) / 2
    if np.isnan(gap_R).all():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(gap_R, [tail, 100 - tail])
    return float(low), float(high)
