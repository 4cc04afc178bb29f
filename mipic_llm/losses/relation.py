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

# Of the matrices of one row tile: cache and heap on a CPU, few launches elsewhere.
_TILE_MATRICES = 5
_TILE_BYTES = 16 * 2**20
_TILE_BYTES_GPU = 512 * 2**20
_EPS = 1e-12


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
        total = _NeighbourhoodKl.apply(q_BD, c_ND, kept, own_B, tuple(dims), tau)
    return total / len(q_BD)


class _Kept(NamedTuple):
    """Constant candidates, and their norms: at each truncated prefix, at last of the whole rows."""

    rows_MD: Tensor
    norms_PM: Tensor

    @classmethod
    def of(cls, rows_MD: Tensor, dims: Sequence[int]) -> _Kept:
        rows_MD = rows_MD.detach()
        norms = [vector_norm(rows_MD[:, :d], dim=1) for d in (*dims, rows_MD.shape[1])]
        return cls(rows_MD, torch.stack(norms).clamp_min(_EPS))


class _NeighbourhoodKl(torch.autograd.Function):
    """Sum over queries and prefixes of the KL, tile of rows by tile. The gradient is made in
    forward, while a tile's matrices are there: nothing of a tile outlives it, none is made twice.

    With teacher t and student p, both softmaxes over the candidates, dKL/dlogits = p - t.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q_BD: Tensor,
        c_ND: Tensor,
        kept: _Kept,
        own_B: Tensor | None,
        dims: tuple[int, ...],
        tau: float,
    ) -> Tensor:
        room = _TILE_BYTES if q_BD.device.type == "cpu" else _TILE_BYTES_GPU
        n = len(c_ND) + len(kept.rows_MD)
        rows = max(1, room // (_TILE_MATRICES * n * q_BD.element_size()))
        total = q_BD.new_zeros(())
        dq_BD, dc_ND = torch.zeros_like(q_BD), torch.zeros_like(c_ND)
        sides = [_unit(c_ND[:, :d]) for d in (*dims, c_ND.shape[1])]
        for start in range(0, len(q_BD), rows):
            here = slice(start, start + rows)
            own_b = None if own_B is None else own_B[here]
            total += _tile(q_BD[here], sides, kept, own_b, dims, tau, dq_BD[here], dc_ND)
        ctx.save_for_backward(dq_BD, dc_ND)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        dq_BD, dc_ND = ctx.saved_tensors
        return grad * dq_BD, grad * dc_ND, None, None, None, None


def _tile(
    q_bD: Tensor,
    sides: list[tuple[Tensor, Tensor]],
    kept: _Kept,
    own_b: Tensor | None,
    dims: Sequence[int],
    tau: float,
    dq_bD: Tensor,
    dc_ND: Tensor,
) -> Tensor:
    """The KL of these queries; adds its gradients to dq_bD and dc_ND.

    sides: the candidates' unit vectors and norms at each prefix, at last at full width.
    n: all candidates, the kept ones last (N + M).
    """

    def log_neighbours(unit_bd: Tensor, i: int) -> Tensor:
        old_bM = unit_bd @ kept.rows_MD[:, : unit_bd.shape[1]].T
        new_bN = unit_bd @ sides[i][0].T
        cos_bn = torch.cat([new_bN, old_bM.div_(kept.norms_PM[i])], 1)
        if own_b is not None:
            cos_bn.scatter_(1, own_b[:, None], -torch.inf)
        return torch.log_softmax(cos_bn.div_(tau), 1)

    def shares(log_bn: Tensor) -> Tensor:
        """exp; the query itself, -inf, becomes 0 in both: it counts nowhere."""
        share_bn = log_bn.exp()
        if own_b is not None:
            log_bn.scatter_(1, own_b[:, None], 0.0)
        return share_bn

    log_full_bn = log_neighbours(_unit(q_bD)[0], -1)
    full_bn, total = shares(log_full_bn), q_bD.new_zeros(())
    for i, d in enumerate(dims):
        (unit_bd, norm_b), (unit_Nd, norm_N) = _unit(q_bD[:, :d]), sides[i]
        log_bn = log_neighbours(unit_bd, i)
        share_bn = shares(log_bn)
        total -= torch.vdot(full_bn.flatten(), log_bn.sub_(log_full_bn).flatten())
        gap_bN, old_bM = share_bn.sub_(full_bn).div_(tau).tensor_split([len(unit_Nd)], 1)
        du_bd = gap_bN @ unit_Nd + old_bM.div_(kept.norms_PM[i]) @ kept.rows_MD[:, :d]
        dq_bD[:, :d] += _through_unit(du_bd, unit_bd, norm_b)
        dc_ND[:, :d] += _through_unit(gap_bN.T @ unit_bd, unit_Nd, norm_N)
    return total


def _unit(x_Nd: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of length 1, and what their lengths were (N, 1)."""
    norm_N = vector_norm(x_Nd, dim=1, keepdim=True).clamp_min(_EPS)
    return x_Nd / norm_N, norm_N


def _through_unit(grad_Nd: Tensor, unit_Nd: Tensor, norm_N: Tensor) -> Tensor:
    """The gradient of x from that of x / |x|."""
    along_N = (grad_Nd * unit_Nd).sum(1, keepdim=True)
    return (grad_Nd - along_N * unit_Nd) / norm_N


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
