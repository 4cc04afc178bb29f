"""The element-wise parts of a decoder layer as Triton kernels: RMSNorm, the norm and rotation of
query and key heads, SwiGLU; each forward and backward, in one pass over memory; and a copy.

Shape legend: N tokens; D width; H query heads, G key heads, c channels of a head, h = c / 2;
F width of the MLP.

Matrices are given with the stride of their rows, so that a result can be written straight into the
left columns of a wider matrix (see linears.py). Arithmetic is float32.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

PROGRAMS = 1024  # of a kernel that sums the gradient of its weight over the rows it takes
COLUMNS = 1024  # of one program of `by_columns`


@triton.jit
def _rms_forward(X, W, OUT, RSTD, x_n, out_n, D, eps, BLOCK: tl.constexpr):
    row, at = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    x = tl.load(X + row * x_n + at, mask=at < D, other=0.0).to(tl.float32)
    w = tl.load(W + at, mask=at < D, other=0.0).to(tl.float32)
    rstd = 1.0 / tl.sqrt(tl.sum(x * x, 0) / D + eps)
    tl.store(RSTD + row, rstd)
    tl.store(OUT + row * out_n + at, (x * rstd * w).to(OUT.dtype.element_ty), mask=at < D)


@triton.jit(do_not_specialize=["N"])
def _rms_backward(
    X, W, RSTD, GRAD, MORE, DX, DW, x_n, grad_n, more_n, dx_n, N, D, BLOCK: tl.constexpr,
    ADD: tl.constexpr, TRAIN: tl.constexpr,
):  # fmt: skip
    first, step, at = tl.program_id(0), tl.num_programs(0), tl.arange(0, BLOCK)
    w = tl.load(W + at, mask=at < D, other=0.0).to(tl.float32)
    dw = tl.zeros([BLOCK], dtype=tl.float32)
    row = first.to(tl.int64)
    while row < N:
        x = tl.load(X + row * x_n + at, mask=at < D, other=0.0).to(tl.float32)
        g = tl.load(GRAD + row * grad_n + at, mask=at < D, other=0.0).to(tl.float32)
        rstd = tl.load(RSTD + row)
        normed, gw = x * rstd, g * w
        dx = rstd * (gw - normed * (tl.sum(gw * normed, 0) / D))
        if ADD:
            dx += tl.load(MORE + row * more_n + at, mask=at < D, other=0.0).to(tl.float32)
        tl.store(DX + row * dx_n + at, dx.to(DX.dtype.element_ty), mask=at < D)
        dw += g * normed
        row += step
    if TRAIN:
        tl.store(DW + first.to(tl.int64) * D + at, dw, mask=at < D)


@triton.jit
def _halves(P, row, stride, head, real, h, half):
    """Both halves of some heads of a row, float32."""
    at = P + row * stride + head * (2 * h) + half
    return (
        tl.load(at, mask=real, other=0.0).to(tl.float32),
        tl.load(at + h, mask=real, other=0.0).to(tl.float32),
    )


@triton.jit
def _put(P, row, stride, head, real, h, half, a, b):
    at = P + row * stride + head * (2 * h) + half
    tl.store(at, a.to(P.dtype.element_ty), mask=real)
    tl.store(at + h, b.to(P.dtype.element_ty), mask=real)


@triton.jit
def _rotate_forward(
    X, W, COS, SIN, OUT, x_n, out_n, cos_n, heads, eps, h: tl.constexpr, HEADS: tl.constexpr,
    HALF: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    head, half = tl.arange(0, HEADS)[:, None], tl.arange(0, HALF)[None, :]
    real, side = (head < heads) & (half < h), half < h
    a, b = _halves(X, row, x_n, head, real, h, half)
    wa, wb = _halves(W, row, 0, 0, side, h, half)
    ca, cb = _halves(COS, row, cos_n, 0, side, h, half)
    sa, sb = _halves(SIN, row, cos_n, 0, side, h, half)
    rstd = (1.0 / tl.sqrt((tl.sum(a * a, 1) + tl.sum(b * b, 1)) / (2 * h) + eps))[:, None]
    a, b = a * rstd * wa, b * rstd * wb
    _put(OUT, row, out_n, head, real, h, half, a * ca - b * sa, b * cb + a * sb)


@triton.jit(do_not_specialize=["N"])
def _rotate_backward(
    X, W, COS, SIN, GRAD, DX, DW, x_n, grad_n, grad_h, dx_n, cos_n, N, heads, eps,
    h: tl.constexpr, HEADS: tl.constexpr, HALF: tl.constexpr, TRAIN: tl.constexpr,
):  # fmt: skip
    first, step = tl.program_id(0), tl.num_programs(0)
    head, half = tl.arange(0, HEADS)[:, None], tl.arange(0, HALF)[None, :]
    real, side = (head < heads) & (half < h), half < h
    wa, wb = _halves(W, 0, 0, 0, side, h, half)
    dwa = tl.zeros([HALF], dtype=tl.float32)
    dwb = tl.zeros([HALF], dtype=tl.float32)
    row = first.to(tl.int64)
    while row < N:
        a, b = _halves(X, row, x_n, head, real, h, half)
        ca, cb = _halves(COS, row, cos_n, 0, side, h, half)
        sa, sb = _halves(SIN, row, cos_n, 0, side, h, half)
        at = GRAD + row * grad_n + head * grad_h + half
        ga = tl.load(at, mask=real, other=0.0).to(tl.float32)
        gb = tl.load(at + h, mask=real, other=0.0).to(tl.float32)
        ga, gb = ga * ca + gb * sb, gb * cb - ga * sa
        rstd = (1.0 / tl.sqrt((tl.sum(a * a, 1) + tl.sum(b * b, 1)) / (2 * h) + eps))[:, None]
        a, b = a * rstd, b * rstd
        dwa += tl.sum(ga * a, 0)
        dwb += tl.sum(gb * b, 0)
        ga, gb = ga * wa, gb * wb
        mean = ((tl.sum(ga * a, 1) + tl.sum(gb * b, 1)) / (2 * h))[:, None]
        da, db = rstd * (ga - a * mean), rstd * (gb - b * mean)
        _put(DX, row, dx_n, head, real, h, half, da, db)
        row += step
    if TRAIN:
        at = DW + first.to(tl.int64) * (2 * h) + tl.arange(0, HALF)
        tl.store(at, dwa, mask=tl.arange(0, HALF) < h)
        tl.store(at + h, dwb, mask=tl.arange(0, HALF) < h)


@triton.jit
def _copy(X, OUT, x_n, out_n, D, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    tl.store(OUT + row * out_n + at, tl.load(X + row * x_n + at, mask=at < D), mask=at < D)


@triton.jit
def _swiglu_forward(X, OUT, x_n, out_n, F, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    gate = tl.load(X + row * x_n + at, mask=at < F, other=0.0).to(tl.float32)
    up = tl.load(X + row * x_n + F + at, mask=at < F, other=0.0).to(tl.float32)
    out = gate / (1.0 + tl.exp(-gate)) * up
    tl.store(OUT + row * out_n + at, out.to(OUT.dtype.element_ty), mask=at < F)


@triton.jit
def _swiglu_backward(X, GRAD, DX, OUT, x_n, grad_n, dx_n, out_n, F, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    gate = tl.load(X + row * x_n + at, mask=at < F, other=0.0).to(tl.float32)
    up = tl.load(X + row * x_n + F + at, mask=at < F, other=0.0).to(tl.float32)
    g = tl.load(GRAD + row * grad_n + at, mask=at < F, other=0.0).to(tl.float32)
    s = 1.0 / (1.0 + tl.exp(-gate))
    silu = gate * s
    kind = DX.dtype.element_ty
    tl.store(DX + row * dx_n + at, (g * up * (s + silu * (1.0 - s))).to(kind), mask=at < F)
    tl.store(DX + row * dx_n + F + at, (g * silu).to(kind), mask=at < F)
    tl.store(OUT + row * out_n + at, (silu * up).to(kind), mask=at < F)


def rms_norm(x_ND: Tensor, w_D: Tensor, eps: float, out_ND: Tensor) -> Tensor:
    """x / rms(x) w into `out_ND` (Zhang & Sennrich 2019, arXiv 1910.07467). -> 1 / rms, (N,)."""
    N, D = x_ND.shape
    rstd_N = x_ND.new_empty(N, dtype=torch.float32)
    _rms_forward[(N,)](
        x_ND, w_D, out_ND, rstd_N, x_ND.stride(0), out_ND.stride(0), D, eps,
        BLOCK=triton.next_power_of_2(D), num_warps=4,
    )  # fmt: skip
    return rstd_N


def rms_norm_gradient(
    x_ND: Tensor, w_D: Tensor, rstd_N: Tensor, grad_ND: Tensor, more_ND: Tensor | None,
    dx_ND: Tensor, train: bool,
) -> Tensor | None:  # fmt: skip
    """The gradient of x into `dx_ND`, `more_ND` added. -> that of w, where it is trained."""
    N, D = x_ND.shape
    dw = x_ND.new_empty(min(N, PROGRAMS) if train else 1, D, dtype=torch.float32)
    _rms_backward[(min(N, PROGRAMS) if train else N,)](
        x_ND, w_D, rstd_N, grad_ND, x_ND if more_ND is None else more_ND, dx_ND, dw,
        x_ND.stride(0), grad_ND.stride(0), 0 if more_ND is None else more_ND.stride(0),
        dx_ND.stride(0), N, D, BLOCK=triton.next_power_of_2(D), ADD=more_ND is not None,
        TRAIN=train, num_warps=4,
    )  # fmt: skip
    return dw.sum(0).to(w_D.dtype) if train else None


def rotate(
    x_NE: Tensor, w_c: Tensor, cos_Nc: Tensor, sin_Nc: Tensor, eps: float, out_NHc: Tensor
) -> None:
    """Heads normed and rotated by their position into `out_NHc` (N, H, c), dense; x_NE the heads
    side by side, E = H c (Su et al. 2021, arXiv 2104.09864)."""
    N, heads, c = out_NHc.shape
    _rotate_forward[(N,)](
        x_NE, w_c, cos_Nc, sin_Nc, out_NHc, x_NE.stride(0), out_NHc.stride(0), cos_Nc.stride(0),
        heads, eps, h=c // 2, HEADS=triton.next_power_of_2(heads),
        HALF=triton.next_power_of_2(c // 2), num_warps=4,
    )  # fmt: skip


def rotate_gradient(
    x_NE: Tensor, w_c: Tensor, cos_Nc: Tensor, sin_Nc: Tensor, eps: float, grad_NHc: Tensor,
    dx_NE: Tensor, train: bool,
) -> Tensor | None:  # fmt: skip
    """The gradient of x into `dx_NE`. -> that of w, where it is trained."""
    N, heads, c = grad_NHc.shape
    dw = x_NE.new_empty(min(N, PROGRAMS) if train else 1, c, dtype=torch.float32)
    _rotate_backward[(min(N, PROGRAMS) if train else N,)](
        x_NE, w_c, cos_Nc, sin_Nc, grad_NHc, dx_NE, dw, x_NE.stride(0), *grad_NHc.stride()[:2],
        dx_NE.stride(0), cos_Nc.stride(0), N, heads, eps, h=c // 2,
        HEADS=triton.next_power_of_2(heads), HALF=triton.next_power_of_2(c // 2), TRAIN=train,
        num_warps=4,
    )  # fmt: skip
    return dw.sum(0).to(w_c.dtype) if train else None


def by_columns(kernel: Any, width: int, *matrices: Tensor) -> None:
    """Launch a kernel of (matrices, strides of their rows, width), COLUMNS of a row a program."""
    kernel[(len(matrices[0]), triton.cdiv(width, COLUMNS))](
        *matrices, *(x.stride(0) for x in matrices), width, BLOCK=COLUMNS, num_warps=4
    )


def copy(x_ND: Tensor, out_ND: Tensor) -> None:
    """x into `out_ND`. torch's own copy into the left columns of a wider matrix takes four times
    as long (an H200, 33,431 rows of 1,024)."""
    by_columns(_copy, x_ND.shape[1], x_ND, out_ND)


def swiglu(x_N2F: Tensor, out_NF: Tensor) -> None:
    """silu(gate) up into `out_NF`; x_N2F: gate and up side by side (Shazeer 2020, 2002.05202)."""
    by_columns(_swiglu_forward, out_NF.shape[1], x_N2F, out_NF)


def swiglu_gradient(x_N2F: Tensor, grad_NF: Tensor, dx_N2F: Tensor) -> None:
    """The gradient of x into `dx_N2F`; `grad_NF` becomes the output of the forward again."""
    by_columns(_swiglu_backward, grad_NF.shape[1], x_N2F, grad_NF, dx_N2F, grad_NF)
