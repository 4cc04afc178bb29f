"""The rows of one file or data set, in any common format, and what was understood of them.

A format is detected from the first row; later rows of another shape are bad rows. First match
wins:

    premise, hypothesis, label      NLI; entailment/neutral/contradiction or 0/1/2. Each entailment
                                    is a row, contradictions of its premise in any file of the
                                    source are the negatives;
                                    no gold label (-1, -, null) counts as neutral, gives no row;
                                    also sentence1, sentence2 with gold_label or label in words
    anchor, positive                sentence-transformers; also query, positive
    query, pos                      FlagEmbedding
    query, positive_passages        tevatron: {title, text} passages, read as "title text"
    query|question, pos_doc         NeMo
    messages, positive_messages     ms-swift: a text is the contents of its messages, one per line
    query, response                 ms-swift
    query|question, answer          pairs; also query, document and query, passage
    sentence1, sentence2, score     scored pairs, as in STS: also similarity, similarity_score, and
                                    a label with fractions; also text1, text2; no hard negatives
    sentence1, sentence2            pairs, also text1, text2
    text, data.label_column         labelled text: others of the same label are its positives
    text | sentence                 unlabelled, also any .txt: one text per line; not beside a query
    lists of texts                  see `shapes`

Beside any pair, columns of hard negatives (`cells.NEGATIVE`: negative, neg_2, hard_negatives,
rejected_response ..) may be lists, and ragged: null, blank and empty ones are absent. A positive
may be a list: each becomes a row of its own, with the same negatives. How well each of these texts
answers may stand beside them, in their order: pos_scores and neg_scores (pos_score, neg_score), or
a list scores, or score, of the positives and then the negatives. Another column that looks like a
label or score beside a pair without negatives is refused, since the pair may be one that does not
belong together: `data.score_column` or `data.ignore_columns` says what it means. Other columns are
ignored, and named in the report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, NamedTuple

from mipic_llm.data.read import cells
from mipic_llm.data.read.cells import BadRow, one_text
from mipic_llm.data.read.columns import (
    SCORE_COLUMNS,
    Columns,
    check_labels,
    detect,
    unclear,
)
from mipic_llm.data.read.containers import Part, containers
from mipic_llm.data.read.rows import SPARE, ReadReport, Row
from mipic_llm.errors import UserError


def read_rows(
    spec: Any,
    split: str,
    parse: Callable[[dict, Any], Any],
    pick: Callable[[dict], Any] = lambda row: None,
) -> list[Any]:
    """parse(row, pick(its file's first row)) of every row of every file of a spec; any bad row is a
    UserError."""
    parts = containers(spec, split, None)
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
        except (BadRow, RecursionError) as odd:
            bad = odd if isinstance(odd, BadRow) else "lists too deep in one another"
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
    """One file's rows, its report, and its columns. Those of NLI are (premise, hypothesis, label,
    ()), neutral ones left out, see `nli_rows`. known: of the file's earlier rows. block: they are
    not all of its rows, and the report is not `settled` yet; columns are None where all rows so far
    are bad.
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
        nonlocal given
        if negatives:
            own_names = cells.negative_columns(str(name) for name in row if name not in ignore)
            given = max(given, cells.count_negatives(row, own_names))
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

    def pick(row: dict) -> Columns:
        return known or detect(row, part.path, ignore, score_column, label_column)

    most, given = negatives + SPARE if negatives else 0, 0
    whole, span = True, ()
    parsed, columns, n_rows, rejected, names = collect_rows(part, pick, parse, skip, block)
    columns = columns or known  # of a block without one row that could be read
    if not parsed:
        rows = []
    elif columns.nli:
        rows = [(*row, ()) for row in parsed if row[2] != 1]
    else:
        rows = [row for group in parsed for row in group]
        enough = len(rows) >= (100 if block else 1)  # the last rows of a long file may be few
        if enough and all(row[0].isdigit() and (row[1] or "").isdigit() for row in rows):
            raise UserError(
                f"{part.path}: {columns.anchor} and {columns.positive} are whole numbers in every "
                "row, as ids are; write the texts in their place"
            )
        if columns.score:
            scores = [row[3][0] for row in rows]
            whole, span = all(n.is_integer() for n in scores), (min(scores), max(scores))
    n_kept = sum(row[2] == 0 for row in rows) if columns and columns.nli else len(rows)
    n_scored = 0 if columns and columns.score else sum(bool(row[3]) for row in rows)
    report = ReadReport(
        part.path, columns.kind if columns else "", n_rows, n_kept, rejected, part.unit,
        ignored=tuple(names), beside=part.beside, n_scored=n_scored, whole=whole,
        span=span, strange=part.strange,
        n_given=given if given > negatives else 0,
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
    if columns.score:
        if columns.score == "label" != score_column and report.whole:
            raise unclear(report.path, columns, "label", ", whose whole numbers may be classes")
        low, high = report.span
        kind = f"scored pairs {report.kind} ({low:g} to {high:g}, larger = more alike)"
        report = report._replace(kind=kind)
    elif columns.positive and not columns.nli:  # some rows may have more columns than the first one
        check_labels(report.path, columns, names)
        taken |= {*cells.negative_columns(names)}
        taken |= SCORE_COLUMNS - set(ignore) if report.n_scored else set()
    return report._replace(ignored=tuple(n for n in report.ignored if n not in taken))


def nli_rows(
    files: Sequence[list[Row]], nli: Sequence[bool], negatives: int, name: str
) -> list[list[Row]]:
    """The rows of a source's files, those of NLI (see `read_part`) as triplets from entailment and
    contradiction of one premise, or pairs where none contradicts. nli: which files are of NLI.

    A premise's triplets, wherever its rows are, stand in the file that has it first. UserError
    where there are files of NLI, and no entailment.
    """
    groups: dict[str, tuple[int, list[str], list[str]]] = {}
    for i, rows in enumerate(files):
        for premise, hypothesis, label, _ in rows if nli[i] else ():
            groups.setdefault(premise, (i, [], []))[1 + label // 2].append(hypothesis)
    if any(nli) and not any(entailed for _, entailed, _ in groups.values()):
        raise no_entailment(name)
    found = [[] if is_nli else rows for rows, is_nli in zip(files, nli, strict=True)]
    for premise, (file, entailed, denied) in groups.items():
        for i, positive in enumerate(entailed):
            turn = i % len(denied) if denied else 0  # each entailment starts at another negative
            hard = (denied[turn:] + denied[:turn])[:negatives]
            found[file].append((premise, positive, tuple(hard), ()))
    return found


def no_entailment(name: str) -> UserError:
    return UserError(f"{name} holds no entailment pair; training needs some")
