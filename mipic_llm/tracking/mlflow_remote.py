"""A run on an MLflow server or in a store: found or made, and what is sent to it. Called by the
worker thread of mlflow_run.py; mlflow is imported here and in mlflow_model.py.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import shlex
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha1
from pathlib import Path
from typing import Any

from mipic_llm.errors import masked
from mipic_llm.tracking.database import alone, sqlite_file
from mipic_llm.tracking.lent import Lent
from mipic_llm.types import Judgement

LONG_VALUE = 500  # characters of a parameter that every MLflow server takes
LONG_TEXT = 4900  # of a tag
KIND = {"mlflow.experimentKind": "custom_model_development"}  # not GenAI
PARAMS_PER_REQUEST, METRICS_PER_REQUEST = 100, 1000  # MLflow's own limits
IMPORT_SECONDS = 30.0

IMPORTING = threading.Event()  # a worker is about to import mlflow, or does
IMPORTED = threading.Event()


def wait_for_import() -> None:
    """Return when no worker thread is importing mlflow (after 30 seconds in any case).

    For the main thread, before it imports large packages: where two threads import packages that
    import each other, one of them can see half-initialised modules.
    """
    if IMPORTING.is_set():
        IMPORTED.wait(IMPORT_SECONDS)


def legal(name: str) -> str:
    """An MLflow name for ours: `loss/mrl@16` becomes `loss/mrl_at_16`.

    MLflow 3.17 takes letters, digits, `_ - . : /` and blanks, up to 250 characters, and no name
    that a path normalisation would change. `@` becomes `_at_`, any other sign `_` (`:` too, which a
    server on Windows refuses). A longer name is cut and ends in a hash of the whole.
    """
    safe = re.sub(r"[^\w./\- ]", "_", name.replace("@", "_at_"), flags=re.ASCII)
    safe = "/".join(part for part in safe.split("/") if part not in ("", ".", "..")) or "_"
    return safe if len(safe) <= 250 else f"{safe[:240]}_{sha1(name.encode()).hexdigest()[:8]}"


class RemoteRun:
    """The run that a tracker sends to. A server that is away raises; what MLflow finds malformed is
    told by `warn(text, subject)`.

    run_id: to go on with, then that of the run; None = a new one is made. place: the experiment's
    id. busy_since: start of the request under way (time.monotonic), 0 = none. down: the last
    attempt failed. models: lines on what was logged and registered.
    """

    def __init__(
        self, uri: str, experiment: str, name: str | None, run_id: str | None,
        tags: Mapping[str, str], artifact_location: str | None, system: bool,
        warn: Callable[[str, str], None],
    ) -> None:  # fmt: skip
        self.uri, self.experiment, self.name, self.run_id = uri, experiment, name, run_id
        self.artifact_location, self.tags, self._warn = artifact_location, dict(tags), warn
        self.began, self.place, self.client = int(time.time() * 1000), None, None
        self.busy_since, self.down = 0.0, False
        self.models: list[str] = []
        self.lent = Lent()
        self._logged: dict[str, str] = {}
        self._system, self._monitor = system, None

    def connect(self) -> None:
        try:
            import mlflow
        finally:
            IMPORTED.set()
        level = os.environ.get("MLFLOW_LOGGING_LEVEL", "CRITICAL").upper()
        self.lent.quiet(level)
        with alone(sqlite_file(self.uri)):
            self.busy_since = time.monotonic()
            client = mlflow.MlflowClient(self.uri)
            run = self._attach(client) if self.run_id else None
            if run is None:
                if self.run_id:
                    self.tags["resumed_from_run"] = self.run_id
                place = self._experiment(client)
                run = client.create_run(place, self.began, self.tags, self.name)
        self._logged, self.place = dict(run.data.params), run.info.experiment_id
        self.run_id, self.client, self.down = run.info.run_id, client, False
        if self._system:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            self._monitor = SystemMetricsMonitor(self.run_id, tracking_uri=self.uri)
            self._monitor.start()
            self._system = False

    def _experiment(self, client: Any) -> str:
        """The id of the experiment, which another run may make at the same moment."""
        if found := client.get_experiment_by_name(self.experiment):
            return found.experiment_id
        try:
            return client.create_experiment(self.experiment, self.artifact_location, KIND)
        except Exception:
            if found := client.get_experiment_by_name(self.experiment):
                return found.experiment_id
            raise

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

    def record(self) -> dict[str, str] | None:
        if self.run_id is None or self.place is None:
            return None
        file = sqlite_file(self.uri)
        uri = f"sqlite:///{file.resolve()}" if file else masked(self.uri)
        return {"uri": uri, "experiment": self.experiment, "run_id": self.run_id}

    def where(self) -> str | None:
        if self.run_id is None or self.place is None:
            return None
        if self.uri.startswith("http"):
            run = f"MLflow: {masked(self.uri)}/#/experiments/{self.place}/runs/{self.run_id}"
        else:
            page = f"mlflow ui --backend-store-uri {shlex.quote(self.uri)}"
            name = self.name or self.run_id
            run = f"MLflow: run {name} of experiment {self.experiment}; see it with: {page}"
        return "\n".join([*self.models, run])

    def end(self, status: str) -> None:
        if self._monitor is not None:
            self._monitor.finish()
        self.call("set_terminated", status=status)

    def rows(self, rows: Iterable[tuple[int, int, Mapping[str, float]]]) -> None:
        """(time in ms, step, figures) of each row."""
        from mlflow.entities import Metric

        self._in_batches("metrics", METRICS_PER_REQUEST, [
            Metric(legal(k), v, when, step) for when, step, row in rows for k, v in row.items()
        ])  # fmt: skip

    def text(self, text: str) -> None:
        """Markdown at the top of the run's page, cut at the end of a paragraph or line."""
        if len(text) > LONG_TEXT:
            head = text[:LONG_TEXT]
            head = next((cut for end in ("\n\n**", "\n") if (cut := head.rpartition(end)[0])), head)
            text = f"{head}\n\nThe rest is in the files of this run."
        self.client.set_tag(self.run_id, "mlflow.note.content", text)

    def params(self, params: dict[str, str]) -> None:
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
                self.client.log_dict(self.run_id, found, f"{name}.json")

    def data(self, sources: list[Mapping[str, Any]], context: str) -> None:
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
        self.call("log_inputs", datasets=inputs)

    def model(
        self, folder: Path, figures: dict[str, float], step: int,
        register: tuple[str, Judgement] | None,
    ) -> None:  # fmt: skip
        from mipic_llm.tracking import mlflow_model

        run = self.client.get_run(self.run_id)
        model_id, about = mlflow_model.log_model(self.client, run, folder, figures, step)
        name = f"models:/{model_id}"
        if register is not None:
            name = mlflow_model.register(
                self.client, register[0], model_id, self.run_id, about, register[1])  # fmt: skip
        self.models.append(f"MLflow model: {name}")

    def file(self, path: Path, folder: str) -> None:
        if path.is_dir():
            place = posixpath.join(folder, path.name)
            self.client.log_artifacts(self.run_id, str(path), place)
        elif path.exists():
            self.client.log_artifact(self.run_id, str(path), folder or None)
        else:
            self._warn(f"{path} was not uploaded: it does not exist", "item")

    def _in_batches(self, name: str, size: int, items: list[Any]) -> None:
        for start in range(0, len(items), size):
            self.call("log_batch", **{name: items[start : start + size]})

    def call(self, name: str, **what: Any) -> None:
        """One request. What MLflow finds malformed is left out with a warning, not sent again."""
        self.busy_since = time.monotonic()
        try:
            getattr(self.client, name)(self.run_id, **what)
        except Exception as error:
            if getattr(error, "error_code", "") != "INVALID_PARAMETER_VALUE":
                raise
            self._warn(f"{', '.join(what)} refused: {short(error)}", "item")
        self.busy_since, self.down = 0.0, False


def short(error: BaseException) -> str:
    """The first line of an error, without the retry machinery's nested addresses."""
    text = " ".join(str(error).split()) or type(error).__name__
    if cause := re.search(r"Connection refused|timed out|Name or service not known", text):
        return cause.group(0).lower()
    return masked(text)[:160]
