"""Exports as models of MLflow: logged, registered with an alias, and served with our vectors; and
the commands after a training, whose runs lie below its own. Real sqlite store, no network."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import threading
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from test_data_formats import write_jsonl
from tiny_models import SENTENCES, tiny_bert

import mipic_llm
from mipic_llm.config import load_config, validate
from mipic_llm.errors import UserError
from mipic_llm.report.judged import judged
from mipic_llm.tracking import MlflowTracker, make_trackers, mlflow_model
from mipic_llm.types import Judgement, Point

NAME = "tiny-search"


class Place:
    """A tracked and registered training with prompts, and what its other commands left."""

    def __init__(self, folder: Path) -> None:
        import mlflow

        tiny_bert(folder / "base")
        pairs = [{"query": f"{s} {i}", "positive": f"{s} {i + 1}"}
                 for i, s in enumerate(SENTENCES[:12])]  # fmt: skip
        self.pairs = write_jsonl(folder / "pairs.jsonl", pairs)
        self.uri, self.out = f"sqlite:///{folder}/m.db", folder / "run"
        self.run = mipic_llm.train(
            str(self.pairs), model=str(folder / "base"), validation=pairs, output_dir=self.out,
            objective={"dims": [8, 32]}, train={"max_steps": 2, "batch_size": 4, "epochs": 1},
            lora={"rank": 4}, **{"data.max_length": 24, "data.query_prompt": "query: "},
            tracking={"mlflow": self.uri, "register": NAME, "system_metrics": True},
        )  # fmt: skip
        self.client = mlflow.MlflowClient(self.uri)
        self.record = json.loads((self.out / "mlflow.json").read_text())

    def versions(self) -> list:
        """Of the registered model, the oldest first, with their aliases."""
        found = [int(v.version) for v in self.client.search_model_versions(f"name='{NAME}'")]
        return [self.client.get_model_version(NAME, str(n)) for n in sorted(found)]

    def below(self, command: str) -> list:
        """Runs of a command below the training's own."""
        found = self.client.search_runs(
            [self.client.get_run(self.record["run_id"]).info.experiment_id]
        )
        return [r for r in found if r.data.tags.get("command") == command
                and r.data.tags["mlflow.parentRunId"] == self.record["run_id"]]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    patch = pytest.MonkeyPatch()
    patch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path_factory.mktemp("place")
    patch.chdir(folder)
    yield Place(folder)
    patch.undo()


def test_the_model_of_a_training_is_logged_whole_with_what_it_says_of_itself(place):
    import mlflow

    (version,) = place.versions()
    assert version.run_id == place.record["run_id"] and version.aliases in (
        ["champion"],
        ["candidate"],
    )
    assert "channels (trained prefixes: 8, 32)" in version.description
    (logged,) = [m for m in place.client.search_logged_models(["1"]) if m.name == "merged"]
    assert json.loads(logged.tags["mlflow.modelVersions"]) == [{"name": NAME, "version": 1}]
    assert logged.status.name == "READY" and logged.params["dims"] == "[8, 32]"
    assert [m.key for m in logged.metrics if m.key.startswith("eval/")]
    files = Path(logged.artifact_location.removeprefix("file://"))
    own, theirs = place.out / "merged", files / "model.sentence_transformer"
    for path in own.rglob("*"):
        if path.is_file():
            assert (theirs / path.relative_to(own)).read_bytes() == path.read_bytes(), path
    about = mlflow.models.Model.load(str(files))
    assert about.metadata["prompts"]["query"] == "query: " and about.metadata["max_tokens"] == 24
    assert about.signature.outputs.to_dict()[0]["tensor-spec"]["shape"] == (-1, 32)
    assert [p.name for p in about.signature.params] == [
        "prompt_name", "truncate_dim", "normalize_embeddings"]  # fmt: skip
    assert not list(place.out.glob(".mlflow-*")), "the copy is deleted"
    run = place.client.get_run(version.run_id)
    assert "after" in run.data.tags["mlflow.note.content"]
    assert any(key.startswith("system/") for key in run.data.metrics)
    contexts = [i.tags[0].value for i in run.inputs.dataset_inputs]
    assert contexts == ["training", "validation"]
    assert "champion" in place.client.get_registered_model(NAME).description


def test_the_scoring_server_answers_with_our_vectors(place):
    import mlflow
    import uvicorn
    from mlflow.pyfunc import scoring_server

    mlflow.set_tracking_uri(place.uri)
    (version, *_) = place.versions()
    model = mlflow.pyfunc.load_model(f"models:/{NAME}/{version.version}")
    app = scoring_server.init(model)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()

    def ask(**body) -> np.ndarray:
        data = json.dumps({"inputs": SENTENCES[:5], **body}).encode()
        for _ in range(100):
            try:
                request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", data,
                                                 {"Content-Type": "application/json"})  # fmt: skip
                return np.array(json.load(urllib.request.urlopen(request))["predictions"])
            except urllib.error.HTTPError as error:
                raise AssertionError(error.read().decode()) from error
            except OSError:
                threading.Event().wait(0.1)
        raise AssertionError("no answer")

    try:
        encode = place.run.encode
        np.testing.assert_allclose(ask(), encode(SENTENCES[:5]), atol=1e-5)
        asked = encode(SENTENCES[:5], kind="query")
        assert np.abs(asked - encode(SENTENCES[:5])).max() > 1e-2
        np.testing.assert_allclose(ask(params={"prompt_name": "query"}), asked, atol=1e-5)
        np.testing.assert_allclose(ask(params={"truncate_dim": 8}), encode(SENTENCES[:5], dim=8),
                                   atol=1e-5)  # fmt: skip
    finally:
        server.should_exit = True
        thread.join(10)
        mlflow.set_tracking_uri(None)


def test_commands_after_the_training_lie_below_its_run(place, tmp_path, capsys):
    before = len(place.versions())
    run = ["--output_dir", str(place.out)]
    from mipic_llm.commands import compare, evaluate, export, merge, mine

    export.main([*run, "--point", "8@2", "--to", str(tmp_path), "--tracking.register", NAME])
    said = capsys.readouterr().out
    assert f"MLflow model: models:/{NAME}@" in said
    version = place.versions()[-1]
    assert len(place.versions()) == before + 1 and "8 channels" in version.description
    (exported,) = place.below("export")
    assert exported.info.run_name == "export run 8@2"
    assert version.run_id == exported.info.run_id and exported.data.params["dim"] == "8"
    assert exported.info.status == "FINISHED"

    model = str(place.out / "adapter")
    evaluate.main(["--model", model, "--data", "demo", "--layers", "4", "--dims", "8", "32",
                   "--output_dir", str(tmp_path / "scores")])  # fmt: skip
    (evaluated,) = place.below("evaluate")
    assert {"eval/demo/spearman_at_8_at_4", "eval/demo/spearman_at_32_at_4"} <= set(
        evaluated.data.metrics)  # fmt: skip
    assert [f.path for f in place.client.list_artifacts(evaluated.info.run_id)] == ["scores.jsonl"]
    assert evaluated.data.params == {
        "data": '["demo"]', "layers": "[4]", "dims": "[8, 32]", "max_length": "24"}  # fmt: skip

    mine.main(["--model", model, "--data.train", str(place.pairs), "--mine.output",
               str(tmp_path / "mined.jsonl"), "--mine.relative", "none"])  # fmt: skip
    (mined,) = place.below("mine")
    assert mined.data.metrics["mine/rows"] == 12 and mined.data.params["negatives"] == "4"

    half = tmp_path / "half"
    capsys.readouterr()
    merge.main(["--runs", str(place.out), "--scale", "0.5", "1", "--to", str(half), "--data",
                "demo"])  # fmt: skip
    assert "MLflow: run merge half of experiment" in capsys.readouterr().out
    (merged,) = place.below("merge")
    history = place.client.get_metric_history(
        merged.info.run_id, "sweep/demo/spearman_at_8_at_4")  # fmt: skip
    assert {m.step for m in history} == {0, 50, 100}
    assert "scale" in merged.data.tags["mlflow.note.content"]
    assert json.loads(merged.data.params["scale"]) == [0.5, 1.0]
    files = {f.path for f in place.client.list_artifacts(merged.info.run_id)}
    assert {"sweep.jsonl", "scores.jsonl"} <= files
    record = json.loads((half / "mlflow.json").read_text())
    assert record["run_id"] == merged.info.run_id, "what is done with the mixture lies below it"

    compare.main([str(place.out), "--output_dir", str(tmp_path / "alone")])
    compare.main([str(place.out), str(tmp_path / "scores"), "--data", "demo", "--dims", "8",
                  "--layers", "4", "--output_dir", str(tmp_path / "page")])  # fmt: skip
    assert "MLflow: run compare page of experiment" in capsys.readouterr().out
    found = {r.info.run_name: r for r in place.below("compare")}
    assert set(found) == {"compare alone", "compare page"}
    (told,) = json.loads((tmp_path / "page" / "comparison.json").read_text())
    kept = found["compare page"].data
    assert kept.metrics["difference/demo/spearman_at_8_at_4"] == pytest.approx(
        told["figures"][0]["difference"])  # fmt: skip
    assert told["verdict"][0] in kept.tags["mlflow.note.content"]
    assert (kept.params["dims"], kept.params["layers"]) == ("[8]", "[4]")
    for run in (exported, evaluated, mined, merged, *found.values()):
        assert not {"backbone", "objective"} & set(run.data.tags), "a default, and not its own"
    files = {f.path for f in place.client.list_artifacts(found["compare page"].info.run_id)}
    assert files == {f"comparison.{kind}" for kind in ("html", "md", "png", "json")}

    own = place.client.get_run(place.record["run_id"]).info
    assert own.status == "FINISHED" and own.end_time <= exported.info.start_time


def test_what_was_not_tracked_stays_so_and_a_registration_needs_a_store(place, tmp_path, capsys):
    from mipic_llm.commands import evaluate, export

    runs = len(place.client.search_runs(["1"]))
    copy = tmp_path / "run"
    shutil.copytree(place.out, copy)
    (copy / "mlflow.json").unlink()
    with pytest.raises(UserError, match="was not tracked"):
        export.main(["--output_dir", str(copy), "--merged", "--tracking.register", NAME])
    scored = ["--data", "demo", "--layers", "4", "--dims", "8"]
    evaluate.main(["--model", str(copy / "adapter"), *scored, "--output_dir", str(tmp_path / "a")])
    evaluate.main(["--model", str(place.out / "adapter"), *scored, "--tracking.mlflow", "off",
                   "--output_dir", str(tmp_path / "b")])  # fmt: skip
    assert "MLflow" not in capsys.readouterr().out
    assert len(place.client.search_runs(["1"])) == runs
    gone = {**place.record, "uri": f"sqlite:///{tmp_path}/gone.db"}
    (copy / "mlflow.json").write_text(json.dumps(gone))
    evaluate.main(["--model", str(copy / "adapter"), *scored, "--output_dir", str(tmp_path / "c")])
    assert not (tmp_path / "gone.db").exists()
    with pytest.raises(UserError, match="MLflow, which is off"):
        mipic_llm.train(str(place.pairs), model=str(place.out / "merged"), validation=[],
                        train={"batch_size": 4, "max_steps": 1}, output_dir=tmp_path / "o",
                        tracking={"mlflow": "off", "log_model": True})  # fmt: skip


def test_champion_is_what_rose_by_more_than_chance_and_above_the_champion(place, tmp_path):
    """The registry's rule, on versions of one logged model."""
    (version, *_), about = place.versions(), {"dims": [8, 32], "width": 32}
    (logged, *_) = place.client.search_logged_models(["1"])
    judgements = [(0.5, False), (0.5, True), (0.4, True), (0.6, True), (0.7, False)]
    said = [mlflow_model.register(place.client, "rule", logged.model_id, version.run_id, about,
                                  Judgement("t/ndcg@10@32@4", value, 10, better, "words"))
            for value, better in judgements]  # fmt: skip
    aliases = ["candidate", "champion", "candidate", "champion", "candidate"]
    assert [line.partition("@")[2].split()[0] for line in said] == aliases
    assert "version 2 stays champion with 50.00 against 40.00" in said[2]
    assert place.client.get_model_version_by_alias("rule", "champion").version in (4, "4")


def figure(task, layer, dim, gap, low, high, metric="spearman"):
    return {"task": task, "metric": metric, "layer": layer, "dim": dim, "old": 0.5,
            "new": 0.5 + gap, "difference": gap, "low": low, "high": high, "n": 100}  # fmt: skip


def test_the_judgement_reads_the_figure_that_was_asked_for(tmp_path):
    assert not judged(tmp_path).better and "no comparison" in judged(tmp_path).words
    figures = [figure("sts", 4, 8, 0.02, 0.01, 0.03), figure("sts", 4, 32, 0.01, -0.01, 0.03),
               figure("sts", 4, 32, -0.5, -0.6, -0.4, metric="pearson"),
               figure("faq", 4, 32, 0.1, 0.05, 0.2, metric="ndcg@10"),
               figure("faq", 4, 8, -0.1, -0.2, -0.05, metric="ndcg@10")]  # fmt: skip
    record = {"figures": figures, "verdict": ["it is better"], "notes": [],
              "whole": {"gap": 0.02, "low": 0.001, "high": 0.04}}  # fmt: skip
    path = tmp_path / "comparison.json"
    path.write_text(json.dumps([record]))
    assert judged(tmp_path)[1:] == (pytest.approx(0.5075), 400, True, "it is better")
    best = judged(tmp_path, "faq/ndcg@10@32@4")
    words = "faq/ndcg@10@32@4 +10.00 [+5.00, +20.00] against the model before training"
    assert best.better and best.words == words
    assert not judged(tmp_path, "sts/spearman@32@4").better, "its interval holds zero"
    assert judged(tmp_path, point=Point(4, 32)).better, "one rose and none fell"
    assert not judged(tmp_path, point=Point(4, 8)).better, "one fell"
    assert not judged(tmp_path, point=Point(2, 8)).better
    record["whole"]["low"] = -0.001
    path.write_text(json.dumps([record]))
    assert not judged(tmp_path).better


def test_a_model_that_cannot_be_sent_is_one_line(place, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(mlflow_model, "describe", lambda folder: 1 / 0)
    tracker = MlflowTracker(place.uri, "e", "r")
    tracker.model(place.out / "merged", {}, 0)
    tracker.close()
    assert (
        len(tracker.problems) == 1 and "was not uploaded: division by zero" in tracker.problems[0]
    )
    assert caplog.messages == [f"MLflow at {place.uri}: {tracker.problems[0]}"]


def test_a_model_that_no_server_took_is_told(place, tmp_path, caplog):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    tracker = MlflowTracker(uri, "e", "r")
    tracker.model(place.out / "merged", {}, 0)
    tracker.artifact(place.out / "table.txt")
    tracker.close()
    (problem,) = tracker.problems
    assert f"the model {place.out / 'merged'} was not uploaded" in problem
    assert [problem in line for line in caplog.messages] == [False, True]
    from mipic_llm.commands import export

    with pytest.raises(UserError, match="the model .* was not uploaded"):
        export.main(["--output_dir", str(place.out), "--merged", "--to", str(tmp_path),
                     "--tracking.register", NAME, "--tracking.mlflow", uri])  # fmt: skip


@pytest.mark.parametrize("name", ["a/b", "a:b", " "])
def test_a_name_that_the_registry_refuses_is_refused_at_the_start(place, name):
    from mipic_llm.commands import export

    with pytest.raises(UserError, match="can be no name in MLflow's registry"):
        validate(load_config(["--tracking.register", name]), 1)
    with pytest.raises(UserError, match="can be no name in MLflow's registry"):
        export.main(["--output_dir", str(place.out), "--merged", "--tracking.register", name])


def test_a_run_that_goes_on_from_its_first_seconds_stays_one_run(place, tmp_path):
    """Its checkpoint was written before the server gave an id; mlflow.json was at the end."""
    config = load_config(["--tracking.mlflow", place.uri])
    shutil.copy(place.out / "mlflow.json", tmp_path)
    for step, found in ((3, place.record["run_id"]), (None, None)):
        _, tracker = make_trackers(config, tmp_path, resume_step=step)
        assert tracker.run_id == found
    other = load_config(["--tracking.mlflow", f"sqlite:///{tmp_path}/other.db"])
    assert make_trackers(other, tmp_path, resume_step=3)[1].run_id is None


if __name__ == "__main__":  # what a page looks like: python tests/test_mlflow_model.py DIRECTORY
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    Place(Path(sys.argv[1]))
