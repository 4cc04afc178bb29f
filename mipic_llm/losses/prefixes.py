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
from typing import Any, NamedTuple, Protocol

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
        ...

    def slope(self, z_ibN: Tensor, here: slice) -> Tensor:
        """d value_i / d z^i_bn, a new tensor (n_dims, b, N)."""
        ...


def over_prefixes(
    q_BD: Tensor, c_ND: Tensor, term: Term, *, dims: Sequence[int], tau: float = 1.0
) -> Tensor:
    """Mean over the rows of q of `term`, at each prefix: (n_dims,), with gradients to both sides.

    Each prefix is sliced first and L2-normalised after. Returns float32, or float64 for float64
    inputs. Raises ValueError on wrong shapes, on tau <= 0, and unless dims ascend within 1 .. D.
    """
    check_tau(tau)
    if q_BD.dim() != 2 or c_ND.dim() != 2 or q_BD.shape[1] != c_ND.shape[1]:
        raise ValueError(
            "rows (B, D) and (N, D) must be matrices of one width, got "
            f"{tuple(q_BD.shape)} and {tuple(c_ND.shape)}"
        )
    if not len(q_BD) or not len(c_ND):
        raise ValueError(f"a loss needs rows on both sides, got {len(q_BD)} and {len(c_ND)}")
    dims = tuple(int(d) for d in dims)
    if not dims or any(a >= b for a, b in zip((0, *dims), dims, strict=False)):
        raise ValueError(f"dims must ascend from at least 1 without repeats, got {list(dims)}")
    if dims[-1] > q_BD.shape[1]:
        raise ValueError(f"dims end at {dims[-1]}, wider than the vectors ({q_BD.shape[1]})")
    return OverPrefixes.apply(q_BD, c_ND, term, dims, float(tau))


def check_index(name: str, index_B: Tensor, B: int, N: int) -> None:
    """Raise ValueError unless index_B is int64 (B,) and, on a CPU, holds 0 .. N - 1 (to look at it
    elsewhere would wait for the device)."""
    if index_B.shape != (B,) or index_B.dtype != torch.int64:
        raise ValueError(
            f"{name} must be int64 of shape ({B},), got {index_B.dtype} {tuple(index_B.shape)}"
        )
    if index_B.device.type == "cpu" and B and not 0 <= index_B.min() <= index_B.max() < N:
        raise ValueError(f"{name} must index the {N} candidates")


class OverPrefixes(torch.autograd.Function):
    """The autograd node of `over_prefixes`; the formulas are at the top of this file."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, q_BD: Tensor, c_ND: Tensor, term: Term, dims: tuple[int, ...], tau: float
    ) -> Tensor:
        ctx.save_for_backward(q_BD, c_ND)
        ctx.term, ctx.dims, ctx.tau = term, dims, tau
        dtype = compute_dtype(q_BD, c_ND)
        with full_precision(q_BD.device):
            q_BD, c_ND = q_BD.to(dtype), c_ND.to(dtype)
            total_i = q_BD.new_zeros(len(dims))
            for here in _tiles(q_BD, c_ND, len(dims)):
                total_i += term.value(_logits(q_BD[here], c_ND, dims, tau).z_ibN, here)
            return total_i / q_BD.shape[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_i: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        q_in_BD, c_in_ND = ctx.saved_tensors
        need_q, need_c = ctx.needs_input_grad[:2]
        dtype = compute_dtype(q_in_BD, c_in_ND)
        with full_precision(q_in_BD.device):
            q_BD, c_ND = q_in_BD.to(dtype), c_in_ND.to(dtype)
            dq_BD = torch.zeros_like(q_BD) if need_q else None
            dc_ND = torch.zeros_like(c_ND) if need_c else None
            weight_i = grad_i.to(dtype) / q_BD.shape[0]
            for here in _tiles(q_BD, c_ND, len(ctx.dims)):
                logits = _logits(q_BD[here], c_ND, ctx.dims, ctx.tau)
                delta_ibN = ctx.term.slope(logits.z_ibN, here).mul_(weight_i[:, None, None])
                dq_bD = None if dq_BD is None else dq_BD[here]
                _add_gradient(q_BD[here], c_ND, logits, delta_ibN, ctx.dims, ctx.tau, dq_bD, dc_ND)
        dq = None if dq_BD is None else dq_BD.to(q_in_BD.dtype)
        dc = None if dc_ND is None else dc_ND.to(c_in_ND.dtype)
        return dq, dc, None, None, None


class _Logits(NamedTuple):
    """Logits of one tile, inverse norms 1 / max(|.|, eps) of both sides, and 1 where a column
    belongs to a prefix. Prefixes are stacked, so that few kernels are launched."""

    z_ibN: Tensor
    rq_ib: Tensor
    rc_iN: Tensor
    inside_Di: Tensor


def _logits(q_bD: Tensor, c_ND: Tensor, dims: Sequence[int], tau: float) -> _Logits:
    z_ibN = q_bD.new_empty(len(dims), q_bD.shape[0], c_ND.shape[0])
    torch.mm(q_bD[:, : dims[0]], c_ND[:, : dims[0]].T, out=z_ibN[0])
    for i in range(1, len(dims)):
        block = slice(dims[i - 1], dims[i])
        torch.addmm(z_ibN[i - 1], q_bD[:, block], c_ND[:, block].T, out=z_ibN[i])
    column_D1 = torch.arange(q_bD.shape[1], device=q_bD.device)[:, None]
    inside_Di = (column_D1 < constant(tuple(dims), torch.int64, q_bD.device)).to(q_bD.dtype)
    rq_ib, rc_iN = (
        (x_nD.square() @ inside_Di).sqrt_().clamp_min_(_EPS).reciprocal_().T.contiguous()
        for x_nD in (q_bD, c_ND)
    )
    z_ibN.mul_((rq_ib / tau)[:, :, None]).mul_(rc_iN[:, None])
    return _Logits(z_ibN, rq_ib, rc_iN, inside_Di)


def _add_gradient(
    q_bD: Tensor,
    c_ND: Tensor,
    logits: _Logits,
    delta_ibN: Tensor,
    dims: tuple[int, ...],
    tau: float,
    dq_bD: Tensor | None,
    dc_ND: Tensor | None,
) -> None:
    """Add one tile's gradient into dq_bD and dc_ND; overwrites the logits and delta_ibN."""
    z_ibN, rq_ib, rc_iN, inside_Di = logits
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
