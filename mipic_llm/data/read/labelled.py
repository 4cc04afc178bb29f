"""Rows with labels: shapes that only evaluation reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import starmap
from typing import Any, NamedTuple

from mipic_llm.data.read.cells import one_text, to_label, to_number
from mipic_llm.data.read.columns import SCORES
from mipic_llm.data.read.containers import containers
from mipic_llm.data.read.formats import read_rows
from mipic_llm.data.read.rows import ReadReport
from mipic_llm.errors import UserError


class ScoredPair(NamedTuple):
    """Two sentences and how alike a person found them (any scale, larger = more alike)."""

    sentence1: str
    sentence2: str
    score: float


def columns_of(spec: str) -> list[str]:
    """Columns of the first row of what `spec` names. Raises UserError where there is none."""
    for part in containers(spec, "validation", None):
        for number, row in part.rows:
            if not isinstance(row, dict):
                raise UserError(f"{part.path}, {part.unit} {number}: a row with columns expected")
            return [str(name) for name in row]
    raise UserError(f"{spec} is empty; give a file with at least one row")


def read_scored_pairs(spec: Any) -> tuple[list[ScoredPair], ReadReport]:
    """Reads sentence1, sentence2 and a numeric score (or label), as in STS.

    Any container of `read_training`; a Hugging Face id without [split] means its validation
    split. Several files make one list and one report. Any bad row is a UserError.
    """
    names = ("sentence1", "sentence2")
    pairs = list(starmap(ScoredPair, _read(spec, names, SCORES, to_number)))
    if len({pair.score for pair in pairs}) < 2:
        raise UserError(
            f"{spec}: every pair has the same score, so no correlation can be computed; give pairs "
            "with different scores"
        )
    return pairs, ReadReport(spec, "sentence1/sentence2/score", len(pairs), len(pairs), [])


def read_labelled(spec: str, texts: Sequence[str], label: str = "label") -> list[tuple[str, ...]]:
    """(text, ..., label) of every row, the label as text (1, 1.0 and "1" are one label).

    texts: the columns to read. A Hugging Face id without [split] means its validation split.
    Raises UserError for a bad row, naming file, line and what is wrong.
    """
    return _read(spec, texts, (label,), to_label)


def _read(
    spec: Any, texts: Sequence[str], labels: Sequence[str], convert: Callable[[Any, str], Any]
) -> list[tuple]:
    """The columns `texts` and, converted, the first of the columns `labels` that is there; in
    small letters or, as in training, others."""

    def pick(row: dict) -> list[str]:
        columns = [str(name) for name in row]
        own = {name.lower(): name for name in columns} | {name: name for name in columns}
        label = next((name for name in labels if name in own), None)
        if label is None or not set(texts) <= set(own):
            need = f"{', '.join(texts)} and {' or '.join(labels)}"
            raise UserError(
                f"{spec}: found columns {', '.join(columns)}, but {need} are needed; rename the "
                "columns"
            )
        return [own[name] for name in (*texts, label)]

    def parse(row: dict, names: list[str]) -> tuple:
        *own, label = names
        return (*(one_text(row, name) for name in own), convert(row.get(label), label))

    return read_rows(spec, "validation", parse, pick)
