"""Training rows on disk, for more of them than memory holds: a sequence of `Example`, whose
directory row_build.py has written in one pass over the files.

Layout of a directory: texts.bin, manifest.json and arrays. Text t is texts.bin[starts[t] : starts[t
+ 1]], UTF-8, with the key keys[t] (`key_of`) but for its blanks, exact[t] with them, and the score
scores[t] (NaN: none). Row r has the texts texts[rows[r] .. rows[r + 1] - 1]: its anchor, its
positive (labelled rows only), its negatives, the first also[r] of which are positives too;
labels[r] is the text of its label. Texts that are read and not used are in no row. all_texts,
all_rows: the same with every negative that was read, from which the rows are made anew where other
sources know more.
In memory a process has 16 bytes a row, while it plans some 60.
"""

from __future__ import annotations

import copy
import json
import math
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Self, overload

import numpy as np

from mipic_llm.data.layout import Layout, among, chosen, layout_digest, mapped, mixed, spans, sums
from mipic_llm.data.read.cells import plain
from mipic_llm.data.read.rows import Example, TextSource, key_of

MANIFEST = "manifest.json"


class StoredRows(Sequence[Example]):
    """The rows of a finished directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        self.digest: str = self.manifest["digest"]
        self.labelled: bool = self.manifest["labelled"]
        self.has_scores: bool = self.manifest["scores"]
        self._texts = mapped(folder / "texts.bin", np.uint8)
        self._exact = mapped(folder / "exact.bin", np.int64)
        self._starts, self._key, self._score = (
            mapped(folder / f"{name}.npy") for name in ("starts", "keys", "scores")
        )
        self._set(Layout.read(folder))

    def _set(self, layout: Layout) -> Self:
        self._layout, self._text, self._first = layout, layout.texts, layout.rows
        return self

    def _changed(self, layout: Layout) -> StoredRows:
        other = copy.copy(self)._set(layout)
        other.digest = layout_digest(layout, self._exact, self._score if self.has_scores else None)
        return other

    @property
    def several(self) -> bool:
        """Whether a row may have more positives, among its negatives."""
        return self._layout.also is not None

    def same_score(self) -> bool:
        """Whether all scores are one and the same."""
        known = self._score[self._text][self._first[:-1] + 1]
        return bool(known.min() == known.max())

    def negatives(self) -> np.ndarray:
        """How many each row has, other positives not counted."""
        also = 0 if self._layout.also is None else self._layout.also
        return np.diff(self._first) - 2 - also if self.labelled else np.zeros(len(self), np.int64)

    def label_keys(self) -> np.ndarray:
        """The key of each row's label."""
        assert self._layout.labels is not None, "rows without labels"
        return self._key[self._layout.labels]

    def known_pairs(self) -> np.ndarray:
        """`mixed` of each row's anchor and positive, each once, ascending."""
        if not self.labelled or self.manifest["scored"]:
            return np.zeros(0, np.int64)
        whole = Layout.read(self.folder, "all_")
        return (self._layout if whole.texts is None else whole).pairs(self._key)

    def beside(self, known: np.ndarray) -> tuple[StoredRows, int]:
        """These rows in a run with other sources, which have the pairs of anchor and positive
        `known` (see `known_pairs`). -> also how many negatives are left out."""
        whole = Layout.read(self.folder, "all_")
        if whole.texts is None or not len(known):
            return self, self.manifest["n_false"]
        if not any(self._wrong(known, *span) for span in spans(len(self))):
            return self, self.manifest["n_false"]
        known = np.union1d(known, self.known_pairs())
        made, n_false = chosen(whole, self._key, known, self.manifest["negatives"],
                               self.manifest["together"])  # fmt: skip
        return self._changed(made), n_false

    def _wrong(self, known: np.ndarray, start: int, stop: int) -> bool:
        """Whether a negative of these rows makes a known pair with its anchor."""
        first = self._first[start : stop + 1] - self._first[start]
        key = self._key[self._text[self._first[start] : self._first[stop]]]
        row = np.repeat(np.arange(stop - start), np.diff(first))
        hard = np.arange(len(key)) - first[row] > 1
        return bool(among(mixed(key[first[row]], key)[hard], known).any())

    def without(self, gone: np.ndarray, keys: np.ndarray) -> StoredRows:
        """The rows that are not `gone` (a bool for each), numbered anew; their negatives without
        the texts that have one of these keys."""
        row, place = self._layout.places()
        stays = (place < 2) | ~np.isin(self._key[self._text], keys)
        return self._changed(self._layout.only(np.flatnonzero(~gone), stays))

    def __len__(self) -> int:
        return len(self._first) - 1

    @overload
    def __getitem__(self, row: int) -> Example: ...
    @overload
    def __getitem__(self, row: slice) -> list[Example]: ...
    def __getitem__(self, row: int | slice) -> Example | list[Example]:
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        row = range(len(self))[row]
        places = self._text[self._first[row] : self._first[row + 1]]
        texts = self._read(places)
        if not self.labelled:
            own = self._layout.labels
            label = None if own is None else self._read(own[row : row + 1])[0]
            return Example(texts[0], None, (), row, (), label)
        scores = tuple(self._score[places[1:]].tolist()) if self.has_scores else ()
        scores = () if all(map(math.isnan, scores)) else scores
        also = 0 if self._layout.also is None else int(self._layout.also[row])
        return Example(texts[0], texts[1], tuple(texts[2:]), row, scores, None, also)

    def _read(self, places: np.ndarray) -> list[str]:
        bounds = zip(self._starts[places], self._starts[places + 1], strict=True)
        return [bytes(self._texts[a:b]).decode() for a, b in bounds]

    def pair_keys(self) -> np.ndarray:
        """(2, rows) int64: the keys of each row's anchor and positive (the same of bare text)."""
        first = self._first[:-1]
        return self._key[np.stack([self._text[first], self._text[first + self.labelled]])]

    def each_text(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of all texts in their order, int64: key, row, place in the row."""
        return self._key[self._text], *self._layout.places()

    def rows_with(self, keys: np.ndarray) -> np.ndarray:
        """(rows,) bool: which rows have a text with one of these keys."""
        found = np.zeros(len(self), bool)
        for start, stop in spans(len(self)):
            first = self._first[start : stop + 1]
            hit = np.isin(self._key[self._text[first[0] : first[-1]]], keys)
            found[start:stop] = np.add.reduceat(hit, first[:-1] - first[0], dtype=np.int64) > 0
        return found


def digest_of(examples: Sequence[Example]) -> str:
    """What names the content of rows, in memory or on disk: texts, scores, labels, and which
    negatives are positives."""
    if isinstance(examples, StoredRows):
        return examples.digest
    exact, per_row, scores, also = array("q"), array("q"), array("d"), array("q")
    for e in examples:
        own = e.texts
        exact.extend(key_of(text.encode()) for text in own)
        per_row.append(len(own))
        scores.extend((math.nan, *(e.scores or [math.nan] * (len(own) - 1))))
        also.append(e.also)
    n, labels = len(exact), None
    if examples[0].label is not None:
        exact.extend(key_of(str(e.label).encode()) for e in examples)
        labels = np.arange(n, len(exact))
    layout = Layout(np.arange(n), sums(np.array(per_row)), np.array(also), labels)
    return layout_digest(layout, np.array(exact), np.array(scores))


def text_keys(examples: Sequence[Example]) -> np.ndarray:
    """(2, rows) int64: the keys of each row's anchor and positive (the same of bare text)."""
    if isinstance(examples, StoredRows):
        return examples.pair_keys()
    found = [key_of(plain(text).encode()) for e in examples for text in (e.anchor, e.second)]
    return np.array(found, np.int64).reshape(-1, 2).T


def pairs_of(sources: Sequence[TextSource]) -> np.ndarray:
    """`mixed` of each anchor and positive of sources in memory, each once, ascending."""
    some = [[e for e in s.examples if e.positive is not None] for s in sources if not s.scored]
    also = [
        e._replace(positive=text) for rows in some for e in rows for text in e.negatives[: e.also]
    ]
    return np.unique(mixed(*text_keys([*also, *(e for rows in some for e in rows)])))


class Pairs:
    """Whether (anchor, positive), but for blanks, is among some `known_pairs`."""

    def __init__(self, known: np.ndarray) -> None:
        self.known = known

    def __contains__(self, pair: tuple[str, str]) -> bool:
        keys = [np.array([key_of(text.encode())], np.int64) for text in pair]
        return bool(among(mixed(*keys), self.known)[0])
