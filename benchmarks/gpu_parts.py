"""Parts of gpu_check.py within one process, and what all parts share.

A part is a generator of (case, fields of a row); `ok` is the verdict, if any.

Truth is float32 on the CPU (objectives) or float32 with padded SDPA on the same GPU (attention).
Differences are |a - b| / |b| over all gradients together. bf16 has 8 bits of mantissa, so a sum of
such roundings through a few layers differs by some 1e-2.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
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
    from mipic_llm.runtime.start import start

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
        known = {"losses/ese.py:41"} if name == "ese" else set()  # the host steers an SVD
        yield name, {"ok": not {*places["gradients"], *places["update"]} - known, **places}
