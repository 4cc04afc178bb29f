"""Which stage, and which chunk or other remedy when nothing fits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from mipic_llm.plan.formulas import Work, Zero
from mipic_llm.plan.predict import Load, Machine, Row, predict


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


def lowest_that_fits(setting: Setting, zeros: Iterable[Zero], ranks: int) -> Row | None:
    """The first stage that fits; on one rank stages 1 to 3 split nothing, so only 0 is a remedy
    (or a file that offloads)."""
    for zero in zeros:
        useful = ranks > 1 or zero.stage == 0 or zero.offload_optimizer or zero.offload_param
        if useful and (row := setting.row(zero, ranks)).fits:
            return row
    return None


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
    row = lowest_that_fits(setting, zeros, ranks)
    remedies = [
        largest_chunk(setting, zeros, ranks),
        lowest_that_fits(setting.recomputing(), zeros, ranks),
        largest_chunk(setting.recomputing(), zeros, ranks),
    ]
    others = [r for r in remedies if r is not None]
    best = max(others, key=lambda r: r.speed, default=None)
    if row is None:
        if best is None:
            least = min((setting.recomputing().chunked(1).row(z, ranks) for z in zeros),
                        key=lambda r: r.total)  # fmt: skip
            return [
                f"nothing fits: ZeRO-{least.stage} with checkpointing and chunk_size 1 still needs "
                f"{least.total / 2**30:.1f} GiB of {setting.machine.memory / 2**30:.1f}; take more "
                "ranks, LoRA, --train.precision bf16 or --ds_config zero3_offload"
            ], None
        return [f"no stage fits as asked; fastest that does: {flags(setting, best)}"], best
    lines = [f"use {flags(setting, row)}: the lowest stage that fits"]
    if best is not None and best.speed > 1.05 * row.speed:
        lines.append(f"faster still by {best.speed / row.speed - 1:.0%}: {flags(setting, best)}")
    if row.fits and not row.chunk:
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
    return f"{text} ({row.total / 2**30:.1f} GiB, {row.speed:,.0f} tokens/s)"
