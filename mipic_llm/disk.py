"""Files written whole or not at all, had on the disk itself, and told apart by samples."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def in_one_move(path: str | Path) -> Iterator[Path]:
    """`path`.tmp, a file to be written inside; it then takes the place of `path`. Where that fails,
    both are as they were."""
    temporary = Path(f"{path}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def samples(path: Path) -> Iterator[bytes]:
    """64 KiB from each of 64 places of a file, evenly spread: what tells large files apart."""
    size, n_places = 1 << 16, 64
    last = max(0, path.stat().st_size - size)
    with path.open("rb") as file:
        for n in range(n_places):
            file.seek(n * last // (n_places - 1))
            yield file.read(size)


def allocate(file: BinaryIO, size: int) -> None:
    """Give an empty file `size` bytes that its disk has room for: who writes through memory into
    one without is killed. OSError where there is none."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    step = 1 << 20  # macOS has no such call
    for at in range(0, size, step):
        file.write(bytes(min(step, size - at)))
    file.flush()


def sync(path: Path) -> None:
    """Have a file or directory on the disk itself."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
