"""Attention of a packed batch whose long texts come first and whose short ones share tiles.

Cutting the batch in two in autograd costs passes over all of it, in the backward as well (a
concatenation of each side's gradients). Here both parts write into one tensor. Long texts run
forward again in the backward, so they should be the smaller part (`few_long`).

Shape legend: N tokens; H query heads, G key heads, c channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mipic_llm.model import short_attention as short

Long = Callable[[Tensor, Tensor, Tensor], Tensor]  # attention of the long texts


def few_long(tiles: short.Tiles, n_rows: int) -> bool:
    return 2 * tiles.long_rows <= n_rows


class MixedAttention(torch.autograd.Function):
    """(N, H, c) of query (N, H, c), key and value (N, G, c), channels side by side. position_N: of
    the short texts' tokens."""

    @staticmethod
    def forward(ctx: Any, q_NHc: Tensor, k_NGc: Tensor, v_NGc: Tensor, position_N: Tensor,
                tiles: short.Tiles, long: Long, scale: float, causal: bool) -> Tensor:  # fmt: skip
        sides, at = (q_NHc, k_NGc, v_NGc), tiles.long_rows
        out_NHc = q_NHc.new_empty(q_NHc.shape)
        if at:
            out_NHc[:at] = long(*(x[:at] for x in sides))
        cut = (x[at:] for x in sides)
        short.forward_into(out_NHc[at:], *cut, tiles.start_t1, position_N, scale, causal)
        ctx.save_for_backward(*sides, position_N)
        ctx.options = tiles, long, scale, causal
        return out_NHc

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NHc: Tensor) -> tuple[Any, ...]:
        *sides, position_N = ctx.saved_tensors
        tiles, long, scale, causal = ctx.options
        at, found = tiles.long_rows, [x.new_empty(x.shape) for x in sides]
        if at:
            with torch.enable_grad():
                leaves = [x[:at].detach().requires_grad_() for x in sides]
                grads = torch.autograd.grad(long(*leaves), leaves, grad_NHc[:at])
            for whole, part in zip(found, grads, strict=True):
                whole[:at] = part
        short.backward_into(
            tuple(x[at:] for x in found), grad_NHc[at:], tuple(x[at:] for x in sides),
            tiles.start_t1, position_N, scale, causal,
        )  # fmt: skip
        return *found, None, None, None, None, None
