"""Tracking: real sqlite and HTTP MLflow runs, absent and dying servers, metrics.jsonl on resume."""

from __future__ import annotations

import fcntl
import http.server
import json
import logging
import math
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from mipic_llm.config import Config, load_config
from mipic_llm.config.check import STORES
from mipic_llm.errors import UserError
from mipic_llm.tracking import (
    JsonlTracker,
    MlflowTracker,
    Parent,
    Tracker,
    environment,
    follow,
    legal,
    make_trackers,
    mlflow_remote,
    mlflow_run,
)
from mipic_llm.tracking.database import ask
from mipic_llm.tracking.environment import run_tags
from mipic_llm.tracking.mlflow_remote import RemoteRun


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # the default store
    for name in list(os.environ):
        if name.startswith("MLFLOW_"):
            monkeypatch.delenv(name)


@pytest.fixture
def row():
    return {"loss": 1.5, "loss/mrl": 1.0, "loss/mrl@16": 0.25, "lr": 1e-4}


class make_tracker:  # noqa: N801  (stands for the function's result)
    """make_trackers' trackers, each called in turn, as a run does."""

    def __init__(self, *args, **options):
        self.trackers = make_trackers(*args, **options)

    def __getattr__(self, name):
        each = [getattr(t, name) for t in self.trackers]
        if not callable(each[0]):
            return next((value for value in each if value), None)
        return lambda *args: next((x for x in [call(*args) for call in each] if x), None)


def rows_of(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_closed_run_leaves_a_program_as_it_was(tmp_path, monkeypatch) -> None:
    """A notebook that trained calls MLflow with its own patience, and hears it."""
    names = ("mlflow", "alembic", "urllib3.connectionpool")

    def state():
        loggers = [logging.getLogger(name) for name in names]
        return dict(os.environ), [logger.level for logger in loggers], len(loggers[2].filters)

    import mlflow

    monkeypatch.setattr(logging.getLogger("mlflow"), "level", logging.INFO)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "55")  # the user's
    before = state()
    for number in range(2):
        tracker = MlflowTracker(f"sqlite:///{tmp_path}/m.db", "e", f"run {number}")
        tracker.metrics({"loss": 1.0}, 1)
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "55"
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
        tracker.close()
        assert state() == before
    assert len(mlflow.MlflowClient(f"sqlite:///{tmp_path}/m.db").search_runs(["1"])) == 2


# ---- metrics.jsonl


def test_jsonl_writes_strict_json_flushed_per_row(tmp_path):
    tracker = JsonlTracker(tmp_path / "out" / "metrics.jsonl")
    tracker.metrics({"loss": 2.0, "tokens": 7}, step=1)
    tracker.metrics({"loss": math.nan}, step=2)
    assert rows_of(tracker.path) == [
        {"step": 1, "loss": 2.0, "tokens": 7},
        {"step": 2, "loss": None},
    ]  # before close: the rows are on disk at once
    tracker.close()
    tracker.metrics({"loss": 1.0}, step=3)  # after close: nothing, no error
    assert len(rows_of(tracker.path)) == 2


def test_jsonl_resume_holds_each_step_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    first = JsonlTracker(path)
    for step in range(1, 6):
        first.metrics({"loss": float(step)}, step)
    first.close()
    with path.open("a") as file:
        file.write('{"step": 6, "lo')  # killed while writing
    resumed = JsonlTracker(path, resume_step=3)
    for step in (4, 5, 6):
        resumed.metrics({"loss": 10.0 * step}, step)
    resumed.close()
    assert [r["step"] for r in rows_of(path)] == [1, 2, 3, 4, 5, 6]
    assert [r["loss"] for r in rows_of(path)] == [1.0, 2.0, 3.0, 40.0, 50.0, 60.0]
    assert list(tmp_path.iterdir()) == [path]  # no temporary left


def test_jsonl_new_run_starts_empty(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n')
    JsonlTracker(path).close()
    assert path.read_text() == ""
    JsonlTracker(tmp_path / "new.jsonl", resume_step=4).close()  # nothing to keep: no error


# ---- names


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("loss/mrl@16", "loss/mrl_at_16"),
        ("eval/sts-b/spearman@64@6", "eval/sts-b/spearman_at_64_at_6"),
        ("train.batch_size", "train.batch_size"),
        ("/a//b/../c:d%", "a/b/c_d_"),
        ("..", "_"),
    ],
)
def test_legal_names(ours, theirs):
    assert legal(ours) == theirs


def test_legal_names_are_accepted_by_mlflow_and_long_ones_stay_apart():
    from mlflow.utils.validation import _validate_metric_name

    names = ["x" * 300 + "1", "x" * 300 + "2", "loss/mrl@16", "a?b", "\u00e9"]
    safe = [legal(n) for n in names]
    for name in safe:
        _validate_metric_name(name)
        assert len(name) <= 250
    assert len(set(safe)) == len(names)


# ---- MLflow, a real store


def test_default_store_gets_everything_and_resume_goes_on_in_the_same_run(
    tmp_path, row, caplog, monkeypatch
):
    out = tmp_path / "my run"
    config = Config()
    params = {f"section.key{i}": i for i in range(230)}
    params |= {"long": "x" * 10_000, "none": None, "dims": [16, 32], "train.resume": "never"}
    (out / "export").mkdir(parents=True)
    (out / "config.yaml").write_text("seed: 1\n")
    (out / "export" / "weights.txt").write_text("w")

    gate, connect = threading.Event(), RemoteRun.connect
    monkeypatch.setattr(RemoteRun, "connect", lambda self: gate.wait(60) and connect(self))
    tracker = make_tracker(config, out)
    assert tracker.where() is None, "there is no run yet"
    tracker.params(params)
    sources = [{"name": f"{n}.jsonl", "kind": k, "rows": 7, "digest": "ab" * 16}
               for n, k in (("pairs", "pairs"), ("scored", "scored"))]  # fmt: skip
    tracker.data(sources, "training")
    for step in range(1, 1001):
        tracker.metrics({**row, "nan": math.nan}, step)
    tracker.artifact(out / "config.yaml")
    tracker.artifact(out / "export", "model")
    tracker.artifact(out / "absent.txt")
    assert not tracker.run_id  # neither MLflow's import nor its database was waited for
    gate.set()
    run_id = tracker.wait_run_id(60)
    assert run_id and tracker.run_id == run_id
    tracker.close("KILLED")
    tracker.close()  # twice: no effect
    assert [r for r in caplog.messages if "absent.txt" in r] and len(caplog.messages) == 1

    import mlflow

    store = f"sqlite:///{tmp_path / 'mlruns.db'}"
    assert tracker.where() == ("MLflow: run my run of experiment mipic_llm; see it with: mlflow ui "
                               f"--backend-store-uri {store}")  # fmt: skip
    client = mlflow.MlflowClient(store)
    run = client.get_run(run_id)
    assert run.info.status == "KILLED" and run.info.run_name == "my run"
    experiment = client.get_experiment(run.info.experiment_id)
    assert experiment.name == "mipic_llm"
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert len(run.data.params) == len(params)
    assert run.data.params["section.key229"] == "229" and run.data.params["none"] == "None"
    assert run.data.params["dims"] == "[16, 32]"
    assert run.data.params["long"] == "see long_params.json"
    stored = tmp_path / "mlartifacts" / run_id / "artifacts"
    inputs = {one.dataset.name: one for one in run.inputs.dataset_inputs}
    assert inputs.keys() == {"pairs.jsonl", "scored.jsonl"}
    scored = inputs["scored.jsonl"]
    assert [(tag.key, tag.value) for tag in scored.tags] == [("mlflow.data.context", "training")]
    assert scored.dataset.digest == "ab" * 16
    assert json.loads(scored.dataset.profile) == {"num_rows": 7}
    columns = json.loads(scored.dataset.schema)["mlflow_colspec"]
    assert [(c["name"], c["type"]) for c in columns] == [
        ("anchor", "string"), ("positive", "string"), ("score", "double")]  # fmt: skip
    tags = run.data.tags
    assert (tags["mlflow.source.name"], tags["launcher"], tags["objective"]) == (
        "mipic train", "one process", "mipic")  # fmt: skip
    assert tags["backbone"] == config.model.name and tags["mlflow.user"]
    assert "mlflow.source.git.commit" not in tags, "this is no repository"
    assert json.loads((stored / "long_params.json").read_text()) == {"long": "x" * 10_000}
    assert (stored / "config.yaml").is_file() and (stored / "model/export/weights.txt").is_file()
    history = client.get_metric_history(run_id, "loss/mrl_at_16")
    assert [m.step for m in history] == list(range(1, 1001)) and history[0].value == 0.25
    assert math.isnan(run.data.metrics["nan"])

    caplog.clear()
    again = make_tracker(config, out, resume_step=900, run_id=run_id)
    assert again.run_id == run_id  # known at once: an early checkpoint keeps the link
    again.params({**params, "train.resume": "auto", "new": 1})
    again.metrics(row, 1001)
    again.close()
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED" and not caplog.messages
    assert run.data.params["train.resume"] == "never" and run.data.params["new"] == "1"
    changed = [json.loads(p.read_text()) for p in stored.glob("changed_params_*.json")]
    assert changed == [{"train.resume": {"was": "never", "now": "auto"}}]
    assert len(client.get_metric_history(run_id, "loss")) == 1001
    assert [r["step"] for r in rows_of(out / "metrics.jsonl")] == [*range(1, 901), 1001]


def test_lost_run_is_replaced_with_one_line(tmp_path, row, caplog):
    tracker = MlflowTracker(f"sqlite:///{tmp_path}/m.db", "e", None, "0" * 32)
    tracker.metrics(row, 1)
    tracker.close()
    assert tracker.run_id != "0" * 32 and len(caplog.messages) == 1
    assert "a new run is created" in caplog.messages[0]


def test_worker_begins_with_the_first_row_of_training(tmp_path, row, monkeypatch):
    begun = []
    monkeypatch.setattr(RemoteRun, "connect", lambda self: begun.append(1) or 1 / 0)
    tracker = MlflowTracker(f"sqlite:///{tmp_path}/m.db", "e", None)
    tracker.params({"a": 1})
    tracker.evaluation({"eval/sts": 0.5}, 0)  # the table before training
    assert tracker.wait_run_id(0.0) is None
    time.sleep(0.3)
    assert not begun
    tracker.metrics(row, 1)
    until(lambda: begun)
    tracker.close()


# ---- MLflow, servers in trouble


def test_absent_server_warns_once_and_waits_for_nothing(tmp_path, row, caplog, monkeypatch):
    monkeypatch.setattr(mlflow_run, "RETRY_SECONDS", 0.2)  # several attempts within the test
    gate, connect = threading.Event(), RemoteRun.connect
    monkeypatch.setattr(RemoteRun, "connect", lambda self: gate.wait(60) and connect(self))
    tracker = MlflowTracker(f"http://u:secret@127.0.0.1:{closed_port()}", "e", "r")
    tracker.params({"a": 1})
    tracker.metrics(row, 1)
    assert not tracker._settled.is_set()  # none of these waited for an answer
    gate.set()
    assert tracker.wait_run_id(60) is None
    for step in range(2, 30_000):
        tracker.metrics(row, step)
    time.sleep(1.0)
    assert len(tracker._rows) == mlflow_run.ROWS_KEPT  # bounded
    tracker.close()
    assert len(caplog.messages) == 1 and "refused" in caplog.messages[0]
    assert "secret" not in caplog.text


def test_silent_server_does_not_hold_up_close(row, caplog, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")  # what waiting for it would take
    with socket.socket() as server:  # accepts, never answers
        server.bind(("127.0.0.1", 0))
        server.listen()
        tracker = MlflowTracker(f"http://127.0.0.1:{server.getsockname()[1]}", "e", "r")
        tracker.metrics(row, 1)
        time.sleep(0.2)
        start = time.monotonic()
        tracker.close()
        assert time.monotonic() - start < 60 and tracker._thread.is_alive()
        assert len(caplog.messages) == 1


class _Server:
    """As much of MLflow's REST interface as the tracker uses; can fail and come back."""

    def __init__(self) -> None:
        server = self
        self.healthy, self.metrics, self.status, self.calls = True, [], "RUNNING", 0
        run = {
            "info": {"run_id": "f" * 32, "experiment_id": "1", "status": "RUNNING"},
            "data": {},
        }

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.do_POST()

            def do_POST(self) -> None:
                server.calls += 1
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                data = json.loads(body or "{}")
                if server.healthy and self.path.endswith("/log-batch"):
                    server.metrics += [m["step"] for m in data.get("metrics", [])]
                if server.healthy and self.path.endswith("/runs/update"):
                    server.status = data["status"]
                answer = {"run": run, "experiment": {"experiment_id": "1", "name": "e"}}
                self.send_response(200 if server.healthy else 503)
                self.end_headers()
                self.wfile.write(json.dumps(answer if server.healthy else {}).encode())

            def log_message(self, *args: object) -> None: ...

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


def test_server_that_dies_and_returns_gets_every_row(caplog, monkeypatch):
    monkeypatch.setattr(mlflow_run, "RETRY_SECONDS", 0.3)
    monkeypatch.setattr(mlflow_run, "LINGER_SECONDS", 0.05)
    server = _Server()
    tracker = MlflowTracker(server.uri, "e", "r")
    tracker.metrics({"loss": 1.0}, 1)
    until(lambda: server.metrics == [1])
    server.healthy = False
    for step in (2, 3):
        tracker.metrics({"loss": 1.0}, step)
    before = server.calls
    until(lambda: server.calls >= before + 3)  # it keeps trying, without another word
    assert len(caplog.messages) == 1
    server.healthy = True
    tracker.metrics({"loss": 1.0}, 4)
    until(lambda: len(server.metrics) == 4)
    tracker.close()
    assert server.metrics == [1, 2, 3, 4] and server.status == "FINISHED"
    assert len(caplog.messages) == 1
    server.http.shutdown()


def test_server_that_dies_for_good(caplog, monkeypatch):
    monkeypatch.setattr(mlflow_run, "LINGER_SECONDS", 0.05)
    server = _Server()
    tracker = MlflowTracker(server.uri, "e", "r")
    tracker.metrics({"loss": 1.0}, 1)
    until(lambda: server.metrics == [1])
    server.http.shutdown()
    server.http.server_close()
    for step in range(2, 50):
        tracker.metrics({"loss": 1.0}, step)
        time.sleep(0.005)
    tracker.close("FAILED")
    assert len(caplog.messages) == 1 and tracker.run_id == "f" * 32


def test_forked_child_neither_hangs_nor_writes(tmp_path, row):
    tracker = MlflowTracker(f"http://127.0.0.1:{closed_port()}", "e", "r")
    with tracker._wake:  # the worst moment to fork: the lock is held
        child = os.fork()
        if child == 0:
            tracker.metrics(row, 1)
            tracker.wait_run_id(5)
            tracker.close()
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0 and not tracker._rows
    tracker.close()


# ---- make_tracker and the rest


def test_the_base_class_records_nothing():
    tracker = Tracker()
    tracker.params({"a": 1})
    tracker.metrics({"loss": 1.0}, 1)
    tracker.close()
    assert tracker.wait_run_id(1) is None


def test_off_writes_the_file_only(tmp_path, row):
    config = Config().replace(**{"tracking.mlflow": "off"})
    tracker = make_tracker(config, tmp_path)
    tracker.metrics(row, 1)
    tracker.close()
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]
    assert tracker.wait_run_id(1) is None


def test_environment_variables_are_honoured(tmp_path, monkeypatch):
    monkeypatch.setattr(MlflowTracker, "_work", lambda self: None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:1")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "exp")
    monkeypatch.setenv("MLFLOW_RUN_ID", "abc")
    monkeypatch.setenv("MLFLOW_TAGS", '{"team": "a", "n@": 1}')
    tracker = make_tracker(Config(), tmp_path)
    inner = tracker.trackers[1]
    assert isinstance(inner, MlflowTracker)
    assert (inner.remote.uri, inner.remote.experiment, inner.run_id) == (
        "http://host:1",
        "exp",
        "abc",
    )
    assert (
        inner.remote.tags | {"team": "a", "n_at_": "1"} == inner.remote.tags
        and "backbone" in inner.remote.tags
    )
    assert inner.remote.artifact_location is None
    config = Config().replace(**{
        "tracking.mlflow": "sqlite:///x.db", "tracking.experiment": "mine"
    })  # fmt: skip
    inner = make_tracker(config, tmp_path, run_id="ck").trackers[1]  # type: ignore
    assert (inner.remote.uri, inner.remote.experiment, inner.run_id) == (
        "sqlite:///x.db",
        "mine",
        "ck",
    )


def test_a_repository_a_launcher_and_an_older_store_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(MlflowTracker, "_work", lambda self: None)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "file").write_text("1")
    for command in (["init", "-q"], ["add", "file"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert run_tags(Config())["launcher"] == "one process"
    monkeypatch.setenv("LOCAL_SIZE", "1")
    monkeypatch.setenv("MLFLOW_TAGS", '{"launcher": "mine"}')
    for text, dirty in (("1", "false"), ("2", "true")):
        (tmp_path / "file").write_text(text)
        tags = make_tracker(Config(), tmp_path).trackers[1].remote.tags
        assert tags["mlflow.source.git.commit"] == head.stdout.strip()
        assert (tags["git.dirty"], tags["launcher"]) == (dirty, "mine")
    assert run_tags(Config())["launcher"] == "deepspeed"
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / "mlflow.db").touch()
    inner = make_tracker(Config(), tmp_path).trackers[1]
    assert inner.remote.uri == f"sqlite:///{tmp_path / 'mlruns' / 'mlflow.db'}"


@pytest.mark.parametrize("tags", ["{", "[1]", "a=b"])
def test_bad_tags_are_the_users_error(tmp_path, monkeypatch, tags):
    monkeypatch.setenv("MLFLOW_TAGS", tags)
    with pytest.raises(UserError, match="MLFLOW_TAGS"):
        make_tracker(Config(), tmp_path)


def test_mistyped_store_is_the_users_error(tmp_path):
    config = Config().replace(**{"tracking.mlflow": "of"})
    with pytest.raises(UserError, match="'of' is no tracking URI"):
        make_tracker(config, tmp_path)
    with pytest.raises(UserError, match="'of' is no tracking URI"):  # MLflow would make ./of
        follow(config, "evaluate", tmp_path, tmp_path)
    with pytest.raises(UserError, match="'of' is no tracking URI"):
        Parent("of", tmp_path, "study")
    with pytest.raises(UserError, match="'of' is no tracking URI"):  # before hours of work
        load_config(["--tracking.mlflow", "of"])


@pytest.mark.parametrize("uri, near", [("htp://host:5000", "http"), ("sqllite:///a.db", "sqlite")])
def test_a_kind_of_store_that_mlflow_has_not(uri, near):
    with pytest.raises(UserError, match=rf"no store of kind .*{near}"):
        load_config(["--tracking.mlflow", uri])


@pytest.mark.parametrize("uri", [
    "http://u:p@h:5", "mysql+pymysql://u@h/db", "databricks", "databricks://profile", "./runs",
    "file:runs", "/runs",
])  # fmt: skip
def test_kinds_of_store_that_mlflow_has(uri):
    """As MLflow's own registry of them lists them, which is not imported for a check."""
    from mlflow.tracking._tracking_service.utils import _tracking_store_registry

    assert set(STORES) <= set(_tracking_store_registry._registry)
    assert load_config(["--tracking.mlflow", uri]).tracking.mlflow == uri


@pytest.mark.parametrize("text, kept", [
    ("verdict\n\n**table**\n" + "- row\n" * 999, "verdict"),
    ("- line\n" * 999, "- line\n" * 699 + "- line"), ("short", None),
])  # fmt: skip
def test_a_long_text_is_cut_where_it_may_be_and_says_so(text, kept):
    tags: list[str] = []
    run = RemoteRun("sqlite:///m.db", "e", None, "0", {}, None, False, lambda *_: None)
    run.client = SimpleNamespace(set_tag=lambda *told: tags.append(told[-1]))
    run.text(text)
    assert tags == [f"{kept}\n\nThe rest is in the files of this run." if kept else text]


def test_environment_names_versions_and_no_paths():
    record = environment()
    text = json.dumps(record)
    assert record["python"] and record["torch"] and record["deepspeed"] and record["cpu"]
    assert record["cores"] >= 1 and isinstance(record["gpus"], list)
    assert socket.gethostname() not in text and str(Path.home()) + "/" not in text


def test_importing_tracking_does_not_import_mlflow():
    code = "import mipic_llm.tracking, sys; assert 'mlflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_is_printed_but_warnings(tmp_path):
    code = (
        "import sys; from mipic_llm.tracking import MlflowTracker\n"
        "t = MlflowTracker('sqlite:///' + sys.argv[1] + '/m.db', 'e', 'r')\n"
        "t.metrics({'loss': 1.0}, 1); t.close()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture(autouse=True)
def _all_warnings(caplog):
    caplog.set_level(logging.WARNING)


def test_a_database_that_cannot_be_written_is_told_at_once(row, caplog, monkeypatch):
    """MLflow would try again for half an hour, and a run waited a minute for it at its end."""
    monkeypatch.setattr(mlflow_remote, "IMPORTED", threading.Event())
    tracker = MlflowTracker("sqlite:////proc/mipic/m.db", "e", "r")  # root cannot write there
    tracker.metrics(row, 1)
    assert tracker.wait_run_id(60) is None
    tracker.close()
    assert len(caplog.messages) == 1 and "No such file" in caplog.messages[0], caplog.messages
    assert tracker.remote.down and mlflow_remote.IMPORTED.is_set()  # else reloads wait


def test_a_database_is_asked_for_the_right_to_write(tmp_path):
    (tmp_path / "none.db").write_bytes(b"a text " * 99)
    with pytest.raises(sqlite3.Error, match="not a database"):
        ask(tmp_path / "none.db")
    ask(tmp_path / "new.db")
    with closing(sqlite3.connect(tmp_path / "new.db", isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.Error, match="locked"):
            ask(tmp_path / "new.db", seconds=0.01)


def test_of_two_runs_that_begin_together_neither_is_lost(tmp_path, row, caplog, monkeypatch):
    """One process at a time makes a database's tables; and another may have made the experiment
    since this one asked for it."""
    import mlflow

    client, place, made = mlflow.MlflowClient, tmp_path / "place", []

    class Client(client):
        def __init__(self, uri):
            handle = os.open(place, os.O_RDONLY)
            with pytest.raises(BlockingIOError):  # as another process meets it
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(handle)
            super().__init__(uri)

        def create_experiment(self, name, *more):
            made.append(super().create_experiment(name, *more))  # the other one
            return super().create_experiment(name, *more)

    monkeypatch.setattr(mlflow, "MlflowClient", Client)
    tracker = MlflowTracker(f"sqlite:///{place}/m.db", "e", "r")
    tracker.metrics(row, 1)
    tracker.close()
    assert tracker.remote.place == made[0] and caplog.messages == []
