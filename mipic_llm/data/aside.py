"""Rows that are looked at once, not trained on: in memory, or where they are many (`data.stream`)
in a temporary directory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mipic_llm.config import DataConfig
from mipic_llm.data import stream
from mipic_llm.data.growing import cache_home
from mipic_llm.data.read.rows import ReadReport, TextSource
from mipic_llm.data.read.training import read_training
from mipic_llm.errors import UserError

Look = Callable[..., tuple[TextSource, list[ReadReport]]]


@contextmanager
def looking(specs: Sequence[Any], data: DataConfig) -> Iterator[Look]:
    """-> look(spec, **options of `read_training`) for each of specs, as data.stream and
    data.token_cache say. What it gives is gone at the end. UserError where the directory cannot be
    written to."""
    large = any(stream.wanted(spec, data.stream) for spec in specs)
    with tempfile.TemporaryDirectory(dir=_home(data.token_cache) if large else None) as aside:
        folders = (Path(aside) / str(n) for n in range(len(specs)))

        def look(spec: Any, **options: Any) -> tuple[TextSource, list[ReadReport]]:
            if not stream.wanted(spec, data.stream):
                (rows,), reports = read_training([spec], **options)
                return rows, reports
            reading, folder = stream.Reading(spec, **options), next(folders)
            try:
                reading.build(folder, lambda *_: None)
            except OSError as error:
                raise UserError(
                    f"cannot write its rows to {aside}: {error.strerror}; make room, or name "
                    "another directory as data.token_cache"
                ) from None
            return reading.source(folder)

        yield look


def _home(option: str) -> Path | None:
    """None = with the system's other temporary files."""
    if option == "off":
        return None
    folder = cache_home(option)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"data.token_cache: cannot write to {folder}: {error.strerror}") from None
    return folder
