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


class _Prefix(NamedTuple):
    """One prefix of one tile: logits and the inverse norms of both sides (1/|.|, clamped)."""

    z_bN: Tensor
    rq_b: Tensor
    rc_N: Tensor


def _prefixes(q_bD: Tensor, c_ND: Tensor, dims: Sequence[int], tau: float) -> Iterator[_Prefix]:
    """Logits of each prefix, the product and the squared norms accumulated over blocks."""
    u_bN = q_bD.new_zeros(q_bD.shape[0], c_ND.shape[0])
    nq_b = q_bD.new_zeros(q_bD.shape[0])
    nc_N = q_bD.new_zeros(c_ND.shape[0])
    start = 0
    for d in dims:
        q_bw, c_Nw = q_bD[:, start:d], c_ND[:, start:d]
        u_bN = torch.addmm(u_bN, q_bw, c_Nw.T)
        nq_b = nq_b + q_bw.square().sum(1)
        nc_N = nc_N + c_Nw.square().sum(1)
        rq_b = nq_b.sqrt().clamp_min(_EPS).reciprocal()
        rc_N = nc_N.sqrt().clamp_min(_EPS).reciprocal()
        yield _Prefix(u_bN * (rq_b / tau)[:, None] * rc_N, rq_b, rc_N)
        start = d


def _leave_out(z_bN: Tensor, target_b: Tensor, exclude_bN: Tensor | None) -> Tensor:
    if exclude_bN is None:
        return z_bN
    keep_target_bN = exclude_bN.scatter(1, target_b[:, None], False)
    return z_bN.masked_fill(keep_target_bN, -torch.inf)


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
                for i, prefix in enumerate(_prefixes(q_BD[rows], c_ND, dims, tau)):
                    z_bN = _leave_out(prefix.z_bN, target_b, exclude_bN)
                    hit_b = z_bN.gather(1, target_b[:, None])[:, 0]
                    total_i[i] += (z_bN.logsumexp(1) - hit_b).sum()
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
    A_list, rho_q, rho_c = [], [], []
    for i, (z_bN, rq_b, rc_N) in enumerate(_prefixes(q_bD, c_ND, dims, tau)):
        delta_bN = _leave_out(z_bN, target_b, exclude_bN).softmax(1)
        delta_bN[torch.arange(len(target_b), device=target_b.device), target_b] -= 1
        delta_bN *= weight_i[i]
        dz_bN = delta_bN * z_bN
        # where a norm is clamped it is a constant: no gradient through it
        rho_q.append(dz_bN.sum(1) * rq_b.square() * (rq_b < 1 / _EPS))
        rho_c.append(dz_bN.sum(0) * rc_N.square() * (rc_N < 1 / _EPS))
        A_list.append(delta_bN.mul_((rq_b / tau)[:, None]).mul_(rc_N))
    suffix_bN = torch.zeros_like(A_list[-1])
    suffix_q, suffix_c = torch.zeros_like(rho_q[-1]), torch.zeros_like(rho_c[-1])
    for i in reversed(range(len(dims))):
        block = slice(dims[i - 1] if i else 0, dims[i])
        suffix_bN += A_list[i]
        suffix_q, suffix_c = suffix_q + rho_q[i], suffix_c + rho_c[i]
        if dq_bD is not None:
            dq_bD[:, block] += suffix_bN @ c_ND[:, block] - suffix_q[:, None] * q_bD[:, block]
        if dc_ND is not None:
            dc_ND[:, block] += suffix_bN.T @ q_bD[:, block] - suffix_c[:, None] * c_ND[:, block]


def _tiles(q_BD: Tensor, c_ND: Tensor, n_dims: int) -> Iterator[slice]:
    """Row slices whose logits, for every prefix at once, fit the workspace."""
    row_bytes = c_ND.shape[0] * (n_dims + 2) * q_BD.element_size()
    room = _TILE_BYTES if q_BD.device.type == "cpu" else _TILE_BYTES_GPU
    step = max(1, room // row_bytes)
    for start in range(0, q_BD.shape[0], step):
        yield slice(start, min(start + step, q_BD.shape[0]))
