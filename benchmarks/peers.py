"""Suite `peers`: against sentence-transformers on the same weights, rows and order.

Its own SentenceTransformerTrainer runs MatryoshkaLoss(MultipleNegativesRankingLoss), or the cached
loss inside MatryoshkaLoss, with its own collator (each column padded to its longest row). After
each of its steps a callback gives the very same rows to our step, so both sides see one busy
machine and one order. A side's time is all it does for a step: tokenising, padding, forward,
backward, clipping, fused AdamW. Full fine-tuning, no dropout. Before anything is timed, loss and
gradients of one batch must agree to 1e-5 (fp32) or 2e-2 (bf16).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from typing import NamedTuple

import torch

from benchmarks import data, harness, models, results
from benchmarks.harness import Options
from benchmarks.opponent import (
    RATE,
    Gradients,
    Recorder,
    agree,
    alone,
    opponent,
    their_gradients,
    their_trainer,
)
from benchmarks.results import Row
from mipic_llm.data.batch import StepBatch, build_step
from mipic_llm.data.read.rows import Example
from mipic_llm.evaluation.encode import make_encoder
from mipic_llm.model.files import resolve_name


class Case(NamedTuple):
    """ours: variant -> flags; the first is the one that the target speaks of."""

    name: str
    B: int
    mini: int  # 0: the plain loss
    target: float | None
    warmup: int
    runs: int
    ours: dict[str, list[str]]


MRL = ["--objective.name", "mrl"]
CASES = [
    Case("NLI-like B=64", 64, 0, 1.8, 2, 12,
         {"ours mrl": MRL, "ours mipic": ["--objective.name", "mipic"]}),
    Case("cached B=1024 chunk 64", 1024, 64, 2.0, 0, 2,
         {"ours mrl": [*MRL, "--train.chunk_size", "64"]}),
]  # fmt: skip
QUICK = [
    Case("B=8", 8, 0, None, 0, 2, {"ours mrl": MRL}),
    Case("cached B=16 chunk 8", 16, 8, None, 0, 2,
         {"ours mrl": [*MRL, "--train.chunk_size", "8"]}),
]  # fmt: skip


class Ours:
    """Our step on raw rows: tokenise, collate, run."""

    def __init__(self, name: str, B: int, arguments: Sequence[str], precision: str) -> None:
        base = models.flags(terms="mrl", precision=precision, B=B)[2:]
        self.made = models.trainee(
            name, [*base, *arguments, "--train.learning_rate", str(RATE), "--model.dropout", "0"]
        )
        self.encoder = make_encoder(self.made.config, self.made.source)
        self.tokens, self.steps = torch.zeros(2, dtype=torch.float64), 0

    def batch(self, rows: Sequence[Example]) -> StepBatch:
        return build_step(rows, self.encoder)

    def __call__(self, rows: Sequence[Example]) -> None:
        row = self.made.runner.run(self.batch(rows), self.steps)
        self.tokens += torch.tensor([row["useful"], row["padded"]])
        self.steps += 1

    def gradients(self, rows: Sequence[Example]) -> Gradients:
        """The MRL loss of these rows and its gradients by name, nothing updated."""
        runner, found = self.made.runner, {}

        def keep() -> float:
            for name, p in runner.engine.module.named_parameters():
                if p.grad is not None:
                    found[name.removeprefix("backbone.model.")] = p.grad.float().clone()
                    p.grad = None
            return 0.0

        runner.engine.step = keep
        try:
            parts = runner.run(self.batch(rows), 0)
        finally:
            del runner.engine.step
        return parts["loss/mrl"], found


def _clock() -> tuple[float, float]:
    if harness.on_gpu():
        torch.cuda.synchronize()
        return 1e3 * time.perf_counter(), 1e3 * time.perf_counter()
    return 1e3 * time.process_time(), 1e3 * time.perf_counter()


def race(trainer, recorder: Recorder, ours: dict[str, Ours], warmup: int):
    """Their trainer to its end, ours inside its callback. -> samples by side, (CPU, wall) ms."""
    from transformers import TrainerCallback

    samples: dict[str, list] = {"sentence-transformers": [], **{n: [] for n in ours}}

    class Turn(TrainerCallback):
        mark, steps = (0.0, 0.0), 0

        def on_train_begin(self, *_args, **_more):
            self.mark = _clock()

        def on_step_end(self, *_args, **_more):
            kept = self.steps >= warmup
            self._keep("sentence-transformers", kept)
            rows = [Example(f["anchor"], f["positive"], (f["negative"],), i)
                    for i, f in enumerate(recorder.waiting.pop(0))]  # fmt: skip
            for name, step in ours.items():
                step(rows)
                self._keep(name, kept)
            self.steps += 1

        def _keep(self, name: str, kept: bool) -> None:
            now = _clock()
            if kept:
                samples[name].append((now[0] - self.mark[0], now[1] - self.mark[1]))
            self.mark = now

    trainer.add_callback(Turn())
    trainer.train()
    if trainer.accelerator.num_processes != 1 or hasattr(trainer.model_wrapped, "reducer"):
        raise SystemExit("peers: sentence-transformers ran as one of several ranks")
    return samples


def bench(
    case: Case,
    o: Options,
    name: str,
    *,
    precision: str = "fp32",
    suite: str = "peers",
    model: str = "quickstart",
    given: tuple[list[Example], str] | None = None,
) -> list[Row]:
    """Both sides on one case. name: model directory; given: rows and what to call them."""
    rows, source = given or data.triplets(o.data)
    case = case._replace(runs=o.runs or case.runs)
    rows = data.cycled(rows, case.B * (case.warmup + case.runs))
    ours = {n: Ours(name, case.B, f, precision) for n, f in case.ours.items()}
    first = next(iter(ours.values()))
    theirs, loss = opponent(name, first.made.config.objective.dims or [], case.mini)
    theirs.max_seq_length = first.made.config.data.max_length
    with tempfile.TemporaryDirectory() as folder, alone():
        trainer, recorder = their_trainer(
            theirs, loss, rows, case.B, case.warmup + case.runs, precision, folder
        )
        sample = rows[: min(case.B, 64)]
        gaps = agree(first.gradients(sample),
                     their_gradients(theirs, loss, recorder.inner, sample, precision),
                     1e-5 if precision == "fp32" else 5e-2)  # each some 1e-2 from fp32  # fmt: skip
        print(f"{case.name}: relative difference {gaps[0]:.1e} loss, {gaps[1]:.1e} gradient")
        samples = race(trainer, recorder, ours, case.warmup)
    common = {"suite": suite, "model": model, "lengths": source, "B": case.B,
              "note": f"{precision}, {o.threads} threads, agree to {gaps[0]:.0e} (loss), "
                      f"{gaps[1]:.0e} (gradient)"}  # fmt: skip
    return _rows(case, samples, ours, recorder, common)


def _rows(case: Case, samples, ours: dict[str, Ours], recorder: Recorder, common) -> list[Row]:
    first, made = next(iter(ours)), []
    tokens = ours[first].tokens[0].item() / ours[first].steps
    shares = {"sentence-transformers": 1 - recorder.useful / recorder.slots}
    shares |= {n: (s.tokens[1] / s.tokens.sum()).item() for n, s in ours.items()}
    by_side = {name: harness.halves(s) for name, s in samples.items()}
    for i, theirs in enumerate(by_side["sentence-transformers"]):
        for name, parts in by_side.items():
            timing, judged = harness.summary(parts[i]), {}
            if name in ours:
                ratio = harness.ratio_of(theirs, parts[i])
                judged = {"ratio": ratio}
                if case.target and name == first:
                    judged = results.verdict(ratio, case.target, at_least=True)
            made.append(results.row(
                case=case.name, variant=name, timing=timing, mode="full", ranks=1,
                zero_stage=0, terms="mipic" if "mipic" in name else "mrl",
                padding_share=shares[name], tokens_per_s=1e3 * tokens / timing.median,
                **common, **judged,
            ))  # fmt: skip
    return made


def run(o: Options) -> list[Row]:
    from mipic_llm.runtime.start import start

    start()
    cases = [c for c in (QUICK if o.quick else CASES) if o.case in (None, c.name)]
    return [row for case in cases for row in bench(case, o, resolve_name("quickstart"))]
