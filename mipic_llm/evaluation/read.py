"""Evaluation data: from files, folders and suite YAMLs to tasks.

A file or folder is understood by its columns and file names:

    corpus.jsonl, queries.jsonl, qrels/*.tsv   retrieval
    text, label                                classification: a folder with train and test files;
                                               of one file half of the texts train the probe
    sentence1, sentence2, label of 0 and 1     pairs: a folder, or one file (average precision only)
    sentence1, sentence2, score                STS: a file, or the scored split of a folder
    rows as for training (question, answer ..) retrieval: each anchor among all positives and
                                               negatives

The files of a folder are told apart by how their names begin: train, validation (dev, val), test.
What is fitted is fitted on train and validation rows, what is scored are the rows of the split
asked for: test for a finished model, validation during training.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mipic_llm.config import need
from mipic_llm.config.files import find_file, legal_path
from mipic_llm.config.recipe import read_yaml
from mipic_llm.data.read import cells
from mipic_llm.data.read.cells import plain
from mipic_llm.data.read.columns import NLI, PAIRS, SCORES
from mipic_llm.data.read.containers import NamedRows
from mipic_llm.data.read.find import SUFFIXES
from mipic_llm.data.read.labelled import (
    ScoredPair,
    columns_of,
    read_beir,
    read_labelled,
    read_scored_pairs,
)
from mipic_llm.data.read.rows import ALL, TextSource
from mipic_llm.data.read.training import read_training
from mipic_llm.errors import UserError
from mipic_llm.evaluation.families import FAMILIES, demo_families
from mipic_llm.evaluation.metrics import RETRIEVAL
from mipic_llm.evaluation.names import name_specs
from mipic_llm.evaluation.tasks.base import StsTask, Task
from mipic_llm.evaluation.tasks.classification import ClassificationTask, LabelledTexts, halves
from mipic_llm.evaluation.tasks.pairs import LabelledPairs, PairsTask
from mipic_llm.evaluation.tasks.retrieval import METRICS, RetrievalTask

TYPES = ("sts", "pairs", "classification", "retrieval")
ROLES = ("train", "validation", "test")
_ROLE = re.compile(r"(train|validation|valid|val|dev|test)(?![A-Za-z])", re.IGNORECASE)
_SAME = {"valid": "validation", "val": "validation", "dev": "validation"}
_KEYS = ("name", "type", "path", *ROLES, "split", "c", "rows", "metrics")
Read = tuple[list[Task], list[str]]  # the tasks, and a line per task on what was understood


def load_tasks(specs: Sequence[str | NamedRows], *, split: str = "test") -> Read:
    """One task per spec: a file, folder, glob, Hugging Face id (STS), `demo` (built in), or rows in
    memory (a DatasetDict is read as a folder with a file per split); of `demo-families` four.

    Named after the file; after its folder too where the stem alone tells nothing (validation,
    test ..) or is shared: stsb/validation.jsonl is "stsb-validation". split: which rows of a folder
    are scored. Raises UserError for data that cannot be read, or a spec given twice.
    """
    names = name_specs([spec for spec in specs if isinstance(spec, str)])
    entries = [_entry(s, split) if isinstance(s, NamedRows) else
               {"name": names.pop(0), "path": s, "split": split} for s in specs]  # fmt: skip
    read: list[tuple[Task, str]] = []
    for entry, spec in zip(entries, specs, strict=True):
        many = zip(*demo_families(), strict=True) if spec == FAMILIES else [_task(entry, str(spec))]
        read += many
    names = [task.name for task, _ in read]
    twice = next((name for name in names if names.count(name) > 1), None)
    need(twice is None, f"evaluation data has two tasks {twice}; {FAMILIES} brings demo and "
         "demo-pairs, -subjects, -search: leave the other out, or rename its file")  # fmt: skip
    return [task for task, _ in read], [report for _, report in read]


def load_suite(path: str) -> Read:
    """The tasks of a suite YAML: a list of {name, type, path | train, validation, test, split, c,
    rows, metrics}.

    Only a path (or test) is needed; paths are looked for beside the YAML, then from here. rows: at
    most so many of each file, evenly spaced, for a quicker answer (not for retrieval). metrics: of
    retrieval, such as [ndcg@20, recall@5, mrr@10, accuracy@1, map].
    Raises UserError for a broken file, an unknown key or type, or a name given twice.
    """
    path = str(find_file("suites", path) or path)
    tasks: list[Task] = []
    reports: list[str] = []
    for number, entry in enumerate(_entries(path), 1):
        where = f"{path}, entry {number}"
        need(isinstance(entry, dict), f"{where}: must be an object with a path, got {entry!r}")
        unknown = [key for key in entry if key not in _KEYS]
        need(
            not unknown,
            f"{where}: unknown key {', '.join(map(str, unknown))}; known: {', '.join(_KEYS)}",
        )
        entry = {k: _beside(v, path) if k in ("path", *ROLES) else v for k, v in entry.items()}
        spec = entry.get("path") or entry.get("test")
        need(bool(spec), f"{where}: give a path, or test (and train, validation)")
        name = str(entry.setdefault("name", name_specs([spec])[0]))
        legal = bool(re.fullmatch(r"[\w.-]+", name))
        need(legal, f"{where}: name {name!r}; use letters, digits, - _ . only")
        need(name not in (t.name for t in tasks), f"{where}: the name {name} is given twice")
        task, report = _task(entry, where)
        tasks.append(task)
        reports.append(report)
    return tasks, reports


def suite_specs(path: str) -> list[str]:
    """The suite's file and the data that it names. Raises UserError."""
    path = str(find_file("suites", path) or path)
    entries = [entry for entry in _entries(path) if isinstance(entry, dict)]
    return [path, *(_beside(e[k], path) for e in entries for k in ("path", *ROLES) if e.get(k))]


def _entry(spec: NamedRows, split: str) -> dict[str, Any]:
    """Rows in memory as an entry of a suite; the splits of a DatasetDict by their names."""
    entry: dict[str, Any] = {"name": re.sub(r"[^\w.-]+", "-", spec.name).strip("-"), "split": split}
    if not isinstance(spec.rows, Mapping):
        return entry | {split: spec}
    found = {m[1].lower(): key for key in spec.rows if (m := _ROLE.match(str(key)))}
    roles = {
        _SAME.get(r, r): NamedRows(f"{spec}[{key}]", spec.rows[key]) for r, key in found.items()
    }
    need(bool(roles), f"{spec}: no split is named train, validation or test")
    return entry | roles


def _entries(path: str) -> list[Any]:
    entries = read_yaml(Path(path), f"--suite {path}")
    legal = isinstance(entries, list) and bool(entries)
    need(legal, f"--suite {path}: must be a list of tasks, such as - path: data/stsb")
    return entries


def _beside(spec: Any, suite: str) -> str:
    path = os.path.join(os.path.dirname(suite), str(spec))
    return path if os.path.exists(path) else str(spec)  # of os: False for what is no path


def _task(entry: Mapping[str, Any], where: str) -> tuple[Task, str]:
    """The task of {name, path or roles, type?, split?, c?, rows?} and a line about it."""
    split, kind, most = entry.get("split", "test"), entry.get("type"), entry.get("rows")
    number = most is None or (type(most) is int and most >= 2)
    need(number, f"{where}: rows is {most!r}; give a whole number from 2")
    known = kind is None or kind in TYPES
    need(known, f"{where}: type is {kind!r}; give one of: {', '.join(TYPES)}")
    path = legal_path(str(entry.get("path") or ""))
    if entry.get("path") and any(path.glob("corpus.jsonl*")) or kind == "retrieval":
        need(most is None, f"{where}: rows is not for retrieval, whose corpus must be whole")
        return _retrieval(str(entry["name"]), path, split, where, _metrics(entry, where))
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
    found: dict[str, str] = {}
    for file in sorted(folder.iterdir()):
        suffix = Path(file.name.lower().removesuffix(".gz")).suffix
        match = _ROLE.match(file.name)
        if not file.is_file() or suffix not in SUFFIXES or match is None:
            continue
        role = _SAME.get(match[1].lower(), match[1].lower())
        other = Path(found.get(role, "")).name
        need(not other, f"{folder}: {other} and {file.name} are both {role} files; keep one, or "
             "name the files in a suite YAML")  # fmt: skip
        found[role] = str(file)
    return found


def understood(columns: Sequence[str]) -> str | None:
    """The kind of task that rows with these columns are: sts, pairs (or sts, by its labels),
    classification, answers (retrieval); None for none."""
    have = set(columns)
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


def task_of(
    name: str, source: TextSource, where: str, metrics: Sequence[str] = METRICS
) -> tuple[Task, str]:
    """Rows of training as a task: STS of scored pairs; else retrieval, where each anchor is to find
    its positives among those of all rows and the negatives. An anchor that stands among these too
    is no answer to itself.

    Rows without a positive, or whose positive is the anchor, ask nothing. UserError without rows.
    """
    examples = source.examples
    if source.scored is not None:
        pairs = [ScoredPair(e.anchor, e.positive or "", e.scores[0]) for e in examples]
        return StsTask(name, pairs), f"{name}: STS, {len(pairs):,} rows of {where}"
    asked = [e for e in examples if e.positive and plain(e.positive) != plain(e.anchor)]
    need(bool(asked), f"{where}: no row has a positive other than its anchor")
    documents = (text for e in asked for text in (e.positive, *e.negatives))
    corpus = {plain(text): text for text in documents if text}
    queries = {plain(e.anchor): e.anchor for e in asked}
    number = {text: f"{i:08}" for i, text in enumerate({**queries, **corpus})}  # one id a text
    qrels: dict[str, dict[str, float]] = {}
    for e in asked:
        qrels.setdefault(number[plain(e.anchor)], {})[number[plain(e.positive or "")]] = 1.0
    task = RetrievalTask(
        name, queries={number[k]: v for k, v in queries.items()},
        corpus={number[k]: v for k, v in corpus.items()}, qrels=qrels, metrics=metrics,
    )  # fmt: skip
    return task, (
        f"{name}: retrieval, {len(queries):,} questions of {where}, each among {len(corpus):,} "
        "answers"
    )


def held_out_tasks(sources: Sequence[TextSource]) -> Read:
    """A task per source of rows that were cut off the training data: held-out (held-out-NAME where
    there are several): STS of scored pairs, else retrieval."""
    some = [s for s in sources if s.examples and s.examples[0].positive is not None]
    names = ["held-out"] if len(some) == 1 else [
        f"held-out-{i + 1}-{re.sub(r'[^A-Za-z0-9_.]+', '-', Path(s.name).stem)}"
        for i, s in enumerate(some)
    ]  # fmt: skip
    read = [task_of(n, s, f"{s.name}, held out") for n, s in zip(names, some, strict=True)]
    return [task for task, _ in read], [line for _, line in read]


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


def _retrieval(
    name: str, folder: Path, split: str, where: str, metrics: list[str]
) -> tuple[Task, str]:
    options = sorted((folder / "qrels").glob("*.tsv"))
    need(bool(options), f"{where}: {folder} has no qrels/*.tsv; BEIR's layout is corpus.jsonl, "
         "queries.jsonl and qrels/test.tsv")  # fmt: skip
    found = [p for p in options if _SAME.get(p.stem, p.stem) == split]
    names = ", ".join(p.name for p in options)
    need(bool(found) or len(options) == 1, f"{where}: no qrels/{split}.tsv among {names}")
    chosen = (found or options)[0]
    queries, corpus, qrels = read_beir(folder, chosen)
    try:
        task = RetrievalTask(name, queries=queries, corpus=corpus, qrels=qrels, metrics=metrics)
    except ValueError as error:
        raise UserError(f"{chosen}: {error}") from None
    judged = {d for row in task.relevant.values() for d in row}
    absent = len(judged - set(corpus))
    return task, (
        f"{name}: retrieval, {len(task.queries):,} queries with an answer of {len(queries):,}, "
        f"{len(corpus):,} documents, judged in {chosen}"
        + (f"; {absent} judged documents are not in the corpus" if absent else "")
    )
