"""--eval.every, --eval.points, --eval.best and --eval.patience in real runs."""

from __future__ import annotations

import json
import math
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ranks import ROOT, run_ranks
from tiny_models import SENTENCES, few, tiny_bert, tiny_qwen3

from mipic_llm.config import load_config
from mipic_llm.errors import UserError
from mipic_llm.evaluation.tasks.base import StsTask
from mipic_llm.evaluation.tasks.classification import ClassificationTask, LabelledTexts
from mipic_llm.evaluation.tasks.pairs import LabelledPairs, PairsTask
from mipic_llm.evaluation.tasks.retrieval import METRICS, RetrievalTask
from mipic_llm.report import read_scores, write_scores
from mipic_llm.runtime import checkpoint, saving
from mipic_llm.training import loop
from mipic_llm.training.evaluator import Evaluator
from mipic_llm.training.run import CallbackError
from mipic_llm.types import Point, Score

SCRIPT = ROOT / "launch" / "train.py"
BEST = "pairs/spearman@8@4"


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("base")
    few(folder)
    model = tiny_bert(folder / "bert")
    pairs = folder / "pairs.jsonl"
    words = "red blue green cold warm soft hard tall".split()
    rows = [
        {"sentence1": f"a {a} stone", "sentence2": f"one {b} rock", "score": float(i * 7 % 5)}
        for i, (a, b) in enumerate((a, b) for a in words for b in words)
    ]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return model, pairs


def flags(base: tuple[Path, Path], out: Path, *more: str) -> list[str]:
    model, pairs = base
    return [
        "--data.train", str(model.parent / "train" / "demo.jsonl"), "--export.rehearse", "false",
        "--model.name", str(model), "--objective.dims", "8,16,32", "--data.max_length", "16",
        "--data.validation", str(pairs), "--train.batch_size", "4", "--train.learning_rate", "5e-3",
        "--sia.layers", "1,2,4", "--pic.ladder", "8@1,16@2,32@4", "--tracking.mlflow", "off",
        "--output_dir", str(out), *more,
    ]  # fmt: skip


def train(base, out: Path, *more: str, world: int = 1) -> str:
    code, text = run_ranks(world, SCRIPT, flags(base, out, *more))
    assert code == 0, text[-4000:]
    return text


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def during(out: Path) -> list[dict]:
    rows = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    return [row for row in rows if row["stage"] == "during"]


def test_best_checkpoint_is_exported_and_training_is_undisturbed(base, tmp_path) -> None:
    plain, watched = tmp_path / "plain", tmp_path / "watched"
    zero3 = ["--ds_config", str(ROOT / "ds_configs" / "zero3.json"), "--train.max_steps", "6"]
    train(base, plain, *zero3, world=2)
    train(base, watched, *zero3, "--eval.every", "2", "--eval.points", "8@4", "16@2",
          "--eval.best", BEST, world=2)  # fmt: skip
    assert losses(plain) == losses(watched)  # an evaluation draws nothing and changes nothing
    rows = during(watched)
    assert {(r["step"], r["layer"], r["dim"]) for r in rows} == {
        (step, *point) for step in (2, 4, 6) for point in ((4, 8), (2, 16))
    }
    value = {r["step"]: r["value"] for r in rows if (r["layer"], r["dim"]) == (4, 8)}
    assert len(set(value.values())) == 3
    best = max(value, key=lambda step: value[step])
    after = {s.name: s.value for s in read_scores(watched / "scores.jsonl", stage="after")}
    assert after[BEST] == pytest.approx(value[best], abs=1e-6)
    assert [p.name for p in (watched / "best").iterdir()] == [f"step-{best:08d}"]
    same = (watched / "adapter" / "adapter_model.safetensors").read_bytes() == (
        plain / "adapter" / "adapter_model.safetensors"
    ).read_bytes()
    assert same == (best == 6)


def test_patience_ends_a_run_that_gets_no_better(base, tmp_path) -> None:
    out = tmp_path / "run"
    text = train(base, out, "--train.max_steps", "40", "--eval.every", "1", "--eval.points", "8@4",
                 "--eval.best", "pairs/spearman@4x8", "--eval.patience", "2")  # fmt: skip
    steps = len(losses(out))
    assert steps < 40 and "2 evaluations since were no better" in text
    values = [r["value"] for r in during(out)]
    assert len(values) == steps and max(values) == values[-3]
    assert max(values[:-2]) == values[-3] >= max(values[-2:])


def test_the_best_is_the_first_of_equals_and_a_number(base, tmp_path, monkeypatch) -> None:
    """What is no number is worse than any; patience counts from the best; a run that goes on by
    another figure looks for its best anew."""
    values = {1: math.nan, 2: 0.5, 3: 0.5, 4: 0.4, 5: 0.3}

    def figures(self, points, stage):
        value = values.get(self.run.step, 0.0) if stage == "during" else 0.0
        return [Score("pairs", "spearman", point, value, 64) for point in points]

    monkeypatch.setattr(Evaluator, "_score", figures)
    monkeypatch.setattr(loop, "export", lambda *_: None)
    monkeypatch.setattr(loop, "report", lambda *_: None)
    out = tmp_path / "out"
    more = ["--eval.every", "1", "--eval.patience", "3", "--train.max_steps", "9",
            "--train.save_every", "2", "--eval.best"]  # fmt: skip
    for figure, resume, steps, best in (
        (BEST, "never", 5, 2), ("pairs/spearman@16@4", "auto", 7, 4)
    ):  # fmt: skip
        config = load_config(flags(base, out, "--train.resume", resume, *more, figure))
        assert loop.train(config) == 0
        assert len(losses(out)) == steps
        assert [p.name for p in (out / "best").iterdir()] == [f"step-{best:08d}"]


@pytest.mark.usefixtures("steps_alone")
def test_the_best_that_a_checkpoint_speaks_of_stays(base, tmp_path, monkeypatch, capfd) -> None:
    """The disk does not take step 3, which is told when step 4 is looked at, so that step 4 is the
    best when it is saved; nor is step 5, a new best, known to a checkpoint when the run ends. It
    goes on from step 4, which is not evaluated again, and ends with the weights of that one, or
    with the best of the steps that follow where somebody deleted it."""
    values = {2: 0.5, 3: 0.55, 4: 0.52, 5: 0.6}
    asked, loaded, load, write = [], [], checkpoint.load, saving._write
    looked = threading.Event()

    def figures(self, points, stage):
        step = self.run.step if stage == "during" else None
        asked.append(step)
        looked.set() if step == 4 else None
        found = [Score("pairs", "spearman", p, values.get(step, 0.0), 64) for p in points]
        write_scores(self.path, found, append=stage != "before", step=step, stage=stage)
        return found

    def written(fresh, *rest):
        if fresh.name == ".step-00000003.new" and looked.wait(60):
            raise saving.NotWritten("no room")
        return write(fresh, *rest)

    class Ends:
        def on_step(self, run, step, row):
            if step == 6:
                raise RuntimeError("it ends here")

    monkeypatch.setattr(Evaluator, "_score", figures)
    monkeypatch.setattr(saving, "_write", written)
    monkeypatch.setattr(checkpoint, "load", lambda path, *a, **k: (
        loaded.append(path), load(path, *a, **k))[1])  # fmt: skip
    out = tmp_path / "out"
    more = ["--eval.every", "1", "--train.max_steps", "7", "--train.save_every", "4", "--eval.best",
            BEST]  # fmt: skip
    with pytest.raises(CallbackError, match="it ends here"):
        loop.train(load_config(flags(base, out, *more)), [Ends()])
    assert sorted(p.name for p in (out / "best").iterdir()) == ["step-00000004", "step-00000005"]
    del values[5], asked[:]
    assert loop.train(load_config(flags(base, out, *more, "--train.resume", "auto"))) == 0
    assert asked == [5, 6, 7, None]
    assert loaded == [out / "checkpoints" / "step-00000004", out / "best" / "step-00000004"]
    assert sorted(p.name for p in (out / "best").iterdir()) == ["left-1", "step-00000004"]
    shutil.rmtree(out / "best")
    del loaded[:]
    assert loop.train(load_config(flags(base, out, *more, "--train.resume", "auto"))) == 0
    assert loaded == [out / "checkpoints" / "step-00000004", out / "best" / "step-00000005"]
    assert "the best so far, step 4, is not in" in capfd.readouterr().out
    steps = [row["step"] for row in during(out) if (row["layer"], row["dim"]) == (4, 8)]
    assert steps == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--eval.every", "2", "--eval.best", "pairs/spearman@9@4"], "did you mean"),
        (["--eval.best", BEST], "eval.best needs evaluations"),
        (["--eval.every", "2", "--eval.patience", "1"], "eval.patience needs a figure"),
        (["--eval.every", "2", "--eval.points", "8@3"], "eval.points: 8@3 is not among"),
        (["--eval.every", "2", "--data.validation", "none"], "data.validation is empty"),
    ],
)
def test_mistakes_are_one_line(base, tmp_path, more, complaint) -> None:
    with pytest.raises(UserError, match=complaint) as told:
        loop.train(load_config(flags(base, tmp_path / "out", *more)))
    assert "\n" not in str(told.value)


def test_a_resumed_run_with_a_misspelt_figure_stops_before_its_first_step(base, tmp_path, capfd):
    out, more = tmp_path / "out", ["--train.save_every", "2", "--train.max_steps"]
    loop.train(load_config(flags(base, out, *more, "3")))
    shutil.rmtree(out / "adapter")
    (out / "scores.jsonl.tmp").mkdir()  # nor does a disk that takes no file stop it
    wrong = ["--eval.every", "2", "--eval.best", "pairs/spearmann@8@4", "--train.resume", "auto"]
    with pytest.raises(UserError, match="did you mean pairs/spearman@8@4"):
        loop.train(load_config(flags(base, out, *more, "6", *wrong)))
    assert len(losses(out)) == 3, "the steps after the checkpoint are still there"
    right = [word.replace("spearmann", "spearman") for word in wrong]
    loop.train(load_config(flags(base, out, *more, "6", *right)))
    assert len(losses(out)) == 6
    assert "scores.jsonl keeps rows of steps that are made again" in capfd.readouterr().out


@pytest.mark.usefixtures("steps_alone")
def test_a_run_that_goes_on_elsewhere_is_compared_with_its_own_beginning(base, tmp_path, capfd):
    """Not with the trained model that it goes on with."""

    def run(name: str, *more: str) -> Path:
        more = "--train.save_every", "2", "--train.max_steps", "5", *more
        loop.train(load_config(flags(base, tmp_path / name, *more)))
        return tmp_path / name

    out = run("out")
    path = out / "checkpoints" / "step-00000004"
    aside = shutil.copytree(path, out / "checkpoints" / "left-1" / path.name)
    for name, place in (("one", path), ("two", aside)):
        again = run(name, "--train.resume", str(place))
        for stage in ("before", "after"):
            here, there = (read_scores(x / "scores.jsonl", stage) for x in (again, out))
            assert here == there and len(here) > 3
        assert len(losses(again)) == 1
    capfd.readouterr()
    (out / "scores.jsonl").unlink()
    run("three", "--train.resume", str(path))
    assert "those of step 4 stand for them" in capfd.readouterr().out


@pytest.mark.parametrize("kind", ["sts", "pairs", "untuned", "classification", "retrieval"])
def test_a_task_names_its_figures(kind) -> None:
    """What --eval.best may be is known before a vector is."""
    texts = [f"text {i}" for i in range(8)]
    pairs = LabelledPairs(texts[:4], texts[4:], np.array([0, 1, 0, 1]))
    labelled = LabelledTexts(texts, ["a", "b"] * 4)
    task = {
        "sts": lambda: StsTask("t", [
            SimpleNamespace(sentence1=texts[i], sentence2=texts[i + 4], score=i) for i in range(4)
        ]),
        "pairs": lambda: PairsTask("t", tune=pairs, test=pairs),
        "untuned": lambda: PairsTask("t", tune=None, test=pairs),
        "classification": lambda: ClassificationTask("t", train=labelled, validation=None,
                                                     test=labelled),
        "retrieval": lambda: RetrievalTask("t", queries={"q": texts[0]}, corpus={"d": texts[1]},
                                           qrels={"q": {"d": 1.0}}, metrics=("map", "mrr@10")),
    }[kind]()  # fmt: skip
    torch.manual_seed(0)
    found = task.score(lambda kind, asked: torch.randn(len(asked), 4), [2, 4])
    assert set(task.metrics) == {figure.metric for figure in found}


def test_key_is_what_mlflow_gets() -> None:
    assert Score("stsb", "spearman", Point(6, 64), 0.5, 9).name == "stsb/spearman@64@6"


@pytest.mark.parametrize("symmetric", ["default", "query"])
def test_the_evaluate_command_finds_the_last_figures_of_a_run(base, tmp_path, symmetric) -> None:
    """Symmetric texts, queries and documents get the same prompts in training as afterwards."""
    _, pairs = base
    model = tiny_qwen3(tmp_path / "qwen3", sentence_transformers=True)
    search = tmp_path / "search"
    (search / "qrels").mkdir(parents=True)
    texts = {f"d{i}": text for i, text in enumerate(SENTENCES)}
    for name, rows in (("corpus", texts), ("queries", {f"q{k[1:]}": v[4:14] for k, v in
                                                       texts.items()})):  # fmt: skip
        lines = [json.dumps({"_id": k, "text": v}) for k, v in rows.items()]
        (search / f"{name}.jsonl").write_text("\n".join(lines))
    judged = ["query-id\tcorpus-id\tscore", *(f"q{i}\td{i}\t1" for i in range(len(texts)))]
    (search / "qrels" / "test.tsv").write_text("\n".join(judged))
    data, out = [str(pairs), str(search)], tmp_path / "run"
    told = ["--eval.symmetric_prompt", symmetric, "--tracking.mlflow", "off"]
    code, text = run_ranks(1, SCRIPT, [
        "--model.name", str(model), "--objective.dims", "8", "32", "--sia.layers", "none",
        "--sia.ratios", "none", "--pic.ladder", "none", "--data.max_length", "160",
        "--data.negatives", "0", "--data.validation", *data, "--train.batch_size", "4",
        "--train.max_steps", "2", "--train.learning_rate", "1e-2", "--output_dir", str(out), *told,
    ])  # fmt: skip
    assert code == 0, text[-4000:]
    code, text = run_ranks(1, ROOT / "launch" / "evaluate.py", [
        "--model", str(out / "adapter"), "--data", *data, "--output_dir", str(tmp_path / "scores"),
        *told,
    ])  # fmt: skip
    assert code == 0, text[-4000:]
    later = {s.name: s.value for s in read_scores(tmp_path / "scores" / "scores.jsonl")}
    after = {s.name: s.value for s in read_scores(out / "scores.jsonl", stage="after")}
    assert {key.rsplit("@", 2)[0] for key in after} == {
        "pairs/spearman", *(f"search/{metric}" for metric in METRICS)
    }  # fmt: skip
    for key, value in after.items():
        assert later[key] == pytest.approx(value, abs=1e-6) and value == value, key
