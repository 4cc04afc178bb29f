"""Geometry term of SIA: CKA of nested top-k token sets (Eq 7-12 of arXiv 2604.24374).

Shape legend:
    g sentences of one chunk; k chosen tokens (the largest set), sorted by the teacher score
    D full width; P truncated prefixes (d_1 < ... < d_P < D), i index of a prefix
    c = c_i an upper bound of k_i over the chunk: the leading c x c part of a Gram

    K_i = x[:k_i, :d_i] x[:k_i, :d_i]^T      accumulated over the blocks d_{i-1} to d_i
    L_i = x[:k_i] x[:k_i]^T                  leading part of the same accumulation, taken to D
    loss_i = 1 - <K_i', L_i'> / (|K_i'| |L_i'|),  X' = H X H double-centred over the k_i tokens
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mipic_llm.losses.cka import NOISE


def set_sizes(
    count_S: Tensor, T: int, ratios: Sequence[float], min_k: int, from_padded: bool
) -> Tensor:
    """k_i = min(m, max(min_k, ceil(gamma_i m))) with m real tokens: (S, P) int64 (Eq 7).

    from_padded puts the padded length T inside the ceil; pads are never chosen either way. The
    small slack keeps float noise from lifting an exact product (0.7 * 10) over the next integer.
    """
    base_S1 = (torch.full_like(count_S, T) if from_padded else count_S)[:, None].double()
    k_SP = torch.ceil(base_S1 * base_S1.new_tensor(ratios) - 1e-9).clamp_min_(min_k).long()
    return torch.minimum(k_SP, count_S[:, None])


def largest_sets(T: int, ratios: Sequence[float], min_k: int) -> list[int]:
    """Upper bound of each k_i for T tokens, known without reading the device."""
    k_1P = set_sizes(torch.tensor([T]), T, ratios, min_k, True)
    return [int(k) for k in k_1P[0]]


def choose(score_ST: Tensor, mask_ST: Tensor, k: int) -> Tensor:
    """Indices of the k best real tokens, best first, ties in reading order: (S, k)."""
    ranked_ST = score_ST.masked_fill(~mask_ST, -torch.inf)
    return ranked_ST.sort(dim=1, descending=True, stable=True).indices[:, :k]


class _Pair(NamedTuple):
    """Double-centred Grams of one prefix and their scalars per sentence."""

    K_gcc: Tensor
    L_gcc: Tensor
    dot_g: Tensor
    norm_K_g: Tensor
    norm_L_g: Tensor
    known_g: Tensor  # False: fewer than two tokens or all equal, so CKA = 1 by definition


def _centre(A_gkk: Tensor, w_gc: Tensor, k_g: Tensor, full: bool) -> tuple[Tensor, Tensor]:
    """Double-centre the leading part over the tokens with w = 1; zero elsewhere.

    A'_jl = A_jl - r_j - r_l + s = A_jl - b_j - b_l,  r row means, s = mean of r, b = r - s/2.
    Also returns the trace of the part before centring, the scale of its rounding errors.
    """
    c = w_gc.shape[1]
    A_gcc = A_gkk[:, :c, :c]
    inv_g1 = k_g.clamp_min(1).to(w_gc.dtype).reciprocal()[:, None]
    b_gc = torch.bmm(A_gcc, w_gc[:, :, None])[:, :, 0] * inv_g1
    b_gc = b_gc - (b_gc * w_gc).sum(1, keepdim=True) * (inv_g1 / 2)
    out_gcc = A_gcc - b_gc[:, :, None]
    out_gcc -= b_gc[:, None, :]
    if not full:
        out_gcc.mul_(w_gc[:, :, None]).mul_(w_gc[:, None, :])
    trace_g = (A_gcc.diagonal(dim1=1, dim2=2) * w_gc).sum(1)
    return out_gcc, trace_g


def pre_centre(x_gkD: Tensor, k_g: Tensor) -> Tensor:
    """Subtract the mean of the chosen tokens in place and zero the rows past k_g.

    Exact, since double centring removes any common vector; without it a channel with a large
    offset eats the digits of every Gram.
    """
    rows_gk = torch.arange(x_gkD.shape[1], device=x_gkD.device) < k_g[:, None]
    w_gk = rows_gk.to(x_gkD.dtype)
    mean_g1D = torch.bmm((w_gk / k_g.clamp_min(1)[:, None])[:, None], x_gkD)
    return x_gkD.sub_(mean_g1D).mul_(w_gk[:, :, None])


def _pairs(x_gkD: Tensor, k_gP: Tensor, bounds: Sequence[int], dims: Sequence[int]) -> list[_Pair]:
    """Centred Gram pairs of every prefix from one accumulation over blocks."""
    rows_k = torch.arange(x_gkD.shape[1], device=x_gkD.device)
    eps = NOISE * torch.finfo(x_gkD.dtype).eps
    weights, students, full = [], [], []
    gram_gkk = x_gkD.new_zeros(x_gkD.shape[0], x_gkD.shape[1], x_gkD.shape[1])
    start = 0
    for i, d in enumerate(dims):
        k_g, c = k_gP[:, i], bounds[i]
        x_gkw = x_gkD[:, :, start:d]
        gram_gkk.baddbmm_(x_gkw, x_gkw.transpose(1, 2))
        weights.append((rows_k[:c] < k_g[:, None]).to(x_gkD.dtype))
        # reading the device would stall a GPU, so only a CPU skips the masking of equal lengths
        full.append(k_g.device.type == "cpu" and bool((k_g == c).all()))
        students.append(_centre(gram_gkk, weights[i], k_g, full[i]))
        start = d
    x_gkw = x_gkD[:, :, start:]
    gram_gkk.baddbmm_(x_gkw, x_gkw.transpose(1, 2))
    pairs = []
    for i, (K_gcc, trace_K_g) in enumerate(students):
        L_gcc, trace_L_g = _centre(gram_gkk, weights[i], k_gP[:, i], full[i])
        norm_K_g, norm_L_g = K_gcc.norm(dim=(1, 2)), L_gcc.norm(dim=(1, 2))
        known_g = (norm_K_g > eps * trace_K_g) & (norm_L_g > eps * trace_L_g) & (k_gP[:, i] > 1)
        pairs.append(_Pair(K_gcc, L_gcc, (K_gcc * L_gcc).sum((1, 2)), norm_K_g, norm_L_g, known_g))
    return pairs


def geometry_loss(
    x_gkD: Tensor, k_gP: Tensor, bounds: Sequence[int], dims: Sequence[int]
) -> Tensor:
    """Sum over prefixes of 1 - CKA per sentence (Eq 12): (g,). x is sorted and pre-centred."""
    loss_g = x_gkD.new_zeros(x_gkD.shape[0])
    for pair in _pairs(x_gkD, k_gP, bounds, dims):
        cka_g = pair.dot_g / pair.norm_K_g / pair.norm_L_g
        loss_g += torch.where(pair.known_g, 1 - cka_g, 0)
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

    d loss_i / dK_i = -(L' - (a / |K'|^2) K') / (|K'||L'|) =: M_i,   a = <K', L'>
    d loss_i / dL_i = -(K' - (a / |L'|^2) L') / (|K'||L'|) =: N_i
    dx[:, block] = 2 (sum_{i >= block} M_i + sum_i N_i) x[:, block]     (suffix sums, one product)
    """
    pairs = _pairs(x_gkD, k_gP, bounds, dims)
    P, D = len(dims), x_gkD.shape[2]
    suffix_gkk = x_gkD.new_zeros(x_gkD.shape[0], x_gkD.shape[1], x_gkD.shape[1])
    coefs = []
    for pair in pairs:
        both_g = pair.norm_K_g * pair.norm_L_g
        scale_g = torch.where(pair.known_g, -2 * grad_g / both_g, 0)
        a_g = torch.where(pair.known_g, pair.dot_g, 0)
        coefs.append((scale_g, a_g))
    if not detach_teacher:
        for pair, c, (scale_g, a_g) in zip(pairs, bounds, coefs, strict=True):
            own_g = torch.where(pair.known_g, scale_g * a_g / pair.norm_L_g.square(), 0)
            suffix_gkk[:, :c, :c] += scale_g[:, None, None] * pair.K_gcc
            suffix_gkk[:, :c, :c] -= own_g[:, None, None] * pair.L_gcc
    dx_gkW = torch.empty_like(x_gkD[:, :, : dims[-1] if detach_teacher else D])
    if not detach_teacher:
        dx_gkW[:, :, dims[-1] :] = torch.bmm(suffix_gkk, x_gkD[:, :, dims[-1] :])
    for i in reversed(range(P)):
        pair, c, (scale_g, a_g) = pairs[i], bounds[i], coefs[i]
        own_g = torch.where(pair.known_g, scale_g * a_g / pair.norm_K_g.square(), 0)
        suffix_gkk[:, :c, :c] += scale_g[:, None, None] * pair.L_gcc
        suffix_gkk[:, :c, :c] -= own_g[:, None, None] * pair.K_gcc
        block = slice(dims[i - 1] if i else 0, dims[i])
        dx_gkW[:, :, block] = torch.bmm(suffix_gkk, x_gkD[:, :, block])
    return dx_gkW
