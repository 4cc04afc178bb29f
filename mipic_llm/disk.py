"""Files written so that a kill or a full disk leaves the old one or the new one, never a half."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def in_one_move(path: str | Path) -> Iterator[Path]:
    """`path`.tmp, to be written inside; it then takes the place of `path`."""
    temporary = Path(f"{path}.tmp")
    yield temporary
    os.replace(temporary, path)


def sync(path: Path) -> None:
    """Have a file or directory on the disk itself."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
