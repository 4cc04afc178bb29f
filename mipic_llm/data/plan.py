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
from itertools import accumulate
from random import Random

import numpy as np

from mipic_llm.data.read.cells import plain
from mipic_llm.data.read.rows import Example, TextSource
from mipic_llm.data.row_store import StoredRows
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
        rows = self.batch_size * self.world_size
        parts = []
        for name, steps, order in zip(self._names, self._steps, self._passes, strict=True):
            text = f"{name} {steps:,}"
            if order.n_dropped:
                text += f" ({order.n_dropped:,} of {order.n_rows:,} rows left out per pass"
                text += f", {order.n_clashing:,} by repeated text)" if order.n_clashing else ")"
            parts.append(text)
        return f"{self.steps_per_epoch:,} steps per epoch of {rows:,} rows: {', '.join(parts)}"

    def _place(self, epoch: int, index: int) -> tuple[int, int, int]:
        """-> (source of this step, number of the pass over it, its batch in that pass)."""
        source, nth = self._interleaved(epoch, index)
        return source, *divmod(nth, self._passes[source].n_batches)

    def _interleaved(self, epoch: int, index: int) -> tuple[int, int]:
        """-> (source of this step, how many steps of that source came before)."""
        _, which, nth = self._order_of(epoch)
        source = int(which[index])
        return source, self._start(source, epoch) + int(nth[index])

    def _order_of(self, epoch: int) -> tuple[int, np.ndarray, np.ndarray]:
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
        order = order[_stable_order(rank[self._group[order]])]
        return _deal(order, self._codes, m, size, rng)


def _deal(
    order: np.ndarray, codes: np.ndarray, m: int, size: int, rng: np.random.Generator
) -> np.ndarray | None:
    """Rows of `order` round m batches of `size`; who clashes is placed elsewhere. O(rows)."""
    n = len(order)
    text = codes[:, order].T.ravel()  # both texts of row 0, row 1 ..
    again = np.flatnonzero(np.bincount(text)[text] > 1)  # no other text can clash
    seen_first = np.ones(2 * n, dtype=bool)
    keys = again // 2 % m * (int(codes.max()) + 1) + text[again]
    seen_first[again] = False
    seen_first[again[np.unique(keys, return_index=True)[1]]] = True
    seen_first = seen_first.reshape(n, 2)
    same = text[::2] == text[1::2]
    rounds = -(-n // m)
    stays = np.zeros(rounds * m, dtype=bool)
    stays[:n] = seen_first[:, 0] & (seen_first[:, 1] | same)

    there = stays.reshape(rounds, m)
    slot = np.cumsum(there, axis=0, dtype=np.int32) - 1
    there &= slot < size  # a view: who finds no slot does not stay
    turn, batch = np.nonzero(there)
    dealt = np.full((m, size), -1)
    dealt[batch, slot[turn, batch]] = order[turn * m + batch]
    stays = stays[:n]
    return _fill(dealt, order[~stays].tolist(), codes, rng)


def _stable_order(values: np.ndarray) -> np.ndarray:
    """`np.argsort(values, kind="stable")` of numbers from 0 on, by a sort that moves no places."""
    bits = len(values).bit_length()
    if int(values.max(initial=0)).bit_length() + bits > 63:
        return np.argsort(values, kind="stable")
    packed = values.astype(np.int64) << bits
    packed |= np.arange(len(values))
    packed.sort()
    packed &= (1 << bits) - 1
    return packed


def _fill(
    dealt: np.ndarray, waiting: list[int], codes: np.ndarray, rng: np.random.Generator
) -> np.ndarray | None:
    """Puts waiting rows into the holes (-1), straight or by a swap; None if a hole stays."""

    known: dict[int, set[int]] = {}  # the texts of a batch, each of which one row alone has

    def texts(batch: int) -> set[int]:
        if batch not in known:
            there = dealt[batch]
            known[batch] = set(codes[:, there[there >= 0]].ravel().tolist())
        return known[batch]

    def own(row: int) -> list[int]:
        return codes[:, row].tolist()

    open_batches = np.flatnonzero((dealt < 0).any(1)).tolist()
    left = []
    for row in waiting:
        mine = own(row)
        for batch in open_batches[:_TRIES]:
            if texts(batch).isdisjoint(mine):
                hole = np.flatnonzero(dealt[batch] < 0)
                dealt[batch, hole[0]] = row
                known[batch].update(mine)
                if len(hole) == 1:
                    open_batches.remove(batch)
                break
        else:
            left.append(row)
    for batch, hole in np.argwhere(dealt < 0).tolist():
        for _ in range(_TRIES * 4):
            which, other = int(rng.integers(len(left))), int(rng.integers(len(dealt)))
            mine, slots = own(left[which]), []
            if not texts(other).isdisjoint(mine):  # slots of the batch that share a text
                there = dealt[other]
                hit = (codes[:, there] == mine[0]) | (codes[:, there] == mine[1])
                slots = np.flatnonzero(hit.any(0) & (there >= 0)).tolist()
            if other == batch or len(slots) > 1:
                continue
            slot = slots[0] if slots else int(rng.integers(dealt.shape[1]))
            moved = int(dealt[other, slot])
            if moved >= 0 and texts(batch).isdisjoint(own(moved)):
                dealt[batch, hole], dealt[other, slot] = moved, left.pop(which)
                known[other] = known[other].difference(own(moved)).union(mine)
                known[batch].update(own(moved))
                break
        else:
            return None
    return dealt


def _text_codes(examples: Sequence[Example]) -> np.ndarray:
    """(2, rows) numbers of the anchor's and the positive's text, in the order in which they come;
    texts that are equal but for their blanks have one number."""
    if isinstance(examples, StoredRows):
        pairs = examples.pair_keys()
        key = pairs.ravel()
        order = key.argsort(kind="stable")
        found = key[order]
        begins = np.concatenate([[True], found[1:] != found[:-1]])  # of equal texts, the first one
        new = np.zeros(len(key), bool)
        new[order[begins]] = True
        number = np.cumsum(new, dtype=np.int32) - 1  # in the order in which they come
        code = np.empty(len(key), np.int32)
        code[order] = number[order[begins]][np.cumsum(begins, dtype=np.int32) - 1]
        return code.reshape(pairs.shape)
    known: dict[str, int] = {}
    positives = [row.anchor if row.positive is None else row.positive for row in examples]
    columns = ([row.anchor for row in examples], positives)
    return np.array([[known.setdefault(plain(t), len(known)) for t in c] for c in columns])


class StagedPlan:
    """Plans one after another, each for so many steps: a `BatchPlan` whose "epochs" are stages.

    stages: (sources, steps, batch_size or None) of each; sources count through all of them, in
    order. batch_size: where a stage has none of its own.
    """

    def __init__(
        self, stages: Sequence[tuple[Sequence[TextSource], int, int | None]], batch_size: int,
        world_size: int, seed: int,
    ) -> None:  # fmt: skip
        self.batch_size, self.world_size = batch_size, world_size
        self.rows, self.past = batch_size * world_size, ()
        self._steps = [steps for _, steps, _ in stages]
        self._firsts = [0, *accumulate(len(sources) for sources, *_ in stages)]
        self._plans = [BatchPlan(sources, own or batch_size, world_size, seed + i)
                       for i, (sources, _, own) in enumerate(stages)]  # fmt: skip

    def batch(self, epoch: int, index: int) -> list[tuple[int, int]]:
        first, plan = self._firsts[epoch], self._plans[epoch]
        return [(first + source, row) for source, row in plan.batch(*plan.position(index))]

    def seed_of(self, epoch: int, index: int) -> tuple[int, ...]:
        plan = self._plans[epoch]
        return plan.seed_of(*plan.position(index))

    def draw(self, epoch: int, index: int, sizes: Sequence[int], most: int) -> list[list[int]]:
        plan = self._plans[epoch]
        return plan.draw(*plan.position(index), sizes, most)

    def local(self, batch: Sequence, rank: int) -> Sequence:
        own = len(batch) // self.world_size
        return batch[rank * own : (rank + 1) * own]

    def steps(self, epoch: int = 0, cursor: int = 0) -> Iterator[tuple[int, int]]:
        for stage in range(epoch, len(self._plans)):
            yield from ((stage, i) for i in range(cursor, self._steps[stage]))
            cursor = 0

    def length(self, epoch: int) -> int:
        return self._steps[epoch]

    def position(self, step: int) -> tuple[int, int]:
        for stage, steps in enumerate(self._steps):
            if step < steps:
                return stage, step
            step -= steps
        return len(self._steps), 0

    def sizes(self, step: int) -> tuple[tuple[int, int], ...]:
        return ((self.rows, step),)

    def total(self, epochs: int) -> int:
        return sum(self._steps)

    def repeated(self, steps: int) -> int | None:
        own = zip(self._plans, self._steps, strict=True)
        return min((n for plan, s in own if (n := plan.repeated(s))), default=None)

    def report(self) -> str:
        lines = (f"stage {i + 1}, {n:,} steps: {plan.report()}" for i, (plan, n) in
                 enumerate(zip(self._plans, self._steps, strict=True)))  # fmt: skip
        return "\n".join(lines)
