"""Retrieval folders in BEIR's layout (Thakur et al. 2021, arXiv 2104.08663), as rows and by id.

corpus.jsonl      _id, title, text    also packed, or .parquet
queries.jsonl     _id, text           likewise
qrels/train.tsv   query-id, corpus-id, score, with a header
"""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Any

from mipic_llm.data.read.cells import BadRow, one_text, to_number, type_name
from mipic_llm.data.read.find import beir_file, suffix_of
from mipic_llm.data.read.readers import READERS, Numbered, guarded, read_json
from mipic_llm.errors import UserError

Qrels = dict[str, dict[str, float]]


def training_rows(folder: Path, qrels: Path) -> Numbered:
    """A row for each query that has an answer: what was judged above 0 are its positives, other
    documents that were judged its hard negatives. Only judged texts are held in memory.

    A query or document that is not there is a BadRow. Raises UserError as `read_beir` does.
    """
    judged = _qrels(qrels)
    queries = _by_id(folder, "queries", judged)
    corpus = _by_id(folder, "corpus", {key for grades in judged.values() for key in grades})
    answered = ((key, grades) for key, grades in judged.items() if max(grades.values()) > 0)
    for number, (key, grades) in enumerate(answered, 1):
        absent = next((name for name in grades if name not in corpus), None)
        if key not in queries:
            yield number, BadRow(f"the query {key} is not among the queries")
        elif absent is not None:
            yield number, BadRow(f"the document {absent} of query {key} is not in the corpus")
        else:
            right = [corpus[name] for name, grade in grades.items() if grade > 0]
            wrong = [corpus[name] for name, grade in grades.items() if grade <= 0]
            yield number, {"query": queries[key], "positives": right, "negatives": wrong}


def read_beir(folder: Path, qrels: Path) -> tuple[dict[str, str], dict[str, str], Qrels]:
    """Queries, corpus ("title text") and qrels, by id.

    Raises UserError for a missing file, a broken row, an id given twice, or a judged query or
    grade that makes no sense.
    """
    return _by_id(folder, "queries"), _by_id(folder, "corpus"), _qrels(qrels)


def _by_id(folder: Path, name: str, wanted: Container[str] | None = None) -> dict[str, str]:
    """wanted: the ids that are kept; None = all."""
    path = beir_file(folder, name)
    if path is None:
        raise UserError(f"{folder} is a folder in BEIR's layout (it has qrels), without "
                        f"{name}.jsonl, packed or not, or {name}.parquet")  # fmt: skip
    found: dict[str, str] = {}
    for number, row in guarded(path, READERS.get(suffix_of(path), read_json)):
        try:
            key, text = _text_of(row, name)
        except BadRow as bad:
            unit = "row" if suffix_of(path) == ".parquet" else "line"
            raise UserError(f"{path}, {unit} {number}: {bad}; mend or delete that row") from None
        if wanted is not None and key not in wanted:
            continue
        if key in found:
            raise UserError(f"{path}: the _id {key} is given twice; ids must be unique")
        found[key] = text
    if not found and wanted is None:
        raise UserError(f"{path} is empty; give a file with at least one row")
    return found


def _text_of(row: Any, name: str) -> tuple[str, str]:
    """-> (id, text) of a row of the queries or the corpus."""
    if isinstance(row, BadRow):
        raise row
    if not isinstance(row, dict):
        raise BadRow(f"{type_name(row)} where an object with columns is expected")
    if row.get("_id") in (None, ""):
        raise BadRow("no _id")
    if name == "queries":
        return str(row["_id"]), one_text(row, "text")
    if not {"title", "text"} & set(row):
        raise BadRow("neither title nor text")
    # An empty document (FiQA has some) stays: it is found last, or not at all.
    title, text = str(row.get("title") or ""), str(row.get("text") or "")
    return str(row["_id"]), f"{title} {text}".strip()


def _qrels(path: Path) -> Qrels:
    """Tab-separated query-id, corpus-id, score with a header."""
    found: Qrels = {}
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
