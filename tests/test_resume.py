"""A run killed at any moment and resumed equals the uninterrupted one, bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from ranks import ROOT, run_ranks, start_ranks
from tiny_models import few, tiny_bert

from mipic_llm.config import load_config
from mipic_llm.errors import EXIT_STOPPED, UserError
from mipic_llm.runtime import checkpoint

SCRIPT = ROOT / "launch" / "train.py"
STOPS = {2: signal.SIGKILL, 3: signal.SIGTERM}  # test_everything.py kills at ZeRO-3
# (steps, steps between checkpoints, rows of an epoch, which ends after the signal) by stage; those
# of ZeRO-3 are slow, so that fewer leave time for the signal
LENGTHS = {2: (16, 4, 100), 3: (10, 2, 60)}


TAUGHT = [  # at ZeRO-3: in chunks, with every term of a teacher, and a memory of its vectors
    "--teacher.name", "base", "--teacher.layers", "ladder", "--teacher.vector", "1",
    "--teacher.scores", "1", "--teacher.margin", "1", "--teacher.dims", "4,16",
    "--train.chunk_size", "9", "--train.selfcheck", "false", "--sia.memory", "30",
]  # fmt: skip


def flags(base: Path, out: Path, stage: int) -> list[str]:
    taught = [*TAUGHT, "--data.token_cache", str(base.parent / "cache")] if stage == 3 else []
    steps, every, _ = LENGTHS[stage]
    return [
        "--data.train", str(base.parent / "train" / "demo.jsonl"), "--export.rehearse", "false",
        "--ds_config", str(ROOT / "ds_configs" / f"zero{stage}.json"), "--model.name", str(base),
        "--objective.dims", "4", "16", "32", "--data.max_length", "24", "--data.validation", "none",
        "--train.batch_size", "4", "--train.max_steps", str(steps), "--train.save_every",
        str(every), "--model.dropout", "0.1", "--tracking.mlflow", "off", "--output_dir", str(out),
        *taught,
    ]  # fmt: skip


def interrupt(
    arguments: list[str], out: Path, how: signal.Signals, log: Path, step: int
) -> list[int]:
    """Start two ranks, send the signal once the checkpoint of `step` stands. -> exit codes."""
    processes = start_ranks(2, SCRIPT, arguments, log)
    try:
        deadline = time.monotonic() + 120
        mark = out / "checkpoints" / f"step-{step:08d}"
        while not mark.exists():
            assert time.monotonic() < deadline, log.read_text()[-4000:]
            assert all(p.exitcode is None for p in processes), log.read_text()[-4000:]
            time.sleep(0.005)
        for process in processes:
            os.kill(process.pid, how)
        for process in processes:
            process.join(60)
        return [p.exitcode for p in processes]
    finally:
        for process in processes:
            process.kill()


def rows(out: Path) -> list[tuple]:
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    parts = [[r[k] for k in sorted(r) if k.startswith("loss/")] for r in found]
    return [(r["step"], r["loss"], r["grad_norm"], r["lr"], p) for r, p in zip(
        found, parts, strict=True)]  # fmt: skip


def weights(out: Path) -> bytes:
    return (out / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module", params=STOPS, ids=lambda stage: f"zero{stage}")
def whole(request, tmp_path_factory):
    """The uninterrupted run: (stage, base model, its output directory)."""
    folder = tmp_path_factory.mktemp(f"zero{request.param}")
    base = folder / "base"
    few(folder, rows=LENGTHS[request.param][2])  # an epoch ends at step 12, or 7
    tiny_bert(base, layers=2)
    code, text = run_ranks(2, SCRIPT, flags(base, folder / "whole", request.param))
    assert code == 0, text[-4000:]
    return request.param, base, folder / "whole"


def test_resumed_equals_uninterrupted(whole, tmp_path):
    stage, base, reference = whole
    out, how = tmp_path / "broken", STOPS[stage]
    arguments = flags(base, out, stage)
    steps, every, _ = LENGTHS[stage]
    codes = interrupt(arguments, out, how, tmp_path / "log", 2 * every)
    assert codes == [EXIT_STOPPED if how is signal.SIGTERM else -how] * 2
    assert not (out / "adapter").exists(), "it ended before the signal: nothing was tested"
    done = rows(out)[-1][0]
    assert 2 * every <= done < steps
    code, text = run_ranks(2, SCRIPT, [*arguments, "--train.resume", "auto"])
    assert code == 0, text[-4000:]
    assert "resuming" in text and ("cache hit" in text) == (stage == 3)
    assert rows(out) == rows(reference)
    assert weights(out) == weights(reference)


def test_only_complete_checkpoints_are_found(whole, tmp_path):
    _, _, reference = whole
    folder = tmp_path / "checkpoints"
    shutil.copytree(reference / "checkpoints", folder)
    newest, older = sorted(folder.glob("step-*"), reverse=True)[:2]
    assert checkpoint.newest_complete(folder) == newest
    drawn = [torch.load(newest / f"rank_{n}.pt", weights_only=False)["rng"] for n in (0, 1)]
    assert not torch.equal(*(one["torch"] for one in drawn)), "ranks have the same dropout"
    damage = {
        "altered": lambda p: _flip_a_byte(next(f for f in p.rglob("*.pt"))),
        "missing": lambda p: (p / "rank_1.pt").unlink(),
        "unlisted": lambda p: (p / checkpoint.MANIFEST).unlink(),
    }
    for name, harm in damage.items():
        copy = tmp_path / name
        shutil.copytree(folder, copy)
        harm(copy / newest.name)
        assert checkpoint.newest_complete(copy) == copy / older.name, name
    shutil.move(folder / newest.name, folder / f".{newest.name}.new")  # killed before the rename
    assert checkpoint.newest_complete(folder) == folder / older.name


def _flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_nothing_to_resume_is_one_clear_line(tmp_path):
    from mipic_llm.training.resume import find_resume

    config = load_config(["--train.resume", "auto", "--output_dir", str(tmp_path)])
    with pytest.raises(UserError, match=r"no complete checkpoint.*save_every"):
        find_resume(config, tmp_path / "checkpoints")
    config = load_config(["--train.resume", str(tmp_path), "--output_dir", str(tmp_path)])
    with pytest.raises(UserError, match="no complete checkpoint"):
        find_resume(config, tmp_path / "checkpoints")
