"""One line at the start when ZeRO-3 was chosen for a model that a lower stage would hold."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn

from mipic_llm.runtime import ranks as dist

GIB = 2**30
LIMIT = Path("/sys/fs/cgroup/memory.max")  # of the container that this is, bytes
MOST = 0.5  # of the memory for these states; the rest is for activations, which are not counted


def zero3_hint(module: nn.Module) -> str | None:
    """The hint, or None where ZeRO-2 would leave too little room; module is whole or partitioned.

    Counted are weights, gradients and AdamW's fp32 weights and two moments (12 bytes). All ranks
    call.
    """
    weights = trained = 0
    for p in module.parameters():
        numel = getattr(p, "ds_numel", p.numel())
        weights += numel * p.element_size()
        trained += numel * (p.element_size() + 12) if p.requires_grad else 0
    memory, what = device_memory()
    needed = weights + trained / dist.world_size()
    if needed > MOST * memory:
        return None
    return (
        f"hint: at ZeRO-2 weights, gradients and optimizer need {needed / GIB:.1f} of "
        f"{memory / GIB:.1f} GiB ({what}; activations not counted); --ds_config "
        "zero2 would be faster, since ZeRO-3 gathers the weights in every pass"
    )


def device_memory() -> tuple[float, str]:
    """-> (bytes that one rank may use, whose they are): its GPU's, or its share of the RAM."""
    ranks = dist.ranks_here()
    if torch.cuda.is_available():
        found = torch.cuda.get_device_properties(torch.cuda.current_device())
        return float(found.total_memory), "GPU"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        memory = min(memory, int(LIMIT.read_text()))
    except (OSError, ValueError):  # no container, or one without a limit
        pass
    return memory / ranks, "RAM per rank"
