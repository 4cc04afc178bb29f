"""Evaluation data: from files, folders and suite YAMLs to tasks.

A file or folder is understood by its columns and file names:

    corpus.jsonl, queries.jsonl, qrels/*.tsv   retrieval; also as a hub has it
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

from mipic_llm.config import need
from mipic_llm.config.files import find_file
from mipic_llm.config.recipe import read_yaml
from mipic_llm.data.read.containers import NamedRows
from mipic_llm.evaluation.build import ROLES, by_role, make_task
from mipic_llm.evaluation.families import FAMILIES, demo_families
from mipic_llm.evaluation.names import name_specs
from mipic_llm.evaluation.tasks.base import Task

_KEYS = ("name", "type", "path", *ROLES, "split", "c", "rows", "metrics")
Read = tuple[list[Task], list[str]]  # the tasks, and a line per task on what was understood


def load_tasks(specs: Sequence[str | NamedRows], *, split: str = "test") -> Read:
    """One task per spec: a file, folder, glob, Hugging Face id, `demo` (built in), or rows in
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
        many = (
            zip(*demo_families(), strict=True)
            if spec == FAMILIES
            else [make_task(entry, str(spec))]
        )
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
        task, report = make_task(entry, where)
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
    found = by_role(list(map(str, spec.rows)), str(spec), "splits; leave one out")
    roles = {role: NamedRows(f"{spec}[{key}]", spec.rows[key]) for role, key in found.items()}
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
