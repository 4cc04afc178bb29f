"""Attention over packed sequences: torch's varlen_attn, ours for short texts, a reference.

Shape legend: N tokens of all sequences, S sequences, H query heads, G key heads, c channels of a
head; r sequences of one length, T their tokens.

A packed batch is one row [1, N]; `cu_seq_lens_q` says where its sequences begin. transformers hands
the keywords of a forward call down to the function registered under config._attn_implementation,
and builds no mask for a name that it does not know, so that neither pads nor an N x N mask exist.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from mipic_llm.errors import UserError
from mipic_llm.types import Packing

# What some classes hand to their kernel and ours does not do: none may be set.
_FOREIGN = ("softcap", "s_aux", "position_bias", "head_mask")


def varlen_obstacle(config: Any) -> str | None:
    if torch.cuda.get_device_capability() < (8, 0):
        return "needs a GPU of compute capability 8.0 or more"
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return "needs a newer torch"
    if "window_size" not in inspect.signature(varlen_attn).parameters:
        return "needs a newer torch (whose varlen_attn takes window_size)"
    head = _channels(config)
    if head % 8 or head > 256:
        return f"takes heads of up to 256 channels, a multiple of 8, and these have {head}"
    drops = {k: v for k, v in config.to_dict().items() if "att" in k and "drop" in k}
    on = [k for k, v in drops.items() if isinstance(v, (int, float)) and v > 0]
    if on:
        return f"has no dropout and {on[0]} is {drops[on[0]]}: give --model.dropout 0 too"
    _ask_for_groups()
    _ask_for_tiles()
    return None


# How torch's varlen_attn is told of fewer key than query heads; None: it is given as many.
_groups: dict[str, Any] | None = None


@lru_cache(maxsize=1)
def _ask_for_groups() -> None:
    """Does this torch's kernel share key heads among query heads? It says so by its argument
    enable_gqa; without one (torch 2.11) it is tried, gradients too."""
    from torch.nn.attention.varlen import varlen_attn

    global _groups
    if "enable_gqa" in inspect.signature(varlen_attn).parameters:
        _groups = {"enable_gqa": True}
    elif _shares_heads(varlen_attn):
        _groups = {}


# The module short_attention, once its kernels were seen to be right on this GPU; else why not.
_short: Any = None
_no_tiles = ""


@lru_cache(maxsize=1)
def _ask_for_tiles() -> None:
    """Compile the kernels for short texts and compare them with plain attention, gradients too;
    where they fail, or Triton is missing, varlen_attn takes all texts."""
    global _short, _no_tiles
    try:
        from mipic_llm.model import short_attention
    except ImportError:
        return
    _no_tiles = short_attention.fault("cuda", torch.bfloat16) or ""
    _short = None if _no_tiles else short_attention


def tiles_about(config: Any) -> str:
    """What becomes of short texts, as the end of the kernel's name."""
    if _no_tiles:
        return f", short texts not in tiles: {_no_tiles}"
    fits = _short is not None and _channels(config) in _short.CHANNELS
    return ", short texts in tiles" if fits else ""


def _channels(config: Any) -> int:
    """Of an attention head."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _shares_heads(varlen_attn: Any) -> bool:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(24, heads, 64, generator=generator).to("cuda", torch.bfloat16)
               for heads in (4, 2, 2))  # fmt: skip
    cu = torch.tensor([0, 9, 24], dtype=torch.int32, device="cuda")

    def run(repeat: int) -> list[Tensor]:
        with torch.inference_mode(False), torch.enable_grad():
            leaves = [x.clone().requires_grad_() for x in (q, k, v)]
            few = [leaves[0], *(x.repeat_interleave(repeat, 1) for x in leaves[1:])]
            out = varlen_attn(*few, cu, cu, 15, 15, window_size=(-1, 0))
            out.float().square().sum().backward()
        return [out.detach(), *(x.grad for x in leaves)]  # type: ignore[list-item]

    try:
        pairs = zip(run(1), run(2), strict=True)
        return all(torch.allclose(a.float(), b.float(), rtol=0.05, atol=0.05) for a, b in pairs)
    except RuntimeError:
        return False


def keywords(packing: Packing, first_position: int | None, kernel: str) -> dict[str, Any]:
    """What a transformers model with this kernel is called with beside the ids of a packed batch.
    first_position None: no positions."""
    longest = max(packing.lengths)
    positions = None if first_position is None else packing.position_N[None] + first_position
    found = {
        "position_ids": positions,
        "cu_seq_lens_q": packing.cu_S1, "cu_seq_lens_k": packing.cu_S1,
        "max_length_q": longest, "max_length_k": longest,
    }  # fmt: skip
    if kernel != "varlen" or _short is None or not packing.cu_S1.is_cuda:
        return found
    if tiles := _short.tiles(packing.lengths, packing.cu_S1.device):
        found["short_texts"] = (tiles, packing.position_N[tiles.long_rows :])
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
            assert _short is not None
            scale = q_NHc.shape[2] ** -0.5 if scaling is None else scaling
            out_NHc = _in_tiles(sides, short_texts, cu_S1, scale, window)
    else:
        lengths = cu_seq_lens_q.diff().tolist()
        out_NHc = reference_varlen(
            q_NHc, k_NGc, v_NGc, lengths, scale=scaling, window=window, dropout=dropout
        )
    return out_NHc.unsqueeze(0), None


def _in_tiles(
    sides: tuple[Tensor, Tensor, Tensor], short_texts: tuple[Any, Tensor], cu_S1: Tensor,
    scale: float, window: tuple[int, int],
) -> Tensor:  # fmt: skip
    """Short texts in tiles, the long ones before them by torch's varlen_attn."""
    (tiles, position_N), causal = short_texts, window[1] == 0
    at, cu_S1 = tiles.long_rows, cu_S1[: tiles.long_texts + 1]

    def long(*sides: Tensor) -> Tensor:
        return _flash(*sides, cu_S1, tiles.longest, scale, window)

    dense = [x if x.stride(2) == 1 else x.contiguous() for x in sides]
    if not torch.compiler.is_compiling():
        from mipic_llm.model.mixed_attention import MixedAttention, few_long

        if few_long(tiles, len(dense[0])):
            return MixedAttention.apply(*dense, position_N, tiles, long, scale, causal)
    cut = [x.split((at, len(x) - at)) for x in dense] if at else [(x, x) for x in dense]
    out_NHc = _short.short_attention(
        *(x for _, x in cut), tiles.start_t1, position_N, scale, causal
    )
    return torch.cat([long(*(x for x, _ in cut)), out_NHc]) if at else out_NHc


def _flash(
    q_NHc: Tensor, k_NGc: Tensor, v_NGc: Tensor, cu_S1: Tensor, longest: int, scale: float | None,
    window: tuple[int, int],
) -> Tensor:  # fmt: skip
    """torch's varlen_attn."""
    from torch.nn.attention.varlen import varlen_attn

    times = q_NHc.shape[1] // k_NGc.shape[1]
    if times > 1 and _groups is None:
        k_NGc, v_NGc = (x.repeat_interleave(times, 1) for x in (k_NGc, v_NGc))
    grouped = _groups or {} if times > 1 else {}
    return varlen_attn(
        q_NHc, k_NGc, v_NGc, cu_S1, cu_S1, longest, longest, scale=scale, window_size=window,
        **grouped,
    )  # fmt: skip


def _fits_tiles(q_NHc: Tensor) -> bool:
    return _short is not None and q_NHc.shape[2] in _short.CHANNELS


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
