"""What is in the training data: the line at the start of a run, and the tables of --data.check."""

from __future__ import annotations

import os
import tempfile
import unicodedata
from array import array
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mipic_llm.config import Config, SourceConfig
from mipic_llm.data import stream
from mipic_llm.data.growing import cache_home
from mipic_llm.data.layout import mixed
from mipic_llm.data.read.cells import plain
from mipic_llm.data.read.find import split_weight
from mipic_llm.data.read.rows import Example, ReadReport, TextSource, key_of
from mipic_llm.data.read.training import read_training, reading_of
from mipic_llm.data.row_store import StoredRows
from mipic_llm.data.split import split_off
from mipic_llm.data.tokenise import TextEncoder
from mipic_llm.errors import EXIT_DONE, EXIT_USER_ERROR, UserError
from mipic_llm.evaluation.read import load_tasks
from mipic_llm.evaluation.tasks.base import Task

LOOKED_AT = 20_000  # texts, evenly spaced, whose lengths and scripts are counted


class Look(NamedTuple):
    """Of the rows of training: how many are copies of an earlier one, have a positive that is the
    anchor itself, or have a text of the validation data."""

    rows: int
    repeated: int
    twins: int
    leaks: int


def look(sources: Sequence[TextSource], tasks: Sequence[Task]) -> Look:
    """Compares texts but for their blanks; rows by 64-bit hashes, 8 bytes a row."""
    known = {plain(text) for task in tasks for texts in task.texts().values() for text in texts}
    pairs, rows, twins, leaks = array("q"), 0, 0, 0
    for source in sources:
        if isinstance(source.examples, StoredRows):
            pair = source.examples.pair_keys()
            pairs.frombytes(mixed(*pair).tobytes())
            rows += len(source.examples)
            twins += int((pair[0] == pair[1]).sum()) if source.examples.labelled else 0
            keys = np.array([key_of(text.encode()) for text in known], np.int64)
            leaks += int(source.examples.rows_with(keys).sum())
    for e in (e for s in sources if not isinstance(s.examples, StoredRows) for e in s.examples):
        anchor, *others = map(plain, (e.anchor, e.positive or "", *e.negatives))
        pairs.append(hash((anchor, others[0])))
        rows += 1
        twins += anchor == others[0]
        leaks += not known.isdisjoint((anchor, *others))
    return Look(rows, rows - len(np.unique(np.array(pairs, np.int64))), twins, leaks)


def summary(found: Look, cut: tuple[int, int, int]) -> str:
    """One line. cut: texts that were cut, of how many, at how many tokens."""
    return (
        f"texts: {cut[0]:,} of {cut[1]:,} cut at {cut[2]:,} tokens; of {found.rows:,} rows "
        f"{found.repeated:,} are repeated, {found.twins:,} have a positive equal to their anchor, "
        f"{found.leaks:,} have a text of the validation data"
    )


def check(config: Config) -> int:
    """Reads all data and prints what was found, every bad row included. -> 2 where rows or files
    are bad, else 0. Loads no weights; of several processes the first one answers."""
    if int(os.environ.get("RANK") or 0):
        return EXIT_DONE
    from mipic_llm.evaluation.encode import make_encoder
    from mipic_llm.model.directory import open_source
    from mipic_llm.training.setup import resolve_for

    source = open_source(config.model)
    config = resolve_for(config, source)
    encoder, bad = make_encoder(config, source), 0
    tasks: list[Task] = []
    for spec in config.data.validation:
        try:
            mine, lines = load_tasks([spec], split="validation")
        except UserError as error:
            bad += _say(f"validation {spec}", [("bad", str(error))])
        else:
            tasks += mine
            _say(f"validation {spec}", [("read", line) for line in lines])
    d, scored = config.data, config.data.score_column is None
    read: list[TextSource] = []
    large = any(stream.wanted(spec, d.stream) for spec in config.training)
    with tempfile.TemporaryDirectory(dir=_aside(d.token_cache) if large else None) as aside:
        for number, spec in enumerate(config.training):
            name, its = spec, encoder
            if isinstance(spec, SourceConfig):
                name, its = spec.path, make_encoder(config.replace(**spec.changes()), source)
            try:
                rows, reports = _read(spec, config, Path(aside) / str(number))
            except UserError as error:
                bad += _say(f"training {split_weight(name)[0]}", [("bad", str(error))])
            else:
                scored |= rows.scored == d.score_column
                _say(f"training {rows.name}", _table(rows, reports, tasks, its))
                bad += sum(len(report.rejected) for report in reports)
                read.append(rows)
        if d.validation_split and read:
            try:
                print(split_off(read, d.validation_split, config.seed).report)
            except UserError as error:
                bad += _say("validation split", [("bad", str(error))])
    if not scored:
        bad += _say("data.score_column", [("bad", no_scores(d.score_column))])
    mend = "; mend them, or leave bad rows out with --data.on_bad_rows skip" * bool(bad)
    print(f"{bad:,} bad{mend}; nothing was trained (--data.check true)")
    return EXIT_USER_ERROR if bad else EXIT_DONE


def _aside(option: str) -> Path | None:
    """Where rows that memory need not hold are kept while they are looked at; None = with the
    system's other temporary files. UserError where it cannot be written to."""
    if option == "off":
        return None
    folder = cache_home(option)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"data.token_cache: cannot write to {folder}: {error.strerror}") from None
    return folder


def _read(spec: Any, config: Config, folder: Path) -> tuple[TextSource, list[ReadReport]]:
    """The rows of one spec, bad ones left out; of a large one (`data.stream`) written to a folder
    in one pass."""
    options = reading_of(config.data) | {"on_bad_rows": "skip"}
    if stream.wanted(spec, config.data.stream):
        reading = stream.Reading(spec, **options)
        try:
            reading.build(folder, lambda *_: None)
        except OSError as error:
            raise UserError(
                f"cannot write its rows to {folder.parent}: {error.strerror}; make room, or name "
                "another directory as data.token_cache"
            ) from None
        return reading.source(folder)
    (rows,), reports = read_training([spec], **options)
    return rows, reports


def no_labels(column: str | None) -> str:
    """The line for a `data.label_column` that no file has."""
    return f"data.label_column: no file of data.train has text and a column {column}, or name none"


def no_scores(column: str | None) -> str:
    """The line for a `data.score_column` that no file has."""
    return (
        f"data.score_column: no file of data.train has pairs and a column {column}; give the "
        "name of a column of theirs, or none"
    )


def _say(title: str, lines: Sequence[tuple[str, str]]) -> int:
    print(title)
    for name, value in lines:
        print(f"  {name:<11}{value}")
    return 1


def _table(
    source: TextSource, reports: Sequence[ReadReport], tasks: Sequence[Task], encoder: TextEncoder
) -> list[tuple[str, str]]:
    rows, lines = source.examples, []
    for report in reports:
        lines.append(("file", str(report._replace(rejected=[])).removeprefix("read ")))
        lines += [("bad", f"{report.unit} {n}: {reason}") for n, reason in report.rejected]
    found, seen = look([source], tasks), _passed(rows)
    hard = seen.negatives
    lines += [
        ("rows", f"{found.rows:,}, of them {found.repeated:,} repeated, {found.twins:,} with a "
         "positive equal to the anchor"),
        ("negatives", f"{min(hard)} to {max(hard)} in a row, {sum(hard):,} in all" if any(hard)
         else "none"),
        ("leaks", f"{found.leaks:,} rows have a text of the validation data"),
    ]  # fmt: skip
    if source.labelled:
        sizes = np.unique(np.array(seen.labels), return_counts=True)[1]
        lines += [
            ("labels", f"{len(sizes):,} different, of {sizes.min():,} to {sizes.max():,} texts")
        ]
    if source.scored:
        kinds = len(np.unique(np.array(seen.right)))
        lines += [("scores", f"{_range(seen.right)}, {kinds:,} different")]
    elif seen.right:
        lines += [("scores", f"of {seen.scored:,} rows: positives {_range(seen.right)}, "
                   f"negatives {_range(seen.wrong)}; {seen.above:,} with a negative above the "
                   "positive")]  # fmt: skip
    for name, column in seen.columns.items():
        if not column.keys:
            continue
        kind = "symmetric" if source.symmetric else "document" if name != "anchors" else "query"
        some, before = column.some, encoder.cut
        lengths = np.array([len(row) for row in encoder.fresh(some, kind)])
        low, high = np.quantile(lengths, (0.5, 0.95), method="higher")
        scripts = Counter(map(script, some)).most_common()
        shares = ", ".join(f"{name} {n / len(some):.1%}" for name, n in scripts)
        different = len(np.unique(np.array(column.keys)))
        lines += [
            (name, f"{len(column.keys):,}, {different:,} different; tokens: half have at most "
             f"{low}, 95% at most {high}, the longest {lengths.max()}; {encoder.cut - before:,} of "
             f"{len(some):,} cut at {encoder.max_length}"),
            ("", f"scripts: {shares}"),
        ]  # fmt: skip
    return lines


class _Column(NamedTuple):
    """Of the texts of a column: a hash of each, and some of them, one in `every`."""

    every: int
    keys: array
    some: list[str]

    def add(self, text: str) -> None:
        if len(self.keys) % self.every == 0:
            self.some.append(text)
        self.keys.append(hash(text))


class _Passed(NamedTuple):
    """What one pass over rows leaves: negatives of each row, hashes of labels, scores of positives
    and of negatives, rows with scores, those with a negative above the positive, and columns."""

    negatives: array
    labels: array
    right: array
    wrong: array
    scored: int
    above: int
    columns: dict[str, _Column]


def _passed(rows: Sequence[Example]) -> _Passed:
    """Holds no texts but some: 8 bytes for each text, label and score."""
    if isinstance(rows, StoredRows):
        negatives = array("q", rows.negatives().tobytes())
    else:
        negatives = array("q", (len(e.negatives) - e.also for e in rows))
    n, scored, above = len(rows), 0, 0
    sizes = {"anchors": n, "positives": n, "negatives": sum(negatives)}
    columns = {name: _Column(1 + max(0, size - 1) // LOOKED_AT, array("q"), [])
               for name, size in sizes.items()}  # fmt: skip
    labels, right, wrong = array("q"), array("d"), array("d")
    for e in rows:
        columns["anchors"].add(e.anchor)
        if e.positive is not None:
            columns["positives"].add(e.positive)
        for n, text in enumerate(e.negatives):
            columns["positives" if n < e.also else "negatives"].add(text)
        if e.label is not None:
            labels.append(hash(e.label))
        if e.scores:
            scored += 1
            right.extend(e.scores[: 1 + e.also])
            wrong.extend(e.scores[1 + e.also :])
            above += any(score > e.scores[0] for score in e.scores[1 + e.also :])
    return _Passed(negatives, labels, right, wrong, scored, above, columns)


def _range(numbers: Sequence[float]) -> str:
    known = [n for n in numbers if n == n]
    return f"{min(known):g} to {max(known):g}" if known else "without any"


def script(text: str) -> str:
    """The script that most of a text's first letters are of, as Unicode names letters."""
    found = Counter(name for letter in text[:200] if (name := _script(letter)))
    return found.most_common(1)[0][0] if found else "no letters"


@cache
def _script(letter: str) -> str | None:
    if not letter.isalpha():
        return None
    return unicodedata.name(letter, "unknown").split()[0].split("-")[0].capitalize()
