"""Evaluations on disk: scores.jsonl, and in rows.npz what a model said of each test row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from mipic_llm.disk import in_one_move
from mipic_llm.errors import UserError
from mipic_llm.report.scores import read_scores
from mipic_llm.types import Score

ROWS = {"": "rows.npz", "before": "rows-before.npz", "after": "rows.npz"}  # of a stage


class Evaluation(NamedTuple):
    """Figures of one model, and what stands behind them.

    rows: by (family, task, metric, *Point.place) what it said of each test row, by ("gold", task)
    what is right; empty where that was not kept. about: max_length (tokens), prompts by kind of
    text, data (task -> digest), as far as known.
    """

    name: str
    scores: Sequence[Score]
    rows: Mapping[tuple, np.ndarray]
    about: Mapping[str, Any]


def write_rows(
    path: str | Path, rows: Mapping[tuple, np.ndarray], about: Mapping[str, Any]
) -> None:
    """rows.npz of an evaluation, in one move."""
    named: dict[str, Any] = {_name(key): value for key, value in rows.items()}
    with in_one_move(path) as fresh, fresh.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, about=json.dumps(about), **named)


def _name(key: tuple) -> str:
    """Of an array in rows.npz."""
    return "|".join(map(str, key))


class _Rows(Mapping):
    """The arrays of a rows.npz, each read when it is asked for."""

    def __init__(self, path: Path) -> None:
        self._file = np.load(path, allow_pickle=False)

    def __getitem__(self, key: tuple) -> np.ndarray:
        return self._file[_name(key)]

    def __iter__(self) -> Any:
        return (tuple(name.split("|")) for name in self._file.files)

    def __len__(self) -> int:
        return len(self._file.files)

    def __contains__(self, key: Any) -> bool:
        return _name(key) in self._file.files


def read_rows(folder: str | Path, stage: str = "") -> tuple[Mapping, Mapping]:
    """What `write_rows` wrote: (rows, about); both empty where there is none. UserError."""
    path = Path(folder) / ROWS[stage]
    if not path.is_file():
        return {}, {}
    try:
        rows = _Rows(path)
        return rows, json.loads(str(rows["about",])) if ("about",) in rows else {}
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise UserError(f"{path}: no rows of an evaluation ({error}); evaluate again") from None


def read_evaluation(folder: str | Path, name: str, stage: str = "") -> Evaluation:
    """Of a directory with scores.jsonl. stage: before or after, of a training run. UserError."""
    scores = read_scores(Path(folder) / "scores.jsonl", stage or None)
    return Evaluation(name, scores, *read_rows(folder, stage))


def read_run(folder: str | Path) -> tuple[Evaluation, Evaluation]:
    """A directory's figures before and after training; without stages all of them are after."""
    before, after = (read_evaluation(folder, stage, stage) for stage in ("before", "after"))
    if before.scores or after.scores:
        return before, after
    return Evaluation("before", [], {}, {}), read_evaluation(folder, "after")
