"""An MLflow run behind a worker thread, in which alone mlflow is imported: training never waits for
the import, a database migration or a server, and sees none of its errors.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from mipic_llm.errors import masked
from mipic_llm.tracking.base import Status, Tracker
from mipic_llm.tracking.mlflow_remote import IMPORTING, RemoteRun, legal, short
from mipic_llm.types import Judgement

log = logging.getLogger(__name__)

ROWS_PER_REQUEST = 25
ROWS_KEPT, JOBS_KEPT = 20_000, 1_000  # buffered while a server is away; the oldest rows go first
RETRY_SECONDS = 60.0  # between attempts while the server is away
LINGER_SECONDS = 1.0  # between batches while it is there
ATTEMPTS = 3  # to send a file
CLOSE_DOWN, CLOSE_HEALTHY = 4.0, 60.0  # seconds that close() may wait
BYTES_PER_SECOND = 10e6  # a model that is sent slower than this is given up by close()


class _Job(NamedTuple):
    """Parameters or a file, waiting to be sent. named: the user asked for it by name (a model)."""

    send: Callable[[], None]
    about: str
    attempts: int = 0
    named: bool = False


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
        self.remote = RemoteRun(uri, experiment, run_name, run_id, tags or {}, artifact_location,
                              system, self._warn)  # fmt: skip
        self.problems: list[str] = []  # of what was asked for by name: models
        self._patience = CLOSE_HEALTHY
        self._pid = os.getpid()
        self._wake = threading.Condition()
        self._rows: deque[tuple[int, int, dict[str, float]]] = deque(maxlen=ROWS_KEPT)
        self._jobs: deque[_Job] = deque(maxlen=JOBS_KEPT)
        self._sending: _Job | None = None
        self._begin = False
        self._closing: Status | None = None
        self._settled = threading.Event()  # the run exists, or the first attempt failed
        self._warned = set[str]()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()
        self.remote.lent.thread = self._thread.ident

    @property
    def run_id(self) -> str | None:
        return self.remote.run_id

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
        self._later("parameters", self.remote.params, texts)

    def data(self, sources: Sequence[Mapping[str, Any]], context: str) -> None:
        self._later("data sets", self.remote.data, list(sources), context)

    def describe(self, text: str) -> None:
        self._later("text", self.remote.text, text)

    def model(
        self, folder: Path, figures: Mapping[str, float], step: int,
        register: tuple[str, Judgement] | None = None,
    ) -> None:  # fmt: skip
        legal_figures = {legal(k): float(v) for k, v in figures.items() if v == v}
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        self._patience += CLOSE_HEALTHY + size / BYTES_PER_SECOND
        send = partial(self.remote.model, folder, legal_figures, step, register)
        self._put(lambda: self._jobs.append(_Job(send, f"the model {folder}", named=True)))

    def record(self) -> dict[str, str] | None:
        return self.remote.record()

    def where(self) -> str | None:
        return self.remote.where()

    def metrics(self, row: Mapping[str, float], step: int) -> None:
        self._row(row, step, begin=True)

    def evaluation(self, row: Mapping[str, float], step: int) -> None:
        self._row({k: v for k, v in row.items() if v == v}, step)  # no store takes NaN

    def _row(self, row: Mapping[str, float], step: int, begin: bool = False) -> None:
        item = (int(time.time() * 1000), int(step), {k: float(v) for k, v in row.items()})
        self._put(lambda: self._rows.append(item), begin)

    def artifact(self, path: str | Path, folder: str = "") -> None:
        self._later(str(path), self.remote.file, Path(path), folder)

    def close(self, status: Status = "FINISHED") -> None:
        if not self._put(lambda: setattr(self, "_closing", status), begin=True):
            return
        start, run = time.monotonic(), self.remote
        while self._thread.is_alive():
            self._thread.join(0.02)
            now = time.monotonic()
            # One request that hangs on a remote server means it is away, whatever came before.
            hangs = run.uri.startswith("http") and run.busy_since > 0
            stuck = run.down or (hangs and now - max(start, run.busy_since) > CLOSE_DOWN)
            if now - start > (CLOSE_DOWN if stuck else self._patience):
                self._warn_away("the last rows were not sent in time")
                break
        else:
            self.remote.lent.give_back()
        with self._wake:
            left = [job.about for job in (self._sending, *self._jobs) if job and job.named]
        for about in left:
            self.problems.append(f"{about} was not uploaded: the server is away")
            self._warn(self.problems[-1], about)

    def _later(self, about: str, send: Callable[..., None], *what: Any) -> None:
        job = _Job(partial(send, *what), about)
        self._put(lambda: self._jobs.append(job))

    def _put(self, change: Callable[[], Any], begin: bool = False) -> bool:
        """Change a buffer and wake the worker. -> False in a closed run or a forked child (there is
        no worker, and the lock may be held for ever)."""
        if os.getpid() != self._pid or self._closing:
            return False
        with self._wake:
            change()
            if begin and not self._begin:
                self._begin = True
                IMPORTING.set()
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
                    if self._begin and delay <= 0 and (self.remote.client is None or waiting):
                        break
                    self._wake.wait(delay if delay > 0 else None)
                closing = self._closing
            try:
                if self.remote.client is None:
                    self.remote.connect()
                    self._settled.set()
                self._send()
                if closing:
                    self.remote.end(closing)
                retry_at = time.monotonic() + LINGER_SECONDS
            except Exception as error:  # no error of a tracking server may end the run
                self.remote.down = True
                retry_at = time.monotonic() + RETRY_SECONDS
                self._warn_away(short(error))
            self.remote.busy_since = 0.0
            self._settled.set()
            if closing:
                return

    def _warn_away(self, why: str) -> None:
        self._warn(
            f"{why}; the command goes on, its own files have every figure; no further warnings"
        )

    def _warn(self, text: str, about: str = "server") -> None:
        """One warning per run and subject."""
        if about not in self._warned:
            self._warned.add(about)
            log.warning("MLflow at %s: %s", masked(self.remote.uri), text)

    def _send(self) -> None:
        """Everything buffered: rows, then parameters and files. What was sent is removed."""
        while self._rows:
            with self._wake:
                taken = list(islice(self._rows, ROWS_PER_REQUEST))
            self.remote.rows(taken)
            with self._wake:
                for item in taken:
                    if self._rows and self._rows[0] is item:  # else the full buffer has dropped it
                        self._rows.popleft()
        while self._jobs:
            self.remote.call("get_run")  # notices a dead server, which costs the job no attempt
            with self._wake:
                job = self._sending = self._jobs.popleft()
            try:
                job.send()
            except Exception as error:
                if job.attempts + 1 < ATTEMPTS and not self._closing:
                    with self._wake:
                        self._jobs.appendleft(job._replace(attempts=job.attempts + 1))
                    raise
                self.problems.append(f"{job.about} was not uploaded: {short(error)}")
                self._warn(self.problems[-1], "item")
            finally:
                self._sending = None
