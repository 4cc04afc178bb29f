"""Parts of a DeepSpeed file that would take over what is ours: refused, or left to us."""

from __future__ import annotations

import json
from typing import Any

from mipic_llm.config import Config

# Sections that ours take the place of: the option that decides, and flags for the rest.
_OURS = {
    "optimizer": ("optimizer", "--train.learning_rate, --train.weight_decay"),
    "scheduler": ("schedule", "--train.warmup_ratio"),
}
# DeepSpeed's names of optimizers and schedules (in small letters): ours.
_KINDS = {"adamw": "adamw", "warmuplr": "constant", "warmupdecaylr": "linear",
          "warmupcosinelr": "cosine"}  # fmt: skip


class Refused(Exception):
    """What is wrong with the file, and what to do."""


def section_of(ds: dict[str, Any], key: str) -> dict[str, Any]:
    section = ds.setdefault(key, {})
    if not isinstance(section, dict):
        raise Refused(f"{key} must be an object {{...}}, got {json.dumps(section)}")
    return section


def refuse_ours(ds: dict[str, Any], config: Config) -> None:
    """Raise for whatever would take over a part of training that is ours."""
    for key, (option, flags) in _OURS.items():
        if (section := ds.pop(key, None)) is None:
            continue
        if not _all_auto(section):
            raise Refused(
                f'{key} is ours to make; remove it, or put "auto" for each of its params, and use '
                f"--train.{option}, {flags}"
            )
        own, kind = getattr(config.train, option), _KINDS.get(str(section.get("type")).lower())
        if kind != own:
            advice = f"pass --train.{option} {kind}, or remove it" if kind else "remove it"
            told = json.dumps(section.get("type"))
            raise Refused(f"{key}.type is {told} but train.{option} is {own}; {advice}")
    if "bfloat16" in ds:
        raise Refused("bfloat16 is the old name; write bf16")
    for key in ("fp16", "torch_autocast"):
        if section_of(ds, key).get("enabled") not in (None, False, "auto"):
            raise Refused(
                f"{key} is enabled, but --train.precision is ours (bf16 or fp32); remove it"
            )
        ds.pop(key)
    if ds.get("gradient_allreduce_op", "mean") != "mean":
        raise Refused("gradient_allreduce_op must be the mean over ranks; remove it")
    for key in ("sequence_parallel_size", "tensor_parallel", "data_efficiency"):
        value = ds.get(key)
        off = isinstance(value, dict) and value.get("enabled") is False
        if not off and value not in (None, 1, {}):
            raise Refused(f"{key} is not supported by this trainer; remove it")


def _all_auto(section: Any) -> bool:
    """Whether a section leaves its params to us, as files for the Trainer of transformers do."""
    params = section.get("params") if isinstance(section, dict) else None
    return isinstance(params, dict) and {"auto"} == {*map(str, params.values())}
