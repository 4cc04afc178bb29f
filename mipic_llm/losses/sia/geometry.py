"""Geometry term of SIA: CKA of nested top-k token sets (Eq 7-12 of arXiv 2604.24374).

Shape legend:
    g sentences of one chunk; k chosen tokens (the largest set), sorted by the teacher's score
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

from mipic_llm.losses.numerics import constant

# Chosen tokens count as equal where the norm of their centred Gram is below this many rounding
# errors of the Gram before centring.
NOISE = 64.0


def set_sizes(count_S: Tensor, ratios: Sequence[float], min_k: int) -> Tensor:
    """k_i = min(m, max(min_k, ceil(gamma_i m))) with m real tokens: (S, P) int64 (Eq 7).

    The slack of 1e-9 keeps rounding from lifting an exact product (0.28 * 25) over an integer.
    """
    gamma_P = constant(tuple(ratios), torch.float64, count_S.device)
    k_SP = torch.ceil(count_S[:, None] * gamma_P - 1e-9).clamp_min_(min_k).long()
    return torch.minimum(k_SP, count_S[:, None])


def largest_sets(longest: int, ratios: Sequence[float], min_k: int) -> list[int]:
    """Upper bound of each k_i among sentences of at most `longest` tokens, from host numbers."""
    return set_sizes(torch.tensor([longest]), ratios, min_k)[0].tolist()


def choose(score_ST: Tensor, mask_ST: Tensor, k: int) -> Tensor:
    """Indices of the k best real tokens, best first, ties in reading order: (S, k)."""
    ranked_ST = score_ST.masked_fill(~mask_ST, -torch.inf)
    return ranked_ST.sort(dim=1, descending=True, stable=True).indices[:, :k]


def pre_centre(x_gkD: Tensor, k_g: Tensor) -> Tensor:
    """Subtract, in place, the mean of the first k_g tokens from every row.

    Exact, since double centring removes any common vector; without it a channel with a large
    offset eats the digits of every Gram. Rows past k_g are pads; `_centre` leaves them out.
    """
    w_gk = (torch.arange(x_gkD.shape[1], device=x_gkD.device) < k_g[:, None]).to(x_gkD.dtype)
    mean_g1D = torch.bmm((w_gk / k_g.clamp_min(1)[:, None])[:, None], x_gkD)
    return x_gkD.sub_(mean_g1D)


class Chosen(NamedTuple):
    """Chosen tokens of one chunk of sentences, sorted and pre-centred."""

    x_gkD: Tensor
    k_gP: Tensor  # set sizes
    bounds: list[int]  # an upper bound of each k_i, known without reading the device


class _Grams(NamedTuple):
    """Double-centred Gram pairs of every prefix, and their scalars per sentence."""

    K: tuple[Tensor, ...]  # one (g, c_i, c_i) per prefix
    L: tuple[Tensor, ...]
    dot_gP: Tensor
    norm_K_gP: Tensor
    norm_L_gP: Tensor
    known_gP: Tensor  # False: fewer than two tokens or all equal, so CKA = 1 by definition


def _centre(A_gcc: Tensor, w_gc: Tensor, inv_k_g1: Tensor, full: bool) -> tuple[Tensor, Tensor]:
    """Double-centre A over the tokens with w = 1; zero elsewhere (skipped when `full`: all w = 1).

    A'_jl = A_jl - r_j - r_l + s = A_jl - b_j - b_l,  r row means, s = mean of r, b = r - s/2.
    Also returns the trace before centring, the scale of the rounding errors.
    """
    b_gc = torch.bmm(A_gcc, w_gc[:, :, None])[:, :, 0].mul_(inv_k_g1)
    b_gc -= (b_gc * w_gc).sum(1, keepdim=True).mul_(inv_k_g1 / 2)
    out_gcc = (A_gcc - b_gc[:, :, None]).sub_(b_gc[:, None, :])
    if not full:
        out_gcc.mul_(w_gc[:, :, None]).mul_(w_gc[:, None, :])
    return out_gcc, (A_gcc.diagonal(dim1=1, dim2=2) * w_gc).sum(1)


def _grams(chosen: Chosen, dims: Sequence[int]) -> _Grams:
    """Centred Gram pairs of every prefix from one accumulation over blocks."""
    x_gkD, k_gP, bounds = chosen
    g, k, D = x_gkD.shape
    w_gPk = (torch.arange(k, device=x_gkD.device) < k_gP[:, :, None]).to(x_gkD.dtype)
    inv_k_gP = k_gP.clamp_min(1).to(x_gkD.dtype).reciprocal()
    # reading the device would stall a GPU, so only a CPU skips the masking of equal lengths
    full = [False] * len(dims)
    if k_gP.device.type == "cpu":
        full = (k_gP == torch.tensor(bounds)).all(0).tolist()
    gram_gkk = x_gkD.new_zeros(g, k, k)

    def centre(i: int) -> tuple[Tensor, Tensor]:
        c = bounds[i]
        return _centre(gram_gkk[:, :c, :c], w_gPk[:, i, :c], inv_k_gP[:, i : i + 1], full[i])

    students = []
    for i, (start, d) in enumerate(zip((0, *dims), (*dims, D), strict=True)):
        x_gkw = x_gkD[:, :, start:d]
        gram_gkk.baddbmm_(x_gkw, x_gkw.transpose(1, 2))
        if i < len(dims):
            students.append(centre(i))
    K, trace_K = zip(*students, strict=True)
    L, trace_L = zip(*(centre(i) for i in range(len(dims))), strict=True)
    norm_K_gP = torch.stack([A_gcc.norm(dim=(1, 2)) for A_gcc in K], 1)
    norm_L_gP = torch.stack([A_gcc.norm(dim=(1, 2)) for A_gcc in L], 1)
    noise = NOISE * torch.finfo(x_gkD.dtype).eps
    known_gP = (norm_K_gP > noise * torch.stack(trace_K, 1)) & (k_gP > 1)
    known_gP &= norm_L_gP > noise * torch.stack(trace_L, 1)
    dot_gP = torch.stack([(A * B).sum((1, 2)) for A, B in zip(K, L, strict=True)], 1)
    return _Grams(K, L, dot_gP, norm_K_gP, norm_L_gP, known_gP)


def geometry_loss(chosen: Chosen, dims: Sequence[int]) -> Tensor:
    """Sum over prefixes of 1 - CKA per sentence (Eq 12): (g,)."""
    grams = _grams(chosen, dims)
    cka_gP = grams.dot_gP / grams.norm_K_gP / grams.norm_L_gP
    return torch.where(grams.known_gP, 1 - cka_gP, 0).sum(1)


def geometry_gradient(
    chosen: Chosen, dims: Sequence[int], grad_g: Tensor, detach_teacher: bool
) -> Tensor:
    """d(grad . loss)/dx: (g, k, W), W = d_P when the teacher is detached, else D.

    d loss_i / dK_i = -(L' - (a / |K'|^2) K') / (|K'||L'|) =: M_i,   a = <K', L'>
    d loss_i / dL_i = -(K' - (a / |L'|^2) L') / (|K'||L'|) =: N_i
    dx[:, block] = 2 (sum_{i >= block} M_i + sum_i N_i) x[:, block]     (suffix sums, one product)
    """
    K, L, dot_gP, norm_K_gP, norm_L_gP, known_gP = _grams(chosen, dims)
    x_gkD, _, bounds = chosen
    g, k, D = x_gkD.shape
    cross_gP = torch.where(known_gP, -2 * grad_g[:, None] / (norm_K_gP * norm_L_gP), 0)
    own_gP = torch.where(known_gP, cross_gP * dot_gP, 0)  # times -1 / |.|^2 of its own side
    suffix_gkk = x_gkD.new_zeros(g, k, k)
    dx_gkW = x_gkD.new_empty(g, k, dims[-1] if detach_teacher else D)

    def add(i: int, other: Tensor, own: Tensor, norm_gP: Tensor) -> None:
        """One prefix's M_i or N_i into the sum: its own side's Gram, and the other side's."""
        own_g = torch.where(known_gP, -own_gP / norm_gP.square(), 0)[:, i, None, None]
        part_gcc = suffix_gkk[:, : bounds[i], : bounds[i]]
        part_gcc.addcmul_(other, cross_gP[:, i, None, None]).addcmul_(own, own_g)

    if not detach_teacher:
        for i in range(len(dims)):
            add(i, K[i], L[i], norm_L_gP)
        dx_gkW[:, :, dims[-1] :] = torch.bmm(suffix_gkk, x_gkD[:, :, dims[-1] :])
    for i in reversed(range(len(dims))):
        add(i, L[i], K[i], norm_K_gP)
        block = slice(dims[i - 1] if i else 0, dims[i])
        dx_gkW[:, :, block] = torch.bmm(suffix_gkk, x_gkD[:, :, block])
    return dx_gkW
