"""The tuned lens of an inner layer: an affine map from its readouts to those of the last layer.

After Belrose et al., 2023 (arXiv 2303.08112), who train such maps on tokens. On pooled readouts
least squares with a ridge have a closed form, and need text without labels alone.
Shape legend: N texts, D width, H texts held out.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mipic_llm.errors import UserError
from mipic_llm.model.dense import Dense

RIDGES = (1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)  # of the mean variance of a channel
HELD_OUT = 200  # texts, at most a fifth, that fit nothing and by which a fit is judged


class Lens(NamedTuple):
    """dense: weight (D, D), bias (D,). ridge: the chosen one. known: share of the last layer's
    variance that it explains, of texts that were held out."""

    dense: Dense
    ridge: float
    known: float


def fit_lens(inner_ND: Tensor, last_ND: Tensor) -> Lens:
    """The W, b of least mean |W x + b - y / |y||^2 + ridge |W|^2 over texts with readouts x of an
    inner layer and y of the last one, in float64; the ridge with the least error on held-out texts.
    UserError for fewer texts than channels.
    """
    n, width = inner_ND.shape
    if n < width:
        raise UserError(f"lens: {n} distinct texts are too few for a map of {width} channels; give "
                        f"{width} at least, and twenty times as many for a good one")  # fmt: skip
    x_ND, y_ND = inner_ND.double(), normalize(last_ND.double(), dim=1)
    held_N = torch.arange(n) % max(5, n // HELD_OUT) == 0
    x_HD, y_HD = x_ND[held_N], y_ND[held_N]
    x_ND, y_ND = x_ND[~held_N], y_ND[~held_N]
    mean_D, to_D = x_ND.mean(0), y_ND.mean(0)
    x_ND = x_ND - mean_D
    values_D, axes_DD = torch.linalg.eigh(x_ND.T @ x_ND / len(x_ND))
    cross_DD = axes_DD.T @ (x_ND.T @ (y_ND - to_D)) / len(x_ND)
    found = []
    for ridge in RIDGES:
        weight_DD = axes_DD @ (cross_DD / (values_D + ridge * values_D.mean())[:, None])
        error = float(((x_HD - mean_D) @ weight_DD + to_D - y_HD).square().sum())
        found.append((error, ridge, weight_DD))
    error, ridge, weight_DD = min(found, key=lambda one: one[0])
    dense = Dense(weight_DD.T.float(), (to_D - mean_D @ weight_DD).float(), "Identity")
    return Lens(dense, ridge, 1 - error / float((y_HD - to_D).square().sum()))
