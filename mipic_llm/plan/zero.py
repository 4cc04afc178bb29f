"""The ZeRO stages to compare: sizes of the files in ds_configs, or those of the user's own file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mipic_llm.config.files import find_file
from mipic_llm.errors import UserError
from mipic_llm.plan.formulas import Zero


def stages(path: str | None, width: int) -> tuple[list[Zero], int | None]:
    """-> (ZeRO-0 to 3, the stage that the file names or None without a file).

    Only sizes and offloading are read here; training checks the rest. UserError for a file that is
    not a DeepSpeed JSON.
    """
    square = width * width  # what "auto" becomes, as in training/ds_config.py
    found = [Zero(0), Zero(1), Zero(2), Zero(3, bucket=square, prefetch=int(0.9 * square))]
    if path is None:
        return found, None
    where = f"ds_config {path}"
    try:
        ds = json.loads((find_file("ds_configs", path) or Path(path)).read_text("utf-8-sig"))
    except OSError as error:
        raise UserError(f"{where} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{where}: not valid JSON: {error}") from None
    section = ds.get("zero_optimization", {}) if isinstance(ds, dict) else None
    if not isinstance(section, dict):
        raise UserError(f'{where}: must be a JSON object {{"zero_optimization": {{...}}}}')
    stage = section.get("stage", 0)
    if isinstance(stage, bool) or stage not in (0, 1, 2, 3):
        raise UserError(f"{where}: zero_optimization.stage is {stage!r}; give 0, 1, 2 or 3")
    found[stage] = from_section(section, found[stage])
    return found, stage


def from_section(section: dict[str, Any], otherwise: Zero) -> Zero:
    """`otherwise` with what a zero_optimization section says in numbers ("auto" says nothing)."""

    def number(key: str, old: int) -> int:
        value = section.get(key)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return int(value) if is_number else old  # type: ignore[arg-type]

    def offloads(key: str) -> bool:
        part = section.get(key)
        return isinstance(part, dict) and part.get("device", "none") != "none"

    z = otherwise
    return z._replace(
        bucket=number("reduce_bucket_size", z.bucket),
        prefetch=number("stage3_prefetch_bucket_size", z.prefetch),
        live=number("stage3_max_live_parameters", z.live),
        reuse=number("stage3_max_reuse_distance", z.reuse),
        all_reduce=section.get("use_multi_rank_bucket_allreduce") is not False,
        offload_optimizer=offloads("offload_optimizer"), offload_param=offloads("offload_param"),
    )  # fmt: skip
