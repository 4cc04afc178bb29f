"""A whole training step, MIPIC against MRL on the same batch: `python benchmarks/step.py` (CPU).

Random encoders of real shapes, every sequence of full length, the real module, step and optimizer
(ZeRO-0, one rank, fp32, full fine-tuning). Figures: process CPU time of a step and the peak memory
of a fresh process; MIPIC / MRL of each is what the targets speak of.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import BertConfig, BertModel

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks import harness  # noqa: E402
from mipic_llm.cli import load_config  # noqa: E402
from mipic_llm.config import resolve  # noqa: E402
from mipic_llm.data.collate import StepBatch  # noqa: E402
from mipic_llm.training.ds_config import load_ds_config  # noqa: E402

VOCAB = 1000


class Case(NamedTuple):
    name: str
    layers: int
    width: int
    B: int
    T: int
    sia_layers: tuple[int, ...]
    dims: tuple[int, ...]
    target: float  # of the time; the memory's is MEMORY_TARGET


MEMORY_TARGET = 1.05
CASES = [
    Case("12x768 B=16 L=64", 12, 768, 16, 64, (2, 4, 6, 8, 9, 10, 12),
         (16, 32, 64, 128, 256, 512, 768), 1.06),
    Case("6x384 B=32 L=64", 6, 384, 32, 64, (1, 2, 3, 4, 5, 6), (16, 32, 64, 128, 256, 384), 1.15),
]  # fmt: skip
OBJECTIVES = ("mrl", "mipic")


def make_runner(case: Case, objective: str):
    """A StepRunner on a random encoder, and a function that runs its next step."""
    from mipic_llm.model.backbone import Backbone
    from mipic_llm.model.objective import EmbeddingModule
    from mipic_llm.training.engine import Engine
    from mipic_llm.training.setup import head_options
    from mipic_llm.training.step import StepRunner

    numbers = [*("--objective.dims", *map(str, case.dims)),
               *("--sia.layers", *map(str, case.sia_layers))]  # fmt: skip
    config = load_config(
        ["--objective.name", objective, "--lora.rank", "0", "--train.precision", "fp32",
         "--pic.ladder", "none", "--sia.ratios", "none", *numbers]
    )  # fmt: skip
    config = resolve(config, width=case.width, n_layers=case.layers)
    torch.manual_seed(0)
    shape = BertConfig(
        vocab_size=VOCAB, hidden_size=case.width, num_hidden_layers=case.layers,
        num_attention_heads=12, intermediate_size=4 * case.width, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    backbone = Backbone(BertModel(shape, add_pooling_layer=False), pooling="mean")
    module = EmbeddingModule(backbone, **head_options(config))
    ds_config = load_ds_config(None, config, world_size=1, hidden_size=case.width)
    engine = Engine(module, ds_config, config, lambda n: 1.0)
    engine.train(True)
    runner, count = StepRunner(engine, config), iter(range(1 << 30))
    batch = make_batch(case)
    return lambda: runner.run(batch, next(count))[0]


def make_batch(case: Case) -> StepBatch:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, VOCAB, (2 * case.B, case.T), generator=generator).tolist()
    column = torch.tensor([0] * case.B + [1] * case.B)
    example = torch.arange(case.B).repeat(2)
    return StepBatch(ids, column, example, case.B, case.B, 0, False, 0, "right")


def bench(case: Case, runs: int, peaks: dict[str, float]) -> list[dict[str, object]]:
    steps = {o: make_runner(case, o) for o in OBJECTIVES}
    first = {o: steps[o]() for o in OBJECTIVES}
    gap = abs(first["mrl"]["loss/mrl"] / first["mipic"]["loss/mrl"] - 1)
    if gap > 1e-5:  # same weights, same batch: the shared term must agree before anything is timed
        raise SystemExit(f"{case.name}: MRL terms of the first step differ by {gap:.1e}")
    samples: dict[str, list[harness.Timing]] = {o: [] for o in OBJECTIVES}
    for _ in range(runs):  # step by step in turn, so that a busy moment hits both
        for objective in OBJECTIVES:
            samples[objective].append(harness.time_cpu(steps[objective], 0, 1))
    rows = []
    for half in (slice(0, None, 2), slice(1, None, 2)):  # each version twice
        t = {o: summary(samples[o][half]) for o in OBJECTIVES}
        ratio = statistics.median(
            b.median / a.median
            for a, b in zip(samples["mrl"][half], samples["mipic"][half], strict=True)
        )
        rows.append(harness.row("step", case.name, "mrl", t["mrl"], peaks["mrl"]))
        rows.append(harness.row("step", case.name, "mipic time", t["mipic"], peaks["mipic"], ratio,
                                f"<={case.target}", ratio <= case.target))  # fmt: skip
    memory = peaks["mipic"] / peaks["mrl"]
    rows.append(harness.row("step", case.name, "mipic memory", t["mipic"], peaks["mipic"], memory,
                            f"<={MEMORY_TARGET}", memory <= MEMORY_TARGET))  # fmt: skip
    return rows


def summary(timings: list[harness.Timing]) -> harness.Timing:
    cpu = sorted(t.median for t in timings)
    last = len(cpu) - 1
    return harness.Timing(statistics.median(cpu), cpu[round(0.1 * last)], cpu[round(0.9 * last)],
                          statistics.median(t.wall for t in timings))  # fmt: skip


def run(runs: int = 8, only: str | None = None) -> list[dict[str, object]]:
    from mipic_llm.training.engine import start

    cases = [c for c in CASES if only in (None, c.name)]
    # Before start(): the children would inherit our rank's environment and port.
    peaks = [{o: harness.peak_of_child(__file__, "--peak", c.name, o) for o in OBJECTIVES}
             for c in cases]  # fmt: skip
    start()
    return [row for c, peak in zip(cases, peaks, strict=True) for row in bench(c, runs, peak)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=8, help="timed steps of each (default 8)")
    parser.add_argument("--case", choices=[c.name for c in CASES], help="only this case")
    parser.add_argument("--no-csv", action="store_true", help="print only")
    parser.add_argument("--peak", nargs=2, metavar=("CASE", "OBJECTIVE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        from mipic_llm.training.engine import start

        start()
        step = make_runner({c.name: c for c in CASES}[args.peak[0]], args.peak[1])
        step()
        step()  # the optimizer's state stands from the second on
        print(harness.max_rss_mib())
        return
    rows = run(args.runs, args.case)
    print(harness.table(rows))
    if not args.no_csv:
        harness.append_rows(rows)


if __name__ == "__main__":
    main()
