"""The cells of a row to texts, numbers and labels; a BadRow says why one cannot be used."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

_TYPES = {bool: "true/false", int: "a number", float: "a number", dict: "an object", list: "a list"}
_NLI_WORDS = {"entailment": 0, "neutral": 1, "contradiction": 2, "-": 1, "": 1}


class BadRow(Exception):
    """This row cannot be used; the message is the reason."""


def type_name(value: Any) -> str:
    return "null" if value is None else _TYPES.get(type(value), "text")


def texts_of(value: Any, column: str) -> list[str]:
    """The texts a cell holds: a string, a passage, a chat, or a list of any of them."""
    if isinstance(value, str):
        if not value.strip():
            raise BadRow(f"empty {column}")
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


def column_texts(row: dict, column: str) -> list[str]:
    if column not in row:
        raise BadRow(f"column {column} is missing (found {', '.join(map(str, row)) or 'none'})")
    return texts_of(row[column], column)


def one_text(row: dict, column: str) -> str:
    texts = column_texts(row, column)
    if len(texts) != 1:
        raise BadRow(f"{column} holds {len(texts)} texts, one expected")
    return texts[0]


def negative_texts(row: dict, pattern: str | None) -> Iterator[str]:
    """Hard negatives in the order of their columns' numbers; absent ones are left out."""
    names = [name for name in row if pattern and re.fullmatch(pattern, str(name))]
    for name in sorted(names, key=lambda name: int((re.findall(r"\d+", name) or ["0"])[0])):
        if row[name] not in (None, []):
            yield from texts_of(row[name], name)


def to_number(value: Any, column: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        shown = "null" if value is None else repr(value)[:40]
        raise BadRow(f"{column} is {shown}, a number expected")
    return number


def nli_label(value: Any) -> int:
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
            f"label is {value!r}, expected entailment, neutral, contradiction or 0, 1, 2"
        ) from None
