"""Suite `save`: how long a checkpoint of 1 GiB of state holds the training of two ranks up.

All weights of a wide, shallow model are trained in fp32 under ZeRO-1 through the deepspeed
launcher: each weight, its copy and its averages are 16 bytes. What a save costs beside the wait is
told by the steps until the next, compared with the median of the steps before the first.
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

from benchmarks import harness, models, results
from benchmarks.flops import TINY_BERT, Shape
from benchmarks.harness import Options
from benchmarks.results import Row

SHAPE = Shape("wide", "bert", 3, 768, 12, 12, 64, 3072, 59_000)
EVERY = 8  # steps from save to save


def measure(model: str, out: str, saves: int, waits: bool) -> dict[str, Any]:
    """-> ms: of a plain step; for each save, how long the training waited for it, that in CPU time
    of its thread, and by how much all steps to the next save were longer; GiB of a checkpoint.
    waits: for the disk as well."""
    from mipic_llm.config import load_config
    from mipic_llm.training import loop
    from mipic_llm.training.run import LiveRun

    times: list[float] = []
    held: list[tuple[float, float]] = []
    begin = LiveRun.save

    class Clock:
        def on_step(self, run: Any, step: int, row: Any) -> None:
            times.append(1e3 * time.perf_counter())

    def save(run: Any, *args: Any, **named: Any) -> Any:
        begun, cpu = time.perf_counter(), time.thread_time()
        answer = begin(run, *args, **named)
        if waits:
            run.finish()
        held.append((1e3 * (time.perf_counter() - begun), 1e3 * (time.thread_time() - cpu)))
        return answer

    LiveRun.save = save  # type: ignore[method-assign]
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
        "plain": plain, "held": held,
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
            (first, _), *later = got["held"]
            cpu = statistics.median(own for _, own in later)
            pairs = zip(later, got["all"][1:], strict=True)
            timing = harness.summary([(held, more) for (held, _), more in pairs])
            rows.append(results.row(
                "save", f"{got['gib']:.2f} GiB", variant, timing, model=shape.name, mode="full",
                zero_stage=1, ranks=2, B=4, note=f"CPU time of the wait {cpu:.0f} ms; the first "
                f"save {first:.0f} ms; a step without "
                f"{got['plain']:.0f} ms; wall_ms: all that a save costs the steps to the next",
            ))  # fmt: skip
    return rows
