"""A store of MLflow that is a file of sqlite."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path


def sqlite_file(uri: str) -> Path | None:
    """The database that a tracking URI names; None for a server."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def ask(file: Path, seconds: float = 5.0) -> None:
    """OSError or sqlite3.Error where a database cannot be written to: its disk refuses, another
    process holds it for so many seconds, the file is none. MLflow would ask again and again, for
    many minutes, and not say why."""
    with closing(sqlite3.connect(file, seconds, isolation_level=None)) as found:
        found.execute("BEGIN IMMEDIATE")  # needs the right to write, and writes nothing
        found.execute("ROLLBACK")


@contextmanager
def alone(file: Path | None) -> Iterator[None]:
    """Inside, one process at a time: of two that begin a database at the same moment, one met
    half-made tables and lost its run. Nothing for a server (None), or where a disk knows no locks.
    The directory is made. OSError or sqlite3.Error where the database cannot be written to."""
    if file is None:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(file.parent, os.O_RDONLY)  # the directory: no file is left, and sqlite's own
    try:  # locks on the database are not met
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        ask(file)
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)  # of a child that was forked meanwhile, too
        os.close(handle)
