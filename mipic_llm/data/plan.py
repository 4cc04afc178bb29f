"""Which rows make which batch: a pure function of (seed, epoch, index), so nothing but two
integers has to be saved to resume.

A global batch (batch_size * world_size rows) comes from one source. Ranks take contiguous slices
of it, so one rank with batch 2b and two ranks with batch b train on the same global batches.
Within a global batch no text is anchor or positive of two rows: such a row would be told that a
right answer is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mipic_llm.data.read.formats import Example, TextSource
from mipic_llm.errors import UserError

_INTERLEAVE = 2**32 - 1  # stands where passes have the source's number
_TRIES = 64  # random partners tried per row before it is left out


class BatchPlan:
    """The order of global batches over all epochs.

    steps_per_epoch: global batches per epoch, the same in every epoch.
    Weights: a source of weight w is passed over w times per epoch (0.5 = each half in turn, so
    two epochs see every row once). Sources' batches are interleaved in random order.
    Rows of a pass that fill no batch (the tail, and texts repeated too often to be kept apart) are
    left out, others in each pass; `report` counts them.
    Raises UserError when a source cannot fill one global batch. Memory: 24 bytes per row.
    """

    def __init__(
        self, sources: Sequence[TextSource], batch_size: int, world_size: int, seed: int
    ) -> None:
        self.batch_size, self.world_size = batch_size, world_size
        rows = batch_size * world_size
        seed %= 2**63  # numpy takes no negative seeds
        self._seed, self._names = seed, [source.name for source in sources]
        self._passes = [_Passes(s, rows, (seed, i)) for i, s in enumerate(sources)]
        self._steps: list[int] = []
        for source, passes in zip(sources, self._passes, strict=True):
            self._steps.append(round(source.weight * passes.n_batches))
            if not self._steps[-1]:
                raise UserError(
                    f"{source.name}: weight {source.weight:g} leaves less than one batch of {rows} "
                    "rows per epoch; raise the weight or lower train.batch_size"
                )
        self.steps_per_epoch = sum(self._steps)
        self._order: tuple[int, np.ndarray, np.ndarray] | None = None

    def batch(self, epoch: int, index: int) -> list[tuple[int, int]]:
        """Global batch `index` of `epoch`: batch_size * world_size of (source, example index)."""
        if not 0 <= index < self.steps_per_epoch:
            raise IndexError(f"step {index} of an epoch of {self.steps_per_epoch}")
        source, nth = self._interleaved(epoch, index)
        nth += epoch * self._steps[source]
        rows = self._passes[source].batch(*divmod(nth, self._passes[source].n_batches))
        return [(source, row) for row in rows.tolist()]

    def local(self, batch: Sequence, rank: int) -> Sequence:
        """This rank's slice of a global batch: rows [rank * b : (rank + 1) * b]."""
        return batch[rank * self.batch_size : (rank + 1) * self.batch_size]

    def steps(self, epoch: int = 0, cursor: int = 0) -> Iterator[tuple[int, int]]:
        """(epoch, index) from a position on, without end; the trainer stops when it is done."""
        while True:
            yield from ((epoch, index) for index in range(cursor, self.steps_per_epoch))
            epoch, cursor = epoch + 1, 0

    def report(self) -> str:
        """One line: steps, and the rows of each source that a pass leaves out."""
        rows = self.batch_size * self.world_size
        parts = []
        for name, steps, order in zip(self._names, self._steps, self._passes, strict=True):
            text = f"{name} {steps:,}"
            if order.n_dropped:
                text += f" ({order.n_dropped:,} of {order.n_rows:,} rows left out per pass"
                text += f", {order.n_clashing:,} by repeated text)" if order.n_clashing else ")"
            parts.append(text)
        return f"{self.steps_per_epoch:,} steps per epoch of {rows:,} rows: {', '.join(parts)}"

    def _interleaved(self, epoch: int, index: int) -> tuple[int, int]:
        """-> (source of this step, how many steps of that source came before in this epoch)."""
        if self._order is None or self._order[0] != epoch:
            which = np.repeat(np.arange(len(self._steps)), self._steps)
            if len(self._steps) > 1:
                rng = np.random.default_rng((self._seed, _INTERLEAVE, epoch))
                which = rng.permutation(which)
            nth = np.empty_like(which)
            for source, steps in enumerate(self._steps):
                nth[which == source] = np.arange(steps)
            self._order = (epoch, which, nth)
        return int(self._order[1][index]), int(self._order[2][index])


class _Passes:
    """Shuffled passes over one source, each cut into n_batches clash-free batches."""

    def __init__(self, source: TextSource, rows: int, seed: tuple[int, int]) -> None:
        self._rows, self._seed = rows, seed
        self.n_rows = len(source.examples)
        if self.n_rows < rows:
            raise UserError(
                f"{source.name} has {self.n_rows:,} rows, fewer than one global batch of {rows:,} "
                "(train.batch_size x ranks); give more data or lower train.batch_size"
            )
        self._codes = _text_codes(source.examples)
        anchors, positives = self._codes
        self._clashes = self.n_rows + (anchors != positives).sum() > self._codes.max() + 1
        # Rows are dealt out by the column that repeats more.
        self._group = max(self._codes, key=lambda column: (np.bincount(column) ** 2).sum())
        first = None
        self.n_batches = self._upper_bound()
        while self.n_batches and (first := self._arrange(0)) is None:
            # Texts are so entangled that the bound cannot be met; a few fewer batches can be.
            self.n_batches -= max(1, self.n_batches // 100)
        if first is None:
            raise UserError(
                f"{source.name}: its {self.n_rows:,} rows repeat so few texts that no global batch "
                f"of {rows:,} without a repeated text exists; lower train.batch_size"
            )
        self._first = first
        self._kept: dict[int, np.ndarray] = {}
        self.n_dropped = self.n_rows - self.n_batches * rows
        # The plain tail is what any cutting into batches would lose.
        self.n_clashing = self.n_dropped - self.n_rows % rows

    def batch(self, nth_pass: int, index: int) -> np.ndarray:
        if nth_pass not in self._kept:
            arranged = self._first if nth_pass == 0 else self._arrange(nth_pass)
            if arranged is None:  # this order did not work out: pass 0's batches, newly ordered
                arranged = self._rng(nth_pass).permutation(self._first)
            self._kept = {nth_pass: arranged}
        return self._kept[nth_pass][index]

    def _rng(self, nth_pass: int) -> np.random.Generator:
        return np.random.default_rng((*self._seed, nth_pass))

    def _upper_bound(self) -> int:
        """Most batches there can be: a text that k rows share fills at most one row of each."""
        most = self.n_rows // self._rows
        for column in self._codes if self._clashes else ():
            count, low = np.bincount(column), 0
            while low < most:  # what is feasible for n batches is feasible for fewer
                middle = (low + most + 1) // 2
                if np.minimum(count, middle).sum() >= middle * self._rows:
                    low = middle
                else:
                    most = middle - 1
        return most

    def _arrange(self, nth_pass: int) -> np.ndarray | None:
        """(n_batches, rows) row numbers in the order of this pass, or None where that failed."""
        rng, m, size = self._rng(nth_pass), self.n_batches, self._rows
        order = rng.permutation(self.n_rows)
        if not self._clashes:
            return order[: m * size].reshape(m, size)
        # Rows that share a text stand together (groups in random order) and are dealt out round
        # the batches like cards, so that they meet in one batch only when they are more than m.
        rank = rng.permutation(self._group.max() + 1)
        order = order[np.argsort(rank[self._group[order]], kind="stable")]
        return _deal(order, self._codes, m, size, rng)


def _deal(
    order: np.ndarray, codes: np.ndarray, m: int, size: int, rng: np.random.Generator
) -> np.ndarray | None:
    """Rows of `order` round m batches of `size`; who clashes is placed elsewhere. O(rows)."""
    batch = np.arange(len(order)) % m
    keys = (batch * (codes.max() + 1) + codes[:, order]).T.ravel()  # both texts of row 0, row 1 ..
    seen_first = np.zeros(len(keys), dtype=bool)
    seen_first[np.unique(keys, return_index=True)[1]] = True
    seen_first = seen_first.reshape(-1, 2)
    same = codes[0, order] == codes[1, order]
    stays = seen_first[:, 0] & (seen_first[:, 1] | same)

    by_batch = np.flatnonzero(stays)[np.argsort(batch[stays], kind="stable")]
    count = np.bincount(batch[by_batch], minlength=m)
    slot = np.arange(len(by_batch)) - np.repeat(np.cumsum(count) - count, count)
    dealt = np.full((m, size), -1)
    seated = slot < size
    dealt[batch[by_batch[seated]], slot[seated]] = order[by_batch[seated]]
    stays[by_batch[~seated]] = False
    return _fill(dealt, order[~stays].tolist(), codes, rng)


def _fill(
    dealt: np.ndarray, waiting: list[int], codes: np.ndarray, rng: np.random.Generator
) -> np.ndarray | None:
    """Puts waiting rows into the holes (-1), straight or by a swap; None if a hole stays."""

    def clashes(row: int, batch: int) -> np.ndarray:  # slots of the batch that share a text
        there = dealt[batch]
        hit = (codes[:, there] == codes[0, row]) | (codes[:, there] == codes[1, row])
        return np.flatnonzero(hit.any(0) & (there >= 0))

    open_batches = np.flatnonzero((dealt < 0).any(1)).tolist()
    left = []
    for row in waiting:
        for batch in open_batches[:_TRIES]:
            if not len(clashes(row, batch)):
                hole = np.flatnonzero(dealt[batch] < 0)
                dealt[batch, hole[0]] = row
                if len(hole) == 1:
                    open_batches.remove(batch)
                break
        else:
            left.append(row)
    for batch, hole in np.argwhere(dealt < 0).tolist():
        for _ in range(_TRIES * 4):
            which, other = int(rng.integers(len(left))), int(rng.integers(len(dealt)))
            slots = clashes(left[which], other)
            if other == batch or len(slots) > 1:
                continue
            slot = int(slots[0]) if len(slots) else int(rng.integers(dealt.shape[1]))
            moved = int(dealt[other, slot])
            if moved >= 0 and not len(clashes(moved, batch)):
                dealt[batch, hole], dealt[other, slot] = moved, left.pop(which)
                break
        else:
            return None
    return dealt


def _text_codes(examples: Sequence[Example]) -> np.ndarray:
    """(2, rows) numbers of the anchor's and the positive's text; equal texts, equal numbers."""
    known: dict[str, int] = {}
    positives = [row.anchor if row.positive is None else row.positive for row in examples]
    columns = ([row.anchor for row in examples], positives)
    return np.array([[known.setdefault(text, len(known)) for text in c] for c in columns])
