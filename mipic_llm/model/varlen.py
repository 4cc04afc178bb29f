"""Attention over packed sequences: torch's varlen_attn, ours for short texts, a reference.

Shape legend: N tokens of all sequences, S sequences, H query heads, G key heads, c channels of a
head; r sequences of one length, T their tokens.

A packed batch is one row [1, N]; `cu_seq_lens_q` says where its sequences begin. transformers hands
the keywords of a forward call down to the function registered under config._attn_implementation,
and builds no mask for a name that it does not know, so that neither pads nor an N x N mask exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from mipic_llm.errors import UserError
from mipic_llm.model import gpu_kernels as gpu
from mipic_llm.model.tiles import tiles as tiles_of
from mipic_llm.types import Packing

# What some classes hand to their kernel and ours does not do: none may be set.
_FOREIGN = ("softcap", "s_aux", "position_bias", "head_mask")


def keywords(
    packing: Packing, first_position: int | None, kernel: str, channels: int = 0
) -> dict[str, Any]:
    """What a transformers model with this kernel is called with beside the ids of a packed batch.
    first_position None: no positions. channels: of a head."""
    longest = max(packing.lengths)
    positions = None if first_position is None else packing.position_N[None] + first_position
    found = {
        "position_ids": positions,
        "cu_seq_lens_q": packing.cu_S1, "cu_seq_lens_k": packing.cu_S1,
        "max_length_q": longest, "max_length_k": longest,
    }  # fmt: skip
    if kernel != "varlen" or gpu.short is None or not packing.cu_S1.is_cuda:
        return found
    if tiles := tiles_of(packing.lengths, packing.cu_S1.device, channels in gpu.wide):
        found["short_texts"] = (tiles, packing.position_N)
    return found


def varlen(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, *,
    dropout: float = 0.0, scaling: float | None = None, sliding_window: int | None = None,
    is_causal: bool | None = None, cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None, short_texts: tuple[Any, Tensor] | None = None, **others: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """transformers' attention interface: query (1, H, N, c), key and value (1, G, N, c) of a packed
    batch -> ((1, N, H, c), None). Half precision on CUDA runs torch's varlen_attn, all else the
    reference. Raises UserError where the model wants what neither does.
    """
    wanted = [k for k in _FOREIGN if others.get(k) is not None]
    if sliding_window is None and _hidden_window(module):
        wanted.append("a window of which its attention is not told")
    if cu_seq_lens_q is None or max_length_q is None or attention_mask is not None or wanted:
        why = f"uses {wanted[0]}" if wanted else "does not hand packed sequences to its attention"
        raise UserError(f"model.attn: {type(module).__name__} {why}; use --model.attn sdpa")
    q_NHc, k_NGc, v_NGc = (x.squeeze(0).transpose(0, 1) for x in (query, key, value))
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    # as transformers' flash path: a window of w keys, the own one among them
    left = -1 if sliding_window is None else sliding_window - 1
    window = (left, 0 if causal else left)
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
        assert dropout == 0.0, "varlen_attn has no dropout; `choose` refuses it"
        sides, cu_S1, longest = (q_NHc, k_NGc, v_NGc), cu_seq_lens_q, max_length_q
        if short_texts is None or sliding_window is not None or not _fits_tiles(q_NHc):
            out_NHc = _flash(*sides, cu_S1, longest, scaling, window)
        else:
            assert gpu.short is not None
            scale = q_NHc.shape[2] ** -0.5 if scaling is None else scaling
            out_NHc = _in_tiles(sides, short_texts, cu_S1, scale, window)
    else:
        lengths = cu_seq_lens_q.diff().tolist()
        out_NHc = reference_varlen(
            q_NHc, k_NGc, v_NGc, lengths, scale=scaling, window=window, dropout=dropout
        )
    return out_NHc.unsqueeze(0), None


def _hidden_window(module: nn.Module) -> bool:
    """Whether a layer that says nothing of a window has one, by its mask alone: chunks (Llama 4),
    or a config whose window holds for all layers (PhiMoE)."""
    config, layer = getattr(module, "config", None), getattr(module, "layer_idx", None)
    kinds = getattr(config, "layer_types", None)
    if kinds is None or layer is None:
        return kinds is None and getattr(config, "sliding_window", None) is not None
    return kinds[layer] == "chunked_attention"


def _in_tiles(
    sides: tuple[Tensor, Tensor, Tensor], short_texts: tuple[Any, Tensor], cu_S1: Tensor,
    scale: float, window: tuple[int, int],
) -> Tensor:  # fmt: skip
    """Short texts in tiles, the long ones before them by torch's varlen_attn."""
    (tiles, position_N), causal = short_texts, window[1] == 0
    mixed = not torch.compiler.is_compiling() and 2 * tiles.far[0] <= len(sides[0])
    at, texts, longest = tiles.far if mixed else tiles[1:4]

    def far(*sides: Tensor) -> Tensor:
        return _flash(*sides, cu_S1[: texts + 1], longest, scale, window)

    dense = [x if x.stride(2) == 1 else x.contiguous() for x in sides]
    if mixed:
        from mipic_llm.model.mixed_attention import MixedAttention

        return MixedAttention.apply(*dense, position_N, tiles, far, scale, causal)
    cut = [x.split((at, len(x) - at)) for x in dense] if at else [(x, x) for x in dense]
    out_NHc = gpu.short.short_attention(
        *(x for _, x in cut), tiles.start_t1, position_N[at:], scale, causal
    )
    return torch.cat([far(*(x for x, _ in cut)), out_NHc]) if at else out_NHc


def _flash(
    q_NHc: Tensor, k_NGc: Tensor, v_NGc: Tensor, cu_S1: Tensor, longest: int, scale: float | None,
    window: tuple[int, int],
) -> Tensor:  # fmt: skip
    """torch's varlen_attn."""
    from torch.nn.attention.varlen import varlen_attn

    times = q_NHc.shape[1] // k_NGc.shape[1]
    if times > 1 and gpu.groups is None:
        k_NGc, v_NGc = (x.repeat_interleave(times, 1) for x in (k_NGc, v_NGc))
    grouped = gpu.groups or {} if times > 1 else {}
    return varlen_attn(
        q_NHc, k_NGc, v_NGc, cu_S1, cu_S1, longest, longest, scale=scale, window_size=window,
        **grouped,
    )  # fmt: skip


def _fits_tiles(q_NHc: Tensor) -> bool:
    return gpu.short is not None and q_NHc.shape[2] in gpu.short.CHANNELS


def reference_varlen(
    q_NHc: Tensor, k_NGc: Tensor, v_NGc: Tensor, lengths: Sequence[int], *,
    scale: float | None = None, window: tuple[int, int] = (-1, -1), dropout: float = 0.0,
) -> Tensor:  # fmt: skip
    """Attention within each sequence: (N, H, c), any device and float dtype, differentiable.

    window: keys seen to the left and right, -1 = all; (-1, 0) is causal. H is a multiple of G
    (grouped queries). Neighbours of one length are one batched call (batches are sorted by length).
    """
    parts, start = [], 0
    for T, group in groupby(lengths):
        stop = start + T * sum(1 for _ in group)
        q, k, v = (x[start:stop].unflatten(0, (-1, T)).transpose(1, 2)
                   for x in (q_NHc, k_NGc, v_NGc))  # fmt: skip
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
        seen_TT = None
        if window not in ((-1, -1), (-1, 0)):
            at_T = torch.arange(T, device=q.device)
            ahead_TT = at_T[None] - at_T[:, None]  # key minus query
            left, right = (T if side < 0 else side for side in window)
            seen_TT = (ahead_TT >= -left) & (ahead_TT <= right)
        out_rHTc = nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=seen_TT, is_causal=window == (-1, 0), scale=scale, dropout_p=dropout,
        )  # fmt: skip
        parts.append(out_rHTc.transpose(1, 2).flatten(0, 1))
        start = stop
    return torch.cat(parts)


AttentionInterface.register("varlen", varlen)
