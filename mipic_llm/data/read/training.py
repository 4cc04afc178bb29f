"""Training text from any files: sources of rows, and what was understood of each file."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from mipic_llm.config import DataConfig, SourceConfig
from mipic_llm.data.read.cells import BadRow, plain
from mipic_llm.data.read.columns import Columns
from mipic_llm.data.read.containers import containers
from mipic_llm.data.read.find import split_weight
from mipic_llm.data.read.formats import nli_rows, read_part
from mipic_llm.data.read.readers import Numbered
from mipic_llm.data.read.rows import ALL, SPARE, Example, ReadReport, Row, TextSource
from mipic_llm.errors import UserError


def read_training(
    specs: Any,
    *,
    negatives: int,
    on_bad_rows: str = "error",
    cache_dir: str | None = None,
    ignore: Sequence[str] = (),
    score_column: str | None = None,
    draw: bool = False,
    split: str = "train",
    label_column: str | None = None,
    together: bool = False,
    beside: Container[tuple[str, str]] = (),
) -> tuple[list[TextSource], list[ReadReport]]:
    """Reads the training text: one TextSource per spec, one report per file.

    specs: texts or objects, or a `SourceConfig`, whose columns and negatives count.

    A spec is a file, a directory (every data file below it), a glob, a Hugging Face id
    `id:config@revision[split]` (split train by default) or `demo`; `=weight` may follow. An object
    (see `containers`) stands for a spec, and one spec or object for a list of it.
    negatives: the most hard negatives kept per row (the first ones).
    on_bad_rows: error = stop at the first bad row, skip = leave it out and list it in the report.
    ignore: columns that are not looked at. score_column: the one that makes any pairs scored pairs,
    in the files that have it. draw: all hard negatives are read, and so many drawn for each step.
    label_column: the labels of bare text, likewise. together: all positives of an anchor in one
    row, see `Example.also`. split: of a folder or Hugging Face id that does not name one. beside:
    pairs of an anchor and its positive that other sources have.
    Raises UserError, one line: what, where, what to do.
    """
    read: list[tuple[str, float, int, str | None, list[list[Row]]]] = []
    reports: list[ReadReport] = []
    kinds: list[Columns] = []
    for n, spec in enumerate(as_list(specs)):
        name, weight = f"{'rows' if type(spec) is list else type(spec).__name__}[{n}]", 1.0
        most, theirs = negatives, dict[str, str]()
        if isinstance(spec, SourceConfig):
            name, weight, theirs = spec.name or spec.path, spec.weight, spec.columns
            most, spec = negatives if spec.negatives is None else spec.negatives, spec.path
        elif isinstance(spec, str | Path):
            spec, weight = split_weight(str(spec))
            name = spec
        found: list[list[Row]] = []
        for part in containers(spec, split, cache_dir, name):
            part = part._replace(rows=renamed(part.rows, theirs))
            texts, report, columns = read_part(
                part,
                ALL if draw and most else most,
                on_bad_rows == "skip",
                ignore,
                score_column,
                label_column=label_column,
            )
            if found and columns.teaches != kinds[-1].teaches:
                raise mixed_kinds(part.path, report.kind, columns, reports[-1], kinds[-1])
            found.append(texts)
            reports.append(report)
            kinds.append(columns)
        limit = ALL if draw and most else most
        nli = [bool(columns.nli) for columns in kinds[-len(found) :]]
        found = nli_rows(found, nli, limit and limit + SPARE, name)
        scored = kinds[-1].score
        if scored and len({row[3] for texts in found for row in texts}) < 2:
            raise constant_score(name, scored)
        if kinds[-1].label:
            counts = Counter(row[4] for texts in found for row in texts)
            if len([label for label, count in counts.items() if count > 1]) < 2:
                raise few_labels(name, len(counts), kinds[-1].label)
            alone = [row for texts in found for row in texts if counts[row[4]] < 2]
            found = [[row for row in texts if counts[row[4]] > 1] for texts in found]
            reports[-1] = reports[-1]._replace(n_alone=len(alone))
        read.append((name, weight, most, scored, found))
    every = [row for *_, scored, found in read if not scored for texts in found for row in texts]
    known = set[tuple[str, str]]()
    if any(row[2] for row in every):
        known = {(plain(row[0]), plain(row[1])) for row in every if row[1]}
    sources, counts = [], []
    for name, weight, most, scored, found in read:
        rows: list[Row] = []
        for texts in found:
            limit = ALL if draw and most else most
            kept = [_without_positives(row, known, beside, limit) for row in texts]
            counts.append(sum(count for _, count in kept))
            rows += [row for row, _ in kept]
        if together and not scored:
            rows = _together(rows)
        examples = [Example(*row[:3], i, *row[3:]) for i, row in enumerate(rows)]
        drawn = most if draw and most and any(len(e.negatives) > most for e in examples) else None
        sources.append(TextSource(name, examples, weight, scored, drawn))
    return sources, [r._replace(n_false=n) for r, n in zip(reports, counts, strict=True)]


def reading_of(data: DataConfig) -> dict[str, Any]:
    """The options of `read_training` that a configuration gives."""
    return {
        "negatives": data.negatives, "on_bad_rows": data.on_bad_rows, "cache_dir": data.cache_dir,
        "ignore": data.ignore_columns, "score_column": data.score_column,
        "draw": data.negatives_draw == "random", "label_column": data.label_column,
        "together": data.positives == "averaged",
    }  # fmt: skip


def renamed(rows: Numbered, columns: Mapping[str, str]) -> Numbered:
    """Rows whose columns have our names; a column that has one of them already is left out.
    columns: ours, each with theirs."""
    if not columns:
        yield from rows
        return
    theirs = {column: ours for ours, column in columns.items()}
    for number, row in rows:
        if isinstance(row, dict):
            if missing := theirs.keys() - row.keys():
                row = BadRow(
                    f"column {min(missing)} of data.sources is missing (found "
                    f"{', '.join(map(str, row)) or 'none'})"
                )
            else:
                row = {
                    theirs.get(k, k): v for k, v in row.items() if k in theirs or k not in columns
                }
        yield number, row


def _without_positives(
    row: Row, known: set[tuple], beside: Container[tuple[str, str]], negatives: int
) -> tuple[Row, int]:
    """-> (the row with at most so many of its negatives, how many were left out because they are
    its anchor or a positive that any row gives the anchor). Mined negatives are full of those."""
    anchor, positive, hard, scores, *label = row
    same = plain(anchor) if hard else anchor
    pairs = [(same, plain(text)) for text in hard]
    right = [i for i, pair in enumerate(pairs)
             if pair[1] != same and pair not in known and pair not in beside]  # fmt: skip
    kept = right[:negatives]
    scores = scores and (scores[0], *(scores[1 + i] for i in kept))
    return (anchor, positive, tuple(hard[i] for i in kept), scores, *label), len(hard) - len(right)


def _together(rows: Sequence[Row]) -> list[Row]:
    """All positives of an anchor in one row, before its negatives, each once."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(plain(row[0]), []).append(row)
    found = []
    for many in groups.values():
        if many[0][1] is None:  # bare text
            found += many
            continue
        right, hard = dict[str, tuple[str, float]](), dict[str, tuple[str, float]]()
        for _, positive, negatives, scores, *_ in many:
            each = scores or (math.nan,) * (1 + len(negatives))
            right.setdefault(plain(positive), (positive, each[0]))
            for text, score in zip(negatives, each[1:], strict=True):
                hard.setdefault(plain(text), (text, score))
        most = max(len(row[2]) for row in many)
        (first, *also), others = right.values(), [*hard.values()][:most]
        texts, numbers = zip(first, *also, *others, strict=True)
        scores = numbers if any(row[3] for row in many) else ()
        found.append((many[0][0], texts[0], texts[1:], scores, None, len(also)))
    return found


def mixed_kinds(
    path: str, kind: str, columns: Columns, before: ReadReport, others: Columns
) -> UserError:
    """Two files of one source that teach different things."""
    return UserError(
        f"{path} ({kind}) and {before.path} ({before.kind}) are one source, but {columns.teaches} "
        f"and {others.teaches} cannot be mixed in one source; give them as two entries of "
        "data.train"
    )


def constant_score(name: str, column: str) -> UserError:
    return UserError(
        f"{name}: every pair has the same score, which teaches nothing; give pairs with different "
        f"scores, or pairs that mean the same without the column {column}"
    )


def few_labels(name: str, found: int, column: str) -> UserError:
    return UserError(
        f"{name}: labelled text needs two labels or more with two texts or more each; found "
        f"{found:,} labels in the column {column}"
    )


def as_list(data: Any) -> list[Any]:
    """One spec or object, or several, as a list; a list of dicts is one. UserError when empty."""
    several = isinstance(data, list | tuple)
    if several and data and isinstance(data[0], dict) and not _splits(data[0]):
        several = False  # rows
    found = list(data) if several else [data]
    if not found:
        raise UserError("data.train names no data; give a file, a Hugging Face id or demo")
    return found


def _splits(one: dict) -> bool:
    """Whether a dict is a DatasetDict, or tables by the names of their splits; else it is a row."""
    train = one.get("train")
    rows = isinstance(train, list) and bool(train) and isinstance(train[0], dict)
    return hasattr(one, "column_names") or rows or hasattr(train, "columns")


def no_labels(column: str | None) -> str:
    """The line for a `data.label_column` that no file has."""
    return f"data.label_column: no file of data.train has text and a column {column}, or name none"


def no_scores(column: str | None) -> str:
    """The line for a `data.score_column` that no file has."""
    return (
        f"data.score_column: no file of data.train has pairs and a column {column}; give the "
        "name of a column of theirs, or none"
    )
