"""The element-wise parts of an encoder layer as Triton kernels: LayerNorm after a residual sum, and
GELU; each forward and backward, in one pass over memory.

Shape legend: N tokens; D width; F width of the MLP.

Matrices are given with the stride of their rows, as in kernels.py. Arithmetic is float32.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mipic_llm.model.blocks.kernels import PROGRAMS, by_columns


@triton.jit
def _norm_forward(S, BIAS, W, B, OUT, MEAN, RSTD, s_n, out_n, D, eps, BLOCK: tl.constexpr):
    row, at = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    real = at < D
    x = tl.load(S + row * s_n + at, mask=real, other=0.0).to(tl.float32)
    x += tl.load(BIAS + at, mask=real, other=0.0).to(tl.float32)
    mean = tl.sum(x, 0) / D
    x = tl.where(real, x - mean, 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(x * x, 0) / D + eps)
    tl.store(MEAN + row, mean)
    tl.store(RSTD + row, rstd)
    w = tl.load(W + at, mask=real, other=0.0).to(tl.float32)
    b = tl.load(B + at, mask=real, other=0.0).to(tl.float32)
    tl.store(OUT + row * out_n + at, (x * rstd * w + b).to(OUT.dtype.element_ty), mask=real)


@triton.jit(do_not_specialize=["N"])
def _norm_backward(
    S, BIAS, W, MEAN, RSTD, GRAD, MORE, DS, SUMS, s_n, grad_n, more_n, ds_n, N, D,
    BLOCK: tl.constexpr, ADD: tl.constexpr, TRAIN: tl.constexpr,
):  # fmt: skip
    first, step, at = tl.program_id(0), tl.num_programs(0), tl.arange(0, BLOCK)
    real = at < D
    w = tl.load(W + at, mask=real, other=0.0).to(tl.float32)
    bias = tl.load(BIAS + at, mask=real, other=0.0).to(tl.float32)
    dw = tl.zeros([BLOCK], dtype=tl.float32)
    db = tl.zeros([BLOCK], dtype=tl.float32)
    dbias = tl.zeros([BLOCK], dtype=tl.float32)
    row = first.to(tl.int64)
    while row < N:
        x = tl.load(S + row * s_n + at, mask=real, other=0.0).to(tl.float32) + bias
        normed = tl.where(real, (x - tl.load(MEAN + row)) * tl.load(RSTD + row), 0.0)
        g = tl.load(GRAD + row * grad_n + at, mask=real, other=0.0).to(tl.float32)
        if ADD:
            g += tl.load(MORE + row * more_n + at, mask=real, other=0.0).to(tl.float32)
        gw = g * w
        ds = gw - tl.sum(gw, 0) / D - normed * (tl.sum(gw * normed, 0) / D)
        ds *= tl.load(RSTD + row)
        tl.store(DS + row * ds_n + at, ds.to(DS.dtype.element_ty), mask=real)
        dw += g * normed
        db += g
        dbias += ds
        row += step
    if TRAIN:
        here = SUMS + first.to(tl.int64) * (3 * D) + at
        tl.store(here, dw, mask=real)
        tl.store(here + D, db, mask=real)
        tl.store(here + 2 * D, dbias, mask=real)


@triton.jit
def _gelu_forward(U, OUT, u_n, out_n, F, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    u = tl.load(U + row * u_n + at, mask=at < F, other=0.0).to(tl.float32)
    out = 0.5 * u * (1.0 + tl.erf(u * 0.7071067811865476))
    tl.store(OUT + row * out_n + at, out.to(OUT.dtype.element_ty), mask=at < F)


@triton.jit
def _gelu_backward(U, GRAD, DU, OUT, u_n, grad_n, du_n, out_n, F, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    u = tl.load(U + row * u_n + at, mask=at < F, other=0.0).to(tl.float32)
    g = tl.load(GRAD + row * grad_n + at, mask=at < F, other=0.0).to(tl.float32)
    below = 0.5 * (1.0 + tl.erf(u * 0.7071067811865476))
    slope = below + u * 0.3989422804014327 * tl.exp(-0.5 * u * u)
    kind = DU.dtype.element_ty
    tl.store(DU + row * du_n + at, (g * slope).to(kind), mask=at < F)
    tl.store(OUT + row * out_n + at, (u * below).to(kind), mask=at < F)


def layer_norm(
    s_ND: Tensor, bias_D: Tensor, w_D: Tensor, b_D: Tensor, eps: float, out_ND: Tensor
) -> tuple[Tensor, Tensor]:
    """LayerNorm of s + bias into `out_ND` (Ba et al. 2016, arXiv 1607.06450). -> mean and
    1 / standard deviation, (N,)."""
    N, D = s_ND.shape
    mean_N, rstd_N = (s_ND.new_empty(N, dtype=torch.float32) for _ in range(2))
    _norm_forward[(N,)](
        s_ND, bias_D, w_D, b_D, out_ND, mean_N, rstd_N, s_ND.stride(0), out_ND.stride(0), D, eps,
        BLOCK=triton.next_power_of_2(D), num_warps=4,
    )  # fmt: skip
    return mean_N, rstd_N


def layer_norm_gradient(
    s_ND: Tensor, bias_D: Tensor, w_D: Tensor, mean_N: Tensor, rstd_N: Tensor, grad_ND: Tensor,
    more_ND: Tensor | None, ds_ND: Tensor, train: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """The gradient of s into `ds_ND`; that of the output is grad + more. -> those of w, b and the
    bias, where they are trained."""
    N, D = s_ND.shape
    sums = s_ND.new_empty(min(N, PROGRAMS) if train else 1, 3 * D, dtype=torch.float32)
    _norm_backward[(min(N, PROGRAMS) if train else N,)](
        s_ND, bias_D, w_D, mean_N, rstd_N, grad_ND, s_ND if more_ND is None else more_ND, ds_ND,
        sums, s_ND.stride(0), grad_ND.stride(0), 0 if more_ND is None else more_ND.stride(0),
        ds_ND.stride(0), N, D, BLOCK=triton.next_power_of_2(D), ADD=more_ND is not None,
        TRAIN=train, num_warps=4,
    )  # fmt: skip
    if not train:
        return None, None, None
    dw, db, dbias = sums.sum(0).to(w_D.dtype).chunk(3)
    return dw, db, dbias


def gelu(u_NF: Tensor, out_NF: Tensor) -> None:
    """u Phi(u) into `out_NF`, by erf (Hendrycks & Gimpel 2016, arXiv 1606.08415)."""
    by_columns(_gelu_forward, out_NF.shape[1], u_NF, out_NF)


def gelu_gradient(u_NF: Tensor, grad_NF: Tensor, du_NF: Tensor) -> None:
    """The gradient of u into `du_NF`; `grad_NF` becomes the output of the forward again."""
    by_columns(_gelu_backward, grad_NF.shape[1], u_NF, grad_NF, du_NF, grad_NF)
