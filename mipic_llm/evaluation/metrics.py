"""Figures of merit.

Shape legend: N rows, D full width, P prefixes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.stats import rankdata
from torch import Tensor

_FLOOR = 1e-12  # of a norm: a zero vector has cosine 0 with everything


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's rank correlation of two equally long rows, average ranks for ties.

    nan, without a warning, where it is undefined: a constant side, fewer than two values, or a
    nan among them. Such a score must stay visible as missing and not pass for "no correlation".
    Raises ValueError when the two are not rows of one length.
    """
    x_N, y_N = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x_N.ndim != 1 or x_N.shape != y_N.shape:
        raise ValueError(f"two rows of one length are needed, got {x_N.shape} and {y_N.shape}")
    if len(x_N) < 2:
        return float("nan")
    mean = (len(x_N) + 1) / 2  # of any average ranks, exactly; so a constant side gives true zeros
    a_N, b_N = rankdata(x_N) - mean, rankdata(y_N) - mean
    norm = float(np.sqrt((a_N @ a_N) * (b_N @ b_N)))
    return float(a_N @ b_N) / norm if norm > 0 else float("nan")


def prefix_cosines(a_ND: Tensor, b_ND: Tensor, dims: Sequence[int]) -> Tensor:
    """cos(a[:, :d], b[:, :d]) of every row at every d of `dims`: (P, N) float64, in their order.

    One pass for all dims: products and squared norms of a prefix are those of the prefix before
    it plus one block of columns. Summed in float64 because the readouts are raw, and a few
    large channels would otherwise drown the rest.
    Raises ValueError for unequal shapes or a dim outside 1 .. D.
    """
    if a_ND.ndim != 2 or a_ND.shape != b_ND.shape:
        raise ValueError(f"two (N, D) of one shape needed, got {a_ND.shape} and {b_ND.shape}")
    n, width = a_ND.shape
    for dim in dims:
        if not 1 <= dim <= width:
            raise ValueError(f"dim {dim} is outside 1 .. {width}, the width of the readouts")
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


def cosine_rows(a_ND: Tensor, b_ND: Tensor) -> Tensor:
    """Cosine of each row of a with the same row of b: (N,) float64; slice before calling."""
    return prefix_cosines(a_ND, b_ND, [a_ND.shape[-1]])[0]
