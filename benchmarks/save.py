"""Suite `save`: how long a checkpoint of 1 GiB of state holds the training of two ranks up.

All weights of a wide, shallow model are trained in fp32 under ZeRO-1 through the deepspeed
launcher: each weight, its copy and its averages are 16 bytes. A step that saves is compared with
the median of the steps before the first save.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import harness, models
from benchmarks.flops import TINY_BERT, Shape
from benchmarks.harness import Options, Row

SHAPE = Shape("wide", "bert", 3, 768, 12, 12, 64, 3072, 59_000)
EVERY = 12  # steps from save to save


def measure(model: str, out: str, saves: int, waits: bool) -> dict[str, Any]:
    """-> ms: of a plain step; for each save, by how much its step was longer, and by how much all
    steps to the next save were; GiB of a checkpoint. waits: the next step waits for the disk."""
    from mipic_llm.config import load_config
    from mipic_llm.training import loop
    from mipic_llm.training.run import LiveRun

    times: list[float] = []

    class Clock:
        def on_step(self, run: Any, step: int, row: Any) -> None:
            times.append(1e3 * time.perf_counter())

    if waits:
        begin = LiveRun.save
        LiveRun.save = lambda self, *a, **k: (begin(self, *a, **k), self.finish())  # type: ignore
    loop.export = loop.report = lambda *_: None  # type: ignore[assignment]
    rows = Path(out).with_suffix(".jsonl")
    texts = [" ".join(f"w{i}" for i in range(n, n + 12)) for n in range(5, 405)]
    pairs = ({"anchor": text, "positive": text[5:]} for text in texts)
    rows.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    argv = models.flags(terms="mrl", precision="fp32", B=4)
    loop.train(load_config([
        *argv, "--ds_config", "zero1", "--model.name", model, "--data.train", str(rows),
        "--data.validation", "none", "--train.max_steps", str(EVERY * saves + EVERY - 1),
        "--train.save_every", str(EVERY), "--train.keep_checkpoints", "1", "--train.log_every",
        "100", "--train.selfcheck", "false", "--export.rehearse", "false", "--tracking.mlflow",
        "off", "--output_dir", out,
    ]), [Clock()])  # fmt: skip
    spans = [b - a for a, b in zip(times, times[1:], strict=False)]  # spans[i]: step i + 2
    plain = statistics.median(spans[3 : EVERY - 1])
    starts = range(EVERY - 1, EVERY * saves, EVERY)
    files = (Path(out) / "checkpoints" / f"step-{EVERY * saves:08d}").rglob("*")
    return {
        "plain": plain, "held": [spans[i] - plain for i in starts],
        "all": [sum(spans[i : i + EVERY - 1]) - (EVERY - 1) * plain for i in starts],
        "gib": sum(f.stat().st_size for f in files if f.is_file()) / 2**30,
    }  # fmt: skip


def run(o: Options) -> list[Row]:
    launcher = shutil.which("deepspeed") or str(Path(sys.executable).with_name("deepspeed"))
    shape, rows = TINY_BERT if o.quick else SHAPE, []
    with tempfile.TemporaryDirectory() as folder:
        model = models.write_model(shape, Path(folder) / "model")
        for variant in ("in the background", "waited for"):
            if o.case not in (None, variant):
                continue
            out = Path(folder) / variant.replace(" ", "-")
            got = harness.in_child(
                "benchmarks.save:measure", [sys.executable, launcher, "--num_accelerators", "2"],
                model=str(model), out=str(out), saves=o.runs or (2 if o.quick else 5),
                waits=variant == "waited for", threads=o.threads,
            )  # fmt: skip
            shutil.rmtree(out)
            first, *later = got["held"]
            timing = harness.summary(list(zip(later, got["all"][1:], strict=True)))
            rows.append(harness.row(
                "save", f"{got['gib']:.2f} GiB", variant, timing, model=shape.name, mode="full",
                zero_stage=1, ranks=2, B=4, note=f"the first save {first:.0f} ms; a step without "
                f"{got['plain']:.0f} ms; wall_ms: all that a save costs the steps to the next",
            ))  # fmt: skip
    return rows
