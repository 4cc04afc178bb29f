"""Rows with labels, and retrieval folders: the shapes that only evaluation reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import starmap
from pathlib import Path
from typing import Any, NamedTuple

from mipic_llm.data.read.cells import BadRow, one_text, to_label, to_number
from mipic_llm.data.read.columns import SCORES
from mipic_llm.data.read.containers import containers
from mipic_llm.data.read.find import beir_file
from mipic_llm.data.read.formats import read_rows
from mipic_llm.data.read.readers import Numbered, guarded
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


def read_beir(
    folder: Path, qrels: Path
) -> tuple[dict[str, str], dict[str, str], dict[str, dict[str, float]]]:
    """Queries, corpus ("title text") and qrels of a folder in BEIR's layout, by id.

    Raises UserError for a missing file, a broken row, an id given twice, or a judged query or
    grade that makes no sense.
    """
    return _by_id(folder, "queries"), _by_id(folder, "corpus"), _qrels(qrels)


def _by_id(folder: Path, name: str) -> dict[str, str]:
    path = beir_file(folder, name) or folder / f"{name}.jsonl"

    def parse(row: dict, _: None) -> tuple[str, str]:
        if row.get("_id") in (None, ""):
            raise BadRow("no _id")
        if name == "queries":
            return str(row["_id"]), one_text(row, "text")
        if not {"title", "text"} & set(row):
            raise BadRow("neither title nor text")
        # An empty document (FiQA has some) stays: it is found last, or not at all.
        title, text = str(row.get("title") or ""), str(row.get("text") or "")
        return str(row["_id"]), f"{title} {text}".strip()

    found: dict[str, str] = {}
    for key, text in read_rows(path, "test", parse):
        if key in found:
            raise UserError(f"{path}: the _id {key} is given twice; ids must be unique")
        found[key] = text
    return found


def _qrels(path: Path) -> dict[str, dict[str, float]]:
    """Tab-separated query-id, corpus-id, score with a header."""
    found: dict[str, dict[str, float]] = {}
    for number, row in guarded(path, _tabbed):
        if not any(row):
            continue
        if len(row) != 3:
            raise UserError(
                f"{path}, line {number}: {len(row)} cells, expected query-id, corpus-id, score "
                "separated by tabs"
            )
        try:
            grade = to_number(row[2], "score")
        except BadRow as bad:
            if number == 1:  # the header
                if any(word in row[0].lower() for word in ("corpus", "doc", "pid")):
                    raise UserError(f"{path}: its columns are {', '.join(row)}; BEIR's order is "
                                    "query-id, corpus-id, score") from None  # fmt: skip
                continue
            raise UserError(f"{path}, line {number}: {bad}; mend that line") from None
        before = found.setdefault(row[0], {}).setdefault(row[1], grade)
        if before != grade:
            raise UserError(
                f"{path}, line {number}: query {row[0]} and document {row[1]} were judged "
                f"{before:g} above, {grade:g} here; keep one"
            )
    if not found:
        raise UserError(f"{path} is empty; give at least one judged document")
    return found


def _tabbed(path: Path) -> Numbered:
    """The cells of each line; quotes are text, as in any .tsv."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            yield number, [cell.strip() for cell in line.split("\t")]
