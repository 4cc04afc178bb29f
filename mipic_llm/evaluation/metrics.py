"""Figures of merit.

Shape legend: N rows, D full width, P prefixes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mipic_llm.report.bootstrap import average_ranks

_FLOOR = 1e-12  # of a norm: a zero vector has cosine 0 with everything


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's rank correlation of two equally long rows, average ranks for ties.

    nan, without a warning, where it is undefined (a constant side, fewer than two values, a nan
    among them): a missing score must not pass for "no correlation". ValueError for other shapes.
    """
    x_N, y_N = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x_N.ndim != 1 or x_N.shape != y_N.shape:
        raise ValueError(f"two rows of one length are needed, got {x_N.shape} and {y_N.shape}")
    if len(x_N) < 2 or np.isnan(x_N).any() or np.isnan(y_N).any():
        return float("nan")
    mean = (len(x_N) + 1) / 2  # of any average ranks, exactly; so a constant side gives true zeros
    a_N, b_N = average_ranks(x_N) - mean, average_ranks(y_N) - mean
    norm = float(np.sqrt((a_N @ a_N) * (b_N @ b_N)))
    return float(a_N @ b_N) / norm if norm > 0 else float("nan")


def prefix_cosines(a_ND: Tensor, b_ND: Tensor, dims: Sequence[int]) -> Tensor:
    """cos(a[:, :d], b[:, :d]) of every row at every d of `dims`: (P, N) float64, in their order.

    One pass for all dims: products and squared norms of a prefix are those of the prefix before it
    plus one block of columns. Summed in float64, because the readouts are raw and a few large
    channels would otherwise drown the rest. ValueError for unequal shapes or a dim outside 1 .. D.
    """
    if a_ND.ndim != 2 or a_ND.shape != b_ND.shape:
        raise ValueError(f"two (N, D) of one shape needed, got {a_ND.shape} and {b_ND.shape}")
    n, width = a_ND.shape
    if bad := [d for d in dims if not 1 <= d <= width]:
        raise ValueError(f"dim {bad[0]} is outside 1 .. {width}, the width of the readouts")
    dot_N, aa_N, bb_N = torch.zeros(3, n, dtype=torch.float64, device=a_ND.device)
    found: dict[int, Tensor] = {}
    start = 0
    for stop in sorted(set(dims)):
        a_Nd, b_Nd = a_ND[:, start:stop].double(), b_ND[:, start:stop].double()
        dot_N = dot_N + (a_Nd * b_Nd).sum(1)
        aa_N = aa_N + (a_Nd * a_Nd).sum(1)
        bb_N = bb_N + (b_Nd * b_Nd).sum(1)
        # One root of the product: equal vectors then get exactly 1, and so tie as they should.
        found[stop] = dot_N / (aa_N * bb_N).sqrt().clamp_min(_FLOOR**2)
        start = stop
    return torch.stack([found[dim] for dim in dims]) if dims else dot_N.new_zeros(0, n)


def accuracy(truth_N: ArrayLike, guess_N: ArrayLike) -> float:
    """Share of rows where the two agree. ValueError without rows or for unequal lengths."""
    t_N, g_N = _rows(truth_N, guess_N)
    return float((t_N == g_N).mean())


def macro_f1(truth_N: ArrayLike, guess_N: ArrayLike) -> float:
    """Mean over classes (of truth or guess) of 2 hits / (rows of it + guesses of it)."""
    t_N, g_N = _rows(truth_N, guess_N)
    classes = np.unique(np.concatenate([t_N, g_N]))
    hits = np.array([((t_N == c) & (g_N == c)).sum() for c in classes])
    both = np.array([(t_N == c).sum() + (g_N == c).sum() for c in classes])
    return float((2 * hits / both).mean())


def average_precision(positive_N: ArrayLike, score_N: ArrayLike) -> float:
    """Sum over distinct scores, falling, of (gain in recall) * precision; nan without positives.

    Equal scores are one step, so their order in the file does not matter.
    """
    p_N, s_N = _rows(positive_N, score_N)
    p_N = p_N.astype(bool)
    if not p_N.any():
        return float("nan")
    order = np.argsort(-s_N, kind="stable")
    p_N, s_N = p_N[order], s_N[order]
    ends = np.append(np.flatnonzero(np.diff(s_N)), len(s_N) - 1)  # last row of each equal score
    hits = np.cumsum(p_N)[ends]
    gained = np.diff(hits, prepend=0) / hits[-1]
    return float((gained * hits / (ends + 1)).sum())


def _rows(a: ArrayLike, b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    a_N, b_N = np.asarray(a), np.asarray(b)
    if a_N.ndim != 1 or a_N.shape != b_N.shape or not len(a_N):
        raise ValueError(f"two rows of one length are needed, got {a_N.shape} and {b_N.shape}")
    return a_N, b_N


RETRIEVAL = re.compile(r"(ndcg|mrr|recall|accuracy)@([1-9][0-9]{0,5})|map")


def retrieval_merit(
    metric: str, place_R: np.ndarray, grade_R: np.ndarray, ideal_G: np.ndarray
) -> float:
    """A query's value of a metric whose name matches RETRIEVAL, as trec_eval defines it.

    place_R: from 1, where its relevant documents are found; grade_R: their grades. ideal_G: the
    grades of all its relevant documents, falling, those that cannot be found too (at least one).
    ndcg: sum of grade / log2(place + 1), over that of the ideal; recall: share of the relevant
    found; accuracy: 1 where one is found (trec's success); mrr: 1 / first place; each within the
    first k places. map: precision at each relevant document, mean over all relevant.
    """
    name, _, cut = metric.partition("@")
    if name == "map":
        return float((np.arange(1, len(place_R) + 1) / np.sort(place_R)).sum() / len(ideal_G))
    k = int(cut)
    within_R = place_R <= k
    if name == "ndcg":
        best = ideal_G[:k] / np.log2(np.arange(2, 2 + len(ideal_G[:k])))
        return float((grade_R / np.log2(place_R + 1))[within_R].sum() / best.sum())
    if name == "recall":
        return float(within_R.sum() / len(ideal_G))
    if name == "accuracy":
        return float(within_R.any())
    return float(1 / place_R.min()) if within_R.any() else 0.0
