"""Where a run's parameters, metrics and files go: metrics.jsonl, MLflow, both, or nowhere.

metrics.jsonl is the complete record; MLflow holds the same rows under legal names (see `legal`).
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from mipic_llm.config.schema import Config
from mipic_llm.errors import UserError
from mipic_llm.tracking.base import JsonlTracker, MultiTracker, NullTracker, Status, Tracker
from mipic_llm.tracking.environment import environment
from mipic_llm.tracking.mlflow_run import MlflowTracker, legal

__all__ = ["JsonlTracker", "MlflowTracker", "MultiTracker", "NullTracker", "Parent", "Status",
           "Tracker", "environment", "legal", "make_tracker"]  # fmt: skip


def make_tracker(
    config: Config,
    output_dir: str | Path,
    *,
    is_main: bool,
    resume_step: int | None = None,
    run_id: str | None = None,
) -> Tracker:
    """metrics.jsonl and, unless tracking.mlflow is off, MLflow; nothing on ranks but the first.

    Store: `tracking.mlflow` when it is a URI, else MLFLOW_TRACKING_URI, else sqlite in
    <output_dir>/mlruns. Run: `run_id` (from a checkpoint), else MLFLOW_RUN_ID, else a new one.
    Raises UserError for MLFLOW_TAGS that is no JSON object and for a value that is no URI.
    """
    if not is_main:
        return NullTracker()
    out, settings, env = Path(output_dir).resolve(), config.tracking, os.environ
    uri = env.get("MLFLOW_TRACKING_URI", "") if settings.mlflow == "auto" else settings.mlflow
    if uri not in ("", "off", "databricks") and not re.match(r"[./~]|[\w+.-]+:", uri):
        raise UserError(
            f"tracking.mlflow: {uri!r} is no tracking URI; give auto, off, or a URI such as "
            "http://host:5000 or sqlite:///runs.db"
        )
    try:
        tags = json.loads(env.get("MLFLOW_TAGS") or "{}")
        tags = {legal(k): str(v)[:5000] for k, v in tags.items()}
    except (ValueError, AttributeError):
        raise UserError(
            'environment MLFLOW_TAGS: not a JSON object; write it as \'{"name": "value"}\''
        ) from None
    jsonl = JsonlTracker(out / "metrics.jsonl", resume_step)
    if uri == "off":
        return jsonl
    location = None
    if not uri:
        uri = f"sqlite:///{out / 'mlruns' / 'mlflow.db'}"
        location = (out / "mlruns" / "artifacts").as_uri()
    experiment = settings.experiment or env.get("MLFLOW_EXPERIMENT_NAME") or "mipic_llm"
    return MultiTracker([jsonl, MlflowTracker(
        uri, experiment, settings.run_name or out.name, run_id or env.get("MLFLOW_RUN_ID") or None,
        tags=tags, artifact_location=location,
    )])  # fmt: skip


class Parent:
    """The MLflow run of a study, under which its trials are child runs.

    uri: auto, off or a tracking URI, as `tracking.mlflow`.
    """

    def __init__(self, uri: str, output_dir: str | Path, name: str) -> None:
        self.name, self.run = name, None
        if uri == "auto":
            uri = os.environ.get("MLFLOW_TRACKING_URI", "")
        if uri == "off":
            self.uri = None
            return
        folder = Path(output_dir).resolve() / "mlruns"
        self.uri = uri or f"sqlite:///{folder / 'mlflow.db'}"
        location = None if uri else (folder / "artifacts").as_uri()
        self.run = MlflowTracker(self.uri, name, name, artifact_location=location)

    def env(self) -> dict[str, str]:
        """What tells a training command that it is one of the trials."""
        if self.run is None or self.uri is None:
            return {"MLFLOW_TRACKING_URI": "off"}
        found = {"MLFLOW_TRACKING_URI": self.uri, "MLFLOW_EXPERIMENT_NAME": self.name}
        if run_id := self.run.wait_run_id(60.0):
            found["MLFLOW_TAGS"] = json.dumps({"mlflow.parentRunId": run_id})
        return found

    def artifact(self, path: Path) -> None:
        if self.run is not None:
            self.run.artifact(path)

    def metrics(self, row: dict[str, float]) -> None:
        if self.run is not None:
            self.run.metrics(row, 0)

    def close(self, status: Status) -> None:
        if self.run is not None:
            self.run.close(status)
