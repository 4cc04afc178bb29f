"""The interface of a tracker, and metrics.jsonl."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mipic_llm.disk import in_one_move
from mipic_llm.types import Judgement

log = logging.getLogger(__name__)

Status = Literal["FINISHED", "FAILED", "KILLED"]


class Tracker:
    """Interface of a tracker; this class itself records nothing (ranks other than the first).

    No method raises for the fault of a disk or a server, and none but `close` and `wait_run_id`
    waits for one.
    """

    run_id: str | None = None  # the MLflow run, once known; goes into every checkpoint

    def wait_run_id(self, timeout: float) -> str | None:
        """`run_id`, after at most `timeout` seconds."""
        return self.run_id

    def params(self, flat: Mapping[str, Any]) -> None:
        """Every configuration value under its dotted name."""

    def data(self, sources: Sequence[Mapping[str, Any]], context: str) -> None:
        """Data sets: name, kind (pairs, texts, scored), rows and digest of each. context: training
        or validation."""

    def describe(self, text: str) -> None:
        """Markdown that stands at the top of the run's page."""

    def model(
        self, folder: Path, figures: Mapping[str, float], step: int,
        register: tuple[str, Judgement] | None = None,
    ) -> None:  # fmt: skip
        """An exported model, with its figures at `step`; register: a name, and what decides on the
        alias. The directory must stay in place until `close`."""

    def record(self) -> dict[str, str] | None:
        """Where the run is kept, for commands that come later: uri, experiment and run_id."""

    def where(self) -> str | None:
        """Where a person can look at the run, in a line."""

    def metrics(self, row: Mapping[str, float], step: int) -> None:
        """The figures of one optimizer step."""

    def evaluation(self, row: Mapping[str, float], step: int) -> None:
        """The figures of an evaluation after a step; not part of metrics.jsonl."""

    def artifact(self, path: str | Path, folder: str = "") -> None:
        """A file or directory, stored under `folder`; it must stay in place until `close`."""

    def close(self, status: Status = "FINISHED") -> None:
        """Send what waits and end the run. A second call does nothing."""


class JsonlTracker(Tracker):
    """Appends {"step": s, ...} to a file, one flushed line per row.

    Without `resume_step` the file starts empty. With it, rows above that step (the killed run wrote
    them, and they will be written again) and a torn last line are dropped first, so that every step
    stands once. A value that is not finite is written as null, so that every line is strict JSON.
    """

    def __init__(self, path: str | Path, resume_step: int | None = None) -> None:
        self.path, self._warned = Path(path), False
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = "" if resume_step is None else self._kept(resume_step)
        with in_one_move(self.path) as fresh:
            fresh.write_text(kept, encoding="utf-8")
        self._file = self.path.open("a", encoding="utf-8")

    def _kept(self, resume_step: int) -> str:
        lines: dict[int, str] = {}
        text = self.path.read_text("utf-8", "replace") if self.path.exists() else ""
        for line in text.splitlines():
            try:
                step = int(json.loads(line)["step"])
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                continue  # torn by the kill
            if step <= resume_step:
                lines[step] = line + "\n"
        return "".join(lines.values())

    def metrics(self, row: Mapping[str, float], step: int) -> None:
        if self._file.closed:
            return
        values = {k: v if isinstance(v, int) else float(v) for k, v in row.items()}
        values = {k: v if math.isfinite(v) else None for k, v in values.items()}
        try:
            self._file.write(json.dumps({"step": int(step), **values}) + "\n")
            self._file.flush()
        except OSError as error:
            if not self._warned:
                log.warning("%s cannot be written: %s; training goes on without it",
                            self.path, error.strerror)  # fmt: skip
            self._warned = True

    def close(self, status: Status = "FINISHED") -> None:
        try:
            self._file.close()
        except OSError:
            pass  # the disk is still full; it was said
