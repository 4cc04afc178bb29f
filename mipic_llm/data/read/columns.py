"""What the columns of a file mean, from its first row (the list in formats.py), and what a column
that looks like a label may not mean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mipic_llm.data.read import cells
from mipic_llm.data.read.cells import BadRow
from mipic_llm.data.read.folders import suffix_of
from mipic_llm.errors import UserError


class Columns(NamedTuple):
    """Which columns hold what; kind: their names for the report."""

    kind: str
    anchor: str
    positive: str | None
    nli: str | None = None  # the column of NLI labels
    plain: frozenset[str] = frozenset()  # columns of the first row that are no labels
    score: str | None = None  # of scored pairs
    label: str | None = None  # of labelled text

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Columns:
        """From what `plainly` gave."""
        return cls(**{**table, "plain": frozenset(table["plain"])})

    def plainly(self) -> dict[str, Any]:
        """For JSON."""
        return self._asdict() | {"plain": sorted(self.plain)}

    @property
    def teaches(self) -> str:
        """What kind of rows these are, in words."""
        if self.positive:
            return "scored pairs" if self.score else "labelled rows"
        return "text with labels" if self.label else "unlabelled text"


PAIRS = (
    ("anchor", "positive"), ("query", "pos"), ("query", "positive"), ("query", "positive_passages"),
    ("query", "pos_doc"), ("question", "pos_doc"), ("messages", "positive_messages"),
    ("question", "positive"), ("anchor", "positives"), ("query", "positives"),
    ("question", "positives"),
    ("query", "response"), ("query", "answer"), ("question", "answer"), ("query", "document"),
    ("query", "passage"), ("sentence1", "sentence2"), ("text1", "text2"),
)  # fmt: skip
SCORES = ("score", "label", "similarity_score", "similarity")
_STS = (("sentence1", "sentence2"), ("text1", "text2"))
NLI = (("premise", "hypothesis"), ("sentence1", "sentence2"))
_ACCEPTED = " | ".join(["text", *map(", ".join, PAIRS[:3]), "premise, hypothesis, label"])
SCORE_COLUMNS = {name for names in cells.SCORES_OF.values() for name in names}
# A word of these in a column's name makes it one of labels or scores.
_LABEL = {
    "label", "labels", "gold", "score", "scores", "similarity", "sim", "duplicate", "duplicates",
    "relevance", "relevant", "grade", "rating", "judgment", "judgement", "paraphrase", "match",
    "relatedness", "entailment", "equivalent",
}  # fmt: skip


def detect(
    row: dict, path: str, ignore: Sequence[str], score_column: str | None, label_column: str | None
) -> Columns:
    """What a file means that begins with this row."""
    have = [name for name in map(str, row) if name not in ignore]
    for anchor, positive in NLI:
        label = next((name for name in ("gold_label", "label") if name in have), None)
        words = label == "gold_label" or anchor == "premise" or cells.is_nli_word(row.get("label"))
        if score_column not in have and label and words and {anchor, positive} <= set(have):
            return Columns("/".join([anchor, positive, label]), anchor, positive, label)
    for anchor, positive in PAIRS:
        if not {anchor, positive} <= set(have):
            continue
        hard = cells.negative_columns(have)
        if score := _score_column(row, (anchor, positive), have, score_column):
            if hard:
                raise UserError(
                    f"{path}: {score} scores pairs, and there are negatives ({hard[0]}) too; leave "
                    "one of them out with --data.ignore_columns"
                )
            kind = "/".join([anchor, positive, score])
            return Columns(kind, anchor, positive, score=score)
        shown = hard if len(hard) < 3 else [hard[0], "..", hard[-1]]
        plain = frozenset(str(name) for name, v in row.items() if not _is_label(str(name), v))
        found = Columns("/".join([anchor, positive, *shown]), anchor, positive, None, plain)
        check_labels(path, found, have)
        return found
    for name in ("text", "sentence") if {"anchor", "query", "question"}.isdisjoint(have) else ():
        if name in have and label_column in have:
            return Columns(f"labelled text {name}/{label_column}", name, None, label=label_column)
        if name in have:
            return Columns(f"unlabelled {name}", name, None)
    own = {name.lower(): name for name in reversed(have)}  # Question, Answer
    if len(own) == len(have) and any(low != name for low, name in own.items()):
        hard = [own[name] for name in cells.negative_columns(list(own))]
        small = {low: row[name] for low, name in own.items()}
        told = [name and name.lower() for name in (score_column, label_column)]
        if _known(small) and all(name == name.lower() for name in hard):
            try:
                found = detect(small, path, (), *told)
            except UserError:  # which speaks of columns by other names than they have
                raise _unknown(path, have) from None
            named = {key: own.get(getattr(found, key), getattr(found, key))
                     for key in ("anchor", "positive", "nli", "score", "label")}  # fmt: skip
            return found._replace(**named, plain=frozenset(own[name] for name in found.plain))
    raise _unknown(path, have)


def _unknown(path: str, have: Sequence[str]) -> UserError:
    texts = any(name.isdigit() or len(name.split()) > 3 for name in have)
    if texts and suffix_of(Path(path)) in (".csv", ".tsv"):
        return UserError(
            f"{path}: its first line names no columns but holds texts or ids ({have[0][:40]}); "
            "write one above it, such as anchor, positive, negative (ids alone are no texts: join "
            "them with their texts first)"
        )
    if {"query-id", "corpus-id"} <= set(have):
        return UserError(
            f"{path}: judgements in BEIR's layout without their texts; put them into a folder "
            "qrels beside corpus.jsonl and queries.jsonl, and give the folder of all three"
        )
    return UserError(
        f"{path}: found columns {', '.join(have) or 'none'}; rename them to: {_ACCEPTED} (others: "
        "docs/reference/formats.md), or say in a recipe which is which: data.sources with columns: "
        "{anchor: .., positive: ..}"
    )


def _known(names: Mapping[str, Any]) -> bool:
    return any(set(pair) <= set(names) for pair in [*PAIRS, *NLI]) or not {"text", "sentence"
        }.isdisjoint(names)  # fmt: skip


def check_labels(path: str, columns: Columns, names: Sequence[str]) -> None:
    """UserError where pairs without negatives have a label or score."""
    unlike = (n for n in names if n not in columns.plain and _is_label(n, None))
    if not cells.negative_columns(names) and (score := next(unlike, None)):
        raise unclear(path, columns, score)


def unclear(path: str, columns: Columns, score: str, why: str = "") -> UserError:
    return UserError(
        f"{path}: {columns.anchor}, {columns.positive}, {score} are scored pairs{why}: "
        f"--data.score_column {score} trains on them as such, a larger {score} = more alike; "
        f"--data.ignore_columns {score} trains on all pairs as if they belonged together; "
        "data.validation evaluates on them"
    )


def _score_column(
    row: dict, pair: tuple[str, str], have: Sequence[str], given: str | None
) -> str | None:
    """The column that makes these scored pairs: the one that was given, or one of STS."""
    if given in have:
        return given
    if pair not in _STS or cells.negative_columns(have):
        return None
    found = [name for name in SCORES if name in have]
    number = found == ["label"] and isinstance(row["label"], float | int | str)
    if number and not isinstance(row["label"], bool):
        try:
            cells.to_number(row["label"], "label")
        except BadRow:
            return None
        return "label"
    return next((name for name in found if name != "label"), None)


def _is_label(name: str, value: Any) -> bool:
    """Whether a column looks like one of labels or scores: by its name, and its first cell."""
    words = re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())
    if name in SCORE_COLUMNS - {"scores", "score"} or isinstance(value, list | dict):
        return False
    if isinstance(value, str) and len(value.split()) > 3:
        return False
    truth = value is None or isinstance(value, bool) or str(value) in ("0", "1")
    return bool(_LABEL & set(words)) or (words[:1] == ["is"] and truth)
