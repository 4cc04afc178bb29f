"""One entry of evaluation data (a name, files, options) to its task, by the columns of its rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mipic_llm.config import need
from mipic_llm.config.files import legal_path
from mipic_llm.data.read import cells
from mipic_llm.data.read.beir import Tables, read_beir, tables_of
from mipic_llm.data.read.columns import NLI, PAIRS, SCORES
from mipic_llm.data.read.containers import NamedRows
from mipic_llm.data.read.find import files_of
from mipic_llm.data.read.folders import beir_of, beir_texts, is_data
from mipic_llm.data.read.hub import from_hub
from mipic_llm.data.read.labelled import (
    columns_of,
    read_labelled,
    read_scored_pairs,
)
from mipic_llm.data.read.rows import ALL
from mipic_llm.data.read.training import read_training
from mipic_llm.errors import UserError
from mipic_llm.evaluation.answers import task_of
from mipic_llm.evaluation.metrics import RETRIEVAL
from mipic_llm.evaluation.tasks.base import StsTask, Task
from mipic_llm.evaluation.tasks.classification import ClassificationTask, LabelledTexts, halves
from mipic_llm.evaluation.tasks.pairs import LabelledPairs, PairsTask
from mipic_llm.evaluation.tasks.retrieval import METRICS, RetrievalTask

ROLES = ("train", "validation", "test")
_ROLE = re.compile(r"(train|validation|valid|val|dev|test)(?![A-Za-z])", re.IGNORECASE)
_SAME = {"valid": "validation", "val": "validation", "dev": "validation"}
TYPES = ("sts", "pairs", "classification", "retrieval")


def make_task(entry: Mapping[str, Any], where: str) -> tuple[Task, str]:
    """The task of {name, path or roles, type?, split?, c?, rows?} and a line about it."""
    split, kind, most = entry.get("split", "test"), entry.get("type"), entry.get("rows")
    number = most is None or (type(most) is int and most >= 2)
    need(number, f"{where}: rows is {most!r}; give a whole number from 2")
    known = kind is None or kind in TYPES
    need(known, f"{where}: type is {kind!r}; give one of: {', '.join(TYPES)}")
    path = legal_path(str(entry.get("path") or ""))
    tables = _tables(str(entry.get("path") or ""), split, where)
    search = kind == "retrieval" or (entry.get("path") and beir_texts(path, "corpus"))
    need(bool(tables) or not search, f"{where}: {path} has no qrels/*.tsv; BEIR's layout "
         "is corpus.jsonl, queries.jsonl and qrels/test.tsv")  # fmt: skip
    if tables:
        need(most is None, f"{where}: rows is not for retrieval, whose corpus must be whole")
        return _retrieval(str(entry["name"]), tables, _metrics(entry, where))
    need(split in ROLES, f"{where}: split is {split!r}; give one of: {', '.join(ROLES)}")
    files = {role: v if isinstance(v := entry[role], NamedRows) else str(v)
             for role in ROLES if entry.get(role)}  # fmt: skip
    # a file, or a folder of files without roles: all of it is scored
    files = files or (_roles(path) if path.is_dir() else {}) or {split: str(entry["path"])}
    roles = ", ".join(files)
    need(split in files, f"{where}: no {split} rows to score, only {roles}; name a {split} file")
    if split == "validation":
        files.pop("test", None)  # not for the eyes of a run that is still going on
    kind, name = kind or _detect(files[split]), str(entry["name"])
    if kind == "answers":
        need(most is None, f"{where}: rows is not for retrieval, whose corpus must be whole")
        spec = files[split]
        spec = spec.rows if isinstance(spec, NamedRows) else spec
        sources, _ = read_training([spec], negatives=ALL, split=split)
        return task_of(name, sources[0], str(files[split]), _metrics(entry, where))
    if kind == "sts":
        pairs, report = read_scored_pairs(files[split])
        pairs, report = _thin(pairs, most), str(report).removeprefix("read ")
        used = f"{len(pairs):,} of " if len(pairs) == most else ""
        return StsTask(name, pairs), f"{name}: STS, {used}{report}"
    if kind == "pairs":
        return _pairs(name, files, split, most)
    return _classification(name, files, split, entry.get("c", 1.0), where, most)


def _thin(rows: Sequence[Any], most: int | None) -> list[Any]:
    """At most so many rows, evenly spaced over all (None = all)."""
    n = len(rows)
    return list(rows) if most is None or n <= most else [rows[i * n // most] for i in range(most)]


def _roles(folder: Path) -> dict[str, str]:
    """train, validation and test file of a folder, as far as it has them."""
    files = [file.name for file in sorted(folder.iterdir()) if is_data(file)]
    found = by_role(files, str(folder), "files; keep one, or name the files in a suite YAML")
    return {role: str(folder / name) for role, name in found.items()}


def by_role(names: Sequence[str], where: str, what: str) -> dict[str, str]:
    """Role -> the one name that begins with it. UserError for two; what: things they are, and what
    to do."""
    found: dict[str, str] = {}
    for name in names:
        if match := _ROLE.match(name):
            role = _SAME.get(match[1].lower(), match[1].lower())
            need(role not in found, f"{where}: {found.get(role)} and {name} are both {role} {what}")
            found[role] = name
    return found


def understood(columns: Sequence[str]) -> str | None:
    """The kind of task that rows with these columns are: sts, pairs (or sts, by its labels),
    classification, answers (retrieval); None for none."""
    have = {*columns, *(name.lower() for name in columns)}
    if {"sentence1", "sentence2"} <= have and have & set(SCORES):
        return "sts" if have & (set(SCORES) - {"label"}) else "pairs"
    if {"text", "label"} <= have:
        return "classification"
    return "answers" if any(set(pair) <= have for pair in (*PAIRS, *NLI)) else None


def _detect(spec: Any) -> str:
    columns = columns_of(spec)
    kind = understood(columns)
    if kind is None:
        raise UserError(
            f"{spec}: found columns {', '.join(columns)}; evaluation understands sentence1, "
            "sentence2, score | sentence1, sentence2, label (0 or 1) | text, label | rows as for "
            "training: anchor, positive | question, answer .. | a folder in BEIR's layout"
        )
    if kind == "pairs":
        labels = {row[-1] for row in read_labelled(spec, ("sentence1", "sentence2"))}
        words = any(cells.is_nli_word(label) for label in labels)
        kind = "pairs" if labels <= {"0", "1"} else "answers" if words else "sts"
    return kind


def _pairs(name: str, files: Mapping[str, str], split: str, most: int | None) -> tuple[Task, str]:
    def rows(spec: str) -> LabelledPairs:
        found = _thin(read_labelled(spec, ("sentence1", "sentence2")), most)
        for *_, label in found:
            need(label in ("0", "1"), f"{spec}: a pair's label is {label!r}; give 0 or 1")
        left, right, labels = (list(column) for column in zip(*found, strict=True))
        return LabelledPairs(left, right, np.array(labels, dtype=int))

    role = next((r for r in ("validation", "train") if r in files and r != split), None)
    tune, test = rows(files[role]) if role else None, rows(files[split])
    note = f"threshold from {len(tune.left):,} {role} rows" if tune else (
        "no other rows for a threshold, so average precision only"
    )  # fmt: skip
    report = f"{name}: pairs, {len(test.left):,} rows of {files[split]}, {note}"
    return PairsTask(name, tune=tune, test=test), report


def _classification(
    name: str, files: Mapping[str, str], split: str, c: Any, where: str, most: int | None
) -> tuple[Task, str]:
    def rows(role: str) -> LabelledTexts | None:
        if role not in files:
            return None
        texts, labels = zip(*_thin(read_labelled(files[role], ("text",)), most), strict=True)
        return LabelledTexts(list(texts), list(labels))

    choices = c if isinstance(c, list) else [c]
    legal = bool(choices) and all(isinstance(x, int | float) and x > 0 for x in choices)
    need(legal, f"{where}: c is {c!r}; give a number above 0, or a list of them")
    train, test = (rows("train") if split != "train" else None), rows(split)
    assert test is not None
    half = ""
    if train is None and (both := halves(test)):
        (train, test), half = both, f", half of the texts of {files[split]}"
    if train is None:
        raise UserError(
            f"{where}: text, label rows are classification, which needs train rows beside the "
            f"{split} rows: give the folder that has both, or train and {split} in a suite YAML"
        )
    many = len(set(train.labels)) > 1
    need(
        many, f"{files.get('train', files[split])}: every label is the same; nothing can be learnt"
    )
    validation = rows("validation") if split == "test" else None
    often = [n for n in Counter(train.labels).values() if n > 1]
    need(
        len(choices) == 1 or validation is not None or len(often) > 1,
        f"{where}: the best c is found on folds of the train rows, which needs two labels that two "
        "rows have; give one c, or validation rows",
    )
    task = ClassificationTask(
        name, train=train, validation=validation, test=test, c=[float(x) for x in choices]
    )
    return task, (
        f"{name}: classification, {len(test.texts):,} rows of {files[split]}, "
        f"{len(set(train.labels))} classes, probe from {len(train.texts):,} train rows{half}, C "
        + ", ".join(f"{x:g}" for x in task.c)
    )


def _metrics(entry: Mapping[str, Any], where: str) -> list[str]:
    given = entry.get("metrics", METRICS)
    found = [given] if isinstance(given, str) else given
    for one in found if isinstance(found, list | tuple) and found else [given]:
        need(
            isinstance(one, str) and bool(RETRIEVAL.fullmatch(one)),
            f"{where}: metrics: {one!r}; give a list of ndcg@K, mrr@K, recall@K, accuracy@K, map",
        )
    return list(dict.fromkeys(found))


def _tables(spec: str, split: str, where: str) -> Tables | None:
    """Those of a folder, or of a Hugging Face id, in BEIR's layout; None for other data."""
    folder = legal_path(spec)
    if not spec or not folder.is_dir():
        found = from_hub(spec, split) if spec and files_of(spec, "validation") is None else None
        return found if isinstance(found, Tables) else None
    if (beir := beir_of(folder)) is None:
        return None
    names = ", ".join(file.name for files in beir.qrels.values() for file in files)
    need(
        split in beir.qrels or len(beir.qrels) == 1,
        f"{where}: no qrels/{split}.tsv among {names}; "
        + ("a training is judged by that (or dev.tsv), so that test.tsv stays unseen: put some "
           "queries there, or leave it out and score test.tsv by mipic evaluate"
           if split == "validation" else "name one of them in the split of a suite's entry"),
    )  # fmt: skip
    chosen = split if split in beir.qrels else next(iter(beir.qrels))
    return tables_of(beir._replace(qrels={chosen: beir.qrels[chosen]}))


def _retrieval(name: str, tables: Tables, metrics: list[str]) -> tuple[Task, str]:
    queries, corpus, qrels = read_beir(tables)
    try:
        task = RetrievalTask(name, queries=queries, corpus=corpus, qrels=qrels, metrics=metrics)
    except ValueError as error:
        raise UserError(f"{tables.name}: {error}") from None
    judged = {d for row in task.relevant.values() for d in row}
    absent = len(judged - set(corpus))
    return task, (
        f"{name}: retrieval, {len(task.queries):,} queries with an answer of {len(queries):,}, "
        f"{len(corpus):,} documents, judged in {tables.name}"
        + (f"; {absent} judged documents are not in the corpus" if absent else "")
    )
