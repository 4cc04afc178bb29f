"""The distinct texts of a training's rows; texts that differ in blanks alone are one."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mipic_llm.data.read.cells import plain
from mipic_llm.data.read.rows import TextSource, key_of
from mipic_llm.data.row_store import StoredRows

# Kinds of text, by their prompts: the first texts of rows, the others, those of scored pairs and of
# labelled text. What sets the key of a text as one of them apart from that as a query.
MARKS = {"query": 0, "document": 0x5851F42D4C957F2D, "symmetric": 0x2545F4914F6CDD1D}


class Texts(NamedTuple):
    """The distinct texts: key_n ascending; first_n, where each comes first in the data; read(i) =
    the i-th text; kind_n: of which kind each is, a place in MARKS; marks: by kind."""

    key_n: np.ndarray
    first_n: np.ndarray
    kind_n: np.ndarray
    read: Callable[[int], str]
    marks: Mapping[str, int]


def kinds(source: TextSource) -> tuple[str, str]:
    """Of a source's first texts and of its others, as the student's tokens have them; unlabelled
    text is a query in both views, and stands once in its row."""
    return ("symmetric", "symmetric") if source.symmetric else ("query", "document")


def marks_of(prompts: Mapping[str, str]) -> dict[str, int]:
    """A mark for each kind of text; one for kinds that have the same prompt."""
    first = {prompt: MARKS[kind] for kind, prompt in reversed([*prompts.items()])}
    return {kind: first[prompt] for kind, prompt in prompts.items()}


def distinct(sources: Sequence[TextSource], marks: Mapping[str, int] | None = None) -> Texts:
    """The texts of all rows, each once, or once for each mark of its kind. Memory: some 24 bytes
    for each text of a row, 8 of them kept."""
    marks = marks or dict.fromkeys(MARKS, 0)
    found, sides = [], []
    for source in sources:
        key, row, place = _each_text(source)
        here = [[*MARKS].index(kind) for kind in kinds(source)]
        sides.append(np.where(place > 0, np.int8(here[1]), np.int8(here[0])))
        found.append((key ^ np.array([marks[kind] for kind in MARKS])[sides[-1]], row, place))
    key, row, place = (np.concatenate(column) for column in zip(*found, strict=True))
    which = np.repeat(np.arange(len(found)), [len(one[0]) for one in found])
    key_n, first_n = np.unique(key, return_index=True)
    which, row, place = which[first_n], row[first_n], place[first_n]
    kind_n = np.concatenate(sides)[first_n]

    def read(i: int) -> str:
        return sources[which[i]].examples[int(row[i])].texts[place[i]]

    return Texts(key_n, first_n, kind_n, read, marks)


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
