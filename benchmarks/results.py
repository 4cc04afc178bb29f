"""The one CSV of all suites, results.csv: its rows, how figures are written, and their verdicts."""

from __future__ import annotations

import csv
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, Timing, commit_id, machine

RESULTS = ROOT / "benchmarks" / "results.csv"
PLOTS = ROOT / "benchmarks" / "plots"
HEADER = (
    "date,commit,machine,suite,case,variant,model,mode,zero_stage,ranks,B,lengths,terms,"
    "median_ms,p10_ms,p90_ms,wall_ms,tokens_per_s,padding_share,mfu,peak_mib,ratio,target,met,note"
).split(",")
DIGITS = {"median_ms": 2, "p10_ms": 2, "p90_ms": 2, "wall_ms": 2, "tokens_per_s": 0,
          "padding_share": 3, "mfu": 4, "peak_mib": 0, "ratio": 3}  # fmt: skip
Row = dict[str, object]


def row(suite: str, case: str, variant: str, timing: Timing | None = None, **fields: Any) -> Row:
    """One row of the CSV; fields are named as in HEADER, None is left empty."""
    if timing is not None:
        fields |= {"median_ms": timing.median, "p10_ms": timing.p10, "p90_ms": timing.p90,
                   "wall_ms": timing.wall}  # fmt: skip
    unknown = set(fields) - set(HEADER)
    if unknown:
        raise ValueError(f"results.csv has no column {', '.join(sorted(unknown))}")
    return {"suite": suite, "case": case, "variant": variant} | {
        name: _text(name, value) for name, value in fields.items() if value is not None
    }


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if name in DIGITS and isinstance(value, int | float):
        return f"{value:.{DIGITS[name]}f}"
    return str(value)


def verdict(ratio: float, limit: float, at_least: bool) -> dict[str, object]:
    """The ratio's columns: the figure, its target in words and whether it was met."""
    met = ratio >= limit if at_least else ratio <= limit
    return {"ratio": ratio, "target": f"{'>=' if at_least else '<='}{limit:g}", "met": met}


def append_rows(rows: Sequence[Row], path: Path = RESULTS) -> None:
    """Add rows to the CSV (created with its header); date, commit and machine are filled in."""
    new = not path.exists()
    common = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": commit_id(),
        "machine": machine(),
    }
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, HEADER, restval="", lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows([common | r for r in rows])


def read_rows(path: Path = RESULTS) -> list[dict[str, str]]:
    """All rows as text."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table(rows: Sequence[Row]) -> str:
    """Rows as aligned text: the columns that any of them fills."""
    names = [n for n in HEADER[3:] if any(r.get(n) not in (None, "") for r in rows)]
    lines = [names, *[[str(r.get(n, "")) for n in names] for r in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
