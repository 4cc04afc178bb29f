"""Losses of the cosines between two sets of rows, at many prefix widths at once.

Shape legend:
    B rows of this rank; b rows of one tile; N rows of all ranks; D full width
    i index of a prefix; dims = (d_0 < d_1 < ...), block i = columns d_{i-1} to d_i

    u^i_bn = <q_b[:d_i], c_n[:d_i]> = u^{i-1}_bn + <q_b, c_n> over block i
    z^i_bn = u^i_bn / (|q_b[:d_i]| |c_n[:d_i]| tau)
    loss_i = mean_b term(z^i_b)

One product, accumulated over the blocks, gives every prefix its logits z: the cost is that of the
full width alone. Row tiles bound the memory. Only the inputs are saved; backward makes each tile's
logits again. With delta^i_bn = dloss_i/dz^i_bn times the upstream gradient of loss_i, and
A_i = delta^i / (|q||c| tau):
    dq[block] = (sum_{i >= block} A_i) c[block] - q[block] sum_{i >= block} rho_i
    rho_i,b   = sum_n delta^i_bn z^i_bn / |q_b[:d_i]|^2           (dc: the same with q, c exchanged)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mipic_llm.losses.numerics import check_tau, compute_dtype, constant, full_precision

_EPS = 1e-12  # smallest norm, as in torch.nn.functional.normalize
# Workspace of one row tile, all prefixes of b rows against N: small enough that a CPU process does
# not grow with the batch, large enough for fast products (and for few launches on a GPU).
_TILE_BYTES = 32 * 2**20
_TILE_BYTES_GPU = 256 * 2**20


class Term(Protocol):
    """A loss of logits z_ibN. `here` says which of the B rows the tile's b rows are."""

    def value(self, z_ibN: Tensor, here: slice) -> Tensor:
        """The loss of each prefix, summed over the tile's rows: (n_dims,). May overwrite z_ibN."""

    def slope(self, z_ibN: Tensor, here: slice) -> Tensor:
        """d value_i / d z^i_bn, a new tensor (n_dims, b, N)."""


def over_prefixes(
    q_BD: Tensor, c_ND: Tensor, term: Term, *, dims: Sequence[int], tau: float | Tensor = 1.0
) -> Tensor:
    """Mean over the rows of q of `term`, at each prefix: (n_dims,), with gradients to both sides.

    Each prefix is sliced first and L2-normalised after. tau may be a scalar tensor that is trained,
    positive, which has a gradient too. Returns float32, or float64 for float64
    inputs. Raises ValueError on wrong shapes, on tau <= 0, and unless dims ascend within 1 .. D.
    """
    if not isinstance(tau, Tensor):
        check_tau(tau)
        tau = float(tau)
    sides = tuple(q_BD.shape), tuple(c_ND.shape)
    if q_BD.dim() != 2 or c_ND.dim() != 2 or sides[0][1] != sides[1][1] or 0 in sides[0] + sides[1]:
        raise ValueError("rows must be matrices (B, D) and (N, D) of one width, none empty, "
                         f"got {sides[0]} and {sides[1]}")  # fmt: skip
    dims, D = tuple(int(d) for d in dims), q_BD.shape[1]
    if not dims or dims[-1] > D or any(a >= b for a, b in zip((0, *dims), dims, strict=False)):
        raise ValueError(f"dims must ascend within 1 .. {D} without repeats, got {list(dims)}")
    return OverPrefixes.apply(q_BD, c_ND, term, dims, tau)


def check_target(target_B: Tensor, B: int, N: int) -> None:
    """Raise ValueError unless target_B is int64 (B,) and, on a CPU, holds 0 .. N - 1 (to look at it
    elsewhere would wait for the device)."""
    if target_B.shape != (B,) or target_B.dtype != torch.int64:
        raise ValueError(
            f"target_B must be int64 of shape ({B},), got {target_B.dtype} {tuple(target_B.shape)}"
        )
    if target_B.device.type == "cpu" and B and not 0 <= target_B.min() <= target_B.max() < N:
        raise ValueError(f"target_B must index the {N} candidates")


class OverPrefixes(torch.autograd.Function):
    """The autograd node of `over_prefixes`; the formulas are at the top of this file."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, q_BD: Tensor, c_ND: Tensor, term: Term, dims: tuple[int, ...], tau: float | Tensor
    ) -> Tensor:
        ctx.save_for_backward(q_BD, c_ND)
        tau = tau.detach() if isinstance(tau, Tensor) else tau
        ctx.term, ctx.dims, ctx.tau = term, dims, tau
        dtype = compute_dtype(q_BD, c_ND)
        with full_precision(q_BD.device):
            q_BD, c_ND = q_BD.to(dtype), c_ND.to(dtype)
            total_i = q_BD.new_zeros(len(dims))
            for here in tiles(q_BD, c_ND, len(dims)):
                total_i += term.value(_Tile(q_BD[here], c_ND, dims, tau).z_ibN, here)
            return total_i / q_BD.shape[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_i: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        q_in_BD, c_in_ND = ctx.saved_tensors
        dtype = compute_dtype(q_in_BD, c_in_ND)
        with full_precision(q_in_BD.device):
            q_BD, c_ND = q_in_BD.to(dtype), c_in_ND.to(dtype)
            dq_BD = torch.zeros_like(q_BD)
            dc_ND = torch.zeros_like(c_ND) if ctx.needs_input_grad[1] else None
            weight_i = grad_i.to(dtype) / q_BD.shape[0]
            dtau = torch.zeros_like(weight_i[0]) if ctx.needs_input_grad[4] else None
            for here in tiles(q_BD, c_ND, len(ctx.dims)):
                tile = _Tile(q_BD[here], c_ND, ctx.dims, ctx.tau)
                delta_ibN = ctx.term.slope(tile.z_ibN, here).mul_(weight_i[:, None, None])
                if dtau is not None:  # z = cosine / tau
                    dtau -= torch.vdot(delta_ibN.flatten(), tile.z_ibN.flatten()) / ctx.tau
                tile.add_gradient(delta_ibN, dq_BD[here], dc_ND)
        dc = None if dc_ND is None else dc_ND.to(c_in_ND.dtype)
        return dq_BD.to(q_in_BD.dtype), dc, None, None, dtau


class _Tile:
    """Logits of one tile, inverse norms 1 / max(|.|, eps) of both sides, and 1 where a column
    belongs to a prefix. Prefixes are stacked, so that few kernels are launched."""

    def __init__(
        self, q_bD: Tensor, c_ND: Tensor, dims: tuple[int, ...], tau: float | Tensor
    ) -> None:
        self.q_bD, self.c_ND, self.tau = q_bD, c_ND, tau
        self.blocks = [slice(a, b) for a, b in zip((0, *dims), dims, strict=False)]
        self.z_ibN = z_ibN = q_bD.new_empty(len(dims), q_bD.shape[0], c_ND.shape[0])
        torch.mm(q_bD[:, : dims[0]], c_ND[:, : dims[0]].T, out=z_ibN[0])
        for i, block in enumerate(self.blocks[1:]):
            torch.addmm(z_ibN[i], q_bD[:, block], c_ND[:, block].T, out=z_ibN[i + 1])
        column_D1 = torch.arange(q_bD.shape[1], device=q_bD.device)[:, None]
        inside_Di = column_D1 < constant(dims, torch.int64, q_bD.device)
        self.inside_Di = inside_Di.to(q_bD.dtype)
        self.rq_ib, self.rc_iN = (
            (x_nD.square() @ self.inside_Di).sqrt_().clamp_min_(_EPS).reciprocal_().T.contiguous()
            for x_nD in (q_bD, c_ND)
        )
        z_ibN.mul_((self.rq_ib / tau)[:, :, None]).mul_(self.rc_iN[:, None])

    def add_gradient(self, delta_ibN: Tensor, dq_bD: Tensor, dc_ND: Tensor | None) -> None:
        """Add this tile's gradient into dq_bD and dc_ND; overwrites the logits and delta_ibN."""
        dz_ibN, rq_ib, rc_iN = self.z_ibN.mul_(delta_ibN), self.rq_ib, self.rc_iN
        # where a norm is clamped it is a constant: no gradient through it
        rho_ib = dz_ibN.sum(2) * rq_ib.square() * (rq_ib < 1 / _EPS)
        rho_iN = dz_ibN.sum(1) * rc_iN.square() * (rc_iN < 1 / _EPS)
        A_ibN = delta_ibN.mul_((rq_ib / self.tau)[:, :, None]).mul_(rc_iN[:, None])
        for i, block in reversed(list(enumerate(self.blocks))):
            if i + 1 < len(A_ibN):
                A_ibN[i] += A_ibN[i + 1]  # suffix sums
            dq_bD[:, block].addmm_(A_ibN[i], self.c_ND[:, block])
            if dc_ND is not None:
                dc_ND[:, block].addmm_(A_ibN[i].T, self.q_bD[:, block])
        dq_bD -= self.q_bD * (rho_ib.T @ self.inside_Di.T)
        if dc_ND is not None:
            dc_ND -= self.c_ND * (rho_iN.T @ self.inside_Di.T)


def tiles(q_BD: Tensor, c_ND: Tensor, n_dims: int) -> Iterator[slice]:
    """Row slices whose logits, for every prefix at once, fit the workspace."""
    row_bytes = c_ND.shape[0] * (2 * n_dims + 2) * q_BD.element_size()
    room = _TILE_BYTES if q_BD.device.type == "cpu" else _TILE_BYTES_GPU
    step = max(1, room // row_bytes)
    for start in range(0, q_BD.shape[0], step):
        yield slice(start, min(start + step, q_BD.shape[0]))
