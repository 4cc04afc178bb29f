"""Geometry term of SIA on the feature side, for sets larger than the width (long texts).

Shape legend: as in sia_geometry.py, and y_gcD the tokens of one set, centred, zero past k_i.

    A = y_d^T y_d  (d x d),   B = y_d^T y  (d x D),   C = y^T y  (D x D),   y_d = y[:, :d_i]
    CKA_i = |B|^2 / (|A| |C|)
The same numbers as the Gram side (x x^T is k x k) at k D^2 instead of k^2 D, and D x D of memory
instead of k x k. Both functions have the signature of their namesakes in sia_geometry.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mipic_llm.losses.cka import NOISE


class _Side(NamedTuple):
    """One prefix: its centred tokens, the covariances' scalars per sentence, and C."""

    y_gcD: Tensor
    C_gDD: Tensor
    square_B_g: Tensor
    norm_A_g: Tensor
    norm_C_g: Tensor
    known_g: Tensor  # False: fewer than two tokens or all equal, so CKA = 1 by definition


def _sides(
    x_gkD: Tensor, k_gP: Tensor, bounds: Sequence[int], dims: Sequence[int]
) -> Iterator[_Side]:
    noise = NOISE * torch.finfo(x_gkD.dtype).eps
    for i, (c, d) in enumerate(zip(bounds, dims, strict=True)):
        k_g, x_gcD = k_gP[:, i], x_gkD[:, :c]
        w_gc = (torch.arange(c, device=x_gkD.device) < k_g[:, None]).to(x_gkD.dtype)
        mean_g1D = torch.bmm((w_gc / k_g.clamp_min(1)[:, None])[:, None], x_gcD)
        y_gcD = (x_gcD - mean_g1D).mul_(w_gc[:, :, None])
        C_gDD = torch.bmm(y_gcD.transpose(1, 2), y_gcD)
        norm_A_g, norm_C_g = C_gDD[:, :d, :d].norm(dim=(1, 2)), C_gDD.norm(dim=(1, 2))
        # energy before centring = after + k |mean|^2: the scale of the rounding errors
        diag_gD = C_gDD.diagonal(dim1=1, dim2=2) + k_g[:, None] * mean_g1D[:, 0].square()
        known_g = (norm_A_g > noise * diag_gD[:, :d].sum(1)) & (k_g > 1)
        known_g &= norm_C_g > noise * diag_gD.sum(1)
        square_B_g = C_gDD[:, :d].square().sum((1, 2))
        yield _Side(y_gcD, C_gDD, square_B_g, norm_A_g, norm_C_g, known_g)


def geometry_loss(
    x_gkD: Tensor, k_gP: Tensor, bounds: Sequence[int], dims: Sequence[int]
) -> Tensor:
    """Sum over prefixes of 1 - CKA per sentence (Eq 12): (g,)."""
    loss_g = x_gkD.new_zeros(x_gkD.shape[0])
    for side in _sides(x_gkD, k_gP, bounds, dims):
        cka_g = side.square_B_g / side.norm_A_g / side.norm_C_g
        loss_g += torch.where(side.known_g, 1 - cka_g, 0)
    return loss_g


def geometry_gradient(
    x_gkD: Tensor,
    k_gP: Tensor,
    bounds: Sequence[int],
    dims: Sequence[int],
    grad_g: Tensor,
    detach_teacher: bool,
) -> Tensor:
    """d(grad . loss)/dx: (g, k, W), W = d_P when the teacher is detached, else D.

    With a = |B|^2 and s = -2 grad / (|A||C|):
        dx_d += s (y B^T - a / |A|^2 y_d A),    dx += s (y_d B - a / |C|^2 y C)   (teacher trained)
    Every product of the centred y stays centred, so nothing is left to project out.
    """
    D = x_gkD.shape[2]
    dx_gkW = torch.zeros_like(x_gkD[:, :, : dims[-1] if detach_teacher else D])
    sides = _sides(x_gkD, k_gP, bounds, dims)
    for (y_gcD, C_gDD, a_g, norm_A_g, norm_C_g, known_g), d in zip(sides, dims, strict=True):
        c, y_gcd = y_gcD.shape[1], y_gcD[:, :, :d]
        s_g = torch.where(known_g, -2 * grad_g / (norm_A_g * norm_C_g), 0)
        own_A_g = torch.where(known_g, -s_g * a_g / norm_A_g.square(), 0)
        dx_gkW[:, :c, :d].addcmul_(torch.bmm(y_gcD, C_gDD[:, :, :d]), s_g[:, None, None])
        dx_gkW[:, :c, :d].addcmul_(torch.bmm(y_gcd, C_gDD[:, :d, :d]), own_A_g[:, None, None])
        if not detach_teacher:
            own_C_g = torch.where(known_g, -s_g * a_g / norm_C_g.square(), 0)
            dx_gkW[:, :c].addcmul_(torch.bmm(y_gcd, C_gDD[:, :d]), s_g[:, None, None])
            dx_gkW[:, :c].addcmul_(torch.bmm(y_gcD, C_gDD), own_C_g[:, None, None])
    return dx_gkW
