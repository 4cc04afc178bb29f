"""Nothing that a run wrote is lost, and nothing poisoned is kept: saves, resumes, overwrites.

The runs are in this process, of a tiny model; each ends within seconds.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import resource
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_models import few, tiny_bert

from mipic_llm.commands.export import main as export_main
from mipic_llm.config import dump, flatten, from_settings, load_config
from mipic_llm.config.compare import BASE, DATA, MAY_CHANGE, NO_MATTER, compare
from mipic_llm.config.schema import OPTIONS
from mipic_llm.data.read.rows import Example, TextSource
from mipic_llm.disk import in_one_move
from mipic_llm.errors import EXIT_DONE, EXIT_INCOMPLETE, UserError, masked
from mipic_llm.model.directory import open_source
from mipic_llm.runtime import checkpoint, pickles
from mipic_llm.runtime.engine import consolidated
from mipic_llm.runtime.start import start
from mipic_llm.study.checks import check
from mipic_llm.study.spec import read_study
from mipic_llm.tracking.mlflow_remote import short
from mipic_llm.tracking.mlflow_run import MlflowTracker
from mipic_llm.training import loop, output, setup
from mipic_llm.training.loop import train
from mipic_llm.training.output import claim_output, clear
from mipic_llm.training.resume import check_resume, identity, past_batches


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    few(folder), few(folder, "validation", 40)
    return tiny_bert(folder / "base")


def flags(base: Path, out: Path, *more: str) -> list[str]:
    return ["--ds_config", "zero1", "--model.name", str(base), "--objective.dims", "8", "32",
            "--data.train", str(base.parent / "train" / "demo.jsonl"), "--data.max_length", "16",
            "--data.validation", "none", "--train.batch_size", "4", "--export.rehearse", "false",
            "--train.max_steps", "8", "--train.save_every", "2", "--train.keep_checkpoints", "0",
            "--tracking.mlflow", "off", "--output_dir", str(out), *more]  # fmt: skip


def run(base: Path, out: Path, *more: str, callbacks=()) -> int:
    return train(load_config(flags(base, out, *more)), callbacks)


@pytest.fixture(scope="module")
def done(base, tmp_path_factory) -> Path:
    """A finished run: checkpoints of steps 2, 4 and 6 of 8."""
    out = tmp_path_factory.mktemp("done") / "out"
    assert run(base, out) == EXIT_DONE
    return out


@pytest.fixture
def copy(done, tmp_path) -> Path:
    shutil.copytree(done, tmp_path / "out")
    return tmp_path / "out"


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def losses(out: Path) -> dict[int, float | None]:
    rows = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["loss"] for row in rows}


# ------------------------------------------------------------------------------ damaged checkpoints


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def told(**changes):
    """A manifest with other values; None = without the key."""

    def harm(folder: Path) -> None:
        table = json.loads((folder / checkpoint.MANIFEST).read_text()) | changes
        table = {key: value for key, value in table.items() if value is not None}
        (folder / checkpoint.MANIFEST).write_text(json.dumps(table))

    return harm


def write(text: str):
    return lambda folder: (folder / checkpoint.MANIFEST).write_text(text)


def becomes_a_link(folder: Path) -> None:
    (folder / "rank_0.pt").rename(folder.parent / "elsewhere.pt")
    (folder / "rank_0.pt").symlink_to(folder.parent / "elsewhere.pt")


DAMAGE = {
    "flipped": lambda f: flip(f / "rank_0.pt"),
    "cut": lambda f: os.truncate(f / "rank_0.pt", 100),
    "gone": lambda f: (f / "rank_0.pt").unlink(),
    "one more": lambda f: (f / "deepspeed" / "extra_optim_states.pt").write_bytes(b"x"),
    "link": becomes_a_link,
    "no manifest": lambda f: (f / checkpoint.MANIFEST).unlink(),
    "a folder": lambda f: ((f / checkpoint.MANIFEST).unlink(), (f / checkpoint.MANIFEST).mkdir()),
    "a list": write("[]"), "null": write("null"), "no JSON": write("{"), "empty": write(""),
    "deep": write("[" * 100_000),
    "not UTF-8": lambda f: (f / checkpoint.MANIFEST).write_bytes(b"\xff"),
    "other version": told(version=2), "no ranks": told(world_size=None), "a text": told(step="4"),
    "no files": told(files={}), "files as a list": told(files=["rank_0.pt"]),
    "no batch": told(batches=[[0, 4]]), "odd batches": told(batches=[[8, 5], [8, 4]]),
    "odd files": told(files={"rank_0.pt": None, "../../config.yaml": [1, "x"]}),
}  # fmt: skip


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_checkpoint_is_left_out_with_a_line(copy, capsys, how):
    folder = copy / "checkpoints"
    DAMAGE[how](folder / "step-00000006")
    assert checkpoint.newest_complete(folder) == folder / "step-00000004"
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 and "step-00000006 is damaged and left out: " in lines[0]


def test_strangers_among_checkpoints_are_left_alone(copy, tmp_path):
    folder, away = copy / "checkpoints", tmp_path / "away"
    away.mkdir()
    (away / "precious").write_text("x")
    (folder / "step-99999999").symlink_to(away)
    (folder / "step-notes").write_text("mine")
    (folder / "step-0000000x").mkdir()
    (folder / ".step-00000008.new").mkdir()  # torn by a kill
    assert checkpoint.newest_complete(folder) == folder / "step-00000006"
    checkpoint.prune(folder, 1)
    assert names(folder) == ["step-00000006", "step-0000000x", "step-99999999", "step-notes"]
    assert names(away) == ["precious"]


# ------------------------------------------------------------------------------- resume


def test_every_option_has_its_kind():
    free = {*NO_MATTER, *MAY_CHANGE, *DATA, *BASE}
    assert not NO_MATTER & MAY_CHANGE and len(free) < len(OPTIONS)
    for key in ("seed", "lora.alpha", "objective.tau", "objective.dims", "model.pooling",
                "data.max_length", "train.precision"):  # fmt: skip
        assert key in OPTIONS and key not in free, key


def checked(config, path: Path):
    start()
    config, source, data = setup.open_run(config)
    return check_resume(path, config, source, data)


OTHER = {
    "seed": "3", "lora.alpha": "7", "lora.rank": "4",
    "objective.tau": "0.1", "objective.dims": "16,32", "objective.name": "mrl",
    "model.pooling": "cls", "model.dropout": "0.3", "data.max_length": "12",
    "data.query_prompt": "q: ", "train.precision": "bf16", "sia.min_k": "3",
}  # fmt: skip


@pytest.mark.parametrize("key", OTHER)
def test_what_decides_the_training_is_refused_by_name(base, done, key):
    path = done / "checkpoints" / "step-00000004"
    config = load_config(flags(base, done, f"--{key}", OTHER[key]))
    with pytest.raises(UserError, match=f"would change: .*{key} ") as error:
        checked(config, path)
    assert "\n" not in str(error.value)


def test_what_auto_came_to_is_compared(base, done, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(done, out)
    path, config = out / "checkpoints" / "step-00000004", load_config(flags(base, out))
    checked(config, path)
    record = out / "environment.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"append_eos": "[SEP]"}))
    with pytest.raises(UserError, match=r"append_eos: .*out was trained with .SEP., .*takes None"):
        checked(config, path)


def test_rows_and_base_are_compared_by_content(base, done, tmp_path):
    path = done / "checkpoints" / "step-00000004"
    rows = [{"anchor": f"boat {i}", "positive": f"ship {i}"} for i in range(2000)]
    other = tmp_path / "rows.jsonl"
    other.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=r"data.train \(other rows\)"):
        checked(load_config(flags(base, done, "--data.train", str(other))), path)
    same, moved = tmp_path / "demo.jsonl", tmp_path / "moved"
    shutil.copy(base.parent / "train" / "demo.jsonl", same)
    shutil.copytree(base, moved)
    argv = flags(moved, tmp_path, "--data.train", str(same))
    assert {c.key for c in checked(load_config(argv), path)} == {"data.train", "model.name"}
    flip(moved / "model.safetensors")
    with pytest.raises(UserError, match=r"model.name \(other files\)"):
        checked(load_config(argv), path)


def test_what_a_run_goes_on_with_is_known_by_rows_weights_draws_base_and_teacher():
    rows = [Example(f"boat {i}", f"ship {i}", ("a", "b", "c"), i) for i in range(3)]
    one = TextSource("a", rows, 1.0)

    def told(source: TextSource) -> str:
        data = SimpleNamespace(sources=[source], teacher=None)
        return identity(SimpleNamespace(content="base"), data)["rows"]

    others = [one._replace(weight=2.0), one._replace(drawn=2), one._replace(examples=rows[:2])]
    assert len({told(one), *map(told, others)}) == 4
    assert told(one._replace(name="b")) == told(one)
    taught = SimpleNamespace(sources=[one], teacher=SimpleNamespace(key="vectors"))
    now = identity(SimpleNamespace(content="base"), taught)
    assert now == {"rows": told(one), "base": "base", "teacher": "vectors"}
    config, same = load_config([]), dict.fromkeys(now, True)
    assert compare(config, config, same) == []
    for key, words in (("rows", "other rows"), ("base", "other files"), ("teacher", "other vec")):
        with pytest.raises(UserError, match=words):
            compare(config, config, same | {key: False})


class Look:
    """Notes the optimizer's groups after the first step of a run."""

    def on_step(self, run, step, row):
        if not hasattr(self, "groups"):
            optimizer = run.engine.ds.optimizer
            self.groups = [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups]
            self.clip = optimizer.clip_grad


@pytest.mark.usefixtures("steps_alone")
def test_what_may_change_takes_effect_and_is_recorded(base, copy, capsys):
    look = Look()
    more = ["--train.learning_rate", "0.1", "--train.warmup_ratio", "0", "--train.weight_decay",
            "0.25", "--train.max_grad_norm", "0.5", "--train.resume", "auto"]  # fmt: skip
    assert run(base, copy, *more, callbacks=[look]) == EXIT_DONE
    rates = {rate for rate, _ in look.groups}
    assert min(rates) > 0.01 and {decay for _, decay in look.groups} == {0.25, 0.0}
    assert look.clip == 0.5
    line = "from step 6 on: train.learning_rate 0.0002 -> 0.1"
    assert line in capsys.readouterr().out
    text = (copy / "config.yaml").read_text()
    assert f"# {line}\n" in text and "\n  learning_rate: 0.1\n" in text
    assert load_config(["--recipe", str(copy / "config.yaml")]).train.learning_rate == 0.1


def test_going_back_sets_the_later_steps_aside(base, copy, capsys):
    folder, before = copy / "checkpoints", losses(copy)
    path, torn = str(folder / "step-00000002"), folder / ".step-00000004.new" / "deepspeed"
    torn.mkdir(parents=True)  # of a run of more ranks that was killed in a save
    (torn / "bf16_zero_pp_rank_7_mp_rank_00_optim_states.pt").write_bytes(b"x")
    assert run(base, copy, "--train.resume", path, "--train.keep_checkpoints", "2") == EXIT_DONE
    assert names(folder / "step-00000004" / "deepspeed") == names(
        folder / "left-1" / "step-00000004" / "deepspeed"
    )
    assert names(folder) == ["left-1", "step-00000004", "step-00000006"]
    assert names(folder / "left-1") == ["step-00000004", "step-00000006"]
    assert f"moved to {folder / 'left-1'}" in capsys.readouterr().out
    assert losses(copy) == before
    with pytest.raises(UserError, match="is at step 6, and this run has 5 steps; give more"):
        run(base, copy, "--train.resume", "auto", "--train.max_steps", "5")
    with pytest.raises(UserError, match="holds another run"):  # a checkpoint of somewhere else
        other = str(copy / "checkpoints" / "left-1" / "step-00000004")
        (copy.parent / "third").mkdir()
        (copy.parent / "third" / "config.yaml").write_text("# recipe: x\n")
        run(base, copy.parent / "third", "--train.resume", other)


def test_an_older_checkpoint_is_of_one_batch_size(copy):
    path = copy / "checkpoints" / "step-00000004"
    assert past_batches(path) == [(4, 4)]
    told(batches=None, world_size=2)(path)
    assert past_batches(path) == [(8, 4)]


@pytest.mark.usefixtures("steps_alone")
def test_an_older_checkpoint_that_holds_more_is_gone_on_from(base, copy):
    """The place in the epoch, which is the plan's alone now."""
    before, path = losses(copy), copy / "checkpoints" / "step-00000006" / "rank_0.pt"
    state = torch.load(path, weights_only=False)
    torch.save(state | {"epoch": 0, "cursor": 6}, path)
    files = checkpoint.manifest(path.parent)["files"]
    told(files=files | {path.name: checkpoint.fingerprint(path)})(path.parent)
    assert run(base, copy, "--train.resume", "auto") == EXIT_DONE
    assert losses(copy) == before


# ------------------------------------------------------------------------------ poisoned and torn


class Poison:
    """Makes a trained weight nan before step `at`, on this rank. rows: of that step."""

    def __init__(self, at: int) -> None:
        self.at, self.rows = at, []

    def on_step(self, run, step, row):
        if step == self.at - 1:
            plan = run.data.plan
            self.rows = [str(n + 1) for _, n in plan.batch(*plan.position(step))]
            trained = [p for p in run.engine.module.parameters() if p.requires_grad]
            trained[0].data.fill_(float("nan"))


@pytest.mark.parametrize("every", [1, 100], ids=["logged", "not logged"])
def test_a_loss_that_is_not_finite_stops_before_a_save(base, tmp_path, every):
    """Step 6 is the first bad one, and would have been saved."""
    out = tmp_path / "out"
    poison = Poison(6)
    with pytest.raises(UserError) as error:
        run(base, out, "--train.log_every", str(every), callbacks=[poison])
    line, rows = str(error.value), ", ".join(poison.rows)
    assert line.startswith("step 6: loss/")
    assert f"the gradient not finite, on rows {rows} of " in line
    assert "step-00000004 with --train.resume auto" in line and "\n" not in line
    assert names(out / "checkpoints") == ["step-00000002", "step-00000004"]
    assert not (out / "adapter").exists()
    assert run(base, out, "--train.resume", "auto", "--train.learning_rate", "1e-5") == EXIT_DONE


@pytest.mark.parametrize("why", ["stop", "evaluation"])
def test_a_stop_asked_for_looks_at_the_steps_that_nobody_looked_at(
    base, tmp_path, monkeypatch, why
):
    """Nothing else would: the step is not logged, and what follows is the export. So does an
    evaluation, which could only be of weights that are no numbers."""

    class Stop:
        def on_step(self, run, step, row):
            return "stop" if step == 5 and why == "stop" else None

    if why == "evaluation":
        monkeypatch.setattr(loop.Evaluator, "due", lambda self: self.run.step == 5)
        monkeypatch.setattr(loop.Evaluator, "during", lambda *_: pytest.fail("it was evaluated"))
    with pytest.raises(UserError, match=r"^step 4: loss/.* not finite"):
        run(base, tmp_path / "out", "--train.log_every", "100", "--train.save_every", "0",
            callbacks=[Poison(4), Stop()])  # fmt: skip


def test_weights_that_are_not_finite_are_not_saved(base, tmp_path):
    """The step's figures were fine: its update was not."""
    with pytest.raises(UserError, match="step 4: trained weights are not finite"):
        run(base, tmp_path / "out", callbacks=[Poison(5)])
    assert names(tmp_path / "out" / "checkpoints") == ["step-00000002"]


@pytest.mark.usefixtures("steps_alone")
def test_the_guard_reads_the_device_seldom(base, tmp_path, monkeypatch):
    from mipic_llm.training.step import StepRunner

    read, whole = [], StepRunner.not_finite
    monkeypatch.setattr(StepRunner, "not_finite", lambda self: (read.append(1), whole(self))[1])
    run(base, tmp_path / "out", "--train.log_every", "100", "--train.save_every", "0",
        "--train.max_steps", "40")  # fmt: skip
    assert len(read) == 3  # at steps 16 and 32, and at the last


class SmallDisk:
    """From step `first` to `last` no file can grow beyond 1 kB."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last

    def on_step(self, run, step, row):
        if step in (self.first, self.last):
            run.finish()
            self.left = names(run.out / "checkpoints")
            most = 1000 if step == self.first else resource.RLIM_INFINITY
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


def test_a_full_disk_is_one_line_and_the_run_goes_on(base, tmp_path, capsys):
    out = tmp_path / "out"
    try:
        assert run(base, out, callbacks=[disk := SmallDisk(3, 5)]) == EXIT_DONE
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    assert disk.left == ["step-00000002"], "what was begun takes room that there is not"
    assert names(out / "checkpoints") == ["step-00000002", "step-00000006"]
    lines = [x for x in capsys.readouterr().out.splitlines() if x.startswith("warning")]
    assert len(lines) == 1, lines
    assert "checkpoint of step 4 was not written" in lines[0] and "File too large" in lines[0]


class Wipe:
    """Deletes the output directory after step 3."""

    def on_step(self, run, step, row):
        if step == 3:
            run.finish()
            shutil.rmtree(run.out)


def test_an_output_directory_deleted_in_mid_run(base, tmp_path, capsys):
    """What can be made again is there at the end; what cannot is named, and the code is 1."""
    out = tmp_path / "out"
    assert run(base, out, callbacks=[Wipe()]) == EXIT_INCOMPLETE
    assert {"adapter", "checkpoints", "config.yaml", "parity.json"} <= set(names(out))
    last = capsys.readouterr().out.splitlines()[-1]
    assert "metrics.jsonl" in last and str(out) in last


def test_a_disk_that_is_full_at_the_start_is_one_line(base, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
        with pytest.raises(UserError, match="output_dir: .*File too large"):
            run(base, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)


# ------------------------------------------------------------------------------ strangers


class Evil:
    def __reduce__(self):
        return os.mkdir, (os.environ["EVIL"],)


def evil_state(path: Path) -> None:
    state = torch.load(path, weights_only=False)
    torch.save(state | {"more": Evil()}, path)


def evil_legacy(path: Path) -> None:
    torch.save({"more": Evil()}, path, _use_new_zipfile_serialization=False)


def evil_plain(path: Path) -> None:
    path.write_bytes(pickle.dumps(Evil(), protocol=4))


def one(folder: Path, pattern: str) -> Path:
    return next((folder / "deepspeed").glob(pattern))


WAYS = {
    "own state": lambda f: evil_state(f / "rank_0.pt"),
    "model": lambda f: evil_state(one(f, "*model_states.pt")),
    "optimizer": lambda f: evil_state(one(f, "*optim_states.pt")),
    "old format": lambda f: evil_legacy(one(f, "*optim_states.pt")),
    "plain pickle": lambda f: evil_plain(f / "rank_0.pt"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_strangers_checkpoint_runs_nothing(base, copy, tmp_path, monkeypatch, way):
    """Its manifest is right: whoever made it made that too."""
    path = copy / "checkpoints" / "step-00000006"
    monkeypatch.setenv("EVIL", str(tmp_path / "ran"))
    WAYS[way](path)
    table = json.loads((path / checkpoint.MANIFEST).read_text())
    table["files"] = {name: checkpoint.fingerprint(path / name) for name in table["files"]}
    (path / checkpoint.MANIFEST).write_text(json.dumps(table))
    assert checkpoint.damage(path) is None
    with pytest.raises(UserError, match="nothing of it was run"):
        run(base, copy, "--train.resume", "auto")
    with pytest.raises(UserError, match="nothing of it was run"):
        consolidated(path, trainable_only=True)
    with pytest.raises(pickle.UnpicklingError), pickles.numbers_only():  # without the look before
        for file in path.rglob("*.pt"):
            torch.load(file, weights_only=False)
    assert not (tmp_path / "ran").exists()


def test_one_rank_of_several_reads_a_checkpoint_by_itself(base, copy, tmp_path, monkeypatch):
    """`mipic_llm.export` does, in a program of several ranks: the others wait for its end."""
    monkeypatch.setenv("EVIL", str(tmp_path / "ran"))
    monkeypatch.setattr(pickles.dist, "world_size", lambda: 2)
    monkeypatch.setattr(pickles.dist, "gather_objects", lambda *_: pytest.fail("asks the others"))
    path = copy / "checkpoints" / "step-00000006"
    assert consolidated(path, trainable_only=True)
    evil_state(path / "rank_0.pt")
    with pytest.raises(UserError, match="nothing of it was run"):
        consolidated(path, trainable_only=True)


@pytest.mark.usefixtures("steps_alone")
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_honest_checkpoints_are_read(base, tmp_path, stage):
    """With a best checkpoint in the state, which is one of our own types; stage 1 is above."""
    out = tmp_path / "out"
    more = ["--ds_config", f"zero{stage}", "--train.max_steps", "4", "--data.validation",
            str(base.parent / "validation" / "demo.jsonl"), "--eval.every", "2",
            "--eval.best", "demo/spearman@32@4"]  # fmt: skip
    assert run(base, out, *more) == EXIT_DONE
    assert consolidated(out / "checkpoints" / "step-00000002", trainable_only=True)
    before = losses(out)
    assert run(base, out, *more, "--train.resume", "auto") == EXIT_DONE
    assert losses(out) == before


# ------------------------------------------------------------------------------ overwrite


def test_overwrite_deletes_what_a_run_wrote_and_nothing_else(base, copy):
    (copy / "notes.md").write_text("mine")
    (copy / "checkpoints" / "notes.md").write_text("mine")
    for name in (".git", "shallow-1x16", "rotated-2x32", "lens-1x32"):
        (copy / name).mkdir()
    with claim_output(load_config(flags(base, copy, "--overwrite", "true"))):
        assert (copy / "adapter").is_dir(), "deleted before the input was read"
        clear(copy)
    assert names(copy) == [".git", ".lock", "checkpoints", "notes.md"]
    assert names(copy / "checkpoints") == ["notes.md"]


def test_overwrite_leaves_what_no_run_wrote(base, tmp_path):
    for text in ("name: my project\n", "# recipe: x\nversion: 3\n", "seed: 1\n", "\x00"):
        folder = tmp_path / str(len(text))
        folder.mkdir()
        (folder / "config.yaml").write_text(text)
        with pytest.raises(UserError, match="was not written by a run"):
            claim_output(load_config(flags(base, folder, "--overwrite", "true")))
        assert names(folder) == [".lock", "config.yaml"]


def test_a_start_killed_at_any_moment_can_be_made_again(base, copy, tmp_path, monkeypatch):
    """Nobody is told to delete by hand what a killed start or --overwrite left."""
    out = tmp_path / "new"
    (out / ".rehearsal" / ".adapter.new").mkdir(parents=True)  # killed in the rehearsal,
    (out / ".config.yaml.new").write_text("# reci")  # or in the first file
    with monkeypatch.context() as patch:  # or after it
        patch.setattr(loop, "make_trackers", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(base, out, "--export.rehearse", "true")
    with pytest.raises(UserError, match="--overwrite true"):
        run(base, out)
    claim_output(load_config(flags(base, out, "--overwrite", "true"))).close()
    unlink = Path.unlink
    for name in output._FILES:  # or in the middle of --overwrite
        monkeypatch.setattr(Path, "unlink", lambda path, name=name, **how: (
            1 / 0 if path.name == name else unlink(path, **how)))  # fmt: skip
        with pytest.raises(ZeroDivisionError):
            clear(copy)
        claim_output(load_config(flags(base, copy, "--overwrite", "true"))).close()
    monkeypatch.undo()
    assert run(base, copy, "--overwrite", "true", "--train.max_steps", "2") == EXIT_DONE


def test_a_directory_is_free_again_after_an_error(base, tmp_path, monkeypatch, capsys):
    """Where the error and its frames are kept, as in a notebook."""
    bad, kept = tmp_path / "bad.jsonl", []
    bad.write_text('{"anchor": 3, "positive": "x"}\n')
    for _ in range(2):
        with pytest.raises(UserError, match="line 1: anchor is a number") as error:
            run(base, tmp_path / "out", "--data.train", str(bad))
        kept.append(error)
    (tmp_path / "out" / "notes.md").write_text("mine")
    for _ in range(2):
        with pytest.raises(UserError, match="holds another run") as error:
            run(base, tmp_path / "out", "--data.train", str(bad))
        kept.append(error)

    def no_locks(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(output.fcntl, "flock", no_locks)
    claim_output(load_config(flags(base, tmp_path / "other"))).close()
    assert "knows no locks" in capsys.readouterr().out


@pytest.mark.usefixtures("steps_alone")
def test_a_resumed_run_checks_the_batch_that_comes_next(base, tmp_path):
    """With larger batches the running epoch may have none left."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(
            json.dumps({"anchor": f"{a} boat", "positive": f"{a} ship"}) + "\n" for a in range(18)
        )
    )
    more = ["--data.train", str(rows), "--train.save_every", "3"]
    assert run(base, tmp_path / "out", *more, "--train.max_steps", "4") == EXIT_DONE
    more += ["--train.resume", "auto", "--train.batch_size", "8", "--train.chunk_size", "6"]
    assert run(base, tmp_path / "out", *more, "--train.max_steps", "5") == EXIT_DONE
    assert list(losses(tmp_path / "out")) == [1, 2, 3, 4, 5]


def test_a_mistake_deletes_nothing(base, copy, tmp_path, monkeypatch):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"anchor": 3, "positive": "x"}\n')
    before = names(copy)
    for more in (
        ["--data.train", str(bad)], ["--model.name", "nowhere/at/all"],
        ["--data.validation", "demo", "--eval.every", "2", "--eval.best", "demo/spearmann@32@4"],
        ["--tracking.mlflow", "off", "--tracking.register", "name"],
    ):  # fmt: skip
        with pytest.raises(UserError):
            run(base, copy, "--overwrite", "true", *more)
        assert names(copy) == before
    monkeypatch.setenv("MLFLOW_TAGS", "team: a")
    with pytest.raises(UserError, match="MLFLOW_TAGS"):
        run(base, copy, "--overwrite", "true")
    assert names(copy) == before
    monkeypatch.delenv("MLFLOW_TAGS")
    assert run(base, copy, "--overwrite", "true", "--train.save_every", "0") == EXIT_DONE
    assert not (copy / "checkpoints").exists() and (copy / "adapter").is_dir()


def test_links_in_the_output_directory_are_not_followed(base, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("keep me")
    for name in (".lock", "config.yaml", "metrics.jsonl.tmp"):
        out = tmp_path / f"out{name}"
        out.mkdir()
        (out / name).symlink_to(secret)
        with pytest.raises(UserError, match="output_dir"):
            claim_output(load_config(flags(base, out)))
    assert secret.read_text() == "keep me"


def test_a_model_with_links_out_of_it_is_refused(base, tmp_path):
    secret, model = tmp_path / "secret", tmp_path / "model"
    secret.write_text("{}")
    shutil.copytree(base, model)
    (model / "chat_template.jinja").symlink_to(secret)
    config = load_config(flags(model, tmp_path)).model
    with pytest.raises(UserError, match="chat_template.jinja is a link out of the directory"):
        open_source(config)
    blobs = tmp_path / "models--a--b" / "blobs"  # as the hub's cache holds them
    blobs.mkdir(parents=True)
    (model / "chat_template.jinja").unlink()
    (model / "tokenizer.json").rename(blobs / "0123")
    (model / "tokenizer.json").symlink_to(blobs / "0123")
    open_source(config)


# ------------------------------------------------------------------------------ trust, passwords


def test_only_a_typed_flag_trusts_code_of_others(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    for text in ("true", "'true'", "yes"):
        recipe.write_text(f"model:\n  trust_remote_code: {text}\n")
        with pytest.raises(UserError, match="trust_remote_code"):
            load_config(["--recipe", str(recipe)])
        with pytest.raises(UserError, match="trust_remote_code"):
            from_settings({"seed": 1}, recipe=str(recipe))
    recipe.write_text("model:\n  trust_remote_code: true\n")
    assert load_config(
        ["--recipe", str(recipe), "--model.trust_remote_code"]
    ).model.trust_remote_code
    assert not load_config(
        ["--recipe", str(recipe), "--model.trust_remote_code", "false"]
    ).model.trust_remote_code


@pytest.mark.parametrize("where", ["settings", "methods", "recipe"])
def test_a_study_trusts_no_code_of_others(tmp_path, where):
    (tmp_path / "r.yaml").write_text("model:\n  trust_remote_code: true\n")
    tree = {"name": "s", "methods": {"a": {}}, "settings": {}}
    if where == "recipe":
        tree["recipe"] = str(tmp_path / "r.yaml")
    else:
        own = tree["settings"] if where == "settings" else tree["methods"]["a"]
        own["model.trust-remote-code"] = True
    (tmp_path / "s.yaml").write_text(json.dumps(tree))
    with pytest.raises(UserError, match="trust_remote_code"):
        check(read_study(tmp_path / "s.yaml"), tmp_path, files=False)


def test_an_export_asks_again_for_trust(base, copy):
    path = copy / "config.yaml"
    text = path.read_text()
    path.write_text(text.replace("trust_remote_code: false", "trust_remote_code: true"))
    assert path.read_text() != text
    with pytest.raises(UserError, match="trust_remote_code"):
        export_main(["--output_dir", str(copy), "--merged"])


def test_a_message_stays_readable():
    text = str(UserError(f"what is {'x' * 10**6}; what to do"))
    assert len(text) < 1200 and text.startswith("what is x") and text.endswith("; what to do")


def test_passwords_in_uris_are_shown_nowhere(tmp_path):
    uri = "postgresql://ann:se@cr@et@host:5432/db"
    config = load_config(["--tracking.mlflow", uri, "--output_dir", str(tmp_path)])
    texts = [dump(config), str(UserError(f"tracking.mlflow: {uri} is away"))]
    tracker = MlflowTracker(uri, "e", "r")
    sent = {}
    tracker.remote.params = sent.update  # what the worker would send
    tracker.params(flatten(config))
    tracker._jobs[0].send()
    texts += [sent["tracking.mlflow"], short(RuntimeError(f"500 from {uri}"))]
    for text in texts:
        assert "cr@et" not in text and "ann" not in text and "***@host" in text, text
    assert masked("sqlite:///a@b/c.db https://host/x@y a@b.org") == (
        "sqlite:///a@b/c.db https://host/x@y a@b.org"
    )


def test_a_file_that_is_not_written_whole_leaves_the_old_one_and_nothing_beside(tmp_path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="full"), in_one_move(path) as fresh:
        fresh.write_text("ne")
        raise OSError("full")
    assert path.read_text() == "old" and [*tmp_path.iterdir()] == [path]
    with in_one_move(path) as fresh:
        fresh.write_text("new")
    assert path.read_text() == "new" and [*tmp_path.iterdir()] == [path]
