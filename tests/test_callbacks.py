"""Hooks of a run: their order, stopping and failing on one rank and on two, signals, lazy rows."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from ranks import ROOT, run_ranks
from tiny_models import SENTENCES, few, tiny_bert, tiny_qwen3

from mipic_llm.config import load_config
from mipic_llm.errors import EXIT_DONE, EXIT_STOPPED, UserError
from mipic_llm.training.callbacks import Callback, check_callbacks
from mipic_llm.training.loop import train
from mipic_llm.training.run import CallbackError

WORKER = ROOT / "tests" / "callback_worker.py"


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("base")
    pairs = [
        {"sentence1": a, "sentence2": b, "score": float(i % 5)}
        for i, (a, b) in enumerate(zip(SENTENCES, SENTENCES[1:], strict=False))
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    few(folder)
    return tiny_bert(folder / "bert"), folder / "pairs.jsonl"


def flags(base: tuple[Path, Path], out: Path, *more: str) -> list[str]:
    return [
        "--model.name", str(base[0]), "--objective.dims", "8,16,32", "--data.max_length", "16",
        "--data.validation", str(base[1]), "--train.batch_size", "4", "--sia.layers", "1,2,4",
        "--pic.ladder", "8@1,16@2,32@4", "--tracking.mlflow", "off", "--train.max_steps", "6",
        "--data.train", str(base[0].parent / "train" / "demo.jsonl"), "--export.rehearse", "false",
        "--output_dir", str(out), *more,
    ]  # fmt: skip


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


class Record(Callback):
    """Keeps every call; does what it is told at a step."""

    def __init__(self, at: int = 0, act=lambda run: None) -> None:
        self.calls, self.at, self.act = [], at, act

    def on_start(self, run):
        self.calls.append(("start", run.step, run.total))

    def on_step(self, run, step, row):
        self.calls.append(("step", step, row.get("loss")))
        return self.act(run) if step == self.at else None

    def on_evaluation(self, run, step, scores):
        self.calls.append(("evaluation", step, len(scores)))

    def on_save(self, run, path):
        assert path.exists()
        self.calls.append(("save", path.relative_to(run.out).as_posix()))

    def on_end(self, run, status):
        self.calls.append(("end", status))


def test_every_hook_is_called_in_order(base, tmp_path) -> None:
    out, record = tmp_path / "run", Record()
    more = ["--eval.every", "4", "--eval.points", "8@4", "--train.save_every", "3"]
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    assert train(load_config(flags(base, out, *more)), [record]) == EXIT_DONE
    assert [c for c in record.calls if c[0] != "save"] == [
        ("start", 0, 6), ("evaluation", 0, 5), *(("step", i + 1, losses(out)[i]) for i in range(4)),
        ("evaluation", 4, 1), *(("step", i + 1, losses(out)[i]) for i in (4, 5)),
        ("evaluation", 6, 5), ("end", "FINISHED"),
    ]  # fmt: skip
    saved = [c[1] for c in record.calls if c[0] == "save"]
    assert saved == ["config.yaml", "environment.json", "checkpoints/step-00000003", "parity.json",
                     "adapter", "table.txt", "comparison.json", "scores.jsonl", "loss.png",
                     "quality.png"]  # fmt: skip
    assert handlers == [
        signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    ]


@pytest.mark.parametrize(
    ("act", "reason"),
    [(lambda run: "stop", "Record asked for it"), (lambda run: run.stop("enough"), "enough")],
    ids=["returns stop", "calls run.stop"],
)
def test_a_callback_stops_a_run_which_then_ends_as_usual(base, tmp_path, act, reason, capsys):
    out, record = tmp_path / "run", Record(2, act)
    assert train(load_config(flags(base, out)), [record]) == EXIT_DONE
    assert len(losses(out)) == 2 and (out / "adapter").is_dir() and (out / "table.txt").is_file()
    assert record.calls[-1] == ("end", "FINISHED")
    assert f"stopping at step 2: {reason}\n" in capsys.readouterr().out


def test_a_callback_that_raises_fails_the_run_and_is_named(base, tmp_path) -> None:
    def act(run):
        raise ValueError("too hot")

    out, boom, witness = tmp_path / "run", Record(3, act), Record()
    with pytest.raises(CallbackError, match=r"callback Record\.on_step: ValueError: too hot"):
        train(load_config(flags(base, out)), [boom, witness])
    assert len(losses(out)) == 3 and not (out / "adapter").exists()
    assert witness.calls[-1] == boom.calls[-1] == ("end", "FAILED")


def test_an_error_at_the_end_is_raised_after_the_export(base, tmp_path) -> None:
    class AtEnd(Callback):
        def on_end(self, run, status):
            raise OSError("mail server")

    with pytest.raises(CallbackError, match=r"AtEnd\.on_end: OSError: mail server"):
        train(load_config(flags(base, tmp_path / "run", "--train.max_steps", "1")), [AtEnd()])
    assert (tmp_path / "run" / "adapter").is_dir()


def test_a_signal_saves_and_stops(base, tmp_path) -> None:
    record = Record(2, lambda run: signal.raise_signal(signal.SIGINT))
    before = signal.getsignal(signal.SIGINT)  # ignored where a shell started the tests with &
    assert train(load_config(flags(base, tmp_path / "run")), [record]) == EXIT_STOPPED
    assert record.calls[-2:] == [("save", "checkpoints/step-00000002"), ("end", "KILLED")]
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("what", ["stop", "raise"])
def test_ranks_agree(base, tmp_path, what) -> None:
    """Rank 1's wish or error reaches rank 0 in the same step; nobody waits for the other."""
    code, text = run_ranks(2, WORKER, [what, *flags(base, tmp_path / "run")], timeout=200)
    status = {"stop": "FINISHED", "raise": "FAILED"}[what]
    for r in (0, 1):  # within a line: another rank's traceback may have begun it
        assert f"rank {r} ended at step 2: {status}" in text, text
    assert (code == 0) == (what == "stop")
    assert len(losses(tmp_path / "run")) == 2  # rank 0 alone writes rows
    if what == "raise":
        assert "CallbackError: callback OnlyRankOne.on_step: ValueError: too hot" in text


class Misspelt:
    def on_steps(self, run, step, row): ...


@pytest.mark.parametrize(
    ("callback", "complaint"),
    [
        (Misspelt(), r"Misspelt\.on_steps is not a hook; did you mean on_step"),
        (print, "has none of the hooks on_start"),
        (Record, r"Record is a class; give an instance, Record\(\)"),
    ],
)
def test_what_is_no_callback_is_the_users_error(callback, complaint) -> None:
    with pytest.raises(UserError, match=complaint):
        check_callbacks([callback])


@pytest.mark.usefixtures("steps_alone")
def test_rows_are_empty_where_log_every_leaves_a_step_out(base, tmp_path) -> None:
    record = Record()
    assert train(load_config(flags(base, tmp_path, "--train.log_every", "4")), [record]) == 0
    steps = [loss for kind, *_, loss in record.calls if kind == "step"]
    assert [loss is None for loss in steps] == [True, True, True, False, True, False]
    assert losses(tmp_path) == [steps[3], steps[5]]  # and the last step is logged


def test_the_rate_is_that_of_all_steps_since_the_last_row(base, tmp_path, monkeypatch) -> None:
    """On a GPU the step that is logged waits for those before it; here each owes half a second, by
    a clock that nothing else moves."""
    from mipic_llm.training import stepping
    from mipic_llm.training.step import StepRunner

    whole, owed, tokens, clock = StepRunner.run, [0.0], [], [0.0]

    def late(self, batch, step, wanted=True, **counts):
        owed[0] += 0.5
        tokens.append(sum(map(len, batch.batch.ids)))
        row = whole(self, batch, step, wanted, **counts)
        clock[0] += owed[0] if wanted else 0
        owed[0] = 0 if wanted else owed[0]
        return row

    monkeypatch.setattr(StepRunner, "run", late)
    stand_in = SimpleNamespace(perf_counter=lambda: clock[0], monotonic=time.monotonic)
    monkeypatch.setattr(stepping, "time", stand_in)
    train(load_config(flags(base, tmp_path, "--train.log_every", "4")))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    rates = [json.loads(line)["tokens_per_second"] for line in lines]
    for rate, own in zip(rates, (tokens[:4], tokens[4:]), strict=True):
        assert rate == pytest.approx(sum(own) / (0.5 * len(own)))


def test_a_run_without_a_logged_row_has_no_plot_and_ends_well(base, tmp_path, capsys) -> None:
    out = tmp_path / "run"
    config = load_config(flags(base, out, "--train.log_every", "100"))
    assert train(config, [Record(2, lambda run: "stop")]) == EXIT_DONE
    assert losses(out) == [] and not (out / "loss.png").exists()
    assert "no plot: it has no losses yet" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "cause"),
    [(tiny_bert, r"model\.dropout is 0 \(set by the flag\)"), (tiny_qwen3, "it has no dropout")],
)
def test_unlabelled_text_without_dropout_is_told_the_true_cause(tmp_path, model, cause) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES) + "\n")
    base = (model(tmp_path / "model"), "none")
    more = ["--data.train", str(tmp_path / "texts.txt"), "--model.dropout", "0"]
    with pytest.raises(UserError, match=cause):
        train(load_config(flags(base, tmp_path / "run", *more)))
