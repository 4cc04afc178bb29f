"""Labelled text: the texts of one label are positives of one another, never negatives."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np

from mipic_llm.data.read.rows import Example, key_of
from mipic_llm.data.row_store import StoredRows


class Labels:
    """Which rows of a source have the same label. Memory: 8 bytes a row."""

    def __init__(self, examples: Sequence[Example]) -> None:
        if isinstance(examples, StoredRows):
            labels = examples.label_keys()
        else:
            labels = np.array([key_of(str(e.label).encode()) for e in examples], np.int64)
        known, code = np.unique(labels, return_inverse=True)
        self._code = code.astype(np.int32)
        self._sorted = np.argsort(self._code, kind="stable").astype(np.int32)
        self._starts = np.searchsorted(self._code, np.arange(len(known) + 1), sorter=self._sorted)

    def partner(self, row: int, seed: tuple[int, ...]) -> int:
        """Another row with the label of this one, uniform; a pure function of its arguments. The
        row itself where no other is left (a split for validation may take the others)."""
        first, last = self._starts[self._code[row]], self._starts[self._code[row] + 1]
        if last - first == 1:
            return row
        n = first + Random(repr((*seed, row))).randrange(int(last - first) - 1)
        own = self._sorted[first:last].searchsorted(row)  # ascending within a label
        return int(self._sorted[n + (n >= first + own)])
