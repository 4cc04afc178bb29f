"""Terms that research puts beside Matryoshka training; all off by default.

Shape legend: B anchors, N candidates or sentences, M kept ones, D full width, d a prefix width.

    neighbourhood   sum_d mean_b KL( softmax(cos(q, c) / tau) || softmax(cos(q[:d], c[:d]) / tau) )
                    (its form without the query itself is also SIA's relation between sentences)
    decorrelation   sum_d mean of squares of the correlations between channels [:d] and [d:]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.linalg import vector_norm
from torch.nn.functional import normalize

from mipic_llm.losses.numerics import check_tau, compute_dtype, full_precision

# Of the matrices that one row tile keeps for its backward: cache and heap on a CPU, few launches
# elsewhere.
_TILE_BYTES = 32 * 2**20
_TILE_BYTES_GPU = 512 * 2**20


def neighbourhood_kl(
    q_BD: Tensor,
    c_ND: Tensor,
    *,
    dims: Sequence[int],
    tau: float,
    own_B: Tensor | None = None,
    kept_MD: Tensor | None = None,
) -> Tensor:
    """Each prefix should see the same neighbours as the full width, which is detached.

    dims: truncated prefixes. own_B: the place of each query among the candidates, where it stands
    among them; nobody is its own neighbour. kept_MD: further candidates, constants. Sum over
    prefixes of the mean over queries; a scalar.
    """
    check_tau(tau)
    dtype = compute_dtype(q_BD, c_ND)
    with full_precision(q_BD.device):
        q_BD, c_ND = q_BD.to(dtype), c_ND.to(dtype)
        kept = _Kept.of(c_ND[:0] if kept_MD is None else kept_MD.to(dtype), dims)
        saved = 3 * len(dims) + 2  # matrices of rows x (N + M)
        room = _TILE_BYTES if q_BD.device.type == "cpu" else _TILE_BYTES_GPU
        rows = max(1, room // (saved * (len(c_ND) + len(kept.rows_MD)) * q_BD.element_size()))
        if rows >= len(q_BD):
            total = _tile_kl(q_BD, c_ND, kept, dims, tau, own_B)
        else:
            total = _TiledKl.apply(q_BD, c_ND, kept, own_B, tuple(dims), tau, rows)
    return total / len(q_BD)


class _Kept(NamedTuple):
    """Constant candidates, and their norms: at each truncated prefix, at last of the whole rows."""

    rows_MD: Tensor
    norms_PM: Tensor

    @classmethod
    def of(cls, rows_MD: Tensor, dims: Sequence[int]) -> _Kept:
        rows_MD = rows_MD.detach()
        norms = [vector_norm(rows_MD[:, :d], dim=1) for d in (*dims, rows_MD.shape[1])]
        return cls(rows_MD, torch.stack(norms).clamp_min(1e-12))


class _TiledKl(torch.autograd.Function):
    """_tile_kl of all rows, tile by tile. The gradient is made in forward, while a tile's matrices
    are there: nothing of a tile outlives it, and none is made twice."""

    @staticmethod
    def forward(
        ctx: Any,
        q_BD: Tensor,
        c_ND: Tensor,
        kept: _Kept,
        own_B: Tensor | None,
        dims: tuple[int, ...],
        tau: float,
        rows: int,
    ) -> Tensor:
        total, wide = q_BD.new_zeros(()), max(dims)
        dq_BD, dc_ND = torch.zeros_like(q_BD), torch.zeros_like(c_ND)
        for start in range(0, len(q_BD), rows):
            here = slice(start, start + rows)
            with torch.enable_grad():
                q_bD, c = q_BD[here].detach().requires_grad_(), c_ND.detach().requires_grad_()
                own_b = None if own_B is None else own_B[here]
                value = _tile_kl(q_bD, c, kept, dims, tau, own_b)
                dq, dc = torch.autograd.grad(value, (q_bD, c))
            total += value.detach()
            dq_BD[here] = dq
            dc_ND[:, :wide] += dc[:, :wide]
        ctx.save_for_backward(dq_BD, dc_ND)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        dq_BD, dc_ND = ctx.saved_tensors
        return grad * dq_BD, grad * dc_ND, None, None, None, None, None


def _tile_kl(
    q_bD: Tensor,
    c_ND: Tensor,
    kept: _Kept,
    dims: Sequence[int],
    tau: float,
    own_b: Tensor | None,
) -> Tensor:
    """Sum over these queries and all prefixes. n: candidates, the kept ones last (N + M)."""

    def log_neighbours(q_bd: Tensor, c_Nd: Tensor, i: int) -> Tensor:
        unit_bd = normalize(q_bd, dim=1) / tau
        old_bM = unit_bd @ kept.rows_MD[:, : q_bd.shape[1]].T / kept.norms_PM[i]
        cos_bn = torch.cat([unit_bd @ normalize(c_Nd, dim=1).T, old_bM], 1)
        if own_b is not None:
            cos_bn.scatter_(1, own_b[:, None], -torch.inf)
        return torch.log_softmax(cos_bn, 1)

    log_full_bn = log_neighbours(q_bD.detach(), c_ND.detach(), -1)
    full_bn, total = log_full_bn.exp(), q_bD.new_zeros(())
    for i, d in enumerate(dims):
        gap_bn = log_full_bn - log_neighbours(q_bD[:, :d], c_ND[:, :d], i)
        if own_b is not None:  # -inf - -inf
            gap_bn.scatter_(1, own_b[:, None], 0.0)
        total = total + (full_bn * gap_bn).sum()
    return total


def decorrelation(z_ND: Tensor, *, dims: Sequence[int]) -> Tensor:
    """Prefix and residual should say different things: mean squared correlation, summed over dims.

    Correlations are over the N rows (two or more); a constant channel counts as uncorrelated.
    """
    dtype = compute_dtype(z_ND)
    with full_precision(z_ND.device):
        z_ND = z_ND.to(dtype)
        z_ND = normalize(z_ND - z_ND.mean(0), dim=0)
        squares_DD = (z_ND.T @ z_ND).square()
        parts = [squares_DD[:d, d:].mean() for d in dims]
    return torch.stack(parts).sum()
