"""An MLflow run behind a worker thread. mlflow is imported here and in mlflow_model.py alone, and
only in that thread: training never waits for the import, a database migration or a server, and sees
none of its errors.
"""

from __future__ import annotations

import json
import logging
import os
import posixpath
import re
import shlex
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import sha1
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from mipic_llm.errors import masked
from mipic_llm.tracking.base import Status, Tracker
from mipic_llm.types import Judgement

log = logging.getLogger(__name__)

LONG_VALUE = 500  # characters of a parameter that every MLflow server takes
KIND = {"mlflow.experimentKind": "custom_model_development"}  # not GenAI
LONG_TEXT = 4900  # of a tag
PARAMS_PER_REQUEST, METRICS_PER_REQUEST = 100, 1000  # MLflow's own limits
ROWS_PER_REQUEST = 25
ROWS_KEPT, JOBS_KEPT = 20_000, 1_000  # buffered while a server is away; the oldest rows go first
RETRY_SECONDS = 60.0  # between attempts while the server is away
LINGER_SECONDS = 1.0  # between batches while it is there
ATTEMPTS = 3  # to send a file
CLOSE_DOWN, CLOSE_HEALTHY = 4.0, 60.0  # seconds that close() may wait
IMPORT_SECONDS = 30.0
BYTES_PER_SECOND = 10e6  # a model that is sent slower than this is given up by close()

_importing = threading.Event()  # a worker is about to import mlflow, or does
_imported = threading.Event()


def wait_for_import() -> None:
    """Return when no worker thread is importing mlflow (after 30 seconds in any case).

    For the main thread, before it imports large packages: where two threads import packages that
    import each other, one of them can see half-initialised modules.
    """
    if _importing.is_set():
        _imported.wait(IMPORT_SECONDS)


def legal(name: str) -> str:
    """An MLflow name for ours: `loss/mrl@16` becomes `loss/mrl_at_16`.

    MLflow 3.17 takes letters, digits, `_ - . : /` and blanks, up to 250 characters, and no name
    that a path normalisation would change. `@` becomes `_at_`, any other sign `_` (`:` too, which a
    server on Windows refuses). A longer name is cut and ends in a hash of the whole.
    """
    safe = re.sub(r"[^\w./\- ]", "_", name.replace("@", "_at_"), flags=re.ASCII)
    safe = "/".join(part for part in safe.split("/") if part not in ("", ".", "..")) or "_"
    return safe if len(safe) <= 250 else f"{safe[:240]}_{sha1(name.encode()).hexdigest()[:8]}"


class _Job(NamedTuple):
    """Parameters or a file, waiting to be sent."""

    send: Callable[[], None]
    about: str
    attempts: int = 0


class MlflowTracker(Tracker):
    """An MLflow run; methods append to bounded buffers, a daemon thread sends them in batches.

    The thread begins with the first row of training, or when a caller waits for the run's id or
    closes: earlier, its imports would slow down the loading of the model. It creates the run, or
    goes on with `run_id`. A server that is absent or dies costs one warning and is tried again
    every `RETRY_SECONDS`; `close` then gives up after about 5 seconds. Values above 500 characters
    go whole into the artifact `long_params.json`. After a resume, new values of parameters (MLflow
    cannot change one) go into `changed_params_<time>.json`; steps that the killed run had logged
    beyond its checkpoint appear twice, the later one last.
    """

    def __init__(
        self, uri: str, experiment: str, run_name: str | None, run_id: str | None = None, *,
        tags: Mapping[str, str] | None = None, artifact_location: str | None = None,
        system: bool = False,
    ) -> None:  # fmt: skip
        """artifact_location: of a new experiment; None = the server's choice. system: MLflow's own
        sampler of processors, memory and GPUs goes along."""
        self.uri, self.experiment, self.run_name = uri, experiment, run_name
        self.artifact_location, self.tags = artifact_location, dict(tags or {})
        self.run_id, self._began = run_id, int(time.time() * 1000)
        self.problems: list[str] = []  # of what was asked for by name: models
        self._system, self._monitor, self._patience = system, None, CLOSE_HEALTHY
        self._models: list[str] = []  # lines on what was logged and registered
        self._pid = os.getpid()
        self._wake = threading.Condition()
        self._rows: deque[tuple[int, int, dict[str, float]]] = deque(maxlen=ROWS_KEPT)
        self._jobs: deque[_Job] = deque(maxlen=JOBS_KEPT)
        self._begin = False
        self._closing: Status | None = None
        self._client: Any = None
        self._place: str | None = None  # the experiment's id
        self._settled = threading.Event()  # the run exists, or the first attempt failed
        self._down, self._warned = False, set[str]()
        self._busy_since = 0.0  # start of the request under way, 0 = none
        # Short patience, unless the user chose otherwise: the worker has its own retry. Set here,
        # not there: changing the environment beside another thread's getenv is not safe.
        for name, value in (("HTTP_REQUEST_MAX_RETRIES", "0"), ("HTTP_REQUEST_TIMEOUT", "10"),
                            ("HTTP_REQUEST_BACKOFF_FACTOR", "0"), ("DISABLE_TELEMETRY", "true"),
                            ("SUPPRESS_PRINTING_URL_TO_STDOUT", "true")):  # fmt: skip
            os.environ.setdefault(f"MLFLOW_{name}", value)
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()
        mine = self._thread.ident  # urllib3 reports every failed attempt; others' stay visible
        logging.getLogger("urllib3.connectionpool").addFilter(lambda r: r.thread != mine)

    # ---- called by training: only buffers, never waits

    def wait_run_id(self, timeout: float) -> str | None:
        if timeout > 0 and self._put(lambda: None, begin=True):
            self._settled.wait(timeout)
        return self.run_id

    def params(self, flat: Mapping[str, Any]) -> None:
        as_json = (dict, list, tuple)
        texts = {k: json.dumps(v, default=str) if isinstance(v, as_json) else str(v)
                 for k, v in flat.items()}  # fmt: skip
        texts = {k: masked(v) for k, v in texts.items()}
        job = _Job(partial(self._send_params, texts), "parameters")
        self._put(lambda: self._jobs.append(job))

    def data(self, sources: Sequence[Mapping[str, Any]], context: str) -> None:
        job = _Job(partial(self._send_data, list(sources), context), "data sets")
        self._put(lambda: self._jobs.append(job))

    def describe(self, text: str) -> None:
        if len(text) > LONG_TEXT:  # whole tables
            text = text[:LONG_TEXT].rpartition("\n\n**")[0] + "\n\nMore in table.txt."
        job = _Job(lambda: self._client.set_tag(self.run_id, "mlflow.note.content", text), "text")
        self._put(lambda: self._jobs.append(job))

    def model(
        self, folder: Path, figures: Mapping[str, float], step: int,
        register: tuple[str, Judgement] | None = None,
    ) -> None:  # fmt: skip
        legal_figures = {legal(k): float(v) for k, v in figures.items() if v == v}
        send = partial(self._send_model, folder, legal_figures, step, register)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        self._patience += CLOSE_HEALTHY + size / BYTES_PER_SECOND
        self._put(lambda: self._jobs.append(_Job(send, f"the model {folder}")))

    def record(self) -> dict[str, str] | None:
        if self.run_id is None or self._place is None:
            return None
        local = self.uri.startswith("sqlite:///")
        path = Path(self.uri.removeprefix("sqlite:///")).resolve()
        uri = f"sqlite:///{path}" if local else masked(self.uri)
        return {"uri": uri, "experiment": self.experiment, "run_id": self.run_id}

    def where(self) -> str | None:
        if self.run_id is None or self._place is None:
            return None
        if self.uri.startswith("http"):
            run = f"MLflow: {masked(self.uri)}/#/experiments/{self._place}/runs/{self.run_id}"
        else:
            page = f"mlflow ui --backend-store-uri {shlex.quote(self.uri)}"
            name = self.run_name or self.run_id
            run = f"MLflow: run {name} of experiment {self.experiment}; see it with: {page}"
        return "\n".join([*self._models, run])

    def metrics(self, row: Mapping[str, float], step: int) -> None:
        self._row(row, step, begin=True)

    def evaluation(self, row: Mapping[str, float], step: int) -> None:
        self._row({k: v for k, v in row.items() if v == v}, step)  # no store takes NaN

    def _row(self, row: Mapping[str, float], step: int, begin: bool = False) -> None:
        item = (int(time.time() * 1000), int(step), {k: float(v) for k, v in row.items()})
        self._put(lambda: self._rows.append(item), begin)

    def artifact(self, path: str | Path, folder: str = "") -> None:
        job = _Job(partial(self._send_file, Path(path), folder), str(path))
        self._put(lambda: self._jobs.append(job))

    def close(self, status: Status = "FINISHED") -> None:
        if not self._put(lambda: setattr(self, "_closing", status), begin=True):
            return
        start = time.monotonic()
        while self._thread.is_alive():
            self._thread.join(0.02)
            now = time.monotonic()
            # One request that hangs on a remote server means it is away, whatever came before.
            hangs = self.uri.startswith("http") and self._busy_since > 0
            stuck = self._down or (hangs and now - max(start, self._busy_since) > CLOSE_DOWN)
            if now - start > (CLOSE_DOWN if stuck else self._patience):
                self._warn_away("the last rows were not sent in time")
                return

    def _put(self, change: Callable[[], Any], begin: bool = False) -> bool:
        """Change a buffer and wake the worker. -> False in a closed run or a forked child (there is
        no worker, and the lock may be held for ever)."""
        if os.getpid() != self._pid or self._closing:
            return False
        with self._wake:
            change()
            if begin and not self._begin:
                self._begin = True
                _importing.set()
            self._wake.notify()
        return True

    # ---- the worker

    def _work(self) -> None:
        retry_at = 0.0
        while True:
            with self._wake:
                while not self._closing:
                    delay = retry_at - time.monotonic()
                    waiting = self._rows or self._jobs
                    if self._begin and delay <= 0 and (self._client is None or waiting):
                        break
                    self._wake.wait(delay if delay > 0 else None)
                closing = self._closing
            try:
                if self._client is None:
                    self._connect()
                self._send()
                if closing:
                    if self._monitor is not None:
                        self._monitor.finish()
                    self._call("set_terminated", status=closing)
                retry_at = time.monotonic() + LINGER_SECONDS
            except Exception as error:  # no error of a tracking server may end the run
                self._down = True
                retry_at = time.monotonic() + RETRY_SECONDS
                self._warn_away(_short(error))
            self._busy_since = 0.0
            self._settled.set()
            if closing:
                return

    def _warn_away(self, why: str) -> None:
        self._warn(f"{why}; training goes on, metrics.jsonl has every row; no further warnings")

    def _warn(self, text: str, about: str = "server") -> None:
        """One warning per run and subject."""
        if about not in self._warned:
            self._warned.add(about)
            log.warning("MLflow at %s: %s", masked(self.uri), text)

    def _connect(self) -> None:
        if self.uri.startswith("sqlite:///"):
            Path(self.uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        try:
            import mlflow
        finally:
            _imported.set()
        level = os.environ.get("MLFLOW_LOGGING_LEVEL", "CRITICAL").upper()
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(level)
        self._busy_since = time.monotonic()
        client = mlflow.MlflowClient(self.uri)
        run = self._attach(client) if self.run_id else None
        if run is None:
            if self.run_id:
                self.tags["resumed_from_run"] = self.run_id
            found = client.get_experiment_by_name(self.experiment)
            place = found.experiment_id if found else client.create_experiment(
                self.experiment, self.artifact_location, KIND)  # fmt: skip
            run = client.create_run(place, self._began, self.tags, self.run_name)
        self._logged, self._place = dict(run.data.params), run.info.experiment_id
        self.run_id, self._client, self._down = run.info.run_id, client, False
        if self._system:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            self._monitor = SystemMetricsMonitor(self.run_id, tracking_uri=self.uri)
            self._monitor.start()
            self._system = False
        self._settled.set()

    def _attach(self, client: Any) -> Any:
        """The run to go on with, set to RUNNING; None if this server has no such (live) run."""
        try:
            run = client.get_run(self.run_id)
        except Exception as error:
            if getattr(error, "error_code", "") != "RESOURCE_DOES_NOT_EXIST":
                raise
            run = None
        if run is None or run.info.lifecycle_stage == "deleted":
            self._warn(f"run {self.run_id} is not there any more; a new run is created", "run")
            return None
        client.update_run(self.run_id, status="RUNNING")
        for key, value in self.tags.items():
            client.set_tag(self.run_id, key, value)
        return run

    def _send(self) -> None:
        """Everything buffered: rows, then parameters and files. What was sent is removed."""
        from mlflow.entities import Metric

        while self._rows:
            with self._wake:
                taken = list(islice(self._rows, ROWS_PER_REQUEST))
            self._in_batches("metrics", METRICS_PER_REQUEST, [
                Metric(legal(k), v, when, step) for when, step, row in taken for k, v in row.items()
            ])  # fmt: skip
            with self._wake:
                for item in taken:
                    if self._rows and self._rows[0] is item:  # else the full buffer has dropped it
                        self._rows.popleft()
        while self._jobs:
            self._call("get_run")  # notices a dead server, which costs the job no attempt
            with self._wake:
                job = self._jobs.popleft()
            try:
                job.send()
            except Exception as error:
                if job.attempts + 1 < ATTEMPTS and not self._closing:
                    with self._wake:
                        self._jobs.appendleft(job._replace(attempts=job.attempts + 1))
                    raise
                self.problems.append(f"{job.about} was not uploaded: {_short(error)}")
                self._warn(self.problems[-1], "item")

    def _send_params(self, params: dict[str, str]) -> None:
        from mlflow.entities import Param

        long = {k: v for k, v in params.items() if len(v) > LONG_VALUE}
        short = {legal(k): "see long_params.json" if k in long else v for k, v in params.items()}
        changed = {k: {"was": self._logged[k], "now": v} for k, v in short.items()
                   if self._logged.get(k, v) != v}  # fmt: skip
        new = {k: v for k, v in short.items() if k not in self._logged}
        self._in_batches("params", PARAMS_PER_REQUEST, [Param(k, v) for k, v in new.items()])
        self._logged.update(new)
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        for name, found in ("long_params", long), (f"changed_params_{stamp}", changed):
            if found:
                self._client.log_dict(self.run_id, found, f"{name}.json")

    def _send_data(self, sources: list[Mapping[str, Any]], context: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        if not sources:
            return
        texts = {"texts": ["text"], "scored": ["anchor", "positive", "score"]}
        inputs = []
        for one in sources:
            columns = texts.get(one["kind"], ["anchor", "positive"])
            schema = [{"name": name, "type": "double" if name == "score" else "string",
                       "required": True} for name in columns]  # fmt: skip
            inputs.append(DatasetInput(
                Dataset(legal(one["name"]), one["digest"][:36], "local",
                        json.dumps({"uri": masked(one["name"])}),
                        json.dumps({"mlflow_colspec": schema}),
                        json.dumps({"num_rows": one["rows"]})),
                [InputTag("mlflow.data.context", context)],
            ))  # fmt: skip
        self._call("log_inputs", datasets=inputs)

    def _send_model(
        self, folder: Path, figures: dict[str, float], step: int,
        register: tuple[str, Judgement] | None,
    ) -> None:  # fmt: skip
        from mipic_llm.tracking import mlflow_model

        run = self._client.get_run(self.run_id)
        model_id, about = mlflow_model.log_model(self._client, run, folder, figures, step)
        name = f"models:/{model_id}"
        if register is not None:
            name = mlflow_model.register(
                self._client, register[0], model_id, self.run_id, about, register[1])  # fmt: skip
        self._models.append(f"MLflow model: {name}")

    def _send_file(self, path: Path, folder: str) -> None:
        if path.is_dir():
            place = posixpath.join(folder, path.name)
            self._client.log_artifacts(self.run_id, str(path), place)
        elif path.exists():
            self._client.log_artifact(self.run_id, str(path), folder or None)
        else:
            self._warn(f"{path} was not uploaded: it does not exist", "item")

    def _in_batches(self, name: str, size: int, items: list[Any]) -> None:
        for start in range(0, len(items), size):
            self._call("log_batch", **{name: items[start : start + size]})

    def _call(self, name: str, **what: Any) -> None:
        """One request. What MLflow finds malformed is left out with a warning, not sent again."""
        self._busy_since = time.monotonic()
        try:
            getattr(self._client, name)(self.run_id, **what)
        except Exception as error:
            if getattr(error, "error_code", "") != "INVALID_PARAMETER_VALUE":
                raise
            self._warn(f"{', '.join(what)} refused: {_short(error)}", "item")
        self._busy_since, self._down = 0.0, False


def _short(error: BaseException) -> str:
    """The first line of an error, without the retry machinery's nested addresses."""
    text = " ".join(str(error).split()) or type(error).__name__
    if cause := re.search(r"Connection refused|timed out|Name or service not known", text):
        return cause.group(0).lower()
    return masked(text)[:160]
