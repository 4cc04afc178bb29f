"""Which attention kernel runs, and variable-length attention over packed sequences.

Shape legend: N tokens of all sequences, S sequences, H query heads, G key heads, c channels of a
head; r sequences of one length, T their tokens.

A packed batch is one row [1, N]; `cu_seq_lens_q` says where its sequences begin. transformers hands
the keywords of a forward call down to the function registered under config._attn_implementation,
and builds no mask for a name that it does not know, so that neither pads nor an N x N mask exist.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from importlib.util import find_spec
from itertools import accumulate, groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import MODEL_MAPPING, AttentionInterface
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from mipic_llm.errors import UserError
from mipic_llm.types import Packing

FLASH = ("flash_attention_2", "flash_attention_3")
PACKED = ("varlen", *FLASH)  # kernels that take a packed batch
TESTED = ("bert", "xlm-roberta", "qwen3")  # model types that `auto` packs; others when asked
_TABLES = ("position_embeddings", "embed_positions", "wpe")  # of positions, by the module's name
# What some classes hand to their kernel and ours does not do: none may be set.
_FOREIGN = ("softcap", "s_aux", "position_bias", "head_mask")


class Kernel(NamedTuple):
    """name: what transformers is told; about: the same for the user, in a line."""

    name: str
    about: str


# ------------------------------------------------------------------------------------ the choice


def choose(option: str, precision: str, config: Any) -> Kernel:
    """The kernel for `model.attn` on this machine and for this transformers config, whose dropout
    is final. UserError, with the reason, when the one asked for by name cannot run."""
    fast = torch.cuda.is_available() and precision == "bf16"
    plain, slow = padded(config), f"{_title(config)} has no other" * (padded(config) != "sdpa")

    def kernel(name: str, why: str = "") -> Kernel:
        own = " (reference kernel)"
        if fast and name == "varlen":
            own = f" (torch.nn.attention.varlen{_tiles_about(config)})"
        about = (
            f"{name}{own if name == 'varlen' else ''}, {'packed' if name in PACKED else 'padded'}"
        )
        return Kernel(name, about + (f" ({why})" if why else ""))

    if option != "auto":
        if problem := obstacle(option, precision, config):
            raise UserError(f"model.attn: {option} {problem}; use --model.attn {plain}")
        return kernel(option)
    if not torch.cuda.is_available():
        # torch's fused backward takes ten times as long there in bf16
        return kernel("eager" if precision == "bf16" else plain, slow)
    if not fast:
        return kernel(plain, slow or "packed kernels want bf16")
    reasons = []
    for name in ("flash_attention_2", "varlen"):
        problem = obstacle(name, precision, config)
        if not problem and config.model_type not in TESTED:
            problem = f"is not tested with {config.model_type} models: ask for it by name"
        if not problem:
            return kernel(name)
        reasons.append(f"{name} {problem}")
    return kernel(plain, "; ".join(reasons))


def padded(config: Any) -> str:
    """The kernel that runs anywhere."""
    return "sdpa" if getattr(model_class(config), "_supports_sdpa", True) else "eager"


def model_class(config: Any) -> Any:
    """The class that AutoModel makes of this config; of a model with code of its own, that code's,
    since who read such a config has trusted it. None where there is none."""
    kind = MODEL_MAPPING.get(type(config), None)
    if isinstance(kind, tuple):
        own = [k for k in kind if k.__name__ in (config.architectures or [])]
        kind = (own or kind)[0]
    own_code = (getattr(config, "auto_map", None) or {}).get("AutoModel")
    if kind is None and own_code:
        with suppress(Exception):  # then nothing can be asked
            kind = get_class_from_dynamic_module(own_code, config._name_or_path)
    return kind


def _title(config: Any) -> str:
    return getattr(model_class(config), "__name__", type(config).__name__)


def obstacle(name: str, precision: str, config: Any) -> str | None:
    """Why this kernel cannot run this model here, as the end of a sentence; None when it can."""
    cuda = torch.cuda.is_available()
    if name == "flash_attention_2" and not (cuda and find_spec("flash_attn")):
        return "needs a CUDA device and `pip install mipic_llm[flash]`"
    if name == "flash_attention_3" and not (cuda and find_spec("flash_attn_interface")):
        return "is not installed, or there is no CUDA device"
    kind, title = model_class(config), _title(config)
    if name == "sdpa" and padded(config) != name:
        return f"does not run in {title}"
    if name not in PACKED:
        return None
    if not getattr(kind, "_supports_attention_backend", False):
        return f"needs a class whose attention is exchangeable, and {title}'s is not"
    if name in FLASH:
        return None if kind._supports_flash_attn else f"does not run in {title}"
    return _varlen_obstacle(config) if cuda and precision == "bf16" else None


def _varlen_obstacle(config: Any) -> str | None:
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


def _tiles_about(config: Any) -> str:
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


# ------------------------------------------------------------------------------------ packed input


def unpad(ids_ST: Tensor, mask_ST: Tensor) -> tuple[Tensor, Packing]:
    """A padded batch as a packed one. It reads the mask on the host: not for a training step."""
    real_ST = mask_ST.bool()
    lengths = tuple(real_ST.sum(1).tolist())
    cu_S1 = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    position_N = torch.cat([torch.arange(n) for n in lengths])
    skip_S = (mask_ST == 2).sum(1) if int(mask_ST.max()) == 2 else None
    return ids_ST[real_ST][None], Packing(cu_S1, position_N, lengths, skip_S).to(ids_ST.device)


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


def _table(model: nn.Module) -> nn.Embedding | None:
    """The table of absolute positions, where the model has one."""
    for name, module in model.named_modules():
        if name.rsplit(".", 1)[-1] in _TABLES and isinstance(module, nn.Embedding):
            return module
    return None


def first_position(model: nn.Module) -> int:
    """Position of a text's first token: 0, or after the pad's place in tables that reserve one
    (RoBERTa, XLM-R and BGE-M3 count from padding_idx + 1)."""
    table = _table(model)
    return 0 if table is None or table.padding_idx is None else table.padding_idx + 1


def longest_text(config: Any) -> int | None:
    """Tokens for which the model of this config has places; None without a table of positions (and
    where the class cannot be asked). The model is built without memory for weights."""
    kind, model = model_class(config), nn.Module()
    if kind is not None:
        with suppress(Exception), torch.device("meta"):
            model = kind(copy.deepcopy(config))
    table, first = _table(model), first_position(model)
    return None if table is None else table.num_embeddings - getattr(table, "offset", first)


# --------------------------------------------------------------------------------------- the kernel


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
    q_NHc, k_NGc, v_NGc = (x[0].transpose(0, 1) for x in (query, key, value))
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
            tiles, position_N = short_texts
            at, scale = tiles.long_rows, q_NHc.shape[2] ** -0.5 if scaling is None else scaling
            cut = [x.split((at, len(x) - at)) for x in sides] if at else [(x, x) for x in sides]
            short = [x if x.stride(2) == 1 else x.contiguous() for _, x in cut]
            out_NHc = _short.short_attention(*short, tiles.start_t1, position_N, scale, causal)
            if at:
                cu_S1, longest = cu_S1[: tiles.long_texts + 1], tiles.longest
                long_NHc = _flash(*(x for x, _ in cut), cu_S1, longest, scaling, window)
                out_NHc = torch.cat([long_NHc, out_NHc])
    else:
        lengths = cu_seq_lens_q.diff().tolist()
        out_NHc = reference_varlen(
            q_NHc, k_NGc, v_NGc, lengths, scale=scaling, window=window, dropout=dropout
        )
    return out_NHc[None], None


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
