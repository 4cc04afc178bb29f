"""Which attention kernel runs: the choice of `model.attn`, and why one cannot run."""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from transformers import MODEL_MAPPING
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from mipic_llm.errors import UserError
from mipic_llm.model.gpu_kernels import channels_of, tiles_about, varlen_obstacle

FLASH = ("flash_attention_2", "flash_attention_3")
PACKED = ("varlen", *FLASH)  # kernels that take a packed batch
TESTED = ("bert", "xlm-roberta", "qwen3")  # model types that `auto` packs; others when asked


class Kernel(NamedTuple):
    """name: what transformers is told; about: the same for the user, in a line."""

    name: str
    about: str


def choose(option: str, precision: str, config: Any) -> Kernel:
    """The kernel for `model.attn` on this machine and for this transformers config, whose dropout
    is final. UserError, with the reason, when the one asked for by name cannot run."""
    fast = torch.cuda.is_available() and precision == "bf16"
    plain, slow = padded(config), f"{_title(config)} has no other" * (padded(config) != "sdpa")

    def kernel(name: str, why: str = "") -> Kernel:
        own = " (reference kernel)"
        if fast and name == "varlen":
            own = f" (torch.nn.attention.varlen{tiles_about(config)})"
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
    if not channels_of(config):
        return f"takes heads of one size, and those of {title} differ by layer"
    if name in FLASH:
        if torch.cuda.get_device_capability() < (8, 0):
            return "needs a GPU of compute capability 8.0 or more"
        return None if kind._supports_flash_attn else f"does not run in {title}"
    return varlen_obstacle(config) if cuda and precision == "bf16" else None
