"""A run that goes on at another number of ranks, ZeRO stage or size of the batch."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from ranks import ROOT, run_ranks
from tiny_models import tiny_bert

from mipic_llm.config import load_config
from mipic_llm.training import loop
from mipic_llm.training.feed import Data

STEPS, STOP = 7, 3
MORE = os.environ.get("RESHAPE")
WORLDS, STAGES = (1, 2, 4) if MORE == "four" else (1, 2), (0, 1, 2, 3)
LAYOUTS = [(world, stage) for world in WORLDS for stage in STAGES]
# Every layout is once gone on from and once gone on to. RESHAPE=all tries all pairs, 8 minutes;
# RESHAPE=four has four ranks too.
PAIRS = [(old, new) for i, old in enumerate(LAYOUTS) for j, new in enumerate(LAYOUTS)
         if j == (i + 5) % len(LAYOUTS) or MORE == "all"]  # fmt: skip
FEW = [((2, 2), (1, 3)), ((2, 3), (1, 1)), ((1, 3), (2, 2))]
KINDS = {
    "lora": (
        [
            "--sia.memory",
            "12",
            "--train.learning_rate",
            "1e-3",
            "--teacher.name",
            "base",
            "--teacher.layers",
            "ladder",
        ],
        PAIRS,
    ),  # fmt: skip
    # All weights, from scratch: Adam makes steps of noise where a gradient is 0 but for rounding.
    "full": (["--lora.rank", "0", "--train.learning_rate", "1e-5"], PAIRS if MORE else FEW),
}


def flags(base: Path, out: Path, world: int, stage: int, *more: str) -> list[str]:
    return [
        "--ds_config", str(ROOT / "ds_configs" / f"zero{stage}.json"), "--model.name", str(base),
        "--data.train", str(base.parent / "rows.jsonl"), "--objective.dims", "4", "16", "32",
        "--data.max_length", "24", "--data.validation", "none", "--model.dropout", "0",
        "--train.batch_size", str(8 // world), "--train.save_every", str(STOP),
        "--train.precision", "fp32", "--train.warmup_ratio", "0.5", "--train.log_every", "1",
        "--train.selfcheck", "false", "--export.rehearse", "false", "--tracking.mlflow", "off",
        "--output_dir", str(out), "--data.token_cache", str(base.parent / "cache"), *more,
    ]  # fmt: skip


def prepare(home: Path) -> Path:
    rows = [{"anchor": f"a boat {i} on lake {i % 7}", "positive": f"ship {i}"} for i in range(50)]
    (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tiny_bert(home / "base", layers=2)


def losses(out: Path) -> dict[int, list[float]]:
    """{step: [loss, rate, norm of the gradient]}"""
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {r["step"]: [r["loss"], r["lr"], r["grad_norm"]] for r in found}


def launch(home: Path, world: int, cases: list[list[str]], stops: Sequence[int | None]) -> str:
    """Train on so many ranks; stops: the step that ends each case early."""
    (home / "cases.json").write_text(json.dumps([*zip(cases, stops, strict=True)]))
    worker = ROOT / "tests" / "reshape_worker.py"
    code, text = run_ranks(world, worker, [str(home / "cases.json")])
    assert code == 0, text[-6000:]
    return text


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_those_of_the_uninterrupted_run(kind, tmp_path):
    more, pairs = KINDS[kind]
    more, said, rest = [*more, "--train.max_steps", str(STEPS)], "", {}
    base = prepare(tmp_path)
    for world in WORLDS:
        there = sorted({old for old, _ in pairs if old[0] == world} | {(1, 0)} & {(world, 0)})
        cases = [flags(base, tmp_path / str(old), *old, *more) for old in there]
        launch(tmp_path, world, cases, [None if old == (1, 0) else STOP for old in there])
    for world in WORLDS:
        cases = []
        for old, new in pairs:
            if new[0] == world:
                rest[old, new] = tmp_path / f"{old} {new}"
                path = tmp_path / str(old) / "checkpoints" / f"step-{STOP:08d}"
                own = ["--train.resume", str(path)]
                own += ["--train.chunk_size", "3"] if new[1] == 2 else []
                cases.append(flags(base, rest[old, new], *new, *more, *own))
        said += launch(tmp_path, world, cases, [None] * len(cases))
    whole = losses(tmp_path / "(1, 0)")
    assert sorted(whole) == list(range(1, STEPS + 1)) and len(rest) == len(pairs)
    for pair, out in rest.items():
        found = losses(out)
        assert sorted(found) == list(range(STOP + 1, STEPS + 1)), pair
        for step, (loss, rate, norm) in found.items():
            assert [loss, rate] == pytest.approx(whole[step][:2], rel=2e-6), (pair, step)
            assert norm == pytest.approx(whole[step][2], rel=2e-3), (pair, step)
        if pair[1][0] == 2:  # where ranks changed they are as at a start: each draws by itself
            saved = out / "checkpoints" / f"step-{2 * STOP:08d}"
            drawn = [torch.load(saved / f"rank_{n}.pt", weights_only=False)["rng"] for n in (0, 1)]
            assert not torch.equal(*(one["torch"] for one in drawn)), pair
        for name, old, new in zip(("ranks", "ZeRO stage"), *pair, strict=True):
            line = f"from step {STOP} on: {name} {old} -> {new}\n"
            recorded = f"# {line}" in (out / "config.yaml").read_text()
            assert recorded == (old != new) and (old == new or f"note: {line}" in said)


def test_another_batch_sees_the_rest_of_the_epoch_once(tmp_path, monkeypatch, capsys):
    """50 rows: three batches of 8, three of 4 and then two of 7, changed twice in one epoch."""
    base, seen, step = prepare(tmp_path), [], Data.step
    monkeypatch.setattr(loop, "export", lambda *_: None)
    monkeypatch.setattr(loop, "report", lambda *_: None)
    monkeypatch.setattr(
        Data, "step",
        lambda self, at: (seen.append([i for _, i in self.plan.batch(*at)]), step(self, at))[1],
    )  # fmt: skip
    used, resume, totals = [], [], []
    for number, size in enumerate((8, 4, 7)):
        out = tmp_path / str(size)
        argv = flags(base, out, 1, 0, "--train.epochs", "1", *resume)
        argv[argv.index("--train.batch_size") + 1] = str(size)
        seen.clear()
        assert loop.train(load_config(argv)) == 0
        totals.append(max(losses(out)))
        used += seen[: STOP if number < 2 else None]
        at = f"step-{STOP * (number + 1):08d}"
        resume = ["--train.resume", str(out / "checkpoints" / at)]
    rows = [row for batch in used for row in batch]
    assert totals == [6, 3 + 6, 6 + 2] and [len(b) for b in used] == [8] * 3 + [4] * 3 + [7] * 2
    assert len(rows) == len(set(rows)) == 50
    said = capsys.readouterr().out
    assert "note: from step 3 on: train.batch_size 8 -> 4" in said
    assert "note: from step 6 on: rows of a global batch 4 -> 7" in said
