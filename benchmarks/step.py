"""Suite `step`: a whole training step, MIPIC against MRL on the same batch, time and memory.

Random encoders of real shapes, every sequence of full length, the real module, step and optimizer
(ZeRO-0, one rank, fp32, full fine-tuning, default preset). Figures: process CPU time of a step
and the peak memory of a fresh process; MIPIC / MRL of each is what the targets speak of.
"""

from __future__ import annotations

if __name__ == "__main__":  # `python benchmarks/step.py` is `python benchmarks/run.py step`
    import sys

    import run

    raise SystemExit(run.main(["step", *sys.argv[1:]]))

import tempfile
from pathlib import Path
from typing import NamedTuple

from benchmarks import data, harness, models, results
from benchmarks.flops import BERT, MINILM, TINY_BERT, Shape
from benchmarks.harness import Options
from benchmarks.results import Row

MEMORY_TARGET = 1.05


class Case(NamedTuple):
    name: str
    shape: Shape
    B: int
    T: int
    sia_layers: tuple[int, ...]
    target: float | None  # of the time; the memory's is MEMORY_TARGET


CASES = [
    Case("12x768 B=16 L=64", BERT, 16, 64, (2, 4, 6, 8, 9, 10, 12), 1.06),
    Case("6x384 B=32 L=64", MINILM, 32, 64, (1, 2, 3, 4, 5, 6), 1.15),
]
QUICK = [Case("tiny B=4 L=12", TINY_BERT, 4, 12, (1, 2, 3), None)]
OBJECTIVES = ("mrl", "mipic")


def stepper(case: Case, objective: str) -> models.Stepper:
    """A random encoder of this case under one objective, on one batch."""
    more = ["--sia.layers", *map(str, case.sia_layers)] if objective == "mipic" else []
    arguments = models.flags(terms=objective, precision="fp32", B=case.B, more=more)
    with tempfile.TemporaryDirectory() as folder:
        made = models.trainee(str(models.write_model(case.shape, Path(folder))), arguments)
    return models.Stepper(made, [data.step_batch(data.full(case.B, case.T), case.shape.vocab)])


def peak(case: str, objective: str) -> float:
    """MiB of this (fresh) process after two steps."""
    from mipic_llm.runtime.start import start

    start()
    step = stepper({c.name: c for c in CASES + QUICK}[case], objective)
    step()
    step()  # the optimizer's state stands from the second on
    return harness.max_rss_mib()


def bench(case: Case, o: Options, peaks: dict[str, float]) -> list[Row]:
    steps = {name: stepper(case, name) for name in OBJECTIVES}
    first = {name: step() for name, step in steps.items()}
    keys = [key for key in first["mrl"] if key.startswith("loss/mrl@")]  # presets weigh dims apart
    gap = max(abs(first["mrl"][key] / first["mipic"][key] - 1) for key in keys)
    if gap > 1e-5:  # same weights, same batch: the shared term must agree before anything is timed
        raise SystemExit(f"{case.name}: MRL terms of the first step differ by {gap:.1e}")
    samples = harness.paired(steps, 0 if o.quick else 1, o.runs or (2 if o.quick else 16))
    common = {"model": case.shape.name, "mode": "full", "zero_stage": 0, "ranks": 1, "B": case.B,
              "lengths": f"{case.T}", "padding_share": 0.0}  # fmt: skip
    tokens = 2 * case.B * case.T
    rows = []
    for mrl, mipic in zip(*(harness.halves(samples[n]) for n in OBJECTIVES), strict=True):
        ratio = harness.ratio_of(mipic, mrl)
        for name, half in zip(OBJECTIVES, (mrl, mipic), strict=True):
            timing = harness.summary(half)
            judged = {"ratio": ratio} if name == "mipic" else {}
            if judged and case.target:
                judged = results.verdict(ratio, case.target, at_least=False)
            rows.append(results.row(
                "step", case.name, f"{name} time", timing, terms=name, peak_mib=peaks.get(name),
                tokens_per_s=1e3 * tokens / timing.median, **common, **judged,
            ))  # fmt: skip
    if peaks:
        memory = peaks["mipic"] / peaks["mrl"]
        rows.append(results.row("step", case.name, "mipic memory", terms="mipic",
                                peak_mib=peaks["mipic"], **common,
                                **results.verdict(memory, MEMORY_TARGET, False)))  # fmt: skip
    return rows


def run(o: Options) -> list[Row]:
    from mipic_llm.runtime.start import start

    cases = [c for c in (QUICK if o.quick else CASES) if o.case in (None, c.name)]
    peaks: list[dict[str, float]] = [
        {} if o.quick else {
            name: harness.in_child("benchmarks.step:peak", case=c.name, objective=name,
                                   threads=o.threads)
            for name in OBJECTIVES
        }
        for c in cases
    ]  # fmt: skip
    start()
    return [row for c, peak in zip(cases, peaks, strict=True) for row in bench(c, o, peak)]
