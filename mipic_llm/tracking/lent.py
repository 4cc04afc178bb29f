"""What a run changes in its process for its own calls of MLflow, and gives back when it is closed:
a program that goes on has its own."""

from __future__ import annotations

import logging
import os

URLLIB3 = logging.getLogger("urllib3.connectionpool")
# Short patience, unless the user chose otherwise: the worker has its own retry.
PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0", "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}  # fmt: skip


class Lent:
    """Made and given back in the thread that makes the run: changing the environment beside another
    thread's getenv is not safe."""

    def __init__(self) -> None:
        self.env = {name: value for name, value in PATIENCE.items() if name not in os.environ}
        os.environ.update(self.env)
        self.thread: int | None = None  # of the worker
        self.levels: dict[str, int] = {}
        URLLIB3.addFilter(self._others)

    def _others(self, record: logging.LogRecord) -> bool:
        """urllib3 reports every failed attempt; those of other threads stay visible."""
        return record.thread != self.thread

    def quiet(self, level: str) -> None:
        """MLflow's own loggers, after its import, which sets them."""
        for logger in map(logging.getLogger, ("mlflow", "alembic")):
            self.levels.setdefault(logger.name, logger.level)
            logger.setLevel(level)

    def give_back(self) -> None:
        URLLIB3.removeFilter(self._others)
        for name in self.env:
            os.environ.pop(name, None)
        for name, level in self.levels.items():
            logging.getLogger(name).setLevel(level)
