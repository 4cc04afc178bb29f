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
# Tokens of the largest set up to which a GPU takes all prefixes at once (see `_together`).
STACKED = 128


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

    K: list[Tensor]  # one (g, c, c) per prefix
    L: list[Tensor]
    dot_gP: Tensor
    norm_K_gP: Tensor
    norm_L_gP: Tensor
    known_gP: Tensor  # False: fewer than two tokens or all equal, so CKA = 1 by definition


def _centre(A_gpcc: Tensor, w_gpc: Tensor, inv_k_gp1: Tensor, full: bool) -> tuple[Tensor, Tensor]:
    """Double-centre A over the tokens with w = 1; zero elsewhere (skipped when `full`: all w = 1).
    Of p prefixes with one A for each, or one for all (p = 1 there).

    A'_jl = A_jl - r_j - r_l + s = A_jl - b_j - b_l,  r row means, s = mean of r, b = r - s/2.
    Also returns the trace before centring, the scale of the rounding errors.
    """
    b_gpc = (A_gpcc @ w_gpc[..., None])[..., 0].mul_(inv_k_gp1)
    b_gpc -= (b_gpc * w_gpc).sum(2, keepdim=True).mul_(inv_k_gp1 / 2)
    out_gpcc = (A_gpcc - b_gpc[..., None]).sub_(b_gpc[:, :, None])
    if not full:
        out_gpcc.mul_(w_gpc[..., None]).mul_(w_gpc[:, :, None])
    return out_gpcc, (A_gpcc.diagonal(dim1=2, dim2=3) * w_gpc).sum(2)


def _grams(chosen: Chosen, dims: Sequence[int]) -> _Grams:
    """Centred Gram pairs of every prefix from one accumulation over blocks."""
    x_gkD, k_gP, bounds = chosen
    (g, k, D), P = x_gkD.shape, len(dims)
    w_gPk = (torch.arange(k, device=x_gkD.device) < k_gP[:, :, None]).to(x_gkD.dtype)
    inv_k_gP1 = k_gP.clamp_min(1).to(x_gkD.dtype).reciprocal()[:, :, None]
    A_gPkk = x_gkD.new_empty(P + 1, g, k, k).transpose(0, 1)  # uncentred, of each prefix and D
    for i, (start, d) in enumerate(zip((0, *dims), (*dims, D), strict=True)):
        x_gkw = x_gkD[:, :, start:d]
        if i:
            torch.baddbmm(A_gPkk[:, i - 1], x_gkw, x_gkw.transpose(1, 2), out=A_gPkk[:, i])
        else:
            torch.bmm(x_gkw, x_gkw.transpose(1, 2), out=A_gPkk[:, 0])
    K: list[Tensor] = []
    L: list[Tensor] = []
    scalars = []
    for here in _together(bounds, x_gkD.device):
        c = max(bounds[here])
        w_gpc, inv_gp1 = w_gPk[:, here, :c], inv_k_gP1[:, here]
        # reading the device would stall a GPU, so only a CPU skips the masking of equal lengths
        full = k_gP.device.type == "cpu" and bool((k_gP[:, here] == c).all())
        K_gpcc, trace_K = _centre(A_gPkk[:, here, :c, :c], w_gpc, inv_gp1, full)
        L_gpcc, trace_L = _centre(A_gPkk[:, P:, :c, :c], w_gpc, inv_gp1, full)
        norm_K, norm_L = K_gpcc.norm(dim=(2, 3)), L_gpcc.norm(dim=(2, 3))
        scalars.append([(K_gpcc * L_gpcc).sum((2, 3)), norm_K, norm_L, trace_K, trace_L])
        K += K_gpcc.unbind(1)
        L += L_gpcc.unbind(1)
    found = [torch.cat(parts, 1) if len(parts) > 1 else parts[0]
             for parts in zip(*scalars, strict=True)]  # fmt: skip
    dot_gP, norm_K_gP, norm_L_gP, trace_K_gP, trace_L_gP = found
    noise = NOISE * torch.finfo(x_gkD.dtype).eps
    known_gP = (norm_K_gP > noise * trace_K_gP) & (norm_L_gP > noise * trace_L_gP) & (k_gP > 1)
    return _Grams(K, L, dot_gP, norm_K_gP, norm_L_gP, known_gP)


def _together(bounds: Sequence[int], device: torch.device) -> list[slice]:
    """Prefixes whose Grams are centred as one tensor, padded to the largest set: all of them where
    launches cost more than the padding (small sets on a GPU), else each alone."""
    if device.type == "cpu" or max(bounds) > STACKED:
        return [slice(i, i + 1) for i in range(len(bounds))]
    return [slice(0, len(bounds))]


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
    x_gkD = chosen.x_gkD
    g, k, D = x_gkD.shape
    cross_gP = torch.where(known_gP, -2 * grad_g[:, None] / (norm_K_gP * norm_L_gP), 0)
    suffix_gkk = x_gkD.new_zeros(g, k, k)
    dx_gkW = x_gkD.new_empty(g, k, dims[-1] if detach_teacher else D)

    def own(norm_gP: Tensor) -> Tensor:
        """Of each prefix, the factor of its own side's Gram."""
        return torch.where(known_gP, -cross_gP * dot_gP / norm_gP.square(), 0)

    def add(i: int, other: Tensor, own_side: Tensor, own_gP: Tensor) -> None:
        """One prefix's M_i or N_i into the sum: its own side's Gram, and the other side's."""
        c = other.shape[1]
        part_gcc = suffix_gkk[:, :c, :c]
        part_gcc.addcmul_(other, cross_gP[:, i, None, None])
        part_gcc.addcmul_(own_side, own_gP[:, i, None, None])

    def multiply(block: slice) -> None:
        torch.bmm(suffix_gkk, x_gkD[:, :, block], out=dx_gkW[:, :, block])

    if not detach_teacher:
        own_L_gP = own(norm_L_gP)
        for i in range(len(dims)):
            add(i, K[i], L[i], own_L_gP)
        multiply(slice(dims[-1], D))
    own_K_gP = own(norm_K_gP)
    for i in reversed(range(len(dims))):
        add(i, L[i], K[i], own_K_gP)
        multiply(slice(dims[i - 1] if i else 0, dims[i]))
    return dx_gkW
