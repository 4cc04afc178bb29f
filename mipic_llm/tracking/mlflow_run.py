"""An MLflow run behind a worker thread. The ONLY file that imports mlflow, and only in that thread:
training never waits for the import, a database migration or a server, and no fault reaches it.

The file is long because of that rule: everything that touches mlflow sits together here.
"""

from __future__ import annotations

import json
import logging
import os
import posixpath
import re
import threading
import time
from collections import deque
from collections.abc import Mapping
from hashlib import sha1
from pathlib import Path
from typing import Any, NamedTuple

from mipic_llm.tracking.base import NullTracker, Status

log = logging.getLogger(__name__)

LONG_VALUE = 500  # characters of a parameter that every MLflow server takes
PARAMS_PER_BATCH, METRICS_PER_BATCH = 100, 1000  # MLflow's own limits
ROWS_KEPT, ITEMS_KEPT = 20_000, 1_000  # what waits while a server is away; the oldest rows go first
RETRY_SECONDS = 60.0  # between attempts on a server that is away
LINGER_SECONDS = 1.0  # between batches to a server that is there
ARTIFACT_ATTEMPTS = 3
CLOSE_DOWN, CLOSE_HEALTHY = 4.0, 60.0  # seconds that close() may wait


def legal(name: str) -> str:
    """An MLflow name for ours: `loss/mrl@16` becomes `loss/mrl_at_16`.

    MLflow 3.17 takes letters, digits, `_ - . : /` and blanks, up to 250 characters, and no name
    that a path normalisation would change. `@` becomes `_at_`, any other sign `_`; `:` too, because
    a server on Windows refuses it. A longer name is cut and ends in a hash of the whole.
    """
    safe = re.sub(r"[^\w./\- ]", "_", name.replace("@", "_at_"), flags=re.ASCII)
    safe = "/".join(part for part in safe.split("/") if part not in ("", ".", "..")) or "_"
    return safe if len(safe) <= 250 else f"{safe[:240]}_{sha1(name.encode()).hexdigest()[:8]}"


class _Artifact(NamedTuple):
    """Waiting file (`path`) or small JSON document (`content`, kept as `folder`)."""

    path: Path | None
    folder: str
    content: Any = None


class MlflowTracker(NullTracker):
    """An MLflow run behind a daemon worker thread.

    Calls only append to bounded buffers. The worker begins with the first row of training, or when
    a caller waits for the run's id or closes: an import of seconds would hold up the loading of the
    model. It imports mlflow, opens the store, creates the run or re-attaches to `run_id`, and sends
    what waits in batches. A server that is absent, slow or dies costs one warning; the worker then
    tries again every `RETRY_SECONDS`, the buffers hold what fits, and `close` gives up after about
    5 seconds. Values above 500 characters go whole into the artifact `long_params.json`. After a
    resume, values that differ from those of the first start (MLflow refuses to change a parameter)
    go into `changed_params_<time>.json`; steps that the killed run had logged beyond its checkpoint
    appear twice in the run, the later one last.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        run_name: str | None,
        run_id: str | None = None,
        *,
        tags: Mapping[str, str] | None = None,
        artifact_location: str | None = None,
    ) -> None:
        self.uri, self.experiment, self.run_name = uri, experiment, run_name
        self.artifact_location = artifact_location  # for a new experiment; None = the server's own
        self.tags = dict(tags or {})
        self.run_id = run_id
        self._pid = os.getpid()
        self._wake = threading.Condition()
        self._params: dict[str, str] = {}
        self._rows: deque[tuple[int, int, dict[str, float]]] = deque(maxlen=ROWS_KEPT)
        self._artifacts: deque[tuple[int, _Artifact]] = deque(maxlen=ITEMS_KEPT)
        self._begin = False  # see the class
        self._closing: Status | None = None
        self._client: Any = None
        self._settled = threading.Event()  # the run exists, or the first attempt failed
        self._down = self._warned = self._warned_item = False
        self._busy_since = 0.0  # start of the request under way, 0 = none
        # Short patience, unless the user chose otherwise: the worker has its own retry. Set here,
        # not there: changing the environment beside another thread's getenv is not safe.
        for name, value in (("MAX_RETRIES", "0"), ("TIMEOUT", "10"), ("BACKOFF_FACTOR", "0")):
            os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{name}", value)
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()
        mine = self._thread.ident  # urllib3 reports every failed attempt; others' stay visible
        logging.getLogger("urllib3.connectionpool").addFilter(lambda r: r.thread != mine)

    # ---- called by training: only buffers, never waits

    def wait_run_id(self, timeout: float) -> str | None:
        if os.getpid() == self._pid and timeout > 0:
            self._put(lambda: setattr(self, "_begin", True))
            self._settled.wait(timeout)
        return self.run_id

    def params(self, flat: Mapping[str, Any]) -> None:
        as_json = (dict, list, tuple)
        texts = {k: json.dumps(v, default=str) if isinstance(v, as_json) else str(v)
                 for k, v in flat.items()}  # fmt: skip
        self._put(lambda: self._params.update(texts))

    def metrics(self, row: Mapping[str, float], step: int) -> None:
        self._begin = True
        self._row(row, step)

    def evaluation(self, row: Mapping[str, float], step: int) -> None:
        self._row({k: v for k, v in row.items() if v == v}, step)  # no store takes NaN

    def _row(self, row: Mapping[str, float], step: int) -> None:
        item = (int(time.time() * 1000), int(step), {k: float(v) for k, v in row.items()})
        self._put(lambda: self._rows.append(item))

    def artifact(self, path: str | Path, folder: str = "") -> None:
        self._put(lambda: self._artifacts.append((0, _Artifact(Path(path), folder))))

    def _put(self, change: Any) -> None:
        # After a fork the worker lives in the parent only, and its lock may be held for ever here.
        if os.getpid() != self._pid or self._closing:
            return
        with self._wake:
            change()
            self._wake.notify()

    def close(self, status: Status = "FINISHED") -> None:
        if os.getpid() != self._pid or self._closing:
            return
        with self._wake:
            self._closing = status
            self._wake.notify()
        start = time.monotonic()
        while self._thread.is_alive():
            self._thread.join(0.02)
            now = time.monotonic()
            # One request that hangs on a remote server means it is away, whatever came before.
            hangs = self.uri.startswith("http") and self._busy_since > 0
            stuck = self._down or (hangs and now - max(start, self._busy_since) > CLOSE_DOWN)
            if now - start > (CLOSE_DOWN if stuck else CLOSE_HEALTHY):
                self._warn("the last rows were not sent in time")
                return

    # ---- the worker

    def _work(self) -> None:
        retry_at = 0.0
        while True:
            with self._wake:
                while not self._closing:
                    delay = retry_at - time.monotonic()
                    waiting = self._params or self._rows or self._artifacts
                    if self._begin and delay <= 0 and (self._client is None or waiting):
                        break
                    self._wake.wait(delay if delay > 0 else None)
                closing = self._closing
            try:
                if self._client is None:
                    self._connect()
                self._send()
                if closing:
                    self._call("set_terminated", status=closing)
                retry_at = time.monotonic() + LINGER_SECONDS
            except Exception as error:  # any fault of a tracking server must stay in here
                self._down = True
                retry_at = time.monotonic() + RETRY_SECONDS
                self._warn(_short(error))
            self._busy_since = 0.0
            self._settled.set()
            if closing:
                return

    def _warn(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            log.warning("MLflow at %s: %s; training goes on, metrics.jsonl has every row; no "
                        "further warnings", _no_password(self.uri), why)  # fmt: skip

    def _connect(self) -> None:
        if self.uri.startswith("sqlite:///"):
            Path(self.uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        import mlflow

        for name in ("mlflow", "alembic"):
            level = os.environ.get("MLFLOW_LOGGING_LEVEL", "CRITICAL").upper()
            logging.getLogger(name).setLevel(level)
        self._busy_since = time.monotonic()
        client = mlflow.MlflowClient(self.uri)
        run = self._attach(client) if self.run_id else None
        if run is None:
            if self.run_id:
                self.tags["resumed_from_run"] = self.run_id
            found = client.get_experiment_by_name(self.experiment)
            where = found.experiment_id if found else None
            if where is None:
                where = client.create_experiment(self.experiment, self.artifact_location)
            run = client.create_run(where, run_name=self.run_name, tags=self.tags)
        self._logged = dict(run.data.params)
        self.run_id, self._client, self._down = run.info.run_id, client, False
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
            log.warning("MLflow run %s is not at %s any more; a new run is created",
                        self.run_id, _no_password(self.uri))  # fmt: skip
            return None
        client.update_run(self.run_id, status="RUNNING")
        for key, value in self.tags.items():
            client.set_tag(self.run_id, key, value)
        return run

    def _send(self) -> None:
        """All that waits, in order: parameters, rows, files. What was sent leaves the buffers."""
        from mlflow.entities import Metric

        with self._wake:
            params = dict(self._params)
        if params:
            self._send_params(params)
            with self._wake:
                self._params = {k: v for k, v in self._params.items() if params.get(k) != v}
        while True:
            batch: list[Any] = []
            taken: list[Any] = []
            with self._wake:
                waiting = list(self._rows)
            for item in waiting:
                when, step, row = item
                if taken and len(batch) + len(row) > METRICS_PER_BATCH:
                    break
                batch += [Metric(legal(k), v, when, step) for k, v in row.items()]
                taken.append(item)
            if not taken:
                break
            for start in range(0, len(batch), METRICS_PER_BATCH):
                self._call("log_batch", metrics=batch[start : start + METRICS_PER_BATCH])
            sent = {id(item) for item in taken}
            with self._wake:
                while (
                    self._rows and id(self._rows[0]) in sent
                ):  # the oldest may have been pushed out
                    self._rows.popleft()
        while self._artifacts:
            self._send_artifact()

    def _send_params(self, params: dict[str, str]) -> None:
        from mlflow.entities import Param

        long = {k: v for k, v in params.items() if len(v) > LONG_VALUE}
        short = {legal(k): "see long_params.json" if k in long else v for k, v in params.items()}
        new = [Param(k, v) for k, v in short.items() if k not in self._logged]
        for start in range(0, len(new), PARAMS_PER_BATCH):
            self._call("log_batch", params=new[start : start + PARAMS_PER_BATCH])
        changed = {
            k: {"was": self._logged[k], "now": v}
            for k, v in short.items()
            if self._logged.get(k, v) != v
        }
        self._logged.update({p.key: p.value for p in new})
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        documents = [("long_params.json", long), (f"changed_params_{stamp}.json", changed)]
        with self._wake:
            for name, content in documents:
                if content:
                    self._artifacts.append((0, _Artifact(None, name, content)))

    def _send_artifact(self) -> None:
        """The oldest waiting file. A faulty one is given up after a few rounds; a dead server is
        noticed first, by the cheap call, and costs the file nothing."""
        self._call("get_run")
        with self._wake:
            attempts, item = self._artifacts.popleft()
        try:
            if item.path is None:
                self._client.log_dict(self.run_id, item.content, item.folder)
            elif item.path.is_dir():
                folder = posixpath.join(item.folder, item.path.name)
                self._client.log_artifacts(self.run_id, str(item.path), folder)
            else:
                self._client.log_artifact(self.run_id, str(item.path), item.folder or None)
        except Exception as error:
            gone = item.path is not None and not item.path.exists()
            if not (gone or self._closing) and attempts + 1 < ARTIFACT_ATTEMPTS:
                with self._wake:
                    self._artifacts.appendleft((attempts + 1, item))
                raise
            self._warn_item(f"{item.path or item.folder} was not uploaded: {_short(error)}")

    def _call(self, name: str, **what: Any) -> None:
        """One request. What MLflow finds malformed is left out (one warning), not sent again."""
        self._busy_since = time.monotonic()
        try:
            getattr(self._client, name)(self.run_id, **what)
        except Exception as error:
            if getattr(error, "error_code", "") != "INVALID_PARAMETER_VALUE":
                raise
            self._warn_item(f"{', '.join(what)} refused: {_short(error)}")
        self._busy_since, self._down = 0.0, False

    def _warn_item(self, text: str) -> None:
        if not self._warned_item:
            self._warned_item = True
            log.warning("MLflow: %s", text)


def _short(error: BaseException) -> str:
    """The first line of an error, without the retry machinery's nested addresses."""
    text = " ".join(str(error).split()) or type(error).__name__
    if cause := re.search(r"Connection refused|timed out|Name or service not known", text):
        return cause.group(0).lower()
    return text[:160]


def _no_password(uri: str) -> str:
    return re.sub(r"//[^/@]*@", "//...@", uri)
