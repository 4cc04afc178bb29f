"""Suite `startup`: wall time from the command to the first training step, warm file cache.

The command is the quickstart through the deepspeed launcher, run once before it counts. A probe
writes the time when `StepRunner.run` is first called, and ends the process there. Beside it, the
CPU time of answers that need no torch: `--help`, and the line on a file that is not there.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import harness, results
from benchmarks.harness import Options
from benchmarks.results import Row

TARGET = 15.0
ANSWERS = {"train --help": (["train", "--help"], 0.3),
           "a missing file": (["train", "--data.train", "nowhere.csv"], 1.0)}  # fmt: skip
VARIANTS = {
    "as the quickstart": [],
    "without the table before": ["--data.validation", "none"],
}


def first_step(begun: float, out: str, arguments: list[str]) -> float:
    """Run `mipic train` up to its first step; -> seconds since `begun`."""
    from mipic_llm.commands import train
    from mipic_llm.training.step import StepRunner

    found: list[float] = []

    class Reached(Exception):
        pass

    def stop(*_args: object) -> None:
        found.append(time.time() - begun)
        raise Reached

    StepRunner.run = stop  # type: ignore[method-assign,assignment]
    try:
        train.main(["--ds_config", str(harness.ROOT / "ds_configs" / "zero3.json"),
                    "--output_dir", out, *arguments])  # fmt: skip
    except Reached:
        pass
    return found[0]


def seconds(arguments: list[str]) -> float:
    """One start in fresh processes."""
    launcher = shutil.which("deepspeed") or str(Path(sys.executable).with_name("deepspeed"))
    with tempfile.TemporaryDirectory() as folder:
        return harness.in_child(
            "benchmarks.startup:first_step", [sys.executable, launcher, "--num_accelerators", "1"]
            if not harness.on_gpu() else [sys.executable, launcher, "--num_gpus", "1"],
            begun=time.time(), out=os.path.join(folder, "run"), arguments=arguments,
        )  # fmt: skip


def answer(words: list[str]) -> float:
    """CPU seconds of a command in a fresh process."""

    def used() -> float:
        found = resource.getrusage(resource.RUSAGE_CHILDREN)
        return found.ru_utime + found.ru_stime

    begun = used()
    subprocess.run([sys.executable, "-m", "mipic_llm", *words], cwd=harness.ROOT, check=False,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    return used() - begun


def run(o: Options) -> list[Row]:
    rows = []
    for name, (words, target) in ANSWERS.items():
        if o.case not in (None, name):
            continue
        timing = harness.summary([2 * (1e3 * answer(words),) for _ in range(1 if o.quick else 9)])
        judged: dict[str, object] = (
            {} if o.quick else results.verdict(timing.median / 1e3, target, at_least=False)
        )
        rows.append(results.row("startup", "answers", name, timing, model="none",
                                note="seconds of CPU time of the process", **judged))  # fmt: skip
    for name, arguments in VARIANTS.items():
        if o.case not in (None, name):
            continue
        for _ in range(0 if o.quick else 1):
            seconds(arguments)  # files into the cache
        samples = [2 * (1e3 * seconds(arguments),) for _ in range(1 if o.quick else 3)]
        timing = harness.summary(samples)
        judged = {}
        if not o.quick:
            judged = results.verdict(timing.median / 1e3, TARGET, at_least=False)
        rows.append(results.row("startup", "quickstart", name, timing, model="quickstart",
                                mode="lora", zero_stage=3, ranks=1, B=32, terms="mipic",
                                note=f"seconds of wall time; load average {os.getloadavg()[0]:.1f}",
                                **judged))  # fmt: skip
    return rows
