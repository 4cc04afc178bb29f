"""Predictions as text or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mipic_llm.config import Config
from mipic_llm.plan.advise import Setting
from mipic_llm.plan.formulas import flops_per_token
from mipic_llm.plan.predict import GIB, WORKSPACE, Row

HEADER = (
    "stage", "ranks", "fits", "GiB", "weights", "grads", "optim", "buckets", "gathered", "activ",
    "readouts", "tokens/s", "ms/step", "bound", "MB sent",
)  # fmt: skip


def heading(config: Config, setting: Setting, origin: str) -> list[str]:
    """What the tables are about, and what they assume; origin: where the shape is from."""
    w, load, machine = setting.work, setting.load, setting.machine
    mode = f"LoRA {w.lora}" if w.lora else "full fine-tuning"
    mode += " on a base in 4 bits" if w.four_bits else ""
    passes = f"{load.passes} passes of {load.chunk}" if load.passes > 1 else "one pass"
    return [
        f"{config.model.name} (shape: {origin}): {w.parameters / 1e6:,.1f} M parameters with "
        f"heads, {w.trainable / 1e6:,.2f} M trained, {mode}, {config.train.precision}"
        f"{', checkpointing' if w.checkpointing else ''}; "
        f"{flops_per_token(w, load.tokens) / 1e9:.2f} GFLOP per token",
        f"per rank and step: {load.pairs} anchors x {load.columns} texts of {load.tokens:g} tokens "
        f"(at most {load.longest}) in {passes}; {machine.name}: {machine.flops / 1e12:g} TFLOP/s x "
        f"{setting.mfu:g}, {machine.memory / GIB:g} GiB; fabric {setting.fabric / 1e9:g} GB/s per "
        "rank",
    ]


def table(rows: Sequence[Row], chosen: int | None) -> str:
    """Aligned columns, GiB per part; * marks the stage of --ds_config."""
    lines = [list(HEADER)]
    for r in rows:
        lines.append([
            f"ZeRO-{r.stage}{'*' if r.stage == chosen else ''}", str(r.ranks),
            "yes" if r.fits else "no",
            *(f"{part / GIB:.2f}" for part in (r.total, *r.states, r.activations, r.readouts)),
            f"{r.speed:,.0f}", f"{1e3 * r.step:.1f}", r.bound, f"{sum(r.wire) / 1e6:,.1f}",
        ])  # fmt: skip
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADER))]
    return "\n".join(
        "  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def record(row: Row) -> dict[str, Any]:
    """One row for --json; bytes and seconds."""
    out = row._asdict() | {"states": row.states._asdict(), "wire": row.wire._asdict()}
    memory = out.pop("memory")
    return out | {
        "fits": row.fits, "total_bytes": row.total, "workspace_bytes": WORKSPACE,
        "memory_bytes": memory,
    }  # fmt: skip
