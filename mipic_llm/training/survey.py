"""What is in the training data: the line at the start of a run, and a table of --data.check."""

from __future__ import annotations

import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from mipic_llm.data.layout import mixed
from mipic_llm.data.read.cells import plain
from mipic_llm.data.read.rows import Example, ReadReport, TextSource, key_of
from mipic_llm.data.row_store import StoredRows
from mipic_llm.data.tokenise import TextEncoder
from mipic_llm.evaluation.tasks.base import Task
from mipic_llm.evaluation.tasks.retrieval import RetrievalTask

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
    known = {plain(text) for task in tasks for text in _revealing(task)}
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


def _revealing(task: Task) -> Iterator[str]:
    """Texts that no training row should have. Of a search the queries and their answers: the other
    documents are there for all queries of the folder, those of a training too."""
    if isinstance(task, RetrievalTask):
        yield from task.queries.values()
        answers = {d for judged in task.relevant.values() for d in judged}
        yield from (task.corpus[d] for d in answers if d in task.corpus)
        return
    for texts in task.texts().values():
        yield from texts


def summary(found: Look, cut: tuple[int, int, int]) -> str:
    """One line. cut: texts that were cut, of how many, at how many tokens."""
    return (
        f"texts: {cut[0]:,} of {cut[1]:,} cut at {cut[2]:,} tokens; of {found.rows:,} rows "
        f"{found.repeated:,} are repeated, {found.twins:,} have a positive equal to their anchor, "
        f"{found.leaks:,} have a text of the validation data"
    )


def table(
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
