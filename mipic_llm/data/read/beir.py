"""Retrieval data in BEIR's layout (Thakur et al. 2021, arXiv 2104.08663), as rows and by id.

corpus       _id, title, text             jsonl, packed or not, or parquet
queries      _id, text                    likewise
qrels        query-id, corpus-id, score   a .tsv with a header, or one of these
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mipic_llm.data.read.cells import BadRow, one_text, to_number, type_name
from mipic_llm.data.read.folders import Beir, suffix_of
from mipic_llm.data.read.readers import Numbered, Part, file_part, guarded
from mipic_llm.errors import UserError

JUDGED = ("query-id", "corpus-id")
Qrels = dict[str, dict[str, float]]


class Tables(NamedTuple):
    """Texts by id and the judgements of one split, each in one or more files."""

    corpus: list[Part]
    queries: list[Part]
    qrels: list[Part]

    @property
    def name(self) -> str:
        """Of the judgements, for messages."""
        return self.qrels[0].path


def tables_of(beir: Beir) -> Tables:
    """The tables of a folder; beir: with the judgements of one split. UserError where texts are
    missing."""
    (files,) = beir.qrels.values()
    for name, found in (("corpus", beir.corpus), ("queries", beir.queries)):
        if not found:
            raise UserError(
                f"{files[0].parent.parent} is a folder in BEIR's layout (it has qrels), without "
                f"{name}.jsonl, packed or not, or {name}.parquet"
            )
    qrels = [Part(str(file), "line", guarded(file, _tabbed)) if suffix_of(file) == ".tsv"
             else file_part(file) for file in files]  # fmt: skip
    return Tables([*map(file_part, beir.corpus)], [*map(file_part, beir.queries)], qrels)


def training_part(tables: Tables) -> Part:
    """The rows of a training, one for each query that has an answer; see `training_rows`."""
    return Part(tables.name, "query", training_rows(tables))


def training_rows(tables: Tables) -> Numbered:
    """A row for each query that has an answer: what was judged above 0 are its positives, other
    documents that were judged its hard negatives. Only judged texts are held in memory.

    A query or document that is not there is a BadRow. Raises UserError as `read_beir` does.
    """
    judged = _qrels(tables.qrels)
    queries = _by_id(tables.queries, True, judged)
    corpus = _by_id(tables.corpus, False, {key for grades in judged.values() for key in grades})
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


def read_beir(tables: Tables) -> tuple[dict[str, str], dict[str, str], Qrels]:
    """Queries, corpus ("title text") and qrels, by id.

    Raises UserError for a broken row, an id given twice, or a judged query or grade that makes no
    sense.
    """
    queries = _by_id(tables.queries, True)
    return queries, _by_id(tables.corpus, False), _qrels(tables.qrels)


def _by_id(
    parts: Sequence[Part], queries: bool, wanted: Container[str] | None = None
) -> dict[str, str]:
    """queries: not the corpus. wanted: the ids that are kept; None = all."""
    found: dict[str, str] = {}
    for part in parts:
        for number, row in part.rows:
            try:
                key, text = _text_of(row, queries)
            except BadRow as bad:
                where = f"{part.path}, {part.unit} {number}"
                raise UserError(f"{where}: {bad}; mend or delete that row") from None
            if wanted is not None and key not in wanted:
                continue
            if key in found:
                raise UserError(f"{part.path}: the _id {key} is given twice; ids must be unique")
            found[key] = text
    if not found and wanted is None:
        raise UserError(f"{parts[0].path} is empty; give a file with at least one row")
    return found


def _text_of(row: Any, queries: bool) -> tuple[str, str]:
    """-> (id, text) of a row of the queries or the corpus."""
    if isinstance(row, BadRow):
        raise row
    if not isinstance(row, dict):
        raise BadRow(f"{type_name(row)} where an object with columns is expected")
    key = row.get("_id", row.get("id"))
    if key in (None, ""):
        raise BadRow("no _id")
    if queries:
        return str(key), one_text(row, "text")
    if not {"title", "text"} & set(row):
        raise BadRow("neither title nor text")
    # An empty document (FiQA has some) stays: it is found last, or not at all.
    title, text = str(row.get("title") or ""), str(row.get("text") or "")
    return str(key), f"{title} {text}".strip()


def _qrels(parts: Sequence[Part]) -> Qrels:
    found: Qrels = {}
    for part in parts:
        for number, row in part.rows:
            if not (judged := _judgement(row, number, part)):
                continue
            query, document, grade = judged
            before = found.setdefault(query, {}).setdefault(document, grade)
            if before != grade:
                raise UserError(
                    f"{part.path}, {part.unit} {number}: query {query} and document {document} "
                    f"were judged {before:g} above, {grade:g} here; keep one"
                )
    if not found:
        raise UserError(f"{parts[0].path} is empty; give at least one judged document")
    return found


def _judgement(row: Any, number: int, part: Part) -> tuple[str, str, float] | None:
    """-> (query, document, grade) of a line's cells, or of a row with columns; None of a header and
    a blank line. A row without a score is right."""
    where = f"{part.path}, {part.unit} {number}"
    if isinstance(row, dict) and set(JUDGED) <= row.keys():
        cells = [*(str(row[name]) for name in JUDGED), row.get("score", 1)]
    elif isinstance(row, list):
        cells = row
    else:
        raise UserError(f"{where}: no columns query-id, corpus-id, score; mend that row")
    if not any(cells):
        return None
    if len(cells) != 3:
        raise UserError(
            f"{where}: {len(cells)} cells, expected query-id, corpus-id, score separated by tabs"
        )
    try:
        return cells[0], cells[1], to_number(cells[2], "score")
    except BadRow as bad:
        if number > 1 or isinstance(row, dict):
            raise UserError(f"{where}: {bad}; mend that {part.unit}") from None
    if any(word in cells[0].lower() for word in ("corpus", "doc", "pid")):
        raise UserError(f"{part.path}: its columns are {', '.join(cells)}; BEIR's order is "
                        "query-id, corpus-id, score")  # fmt: skip
    return None  # the header


def _tabbed(path: Path) -> Numbered:
    """The cells of each line; quotes are text, as in any .tsv."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            yield number, [cell.strip() for cell in line.split("\t")]
