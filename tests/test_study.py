"""Studies: the YAML, the bootstrap, and a small study run from nothing, resumed and reported."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ranks import ROOT, run_command, server
from scipy.stats import rankdata, spearmanr
from tiny_models import few, tiny_bert

from mipic_llm.commands.study import main
from mipic_llm.errors import UserError
from mipic_llm.evaluation.metrics import accuracy, average_precision, macro_f1
from mipic_llm.report import bootstrap
from mipic_llm.report.bootstrap import draw_rows, interval, resampled
from mipic_llm.report.comparison import Span
from mipic_llm.report.html import from_markdown
from mipic_llm.study import conduct, identity, runner, spec
from mipic_llm.study.checks import check, one_length
from mipic_llm.study.collect import (
    Cell,
    Figure,
    Key,
    cells_of,
    costs,
    provenance,
    unfinished,
)
from mipic_llm.study.job import Job, as_flags
from mipic_llm.study.runner import Pace, run_all
from mipic_llm.study.spec import Trial, read_study
from mipic_llm.study.tables import markdown, summary, verdict
from mipic_llm.types import Point

RNG = np.random.default_rng(0)

# ---- the YAML


def write(tmp_path: Path, text: str) -> Path:
    (tmp_path / "study.yaml").write_text(text)
    return tmp_path / "study.yaml"


def test_study_is_read_and_its_trials_go_seed_by_seed(tmp_path):
    (tmp_path / "train.jsonl").write_text("{}")
    study = read_study(write(tmp_path, """
settings: {train.max_steps: 3, data.train: train.jsonl}
conditions: {a: {data.max_length: 9}, b: null}
methods: {mrl: {objective.name: mrl}, mipic: null}
seeds: [5, 6]
evaluate: {data: demo, layers: [1, 2]}
"""))  # fmt: skip
    assert study.baseline == "mrl" and study.name == "study"
    assert study.settings["data.train"] == [str(tmp_path / "train.jsonl")]  # beside the YAML
    trials = [str(t) for t in study.trials()]
    assert trials[:2] == ["a/untrained", "b/untrained"]
    assert trials[2:6] == ["a/mrl/seed5", "a/mipic/seed5", "b/mrl/seed5", "b/mipic/seed5"]
    job = Job(study, Trial("a", "mrl", 6), tmp_path / "out")
    assert job.steps() == ["train", "evaluate0"]
    judge, words = job.command("evaluate0"), " ".join(job.command("train"))
    assert "--train.max_steps 3" in words and "--data.max_length 9" in words
    assert "--objective.name mrl" in words and "--seed 6" in words
    assert "--layers 1 2" in " ".join(judge) and "--rows true" in " ".join(judge)


def test_every_row_of_a_study_is_evaluated_at_one_length(tmp_path, capsys):
    """The fewest tokens of its trials, of which b has the recipe's 64; or what the YAML says."""
    text = "methods: {mrl: null}\nconditions: {a: {data.max_length: 9}, b: null}\n"
    for more, length in (("", 9), ("max_length: 32\n", 32)):
        study = one_length(read_study(write(tmp_path, text + more)), tmp_path)
        for trial in study.trials():
            words = " ".join(Job(study, trial, tmp_path).command("evaluate0"))
            assert words.count("--data.max_length") == 1 and f"--data.max_length {length}" in words
    (told,) = capsys.readouterr().out.splitlines()
    assert "cuts texts at 9 tokens" in told and "64: b/untrained, b/mrl" in told


def test_flags_are_spelled_as_the_command_line_wants_them():
    values = {"a.b": [1, 2], "c": True, "d": None, "e": 0.5}
    assert as_flags(values) == "--a.b 1 2 --c true --d none --e 0.5".split()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("methods: {}", "methods is empty"),
        ("method: {a: null}", "unknown key method; did you mean methods"),
        ("methods: {a/b: null}", "cannot name a folder"),
        ("methods: {a: null}\nseeds: [1, 1]", "give each once"),
        ("methods: {a: null}\nseeds: two", "give a list of whole numbers"),
        ("methods: {a: null}\nbaseline: b", "baseline b is no method"),
        ("methods: {a: 3}", "must be a mapping such as"),
        ("methods: {a: null}\nevaluate: {layers: [1]}", "evaluate names no data"),
        ("name: ../../x\nmethods: {a: null}", "cannot name a folder"),
        ("methods: {a: null}\naverages: 3", "a value of a wrong type"),
        ("methods: {a: null}\nranks: many", "a value of a wrong type"),
        ("methods: {a: null}\nmax_length: long", "give a whole number of tokens"),
        ("- a", "it must be a mapping"),
        ("a: [", "study"),
    ],
)
def test_mistakes_in_a_study_are_named(tmp_path, text, complaint):
    with pytest.raises(UserError, match=complaint):
        read_study(write(tmp_path, text))


def test_shipped_studies_are_legal():
    from mipic_llm.study.checks import check

    files = sorted((ROOT / "launch" / "studies").glob("*.yaml"))
    assert files
    for path in files:
        check(read_study(path), Path("nowhere"), files=False)  # their data is the user's


def test_a_missing_file_of_a_study_says_how_its_data_are_made(tmp_path, monkeypatch) -> None:
    """A shipped one too; a wrong setting is another matter."""
    monkeypatch.chdir(tmp_path)  # who made them has them in data/
    with pytest.raises(UserError, match=r"no such file.*; its data: made, .* benchmarks/regret.py"):
        check(read_study("regret"), tmp_path)
    file = tmp_path / "s.yaml"
    text = "methods: {a: {%s}}\nevaluate: {data: [gone.csv]}\ndata_from: ask Ada\n"
    file.write_text(text % "objective.name: mrl")
    with pytest.raises(UserError, match=r"gone\.csv.*; its data: ask Ada$"):
        check(read_study(file), tmp_path)
    file.write_text((text % "objective.name: mlr").replace("gone.csv", "demo"))
    with pytest.raises(UserError) as raised:
        check(read_study(file), tmp_path)
    assert "ask Ada" not in str(raised.value)


def test_paths_beside_the_file(tmp_path):
    for name in ("lr=1/a.jsonl", "b1.jsonl", "c.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    found = spec._located({"data.train": ["lr=1/a.jsonl", "b*.jsonl", "c.jsonl=2", "d.jsonl"]},
                          tmp_path)["data.train"]  # fmt: skip
    assert found == [*(f"{tmp_path}/{n}" for n in ("lr=1/a.jsonl", "b*.jsonl", "c.jsonl=2")),
                     "d.jsonl"]  # fmt: skip


# ---- the bootstrap


def test_resampled_metrics_are_those_of_the_resampled_rows(monkeypatch):
    (draw,) = draw_rows(40, 3, resamples=20)
    assert draw.shape == (20, 40)
    monkeypatch.setattr(bootstrap, "_BLOCK", 40 * 7)  # in parts: the same draws
    assert (draw == np.concatenate(list(draw_rows(40, 3, resamples=20)))).all()
    gold, guess = RNG.integers(0, 3, 40), RNG.integers(0, 3, 40)
    score, label = RNG.normal(size=40), RNG.integers(0, 2, 40)
    for metric, naive, rows, truth in (
        ("accuracy", accuracy, guess, gold),
        ("macro_f1", macro_f1, guess, gold),
        ("average_precision", average_precision, score, label),
    ):
        want = [naive(truth[d], rows[d]) for d in draw]
        np.testing.assert_allclose(
            resampled(metric, rows, truth, seed=3, resamples=20), want, rtol=1e-12
        )
    for metric in ("ndcg@10", "mrr@5", "map", "accuracy@1"):
        found = resampled(metric, score, None, seed=3, resamples=20)
        np.testing.assert_allclose(found, score[draw].mean(1))
    with pytest.raises(ValueError, match="no bootstrap"):
        resampled("other", score, None)


def test_resampled_spearman_uses_the_ranks_of_all_rows():
    rng = np.random.default_rng(0)
    x = rng.normal(size=300)
    y = x + rng.normal(size=300)
    (draw,) = draw_rows(300, 0, resamples=50)
    exact = [spearmanr(x[d], y[d]).statistic for d in draw]
    found = resampled("spearman", x, y, resamples=50)
    assert np.abs(found - exact).max() < 0.02
    ranks = [rankdata(v) for v in (x, y)]
    np.testing.assert_allclose(found, [np.corrcoef(*(r[d] for r in ranks))[0, 1] for d in draw])


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("seed_noise", [0.0, 0.01, 0.05])
def test_a_method_is_seldom_better_than_itself(seeds: int, seed_noise: float) -> None:
    """A/A: 400 comparisons of one method with itself, other seeds: at most 5 % each way, also where
    seeds differ more than rows do (1 point of noise of the rows in the mean)."""
    rng, better, worse, found = np.random.default_rng(seeds), 0, 0, 400
    for _ in range(found):
        row_noise_N = rng.normal(0, 0.01 * 10, 100)
        gap_K = rng.normal(0, seed_noise, seeds) + row_noise_N.mean()
        drawn_R = row_noise_N[rng.integers(0, 100, (500, 100))].mean(1) - row_noise_N.mean()
        low, high = interval([g + drawn_R for g in gap_K], [0 * drawn_R] * seeds)
        better, worse = better + (low > 0), worse + (high < 0)
    assert better <= 0.05 * found and worse <= 0.05 * found, (better, worse)


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_seeds_alone_give_students_interval(seeds: int) -> None:
    """No noise of rows: mean +- t s / sqrt(K), by scipy, both ways alike."""
    from scipy.stats import t

    gap_K = np.random.default_rng(0).normal(0.01, 0.01, seeds)
    low, high = interval([np.full(bootstrap.RESAMPLES, g) for g in gap_K],
                         [np.zeros(bootstrap.RESAMPLES)] * seeds)  # fmt: skip
    want = t.interval(0.95, seeds - 1, gap_K.mean(), gap_K.std(ddof=1) / seeds**0.5)
    assert high - low == pytest.approx(want[1] - want[0], rel=0.025)
    assert (low + high) / 2 == pytest.approx(gap_K.mean())


def test_interval_holds_the_truth_and_excludes_zero_when_it_should():
    noise = RNG.normal(size=(3, 1000)) * 0.1
    base = [0.5 + noise[k] for k in range(3)]
    low, high = interval([b + 0.02 for b in base], base)  # paired: the common noise cancels
    assert low == pytest.approx(0.02) == high
    torn = [b + 0.02 + 0.01 * k for k, b in enumerate(base)]
    want = interval(torn, base)
    torn[0] = np.where(np.arange(1000) == 7, np.nan, torn[0])  # a resample without a value
    assert interval(torn, base) == pytest.approx(want, abs=1e-3)
    other = [0.5 + RNG.normal(size=1000) * 0.1 for _ in range(3)]
    low, high = interval(other, base)
    assert low < 0 < high


# ---- a whole study


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("study")
    model, pairs = tiny_bert(folder / "bert"), few(folder, "validation", 120)
    yaml = folder / "small.yaml"
    yaml.write_text(f"""
methods: {{mrl: {{objective.name: mrl}}, mipic: {{}}}}
seeds: [1, 2]
settings:
  model.name: {model}
  objective.dims: [8, 32]
  sia.layers: [2, 4]
  pic.ladder: [8@2, 32@4]
  train.max_steps: 2
  train.batch_size: 4
  data.max_length: 16
  data.train: {few(folder)}
  data.validation: none
evaluate: {{data: {pairs}, layers: [2, 4], dims: [8, 32], pca_text: {few(folder)}}}
averages: {{sts: [demo]}}
""")
    out = folder / "out"
    text = study(yaml, out)
    assert "mipic/seed2: evaluate0" in text
    return yaml, out


def study(yaml: Path, out: Path) -> str:
    """Its trials' commands start from the server of packages; test_package.py starts them as they
    are. `out.parent` holds the default store."""

    def start(words, env, stdout, **_):
        code, _ = run_command(words[1:], out.parent, Path(stdout.name), env)
        return subprocess.CompletedProcess(words, code)

    server()  # before threads ask for it
    told = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(told):
        patch.setattr(runner, "subprocess", SimpleNamespace(run=start, STDOUT=None))
        patch.delenv("MLFLOW_TRACKING_URI")
        patch.chdir(out.parent)
        code = main(["--study", str(yaml), "--output_dir", str(out), "--jobs", "2"])
    logs = "".join(p.read_text()[-2000:] for p in out.rglob("*.log"))
    assert code == 0, told.getvalue() + logs
    return told.getvalue()


def test_study_leaves_tables_figures_and_a_page(finished):
    _, out = finished
    text = (out / "study.md").read_text()
    for word in ("| untrained | 16 |", "| mrl + PCA | 16 |", "| mipic | 16 |",
                 "| mipic less untrained |", "| mrl + PCA less untrained + PCA |",
                 "### sts, spearman, layer 4", "- **mipic**: against mrl ", "; against untrained ",
                 "No training row has a text of the evaluation data."):  # fmt: skip
        assert word in text, word
    rows = list(csv.DictReader((out / "figures.csv").open()))
    mine = [r for r in rows if (r["method"], r["family"], r["layer"], r["dim"], r["task"]) ==
            ("mipic", "prefix", "4", "8", "demo")]  # fmt: skip
    (row,) = mine
    values = [
        json.loads(line)["value"]
        for seed in (1, 2)
        for line in (out / f"runs/all/mipic/seed{seed}/scores0/scores.jsonl").open()
        if '"layer": 4, "dim": 8' in line and '"readout": "prefix"' in line
    ]
    assert float(row["mean"]) == pytest.approx(100 * np.mean(values), abs=1e-3)
    assert float(row["spread"]) == pytest.approx(100 * np.std(values, ddof=1), abs=1e-3)
    assert float(row["low"]) <= float(row["gap"]) <= float(row["high"])
    assert float(row["low0"]) <= float(row["gap0"]) <= float(row["high0"])
    (bare,) = [r for r in rows if (r["method"], r["family"], r["layer"], r["dim"], r["task"]) ==
               ("untrained", "prefix", "4", "8", "demo")]  # fmt: skip
    assert float(row["gap0"]) == pytest.approx(float(row["mean"]) - float(bare["mean"]), abs=2e-3)
    assert {r["max_length"] for r in rows} == {"16"} and bare["gap0"] == ""
    page = (out / "report.html").read_text()
    pictures = {path.name.split("-")[0] for path in out.glob("*.png")}  # no share of a score <= 0
    assert {"quality", "heat"} <= pictures <= {"quality", "heat", "retention"}
    assert page.count("data:image/png;base64,") == len(pictures) and "http" not in page
    lengths = {json.loads(line)["max_length"] for path in out.glob("runs/**/scores0/scores.jsonl")
               for line in path.open()}  # fmt: skip
    assert lengths == {16}  # the untrained model too


def test_second_start_runs_nothing_again(finished):
    yaml, out = finished
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors")}
    text = study(yaml, out)
    assert "seed1: train" not in text and before
    assert before == {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors")}


def test_what_counts_as_done(tmp_path, monkeypatch):
    """The same command, code and data. Each is changed on its own; `keep` looks at the command."""
    (tmp_path / "train.csv").write_text("anchor,positive\na,b\n")
    (tmp_path / "pairs.csv").write_text("sentence1,sentence2,score\na,b,1\n")
    (tmp_path / "suite.yaml").write_text("- {test: pairs.csv}\n")
    started: list[str] = []
    out = tmp_path / "out"

    def start(words, **_):
        started.append("train" if "train" in words else "evaluate")
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(runner, "subprocess", SimpleNamespace(run=start, STDOUT=None))

    def again(text: str = "", keep: bool = False) -> list[str]:
        started.clear()
        small = read_study(write(tmp_path, "methods: {a: null}\nuntrained: false\n"
                                 "settings: {data.train: train.csv, data.validation: none}\n"
                                 "evaluate: {suite: suite.yaml}\n" + text))  # fmt: skip
        identity.code.cache_clear()
        assert run_all(small, out, jobs=1, extra_env={}, keep=keep) == []
        return list(started)

    assert again() == ["train", "evaluate"] and again() == []
    (tmp_path / "pairs.csv").write_text("sentence1,sentence2,score\na,b,2\n")
    assert again(keep=True) == [] and again() == ["evaluate"] and again() == []
    (tmp_path / "train.csv").write_text("anchor,positive\na,c\n")
    assert again() == ["train", "evaluate"] and again() == []
    assert again("ds_config: zero2\n") == ["train", "evaluate"]
    monkeypatch.setattr(identity, "commit", lambda: "0" * 40 + "+changes")
    assert again("ds_config: zero2\n") == [], "a commit that changes none of our sources"
    files = tmp_path / "sources"
    shutil.copytree(identity.PACKAGE, files, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(identity, "PACKAGE", files)
    assert again("ds_config: zero2\n") == []
    for place, runs in (("study/spec.py", []), ("losses/mrl.py", ["train", "evaluate"])):
        with (files / place).open("a") as file:
            file.write("# changed\n")
        assert again("ds_config: zero2\n", keep=True) == []
        assert again("ds_config: zero2\n") == runs, place
    assert identity.code()[0] == "000000000000 +changes"
    out = (tmp_path / "out").rename(tmp_path / "moved")
    assert again("ds_config: zero2\n") == [], "where a study lies makes no difference"
    (out / "runs/all/a/seed42/train.done.json").write_text('{"command": [1], "code": 2}')
    assert again("ds_config: zero2\n") == ["train", "evaluate"]


def test_evaluation_data_is_read_before_the_first_training(tmp_path):
    model = tiny_bert(tmp_path / "bert")
    train, pairs = tmp_path / "train.csv", tmp_path / "pairs.csv"
    train.write_text("anchor,positive\na red stone,one red rock\nthe cold sea,an icy ocean\n")
    text = f"methods: {{a: {{data.train: train.csv, model.name: {model}}}}}\n"

    def checked(more: str = "evaluate: {data: pairs.csv}", rows: str = "x,y,1\nv,w,2\n") -> list:
        pairs.write_text("sentence1,sentence2,score\n" + rows)
        return check(read_study(write(tmp_path, text + more)), tmp_path / "out")

    assert checked() == ["No training row has a text of the evaluation data."]
    (line,) = checked(rows="x,y,1\nan  icy ocean,w,2\n")
    assert line.startswith("**1 of 2 training rows of all/a have a text of the evaluation data.")
    for more, rows, words in (
        ("evaluate: {data: pairs.csv}", "x,y,1\nv,w,much\n", "evaluation 1: .*pairs.csv"),
        ("evaluate: {data: pairs.csv, layers: [9]}", "x,y,1\nv,w,2\n", "layers: 9 is outside 1"),
        ("evaluate: {data: pairs.csv}\naverages: {sts: [pair]}", "x,y,1\nv,w,2\n",
         "averages.sts: no evaluation has a task pair; did you mean pairs"),
        ("evaluate: {data: pairs.csv}\naverages: {pairs: [pairs]}", "x,y,1\nv,w,2\n",
         "averages.pairs: a task has that name too"),
        ("evaluate: {data: pairs.csv, pca_text: [none.csv]}", "x,y,1\nv,w,2\n", "none.csv"),
        ("evaluate: {data: pairs.csv, centre: true}", "x,y,1\nv,w,2\n", "it goes with --bits 1"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=words):
            checked(more, rows)
    assert not (tmp_path / "out" / "runs").exists()


def test_a_second_study_in_the_same_place_is_refused(tmp_path, monkeypatch):
    (tmp_path / "train.csv").write_text("anchor,positive\na,b\n")
    yaml = write(tmp_path, "methods: {a: {data.train: train.csv}}\nuntrained: false\n")
    monkeypatch.setattr(conduct, "check", lambda *_: [])
    monkeypatch.setattr(conduct, "run_all", lambda *_, **__: begin())

    def begin():  # while the first one runs
        with pytest.raises(UserError, match="a study is running in .* right now"):
            conduct.conduct(str(yaml), tmp_path / "out", jobs=1, mlflow="off")
        return []

    for _ in range(2):  # and again after its end
        with pytest.raises(UserError, match="holds no finished trial"):
            conduct.conduct(str(yaml), tmp_path / "out", jobs=1, mlflow="off")


def test_failed_trials_are_listed_with_their_reason_and_time_left_is_told(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "train.csv").write_text("anchor,positive\na,b\n")
    study = read_study(write(tmp_path, "methods: {a: null, b: null, c: null}\nseeds: [1]\n"
                             "settings: {data.train: train.csv, data.validation: none}\n"
                             "untrained: false\n"))  # fmt: skip

    def start(words, stdout, **_):
        b = "all/b/seed1" in " ".join(words)
        stdout.write("error: data.train: line 3 is torn\nand more\n" if b else "fine\n")
        return subprocess.CompletedProcess(words, 2 if b else 0)

    monkeypatch.setattr(runner, "subprocess", SimpleNamespace(run=start, STDOUT=None))
    out = tmp_path / "out"
    failed = run_all(study, out, jobs=1, extra_env={})
    assert list(map(str, failed)) == ["all/b/seed1"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "all/a/seed1: train 0 s; 0 of 3 trials done, 3 left"  # no evaluation yet
    assert lines[1].endswith("1 of 3 trials done, 2 left: less than a minute")
    assert "FAILED: code 2, error: data.train: line 3 is torn (log: " in lines[2]
    assert lines[-1].endswith("; 2 of 3 trials done, 1 failed")
    assert unfinished(study, out) == [
        "**all/b/seed1 failed** at train: code 2, error: data.train: line 3 is torn (log: "
        "runs/all/b/seed1/train.log)"
    ]
    (tmp_path / "train.csv").unlink()  # no crash of the others, either
    assert len(run_all(study, out, jobs=1, extra_env={})) == 3
    assert "train.csv" in unfinished(study, out)[0]
    more = study._replace(seeds=[1, 2])
    assert unfinished(more, out)[-1] == "not run yet: all/a/seed2, all/b/seed2, all/c/seed2"
    pace = Pace([Job(more, trial, out) for trial in more.trials()], 2)
    for step in ("train", "evaluate0"):
        pace.passed(more.trials()[0], step, 3000.0)
    assert str(pace) == "1 of 6 trials done, 5 left: about 4 h 10 min"

    def full(*_):
        raise OSError(28, "No space left on device")

    (tmp_path / "train.csv").write_text("anchor,positive\na,b\n")
    monkeypatch.setattr(runner, "write_mark", full)
    assert len(run_all(more, tmp_path / "new", jobs=2, extra_env={})) == 6
    assert "FAILED: [Errno 28] No space" in capsys.readouterr().out


@pytest.mark.parametrize("error, status", [(UserError("x"), "FAILED"),
                                           (KeyboardInterrupt(), "KILLED")])  # fmt: skip
def test_a_study_that_stops_ends_its_run_in_mlflow(tmp_path, monkeypatch, error, status):
    ended = []

    def stop(*_, **__):
        raise error

    monkeypatch.setattr(conduct, "run_all", stop)
    monkeypatch.setattr(conduct, "check", lambda *_: [])
    run = SimpleNamespace(close=ended.append)
    monkeypatch.setattr(conduct, "Parent", lambda *_: SimpleNamespace(run=run, env=dict))
    path = write(tmp_path, "methods: {a: null}\nmax_length: 16\n")
    with pytest.raises(type(error)):
        conduct.conduct(path, tmp_path / "out", jobs=1, mlflow="off")
    assert ended == [status]


def test_trials_of_different_code_or_data_are_named(tmp_path):
    study = read_study(write(tmp_path, "methods: {a: null, b: null}\nuntrained: false"))

    def done(method: str, code: str, digest: str) -> None:
        folder = tmp_path / "runs" / "all" / method / "seed42"
        folder.mkdir(parents=True, exist_ok=True)
        row = {"code": code, "commit": f"c{code}", "data": {"x.csv": digest}, "seconds": 1}
        (folder / "train.done.json").write_text(json.dumps(row))

    done("a", "1", "p"), done("b", "1", "p")
    assert provenance(study, tmp_path) == ["Code: c1 (1)."]
    done("b", "2", "q")
    code, data = provenance(study, tmp_path)
    assert code.startswith("**The code is not the same in all trials.** c1 (1): all/a/seed42")
    assert data.startswith("**x.csv is not the same in all trials.** p: all/a/seed42 train")
    assert "q: all/b/seed42 train" in data
    assert code in markdown(study, {}, {}, [code, data])


def test_what_a_training_cost_is_the_median_over_seeds(tmp_path):
    """Of its steps the median rate and the highest memory; a trial that is not done counts not."""
    study = read_study(write(tmp_path, "methods: {a: null, b: null}\nseeds: [1, 2, 3, 4]"))
    for seed, seconds in ((1, 10), (2, 40), (3, 30)):
        folder = tmp_path / "runs" / "all" / "a" / f"seed{seed}"
        (folder / "train").mkdir(parents=True)
        (folder / "train.done.json").write_text(json.dumps({"seconds": seconds}))
        rows = [{"tokens_per_second": seed * r, "memory_gib": m} for r, m in
                ((100, 1.5), (200, seed + 2.0), (900, 1.0))]  # fmt: skip
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "train" / "metrics.jsonl").write_text(text)
    assert costs(study, tmp_path) == {("all", "a"): (30.0, 400.0, 4.0)}
    assert "| a | 30 | 400 | 4.00 |" in markdown(study, {}, costs(study, tmp_path))


def test_trials_are_child_runs(finished):
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{finished[1].parent / 'mlruns.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "small"]
    runs = client.search_runs([experiment.experiment_id])
    trials = [r for r in runs if r.data.tags["mlflow.runName"].startswith("all/")]
    children = [r for r in trials if "mlflow.parentRunId" in r.data.tags]  # not their evaluations
    assert {r.info.run_name for r in children} == {
        f"all/{method}/seed{seed}" for method in ("mrl", "mipic") for seed in (1, 2)
    }
    (parent,) = {r.data.tags["mlflow.parentRunId"] for r in children}
    kept = {a.path for a in client.list_artifacts(parent)}
    assert {"study.md", "figures.csv", "report.html"} <= kept


def test_averages_and_gaps_are_over_the_seeds_that_both_have():
    """By hand: figures of two tasks, of methods with other seeds, one task of one method absent."""
    study = read_study("quickstart")._replace(
        methods={"mrl": {}, "mipic": {}, "ese": {}}, averages={"all": ["a", "b"]}, baseline="mrl"
    )
    one = np.linspace(-0.01, 0.01, 201)

    def figure(value: float, noise: float = 1.0, length: str = "64") -> Figure:
        return Figure(value, value + noise * one, length)

    def key(method: str, task: str) -> Key:
        return Key("c", method, "prefix", task, "spearman", Point(6, 16))

    found = {
        key("untrained", "a"): {-1: figure(0.1)}, key("untrained", "b"): {-1: figure(0.2)},
        key("mrl", "a"): {1: figure(0.5), 2: figure(0.7)},
        key("mrl", "b"): {1: figure(0.3), 2: figure(0.3)},
        key("mipic", "a"): {2: figure(0.8, 2.0), 3: figure(0.2), 4: figure(math.nan)},
        key("mipic", "b"): {2: figure(0.5, 2.0, "32")},
        key("ese", "a"): {1: figure(0.9)},
    }  # fmt: skip
    cells = cells_of(study, found)
    mean = cells[key("mrl", "all")]
    assert (mean.mean, mean.n_seeds) == (pytest.approx(0.45), 2)  # of .4 and .5
    assert mean.spread == pytest.approx(0.1 / math.sqrt(2)) and math.isnan(mean.gap.gap)
    assert mean.gap0.gap == pytest.approx(0.45 - 0.15) and mean.gap0.sign == 0
    mine = cells[key("mipic", "all")]  # seed 2 alone has both tasks, with both methods
    assert (mine.mean, mine.n_seeds, mine.max_length) == (pytest.approx(0.65), 1, "64/32")
    assert math.isnan(mine.spread) and mine.gap.gap == pytest.approx(0.65 - 0.5)
    assert mine.gap[1:] == pytest.approx((0.15 - 0.0095, 0.15 + 0.0095))  # the middle 95 %
    alone = cells[key("mipic", "a")]
    assert (alone.mean, alone.n_seeds) == (pytest.approx(0.5), 2)  # a figure that is nan is none
    assert alone.gap.gap == pytest.approx(0.8 - 0.7)
    assert key("ese", "all") not in cells and cells[key("ese", "a")].gap.gap == pytest.approx(0.4)
    assert math.isnan(cells[key("untrained", "all")].gap.gap)
    assert math.isnan(cells[key("untrained", "all")].gap0.gap)


def test_the_verdict_says_where_a_method_is_better_than_the_baseline_and_than_untrained():
    study = read_study("quickstart")._replace(
        methods={"mrl": {}, "mipic": {}}, conditions={"all": {}}, averages={}, baseline="mrl"
    )
    spans = {16: (0.01, 0.02), 32: (-0.01, 0.02), 64: (-0.2, -0.1)}
    nothing = (math.nan, math.nan)
    cells = {Key("all", m, "prefix", "sts", "spearman", Point(6, d)):
             Cell(0.5, 0, 2, Span(0.1, *(span if m == "mipic" else nothing)),
                  Span(-0.1, *(-x for x in reversed(span))), "64")
             for m in study.methods for d, span in spans.items()}  # fmt: skip
    other = {k._replace(condition="small", point=Point(3, k.point.dim)): c
             for k, c in cells.items() if k.method == "mipic"}  # fmt: skip
    two = study._replace(conditions={"all": {}, "small": {}})  # its model has three layers
    assert [line.partition("*")[0] for line in verdict(two, other | cells)] == [
        "all, sts, layer 6, ", "all, sts, layer 6, ", "small, sts, layer 3, "]  # fmt: skip
    assert "### sts, spearman, layer 3" in markdown(two, cells | other, {})
    assert verdict(study, cells) == [
        "all, sts, layer 6, **mrl** against untrained: better at 64; worse at 16; not told apart "
        "at 32 dims",
        "all, sts, layer 6, **mipic** against mrl: better at 16; worse at 64; not told apart at 32 "
        "dims; and against untrained: better at 64; worse at 16; not told apart at 32 dims",
    ]
    assert summary(study, cells)[1] == (
        "**mipic**: against mrl better at 1, worse at 1 of 3 sizes, not told apart at the others; "
        "against untrained better at 1, worse at 1 of 3 sizes, not told apart at the others"
    )
    sure = {k: c for k, c in cells.items() if k.point.dim != 32 and k.method == "mipic"}
    (line,) = summary(study, sure)
    assert line.endswith("against untrained better at 1, worse at 1 of 2 sizes")
    for dim, one, two in (
        (16, "better at 1, worse at 0 of 1 sizes", "better at 0, worse at 1 of 1 sizes"),
        (32, "not told apart at any of 1 sizes", "not told apart at any of 1 sizes"),
    ):
        (line,) = summary(study, {k: c for k, c in cells.items() if k.method == "mipic"
                                  and k.point.dim == dim})  # fmt: skip
        assert line == f"**mipic**: against mrl {one}; against untrained {two}"
    stored = {k._replace(family=f, point=k.point._replace(bits=bits)): c
              for k, c in cells.items() for f, bits in (("pca", 32), ("prefix", 1))}  # fmt: skip
    assert verdict(study, cells | stored) == verdict(study, cells)
    assert summary(study, cells | stored) == summary(study, cells)
    deep = {k._replace(point=Point(n, 16)): c for k, c in cells.items() for n in (2, 4, 7, 9, 12)}
    shown = markdown(study, deep, {})  # the deepest, a middle one and the first
    assert [n for n in range(13) if f"spearman, layer {n}\n" in shown] == [2, 7, 12]
    few = {k: c for k, c in deep.items() if k.point.layer > 2 and k.point.layer < 12}
    assert all(f"spearman, layer {n}\n" in markdown(study, few, {}) for n in (4, 7, 9))
    text = markdown(study, cells, {}, missing=["**all/mipic/seed2 failed** at train: x"])
    assert "| mipic less untrained |  | **-10.00** [-2.00, -1.00] | -10.00 [-2.00, +1.00] |" in text
    assert text.index("**all/mipic/seed2 failed**") < text.index("Figures are x 100")


def test_a_page_has_contents_and_its_pictures_say_what_they_show(tmp_path):
    from PIL import Image

    from mipic_llm.report.curves import Estimate, curves_figure
    from mipic_llm.report.html import page, picture

    figure = curves_figure({"layer 6": {"a": {16: Estimate(1.0), 32: Estimate(2.0)}}}, "x 100")
    shown = picture(figure, "sts: quality against size", tmp_path / "a.png")
    assert 'alt="sts: quality against size" title="sts: quality against size"' in shown
    assert Image.open(tmp_path / "a.png").text["Title"] == "sts: quality against size"
    assert figure.get_suptitle() == "sts: quality against size"
    page("T", ["<h1>T</h1><p>verdict</p>", "<h2>One</h2>", "<h3>Two</h3>"], tmp_path / "p.html")
    text = (tmp_path / "p.html").read_text()
    assert '<meta name="viewport" content="width=device-width">' in text
    assert text.index("verdict") < text.index('<a href="#part-1">Two</a>') < text.index("<h2")
    assert '<h2 id="part-0">One</h2>' in text and '<h3 id="part-1">Two</h3>' in text


def test_markdown_becomes_html():
    page = from_markdown("# A & B\n\n| m | 1 |\n| --- | ---: |\n| **x** | 1.0 +- 0.2 |\n\n`c`")
    assert "<h1>A &amp; B</h1>" in page and "<td><strong>x</strong></td>" in page
    assert '<td style="text-align:right">1.0 \u00b1 0.2</td>' in page
    assert '<th style="text-align:right">1</th>' in page and "<p><code>c</code></p>" in page


def test_retention_is_relative_to_the_methods_own_full_width():
    from mipic_llm.report.curves import Estimate, retention

    below = {"b": {16: Estimate(1.0, 1.0), 64: Estimate(-2.0, 1.0)}}
    assert retention(below) == {}
    found = retention({"a": {16: Estimate(40.0, 1.0), 64: Estimate(80.0)}})
    assert found["a"][16] == Estimate(50.0, 1.25) and found["a"][64].mean == 100
    assert math.isnan(found["a"][64].spread)
