"""The distinct texts of a training's rows; texts that differ in blanks alone are one."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mipic_llm.data.read.cells import plain
from mipic_llm.data.read.rows import TextSource, key_of
from mipic_llm.data.row_store import StoredRows

DOCUMENT = 0x5851F42D4C957F2D  # sets the key of a text as a document apart from that as a query


class Texts(NamedTuple):
    """The distinct texts: key_n ascending; first_n, where each comes first in the data; read(i) =
    the i-th text; apart: queries and documents have prompts of their own, query_n says which."""

    key_n: np.ndarray
    first_n: np.ndarray
    query_n: np.ndarray
    read: Callable[[int], str]
    apart: bool


def distinct(sources: Sequence[TextSource], *, apart: bool) -> Texts:
    """The texts of all rows, each once (as a query and as a document where `apart`). Memory: some
    24 bytes for each text of a row, 8 of them kept."""
    found = [_each_text(source) for source in sources]
    key, row, place = (np.concatenate(column) for column in zip(*found, strict=True))
    which = np.repeat(np.arange(len(found)), [len(one[0]) for one in found])
    if apart:  # unlabelled text is a query in both views, and stands once in its row
        key = np.where(place > 0, key ^ DOCUMENT, key)
    key_n, first_n = np.unique(key, return_index=True)
    which, row, place = which[first_n], row[first_n], place[first_n]

    def read(i: int) -> str:
        return sources[which[i]].examples[int(row[i])].texts[place[i]]

    return Texts(key_n, first_n, place == 0, read, apart)


def _each_text(source: TextSource) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of all texts of a source's rows in their order: key, row, place in the row."""
    if isinstance(source.examples, StoredRows):
        return source.examples.each_text()
    keys, rows, places = array("q"), array("q"), array("q")
    for n, e in enumerate(source.examples):
        for place, text in enumerate(e.texts):
            keys.append(key_of(plain(text).encode()))
            rows.append(n)
            places.append(place)
    return np.array(keys, np.int64), np.array(rows, np.int64), np.array(places, np.int64)


def some_texts(sources: Sequence[TextSource], most: int) -> list[str]:
    """At most so many distinct texts from rows at even distances over all sources, from each row
    one of its columns in turn."""
    step = max(1, -(-sum(len(source.examples) for source in sources) // max(1, most)))
    found, n = dict[str, None](), 0
    for source in sources:
        for i in range(-n % step, len(source.examples), step):
            texts = source.examples[i].texts
            found[plain(texts[len(found) % len(texts)])] = None
        n += len(source.examples)
    return list(found)
