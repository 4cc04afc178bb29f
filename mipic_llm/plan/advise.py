"""The stages to compare, which of them to use, and what helps when nothing fits."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from mipic_llm.config.files import find_file
from mipic_llm.errors import UserError
from mipic_llm.plan.formulas import Work, Zero
from mipic_llm.plan.loads import Load
from mipic_llm.plan.predict import GIB, Machine, Row, predict

RANKS = [2**i for i in range(11)]


class Setting(NamedTuple):
    """Everything a prediction needs beside the stage and the number of ranks."""

    work: Work
    load: Load
    machine: Machine
    fabric: float
    mfu: float

    def row(self, zero: Zero, ranks: int) -> Row:
        """The prediction for one stage on so many ranks."""
        return predict(self.work, self.load, zero, ranks, self.machine, self.fabric, self.mfu)

    def chunked(self, chunk: int) -> Setting:
        """The same with GradCache at so many texts per pass (0 = one pass)."""
        return self._replace(load=self.load._replace(chunk=chunk))

    def recomputing(self) -> Setting:
        """The same with gradient checkpointing."""
        return self._replace(work=self.work._replace(checkpointing=True))


def stages(path: str | None, width: int) -> tuple[list[Zero], int | None]:
    """-> (ZeRO-0 to 3, the stage that the DeepSpeed file names, or None without a file).

    Sizes and offloading of that stage are the file's; training checks the rest. UserError for a
    file that is no DeepSpeed JSON.
    """
    square = width * width  # what "auto" becomes, as in runtime/ds_config.py
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
    keys = {"bucket": "reduce_bucket_size", "prefetch": "stage3_prefetch_bucket_size",
            "live": "stage3_max_live_parameters", "reuse": "stage3_max_reuse_distance"}  # fmt: skip
    numbers = {name: section.get(key) for name, key in keys.items()}
    parts = {key: section.get(key) for key in ("offload_optimizer", "offload_param")}
    return otherwise._replace(
        **{k: int(v) for k, v in numbers.items() if type(v) in (int, float)},
        **{k: isinstance(v, dict) and v.get("device", "none") != "none" for k, v in parts.items()},
        all_reduce=section.get("use_multi_rank_bucket_allreduce") is not False,
    )


def lowest_that_fits(setting: Setting, zeros: Iterable[Zero], ranks: int) -> Row | None:
    """The first stage that fits; on one rank stages 1 to 3 split nothing, so only 0 is a remedy
    (or a file that offloads)."""
    for zero in zeros:
        useful = ranks > 1 or zero.stage == 0 or zero.offload_optimizer or zero.offload_param
        if useful and (row := setting.row(zero, ranks)).fits:
            return row
    return None


def sweep(setting: Setting, zeros: list[Zero], chosen: int | None) -> list[Row]:
    """One row per number of ranks: the chosen stage, else the lowest that fits (else ZeRO-3)."""
    if chosen is not None:
        return [setting.row(zeros[chosen], ranks) for ranks in RANKS]
    return [lowest_that_fits(setting, zeros, n) or setting.row(zeros[3], n) for n in RANKS]


def largest_chunk(setting: Setting, zeros: list[Zero], ranks: int) -> Row | None:
    """The fastest of all stages at their largest chunk that fits (a power of two)."""
    found: list[Row] = []
    for zero in zeros:
        chunk = 1 << max(0, setting.load.texts - 1).bit_length()
        while chunk := chunk // 2:
            row = lowest_that_fits(setting.chunked(chunk), [zero], ranks)
            if row is not None:
                found.append(row)
                break
    return max(found, key=lambda row: row.speed, default=None)


def advise(setting: Setting, zeros: list[Zero], ranks: int) -> tuple[list[str], Row | None]:
    """-> (lines for the user, the recommended row or None when nothing fits)."""
    row, again = lowest_that_fits(setting, zeros, ranks), setting.recomputing()
    remedies = [largest_chunk(setting, zeros, ranks), lowest_that_fits(again, zeros, ranks),
                largest_chunk(again, zeros, ranks)]  # fmt: skip
    best = max((r for r in remedies if r is not None), key=lambda r: r.speed, default=None)
    if row is None:
        if best is None:
            least = min((again.chunked(1).row(z, ranks) for z in zeros), key=lambda r: r.total)
            return [
                f"nothing fits: ZeRO-{least.stage} with checkpointing and chunk_size 1 still needs "
                f"{least.total / GIB:.1f} GiB of {setting.machine.memory / GIB:.1f}; take more "
                "ranks, LoRA, --train.precision bf16 or --ds_config zero3_offload"
            ], None
        return [f"no stage fits as asked; fastest that does: {flags(setting, best)}"], best
    lines = [f"use {flags(setting, row)}: the lowest stage that fits"]
    if best is not None and best.speed > 1.05 * row.speed:
        lines.append(f"faster still by {best.speed / row.speed - 1:.0%}: {flags(setting, best)}")
    if not row.chunk:
        lines.append("no chunk is needed (GradCache runs every forward pass twice)")
    if row.bound == "launches":
        lines.append("launch bound: larger passes (more texts per batch or chunk) cost nothing")
    if row.bound == "fabric":
        lines.append(
            "fabric bound: a larger batch per rank, LoRA, or a lower stage sends less per token"
        )
    return lines, row


def flags(setting: Setting, row: Row) -> str:
    """A row as what to type."""
    text = f"ZeRO-{row.stage}"
    if row.checkpointing and not setting.work.checkpointing:
        text += " --train.gradient_checkpointing true"
    if row.chunk != setting.load.chunk:
        text += f" --train.chunk_size {row.chunk}"
    return f"{text} ({row.total / GIB:.1f} GiB, {row.speed:,.0f} tokens/s)"
