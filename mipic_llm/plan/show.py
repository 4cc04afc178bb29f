"""A prediction as text or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mipic_llm.plan.predict import GIB, WORKSPACE, Row

HEADER = (
    "stage", "ranks", "fits", "GiB", "weights", "grads", "optim", "buckets", "gathered", "activ",
    "readouts", "tokens/s", "ms/step", "bound", "MB sent",
)  # fmt: skip


def cells(row: Row, mark: str = "") -> list[str]:
    """One row of the table; GiB per part."""
    s = row.states
    parts = [*s, row.activations, row.readouts]
    return [
        f"ZeRO-{row.stage}{mark}", str(row.ranks), "yes" if row.fits else "no",
        f"{row.total / GIB:.2f}", *(f"{part / GIB:.2f}" for part in parts),
        f"{row.speed:,.0f}", f"{1e3 * row.step:.1f}", row.bound, f"{row.wire.total / 1e6:,.1f}",
    ]  # fmt: skip


def table(rows: Sequence[Row], chosen: int | None) -> str:
    """Aligned columns; * marks the stage of --ds_config."""
    lines = [list(HEADER), *(cells(r, "*" if r.stage == chosen else "") for r in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADER))]
    return "\n".join(
        "  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def record(row: Row) -> dict[str, Any]:
    """One row for --json; bytes and seconds."""
    out: dict[str, Any] = row._asdict()
    out["states"], out["wire"] = row.states._asdict(), row.wire._asdict()
    memory = out.pop("memory")
    return out | {
        "fits": row.fits, "total_bytes": row.total, "workspace_bytes": WORKSPACE,
        "memory_bytes": memory,
    }  # fmt: skip
