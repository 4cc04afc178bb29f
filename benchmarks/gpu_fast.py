"""Parts of gpu_check.py that are timed: throughput, MIPIC over MRL, options, peers."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks import data, flops, gpu, harness, models
from benchmarks.flops import Shape
from benchmarks.gpu_parts import ROOT, Rows, Run, device


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


def _built(
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


def _qwen3(run: Run, mode: str) -> Rows:
    """Qwen3-0.6B, packed drawn lengths, at least 32k tokens a step: MRL and MIPIC in turn, their
    kernels, the plan."""
    device()
    path, shape = big(run, "qwen3-0.6b")
    versions: dict[str, Timed] = {}
    yield from _built(run, path, shape, mode, {"mrl": [], "mipic": []}, versions)
    found = {}
    for name, row in measure(run, versions):
        found[name.split()[2]] = row
        yield name, row
    ratio = found["mipic"]["ms"] / found["mrl"]["ms"]
    mfu = found["mrl"].get("mfu", 0.0)
    limits = {} if run.dry else {"ok": mfu >= 0.45 and ratio <= 1.03,
                                 "target": "MFU >= 0.45, MIPIC / MRL <= 1.03"}  # fmt: skip
    yield f"{shape.name} {mode} targets", {"mfu": mfu, "mipic_over_mrl": ratio, **limits}
    for name in versions:
        yield f"{name} profile", kernels(run, name, versions[name])
    yield f"{shape.name} {mode} plan", plan(run, path, mode, 6 if run.dry else 640, versions)


def plan(run: Run, path: Path, mode: str, B: int, versions: dict[str, Timed]) -> dict[str, Any]:
    """The plan's memory for this run (a workspace of 1 GiB left out)."""
    version = versions[list(versions)[-1]]
    tokens = statistics.mean(version.lengths)
    lora = "16" if mode == "lora" else "0"
    done = subprocess.run(
        [sys.executable, "-m", "mipic_llm", "plan", "--model.name", str(path), "--json", "true",
         "--ranks", "1", "--ds_config", "zero1", "--mean_tokens", f"{tokens:.2f}",
         "--train.batch_size", str(B), "--lora.rank", lora, "--train.precision", "bf16",
         "--data.max_length", "512"],
        cwd=ROOT, capture_output=True, text=True, check=False)  # fmt: skip
    if done.returncode:
        return {"ok": False, "note": done.stderr[-800:]}
    return {"note": json.dumps(json.loads(done.stdout)["rows"])[:1500]}


def qwen3_lora(run: Run) -> Rows:
    yield from _qwen3(run, "lora")


def qwen3_full(run: Run) -> Rows:
    yield from _qwen3(run, "full")


def shapes(run: Run) -> Rows:
    """MIPIC over MRL at 256 texts of 64 tokens and 64 of 512, LoRA."""
    device()
    path, shape = big(run, "qwen3-0.6b")
    for B, T, limit in ((128, 64, 1.03), (32, 512, 1.06)):
        B, T = (4, 12) if run.dry else (B, T)
        versions = {f"{2 * B}x{T} {terms}": timed(path, shape, B, T, ["--objective.name", terms],
                                                 "lora") for terms in ("mrl", "mipic")}  # fmt: skip
        for name, row in measure(run, versions):
            more = {} if run.dry or "mrl" in name else {"ok": row["over_first"] <= limit,
                                                        "target": f"<= {limit}"}  # fmt: skip
            yield name, row | more
        del versions


def faster(run: Run) -> Rows:
    """Other ways to run Qwen3's layers, beside the default in turn."""
    device()
    path, shape = big(run, "qwen3-0.6b")
    options = {
        "mrl": [],
        "mrl checkpointing": ["--train.gradient_checkpointing", "true"],
        "mrl plain": ["--model.fused", "false", "--model.liger", "false"],
        "mrl liger": ["--model.liger", "true"],
        "mrl compiled": ["--train.compile", "true"],
    }
    for mode in ("lora", "full"):
        versions: dict[str, Timed] = {}
        chosen = dict(list(options.items())[: 2 if run.dry else None])
        yield from _built(run, path, shape, mode, chosen, versions)
        yield from measure(run, versions, runs=8, warmup=2)
        del versions


def bge(run: Run) -> Rows:
    """BGE-M3's shape, LoRA and full."""
    device()
    path, shape = big(run, "xlmr-" if run.dry else "bge-m3")
    B = 6 if run.dry else 640
    for mode in ("lora", "full"):
        versions = {
            f"bge-m3 {mode} {terms}": timed(path, shape, B, 0, ["--objective.name", terms], mode)
            for terms in ("mrl", "mipic")
        }
        yield from measure(run, versions, runs=8, warmup=3)
        del versions


def peers(run: Run) -> Rows:
    """sentence-transformers' own trainer, plain and cached, on the same rows; bf16 by autocast."""
    device()
    from benchmarks import peers as suite

    shape = flops.TINY_XLMR if run.dry else flops.BGE_M3
    path = models.write_model(shape, run.folder / shape.name)
    own = ["--objective.name", "mrl", "--model.pooling", "mean"]
    cases = [suite.Case("peers B=256", 256, 0, None, 3, 10, {"ours mrl": own}),
             suite.Case("peers cached B=1024 chunk 64", 1024, 64, None, 1, 4,
                        {"ours mrl": [*own, "--train.chunk_size", "64"]})]  # fmt: skip
    if run.dry:
        cases = [suite.Case("peers B=8", 8, 0, None, 0, 2, {"ours mrl": own})]
    for case in cases:
        given = data.word_triplets(case.B * 4, shape.vocab), "lengths.csv"
        for row in suite.bench(case, harness.Options(), str(path), precision=run.half, suite="gpu",
                               model=shape.name, given=given):  # fmt: skip
            yield (
                f"{row['case']} {row['variant']}",
                {k: v for k, v in row.items() if k not in ("suite", "case", "variant", "model")},
            )
