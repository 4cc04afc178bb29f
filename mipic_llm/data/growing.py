"""Directories that are built once, by appending, on one machine or on shared disks.

A directory is made aside and appears by a rename, so half-written ones are never read. A builder
that is killed is followed by one that goes on from the last `mark`.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self

from mipic_llm.disk import sync
from mipic_llm.errors import UserError

PROGRESS = "progress.json"


def cache_home(option: str) -> Path:
    """The directory of all caches, for `data.token_cache`: auto or a path. UserError where this
    user has no home, as in containers, and none is named."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "mipic_llm"
    try:
        return (usual if option == "auto" else Path(option)).expanduser()
    except RuntimeError:
        raise UserError(
            f"data.token_cache: {option} lies in a home directory, and this user has none; set "
            "HOME, or give another directory"
        ) from None


@contextmanager
def building(folder: Path, is_whole: Callable[[Path], bool]) -> Iterator[Path | None]:
    """The directory in which to make `folder`'s files, with what a killed builder left; None where
    another builder, for whom this one waited, has made them. Where the disk knows no locks it is a
    new one, of this process. `settle` is the caller's last act. OSError where the place cannot be
    written to.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            aside = folder.parent / f".{folder.name}.new"
        except OSError:
            own = f"{socket.gethostname()}.{os.getpid()}"
            aside = folder.parent / f".{folder.name}.{own}.new"
            shutil.rmtree(aside, ignore_errors=True)
        if is_whole(folder):
            yield None
            return
        aside.mkdir(exist_ok=True)
        yield aside


def settle(aside: Path, folder: Path, is_whole: Callable[[Path], bool]) -> None:
    """Give a finished directory its name, in place of a damaged one that has it, when all of it is
    on the disk. Where the disk knows no locks another builder may have been first: then its
    directory stays, which others read already."""
    (aside / PROGRESS).unlink(missing_ok=True)
    for path in (*aside.iterdir(), aside):
        sync(path)
    if folder.exists() and not is_whole(folder):
        shutil.rmtree(folder, ignore_errors=True)
    try:
        aside.rename(folder)
    except OSError:
        if not is_whole(folder):
            raise
        shutil.rmtree(aside, ignore_errors=True)


class Growing:
    """Files of a directory that are only appended to, and how far they are whole.

    done: what was given to the last `mark`, {} at the start; whatever was written after it, by a
    process that was killed, is cut off.
    """

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.folder, self.done, sizes = folder, {}, dict.fromkeys(names, 0)
        try:
            table = json.loads((folder / PROGRESS).read_text("utf-8"))
            self.done, sizes = table["done"], table["sizes"]
            if any((folder / name).stat().st_size < sizes[name] for name in names):
                raise ValueError
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            self.done, sizes = {}, dict.fromkeys(names, 0)
        self._files: dict[str, IO[bytes]] = {}
        for name in names:
            file = (folder / name).open("ab")
            file.truncate(sizes[name])
            self._files[name] = file

    def write(self, name: str, content: bytes) -> None:
        self._files[name].write(content)

    def mark(self, done: Any) -> None:
        """All that was written so far is on the disk, and stays."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        sizes = {name: file.tell() for name, file in self._files.items()}
        new = self.folder / f"{PROGRESS}.new"
        with new.open("w", encoding="utf-8") as file:
            json.dump({"done": done, "sizes": sizes}, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.folder / PROGRESS)
        self.done = done

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()
