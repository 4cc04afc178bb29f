"""What the timed parts of gpu_check.py share: versions in turn, profiles, the host's clocks."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks import flops, gpu, harness, models
from benchmarks.flops import Shape
from benchmarks.gpu_parts import Rows, Run


class Timed(NamedTuple):
    """One version: its stepper and what a step must compute."""

    stepper: models.Stepper
    lengths: list[int]
    work: float
    resident: float


def timed(path: Path, shape: Shape, B: int, T: int, more: Sequence[str], mode: str) -> Timed:
    """B drawn triplets (T = 0), or B pairs of T tokens."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
    again = "--train.gradient_checkpointing" in more
    case = gpu.Case(shape.name, mode, "mrl", B, T, again)
    half = "bf16" if torch.cuda.is_available() else "fp32"
    stepper, real = gpu.stepper(case, "mrl", path, [*more, "--model.dropout", "0"], half)
    stepper.batches = [stepper.made.runner.prepare(stepper.batches[0])]
    stepper.made.runner.run(stepper.batches[0], 0)  # Adam's moments are there from now on
    lora = gpu.RANK if mode == "lora" else 0
    work = flops.step_flops(shape, real, checkpointing=again, lora_rank=lora)
    held = torch.cuda.memory_allocated() - before if torch.cuda.is_available() else 0
    return Timed(stepper, real, work, held)


def measure(run: Run, versions: dict[str, Timed], runs: int = 16, warmup: int = 4) -> Rows:
    """Times in turn; then each one's own peak memory."""
    cuda = torch.cuda.is_available()
    runs, warmup = (2, 1) if run.dry else (runs, warmup)
    # as in a run that logs every tenth step: rows of other steps are not wanted
    steps = {n: (lambda v=v: v.stepper.made.runner.run(v.stepper.batches[0], 1, False))
             for n, v in versions.items()}  # fmt: skip
    samples = harness.paired(steps, warmup, runs)
    peak = flops.peak_of(harness.machine()) if cuda else None
    first = next(iter(versions))
    for name, v in versions.items():
        t = harness.summary(samples[name])
        parts = v.stepper.made.runner.run(v.stepper.batches[0], 1)
        row: dict[str, Any] = {
            "tokens": sum(v.lengths), "ms": t.median, "p10_ms": t.p10, "p90_ms": t.p90,
            "wall_ms": t.wall, "tokens_per_s": 1e3 * sum(v.lengths) / t.median,
            "padding_share": parts["padded"] / (parts["padded"] + parts["useful"]),
            "over_first": harness.ratio_of(samples[name], samples[first]),
            "loss": parts["loss"],
        }  # fmt: skip
        if peak:
            row["mfu"] = v.work / (t.median / 1e3) / peak
        if cuda:
            torch.cuda.synchronize()
            others = torch.cuda.memory_allocated() - v.resident
            torch.cuda.reset_peak_memory_stats()
            steps[name]()
            torch.cuda.synchronize()
            row["peak_mib"] = (torch.cuda.max_memory_allocated() - others) / 2**20
        yield name, row


def kernels(run: Run, name: str, version: Timed, steps: int = 3) -> dict[str, Any]:
    """A profile of a few steps: the tops of its tables (kernels; the host's operations) into
    profile.txt; launches, idle share, and how long the host needs for each phase of a step."""
    from torch.profiler import ProfilerActivity, profile

    cuda = torch.cuda.is_available()
    runner, batch = version.stepper.made.runner, version.stepper.batches[0]
    clocks = host(runner, batch)  # first: what a profiler leaves behind slows launches
    kinds = [ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]
    began = time.perf_counter()
    with profile(activities=kinds) as found:
        for step in range(steps):
            runner.run(batch, step, False)
        if cuda:
            torch.cuda.synchronize()
    wall = 1e6 * (time.perf_counter() - began)
    sort = "self_cuda_time_total" if cuda else "self_cpu_time_total"
    tables = [found.key_averages().table(sort_by=sort, row_limit=40, max_name_column_width=90)]
    events = [e for e in found.events() if "cuda" in str(e.device_type).lower()]
    spans = sorted((e.time_range.start, e.time_range.end) for e in events)
    busy, end, begin = 0.0, float("-inf"), spans[0][0] if spans else 0.0
    for a, b in spans:
        busy += max(0.0, b - max(a, end))
        end = max(end, b)
    span = end - begin if spans else wall
    if cuda:
        with profile(activities=[ProfilerActivity.CPU]) as found:
            runner.run(batch, steps, False)
        table = found.key_averages().table(
            sort_by="self_cpu_time_total", row_limit=40, max_name_column_width=60
        )
        tables.append(table)
    with (run.out / "profile.txt").open("a", encoding="utf-8") as file:
        file.write("\n".join([f"==== {name}, {steps} steps", *tables, ""]))
    return {"kernels_per_step": len(spans) / steps, "busy_share": busy / span if spans else None,
            "device_ms_per_step": span / steps / 1e3, "kernel_ms_per_step": busy / steps / 1e3,
            **clocks}  # fmt: skip


def host(runner: Any, batch: Any, steps: int = 4) -> dict[str, float]:
    """Milliseconds of the host in the phases of a step, the device waited for before each."""
    spent: dict[str, list[float]] = {}

    def clocked(what: str, call: Any) -> Any:
        def timed_call(*args: Any, **named: Any) -> Any:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            began = time.perf_counter()
            result = call(*args, **named)
            spent.setdefault(what, []).append(1e3 * (time.perf_counter() - began))
            return result

        return timed_call

    parts = {"forward": (runner, "_forward"), "terms": (runner.objective, "across"),
             "backward": (runner.engine, "backward"),
             "update": (runner.engine, "step")}  # fmt: skip
    for what, (owner, method) in parts.items():
        setattr(owner, method, clocked(what, getattr(owner, method)))
    for step in range(steps):
        runner.run(batch, step, False)
    for owner, method in parts.values():
        delattr(owner, method)
    return {f"host_ms_{what}": statistics.median(times) for what, times in spent.items()}


def big(run: Run, name: str) -> tuple[Path, Shape]:
    """The model directory of a shape; kept between parts of one check."""
    shape = flops.SHAPES[f"tiny-{name.split('-')[0]}" if run.dry else name]
    folder = Path(tempfile.gettempdir()) / f"gpu_check-{shape.name}"
    return models.write_model(shape, folder, "bf16"), shape


def built(
    run: Run, path: Path, shape: Shape, mode: str, options: dict[str, list[str]],
    versions: dict[str, Timed],
) -> Rows:  # fmt: skip
    """Steppers of these versions, their kernels compiled, into `versions`; rows of what failed."""
    for name, more in options.items():
        began, B = time.perf_counter(), 6 if run.dry else 640
        try:
            made = timed(path, shape, B, 0, ["--objective.name", name.split()[0], *more], mode)
            for step in range(2):
                made.stepper.made.runner.run(made.stepper.batches[0], step)
            versions[f"{shape.name} {mode} {name}"] = made
            print(name, "ready after", time.perf_counter() - began, flush=True)
        except Exception as error:
            yield name, {"ok": False, "note": f"{type(error).__name__}: {error}"[:1500]}
