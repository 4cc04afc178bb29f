"""Batch plans one after another: a run in stages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from mipic_llm.data.plan import BatchPlan
from mipic_llm.data.read.rows import TextSource


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
