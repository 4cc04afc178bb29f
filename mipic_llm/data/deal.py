"""Rows dealt out: to batches in which no text is twice, and to ranks in equal shares of tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_TRIES = 64  # random partners tried per row before it is left out


def deal_to_batches(
    order: np.ndarray, codes: np.ndarray, m: int, size: int, rng: np.random.Generator
) -> np.ndarray | None:
    """Rows of `order` round m batches of `size`; rows that clash go elsewhere. O(rows)."""
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
    there &= slot < size  # a view of `stays`: rows without a slot do not stay
    turn, batch = np.nonzero(there)
    dealt = np.full((m, size), -1)
    dealt[batch, slot[turn, batch]] = order[turn * m + batch]
    stays = stays[:n]
    return _fill(dealt, order[~stays].tolist(), codes, rng)


def stable_order(values: np.ndarray) -> np.ndarray:
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


def deal_to_ranks(lengths: Sequence[int] | np.ndarray, world: int) -> list[list[int]]:
    """Rows of a global batch to ranks: as many to each, token sums as equal as greedy makes them.

    Longest first to the rank with fewest tokens that still has room (the lowest such rank). Each
    rank's rows keep their order. A function of the lengths alone, so every rank finds the same.
    """
    room = len(lengths) // world
    assert room * world == len(lengths), f"{len(lengths)} rows on {world} ranks"
    hands: list[list[int]] = [[] for _ in range(world)]
    load = np.zeros(world)
    for row in np.argsort(-np.asarray(lengths), kind="stable").tolist():
        rank = int(load.argmin())
        hands[rank].append(row)
        load[rank] += lengths[row] if len(hands[rank]) < room else np.inf
    return [sorted(hand) for hand in hands]
