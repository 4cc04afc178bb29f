"""Batch order: equal over world sizes, resumable, free of repeated texts, mixtures by weight."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest

from mipic_llm.data.deal import stable_order
from mipic_llm.data.plan import BatchPlan
from mipic_llm.data.read.rows import Example, TextSource
from mipic_llm.errors import UserError


def unique(n, name="x", weight=1.0):
    rows = [Example(f"{name}a{i}", f"{name}p{i}", (), i) for i in range(n)]
    return TextSource(name, rows, weight)


def repeating(n, n_anchors, n_positives, seed=0):
    draw = random.Random(seed)
    rows = [
        Example(f"t{draw.randrange(n_anchors)}", f"p{draw.randrange(n_positives)}", (), i)
        for i in range(n)
    ]
    return TextSource("r", rows, 1.0)


def epoch_of(plan, epoch):
    return [plan.batch(epoch, i) for i in range(plan.steps_per_epoch)]


def rows_of(batches, source=0):
    return [row for batch in batches for s, row in batch if s == source]


MIXED = [unique(50, "u"), repeating(60, 20, 60), unique(30, "w", 0.5)]


def test_one_rank_and_two_ranks_see_the_same_global_batches():
    one, two = BatchPlan(MIXED, 8, 1, seed=3), BatchPlan(MIXED, 4, 2, seed=3)
    assert one.steps_per_epoch == two.steps_per_epoch > 10
    for epoch in range(3):
        for index in range(one.steps_per_epoch):
            whole = one.batch(epoch, index)
            assert len(whole) == 8 and one.local(whole, 0) == whole
            shared = two.batch(epoch, index)
            halves = [two.local(shared, rank) for rank in range(2)]
            assert all(len(half) == 4 for half in halves)
            assert halves[0] + halves[1] == whole


def test_resume_is_exact_and_seeds_and_epochs_differ():
    whole = [batch for epoch in range(3) for batch in epoch_of(BatchPlan(MIXED, 4, 1, 0), epoch)]
    plan = BatchPlan(MIXED, 4, 1, 0)
    stop = plan.steps_per_epoch + 5  # fresh plan, started in the middle of epoch 1
    resumed = BatchPlan(MIXED, 4, 1, 0)
    position = resumed.steps(*divmod(stop, resumed.steps_per_epoch))
    assert [resumed.batch(*next(position)) for _ in whole[stop:]] == whole[stop:]
    # Any access order gives the same: batches depend on nothing but (seed, epoch, index).
    for epoch, index in ((2, 1), (0, 3), (1, 0), (0, 0)):
        assert plan.batch(epoch, index) == whole[epoch * plan.steps_per_epoch + index]
    assert epoch_of(plan, 0) != epoch_of(plan, 1)
    assert epoch_of(plan, 0) != epoch_of(BatchPlan(MIXED, 4, 1, 1), 0)
    for source in MIXED[:2]:  # not only the interleaving: each source is shuffled anew
        alone = BatchPlan([source], 4, 1, 0)
        assert len({str(sorted(map(sorted, epoch_of(alone, epoch)))) for epoch in range(4)}) == 4
    assert BatchPlan(MIXED, 4, 1, -1).batch(0, 0)


def test_every_row_once_and_the_tail_is_reported():
    plan = BatchPlan([unique(103)], 10, 1, seed=0)
    assert plan.steps_per_epoch == 10
    for epoch in range(3):
        rows = rows_of(epoch_of(plan, epoch))
        assert len(rows) == len(set(rows)) == 100 and set(rows) <= set(range(103))
        assert rows != sorted(rows)
    assert plan.report() == (
        "10 steps per epoch of 10 rows: x 10 (3 of 103 rows left out per pass)"
    )
    with pytest.raises(IndexError):
        plan.batch(0, 10)


def assert_no_repeats(plan, sources, epochs=3):
    for epoch in range(epochs):
        seen_rows = set()
        for batch in epoch_of(plan, epoch):
            texts: set[str] = set()
            for source, row in batch:
                example = sources[source].examples[row]
                own = {example.anchor, example.positive or example.anchor}
                assert not own & texts, "a text twice in one batch"
                assert (source, row) not in seen_rows, "a row twice in one epoch"
                texts |= own
                seen_rows.add((source, row))


@pytest.mark.parametrize(
    "n, n_anchors, n_positives, size",
    [
        (400, 40, 400, 16),
        (400, 400, 40, 16),
        (400, 60, 60, 16),
        (1000, 2000, 2000, 100),
        (300, 20, 300, 16),
    ],
)
def test_batches_hold_no_text_twice(n, n_anchors, n_positives, size):
    sources = [repeating(n, n_anchors, n_positives)]
    plan = BatchPlan(sources, size, 1, seed=0)
    assert plan.steps_per_epoch == n // size  # nothing but the tail is lost
    assert_no_repeats(plan, sources)


def test_an_anchor_that_is_another_rows_positive_counts_as_repeated():
    rows = [Example(f"t{i}", f"t{(i + 1) % 40}", (), i) for i in range(40)]  # one long chain
    sources = [TextSource("chain", rows, 1.0)]
    plan = BatchPlan(sources, 10, 1, seed=0)
    assert plan.steps_per_epoch == 4
    assert_no_repeats(plan, sources)
    text = [Example(f"t{i % 30}", None, (), i) for i in range(40)]
    sources = [TextSource("unlabelled", text, 1.0)]
    plan = BatchPlan(sources, 10, 1, seed=0)
    assert plan.steps_per_epoch == 4
    assert_no_repeats(plan, sources)


def test_rows_that_cannot_be_placed_are_dropped_and_counted():
    # 30 rows share one anchor, 20 are unique: with b batches min(30, b) + 20 >= 8 b gives b = 2.
    rows = [Example("same" if i < 30 else f"a{i}", f"p{i}", (), i) for i in range(50)]
    sources = [TextSource("s", rows, 1.0)]
    plan = BatchPlan(sources, 8, 1, seed=0)
    assert plan.steps_per_epoch == 2
    assert_no_repeats(plan, sources)
    # 34 rows are out: 2 are the tail of 50 / 8, 32 are out because their text repeats.
    assert "(34 of 50 rows left out per pass, 32 by repeated text)" in plan.report()
    kept = [row for batch in epoch_of(plan, 0) for _, row in batch]
    assert sum(row < 30 for row in kept) == 2
    with pytest.raises(UserError, match="without a repeated text"):
        BatchPlan([TextSource("s", rows[:30], 1.0)], 8, 1, seed=0)


def test_entangled_tiny_source_gives_the_same_number_of_steps_in_every_epoch():
    texts = [("a", "p"), ("a", "q"), ("b", "p"), ("c", "q"), ("c", "p")]
    rows = [Example(a, p, (), i) for i, (a, p) in enumerate(texts)]
    for seed in range(20):
        sources = [TextSource("s", rows, 1.0)]
        plan = BatchPlan(sources, 2, 1, seed=seed)
        assert plan.steps_per_epoch in (1, 2)
        assert_no_repeats(plan, sources, epochs=10)


def test_mixture_weights_and_one_source_per_batch():
    sources = [unique(100, "one"), unique(100, "half", 0.5), unique(100, "two", 2.0)]
    plan = BatchPlan(sources, 10, 1, seed=0)
    assert plan.steps_per_epoch == 10 + 5 + 20
    epochs = [epoch_of(plan, epoch) for epoch in range(2)]
    for batches in epochs:
        assert all(len({source for source, _ in batch}) == 1 for batch in batches)
        assert sorted(rows_of(batches, 0)) == list(range(100))
        assert sorted(rows_of(batches, 2)) == sorted([*range(100)] * 2)
        order = [batch[0][0] for batch in batches]
        assert order != sorted(order)  # interleaved
    # Weight 0.5: two epochs together see every row once.
    assert sorted(rows_of(epochs[0], 1) + rows_of(epochs[1], 1)) == list(range(100))


def test_too_few_rows():
    with pytest.raises(UserError, match="x has 15 rows, fewer than one global batch of 16"):
        BatchPlan([unique(15)], 8, 2, seed=0)
    with pytest.raises(UserError, match="weight 0.1 leaves less than one batch"):
        BatchPlan([unique(16, weight=0.1)], 8, 2, seed=0)


def test_many_rows_with_much_repetition():
    source = repeating(200_000, 100_000, 100_000)
    plan = BatchPlan([source], 64, 1, seed=0)
    plan.batch(1, 0)
    assert plan.steps_per_epoch == 200_000 // 64


def drawn(plan, epoch, cursor=0):
    return [plan.batch(epoch, i) for i in range(cursor, plan.length(epoch))]


@pytest.mark.parametrize("sizes", [(4, 8), (8, 4), (6, 5, 7)])
@pytest.mark.parametrize("source", [unique(103), repeating(103, 60, 80)], ids=lambda s: s.name)
def test_another_global_batch_sees_the_rest_of_the_epoch_once(source, sizes):
    """Every row of epoch 1 once over all changes, but for the last batch that is not full."""
    other, past = unique(40, "o", 0.5), ()
    plan = BatchPlan([source, other], sizes[0], 1, 3)
    step, seen = plan.steps_per_epoch, []
    for n, size in enumerate(sizes, 1):
        plan = BatchPlan([source, other], size, 1, 3, past)
        epoch, cursor = plan.position(step)
        assert epoch == 1 and (cursor == 0 or not past)
        stop = plan.total(2) if n == len(sizes) else step + 5
        for now in range(step, stop):
            assert plan.position(now) == (1, cursor + now - step)
            seen.append(plan.batch(*plan.position(now)))
            codes = [source, other][seen[-1][0][0]].examples
            texts = [t for _, i in seen[-1] for t in {codes[i].anchor, codes[i].positive}]
            assert len(texts) == len(set(texts)) and len(seen[-1]) == size
        step, past = stop, plan.sizes(stop)
    for number, whole in enumerate((source, other)):
        rows = rows_of(seen, number)
        assert len(rows) == len(set(rows))
        if whole is source:
            spare = 103 - len(rows_of(epoch_of(BatchPlan([source], sizes[-1], 1, 3), 0)))
            assert len(rows) >= 103 - spare - sizes[-1]
        else:
            assert abs(len(rows) - 20) <= max(sizes)
    assert plan.position(step) == (2, 0)
    fresh = BatchPlan([source, other], sizes[-1], 1, 3)  # later epochs: as in any run of this size
    late = [[b for b in epoch_of(p, 2) if b[0][0] == 0] for p in (plan, fresh)]
    assert late[0] == late[1]


def test_the_same_global_batch_has_the_same_order_on_other_ranks():
    one, two = BatchPlan(MIXED, 8, 1, 3), BatchPlan(MIXED, 4, 2, 3)
    step = one.steps_per_epoch + 4
    assert one.position(step) == two.position(step) == (1, 4)
    assert one.batch(1, 4) == two.batch(1, 4) and one.sizes(step) == two.sizes(step)
    assert one.total(3) == 3 * one.steps_per_epoch


def test_a_stable_order_whatever_the_numbers():
    values = np.random.default_rng(0).integers(0, 9, 200)
    for scale in (1, 2**58):  # beyond what can be packed with a place into 64 bits
        want = np.argsort(values * scale, kind="stable")
        assert (stable_order(values * scale) == want).all()
    assert stable_order(values[:0]).tolist() == []


def test_epochs_that_are_over_and_rows_that_are_seen_again():
    plan = BatchPlan([unique(40)], 8, 1, 0)  # five steps
    assert plan.repeated(5) is None and plan.repeated(6) == 40
    later = BatchPlan([unique(40)], 4, 1, 0, past=[(8, 7)])  # 24 rows of the second epoch are left
    assert [later.total(n) for n in (1, 2, 3)] == [7, 7 + 6, 7 + 6 + 10]


@pytest.mark.parametrize(("size", "most"), [(7, 2), (6, 3), (2, 2), (1, 4), (30, 1), (0, 2)])
def test_every_negative_has_its_turn(size, most) -> None:
    """Each pass takes others until all were there, then in another order; a pure function."""
    rows = [Example(f"a{i}", f"p{i}", tuple(map(str, range(size))), i) for i in range(8)]
    source = TextSource("s", rows, 2.0)  # two passes an epoch
    plans = [BatchPlan([source], 4, 1, seed=3) for _ in range(2)]
    turns: dict[int, list] = {i: [] for i in range(8)}
    for epoch in range(30):
        for index in range(plans[0].steps_per_epoch):
            drawn = [plan.draw(epoch, index, [size] * 4, most) for plan in plans]
            assert drawn[0] == drawn[1]
            for (_, row), own in zip(plans[0].batch(epoch, index), drawn[0], strict=True):
                assert len(own) == len(set(own)) == min(size, most)
                turns[row].append(own)
    rounds = max(1, -(-size // most))
    for own in turns.values():
        assert len(own) == 60
        for start in range(0, 60 - rounds + 1, rounds):
            assert {n for turn in own[start : start + rounds] for n in turn} == set(range(size))
    if size > most:
        assert len({str(own) for own in turns.values()}) == 8
        assert turns[0][:rounds] != turns[0][rounds : 2 * rounds]


def test_negatives_drawn_do_not_depend_on_the_size_of_the_batch() -> None:
    """A run that goes on with other batches has the same negatives in the same pass."""
    rows = [Example(f"a{i}", f"p{i}", ("x",) * 9, i) for i in range(24)]
    sources = [TextSource("s", rows, 1.0)]

    def seen(plan: BatchPlan, steps) -> dict[tuple[int, int], list[int]]:
        return {
            (epoch, row): own
            for epoch, index in steps
            for (_, row), own in zip(
                plan.batch(epoch, index), plan.draw(epoch, index, [9] * plan.rows, 2), strict=True
            )
        }

    one, two = BatchPlan(sources, 4, 1, 0), BatchPlan(sources, 4, 2, 0, past=[(4, 2)])
    whole = seen(one, [(e, i) for e in range(2) for i in range(6)])
    later = seen(two, [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)])
    assert len(later) == 16 + 24 and later.items() <= whole.items()


def test_scored_pairs_may_share_a_text() -> None:
    """A step compares their scores, not their texts."""
    rows = [Example("a", f"b{i % 3}", (), i, (float(i),)) for i in range(20)]
    plan = BatchPlan([TextSource("s", rows, 1.0, "score")], 4, 2, seed=0)
    assert plan.steps_per_epoch == 2 and "4 of 20 rows left out" in plan.report()
    seen = [row for i in range(2) for _, row in plan.batch(0, i)]
    assert len(set(seen)) == 16
    assert seen != [row for i in range(2) for _, row in plan.batch(1, i)]


def test_batches_of_a_seed_stay() -> None:
    """What the plan gave when each search was the plainest one, digested: repetition of either
    side, entangled texts, weights, a batch size that changes."""
    draw = random.Random(5)
    few = [(f"a{int(draw.paretovariate(1.1))}", f"p{draw.randrange(400)}") for _ in range(600)]
    tangled = [(f"t{draw.randrange(60)}", f"t{draw.randrange(60)}") for _ in range(500)]
    plain_ones = [(f"x{n // 2}", f"y{n}") for n in range(400)]
    sources = []
    for rows, weight in ((few, 1.5), (tangled, 1.0), (plain_ones, 0.5)):
        examples = [Example(a, p, (), i) for i, (a, p) in enumerate(rows)]
        sources.append(TextSource(f"{len(rows)}", examples, weight))
    found = []
    for size, past in ((12, ()), (8, ((12, 20),))):
        plan = BatchPlan(sources, size // 2, 2, 7, past)
        batches = [plan.batch(e, i) for e in range(3) for i in range(plan.length(e))]
        found.append(hashlib.blake2b(repr(batches).encode(), digest_size=8).hexdigest())
    assert found == ["66f3a756cd57c898", "4f75afcb3ba7bd4e"]
