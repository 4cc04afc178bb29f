"""One line at the start when ZeRO-3 was chosen for a model that a lower stage would hold."""

from __future__ import annotations

import os
from typing import Any

import torch

from mipic_llm.config.schema import Config
from mipic_llm.plan.formulas import EAGER, FUSED
from mipic_llm.plan.predict import GIB, Machine, load_of, predict, work_of
from mipic_llm.plan.shapes import DECODERS, ENCODERS, from_config
from mipic_llm.plan.zero import Zero


def zero3_hint(config: Config, shape: Any, stage: int, ranks: int) -> str | None:
    """The hint, or None. shape: the backbone's transformers config; config: resolved.

    The whole rank is counted (plan's formulas, every text at data.max_length): if that fits in the
    memory of the device at ZeRO-2, nothing is gained by gathering weights. Changes nothing.
    """
    known = shape.model_type in ENCODERS + DECODERS
    if stage != 3 or not known or config.model.quantization != "none":
        return None
    memory, what = device_memory()
    kernel = FUSED if torch.cuda.is_available() or config.train.precision == "fp32" else EAGER
    config, work = work_of(config, from_config(shape), kernel=kernel)
    machine = Machine(what, 1e12, memory, 1e12)  # speed does not matter here
    load = load_of(config, float(config.data.max_length))
    row = predict(work, load, Zero(2), ranks, machine, 1e9, 1.0)
    if not row.fits:
        return None
    return (
        f"hint: at ZeRO-2 this run needs about {row.total / GIB:.1f} of {memory / GIB:.1f} GiB "
        f"({what}); --ds_config ds_configs/zero2.json would be faster, since ZeRO-3 gathers the "
        "weights again in every pass"
    )


def device_memory() -> tuple[float, str]:
    """-> (bytes that one rank may use, whose they are): its GPU's, or its share of the RAM."""
    if torch.cuda.is_available():
        device = torch.cuda.current_device()
        return float(torch.cuda.get_device_properties(device).total_memory), "GPU"
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return ram / int(os.environ.get("LOCAL_WORLD_SIZE") or 1), "RAM per rank"
