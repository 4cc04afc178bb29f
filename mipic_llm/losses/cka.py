"""Linear centred kernel alignment of two sets of vectors (Eq 10-11 of arXiv 2604.24374).

Shape legend: k examples (tokens), d and D the two widths; H = I - 1/k centres over the examples.

    CKA(x, y) = <K, L> / (|K| |L|),   K = H x x^T H,  L = H y y^T H      (Gram side, k x k)
              = |y'x|^2 / (|x'x| |y'y|)  with x, y centred               (feature side, d x D)
"""

from __future__ import annotations

import torch
from torch import Tensor

from mipic_llm.losses.numerics import compute_dtype, full_precision

# A centred Gram whose norm is below this many rounding errors of the Gram before centring holds
# no information: its vectors count as equal.
NOISE = 64.0


def linear_cka(x_kd: Tensor, y_kD: Tensor) -> Tensor:
    """Linear CKA of x_kd and y_kD, differentiable in both: a scalar in [0, 1].

    Fewer than two rows, or a side whose rows are all equal, has no geometry to compare: the value
    is 1 there and the gradient zero. Raises ValueError when the row counts differ.
    """
    if x_kd.dim() != 2 or y_kD.dim() != 2 or x_kd.shape[0] != y_kD.shape[0]:
        raise ValueError(
            "linear_cka compares two matrices with the same rows, got "
            f"{tuple(x_kd.shape)} and {tuple(y_kD.shape)}"
        )
    dtype = compute_dtype(x_kd, y_kD)
    with full_precision(x_kd.device):
        x_kd, y_kD = x_kd.to(dtype), y_kD.to(dtype)
        if x_kd.shape[0] < 2:
            return x_kd.new_ones(()) + 0 * (x_kd.sum() + y_kD.sum())
        noise_x, noise_y = (_noise(v.detach()) for v in (x_kd, y_kD))
        x_kd, y_kD = x_kd - x_kd.mean(0), y_kD - y_kD.mean(0)
        if x_kd.shape[0] <= max(x_kd.shape[1], y_kD.shape[1]):
            K_kk, L_kk = x_kd @ x_kd.T, y_kD @ y_kD.T
            dot, bb, cc = (K_kk * L_kk).sum(), K_kk.square().sum(), L_kk.square().sum()
        else:
            dot = (x_kd.T @ y_kD).square().sum()
            bb, cc = (x_kd.T @ x_kd).square().sum(), (y_kD.T @ y_kD).square().sum()
        known = (bb > noise_x) & (cc > noise_y)
        one = torch.ones_like(dot)
        ratio = dot / torch.where(known, bb, one).sqrt() / torch.where(known, cc, one).sqrt()
        return torch.where(known, ratio, one)


def _noise(v_kd: Tensor) -> Tensor:
    """Squared Gram norm that rounding alone can leave after centring v."""
    energy = v_kd.mean(0).square().sum() * v_kd.shape[0]
    return (energy * (NOISE * torch.finfo(v_kd.dtype).eps) ** 2).square()
