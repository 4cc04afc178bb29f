"""Shuffled passes over one source, each cut into batches in which no text is twice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mipic_llm.data.deal import deal_to_batches, stable_order
from mipic_llm.data.layout import in_order
from mipic_llm.data.read.cells import plain
from mipic_llm.data.read.rows import Example, TextSource
from mipic_llm.data.row_store import StoredRows
from mipic_llm.errors import UserError


class Passes:
    """Shuffled passes over one source, each cut into n_batches clash-free batches."""

    def __init__(self, source: TextSource, rows: int, seed: tuple[int, int]) -> None:
        self._rows, self._seed = rows, seed
        self.n_rows = len(source.examples)
        if self.n_rows < rows:
            raise UserError(
                f"{source.name} has {self.n_rows:,} rows, fewer than one global batch of {rows:,} "
                "(train.batch_size x ranks); give more data or lower train.batch_size"
            )
        # Scored pairs are compared by their scores: a text may be in any number of them.
        rows_apart = [] if source.scored else source.examples
        self._codes = _text_codes(rows_apart or source.examples[:1])
        anchors, positives = self._codes
        self._clashes = len(rows_apart) + (anchors != positives).sum() > self._codes.max() + 1
        # Rows are dealt out by the column that repeats more.
        self._group = max(self._codes, key=lambda column: (np.bincount(column) ** 2).sum())
        first = self._most(0, np.arange(self.n_rows))
        self.n_batches = len(first)
        if not self.n_batches:
            raise UserError(
                f"{source.name}: its {self.n_rows:,} rows repeat so few texts that no global batch "
                f"of {rows:,} without a repeated text exists; lower train.batch_size"
            )
        self._first = first
        self._kept: dict[int, np.ndarray] = {}
        self._rest: tuple[int, np.ndarray, np.ndarray] | None = None
        self.n_dropped = self.n_rows - self.n_batches * rows
        # The plain tail is what any cutting into batches would lose.
        self.n_clashing = self.n_dropped - self.n_rows % rows

    def batch(self, nth_pass: int, index: int) -> np.ndarray:
        """The index counts to n_batches in every pass: one with fewer lacks the first."""
        return self._batches(nth_pass)[index - self.n_batches + self.length(nth_pass)]

    def length(self, nth_pass: int) -> int:
        """Batches of a pass."""
        rest = self._rest
        return len(rest[2]) if rest and rest[0] == nth_pass else self.n_batches

    def leave(self, nth_pass: int, rows: np.ndarray) -> None:
        """Leave nothing but these rows to a pass: all others it has had."""
        if len(rows) < self.n_rows:
            self._rest = nth_pass, rows, self._most(nth_pass, rows)[: self.n_batches]

    def unseen(self, nth_pass: int, index: int) -> np.ndarray:
        """The rows of a pass that its batches before `index` do not have."""
        rest = self._rest
        rows = rest[1] if rest and rest[0] == nth_pass else np.arange(self.n_rows)
        n = index - self.n_batches + self.length(nth_pass)
        return np.setdiff1d(rows, self._batches(nth_pass)[:n])

    def _batches(self, nth_pass: int) -> np.ndarray:
        if self._rest and self._rest[0] == nth_pass:
            return self._rest[2]
        if nth_pass not in self._kept:
            arranged = self._first
            if nth_pass:
                arranged = self._arrange(nth_pass, self.n_batches, np.arange(self.n_rows))
            if arranged is None:  # this order did not work out: pass 0's batches, newly ordered
                arranged = self._rng(nth_pass).permutation(self._first)
            self._kept = {nth_pass: arranged}
        return self._kept[nth_pass]

    def _most(self, nth_pass: int, rows: np.ndarray) -> np.ndarray:
        """(n, rows of a batch): as many batches of these rows as can be."""
        n = self._upper_bound(rows)
        while n and (found := self._arrange(nth_pass, n, rows)) is None:
            # Texts are so entangled that the bound cannot be met; a few fewer batches can be.
            n -= max(1, n // 100)
        return found if n else np.empty((0, self._rows), dtype=int)

    def _rng(self, nth_pass: int) -> np.random.Generator:
        return np.random.default_rng((*self._seed, nth_pass))

    def _upper_bound(self, rows: np.ndarray) -> int:
        """Most batches there can be: a text that k rows share fills at most one row of each."""
        most = len(rows) // self._rows
        for column in self._codes[:, rows] if self._clashes else ():
            count, low = np.bincount(column), 0
            while low < most:  # what is feasible for n batches is feasible for fewer
                middle = (low + most + 1) // 2
                if np.minimum(count, middle).sum() >= middle * self._rows:
                    low = middle
                else:
                    most = middle - 1
        return most

    def _arrange(self, nth_pass: int, m: int, rows: np.ndarray) -> np.ndarray | None:
        """(m, size) of these row numbers in the order of this pass, or None where that failed."""
        rng, size = self._rng(nth_pass), self._rows
        order = rng.permutation(self.n_rows)
        if len(rows) < self.n_rows:
            order = order[np.isin(order, rows)]
        if not self._clashes:
            return order[: m * size].reshape(m, size)
        # Rows that share a text stand together (groups in random order) and are dealt out round
        # the batches like cards, so that they meet in one batch only when they are more than m.
        rank = rng.permutation(self._group.max() + 1)
        order = order[stable_order(rank[self._group[order]])]
        return deal_to_batches(order, self._codes, m, size, rng)


def _text_codes(examples: Sequence[Example]) -> np.ndarray:
    """(2, rows) numbers of the anchor's and the positive's text, in the order in which they come;
    texts that are equal but for their blanks have one number."""
    if isinstance(examples, StoredRows):
        pairs = examples.pair_keys()
        return in_order(pairs.ravel()).reshape(pairs.shape)
    known: dict[str, int] = {}
    columns = ([row.anchor for row in examples], [row.second for row in examples])
    return np.array([[known.setdefault(plain(t), len(known)) for t in c] for c in columns])
