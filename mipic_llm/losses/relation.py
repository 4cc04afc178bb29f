"""Relation between texts: a prefix should have the neighbours that a teacher has.

Shape legend: B queries, b of one tile; N candidates, M kept ones (constants), n = N + M; D full
width, K the teacher's, d a prefix width, i its index.

    t_b   = softmax_n(cos(Q_b, C_n) / tau)                  teacher, a constant: vectors of another
                                                            model, or q and c at full width
    p^i_b = softmax_n(cos(q_b[:d_i], c_n[:d_i]) / tau)      student
    KL_i  = mean_b sum_n t_bn (log t_bn - log p^i_bn),      d KL / d logits of p = p - t
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.linalg import vector_norm

from mipic_llm.losses.numerics import LEFT_OUT, check_tau, compute_dtype, full_precision

# Of the (b, n) matrices of one row tile: cache and heap on a CPU, few launches elsewhere.
_TILE_MATRICES = 4
_TILE_BYTES = 16 * 2**20
_TILE_BYTES_GPU = 512 * 2**20
_EPS = 1e-12


class LeftOut(NamedTuple):
    """Candidates that no query b is compared with: itself, and those with its text, but for its
    partner (the other text of its row).

    own_B, partner_B: int64, their indices among the candidates; partner_B is own_B for a query
    without one. key_B, key_n: int64, of the texts of the queries and of all candidates, the kept
    ones last; equal where texts are equal.
    """

    own_B: Tensor
    partner_B: Tensor
    key_B: Tensor
    key_n: Tensor

    def mask(self, here: slice) -> Tensor:
        """(b, n), True where a candidate is left out, for the queries of a tile."""
        out_bn = self.key_B[here, None] == self.key_n
        out_bn.scatter_(1, self.partner_B[here, None], False)
        return out_bn.scatter_(1, self.own_B[here, None], True)


class Masked(Protocol):
    """Says which candidates no query is compared with: `LeftOut`, or InfoNCE's FalseNegatives."""

    def mask(self, here: slice) -> Tensor | None:
        """(b, n), True where a candidate is left out, for the queries of a tile; None = none."""


class Teacher(NamedTuple):
    """What another model makes of queries (B, K), candidates (N, K) and kept ones (M, K)."""

    q_BK: Tensor
    c_NK: Tensor
    kept_MK: Tensor


def neighbourhood_kl(
    q_BD: Tensor,
    c_ND: Tensor,
    *,
    dims: Sequence[int],
    tau: float,
    left_out: Masked | None = None,
    kept_MD: Tensor | None = None,
    teacher: Teacher | None = None,
    per_dim: bool = False,
) -> Tensor:
    """KL from the teacher's neighbours to each prefix's: the sum over prefixes, a scalar, or with
    per_dim the prefixes apart, (n_dims,).

    q_BD, c_ND: queries and candidates; gradients go to the first d columns of both. dims: prefixes.
    left_out: the candidates that a query is not compared with; None = with all. kept_MD: more
    candidates, without gradient. teacher: None = the full width of q, c and kept, a constant.
    Returns float32, or float64 for float64 inputs. Raises ValueError unless tau > 0.
    """
    check_tau(tau)
    dtype = compute_dtype(q_BD, c_ND)
    with full_precision(q_BD.device):
        q_BD, c_ND = q_BD.to(dtype), c_ND.to(dtype)
        kept_MD = c_ND[:0].detach() if kept_MD is None else kept_MD.detach().to(dtype)
        taught = teacher or Teacher(q_BD, c_ND, kept_MD)
        taught = Teacher(*(x.detach().to(dtype) for x in taught))
        kl_i = _NeighbourhoodKl.apply(q_BD, c_ND, kept_MD, taught, left_out, tuple(dims), tau)
    return (kl_i if per_dim else kl_i.sum()) / len(q_BD)


class _NeighbourhoodKl(torch.autograd.Function):
    """KL of each prefix, summed over queries: (n_dims,). The forward pass makes the gradients too,
    tile of rows by tile, so that no tile's matrices are kept or made twice."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        q_BD: Tensor,
        c_ND: Tensor,
        kept_MD: Tensor,
        teacher: Teacher,
        left_out: Masked | None,
        dims: tuple[int, ...],
        tau: float,
    ) -> Tensor:
        candidates = _Candidates(c_ND, kept_MD, dims, tau)
        full = _Candidates(teacher.c_NK, teacher.kept_MK, teacher.c_NK.shape[1:], tau)
        room = _TILE_BYTES if q_BD.device.type == "cpu" else _TILE_BYTES_GPU
        row_bytes = _TILE_MATRICES * (len(c_ND) + len(kept_MD)) * q_BD.element_size()
        rows = max(1, room // row_bytes)
        kl_i = q_BD.new_zeros(len(dims))
        dq = [q_BD.new_empty(len(q_BD), d) for d in dims]
        dc = [c_ND.new_zeros(len(c_ND), d) for d in dims]
        for start in range(0, len(q_BD), rows):
            here = slice(start, start + rows)
            out_bn = None if left_out is None else left_out.mask(here)
            log_t_bn, t_bn = full.softmax(_unit(teacher.q_BK[here])[0], 0, out_bn)
            for i, d in enumerate(dims):
                unit_bd, norm_b1 = _unit(q_BD[here, :d])
                log_p_bn, p_bn = candidates.softmax(unit_bd, i, out_bn)
                kl_i[i] -= torch.vdot(t_bn.flatten(), log_p_bn.sub_(log_t_bn).flatten())
                du_bd, du_Nd = candidates.gradient(p_bn.sub_(t_bn), unit_bd, i)
                dq[i][here] = _through_unit(du_bd, unit_bd, norm_b1)
                dc[i] += _through_unit(du_Nd, *candidates.units[i])
        ctx.save_for_backward(*dq, *dc)
        ctx.dims, ctx.width = dims, q_BD.shape[1]
        return kl_i

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_i: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        # relative weights of 1 where all prefixes weigh the same: then a plain sum, scaled once
        scale = grad_i.abs().amax().clamp_min(torch.finfo(grad_i.dtype).tiny)
        found = []
        for parts in (ctx.saved_tensors[: len(ctx.dims)], ctx.saved_tensors[len(ctx.dims) :]):
            total = grad_i.new_zeros(len(parts[0]), ctx.width)
            for d, part, weight in zip(ctx.dims, parts, grad_i / scale, strict=True):
                total[:, :d].addcmul_(part, weight)
            found.append(total.mul_(scale))
        return *found, None, None, None, None, None


class _Candidates:
    """Candidates c and kept ones, each of length 1 at each width of dims."""

    def __init__(self, c_ND: Tensor, kept_MD: Tensor, dims: tuple[int, ...], tau: float) -> None:
        self.tau = tau
        self.units = [_unit(c_ND[:, :d]) for d in dims]
        self.all = [torch.cat([unit_Nd, _unit(kept_MD[:, :d])[0]])
                    for d, (unit_Nd, _) in zip(dims, self.units, strict=True)]  # fmt: skip

    def softmax(self, unit_bd: Tensor, i: int, out_bn: Tensor | None) -> tuple[Tensor, Tensor]:
        """(log p, p) over all candidates (b, n), the kept ones last; p is 0 where out_bn is set."""
        logits_bn = (unit_bd / self.tau) @ self.all[i].T
        if out_bn is not None:
            logits_bn.masked_fill_(out_bn, LEFT_OUT)
        log_bn = torch.log_softmax(logits_bn, 1)
        return log_bn, torch.exp(log_bn, out=logits_bn)

    def gradient(self, slope_bn: Tensor, unit_bd: Tensor, i: int) -> tuple[Tensor, Tensor]:
        """Gradients of the unit queries (b, d) and of the unit candidates c (N, d), from that of
        the logits."""
        du_bd = slope_bn @ self.all[i]
        du_Nd = slope_bn[:, : len(self.units[i][0])].T @ unit_bd
        return du_bd.div_(self.tau), du_Nd.div_(self.tau)


def _unit(x_Nd: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of length 1, and their lengths (N, 1)."""
    norm_N1 = vector_norm(x_Nd, dim=1, keepdim=True).clamp_min(_EPS)
    return x_Nd / norm_N1, norm_N1


def _through_unit(grad_Nd: Tensor, unit_Nd: Tensor, norm_N1: Tensor) -> Tensor:
    """The gradient of x from that of x / |x|."""
    along_N1 = (grad_Nd * unit_Nd).sum(1, keepdim=True)
    return (grad_Nd - along_N1 * unit_Nd) / norm_N1
