"""A Qwen3 layer in two autograd nodes around the attention kernel, for packed batches on a GPU.

transformers' layer is some sixty kernels forward and twice as many backward, most of which pass
over memory for one addition or copy; under LoRA those take longer than the matrix products. Here a
norm, its residual and the gradients that meet there are one pass each, and linear layers with a
common input are one product (linears.py).

    project: h -> n = norm(h); q, k, v = linears(n); q, k normed by head and rotated
    finish:  h, a -> h2 = h + o(a); h3 = h2 + down(silu(gate(n2)) up(n2)), n2 = norm(h2)

Shape legend: N tokens of all texts; D width; H query heads, G key heads, c channels of a head,
E = H c; F width of the MLP; P free columns, see linears.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mipic_llm.model.blocks import kernels, linears
from mipic_llm.model.blocks.linears import Linears, dense, in_turn, roomy


class Project(NamedTuple):
    """Of the first node. scale: of the LoRA of q, k, v."""

    H: int
    G: int
    c: int
    eps: float
    scale: tuple[float, float, float]


class Finish(NamedTuple):
    """Of the second node. scale: of the LoRA of o, gate, up, down."""

    eps: float
    scale: tuple[float, float, float, float]


def _linears(tensors: Sequence[Any], scale: Sequence[float]) -> Linears:
    """From W, A, B of each layer in turn."""
    return Linears(tensors[0::3], tensors[1::3], tensors[2::3], scale)


class ProjectFunction(torch.autograd.Function):
    """(h, q (N, H, c), k (N, G, c), v (N, G, c)) of h (N, D); h comes out again, so that what flows
    back along the residual is added within the norm's backward."""

    @staticmethod
    def forward(
        ctx: Any, o: Project, h_ND: Tensor, cos_Nc: Tensor, sin_Nc: Tensor, w_D: Tensor,
        wq_c: Tensor, wk_c: Tensor, *three: Any,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        N, D = h_ND.shape
        E, own = o.H * o.c, _linears(three, o.scale)
        n_NDP = roomy(N, D, own, h_ND)
        rstd_N = kernels.rms_norm(h_ND, w_D, o.eps, n_NDP[:, :D])
        E_OP = own.spread()
        y_NO = linears.forward(n_NDP, own, E_OP)
        q_NHc, k_NGc = h_ND.new_empty(N, o.H, o.c), h_ND.new_empty(N, o.G, o.c)
        kernels.rotate(y_NO, wq_c, cos_Nc, sin_Nc, o.eps, q_NHc)
        kernels.rotate(y_NO[:, E:], wk_c, cos_Nc, sin_Nc, o.eps, k_NGc)
        v_NGc = y_NO[:, E + o.G * o.c :].unflatten(1, (o.G, o.c))
        ctx.save_for_backward(
            h_ND, cos_Nc, sin_Nc, w_D, wq_c, wk_c, rstd_N, n_NDP, y_NO, E_OP, *three
        )  # fmt: skip
        ctx.o = o
        return h_ND, q_NHc, k_NGc, v_NGc

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dh_ND: Tensor, dq_NHc: Tensor, dk_NGc: Tensor, dv_NGc: Tensor) -> Any:
        o, need = ctx.o, ctx.needs_input_grad
        h_ND, cos_Nc, sin_Nc, w_D, wq_c, wk_c, rstd_N, n_NDP, y_NO, E_OP, *three = ctx.saved_tensors
        N, E, own = len(h_ND), o.H * o.c, _linears(three, o.scale)
        V = E + o.G * o.c
        g_NOP = roomy(N, own.outputs, own, h_ND)
        turn = cos_Nc, sin_Nc, o.eps
        dq_NHc, dk_NGc, dh_ND = map(dense, (dq_NHc, dk_NGc, dh_ND))
        dwq = kernels.rotate_gradient(y_NO, wq_c, *turn, dq_NHc, g_NOP, need[5])
        dwk = kernels.rotate_gradient(y_NO[:, E:], wk_c, *turn, dk_NGc, g_NOP[:, E:], need[6])
        kernels.copy(dv_NGc.flatten(1), g_NOP[:, V : own.outputs])
        dn_ND = linears.input_gradient(g_NOP, own, E_OP)
        found = linears.weight_gradients(g_NOP, n_NDP, own, need[7])
        dx_ND = torch.empty_like(h_ND)
        dw = kernels.rms_norm_gradient(h_ND, w_D, rstd_N, dn_ND, dh_ND, dx_ND, need[4])
        return None, dx_ND, None, None, dw, dwq, dwk, *in_turn(found)


class FinishFunction(torch.autograd.Function):
    """h3 (N, D) of h (N, D) and the output of attention a (N, E)."""

    @staticmethod
    def forward(ctx: Any, o: Finish, h_ND: Tensor, a_NE: Tensor, w_D: Tensor, *four: Any) -> Tensor:
        N, D = h_ND.shape
        out, wide, down = _parts(o, four)
        # a comes from attention, without room for LoRA's part
        h2_ND = torch.addmm(h_ND, a_NE, out.W[0].T)
        low_Nr = None
        if out.rank:
            low_Nr = linears.product(a_NE, out.A[0].T, out.common)  # type: ignore[union-attr]
            h2_ND.addmm_(low_Nr, out.B[0].T)  # type: ignore[union-attr]
        n_NDP = roomy(N, D, wide, h_ND)
        rstd_N = kernels.rms_norm(h2_ND, w_D, o.eps, n_NDP[:, :D])
        spread = [part.spread() for part in (out, wide, down)]
        y_N2F = linears.forward(n_NDP, wide, spread[1])
        F = down.inputs
        x_NFP = roomy(N, F, down, h_ND)
        kernels.swiglu(y_N2F, x_NFP[:, :F])
        h3_ND = linears.forward(x_NFP, down, spread[2], h2_ND)
        kept_NP = x_NFP[:, F:].clone() if down.rank else None
        ctx.save_for_backward(
            a_NE, low_Nr, h2_ND, w_D, rstd_N, n_NDP, y_N2F, kept_NP, *spread, *four
        )  # fmt: skip
        ctx.o = o
        return h3_ND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dh3_ND: Tensor) -> Any:
        o, need = ctx.o, ctx.needs_input_grad
        a_NE, low_Nr, h2_ND, w_D, rstd_N, n_NDP, y_N2F, kept_NP, *more = ctx.saved_tensors
        spread, four = more[:3], more[3:]
        out, wide, down = _parts(o, four)
        (N, D), F = h2_ND.shape, down.inputs
        dh3_ND = dense(dh3_ND)
        g_NDP = dh3_ND
        if down.rank:
            g_NDP = roomy(N, D, down, h2_ND)
            kernels.copy(dh3_ND, g_NDP[:, :D])
        # first the gradient of SwiGLU's output, then, in its place, that output again
        x_NF = linears.input_gradient(g_NDP, down, spread[2])
        dy_NFP = roomy(N, 2 * F, wide, h2_ND)
        kernels.swiglu_gradient(y_N2F, x_NF, dy_NFP)
        of_down = linears.weight_gradients(g_NDP, x_NF, down, need[13], kept_NP)
        del x_NF
        dn_ND = linears.input_gradient(dy_NFP, wide, spread[1])
        of_wide = linears.weight_gradients(dy_NFP, n_NDP, wide, need[7])
        dh2_NDP = roomy(N, D, out, h2_ND)
        dw = kernels.rms_norm_gradient(h2_ND, w_D, rstd_N, dn_ND, dh3_ND, dh2_NDP[:, :D], need[3])
        da_NE = linears.input_gradient(dh2_NDP, out, spread[0])
        of_out = linears.weight_gradients(dh2_NDP, a_NE, out, need[4], low_Nr)
        rest = [x for found in (of_out, of_wide, of_down) for x in in_turn(found)]
        return None, dh2_NDP[:, :D], da_NE, dw, *rest


def _parts(o: Finish, four: Sequence[Any]) -> tuple[Linears, Linears, Linears]:
    """o; gate and up; down."""
    cuts = ((0, 1), (1, 3), (3, 4))
    return tuple(_linears(four[3 * a : 3 * b], o.scale[a:b]) for a, b in cuts)  # type: ignore


class NormFunction(torch.autograd.Function):
    """RMSNorm of (.., D)."""

    @staticmethod
    def forward(ctx: Any, eps: float, x: Tensor, w_D: Tensor) -> Tensor:
        x_ND = dense(x).flatten(0, -2)
        out_ND = x_ND.new_empty(x_ND.shape)
        rstd_N = kernels.rms_norm(x_ND, w_D, eps, out_ND)
        ctx.save_for_backward(x_ND, w_D, rstd_N)
        return out_ND.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x_ND, w_D, rstd_N = ctx.saved_tensors
        grad_ND, dx_ND = dense(grad).flatten(0, -2), x_ND.new_empty(x_ND.shape)
        train = ctx.needs_input_grad[2]
        dw = kernels.rms_norm_gradient(x_ND, w_D, rstd_N, grad_ND, None, dx_ND, train)
        return None, dx_ND.view(grad.shape), dw
