"""What is in the training data: the line at the start of a run, and the tables of --data.check."""

from __future__ import annotations

import os
import unicodedata
from array import array
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from mipic_llm.config import Config, SourceConfig
from mipic_llm.data.read.cells import plain
from mipic_llm.data.read.find import split_weight
from mipic_llm.data.read.formats import read_training
from mipic_llm.data.read.rows import ReadReport, TextSource, key_of
from mipic_llm.data.row_store import StoredRows, mixed
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
    for spec in config.training:
        name, its = spec, encoder
        if isinstance(spec, SourceConfig):
            name, its = spec.path, make_encoder(config.replace(**spec.changes()), source)
        try:
            (rows,), reports = read_training(
                [spec], negatives=d.negatives, on_bad_rows="skip", cache_dir=d.cache_dir,
                ignore=d.ignore_columns, score_column=d.score_column,
                draw=d.negatives_draw == "random",
                label_column=d.label_column,
            )  # fmt: skip
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
    found = look([source], tasks)
    hard = [len(e.negatives) for e in rows]
    lines += [
        ("rows", f"{found.rows:,}, of them {found.repeated:,} repeated, {found.twins:,} with a "
         "positive equal to the anchor"),
        ("negatives", f"{min(hard)} to {max(hard)} in a row, {sum(hard):,} in all" if any(hard)
         else "none"),
        ("leaks", f"{found.leaks:,} rows have a text of the validation data"),
    ]  # fmt: skip
    if source.labelled:
        sizes = Counter(e.label for e in rows).values()
        lines += [
            ("labels", f"{len(sizes):,} different, of {min(sizes):,} to {max(sizes):,} texts")
        ]
    given = [e.scores for e in rows if e.scores]
    if source.scored:
        kinds = len({s[0] for s in given})
        lines += [("scores", f"{_range([s[0] for s in given])}, {kinds:,} different")]
    elif given:
        above = sum(any(n > s[0] for n in s[1:]) for s in given)
        lines += [("scores", f"of {len(given):,} rows: positives {_range([s[0] for s in given])}, "
                   f"negatives {_range([n for s in given for n in s[1:]])}; {above:,} with a "
                   "negative above the positive")]  # fmt: skip
    query, document = ("symmetric", "symmetric") if source.symmetric else ("query", "document")
    columns = {"anchors": (query, [e.anchor for e in rows]),
               "positives": (document, [e.positive for e in rows if e.positive is not None]),
               "negatives": (document, [t for e in rows for t in e.negatives])}  # fmt: skip
    for name, (kind, texts) in columns.items():
        if not texts:
            continue
        some = texts[:: 1 + (len(texts) - 1) // LOOKED_AT]
        before = encoder.cut
        lengths = np.array([len(row) for row in encoder.fresh(some, kind)])
        low, high = np.quantile(lengths, (0.5, 0.95), method="higher")
        scripts = Counter(map(script, some)).most_common()
        shares = ", ".join(f"{name} {n / len(some):.1%}" for name, n in scripts)
        lines += [
            (name, f"{len(texts):,}, {len(set(texts)):,} different; tokens: half have at most "
             f"{low}, 95% at most {high}, the longest {lengths.max()}; {encoder.cut - before:,} of "
             f"{len(some):,} cut at {encoder.max_length}"),
            ("", f"scripts: {shares}"),
        ]  # fmt: skip
    return lines


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
