"""Attention of many short texts in one packed batch, in Triton, forward and backward.

Flash attention gives each text and head a block of its own of 64 to 128 rows: with texts of some 20
tokens most of its work is for nothing (docs/notes/log.md has the profile). Here whole neighbouring
texts share a tile of ROWS rows, and a tile sees all keys of its rows at once, so that neither a
running maximum nor statistics for the backward are needed. Texts longer than a tile, which come
first in a batch, go to torch's varlen_attn.

Shape legend: N tokens; H query heads, G key heads, c channels of a head; t tiles.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from mipic_llm.model.tiles import ROWS

CHANNELS = (32, 64, 128)  # of a head


@triton.jit
def _probabilities(q, k, first, rows, scale, CAUSAL: tl.constexpr):
    """Softmax over the keys of a row's own text; rows past the tile's end see one another."""
    s = tl.dot(q, tl.trans(k)) * scale
    seen = first[:, None] == first[None, :]
    if CAUSAL:
        seen = seen & (rows[:, None] >= rows[None, :])
    s = tl.where(seen, s, float("-inf"))
    p = tl.exp(s - tl.max(s, 1)[:, None])
    return p / tl.sum(p, 1)[:, None]


@triton.jit
def _forward(
    Q, K, V, OUT, START, POSITION, scale, q_n, q_h, k_n, k_h, v_n, v_h, o_n, o_h,
    GROUP: tl.constexpr, M: tl.constexpr, C: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    tile, head = tl.program_id(0), tl.program_id(1)
    end = tl.load(START + tile + 1)
    rows = tl.load(START + tile) + tl.arange(0, M)
    real = rows < end
    first = tl.where(real, rows - tl.load(POSITION + rows, mask=real, other=0).to(tl.int32), -1)
    at, here, kv = rows.to(tl.int64)[:, None], tl.arange(0, C)[None, :], head // GROUP
    q = tl.load(Q + at * q_n + head * q_h + here, mask=real[:, None], other=0.0)
    k = tl.load(K + at * k_n + kv * k_h + here, mask=real[:, None], other=0.0)
    v = tl.load(V + at * v_n + kv * v_h + here, mask=real[:, None], other=0.0)
    p = _probabilities(q, k, first, rows, scale, CAUSAL)
    out = tl.dot(p.to(v.dtype), v)
    tl.store(OUT + at * o_n + head * o_h + here, out.to(v.dtype), mask=real[:, None])


@triton.jit
def _backward(
    Q, K, V, DOUT, DQ, DK, DV, START, POSITION, scale, q_n, q_h, k_n, k_h, v_n, v_h, o_n, o_h,
    dq_n, dq_h, dk_n, dk_h,
    GROUP: tl.constexpr, M: tl.constexpr, C: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    tile, kv = tl.program_id(0), tl.program_id(1)
    end = tl.load(START + tile + 1)
    rows = tl.load(START + tile) + tl.arange(0, M)
    real = rows < end
    first = tl.where(real, rows - tl.load(POSITION + rows, mask=real, other=0).to(tl.int32), -1)
    at, here = rows.to(tl.int64)[:, None], tl.arange(0, C)[None, :]
    k = tl.load(K + at * k_n + kv * k_h + here, mask=real[:, None], other=0.0)
    v = tl.load(V + at * v_n + kv * v_h + here, mask=real[:, None], other=0.0)
    dk = tl.zeros([M, C], dtype=tl.float32)
    dv = tl.zeros([M, C], dtype=tl.float32)
    for g in range(GROUP):
        head = kv * GROUP + g
        q = tl.load(Q + at * q_n + head * q_h + here, mask=real[:, None], other=0.0)
        dout = tl.load(DOUT + at * o_n + head * o_h + here, mask=real[:, None], other=0.0)
        p = _probabilities(q, k, first, rows, scale, CAUSAL)
        dv += tl.dot(tl.trans(p.to(dout.dtype)), dout)
        dp = tl.dot(dout, tl.trans(v))
        ds = (p * (dp - tl.sum(p * dp, 1)[:, None]) * scale).to(q.dtype)
        tl.store(DQ + at * dq_n + head * dq_h + here, tl.dot(ds, k).to(q.dtype), mask=real[:, None])
        dk += tl.dot(tl.trans(ds), q)
    tl.store(DK + at * dk_n + kv * dk_h + here, dk.to(k.dtype), mask=real[:, None])
    tl.store(DV + at * dk_n + kv * dk_h + here, dv.to(v.dtype), mask=real[:, None])


def forward_into(
    out_NHc: Tensor, q_NHc: Tensor, k_NGc: Tensor, v_NGc: Tensor, start_t1: Tensor,
    position_N: Tensor, scale: float, causal: bool, rows: int = ROWS,
) -> None:  # fmt: skip
    """See `short_attention`; no gradient. rows: of a tile."""
    H, G, c = q_NHc.shape[1], k_NGc.shape[1], q_NHc.shape[2]
    _forward[(len(start_t1) - 1, H)](
        q_NHc, k_NGc, v_NGc, out_NHc, start_t1, position_N, scale, *q_NHc.stride()[:2],
        *k_NGc.stride()[:2], *v_NGc.stride()[:2], *out_NHc.stride()[:2],
        GROUP=H // G, M=rows, C=c, CAUSAL=causal, num_warps=rows // 16,
    )  # fmt: skip


def backward_into(
    found: Sequence[Tensor], grad_NHc: Tensor, sides: Sequence[Tensor],
    start_t1: Tensor, position_N: Tensor, scale: float, causal: bool, rows: int = ROWS,
) -> None:  # fmt: skip
    """Gradients of query, key and value (`sides`) into `found`; those of key and value have the
    same strides."""
    q_NHc, k_NGc, v_NGc = sides
    grad_NHc = grad_NHc if grad_NHc.stride(2) == 1 else grad_NHc.contiguous()
    H, G, c = q_NHc.shape[1], k_NGc.shape[1], q_NHc.shape[2]
    _backward[(len(start_t1) - 1, G)](
        *sides, grad_NHc, *found, start_t1, position_N, scale,
        *q_NHc.stride()[:2], *k_NGc.stride()[:2], *v_NGc.stride()[:2], *grad_NHc.stride()[:2],
        *found[0].stride()[:2], *found[1].stride()[:2],
        GROUP=H // G, M=rows, C=c, CAUSAL=causal, num_warps=8,
    )  # fmt: skip


@torch.library.custom_op("mipic_llm::short_attention", mutates_args={})
def short_attention(
    q_NHc: Tensor, k_NGc: Tensor, v_NGc: Tensor, start_t1: Tensor, position_N: Tensor, scale: float,
    causal: bool,
) -> Tensor:  # fmt: skip
    """Attention within each text, (N, H, c), of texts no longer than a tile.

    Query (N, H, c), key and value (N, G, c), each row's channels side by side (stride 1).
    start_t1: see `Tiles`; position_N: place of each token in its text, int64.
    """
    out_NHc = q_NHc.new_empty(q_NHc.shape)
    forward_into(out_NHc, q_NHc, k_NGc, v_NGc, start_t1, position_N, scale, causal)
    return out_NHc


@torch.library.custom_op("mipic_llm::short_attention_backward", mutates_args={})
def _short_attention_backward(
    grad_NHc: Tensor, q_NHc: Tensor, k_NGc: Tensor, v_NGc: Tensor, start_t1: Tensor,
    position_N: Tensor, scale: float, causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    found = q_NHc.new_empty(q_NHc.shape), *(k_NGc.new_empty(k_NGc.shape) for _ in range(2))
    sides = q_NHc, k_NGc, v_NGc
    backward_into(found, grad_NHc, sides, start_t1, position_N, scale, causal)
    return found


@short_attention.register_fake
def _(q_NHc, k_NGc, v_NGc, start_t1, position_N, scale, causal):
    return q_NHc.new_empty(q_NHc.shape)


@_short_attention_backward.register_fake
def _(grad_NHc, q_NHc, k_NGc, v_NGc, start_t1, position_N, scale, causal):
    return tuple(x.new_empty(x.shape) for x in (q_NHc, k_NGc, v_NGc))


def _keep(ctx, inputs, output) -> None:
    *tensors, ctx.scale, ctx.causal = inputs
    ctx.save_for_backward(*tensors)


def _gradient(ctx, grad_NHc: Tensor):
    found = _short_attention_backward(grad_NHc, *ctx.saved_tensors, ctx.scale, ctx.causal)
    return *found, None, None, None, None


short_attention.register_autograd(_gradient, setup_context=_keep)
