"""Where a run's parameters, metrics and files go: metrics.jsonl, MLflow, both, or nowhere.

metrics.jsonl is the complete record; MLflow holds the same rows under legal names (see `legal`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mipic_llm.config import Config
from mipic_llm.config.check import check_store
from mipic_llm.errors import UserError, masked
from mipic_llm.tracking.base import JsonlTracker, Status, Tracker
from mipic_llm.tracking.database import sqlite_file
from mipic_llm.tracking.environment import environment, run_tags
from mipic_llm.tracking.mlflow_remote import legal, wait_for_import
from mipic_llm.tracking.mlflow_run import MlflowTracker

RECORD = "mlflow.json"

__all__ = ["JsonlTracker", "MlflowTracker", "Parent", "Status", "Tracker", "check_tracking",
           "environment", "follow", "legal", "make_trackers", "wait_for_import",
           "write_record"]  # fmt: skip


def make_trackers(
    config: Config, output_dir: str | Path, *, resume_step: int | None = None,
    run_id: str | None = None,
) -> list[Tracker]:  # fmt: skip
    """metrics.jsonl and, unless tracking.mlflow is off, MLflow; for rank 0 only.

    Store: `tracking.mlflow` when it is a URI, else MLFLOW_TRACKING_URI, else mlruns.db where the
    user stands, with all runs of a project. Run: `run_id` (from a checkpoint), else, of a resumed
    run, the one of this store that its directory names, else MLFLOW_RUN_ID, else a new one. Tags:
    those of `run_tags`, unless MLFLOW_TAGS says otherwise.
    Raises UserError for MLFLOW_TAGS that is no JSON object and for a value that is no URI.
    """
    settings, env = config.tracking, os.environ
    out, store, more = check_tracking(config, output_dir)
    tags = {legal(k): str(v)[:5000] for k, v in [*run_tags(config).items(), *more.items()]}
    jsonl = JsonlTracker(out / "metrics.jsonl", resume_step)
    if store is None:
        return [jsonl]
    experiment = settings.experiment or env.get("MLFLOW_EXPERIMENT_NAME") or "mipic_llm"
    if resume_step is not None and run_id is None:  # a checkpoint of the first seconds
        run_id = _run_of(out, store[0])
    name, run_id = settings.run_name or out.name, run_id or env.get("MLFLOW_RUN_ID") or None
    mlflow = MlflowTracker(
        store[0], experiment, name, run_id, tags=tags, artifact_location=store[1],
        system=settings.system_metrics,
    )  # fmt: skip
    return [jsonl, mlflow]


def check_tracking(
    config: Config, output_dir: str | Path
) -> tuple[Path, tuple[str, str | None] | None, dict[str, Any]]:
    """What can be refused of a run's tracking before anything is written. -> its directory, its
    store as `_store` gives it, and MLFLOW_TAGS."""
    out, settings = Path(output_dir).resolve(), config.tracking
    store = _store(settings.mlflow, out)
    if store is None and (settings.log_model or settings.register):
        raise UserError(
            "tracking.log_model and tracking.register need MLflow, which is off; "
            "give --tracking.mlflow auto, or unset MLFLOW_TRACKING_URI"
        )
    try:
        return out, store, dict(json.loads(os.environ.get("MLFLOW_TAGS") or "{}").items())
    except (ValueError, AttributeError):
        raise UserError(
            'environment MLFLOW_TAGS: not a JSON object; write it as \'{"name": "value"}\''
        ) from None


def write_record(out: Path, tracker: Tracker) -> None:
    """mlflow.json of a run's directory: where later commands find its page."""
    if record := tracker.record():
        (out / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def follow(
    config: Config, command: str, model: str | Path | Sequence[str | Path], out: str | Path,
    params: Mapping[str, Any] | None = None, what: str = "",
) -> Tracker:  # fmt: skip
    """The tracker of a command that works on the model of an earlier training: a run of its own
    below that one's. Of a training that was not tracked, and of any other model, it records
    nothing, unless tracking.mlflow names a store. For rank 0 only.

    model: the directory of a run, or of one of its models; of several the first one that was
    tracked counts. out: what the command writes; its name is the run's, with `what` behind it.
    params: the command's own flags.
    """
    asked = config.tracking.mlflow
    models = [model] if isinstance(model, str | Path) else list(model)
    record = next((found for one in models for place in (Path(one), Path(one).parent)
                   if (found := _read_record(place / RECORD))), None)  # fmt: skip
    if asked == "off" or os.environ.get("MLFLOW_TRACKING_URI") == "off":
        record, asked = None, "auto"
    store = (record["uri"], None) if record else None
    if asked != "auto":
        record = record if record and record["uri"] == asked else None
        store = _store(asked, Path(out))
    if store is None:
        return Tracker()
    experiment = config.tracking.experiment or (record or {}).get("experiment") or "mipic_llm"
    tags = run_tags(config) | {"mlflow.source.name": f"mipic {command}", "command": command}
    # Of the training alone: here they would be the defaults of options that nothing reads.
    tags = {k: v for k, v in tags.items() if k not in ("objective", "backbone")} | {
        "model": " ".join(map(str, models))}  # fmt: skip
    if record:
        tags |= {"mlflow.parentRunId": record["run_id"], "training_run": record["run_id"]}
    name = config.tracking.run_name or f"{command} {Path(out).resolve().name} {what}".strip()
    tracker = MlflowTracker(store[0], experiment, name, tags=tags, artifact_location=store[1])
    tracker.params({k: v for k, v in (params or {}).items() if v not in (None, [], "none", False)})
    return tracker


def _read_record(path: Path) -> dict[str, str] | None:
    """What `write_record` wrote, where its store can be reached by that name now."""
    try:
        found = json.loads(path.read_text("utf-8"))
        uri = found["uri"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if (file := sqlite_file(uri)) and not file.is_file():
        return None  # of another machine, or deleted
    own = os.environ.get("MLFLOW_TRACKING_URI", "")  # the record has no password
    return found | {"uri": own} if own and masked(own) == uri else found


def _run_of(out: Path, uri: str) -> str | None:
    """The run of this store that the record of a directory names."""
    found = _read_record(out / RECORD)
    file = sqlite_file(uri)
    own = f"sqlite:///{file.resolve()}" if file else uri
    return found["run_id"] if found and masked(found["uri"]) == masked(own) else None


def _store(option: str, out: Path) -> tuple[str, str | None] | None:
    """(tracking URI, where a new experiment's files go if not at the server); None = off.
    UserError for what is no URI."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "") if option == "auto" else option
    if uri == "off":
        return None
    own = out / "mlruns" / "mlflow.db"  # older runs had a store each: going on with one stays there
    uri = uri or f"sqlite:///{own if own.is_file() else Path.cwd() / 'mlruns.db'}"
    check_store(uri)
    file = sqlite_file(uri)
    return uri, (file.resolve().parent / "mlartifacts").as_uri() if file else None


class Parent:
    """The MLflow run of a study, `run`; its trials are child runs. uri: as tracking.mlflow."""

    def __init__(self, uri: str, output_dir: str | Path, name: str) -> None:
        self.name, self.run, self.uri = name, Tracker(), None
        if store := _store(uri, Path(output_dir).resolve()):
            self.uri = store[0]
            self.run = MlflowTracker(self.uri, name, name, artifact_location=store[1])

    def env(self) -> dict[str, str]:
        """Environment variables that make a training command one of the trials."""
        if self.uri is None:
            return {"MLFLOW_TRACKING_URI": "off"}
        found = {"MLFLOW_TRACKING_URI": self.uri, "MLFLOW_EXPERIMENT_NAME": self.name}
        if run_id := self.run.wait_run_id(60.0):
            found["MLFLOW_TAGS"] = json.dumps({"mlflow.parentRunId": run_id})
        return found
