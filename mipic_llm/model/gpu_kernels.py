"""What the attention kernels of this GPU can do; each is tried once, before it is used.

H query heads, G key heads, c channels of a head.
"""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


def varlen_obstacle(config: Any) -> str | None:
    if torch.cuda.get_device_capability() < (8, 0):
        return "needs a GPU of compute capability 8.0 or more"
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return "needs a newer torch"
    if "window_size" not in inspect.signature(varlen_attn).parameters:
        return "needs a newer torch (whose varlen_attn takes window_size)"
    head = channels_of(config)
    if head % 8 or head > 256:
        return f"takes heads of up to 256 channels, a multiple of 8, and these have {head}"
    drops = {k: v for k, v in config.to_dict().items() if "att" in k and "drop" in k}
    on = [k for k, v in drops.items() if isinstance(v, (int, float)) and v > 0]
    if on:
        return f"has no dropout and {on[0]} is {drops[on[0]]}: give --model.dropout 0 too"
    _ask_for_groups()
    _ask_for_tiles()
    _ask_for_wide_tiles(head)
    return None


# How torch's varlen_attn is told of fewer key than query heads; None: it is given as many.
groups: dict[str, Any] | None = None


@lru_cache(maxsize=1)
def _ask_for_groups() -> None:
    """Does this torch's kernel share key heads among query heads? It says so by its argument
    enable_gqa; without one (torch 2.11) it is tried, gradients too."""
    from torch.nn.attention.varlen import varlen_attn

    global groups
    if "enable_gqa" in inspect.signature(varlen_attn).parameters:
        groups = {"enable_gqa": True}
    elif _shares_heads(varlen_attn):
        groups = {}


# The module short_attention, once its kernels were seen to be right on this GPU; else why not.
short: Any = None
no_tiles = ""


@lru_cache(maxsize=1)
def _ask_for_tiles() -> None:
    """Compile the kernels for short texts and compare them with plain attention, gradients too;
    where they fail, or Triton is missing, varlen_attn takes all texts."""
    global short, no_tiles
    try:
        from mipic_llm.model import mixed_attention, short_attention
    except ImportError:
        return
    no_tiles = mixed_attention.fault("cuda", torch.bfloat16) or ""
    short = None if no_tiles else short_attention


# Channels of a head for which tiles for longer texts were seen to be right, and why not for others.
wide: set[int] = set()
no_wide: dict[int, str] = {}


@lru_cache(maxsize=8)
def _ask_for_wide_tiles(channels: int) -> None:
    """They want more shared memory than some GPUs have; then varlen_attn takes longer texts."""
    if short is None or channels not in short.CHANNELS:
        return
    from mipic_llm.model.mixed_attention import fault

    if why := fault("cuda", torch.bfloat16, channels, wide=True):
        no_wide[channels] = why
    else:
        wide.add(channels)


def tiles_about(config: Any) -> str:
    """What becomes of short texts, as the end of the kernel's name."""
    if no_tiles:
        return f", short texts not in tiles: {no_tiles}"
    if short is None or (channels := channels_of(config)) not in short.CHANNELS:
        return ""
    why = no_wide.get(channels)
    return ", short texts in tiles" + (f", those of 65 to 128 tokens not: {why}" if why else "")


def channels_of(config: Any) -> int:
    """Of an attention head; 0 where they differ by layer (Gemma 4, in a config for each)."""
    sizes = {
        getattr(one, "head_dim", None) or one.hidden_size // one.num_attention_heads
        for one in getattr(config, "per_layer_config", None) or [config]
    }
    return sizes.pop() if len(sizes) == 1 else 0


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
