"""Reads any common row format from any common container, and says what it understood.

A format is detected from the first row; later rows of another shape are bad rows. First match
wins:

    premise, hypothesis, label      NLI; entailment/neutral/contradiction or 0/1/2. Each entailment
                                    is a row, contradictions of its premise are the negatives;
                                    no gold label (-1, -, null) counts as neutral, gives no row;
                                    also sentence1, sentence2 with gold_label or label in words
    anchor, positive                sentence-transformers; also query, positive
    query, pos                      FlagEmbedding
    query, positive_passages        tevatron: {title, text} passages, read as "title text"
    query|question, pos_doc         NeMo
    messages, positive_messages     ms-swift: a text is the contents of its messages, one per line
    query, response                 ms-swift
    query|question, answer          pairs
    sentence1, sentence2, score     scored pairs, as in STS: also similarity, similarity_score, and
                                    a label with fractions; also text1, text2; no hard negatives
    sentence1, sentence2            pairs, also text1, text2
    text, data.label_column         labelled text: others of the same label are its positives
    text | sentence                 unlabelled, also any .txt: one text per line

Beside any pair, columns of hard negatives (`cells.NEGATIVE`: negative, neg_2, hard_negatives,
rejected_response ..) may be lists, and ragged: null, blank and empty ones are absent. A positive
may be a list: each becomes a row of its own, with the same negatives. How well each of these texts
answers may stand beside them, in their order: pos_scores and neg_scores (pos_score, neg_score), or
scores, of the positives and then the negatives. Another column that looks like a label or score
beside a pair without negatives is refused, since the pair may be one that does not belong together:
`data.score_column` or `data.ignore_columns` says what it means. Other columns are ignored, and
named in the report.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from mipic_llm.config import SourceConfig
from mipic_llm.data.read import cells
from mipic_llm.data.read.cells import BadRow, one_text, plain
from mipic_llm.data.read.columns import (
    SCORE_COLUMNS,
    Columns,
    check_labels,
    detect,
    unclear,
)
from mipic_llm.data.read.containers import Numbered, Part, containers
from mipic_llm.data.read.find import split_weight
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
    if several and data and isinstance(data[0], dict) and not hasattr(data[0], "column_names"):
        several = False  # rows; a DatasetDict is a dict too
    found = list(data) if several else [data]
    if not found:
        raise UserError("data.train names no data; give a file, a Hugging Face id or demo")
    return found


def read_rows(
    spec: Any,
    split: str,
    parse: Callable[[dict, Any], Any],
    pick: Callable[[dict], Any] = lambda row: None,
    cache_dir: str | None = None,
) -> list[Any]:
    """parse(row, pick(its file's first row)) of every row of every file of a spec; any bad row is a
    UserError."""
    parts = containers(spec, split, cache_dir)
    return [row for part in parts for row in collect_rows(part, pick, parse, skip=False).parsed]


class Collected(NamedTuple):
    """What parse made of all rows, what pick made of the first one, how many rows there were, the
    numbers of bad ones and what is wrong with them, and the columns of all rows."""

    parsed: list[Any]
    picked: Any
    n_rows: int
    rejected: list[tuple[int, str]]
    columns: list[str]


def collect_rows(
    part: Part, pick: Callable[[dict], Any], parse: Callable[[dict, Any], Any], skip: bool,
    block: bool = False,
) -> Collected:  # fmt: skip
    """parse(row, pick(the first row)) of all rows. Without `skip` a bad row is a UserError, and so
    are bad rows alone; unless they are a block, which others follow."""
    parsed, rejected, picked, n_rows, columns = [], [], None, 0, dict[str, None]()
    for number, row in part.rows:
        n_rows += 1
        try:
            if isinstance(row, BadRow):
                raise row
            if not isinstance(row, dict):
                raise BadRow(f"{cells.type_name(row)} where an object with columns is expected")
            columns.update(dict.fromkeys(map(str, row)))
            if picked is None:
                picked = pick(row)
            parsed.append(parse(row, picked))
        except BadRow as bad:
            if not skip:
                raise UserError(
                    f"{part.path}, {part.unit} {number}: {bad}; mend or delete that row (of "
                    "training data, --data.check true lists all such rows, and --data.on_bad_rows "
                    "skip leaves them out)"
                ) from None
            rejected.append((number, str(bad)))
    if not n_rows:
        raise UserError(f"{part.path} is empty; give a file with at least one row")
    if not parsed and not block:
        raise none_used(part.path, part.unit, n_rows, rejected)
    return Collected(parsed, picked, n_rows, rejected, list(columns))


def none_used(path: str, unit: str, n_rows: int, rejected: list[tuple[int, str]]) -> UserError:
    """Not one row is good."""
    return UserError(
        f"{path}: none of its {n_rows:,} rows can be used ({unit} {rejected[0][0]}: "
        f"{rejected[0][1]}); mend the file"
    )


def read_part(
    part: Part, negatives: int, skip: bool, ignore: Sequence[str], score_column: str | None,
    known: Columns | None = None, label_column: str | None = None, block: bool = False,
) -> tuple[list[Row], ReadReport, Columns]:  # fmt: skip
    """One file's rows, its report, and its columns. known: of the file's earlier rows. block: they
    are not all of its rows, so that those of NLI are (premise, hypothesis, label, ()), neutral ones
    left out, and the report is not `settled` yet; columns are None where all rows so far are bad.
    """

    def parse(row: dict, columns: Columns):
        if columns.nli:
            texts = (one_text(row, name) for name in (columns.anchor, columns.positive))
            return (*texts, cells.nli_label(row.get(columns.nli), columns.nli))
        anchor = one_text(row, columns.anchor)
        if columns.positive is None:
            if columns.label:
                return [
                    (anchor, None, (), (), cells.to_label(row.get(columns.label), columns.label))
                ]
            return [(anchor, None, (), ())]
        if columns.score:
            alike = row.get(columns.score)
            alike = int(alike) if isinstance(alike, bool) else alike
            pair = anchor, one_text(row, columns.positive)
            return [(*pair, (), (cells.to_number(alike, columns.score),))]
        right, hard = cells.column_texts(row, columns.positive), cells.negative_texts(row, ignore)
        if SCORE_COLUMNS.isdisjoint(row):
            kept = tuple(islice((text for text in hard if text is not None), most))
            return [(anchor, positive, kept, ()) for positive in right]
        slots = list(hard)
        kept = tuple([text for text in slots if text is not None][:most])
        own, others = cells.scores_of(row, len(right), slots, ignore) or ([], [])
        others = tuple(others[:most])
        return [
            (anchor, positive, kept, (own[i], *others) if own else ())
            for i, positive in enumerate(right)
        ]

    most = negatives + SPARE if negatives else 0
    pick: Callable[[dict], Columns] = partial(
        detect, path=part.path, ignore=ignore, score_column=score_column, label_column=label_column
    )
    if known:
        pick = partial(lambda _row, columns: columns, columns=known)
    whole, span = True, ()
    parsed, columns, n_rows, rejected, names = collect_rows(part, pick, parse, skip, block)
    columns = columns or known  # of a block without one row that could be read
    if not parsed:
        rows = []
    elif columns.nli and block:
        rows = [(*row, ()) for row in parsed if row[2] != 1]
    elif columns.nli:
        rows = _nli_rows(parsed, most)
    else:
        rows = [row for group in parsed for row in group]
        if columns.score:
            scores = [row[3][0] for row in rows]
            whole, span = all(n.is_integer() for n in scores), (min(scores), max(scores))
    n_kept = sum(row[2] == 0 for row in rows) if columns and columns.nli and block else len(rows)
    n_scored = 0 if columns and columns.score else sum(bool(row[3]) for row in rows)
    report = ReadReport(
        part.path, columns.kind if columns else "", n_rows, n_kept, rejected, part.unit,
        ignored=tuple(names), beside=part.beside, n_scored=n_scored, whole=whole, span=span,
    )  # fmt: skip
    return rows, report if block else settled(report, columns, ignore, score_column), columns


def settled(
    report: ReadReport, columns: Columns | None, ignore: Sequence[str], score_column: str | None
) -> ReadReport:
    """The report on all rows of a file, which has had all of its columns as `ignored`. Raises
    UserError for what only all rows show."""
    if columns is None or len(report.rejected) == report.n_rows:
        raise none_used(report.path, report.unit, report.n_rows, report.rejected)
    names = [name for name in report.ignored if name not in ignore]
    taken = {columns.anchor, columns.positive, columns.nli, columns.score, columns.label}
    if columns.nli:
        if not report.n_kept:
            raise UserError(f"{report.path} holds no entailment pair; training needs some")
    elif columns.score:
        if columns.score == "label" != score_column and report.whole:
            raise unclear(report.path, columns, "label", ", whose whole numbers may be classes")
        low, high = report.span
        kind = f"scored pairs {report.kind} ({low:g} to {high:g}, larger = more alike)"
        report = report._replace(kind=kind)
    elif columns.positive:  # some rows may have more columns than the first one
        check_labels(report.path, columns, names)
        taken |= {*cells.negative_columns(names)}
        taken |= SCORE_COLUMNS - set(ignore) if report.n_scored else set()
    return report._replace(ignored=tuple(n for n in report.ignored if n not in taken))


def _nli_rows(labelled: list[tuple[str, str, int]], negatives: int):
    """Triplets from entailment and contradiction of one premise; a pair where none contradicts."""
    groups: dict[str, tuple[list[str], list[str]]] = {}
    for premise, hypothesis, label in labelled:
        if label != 1:
            groups.setdefault(premise, ([], []))[label // 2].append(hypothesis)
    rows = []
    for premise, (entailed, denied) in groups.items():
        for i, positive in enumerate(entailed):
            turn = i % len(denied) if denied else 0  # each entailment starts at another negative
            rows.append((premise, positive, tuple((denied[turn:] + denied[:turn])[:negatives]), ()))
    return rows
