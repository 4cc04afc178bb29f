"""Saves in the background: what they hold, what a step waits for, what a kill leaves."""

from __future__ import annotations

import json
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from ranks import start_ranks
from tiny_models import few, tiny_bert

from mipic_llm.config import load_config
from mipic_llm.errors import EXIT_DONE
from mipic_llm.runtime import checkpoint, copies, saving
from mipic_llm.runtime.engine import consolidated
from mipic_llm.training import loop


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    few(folder)
    return tiny_bert(folder / "bert")


def flags(base: Path, out: Path, *more: str) -> list[str]:
    return ["--model.name", str(base), "--objective.dims", "8", "32", "--data.max_length", "16",
            "--data.validation", "none", "--train.batch_size", "4", "--train.selfcheck", "false",
            "--data.train", str(base.parent / "train" / "demo.jsonl"),
            "--train.save_every", "4", "--train.keep_checkpoints", "0", "--export.rehearse",
            "false", "--tracking.mlflow", "off", "--output_dir", str(out), *more]  # fmt: skip


class Hold:
    """No save is written before step 7 has ended. Notes how many were in flight."""

    def __init__(self) -> None:
        self.go, self.written, self.saved = threading.Event(), [], []

    def on_step(self, run, step, row):
        if step == 7:
            self.written = [p.name for p in checkpoint.steps_in(run.out / "checkpoints")]
            self.go.set()

    def on_save(self, run, path):
        if path.parent.name == "checkpoints":
            self.saved.append((path.name, run.step))


def all_of(folder: Path) -> dict[str, object]:
    return {path.name: torch.load(path, weights_only=False)
            for path in folder.rglob("*.pt")}  # fmt: skip


def same(one, two) -> bool:
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[k], two[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if hasattr(one, "cur_scale"):  # of DeepSpeed's loss scaler
        return vars(one) == vars(two)
    return bool(np.all(one == two))


@pytest.mark.parametrize("room", [1 << 30, 0], ids=["copies", "no room"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_late_write_holds_the_state_of_its_own_step(base, tmp_path, monkeypatch, stage, room):
    """Of all weights and Adam's averages, of generators, schedule and readouts remembered."""
    more = ["--ds_config", f"zero{stage}", "--lora.rank", "0", "--sia.memory", "8",
            "--train.max_steps", "9"]  # fmt: skip
    monkeypatch.setattr(loop, "export", lambda *_: None)
    monkeypatch.setattr(loop, "report", lambda *_: None)
    assert loop.train(load_config(flags(base, tmp_path / "a", *more))) == EXIT_DONE
    hold, write = Hold(), saving._write
    monkeypatch.setattr(copies, "_memory_left", lambda: room)
    monkeypatch.setattr(saving, "_write", lambda *a: (hold.go.wait(60), write(*a))[1])
    assert loop.train(load_config(flags(base, tmp_path / "b", *more)), [hold]) == EXIT_DONE
    assert hold.go.is_set() and hold.written == []
    assert [name for name, _ in hold.saved] == ["step-00000004", "step-00000008"]
    assert hold.saved[0][1] >= 7
    for step in (4, 8):
        one, two = (tmp_path / n / "checkpoints" / f"step-{step:08d}" for n in "ab")
        assert checkpoint.damage(two) is None
        found = all_of(one), all_of(two)
        assert len(found[0]) >= 2
        for name in found[0]:
            for key in found[0][name]:
                assert same(found[0][name][key], found[1][name][key]), (name, key)
        weights = consolidated(two, trainable_only=False)
        assert weights and all(x.is_contiguous() for x in weights.values())


WORKER = """
import errno, json, sys, threading
from pathlib import Path
from mipic_llm.config import load_config
from mipic_llm.errors import EXIT_DONE
from mipic_llm.runtime import ranks, saving
from mipic_llm.training.loop import train

real = saving.torch.save

def save(content, path):
    if "step-00000004" in str(path) and ranks.rank() == 1:
        raise OSError(errno.ENOSPC, "No space left on device")
    if "step-00000012" in str(path):
        threading.Event().wait(600)
    real(content, path)

class Torch:
    save = staticmethod(save)
    def __getattr__(self, name):
        import torch
        return getattr(torch, name)

saving.torch = Torch()
sys.exit(train(load_config(sys.argv[1:])))
"""


def test_copies_of_shapes_that_are_gone_are_given_back():
    """The memory of sia.memory is another shape in each save until it is full."""
    held, weights = copies.Copies(), torch.ones(50)
    for filled in range(1, 9):
        held.begin()
        last = held.of({"weights": weights, "memory": torch.ones(filled, 50)})
        kept = [*held.used, *(x for some in held.free.values() for x in some)]
        assert sum(x.numel() for x in kept) <= 50 + 50 * filled + 50 * (filled - 1)
    assert all(bool((x == 1).all()) for x in last.thaw().values())


def test_views_of_one_storage_stay_apart_and_tied_weights_one():
    """ZeRO's flat buffers, and parameters that are parts of them."""
    x = torch.arange(8.0)
    content = {"flat": x, "first": x[:4], "rest": x[4:], "turned": x.view(2, 4).T, "tied": x,
               "square": x.view(4, 2), "bits": x.view(torch.int32), "name": "x"}  # fmt: skip
    held = copies.Copies()
    held.begin()
    frozen = held.of(content)
    want = {key: value.clone() for key, value in content.items() if key != "name"}
    x.zero_()
    found = frozen.thaw()
    assert found.pop("name") == "x" and found.keys() == want.keys()
    for key, value in want.items():
        assert found[key].dtype == value.dtype and torch.equal(found[key], value), key
    assert found["flat"] is found["tied"] is not found["first"]


def test_copies_take_the_room_that_there_is(monkeypatch, tmp_path):
    """Half of what the machine or its container can give, shared by its ranks; memory of the save
    before counts for nothing."""
    monkeypatch.setattr(copies, "Path", lambda _: tmp_path)
    left = copies._memory_left()
    assert left > 1 << 20  # no container
    limits = {"max": "2500", "current": "900", "stat": "anon 7\ninactive_file 400\nfile 9\n"}
    for name, text in limits.items():
        (tmp_path / f"memory.{name}").write_text(text)
    assert copies._memory_left() == 2000
    (tmp_path / "memory.max").write_text(f"{1 << 60}\n")
    assert copies._memory_left() < 1 << 59
    (tmp_path / "memory.max").write_text("max\n")
    assert copies._memory_left() > 1 << 20
    older = {"limit_in_bytes": "2500", "usage_in_bytes": "900", "stat": "total_inactive_file 300"}
    (tmp_path / "memory").mkdir()
    for name, text in older.items():
        (tmp_path / "memory" / f"memory.{name}").write_text(text)
    assert copies._memory_left() == 1900
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712")
    assert copies._memory_left() > 1 << 20

    monkeypatch.setattr(copies, "_memory_left", lambda: 2000)
    monkeypatch.setattr(copies.dist, "ranks_here", lambda: 2)  # 500 bytes for each
    held = copies.Copies()
    held.begin()
    assert held.of(torch.ones(100)) and held.of(torch.ones(25))
    assert held.of(torch.ones(1)) is None
    monkeypatch.setattr(copies, "_memory_left", lambda: 0)
    held.begin()
    assert held.of(torch.ones(100)) and held.of(torch.ones(25)) and held.of(torch.ones(25)) is None


def test_a_checkpoint_lists_what_any_rank_sees_and_all_must_see_it(tmp_path, monkeypatch):
    """The list of a network's disk may lack what another machine has just written. Where a file is
    on another machine's own disk, the checkpoint would only prove damaged when it is needed."""
    listed = ["rank_1.pt"]  # of the other rank; ours is late

    def gather(value, aside):
        assert aside
        problem, answer = value
        if isinstance(answer, list):
            return [(problem, [n for n in answer if n != "rank_1.pt"]), (None, listed)]
        return [value, (None, {"rank_0.pt": "theirs"} if answer else None)]

    for name, there in {
        "rank": lambda: 0,
        "world_size": lambda: 2,
        "gather_objects": gather,
    }.items():
        monkeypatch.setattr(saving.dist, name, there)
    for step, shared in ((1, True), (2, False)):
        fresh = tmp_path / "run" / f".step-{step:08d}.new"
        fresh.mkdir(parents=True)
        for name in ("config.yaml", "rank_0.pt", *["rank_1.pt"] * shared):
            (fresh / name).write_text(name)
        save = partial(saving._write, fresh, [], {"step": step}, dict, 0, None)
        if shared:
            files = json.loads((save() / "manifest.json").read_text())["files"]
            assert sorted(files) == ["config.yaml", "rank_0.pt", "rank_1.pt"]
        else:
            with pytest.raises(saving.NotWritten, match="a disk that all machines share"):
                save()


def test_a_save_in_flight_holds_no_step_up_and_a_kill_leaves_the_older(base, tmp_path):
    """Two ranks. Rank 1's disk refuses the save of step 4: a line, nothing left. That of step 12
    never ends: steps go on until the next save is due, which waits for it."""
    script, out, log = tmp_path / "worker.py", tmp_path / "out", tmp_path / "log"
    script.write_text(WORKER)
    folder, metrics = out / "checkpoints", out / "metrics.jsonl"
    arguments = flags(base, out, "--ds_config", "zero1", "--train.max_steps", "40",
                      "--train.log_every", "1")  # fmt: skip
    processes = start_ranks(2, script, arguments, log)
    try:
        deadline = time.monotonic() + 120
        while not (metrics.exists() and '"step": 16' in metrics.read_text()):
            assert time.monotonic() < deadline, log.read_text()[-4000:]
            assert all(p.exitcode is None for p in processes), log.read_text()[-4000:]
            time.sleep(0.05)
        time.sleep(1)
        assert json.loads(metrics.read_text().splitlines()[-1])["step"] == 16
    finally:
        for process in processes:
            process.kill()
            process.join()
    names = sorted(p.name for p in folder.iterdir())
    assert names == [".step-00000012.new", "step-00000008"]
    assert checkpoint.newest_complete(folder) == folder / "step-00000008"
    text = log.read_text()
    assert text.count("warning: ") == 1 and "Traceback" not in text, text
    assert f"the checkpoint of step 4 was not written: {folder}: No space left on device" in text
