"""Whether the Triton kernels of short.py have the short texts of SIA on this device.

Triton is imported when tokens first lie on a GPU, never before.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch


@lru_cache(maxsize=16)
def _asked(device: torch.device, dtype: torch.dtype) -> tuple[Any, str]:
    """The module short.py, once its kernels were compiled and seen to be right on this device with
    tokens of this dtype; else None and why not."""
    if device.type != "cuda" or dtype == torch.float64:
        return None, ""
    if torch.cuda.get_device_capability(device) < (8, 0):
        return None, "they want a GPU of compute capability 8.0 or more"
    try:
        from mipic_llm.losses.sia import short
    except ImportError:
        return None, "the package triton is missing"
    why = short.fault(device, dtype)
    return (None, why) if why else (short, "")


def short_kernels(device: torch.device, dtype: torch.dtype) -> Any:
    """The module short.py where its kernels can be used, else None: then function.py has all texts.
    The switch: who wants them off lets this return None."""
    return _asked(device, dtype)[0]


def sia_about(device: torch.device, dtype: torch.dtype) -> str:
    """How short texts are computed there, for the user; nothing on a CPU."""
    kernels, why = _asked(device, dtype)
    if kernels:
        return "short texts in Triton kernels"
    return f"short texts not in Triton kernels: {why}" if why else ""
