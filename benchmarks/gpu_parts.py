"""The parts of gpu_check.py: generators of (case, fields of a row); `ok` is the verdict, if any.

Truth is float32 on the CPU (objectives) or float32 with padded SDPA on the same GPU (attention).
Differences are |a - b| / |b| over all gradients together. bf16 has 8 bits of mantissa, so a sum of
such roundings through a few layers differs by some 1e-2.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks import data, flops, harness, models
from benchmarks.flops import Shape

ROOT = Path(__file__).resolve().parent.parent
ZERO1 = str(ROOT / "ds_configs" / "zero1.json")
Rows = Iterator[tuple[str, dict[str, Any]]]
Gradients = dict[str, Tensor]

SMALL_QWEN3 = Shape("small-qwen3", "qwen3", 4, 256, 4, 2, 128, 512, 2000)
SMALL_XLMR = Shape("small-xlmr", "xlm-roberta", 4, 256, 4, 4, 64, 512, 2000)
SMALL_BERT = Shape("small-bert", "bert", 4, 256, 8, 8, 32, 512, 2000)

OBJECTIVES = {
    "simcse": ["--objective.name", "simcse"],
    "mrl": ["--objective.name", "mrl"],
    "ese": ["--objective.name", "ese"],
    "2dmse": ["--objective.name", "2dmse"],
    "mipic": ["--objective.name", "mipic"],
    "mipic paper": ["--objective.name", "mipic", "--objective.preset", "paper"],
    "mrl gor": ["--objective.name", "mrl", "--objective.gor", "0.1"],
}


class Run(NamedTuple):
    """dry: tiny shapes. folder: for this part's files. out: where results go."""

    dry: bool
    folder: Path
    out: Path

    @property
    def half(self) -> str:
        """bf16 where there is a GPU: a CPU's bf16 says nothing of one."""
        return "bf16" if torch.cuda.is_available() else "fp32"


def device() -> torch.device:
    from mipic_llm.runtime.engine import start

    torch.backends.cuda.matmul.allow_tf32 = False
    return start()


def flags(more: Sequence[str], precision: str, B: int) -> list[str]:
    base = models.flags(terms="mrl", precision=precision, B=B)[2:]
    return [*base, "--model.append_eos", "none", "--model.dropout", "0", *more]


def built(path: Path, more: Sequence[str], precision: str, B: int) -> models.Stepper:
    """A runner on this model with a batch of drawn lengths, its memory full."""
    made = models.trainee(str(path), flags(more, precision, B), ZERO1)
    tokenizer = made.source.tokenizer
    vocab = made.source.config.vocab_size
    batch = data.step_batch(data.draw(B), vocab, side=tokenizer.padding_side,
                            pad=tokenizer.pad_token_id)  # fmt: skip
    torch.manual_seed(7)
    return models.Stepper(made, [batch])


def one_step(stepper: models.Stepper, cached: bool = False) -> tuple[dict[str, float], Gradients]:
    """Loss parts and every gradient, nothing updated."""
    from mipic_llm.training.step import metrics

    runner = stepper.made.runner
    parts, *_ = runner.gradients(runner.prepare(stepper.batches[0]), 0, cached=cached)
    row = metrics(parts, {})
    found = {name: grad.cpu() for name, grad in runner.engine.gradients()}
    runner.engine.forget_gradients()
    return row, found


def apart(got: Gradients, want: Gradients) -> float:
    """|got - want| / |want| over all of them."""
    assert got.keys() == want.keys(), "not the same parameters"
    over = sum((got[n].double() - want[n].double()).square().sum() for n in want)
    return float((over / sum(w.double().square().sum() for w in want.values())).sqrt())


def worst(got: Gradients, want: Gradients) -> str:
    """The parameter that differs most, against its own norm or a hundredth of the whole one's."""
    floor = 1e-2 * float(sum(w.double().square().sum() for w in want.values())) ** 0.5
    gaps = {n: float((got[n].double() - w.double()).norm()) / max(float(w.double().norm()), floor)
            for n, w in want.items()}  # fmt: skip
    name = max(gaps, key=lambda n: gaps[n])
    return f"{name} {gaps[name]:.1e}"


# --------------------------------------------------------------------------------- is it right?


def reference(path: str, cases: dict[str, list[str]], B: int, out: str) -> None:
    """Parts and gradients of these cases in float32; called in a process that sees no GPU."""
    device()
    torch.save({n: one_step(built(Path(path), more, "fp32", B)) for n, more in cases.items()}, out)


def without_gpu(target: str, **arguments: Any) -> None:
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    try:
        harness.in_child(target, **arguments)
    finally:
        del os.environ["DS_ACCELERATOR"]
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


def objectives(run: Run) -> Rows:
    """Every objective's loss and gradients on this device against float32 on the CPU."""
    B = 6 if run.dry else 48
    shapes = [flops.TINY_QWEN3] if run.dry else [SMALL_QWEN3, SMALL_XLMR]
    for shape in shapes:
        path = models.write_model(shape, run.folder / shape.name, "bf16")
        truth = run.folder / f"{shape.name}.pt"
        without_gpu("benchmarks.gpu_parts:reference", path=str(path), cases=OBJECTIVES, B=B,
                    out=str(truth))  # fmt: skip
        wanted = torch.load(truth)
        device()
        for name, more in OBJECTIVES.items():
            for precision, limit in {"fp32": 1e-3, run.half: 6e-2}.items():
                parts, got = one_step(built(path, more, precision, B))
                parts0, want = wanted[name]
                loss, gap = abs(parts["loss"] / parts0["loss"] - 1), apart(got, want)
                yield (f"{shape.name} {name} {precision}", {
                    "ok": loss < limit and gap < limit, "loss": loss, "gradient": gap,
                    "limit": limit, "worst": worst(got, want),
                })  # fmt: skip


def attention(run: Run) -> Rows:
    """Packed kernels against padded SDPA: both in bf16, their distance from float32."""
    from importlib.util import find_spec

    device()
    kernels = ["varlen", *(["flash_attention_2"] if find_spec("flash_attn") else [])]
    shapes = [flops.TINY_BERT] if run.dry else [SMALL_BERT, SMALL_XLMR, SMALL_QWEN3]
    for shape in shapes:
        path = models.write_model(shape, run.folder / shape.name, "bf16")
        for checkpointing in ("false", "true"):
            more = ["--objective.name", "mipic", "--train.gradient_checkpointing", checkpointing]
            B = 6 if run.dry else 64

            def found(kernel: str, precision: str, path=path, more=more, B=B) -> Gradients:
                return one_step(built(path, [*more, "--model.attn", kernel], precision, B))[1]

            truth = found("sdpa", "fp32")
            base = apart(found("sdpa", run.half), truth)
            for kernel in kernels:
                gap = apart(found(kernel, run.half), truth)
                yield (f"{shape.name} {kernel}, checkpointing {checkpointing}", {
                    "ok": gap < 1.5 * base + 1e-3, "gradient": gap, "padded_sdpa": base,
                })  # fmt: skip


def chunks(run: Run) -> Rows:
    """GradCache against a plain step: gradients, with dropout too, and peak memory."""
    here = device()
    shape = flops.TINY_XLMR if run.dry else SMALL_XLMR
    path = models.write_model(shape, run.folder / shape.name, "bf16")
    B, size = (6, 5) if run.dry else (256, 64)
    cases = [("fp32", "sdpa", "0", 1e-4), (run.half, "sdpa", "0.1", 5e-2),
             (run.half, "varlen", "0", 5e-2)]  # fmt: skip
    for precision, kernel, dropout, limit in cases:
        stepper = built(path, ["--objective.name", "mipic", "--model.attn", kernel,
                               "--model.dropout", dropout, "--train.chunk_size", str(size)],
                        precision, B)  # fmt: skip
        found, peaks = [], []
        for cached in (False, True):
            torch.manual_seed(3)
            if here.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            found.append(one_step(stepper, cached))
            peaks.append(harness.peak_mib())
        (parts, want), (again, got) = found
        gap = apart(got, want)
        yield (f"{shape.name} {kernel} {precision} dropout {dropout}", {
            "ok": gap < limit, "gradient": gap, "loss": abs(again["loss"] / parts["loss"] - 1),
            "limit": limit, "peak_mib_plain": peaks[0], "peak_mib_chunks": peaks[1],
        })  # fmt: skip


def syncs(run: Run) -> Rows:
    """Does a step wait for the device between forward and update? Errors name the place."""
    here = device()
    shape = flops.TINY_QWEN3 if run.dry else SMALL_QWEN3
    path = models.write_model(shape, run.folder / shape.name, "bf16")
    B = 6 if run.dry else 48
    cases = {f"{name}{' chunks' if size else ''}": [*more, "--train.chunk_size", str(size)]
             for name, more in OBJECTIVES.items() for size in (0, 40)
             if name in ("mipic", "mrl") or not size}  # fmt: skip
    for name, more in cases.items():
        stepper = built(path, more, run.half, B)
        runner = stepper.made.runner
        made = runner.prepare(stepper.batches[0])
        for step in range(2):
            runner.run(made, step, False)
        if here.type != "cuda":
            yield name, {"ok": True, "note": "no device to wait for"}
            continue
        places: dict[str, list[str]] = {}
        for what, call in {
            "gradients": lambda r=runner, m=made: r.gradients(m, 2, cached=r.cached),
            "update": lambda r=runner: r.engine.step(),
        }.items():
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("warn")
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                call()
            torch.cuda.set_sync_debug_mode("default")
            waits = [w for w in caught if "synchroniz" in str(w.message)]
            places[what] = sorted(
                {f"{'/'.join(w.filename.split('/')[-2:])}:{w.lineno}" for w in waits}
            )
            places[f"{what}_count"] = len(waits)  # type: ignore[assignment]
        yield name, {"ok": not places["gradients"], **places}


def train_command(folder: Path, *more: str, launcher: Sequence[str] = ()) -> list[str]:
    return [*(launcher or [sys.executable]), str(ROOT / "launch" / "train.py"),
            "--output_dir", str(folder), "--tracking.mlflow", "off", *more]  # fmt: skip


def call(command: Sequence[str], timeout: float = 180) -> tuple[int, str]:
    """-> (exit code, the end of what it printed)."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout,
                          check=False)  # fmt: skip
    return done.returncode, (done.stdout + done.stderr)[-1500:]


def losses_of(folder: Path) -> list[float]:
    path = folder / "metrics.jsonl"
    rows = [json.loads(r) for r in path.read_text().splitlines()] if path.exists() else []
    return [r["loss"] for r in rows if "loss" in r]


def adapter_of(folder: Path) -> Gradients:
    from safetensors.torch import load_file

    (path,) = [
        *folder.glob("adapter/adapter_model.safetensors"),
        *folder.glob("model/*.safetensors"),
    ]
    return load_file(path)


def words(run: Run, shape: Shape, rows: int) -> Path:
    """Triplets that a random model's tokenizer knows."""
    path = run.folder / "words.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for r in data.word_triplets(rows, shape.vocab):
            record = {"anchor": r.anchor, "positive": r.positive, "negative": r.negatives[0]}
            file.write(json.dumps(record) + "\n")
    return path


def small_run(run: Run) -> list[str]:
    """Flags of a run: the quickstart; in a dry run a tiny model on tiny text."""
    if not run.dry:
        return []
    shape = flops.TINY_QWEN3
    path = models.write_model(shape, run.folder / shape.name)
    return ["--model.name", str(path), "--data.train", str(words(run, shape, 400)),
            "--data.validation", "none", "--train.batch_size", "16",
            "--data.max_length", "64"]  # fmt: skip


def stages(run: Run) -> Rows:
    """Whole runs by the command line: ZeRO-1, 2, 3 with full weights, LoRA and QLoRA, to a verified
    export; the losses of a mode must not depend on the stage. One starts with deepspeed's launcher.
    """
    steps = "2" if run.dry else "20"
    shape = flops.TINY_QWEN3 if run.dry else SMALL_QWEN3
    path = models.write_model(shape, run.folder / shape.name)
    rows = words(run, shape, 400)
    common = ["--train.max_steps", steps, "--train.precision", run.half, "--train.log_every", "1"]
    qwen3 = ["--model.name", str(path), "--data.train", str(rows), "--data.validation", "none",
             "--train.batch_size", "16", "--data.max_length", "64"]  # fmt: skip
    modes = {"full": ["--lora.rank", "0"], "lora": [],
             "qlora": ["--model.quantization", "nf4"]}  # fmt: skip
    launcher = [sys.executable, "-m", "deepspeed.launcher.runner", "--num_gpus", "1"]
    jobs = {}
    for what, more in {"quickstart": [], "qwen3": qwen3}.items():
        for mode, these in modes.items():
            for stage in ("1", "3") if run.dry or what == "qwen3" else ("1", "2", "3"):
                if run.dry and (mode == "full" or what == "quickstart"):
                    continue
                own = launcher if (what, mode, stage) == ("quickstart", "lora", "3") else []
                ds = f"zero{stage}{'_qlora' if mode == 'qlora' and stage == '3' else ''}"
                folder = run.folder / f"{what}-{mode}-{stage}"
                jobs[what, mode, stage] = (
                    folder,
                    train_command(folder, *common, *more, *these, "--ds_config", ds, launcher=own),
                )
    with ThreadPoolExecutor(1 if run.dry else 5) as pool:
        ends = dict(zip(jobs, pool.map(lambda job: call(job[1]), jobs.values()), strict=True))
    for (what, mode, stage), (folder, _) in jobs.items():
        code, text = ends[what, mode, stage]
        got, first = losses_of(folder), losses_of(jobs[what, mode, "1"][0])
        gap = max((abs(a / b - 1) for a, b in zip(got, first, strict=False)), default=float("nan"))
        parity = folder / "parity.json"
        ok = code == 0 and len(got) == int(steps) and gap < 2e-2 and parity.exists()
        yield (f"{what} {mode} ZeRO-{stage}", {
            "ok": ok, "exit": code, "steps": len(got), "against_zero1": gap,
            "first_loss": got[0] if got else None, "last_loss": got[-1] if got else None,
            **({} if ok else {"note": text}),
        })  # fmt: skip


def resume(run: Run) -> Rows:
    """kill -9 in the middle, then SIGTERM, resume each: the adapter of an undisturbed run?"""
    steps = 8 if run.dry else 40
    more = ["--train.max_steps", str(steps), "--train.save_every", "2", "--train.log_every", "1",
            "--train.precision", run.half, "--ds_config", "zero2", *small_run(run)]  # fmt: skip
    whole = run.folder / "whole"
    code, text = call(train_command(whole, *more))
    if code:
        yield "undisturbed", {"ok": False, "note": text}
        return
    for number in (signal.SIGKILL, signal.SIGTERM):
        folder = run.folder / number.name
        child = subprocess.Popen(train_command(folder, *more), cwd=ROOT, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, text=True)  # fmt: skip
        while child.poll() is None and len(losses_of(folder)) < 5:
            time.sleep(0.02)
        child.send_signal(number)
        child.communicate()
        seen = len(losses_of(folder))
        code, text = call(train_command(folder, *more, "--train.resume", "auto"))
        if code:
            yield number.name, {"ok": False, "note": text}
            continue
        a, b = adapter_of(whole), adapter_of(folder)
        equal = all(torch.equal(a[n], b[n]) for n in a)
        gap = apart(b, a)
        yield (f"{number.name} at step {seen}", {
            "ok": equal or gap < 1e-3, "stopped_with": child.returncode, "equal": equal,
            "adapter": gap, "loss": losses_of(folder)[-1] / losses_of(whole)[-1] - 1,
        })  # fmt: skip


def offload(run: Run) -> Rows:
    """zero3_offload, chunks with the self-check, checkpointing, evaluate on the result."""
    common = ["--train.max_steps", "2" if run.dry else "10", "--train.precision", run.half,
              *small_run(run)]  # fmt: skip
    cases = {
        "zero3_offload full": ["--ds_config", "zero3_offload", "--lora.rank", "0"],
        "zero3 chunks lora": ["--ds_config", "zero3", "--train.chunk_size", "16"],
        "zero2 chunk_tokens checkpointing": [
            "--ds_config", "zero2", "--train.chunk_tokens", "600",
            "--train.gradient_checkpointing", "true", "--lora.rank", "0",
        ],
        "sdpa padded": ["--ds_config", "zero1", "--model.attn", "sdpa"],
    }  # fmt: skip
    for name, more in list(cases.items())[: 2 if run.dry else None]:
        folder = run.folder / name.replace(" ", "-")
        code, text = call(train_command(folder, *common, *more))
        yield name, {"ok": code == 0, "exit": code, **({"note": text} if code else {})}
    for name in list(cases)[:1]:
        made = next((run.folder / name.replace(" ", "-")).glob("*/config.json")).parent
        code, text = call([sys.executable, str(ROOT / "launch" / "evaluate.py"), "--model",
                           str(made), "--data", "demo", "--output_dir",
                           str(run.folder / "eval")])  # fmt: skip
    yield "evaluate", {"ok": code == 0, "exit": code, **({"note": text} if code else {})}


def fused(run: Run) -> Rows:
    """liger and torch.compile, full and LoRA: as far from float32 as without them."""
    device()
    shape = flops.TINY_QWEN3 if run.dry else SMALL_QWEN3
    path = models.write_model(shape, run.folder / shape.name, "bf16")
    B = 6 if run.dry else 48
    options = {"liger": ["--model.liger", "true"], "compile": ["--train.compile", "true"]}
    for mode in (["--lora.rank", "0"], ["--lora.rank", "16"]):
        more = ["--objective.name", "mipic", *mode]
        _, truth = one_step(built(path, [*more, "--model.attn", "sdpa"], "fp32", B))
        base = apart(one_step(built(path, more, run.half, B))[1], truth)
        yield " ".join(["plain", *mode]), {"ok": base < 6e-2, "gradient": base}
        for name, own in [] if run.dry else options.items():
            gap = apart(one_step(built(path, [*more, *own], run.half, B))[1], truth)
            yield " ".join([name, *mode]), {"ok": gap < 1.5 * base + 1e-3, "gradient": gap,
                                            "without": base}  # fmt: skip


def losses(run: Run) -> Rows:
    """InfoNCE over more candidates than a tile holds, SIA at Qwen3's width, against float64."""
    from benchmarks import sia
    from mipic_llm.losses.infonce import mrl_per_dim

    here = device()
    B, N, D, dims = (8, 40, 32, (4, 32)) if run.dry else (512, 40_000, 1024, (16, 256, 1024))
    torch.manual_seed(0)
    target_B = torch.randint(0, N, (B,), device=here)
    q_BD, c_ND = torch.randn(B, D, device=here), torch.randn(N, D, device=here)

    def naive(q_BD: Tensor, c_ND: Tensor) -> Tensor:
        cosines = [torch.nn.functional.normalize(q_BD[:, :d], dim=1)
                   @ torch.nn.functional.normalize(c_ND[:, :d], dim=1).T for d in dims]  # fmt: skip
        return torch.stack([torch.nn.functional.cross_entropy(z / 0.05, target_B) for z in cosines])

    def ours(q_BD: Tensor, c_ND: Tensor) -> Tensor:
        return mrl_per_dim(q_BD, c_ND, target_B=target_B, dims=dims, tau=0.05)

    def gradients(loss: Any, dtype: torch.dtype) -> tuple[Tensor, Gradients]:
        leaves = [x.to(dtype).requires_grad_() for x in (q_BD, c_ND)]
        value = loss(*leaves)
        value.sum().backward()
        return value.detach().double(), {n: x.grad for n, x in zip("qc", leaves, strict=True)}

    (want, slope), (got, mine) = gradients(naive, torch.float64), gradients(ours, torch.float32)
    gap = float(((got - want) / want).abs().max())
    yield f"InfoNCE {B} x {N}", {"ok": gap < 1e-4 and apart(mine, slope) < 1e-4, "loss": gap,
                                 "gradient": apart(mine, slope)}  # fmt: skip
    for row in sia.run(harness.Options(quick=run.dry, runs=4)):
        yield (
            f"sia {row['case']} {row['variant']}",
            {k: row[k] for k in ("median_ms", "ratio", "peak_mib") if k in row},
        )


# ----------------------------------------------------------------------------------- is it fast?


class Timed(NamedTuple):
    """One version: its stepper and what a step must compute."""

    stepper: models.Stepper
    lengths: list[int]
    work: float
    resident: float


def timed(path: Path, shape: Shape, B: int, T: int, more: Sequence[str], mode: str) -> Timed:
    """B drawn triplets (T = 0), or B pairs of T tokens."""
    lora = 16 if mode == "lora" else 0
    arguments = ["--lora.rank", str(lora), *more]
    lengths = data.full(B, T) if T else data.draw(B)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
    half = "bf16" if torch.cuda.is_available() else "fp32"
    made = models.trainee(str(path), flags(arguments, half, B), ZERO1)
    tokenizer = made.source.tokenizer
    batch = data.step_batch(lengths, shape.vocab, side=tokenizer.padding_side,
                            pad=tokenizer.pad_token_id)  # fmt: skip
    stepper = models.Stepper(made, [made.runner.prepare(batch)])
    real = [n for column in lengths for n in column]
    again = "--train.gradient_checkpointing" in arguments
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
    """A profile of a few steps: the top of its table into profile.txt; launches and idle share."""
    from torch.profiler import ProfilerActivity, profile

    cuda = torch.cuda.is_available()
    runner, batch = version.stepper.made.runner, version.stepper.batches[0]
    kinds = [ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]
    began = time.perf_counter()
    with profile(activities=kinds) as found:
        for step in range(steps):
            runner.run(batch, step, False)
        if cuda:
            torch.cuda.synchronize()
    wall = 1e6 * (time.perf_counter() - began)
    sort = "self_cuda_time_total" if cuda else "self_cpu_time_total"
    table = found.key_averages().table(sort_by=sort, row_limit=25, max_name_column_width=90)
    events = [e for e in found.events() if "cuda" in str(e.device_type).lower()]
    spans = sorted((e.time_range.start, e.time_range.end) for e in events)
    busy, end, begin = 0.0, float("-inf"), spans[0][0] if spans else 0.0
    for a, b in spans:
        busy += max(0.0, b - max(a, end))
        end = max(end, b)
    span = end - begin if spans else wall
    with (run.out / "profile.txt").open("a", encoding="utf-8") as file:
        file.write(f"==== {name}, {steps} steps\n{table}\n")
    return {"kernels_per_step": len(spans) / steps, "busy_share": busy / span if spans else None,
            "device_ms_per_step": span / steps / 1e3}  # fmt: skip


def big(run: Run, name: str) -> tuple[Path, Shape]:
    """The model directory of a shape; kept between parts of one check."""
    shape = flops.SHAPES[f"tiny-{name.split('-')[0]}" if run.dry else name]
    import tempfile

    folder = Path(tempfile.gettempdir()) / f"gpu_check-{shape.name}"
    return models.write_model(shape, folder, "bf16"), shape


COMPILE, LIGER = ["--train.compile", "true"], ["--model.liger", "true"]


def _qwen3(run: Run, mode: str, options: dict[str, list[str]]) -> Rows:
    """Qwen3-0.6B, packed drawn lengths, at least 32k tokens a step: all versions in turn."""
    device()
    path, shape = big(run, "qwen3-0.6b")
    B, versions = 6 if run.dry else 640, {}
    if run.dry:
        options = {n: [] for n in options if " " not in n}
    for name, more in options.items():
        began = time.perf_counter()
        try:
            made = timed(path, shape, B, 0, ["--objective.name", name.split()[0], *more], mode)
            for step in range(2):
                made.stepper.made.runner.run(made.stepper.batches[0], step)
            versions[f"qwen3-0.6b {mode} {name}"] = made
            print(name, "ready after", time.perf_counter() - began, flush=True)
        except Exception as error:
            yield name, {"ok": False, "note": f"{type(error).__name__}: {error}"[:1500]}
    found = {}
    for name, row in measure(run, versions, runs=6, warmup=2):
        found[name] = row
        yield name, row
    best = {}
    for terms in ("mrl", "mipic"):
        times = [r["ms"] for n, r in found.items() if f" {terms}" in n]
        best[terms] = min(times, default=float("nan"))
    mfu = max((r.get("mfu", 0.0) for n, r in found.items()), default=0.0)
    limits = {} if run.dry else {"ok": mfu >= 0.45 and best["mipic"] <= 1.03 * best["mrl"],
                                 "target": "MFU >= 0.45, MIPIC / MRL <= 1.03"}  # fmt: skip
    yield f"qwen3-0.6b {mode} best", {"mfu": mfu, "mipic_over_mrl": best["mipic"] / best["mrl"],
                                      **limits}  # fmt: skip
    for name in list(versions)[-2:]:
        yield f"{name} profile", kernels(run, name, versions[name])
    yield f"qwen3-0.6b {mode} plan", plan(run, path, mode, B, versions)


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
    yield from _qwen3(run, "lora", {"mrl": [], "mipic": [], "mrl liger": LIGER,
                                    "mrl compiled": COMPILE,
                                    "mipic compiled": COMPILE})  # fmt: skip


def qwen3_full(run: Run) -> Rows:
    yield from _qwen3(run, "full", {"mrl": [], "mrl compiled": COMPILE,
                                    "mipic compiled": COMPILE})  # fmt: skip


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
    """Options that should pay, beside the default in turn."""
    device()
    path, shape = big(run, "qwen3-0.6b")
    B = 6 if run.dry else 640
    liger, compiled = ["--model.liger", "true"], ["--train.compile", "true"]
    again = ["--train.gradient_checkpointing", "true"]
    options = {"lora": [], "lora liger": liger, "full": [], "full liger": liger,
               "lora compile": compiled, "lora checkpointing": again}  # fmt: skip
    if run.dry:
        options = {"lora": [], "lora checkpointing": again}
    versions = {}
    for name, own in options.items():
        try:
            made = timed(path, shape, B, 0, ["--objective.name", "mrl", *own], name.split()[0])
            made.stepper.made.runner.run(made.stepper.batches[0], 0)
            versions[f"qwen3-0.6b {name}"] = made
        except Exception as error:
            yield name, {"ok": False, "note": f"{type(error).__name__}: {error}"[:1500]}
    yield from measure(run, versions, runs=8, warmup=3)


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
