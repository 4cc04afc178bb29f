"""Parts of gpu_check.py that are whole runs by the command line: stages, resume, offload."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from benchmarks import data, flops, models
from benchmarks.flops import Shape
from benchmarks.gpu_parts import ROOT, SMALL_QWEN3, Gradients, Rows, Run, apart


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
