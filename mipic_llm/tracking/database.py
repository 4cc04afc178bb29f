"""A store of MLflow that is a file of sqlite."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path


def sqlite_file(uri: str) -> Path | None:
    """The database that a tracking URI names; None for a server."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def ask(file: Path, seconds: float = 5.0) -> None:
    """OSError or sqlite3.Error where a database cannot be written to: its disk refuses, another
    process holds it for so many seconds, the file is none. MLflow would ask again and again, for
    many minutes, and not say why."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(file, seconds, isolation_level=None)) as found:
        found.execute("BEGIN IMMEDIATE")  # needs the right to write, and writes nothing
        found.execute("ROLLBACK")
