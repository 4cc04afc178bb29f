"""SIA of short texts as a few Triton kernels, one autograd node; longer texts by function.py.

A program has one sentence of one layer in a tile, reads its tokens where they lie and writes their
gradient once, in their own dtype. Texts longer than the largest tile, which come first in a batch,
go the other way, with all that come before the last of them. Nothing waits for the device. Saved
for the backward are the inputs and the scores; the Grams are made again.

Shape legend: L layers, S sentences, D full width, K sum of the prefix widths; N token rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mipic_llm.losses.numerics import full_precision
from mipic_llm.losses.sia import function
from mipic_llm.losses.sia.function import Kept, SiaFunction, SiaOptions
from mipic_llm.losses.sia.launches import PREFIXES, TILES, Call, Texts
from mipic_llm.losses.sia.layout import Layout

DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def takes(
    o: SiaOptions, query_LSD: Tensor, lifted_LSK: Tensor, tokens: Sequence[Tensor],
    long: int,
) -> bool:  # fmt: skip
    """Whether the kernels can have a part of this call; long: see `long_texts`."""
    same = all(t.dtype == tokens[0].dtype for t in tokens)
    known = all(t.dtype in DTYPES for t in (tokens[0], query_LSD, lifted_LSK))
    return same and known and len(o.dims) <= PREFIXES and long < query_LSD.shape[1]


def long_texts(lengths: Sequence[int] | None, mask_ST: Tensor | None) -> int:
    """Sentences that the kernels leave alone: all up to the last that is longer than a tile."""
    if lengths is None:
        assert mask_ST is not None
        return len(mask_ST) if mask_ST.shape[1] > TILES[-1] else 0
    return max((s + 1 for s, n in enumerate(lengths) if n > TILES[-1]), default=0)


class ShortSia(torch.autograd.Function):
    """As SiaFunction: (relation_LS, geometry_LS) of tokens (N, D) per layer, in float32.

    lengths, mask_ST: as of `sia_per_example`. long: the sentences that go by function.py.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        o: SiaOptions,
        lengths: Sequence[int] | None,
        mask_ST: Tensor | None,
        long: int,
        query_LSD: Tensor,
        lifted_LSK: Tensor,
        *tokens: Tensor,
    ) -> tuple[Tensor, Tensor]:
        query_LSD, lifted_LSK = query_LSD.contiguous(), lifted_LSK.contiguous()
        tokens = tuple(t.contiguous() for t in tokens)
        texts = Texts(lengths, mask_ST, o, query_LSD.device, long)
        L, S, _ = query_LSD.shape
        made = torch.empty if o.relation and o.geometry else torch.zeros
        relation_LS, geometry_LS = (
            made(L, S, dtype=torch.float32, device=query_LSD.device) for _ in range(2)
        )
        call = Call(o, texts, query_LSD, lifted_LSK, tokens)
        score_LRN = call.scores(relation_LS)
        if o.geometry:
            for launch in texts.launches:
                call.grams(launch, score_LRN, geometry_LS)
        ctx.part, kept = None, ()
        if long:
            assert lengths is not None
            ctx.part = Layout(None, (*lengths[:long],) * L, query_LSD)
            with full_precision(query_LSD.device):
                *values, kept = function.values(
                    o, ctx.part, *_as_one_layer(ctx.part.n_real // L, long, query_LSD, lifted_LSK,
                                                tokens)
                )  # fmt: skip
            for whole, part in zip((relation_LS, geometry_LS), values, strict=True):
                whole[:, :long] = part.view(L, long)
        ctx.save_for_backward(query_LSD, lifted_LSK, score_LRN, *tokens, *kept)
        ctx.o, ctx.texts, ctx.long = o, texts, long
        return relation_LS, geometry_LS

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, grad_relation_LS: Tensor, grad_geometry_LS: Tensor
    ) -> tuple[Any, ...]:
        o, long = ctx.o, ctx.long
        query_LSD, lifted_LSK, score_LRN, *rest = ctx.saved_tensors
        tokens, kept = rest[: len(query_LSD)], rest[len(query_LSD) :]
        grads = grad_relation_LS, grad_geometry_LS
        dquery_LSD, dlifted_LSK = torch.zeros_like(query_LSD), torch.zeros_like(lifted_LSK)
        dtok = [torch.empty_like(t) for t in tokens]
        call = Call(o, ctx.texts, query_LSD, lifted_LSK, tokens)
        call.gradients(score_LRN, grads, dquery_LSD, dlifted_LSK, dtok)
        if long:
            L, n = len(tokens), ctx.part.n_real // len(tokens)
            with full_precision(query_LSD.device):
                dquery, dlifted, (found,) = function.gradients(
                    o, ctx.part, *_as_one_layer(n, long, query_LSD, lifted_LSK, tokens),
                    Kept(*kept),
                    (grads[0][:, :long].reshape(1, -1), grads[1][:, :long].reshape(1, -1)),
                )  # fmt: skip
            dquery_LSD[:, :long] = dquery.view(L, long, -1)
            dlifted_LSK[:, :long] = dlifted.view(L, long, -1)
            torch._foreach_copy_([whole[:n] for whole in dtok], list(found.split(n)))
        return None, None, None, None, dquery_LSD, dlifted_LSK, *dtok


def _as_one_layer(
    n: int, long: int, query_LSD: Tensor, lifted_LSK: Tensor, tokens: Sequence[Tensor]
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The first `long` sentences, of n tokens together, of all layers as those of one layer: a
    layer more is then no launch more."""
    sides = (x[:, :long].reshape(1, -1, x.shape[2]) for x in (query_LSD, lifted_LSK))
    return *sides, [torch.cat([t[:n] for t in tokens])]


def fault(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the kernels cannot be used here: what a compiler or driver said, or that they differ from
    the other way, gradients too. None where they are right. The host waits for the device."""
    lengths, L, D, dims = (60, 30, 20, 9, 2, 1), 2, 128, (16, 48)
    limit = 1e-4 if dtype == torch.float32 else 1e-2
    generator = torch.Generator().manual_seed(0)
    shapes = [(L, len(lengths), D), (L, len(lengths), sum(dims)), *[(sum(lengths), D)] * L]
    sides = [torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes]
    pairs = []
    try:
        with torch.inference_mode(False), torch.enable_grad():
            for detached in (True, False):
                o = SiaOptions(dims, (0.3, 0.7), 0.5, 4, detached, True, True, True)
                found = []
                for to in (dtype, torch.float64):
                    leaves = [x.detach().to(to).requires_grad_() for x in sides]
                    if to == dtype:
                        out = ShortSia.apply(o, lengths, None, 0, *leaves)
                    else:
                        out = SiaFunction.apply(o, Layout(None, lengths, leaves[0]), *leaves)
                    (out[0].sum() + out[1].sum()).backward()
                    found.append([x.detach().double() for x in (*out, *(x.grad for x in leaves))])
                pairs += zip(*found, strict=True)
        if all(float((a - b).norm()) <= limit * float(b.norm()) for a, b in pairs):
            return None
    except Exception as error:  # whatever is wrong there: the run goes on without, and says so
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return "they differ from plain products"
