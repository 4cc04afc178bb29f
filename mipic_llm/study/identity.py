"""Which code and which data a trial is of: so that only what is unchanged counts as done."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from mipic_llm import __version__
from mipic_llm.config.files import PACKAGE, legal_path
from mipic_llm.data.read.find import files_of, split_weight
from mipic_llm.tracking.environment import commit

APART = ("plan", "study")  # rooms that no trial runs


@cache
def code() -> tuple[str, str]:
    """-> (a name for people: the commit of a clone, else the version; a digest of our sources)."""
    found = hashlib.sha256()
    for path in sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.jsonl")]):  # and the demo text
        place = path.relative_to(PACKAGE)
        if place.parts[0] not in APART:
            found.update(f"{place}\0".encode() + path.read_bytes())
    name = (commit() or f"version {__version__}").replace("+", " +")
    return name if len(name) < 40 else name[:12] + name[40:], found.hexdigest()[:16]


def data(specs: Iterable[str]) -> dict[str, str]:
    """A digest of the files of each spec (a file, folder, glob or `demo`); of what is on a hub only
    its name. Raises UserError for a file that is not there."""
    return {spec: _digest(spec) for spec in dict.fromkeys(specs)}


def _digest(spec: str) -> str:
    path = legal_path(spec)
    if path.is_file():
        files = [path]
    elif path.is_dir():  # all of it: a model too
        files = sorted(p for p in path.rglob("*") if p.is_file())
    else:
        found = files_of(split_weight(spec)[0])  # None: on a hub
        files = found.read if found else []
    digest = hashlib.sha256(b"" if files else spec.encode())
    for file in files:
        stat = file.stat()
        digest.update(file.name.encode() + _content(file, stat.st_size, stat.st_mtime_ns))
    return digest.hexdigest()[:16]


@cache
def _content(file: Path, size: int, changed: int) -> bytes:
    """A digest of the file; read again only where its size or time of change differs."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
