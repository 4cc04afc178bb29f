"""Parts of gpu_check.py that are timed: throughput, MIPIC over MRL, options, peers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import data, flops, harness, models
from benchmarks.gpu_parts import Rows, Run, device
from benchmarks.gpu_timing import Timed, big, built, kernels, measure, timed


def machine(run: Run) -> Rows:
    """The host, on which small steps depend: its processor, a loop in Python, a launch."""
    here = device()
    name = [line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")]  # fmt: skip
    small = torch.ones(8, device=here)

    def seconds(work: Callable[[], object]) -> float:
        work()
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    n = 100 if run.dry else 5000
    loop = seconds(lambda: sum(i & 1 for i in range(100 * n)))
    launch = seconds(lambda: [small.add_(1.0) for _ in range(n)])
    yield "host", {"note": name[0] if name else "", "python_ns": 1e9 * loop / (100 * n),
                   "launch_us": 1e6 * launch / n}  # fmt: skip


def _qwen3(run: Run, mode: str) -> Rows:
    """Qwen3-0.6B, packed drawn lengths, at least 32k tokens a step: MRL and MIPIC in turn, and
    their kernels."""
    here = device()
    path, shape = big(run, "qwen3-0.6b")
    versions: dict[str, Timed] = {}
    yield from built(run, path, shape, mode, {"mrl": [], "mipic": []}, versions)
    found = {}
    for name, row in measure(run, versions):
        found[name.split()[2]] = row
        yield name, row
    module = versions[f"{shape.name} {mode} mipic"].stepper.made.runner.engine.module
    terms = [term.about(here, torch.bfloat16) for term in module.objective.terms]
    yield f"{shape.name} {mode} how", {"layers": module.backbone.about_layers,
                                       "note": "; ".join(filter(None, terms))}  # fmt: skip
    ratio = found["mipic"]["ms"] / found["mrl"]["ms"]
    mfu = found["mrl"].get("mfu", 0.0)
    limits = {} if run.dry else {"ok": mfu >= 0.45 and ratio <= 1.03,
                                 "target": "MFU >= 0.45, MIPIC / MRL <= 1.03"}  # fmt: skip
    yield f"{shape.name} {mode} targets", {"mfu": mfu, "mipic_over_mrl": ratio, **limits}
    for name in versions:
        yield f"{name} profile", kernels(run, name, versions[name])


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
        yield from built(run, path, shape, mode, chosen, versions)
        yield from measure(run, versions, runs=8, warmup=2)
        del versions


def bge(run: Run) -> Rows:
    """BGE-M3's shape, LoRA and full."""
    device()
    path, shape = big(run, "xlmr-" if run.dry else "bge-m3")
    for mode in ("lora", "full"):
        options = {"mrl": [], "mipic": []}
        options |= {} if run.dry else {"mrl fused": ["--model.fused", "true"]}
        versions: dict[str, Timed] = {}
        yield from built(run, path, shape, mode, options, versions)
        yield from measure(run, versions, runs=6, warmup=2)
        for name in [f"{shape.name} {mode} {x}" for x in ("mrl", "mrl fused") if not run.dry]:
            module = versions[name].stepper.made.runner.engine.module
            yield f"{name} profile", {"layers": module.backbone.about_layers,
                                      **kernels(run, name, versions[name])}  # fmt: skip
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
