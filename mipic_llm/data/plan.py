"""Which rows make which batch: a pure function of (seed, epoch, index), so nothing but two
integers has to be saved to resume.

A global batch (batch_size * world_size rows) comes from one source. Ranks take contiguous slices
of it, so one rank with batch 2b and two ranks with batch b train on the same global batches.
A resumed run may have another size of global batch: then the earlier sizes belong to it as well.
Within a global batch no text is anchor or positive of two rows: such a row would be told that a
right answer is wrong. Scored pairs may share texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

import numpy as np

from mipic_llm.data.passes import Passes
from mipic_llm.data.read.rows import TextSource
from mipic_llm.errors import UserError

_INTERLEAVE = 2**32 - 1  # stands where passes have the source's number


class BatchPlan:
    """The order of global batches over all epochs.

    steps_per_epoch: global batches per epoch, the same in every epoch.
    Weights: a source of weight w is passed over w times per epoch (0.5 = each half in turn, so
    two epochs see every row once). Sources' batches are interleaved in random order.
    Rows of a pass that fill no batch (the tail, and texts repeated too often to be kept apart) are
    left out, others in each pass; `report` counts them.
    past: earlier sizes of the global batch in this run, each with the step at which it ended. The
    running pass then goes on with batches of the new size of the rows that it has not had.
    Raises UserError when a source cannot fill one global batch. Memory: 24 bytes per row.
    """

    def __init__(
        self, sources: Sequence[TextSource], batch_size: int, world_size: int, seed: int,
        past: Sequence[tuple[int, int]] = (),
    ) -> None:  # fmt: skip
        self.batch_size, self.world_size, self.past = batch_size, world_size, tuple(past)
        self.rows = rows = batch_size * world_size
        seed %= 2**63  # numpy takes no negative seeds
        self._seed, self._names = seed, [source.name for source in sources]
        self._passes = [Passes(s, rows, (seed, i)) for i, s in enumerate(sources)]
        self._steps: list[int] = []
        for source, passes in zip(sources, self._passes, strict=True):
            self._steps.append(round(source.weight * passes.n_batches))
            if not self._steps[-1]:
                raise UserError(
                    f"{source.name}: weight {source.weight:g} leaves less than one batch of {rows} "
                    "rows per epoch; raise the weight or lower train.batch_size"
                )
        self.steps_per_epoch = sum(self._steps)
        # This size of batch begins at step _begin in epoch _epoch, for each source with its batch
        # number _first; so many are left in that epoch.
        self._begin, self._epoch = 0, 0
        self._first, self._left = [0] * len(sources), self._steps
        if past:
            self._go_on(BatchPlan(sources, past[-1][0], 1, seed, past[:-1]), past[-1][1], sources)
        self._order: tuple[int, np.ndarray, np.ndarray] | None = None

    def batch(self, epoch: int, index: int) -> list[tuple[int, int]]:
        """Global batch `index` of `epoch`: batch_size * world_size of (source, example index)."""
        if not 0 <= index < self.length(epoch):
            raise IndexError(f"step {index} of an epoch of {self.length(epoch)}")
        source, nth_pass, n = self._place(epoch, index)
        return [(source, row) for row in self._passes[source].batch(nth_pass, n).tolist()]

    def seed_of(self, epoch: int, index: int) -> tuple[int, ...]:
        """For what is drawn for the rows of a batch: (seed, source, pass over the source)."""
        source, nth_pass, _ = self._place(epoch, index)
        return self._seed, source, nth_pass

    def draw(self, epoch: int, index: int, sizes: Sequence[int], most: int) -> list[list[int]]:
        """For each row of that batch, of `sizes` hard negatives, which `most` of them it has.

        A pure function of (seed, pass over the source, row). A row's negatives are shuffled and
        taken in turn, so that it has had all of them after size / most passes, and then anew.
        """
        source, nth_pass, _ = self._place(epoch, index)
        rows = [row for _, row in self.batch(epoch, index)]
        return [
            _in_turn(size, most, nth_pass, (self._seed, source, row))
            for row, size in zip(rows, sizes, strict=True)
        ]

    def local(self, batch: Sequence, rank: int) -> Sequence:
        """This rank's slice of a global batch: rows [rank * b : (rank + 1) * b]."""
        return batch[rank * self.batch_size : (rank + 1) * self.batch_size]

    def steps(self, epoch: int = 0, cursor: int = 0) -> Iterator[tuple[int, int]]:
        """(epoch, index) from a position on, without end; the trainer stops when it is done."""
        while True:
            yield from ((epoch, index) for index in range(cursor, self.length(epoch)))
            epoch, cursor = epoch + 1, 0

    def length(self, epoch: int) -> int:
        """Steps of an epoch; of that in which the size of the batch changed, those after it."""
        return sum(self._counts(epoch))

    def position(self, step: int) -> tuple[int, int]:
        """(epoch, index) of the batch that follows after `step` steps of the run."""
        done = step - self._begin - sum(self._left)
        if done < 0:
            return self._epoch, step - self._begin
        epochs, index = divmod(done, self.steps_per_epoch)
        return self._epoch + 1 + epochs, index

    def sizes(self, step: int) -> tuple[tuple[int, int], ...]:
        """Every size of the global batch up to a step, each with the step at which it ended."""
        return *self.past, (self.rows, step)

    def total(self, epochs: int) -> int:
        """Steps of a run of so many epochs."""
        more = epochs - self._epoch - 1
        if more < 0:  # they were over when the size of the batch changed
            return self._begin
        return self._begin + sum(self._left) + more * self.steps_per_epoch

    def repeated(self, steps: int) -> int | None:
        """Rows of an epoch, where a run of so many steps begins another one; else None."""
        return self.steps_per_epoch * self.rows if self.position(steps) > (1, 0) else None

    def _go_on(self, before: BatchPlan, step: int, sources: Sequence[TextSource]) -> None:
        """Begin where `before` stood after `step` steps."""
        self._begin, (self._epoch, index) = step, before.position(step)
        drawn = before._drawn(self._epoch, index)
        self._first, self._left = [], []
        for i, (source, passes) in enumerate(zip(sources, self._passes, strict=True)):
            nth_pass, n = divmod(before._start(i, self._epoch) + drawn[i],
                                 before._passes[i].n_batches)  # fmt: skip
            passes.leave(nth_pass, before._passes[i].unseen(nth_pass, n))
            first = nth_pass * passes.n_batches + passes.n_batches - passes.length(nth_pass)
            if float(source.weight).is_integer():  # to the end of the epoch's last pass
                left = (self._epoch + 1) * self._steps[i] - first
            else:
                share = (before._counts(self._epoch)[i] - drawn[i]) / before._steps[i]
                left = round(share * self._steps[i])
            self._first.append(first)
            self._left.append(left)

    def _counts(self, epoch: int) -> list[int]:
        """Batches of each source in an epoch."""
        return self._left if epoch == self._epoch else self._steps

    def _start(self, source: int, epoch: int) -> int:
        """How many batches of a source come before an epoch."""
        if epoch == self._epoch:
            return self._first[source]
        later = epoch - self._epoch - 1
        return self._first[source] + self._left[source] + later * self._steps[source]

    def _drawn(self, epoch: int, index: int) -> list[int]:
        """Batches of each source before `index` of an epoch."""
        return np.bincount(self._order_of(epoch)[1][:index], minlength=len(self._steps)).tolist()

    def report(self) -> str:
        """One line: steps, and the rows of each source that a pass leaves out."""
        parts = []
        for name, steps, order in zip(self._names, self._steps, self._passes, strict=True):
            text = f"{name} {steps:,}"
            if order.n_dropped:
                text += f" ({order.n_dropped:,} of {order.n_rows:,} rows left out per pass"
                text += f", {order.n_clashing:,} by repeated text)" if order.n_clashing else ")"
            parts.append(text)
        return f"{self.steps_per_epoch:,} steps per epoch of {self.rows:,} rows: {', '.join(parts)}"

    def _place(self, epoch: int, index: int) -> tuple[int, int, int]:
        """-> (source of this step, number of the pass over it, its batch in that pass)."""
        _, which, nth = self._order_of(epoch)
        source = int(which[index])
        before = self._start(source, epoch) + int(nth[index])
        return source, *divmod(before, self._passes[source].n_batches)

    def _order_of(self, epoch: int) -> tuple[int, np.ndarray, np.ndarray]:
        """-> (epoch, source of each of its steps, how many of that source's steps came before)."""
        if self._order is None or self._order[0] != epoch:
            counts = self._counts(epoch)
            which = np.repeat(np.arange(len(counts)), counts)
            if len(self._steps) > 1:
                rng = np.random.default_rng((self._seed, _INTERLEAVE, epoch))
                which = rng.permutation(which)
            nth = np.empty_like(which)
            for source, steps in enumerate(counts):
                nth[which == source] = np.arange(steps)
            self._order = (epoch, which, nth)
        return self._order


def _in_turn(size: int, most: int, turn: int, seed: tuple[int, ...]) -> list[int]:
    if size <= most:
        return list(range(size))
    rounds, at = divmod(turn, -(-size // most))
    order = list(range(size))
    Random(repr((*seed, rounds))).shuffle(order)
    return [order[n % size] for n in range(at * most, (at + 1) * most)]
