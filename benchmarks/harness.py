"""Shared by every benchmark: CPU timing, peak memory of a child process, and the one CSV.

Protocol (PERFORMANCE.md): check that both sides agree, then 5 warm-up and 30 timed calls, median
and 10/90 %, each version twice in turn. CPU time is process time: all threads of this process.
"""

from __future__ import annotations

import csv
import datetime
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results.csv"
HEADER = (
    "date,commit,machine,suite,case,variant,median_ms,p10_ms,p90_ms,peak_mib,ratio,target,met"
).split(",")


class Timing(NamedTuple):
    """Process CPU time of one call in ms: median and 10/90 %, and the median wall time."""

    median: float
    p10: float
    p90: float
    wall: float


def time_cpu(step: Callable[[], object], warmup: int = 5, runs: int = 30) -> Timing:
    """Time `step` after `warmup` untimed calls."""
    for _ in range(warmup):
        step()
    cpu, wall = [], []
    for _ in range(runs):
        wall_start, cpu_start = time.perf_counter(), time.process_time()
        step()
        cpu.append(1e3 * (time.process_time() - cpu_start))
        wall.append(1e3 * (time.perf_counter() - wall_start))
    cpu.sort()
    last = len(cpu) - 1
    return Timing(
        statistics.median(cpu),
        cpu[round(0.1 * last)],
        cpu[round(0.9 * last)],
        statistics.median(wall),
    )


def max_rss_mib() -> float:
    """High-water mark of this process's resident memory, MiB.

    Linux keeps `ru_maxrss` across fork and exec, so a child of a big parent would start at the
    parent's mark and show no growth; VmHWM belongs to the program itself.
    """
    status = Path("/proc/self/status")
    if status.exists():
        marks = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        if marks:
            return int(marks[0].split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def peak_of_child(script: str, *args: str) -> float:
    """Run `script args` in a fresh process and read the MiB it prints on its last line.

    The child builds its inputs, notes `max_rss_mib()`, runs one step and prints the growth.
    glibc raises its mmap threshold as big blocks are freed; then they come from a heap that
    fragments, and the mark says more about the order of frees than about what was alive. A fixed
    threshold, the same for every variant, returns them.
    """
    command = [sys.executable, script, *args]
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return float(done.stdout.strip().splitlines()[-1])


def commit_id() -> str:
    """Short commit of the checkout, with '+' when files differ from it."""

    def git(*args: str) -> str:
        done = subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return (git("rev-parse", "--short", "HEAD") or "none") + ("+" if git("diff", "HEAD") else "")


def cpu_model() -> str:
    """Processor name and core count."""
    name, cores = platform.processor() or platform.machine(), 0
    info = Path("/proc/cpuinfo")
    if info.exists():
        fields = [line.split(":", 1) for line in info.read_text().splitlines() if ":" in line]
        names = [value.strip() for key, value in fields if key.strip() == "model name"]
        name, cores = (names or [name])[0], len(names)
    return f"{name} x{cores}"


def append_rows(rows: Sequence[dict[str, object]], path: Path = RESULTS) -> None:
    """Add rows to the CSV (created with its header); date, commit and machine are filled in."""
    new = not path.exists()
    common = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": commit_id(),
        "machine": cpu_model(),
    }
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, HEADER, restval="", lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows([common | row for row in rows])


def row(
    suite: str,
    case: str,
    variant: str,
    timing: Timing,
    peak_mib: float,
    ratio: float | None = None,
    target: str = "",
    met: bool | None = None,
) -> dict[str, object]:
    """One CSV row; `ratio` is the figure the target speaks of."""
    return {
        "suite": suite,
        "case": case,
        "variant": variant,
        "median_ms": f"{timing.median:.2f}",
        "p10_ms": f"{timing.p10:.2f}",
        "p90_ms": f"{timing.p90:.2f}",
        "peak_mib": f"{peak_mib:.0f}",
        "ratio": "" if ratio is None else f"{ratio:.2f}",
        "target": target,
        "met": "" if met is None else str(met).lower(),
    }


def table(rows: Sequence[dict[str, object]]) -> str:
    """Rows as aligned text, without the date, commit and machine."""
    names = HEADER[3:]
    lines = [names, *[[str(r.get(n, "")) for n in names] for r in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
