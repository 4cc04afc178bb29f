"""Shared by every suite: clocks, peak memory, child processes, and the name of the machine.

Protocol (README.md): check that both sides agree, then warm up, then time both in turn, step by
step, so that a busy moment hits both; median and 10/90 %, each version twice. On a CPU the clock
is the process's CPU time (all threads), on a GPU device events.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Options(NamedTuple):
    """What the command line says to a suite.

    quick: few runs and small cases. data: a file of triplets (None = the built-in text).
    case: only this case. rows: gradcache's fixed total. runs: timed steps (0 = the suite's own).
    kills, seed: of faults.
    """

    quick: bool = False
    data: str | None = None
    case: str | None = None
    rows: int = 4096
    runs: int = 0
    threads: int = 1
    kills: int = 60
    seed: int = 0


class Timing(NamedTuple):
    """One call in ms (CPU time of the process, or device time): median, 10/90 %; median wall."""

    median: float
    p10: float
    p90: float
    wall: float


def on_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def timed(step: Callable[[], object]) -> tuple[float, float]:
    """One call: (ms of the device, or of this process on a CPU; wall ms)."""
    if on_gpu():
        import torch

        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        wall = time.perf_counter()
        begin.record()
        step()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end), 1e3 * (time.perf_counter() - wall)
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    return 1e3 * (time.process_time() - cpu), 1e3 * (time.perf_counter() - wall)


Sample = tuple[float, float]


def paired(
    steps: Mapping[str, Callable[[], object]], warmup: int = 5, runs: int = 30
) -> dict[str, list[Sample]]:
    """Time all versions in turn, one step of each at a time."""
    samples: dict[str, list[Sample]] = {name: [] for name in steps}
    for i in range(warmup + runs):
        for name, step in steps.items():
            sample = timed(step)
            if i >= warmup:
                samples[name].append(sample)
    return samples


def summary(samples: Sequence[Sample]) -> Timing:
    """Median, 10 and 90 % of the first column, median of the second."""
    first, last = sorted(s[0] for s in samples), len(samples) - 1
    return Timing(statistics.median(first), first[round(0.1 * last)], first[round(0.9 * last)],
                  statistics.median(s[1] for s in samples))  # fmt: skip


def halves(samples: Sequence[Any]) -> list[Sequence[Any]]:
    """Every version twice: the odd and the even steps of one interleaved run."""
    return [samples[0::2], samples[1::2]] if len(samples) > 1 else [samples]


def ratio_of(over: Sequence[Sample], under: Sequence[Sample]) -> float:
    """Median over pairs of neighbouring steps of over / under."""
    return statistics.median(a[0] / b[0] for a, b in zip(over, under, strict=True))


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


def peak_mib() -> float:
    """Peak memory so far: allocated on the GPU, else resident in this process."""
    if on_gpu():
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    return max_rss_mib()


def in_child(
    target: str, launcher: Sequence[str] = (), timeout: float = 3600, **arguments: Any
) -> Any:
    """What `module:function(**arguments)` returns in a fresh process (on rank 0, if launched).

    glibc raises its mmap threshold as big blocks are freed; then they come from a heap that
    fragments, and the mark of memory says more about the order of frees than about what was alive.
    A fixed threshold, the same for every variant, returns them.
    """
    ours = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    env = {k: v for k, v in os.environ.items() if k not in ours}
    env |= {"MALLOC_MMAP_THRESHOLD_": str(2**20),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{env.get('PYTHONPATH', '')}"}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        command = [*(launcher or [sys.executable]), str(ROOT / "benchmarks" / "child.py"),
                   target, json.dumps(arguments), str(out)]  # fmt: skip
        done = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=timeout
        )
        if done.returncode != 0 or not out.exists():
            raise RuntimeError(f"{target} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        return json.loads(out.read_text())


def call(target: str, **arguments: Any) -> Any:
    """The same, in this process."""
    module, function = target.split(":")
    return getattr(importlib.import_module(module), function)(**arguments)


def commit_id() -> str:
    """Short commit of the checkout, with '+' when files other than results differ from it."""

    def git(*args: str) -> str:
        done = subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("diff", "HEAD", "--", ".", ":!benchmarks/results.csv", ":!benchmarks/plots")
    return (git("rev-parse", "--short", "HEAD") or "none") + ("+" if changed else "")


def machine() -> str:
    """The GPU's name, else processor name and core count."""
    if on_gpu():
        import torch

        return torch.cuda.get_device_name()
    name, cores = platform.processor() or platform.machine(), 0
    info = Path("/proc/cpuinfo")
    if info.exists():
        fields = [line.split(":", 1) for line in info.read_text().splitlines() if ":" in line]
        names = [value.strip() for key, value in fields if key.strip() == "model name"]
        name, cores = (names or [name])[0], len(names)
    return f"{name} x{cores}"
