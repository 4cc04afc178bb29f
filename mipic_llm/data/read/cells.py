"""The cells of a row to texts, numbers and labels; a BadRow says why one cannot be used."""

from __future__ import annotations

import ast
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

_TYPES = {bool: "true/false", int: "a number", float: "a number", dict: "an object", list: "a list",
          str: "text", bytes: "bytes", type(None): "null"}  # fmt: skip
# Columns of hard negatives, beside any pair.
NEGATIVE = re.compile(
    r"((hard[_-]?)?neg(ative)?s?([_-]?(doc|passage|message|text)s?)?|rejected([_-]?responses?)?)"
    r"([_-]?\d+)?", re.IGNORECASE,
)  # fmt: skip
# Columns of how well positives and negatives answer, beside those; a list of `scores` holds both.
SCORES_OF = {
    "positives": ("pos_scores", "pos_score", "positive_scores", "positive_score"),
    "negatives": ("neg_scores", "neg_score", "negative_scores", "negative_score"),
    "both": ("scores", "score"),
}
# What pandas and databases write into a csv cell where there is no text.
NOTHING = {"nan", "NaN", "<NA>", "NULL", "null", "None"}
_NLI_WORDS = {"entailment": 0, "neutral": 1, "contradiction": 2, "-": 1, "": 1}


class BadRow(Exception):
    """This row cannot be used; the message is the reason."""


def type_name(value: Any) -> str:
    return _TYPES.get(type(value), type(value).__name__)


def texts_of(value: Any, column: str) -> list[str]:
    """The texts a cell holds: a string, a passage, a chat, or a list of any of them."""
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise BadRow(f"{column} holds bytes that are not UTF-8 text") from None
    if isinstance(value, str):
        if not value.strip():
            raise BadRow(f"empty {column}")
        if value[0] in "[{" and (what := _as_code(value)):
            raise BadRow(
                f"{column} is {what} written as text ({value[:30]} ...); write one text in a cell, "
                "with a row for each positive and columns negative_1, negative_2 .. for "
                "negatives, or give JSON lines, which have lists"
            )
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise BadRow(f"{column} holds half a unicode character") from None
        return [value]
    if isinstance(value, dict):
        if isinstance(value.get("text"), str):  # a passage
            title = value.get("title")
            return texts_of(f"{title} {value['text']}" if title else value["text"], column)
        if isinstance(value.get("content"), str):  # a message
            return texts_of(value["content"], column)
        raise BadRow(f"{column} is an object without a text")
    if isinstance(value, list):
        if not value:
            raise BadRow(f"empty {column}")
        texts = [text for item in value for text in texts_of(item, column)]
        chat = all(isinstance(item, dict) and "role" in item for item in value)
        return ["\n".join(texts)] if chat else texts
    raise BadRow(f"{column} is {type_name(value)}, text expected")


def _as_code(text: str) -> str | None:
    """A list of texts, or a passage, as Python, numpy or JSON write it."""
    if not re.match(r"[\[{]\s*([\"'{]|None|null|nan)", text):
        return None
    try:
        with warnings.catch_warnings(action="ignore"):
            found = ast.literal_eval(re.sub(r"\b(null|nan)\b", "None", text.strip()))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if isinstance(found, list):
        return "a list" if any(isinstance(item, str | dict) for item in found) else None
    passage = isinstance(found, dict) and not {"text", "content"}.isdisjoint(found)
    return "an object" if passage else None


def absent(value: Any) -> bool:
    """Whether a cell, or an item of a list, holds no negative: null, not a number, blank, empty."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or value == [] or (isinstance(value, float) and math.isnan(value))


def column_texts(row: dict, column: str) -> list[str]:
    if column not in row:
        raise BadRow(f"column {column} is missing (found {', '.join(map(str, row)) or 'none'})")
    return texts_of(row[column], column)


def plain(text: str) -> str:
    """What texts are compared by: all but their blanks."""
    return " ".join(text.split())


def one_text(row: dict, column: str) -> str:
    texts = column_texts(row, column)
    if len(texts) != 1:
        raise BadRow(f"{column} holds {len(texts)} texts, one expected")
    return texts[0]


def negative_columns(names: Iterable[str]) -> list[str]:
    """Those of hard negatives, in the order of their numbers."""
    found = [name for name in names if NEGATIVE.fullmatch(name)]
    return sorted(found, key=lambda name: int((re.findall(r"\d+", name) or ["0"])[0]))


def negative_texts(row: dict, ignored: Sequence[str] = ()) -> Iterator[str | None]:
    """Hard negatives in the order of their columns' numbers; None where one is absent."""
    for name in negative_columns(str(name) for name in row if name not in ignored):
        value = row[name]
        chat = isinstance(value, list) and all(isinstance(v, dict) and "role" in v for v in value)
        for item in value if isinstance(value, list) and value and not chat else [value]:
            if absent(item):
                yield None
            else:
                yield from texts_of(item, name)


def count_negatives(row: dict, columns: Sequence[str]) -> int:
    """How many these columns of a row hold; a chat is one."""
    count = 0
    for value in (row[name] for name in columns):
        chat = isinstance(value, list) and any(isinstance(v, dict) and "role" in v for v in value)
        items = value if isinstance(value, list) and not chat else [value]
        count += sum(not absent(item) for item in items)
    return count


def scores_of(
    row: dict, n_positives: int, negatives: Sequence[str | None], ignored: Sequence[str] = ()
) -> tuple[list[float], list[float]] | None:
    """How well each positive and each negative that is not absent answers the anchor, NaN where the
    row does not say so; None where it says nothing at all.

    Scores of negatives are as many as the negatives, the absent ones counted or not.
    """
    found: dict[str, tuple[str, list[Any]]] = {}
    for kind, names in SCORES_OF.items():
        for name in names:
            value = row.get(name) if name not in ignored else None
            if absent(value) or (kind == "both" and not isinstance(value, list)):
                continue
            if kind in found:
                raise BadRow(f"{found[kind][0]} and {name} both hold scores")
            found[kind] = name, value if isinstance(value, list) else [value]
    if not found:
        return None
    if "both" in found:
        if len(found) > 1:
            raise BadRow(f"{' and '.join(name for name, _ in found.values())} all hold scores")
        name, both = found["both"]
        found = {"positives": (name, both[:n_positives]), "negatives": (name, both[n_positives:])}

    present = [text is not None for text in negatives]

    def numbers(kind: str, there: Sequence[bool]) -> list[float]:
        name, values = found.get(kind, ("", [math.nan] * sum(there)))
        if len(values) == len(there):
            values = [value for value, here in zip(values, there, strict=True) if here]
        if len(values) != sum(there):
            raise BadRow(f"{name} has {len(values)} numbers for {sum(there)} {kind} "
                         f"(--data.ignore_columns {name} leaves them out)")  # fmt: skip
        return [to_number(value, name) for value in values] if name else values

    return numbers("positives", [True] * n_positives), numbers("negatives", present)


def to_number(value: Any, column: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        shown = "null" if value is None else repr(value)[:40]
        raise BadRow(f"{column} is {shown}, a number expected")
    return number


def to_label(value: Any, column: str) -> str:
    """A label as text: 1, 1.0, true and "1" are one."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = "" if value is None else str(value).strip()
    if not text or isinstance(value, list | dict):
        raise BadRow(f"{column} is {value!r}, a label expected")
    return text


def is_nli_word(value: Any) -> bool:
    return isinstance(value, str) and value.strip().lower() in _NLI_WORDS.keys() - {"", "-"}


def nli_label(value: Any, column: str = "label") -> int:
    """0 entailment, 1 neutral or without gold label, 2 contradiction."""
    if value is None:
        return 1
    word = str(value).strip().lower()
    if word in _NLI_WORDS:
        return _NLI_WORDS[word]
    try:
        return {-1: 1, 0: 0, 1: 1, 2: 2}[float(word)]
    except (ValueError, KeyError):
        raise BadRow(
            f"{column} is {value!r}, expected entailment, neutral, contradiction or 0, 1, 2"
        ) from None
