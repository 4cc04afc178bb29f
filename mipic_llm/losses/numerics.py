"""What every loss shares: the dtype it computes in, and matrix products that stay in that dtype."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

# The logit of a candidate that is left out: its probability is 0, and so, other than with an
# infinity, is the product of the two.
LEFT_OUT = -1e30


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 when any input is float64, else float32 (bf16 and fp16 are accumulated in fp32).

    Raises ValueError when an input is not floating point.
    """
    for tensor in tensors:
        if not tensor.is_floating_point():
            raise ValueError(f"losses take floating point tensors, got {tensor.dtype}")
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def full_precision(device: torch.device) -> torch.autocast:
    """Context in which an enclosing autocast does not cut a loss's products to half precision."""
    return torch.autocast(device.type, enabled=False)


def check_tau(tau: float) -> None:
    """Raise ValueError unless tau is a positive number."""
    if not tau > 0:
        raise ValueError(f"tau must be positive, got {tau}")


def sent(host: Tensor, device: torch.device) -> Tensor:
    """This tensor of the host on the device; the host does not wait for it."""
    host = host.pin_memory() if device.type == "cuda" else host
    return host.to(device, non_blocking=True)


def moved(values: Sequence[float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """These numbers on the device, in the same way."""
    return sent(torch.tensor(values, dtype=dtype), device)


@lru_cache(maxsize=128)
def constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """These numbers on the device: copied there once, not at every call. Not to be written to."""
    with torch.inference_mode(False):
        return moved(values, dtype, device)
