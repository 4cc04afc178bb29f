"""What training needs from a tracker, and the ones that need no server."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

Status = Literal["FINISHED", "FAILED", "KILLED"]


class Tracker(Protocol):
    """What training needs from a tracker. No method raises for a server's fault or waits long."""

    run_id: str | None = None  # the MLflow run, once known; goes into every checkpoint

    def wait_run_id(self, timeout: float) -> str | None:
        """`run_id`, after at most `timeout` seconds of waiting for it."""
        return self.run_id

    def params(self, flat: Mapping[str, Any]) -> None:
        """Every configuration value under its dotted name."""

    def metrics(self, row: Mapping[str, float], step: int) -> None:
        """One row of figures at one optimizer step."""

    def evaluation(self, row: Mapping[str, float], step: int) -> None:
        """Figures of an evaluation after a step; not part of metrics.jsonl."""

    def artifact(self, path: str | Path, folder: str = "") -> None:
        """A file or directory, kept under `folder`; must stay in place until `close`."""

    def close(self, status: Status = "FINISHED") -> None:
        """Flush and end the run. A second call does nothing."""


class NullTracker(Tracker):
    """Drops everything: for the ranks other than the first. The base of the other trackers."""


class JsonlTracker(NullTracker):
    """Appends {"step": s, ...} rows to a file, flushed per row.

    With `resume_step`, rows above it (left by the killed run, about to be written again) and a torn
    last line are dropped first, so every step stands once; without it, the file starts empty.
    A value that is not finite is written as null, so that every line is strict JSON.
    """

    def __init__(self, path: str | Path, resume_step: int | None = None) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = "" if resume_step is None else self._kept(resume_step)
        temporary = self.path.with_name(self.path.name + ".tmp")
        temporary.write_text(kept, encoding="utf-8")
        os.replace(temporary, self.path)
        self._file = self.path.open("a", encoding="utf-8")

    def _kept(self, resume_step: int) -> str:
        lines: dict[int, str] = {}
        text = self.path.read_text("utf-8", "replace") if self.path.exists() else ""
        for line in text.splitlines():
            try:
                step = int(json.loads(line)["step"])
            except (ValueError, KeyError, TypeError):
                continue  # torn by the kill
            if step <= resume_step:
                lines[step] = line + "\n"
        return "".join(lines.values())

    def metrics(self, row: Mapping[str, float], step: int) -> None:
        if self._file.closed:
            return
        values = {k: v if isinstance(v, int) else float(v) for k, v in row.items()}
        values = {k: v if math.isfinite(v) else None for k, v in values.items()}
        self._file.write(json.dumps({"step": int(step), **values}) + "\n")
        self._file.flush()

    def close(self, status: Status = "FINISHED") -> None:
        self._file.close()


class MultiTracker(NullTracker):
    """Hands every call to each tracker in turn."""

    def __init__(self, trackers: Iterable[Tracker]) -> None:
        self.trackers = list(trackers)

    @property
    def run_id(self) -> str | None:  # type: ignore[override]
        return next((t.run_id for t in self.trackers if t.run_id), None)

    def wait_run_id(self, timeout: float) -> str | None:
        return next((r for r in [t.wait_run_id(timeout) for t in self.trackers] if r), None)

    def params(self, flat: Mapping[str, Any]) -> None:
        for tracker in self.trackers:
            tracker.params(flat)

    def metrics(self, row: Mapping[str, float], step: int) -> None:
        for tracker in self.trackers:
            tracker.metrics(row, step)

    def evaluation(self, row: Mapping[str, float], step: int) -> None:
        for tracker in self.trackers:
            tracker.evaluation(row, step)

    def artifact(self, path: str | Path, folder: str = "") -> None:
        for tracker in self.trackers:
            tracker.artifact(path, folder)

    def close(self, status: Status = "FINISHED") -> None:
        for tracker in self.trackers:
            tracker.close(status)
