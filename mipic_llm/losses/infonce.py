"""InfoNCE at one or many prefix widths, with an analytic gradient that is tiled over rows.

Shape legend:
    B anchors (rows) of this rank; b rows of one tile
    N candidates over all ranks
    D full width
    i index of a prefix; dims = (d_0 < d_1 < ...), block i = columns d_{i-1} to d_i

    u^i_bn = <q_b[:d_i], c_n[:d_i]> = u^{i-1}_bn + <q_b, c_n> over block i
    z^i_bn = u^i_bn / (|q_b[:d_i]| |c_n[:d_i]| tau)
    loss_i = mean_b ( logsumexp_n z^i_bn - z^i_b,target(b) )
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mipic_llm.losses.numerics import check_tau, compute_dtype, full_precision

_EPS = 1e-12  # smallest norm, as in torch.nn.functional.normalize
# Workspace of one row tile, all prefixes of b rows against N candidates: small enough for a CPU's
# process not to grow with the batch, large enough for its products (and a GPU's, below) to be fast.
_TILE_BYTES = 32 * 2**20
_TILE_BYTES_GPU = 256 * 2**20


def info_nce(
    q_BD: Tensor,
    c_ND: Tensor,
    *,
    target_B: Tensor,
    tau: float,
    exclude_BN: Tensor | None = None,
) -> Tensor:
    """InfoNCE of arXiv 2604.24374 (Eq 1): mean cross-entropy of cosine / tau at the target.

    q_BD and c_ND are L2-normalised here. target_B holds, per anchor, the index of its positive in
    c_ND. exclude_BN is True where a candidate is left out of the anchor's denominator (a duplicate
    of the anchor, say); the target itself is never left out. Gradients go to both sides.
    Returns a scalar (float32, or float64 for float64 inputs). Raises ValueError on wrong shapes.
    """
    dims = (q_BD.shape[-1],)
    return prefix_info_nce(q_BD, c_ND, target_B, dims, tau, exclude_BN)[0]


def prefix_info_nce(
    q_BD: Tensor,
    c_ND: Tensor,
    target_B: Tensor,
    dims: Sequence[int],
    tau: float,
    exclude_BN: Tensor | None,
) -> Tensor:
    """InfoNCE of every prefix in `dims` (each sliced first, normalised after): (n_dims,)."""
    check_tau(tau)
    _check_shapes(q_BD, c_ND, target_B, exclude_BN)
    dims = tuple(int(d) for d in dims)
    if not dims or any(a >= b for a, b in zip((0, *dims), dims, strict=False)):
        raise ValueError(f"dims must ascend from at least 1 without repeats, got {list(dims)}")
    if dims[-1] > q_BD.shape[1]:
        raise ValueError(f"dims end at {dims[-1]}, wider than the vectors ({q_BD.shape[1]})")
    return _PrefixInfoNCE.apply(q_BD, c_ND, target_B, exclude_BN, dims, float(tau))


def _check_shapes(q_BD: Tensor, c_ND: Tensor, target_B: Tensor, exclude_BN: Tensor | None) -> None:
    if q_BD.dim() != 2 or c_ND.dim() != 2 or q_BD.shape[1] != c_ND.shape[1]:
        raise ValueError(
            "anchors (B, D) and candidates (N, D) must be matrices of one width, got "
            f"{tuple(q_BD.shape)} and {tuple(c_ND.shape)}"
        )
    B, N = q_BD.shape[0], c_ND.shape[0]
    if B == 0 or N == 0:
        raise ValueError(f"a contrastive loss needs anchors and candidates, got {B} and {N}")
    if target_B.shape != (B,) or target_B.dtype != torch.int64:
        raise ValueError(
            f"target_B must be int64 of shape ({B},), got {target_B.dtype} {tuple(target_B.shape)}"
        )
    if target_B.device.type == "cpu" and not 0 <= int(target_B.min()) <= int(target_B.max()) < N:
        raise ValueError(f"target_B must index the {N} candidates")
    if exclude_BN is not None and (exclude_BN.shape != (B, N) or exclude_BN.dtype != torch.bool):
        raise ValueError(
            f"exclude_BN must be bool of shape ({B}, {N}), got {exclude_BN.dtype} "
            f"{tuple(exclude_BN.shape)}"
        )


class _Logits(NamedTuple):
    """All prefixes of one tile: logits, the inverse norms of both sides (1/|.|, clamped), and which
    prefixes a column belongs to. Stacked, so that a step of many small links is few launches."""

    z_ibN: Tensor
    rq_ib: Tensor
    rc_iN: Tensor
    inside_Di: Tensor


def _logits(q_bD: Tensor, c_ND: Tensor, dims: Sequence[int], tau: float) -> _Logits:
    """Logits of every prefix; the product is accumulated over blocks."""
    z_ibN = q_bD.new_empty(len(dims), q_bD.shape[0], c_ND.shape[0])
    torch.mm(q_bD[:, : dims[0]], c_ND[:, : dims[0]].T, out=z_ibN[0])
    for i in range(1, len(dims)):
        block = slice(dims[i - 1], dims[i])
        torch.addmm(z_ibN[i - 1], q_bD[:, block], c_ND[:, block].T, out=z_ibN[i])
    column_D1 = torch.arange(q_bD.shape[1], device=q_bD.device)[:, None]
    inside_Di = (column_D1 < torch.tensor(dims, device=q_bD.device)).to(q_bD.dtype)
    rq_ib, rc_iN = (
        (x_nD.square() @ inside_Di).sqrt_().clamp_min_(_EPS).reciprocal_().T.contiguous()
        for x_nD in (q_bD, c_ND)
    )
    z_ibN.mul_((rq_ib / tau)[:, :, None]).mul_(rc_iN[:, None])
    return _Logits(z_ibN, rq_ib, rc_iN, inside_Di)


def _leave_out(z_ibN: Tensor, target_b: Tensor, exclude_bN: Tensor | None) -> Tensor:
    if exclude_bN is None:
        return z_ibN
    keep_target_bN = exclude_bN.scatter(1, target_b[:, None], False)
    return z_ibN.masked_fill(keep_target_bN, -torch.inf)


class _PrefixInfoNCE(torch.autograd.Function):
    """Saves the inputs only; the backward builds each tile's logits again.

    With delta = (softmax(z) - onehot(target)) g_i / B per prefix i and A_i = delta / (|q||c| tau):
        dL/dq[block] = (sum_{i >= block} A_i) c[block] - q[block] sum_{i >= block} rho_i
        rho_i,b = sum_n delta_bn z_bn / |q_b[:d_i]|^2         (and the mirror image for c)
    """

    @staticmethod
    def forward(
        ctx: Any,
        q_BD: Tensor,
        c_ND: Tensor,
        target_B: Tensor,
        exclude_BN: Tensor | None,
        dims: tuple[int, ...],
        tau: float,
    ) -> Tensor:
        ctx.save_for_backward(q_BD, c_ND, target_B, exclude_BN)
        ctx.dims, ctx.tau = dims, tau
        dtype = compute_dtype(q_BD, c_ND)
        with full_precision(q_BD.device):
            q_BD, c_ND = q_BD.to(dtype), c_ND.to(dtype)
            total_i = q_BD.new_zeros(len(dims))
            for rows in _tiles(q_BD, c_ND, len(dims)):
                target_b = target_B[rows]
                exclude_bN = None if exclude_BN is None else exclude_BN[rows]
                z_ibN = _logits(q_BD[rows], c_ND, dims, tau).z_ibN
                z_ibN = _leave_out(z_ibN, target_b, exclude_bN)
                hit_ib = z_ibN[:, torch.arange(len(target_b), device=z_ibN.device), target_b]
                total_i += (z_ibN.logsumexp(2) - hit_ib).sum(1)
            return total_i / q_BD.shape[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_i: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        q_in_BD, c_in_ND, target_B, exclude_BN = ctx.saved_tensors
        need_q, need_c = ctx.needs_input_grad[:2]
        dtype = compute_dtype(q_in_BD, c_in_ND)
        with full_precision(q_in_BD.device):
            q_BD, c_ND = q_in_BD.to(dtype), c_in_ND.to(dtype)
            dq_BD = torch.zeros_like(q_BD) if need_q else None
            dc_ND = torch.zeros_like(c_ND) if need_c else None
            weight_i = grad_i.to(dtype) / q_BD.shape[0]
            for rows in _tiles(q_BD, c_ND, len(ctx.dims)):
                _tile_backward(
                    q_BD[rows],
                    c_ND,
                    target_B[rows],
                    None if exclude_BN is None else exclude_BN[rows],
                    weight_i,
                    ctx.dims,
                    ctx.tau,
                    None if dq_BD is None else dq_BD[rows],
                    dc_ND,
                )
        dq = None if dq_BD is None else dq_BD.to(q_in_BD.dtype)
        dc = None if dc_ND is None else dc_ND.to(c_in_ND.dtype)
        return dq, dc, None, None, None, None


def _tile_backward(
    q_bD: Tensor,
    c_ND: Tensor,
    target_b: Tensor,
    exclude_bN: Tensor | None,
    weight_i: Tensor,
    dims: tuple[int, ...],
    tau: float,
    dq_bD: Tensor | None,
    dc_ND: Tensor | None,
) -> None:
    """Add one row tile's gradient into dq_bD and dc_ND (see _PrefixInfoNCE for the formula)."""
    z_ibN, rq_ib, rc_iN, inside_Di = _logits(q_bD, c_ND, dims, tau)
    delta_ibN = _leave_out(z_ibN, target_b, exclude_bN).softmax(2)
    delta_ibN[:, torch.arange(len(target_b), device=target_b.device), target_b] -= 1
    delta_ibN *= weight_i[:, None, None]
    dz_ibN = z_ibN.mul_(delta_ibN)
    # where a norm is clamped it is a constant: no gradient through it
    rho_ib = dz_ibN.sum(2) * rq_ib.square() * (rq_ib < 1 / _EPS)
    rho_iN = dz_ibN.sum(1) * rc_iN.square() * (rc_iN < 1 / _EPS)
    A_ibN = delta_ibN.mul_((rq_ib / tau)[:, :, None]).mul_(rc_iN[:, None])
    for i in reversed(range(len(dims))):
        if i + 1 < len(dims):
            A_ibN[i] += A_ibN[i + 1]  # suffix sums
        block = slice(dims[i - 1] if i else 0, dims[i])
        if dq_bD is not None:
            dq_bD[:, block].addmm_(A_ibN[i], c_ND[:, block])
        if dc_ND is not None:
            dc_ND[:, block].addmm_(A_ibN[i].T, q_bD[:, block])
    if dq_bD is not None:
        dq_bD -= q_bD * (rho_ib.T @ inside_Di.T)
    if dc_ND is not None:
        dc_ND -= c_ND * (rho_iN.T @ inside_Di.T)


def _tiles(q_BD: Tensor, c_ND: Tensor, n_dims: int) -> Iterator[slice]:
    """Row slices whose logits, for every prefix at once, fit the workspace."""
    row_bytes = c_ND.shape[0] * (2 * n_dims + 2) * q_BD.element_size()
    room = _TILE_BYTES if q_BD.device.type == "cpu" else _TILE_BYTES_GPU
    step = max(1, room // row_bytes)
    for start in range(0, q_BD.shape[0], step):
        yield slice(start, min(start + step, q_BD.shape[0]))
