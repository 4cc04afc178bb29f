"""A layer of the BERT family in two autograd nodes around the attention kernel, for packed batches
on a GPU. See qwen3.py, whose ways these are; here norms come after the residual sums.

    project: q, k, v = linears(h)
    finish:  h, a -> n = norm(h + o(a)); out = norm(n + down(gelu(up(n))))

Shape legend: N tokens of all texts; D width; H heads, c channels of a head, E = H c; F width of
the MLP; P free columns, see linears.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mipic_llm.model.blocks import encoder_kernels as kernels
from mipic_llm.model.blocks import linears
from mipic_llm.model.blocks.kernels import copy
from mipic_llm.model.blocks.linears import Linears, dense, in_turn, roomy


class Project(NamedTuple):
    """Of the first node. scale: of the LoRA of q, k, v."""

    H: int
    scale: tuple[float, float, float]


class Finish(NamedTuple):
    """Of the second node. eps: of both norms. scale: of the LoRA of o, up, down."""

    eps: tuple[float, float]
    scale: tuple[float, float, float]


class ProjectFunction(torch.autograd.Function):
    """(h, q, k, v (N, H, c)) of h (N, D); h comes out again, so that what flows back along the
    residual is added within the product of the backward.

    three: W, A, B and bias of q, k and v in turn."""

    @staticmethod
    def forward(ctx: Any, o: Project, h_ND: Tensor, *three: Any) -> tuple[Tensor, ...]:
        own = _linears(three, o.scale)
        h_NDP = h_ND
        if own.rank:  # room for LoRA's part
            h_NDP = roomy(*h_ND.shape, own, h_ND)
            copy(dense(h_ND), h_NDP[:, : h_ND.shape[1]])
        E_OP = own.spread()
        y_NO = linears.forward(h_NDP, own, E_OP, torch.cat(three[3::4]))
        ctx.save_for_backward(h_NDP, E_OP, *three)
        ctx.o = o
        q, k, v = y_NO.unflatten(1, (3, o.H, -1)).unbind(1)
        return h_ND, q, k, v

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dh_ND: Tensor, *heads: Tensor) -> Any:
        h_NDP, E_OP, *three = ctx.saved_tensors
        own, need = _linears(three, ctx.o.scale), ctx.needs_input_grad
        g_NOP = roomy(len(h_NDP), own.outputs, own, h_NDP)
        places = g_NOP[:, : own.outputs].split(own.heights, 1)
        for place, head in zip(places, heads, strict=True):
            copy(head.flatten(1), place)
        dx_ND = linears.input_gradient(g_NOP, own, E_OP, dense(dh_ND))
        found = linears.weight_gradients(g_NOP, h_NDP, own, need[2])
        biases = _bias_gradients(g_NOP, own, need[5])
        return None, dx_ND, *in_turn((*found, biases))


class FinishFunction(torch.autograd.Function):
    """The layer's output (N, D) of h (N, D) and the output of attention a (N, E).

    norms: w and b of both. three: W, A, B and bias of o, up and down in turn."""

    @staticmethod
    def forward(ctx: Any, o: Finish, h_ND: Tensor, a_NE: Tensor, *tensors: Any) -> Tensor:
        (w1, b1, w2, b2), three = tensors[:4], tensors[4:]
        (N, D), (out, up, down) = h_ND.shape, _parts(three, o.scale)
        bias_o, bias_up, bias_down = three[3::4]
        # a comes from attention, without room for LoRA's part
        s1_ND = torch.addmm(h_ND, a_NE, out.W[0].T)
        low_Nr = None
        if out.rank:
            low_Nr = linears.product(a_NE, out.A[0].T, out.common)  # type: ignore[union-attr]
            s1_ND.addmm_(low_Nr, out.B[0].T)  # type: ignore[union-attr]
        n_NDP = roomy(N, D, up, h_ND)
        moments1 = kernels.layer_norm(s1_ND, bias_o, w1, b1, o.eps[0], n_NDP[:, :D])
        spread = [part.spread() for part in (out, up, down)]
        u_NF = linears.forward(n_NDP, up, spread[1], bias_up)
        x_NFP = roomy(N, down.inputs, down, h_ND)
        kernels.gelu(u_NF, x_NFP[:, : down.inputs])
        s2_ND = linears.forward(x_NFP, down, spread[2], n_NDP[:, :D])
        kept_NP = x_NFP[:, down.inputs :].clone() if down.rank else None
        found_ND = torch.empty_like(s2_ND)
        moments2 = kernels.layer_norm(s2_ND, bias_down, w2, b2, o.eps[1], found_ND)
        ctx.save_for_backward(
            a_NE, low_Nr, s1_ND, *moments1, n_NDP, u_NF, kept_NP, s2_ND, *moments2, *spread,
            *tensors,
        )  # fmt: skip
        ctx.o = o
        return found_ND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_ND: Tensor) -> Any:
        o, need = ctx.o, ctx.needs_input_grad
        a_NE, low_Nr, s1_ND, mean1, rstd1, n_NDP, u_NF, kept_NP, s2_ND, mean2, rstd2, *more = (
            ctx.saved_tensors
        )
        spread, (w1, _, w2, _), three = more[:3], more[3:7], more[7:]
        out, up, down = _parts(three, o.scale)
        bias_o, _, bias_down = three[3::4]
        (N, D), F = s2_ND.shape, down.inputs
        ds2_NDP = roomy(N, D, down, s2_ND)
        dw2, db2, dbias_down = kernels.layer_norm_gradient(
            s2_ND, bias_down, w2, mean2, rstd2, dense(grad_ND), None, ds2_NDP[:, :D], need[5]
        )
        # first the gradient of GELU's output, then, in its place, that output again
        x_NF = linears.input_gradient(ds2_NDP, down, spread[2])
        du_NFP = roomy(N, F, up, s2_ND)
        kernels.gelu_gradient(u_NF, x_NF, du_NFP[:, :F])
        of_down = linears.weight_gradients(ds2_NDP, x_NF, down, need[15], kept_NP)
        del x_NF
        dn_ND = linears.input_gradient(du_NFP, up, spread[1])
        of_up = linears.weight_gradients(du_NFP, n_NDP, up, need[11])
        dbias_up = _bias_gradients(du_NFP, up, need[14])
        ds1_NDP = roomy(N, D, out, s2_ND)
        dw1, db1, dbias_o = kernels.layer_norm_gradient(
            s1_ND, bias_o, w1, mean1, rstd1, dn_ND, ds2_NDP[:, :D], ds1_NDP[:, :D], need[3]
        )
        da_NE = linears.input_gradient(ds1_NDP, out, spread[0])
        of_out = linears.weight_gradients(ds1_NDP, a_NE, out, need[7], low_Nr)
        rest = [x for found, bias in ((of_out, [dbias_o]), (of_up, dbias_up),
                                      (of_down, [dbias_down]))
                for x in in_turn((*found, bias))]  # fmt: skip
        return None, ds1_NDP[:, :D], da_NE, dw1, db1, dw2, db2, *rest


def _linears(tensors: Sequence[Any], scale: Sequence[float]) -> Linears:
    """From W, A, B, bias of each layer in turn."""
    return Linears(tensors[0::4], tensors[1::4], tensors[2::4], scale)


def _parts(three: Sequence[Any], scale: Sequence[float]) -> list[Linears]:
    """o, up and down."""
    return [_linears(three[4 * j : 4 * j + 4], scale[j : j + 1]) for j in range(3)]


def _bias_gradients(g_NOP: Tensor, own: Linears, train: bool) -> list[Tensor | None]:
    if not train:
        return [None] * len(own.W)
    return list(g_NOP[:, : own.outputs].sum(0).split(own.heights))
