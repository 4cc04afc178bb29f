"""Attention of a packed batch sorted by length: the longest texts by another kernel, those of up
to 128 tokens in wide tiles, those of up to 64 in small ones.

Cutting the batch in autograd costs passes over all of it, in the backward as well (a concatenation
of each side's gradients). Here all parts write into one tensor. The longest texts run forward again
in the backward, so they should be the smaller part.

Shape legend: N tokens; H query heads, G key heads, c channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mipic_llm.errors import kernel_fault
from mipic_llm.model import short_attention as short
from mipic_llm.model.tiles import WIDE, Tiles
from mipic_llm.model.tiles import tiles as tiles_of

Far = Callable[[Tensor, Tensor, Tensor], Tensor]  # attention of the longest texts


class MixedAttention(torch.autograd.Function):
    """(N, H, c) of query (N, H, c), key and value (N, G, c), channels side by side. position_N: of
    all tokens in their text. far: None where no text is longer than a tile."""

    @staticmethod
    def forward(ctx: Any, q_NHc: Tensor, k_NGc: Tensor, v_NGc: Tensor, position_N: Tensor,
                tiles: Tiles, far: Far | None, scale: float, causal: bool) -> Tensor:  # fmt: skip
        sides, at, n = (q_NHc, k_NGc, v_NGc), tiles.long_rows, tiles.far[0]
        out_NHc = q_NHc.new_empty(q_NHc.shape)
        if n:
            out_NHc[:n] = far(*(x[:n] for x in sides))
        if tiles.wide_t1 is not None:
            short.forward_into(out_NHc, *sides, tiles.wide_t1, position_N, scale, causal, WIDE)
        cut = (x[at:] for x in sides)
        short.forward_into(out_NHc[at:], *cut, tiles.start_t1, position_N[at:], scale, causal)
        ctx.save_for_backward(*sides, position_N)
        ctx.options = tiles, far, scale, causal
        return out_NHc

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NHc: Tensor) -> tuple[Any, ...]:
        *sides, position_N = ctx.saved_tensors
        tiles, far, scale, causal = ctx.options
        at, n, found = tiles.long_rows, tiles.far[0], [x.new_empty(x.shape) for x in sides]
        if n:
            with torch.enable_grad():
                leaves = [x[:n].detach().requires_grad_() for x in sides]
                grads = torch.autograd.grad(far(*leaves), leaves, grad_NHc[:n])
            for whole, part in zip(found, grads, strict=True):
                whole[:n] = part
        if tiles.wide_t1 is not None:
            short.backward_into(
                found, grad_NHc, sides, tiles.wide_t1, position_N, scale, causal, WIDE
            )
        short.backward_into(
            [x[at:] for x in found], grad_NHc[at:], [x[at:] for x in sides], tiles.start_t1,
            position_N[at:], scale, causal,
        )  # fmt: skip
        return *found, None, None, None, None, None


def fault(
    device: str, dtype: torch.dtype, c: int = 64, wide: bool = False,
    heads: tuple[int, int] = (4, 2),
) -> str | None:  # fmt: skip
    """Why the kernels cannot be used here: what a compiler or driver said, or that they differ from
    plain attention, gradients too. None where they are right. c: channels of a head; wide: wide
    tiles too; heads: of queries and keys."""
    lengths, (H, G), at = (40, 30, 9, 1), heads, 0.05
    if wide:
        lengths = (104, 70, 50, 66, *lengths)

    def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows = [x.split(lengths) for x in (q, *(x.repeat_interleave(H // G, 1) for x in (k, v)))]
        texts = ((x.transpose(0, 1) for x in text) for text in zip(*rows, strict=True))
        found = [nn.functional.scaled_dot_product_attention(*t, is_causal=True) for t in texts]
        return torch.cat([x.transpose(0, 1) for x in found])

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        place = torch.cat([torch.arange(n) for n in lengths]).to(device)
        cut = tiles_of(lengths, q.device, wide)
        return MixedAttention.apply(q, k, v, place, cut, None, c**-0.5, True)

    generator, found = torch.Generator().manual_seed(0), []
    try:
        *sides, grad = (torch.randn(sum(lengths), n, c, generator=generator).to(device, dtype)
                        for n in (H, G, G, H))  # fmt: skip
        with torch.inference_mode(False), torch.enable_grad():
            for attention, to in ((plain, torch.float32), (ours, dtype)):
                leaves = [x.detach().to(to).requires_grad_() for x in sides]
                out = attention(*leaves)
                out.backward(grad.to(to))
                found.append([out, *(x.grad for x in leaves)])
        pairs = zip(*found, strict=True)
        if all(torch.allclose(a, b.float(), rtol=at, atol=at) for a, b in pairs):
            return None
    except Exception as error:  # whatever is wrong there: the run goes on without, and says so
        return kernel_fault(error, "--model.attn sdpa")
    return "they differ from plain attention"
