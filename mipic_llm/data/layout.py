"""Which texts make which rows, as arrays of numbers: what read/training.py does with rows in memory
is done here with rows on disk (row_store.py has the layout of their directory)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

SPAN = 1 << 20  # rows looked at together


def mapped(path: Path, dtype: type | None = None) -> np.ndarray:
    """The array of a .npy file, or with dtype of a file of bare numbers: mapped, not held. Of a
    plain class, for every cut of a `np.memmap` costs a microsecond more."""
    if dtype is None:
        return np.asarray(np.load(path, mmap_mode="r"))
    return np.asarray(np.memmap(path, dtype, mode="r"))


class Layout(NamedTuple):
    """Which texts make which rows: int64, texts in the order of the rows, and rows + 1 bounds.
    also, labels: of each row, how many of its negatives are positives too, and the text of its
    label; None where there are none."""

    texts: np.ndarray
    rows: np.ndarray
    also: np.ndarray | None = None
    labels: np.ndarray | None = None

    def write(self, folder: Path, prefix: str = "") -> None:
        for name, values in self._asdict().items():
            if values is not None:
                np.save(folder / f"{prefix}{name}.npy", values)

    @classmethod
    def read(cls, folder: Path, prefix: str = "") -> Layout:
        """Mapped, not held."""
        paths = [folder / f"{prefix}{name}.npy" for name in cls._fields]
        return cls(*(mapped(path) if path.is_file() else None for path in paths))

    @property
    def per_row(self) -> np.ndarray:
        return np.diff(self.rows)

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each text: its row, and its place in the row."""
        row = np.repeat(np.arange(len(self.rows) - 1), self.per_row)
        return row, np.arange(len(row)) - self.rows[row]

    def pairs(self, key: np.ndarray) -> np.ndarray:
        """`mixed` of each row's anchor and positive; each once, ascending. key: of all texts."""
        first = self.rows[:-1]
        return np.unique(mixed(key[self.texts[first]], key[self.texts[first + 1]]))

    def only(self, row: np.ndarray, text: np.ndarray | None = None) -> Layout:
        """With the rows, by number, in that order; of their texts those that are True."""
        per_row = self.per_row[row]
        bounds = sums(per_row)
        at = np.repeat(self.rows[row] - bounds[:-1], per_row) + np.arange(bounds[-1])
        if text is not None:
            stays = text[at]
            bounds, at = sums(np.add.reduceat(stays, bounds[:-1], dtype=np.int64)), at[stays]
        rest = (None if values is None else values[row] for values in self[2:])
        return Layout(self.texts[at], bounds, *rest)


def of_parts(
    first: np.ndarray, nli: np.ndarray, parts: Sequence[tuple[int, bool]], most: int
) -> Layout:
    """The rows of files, some of them of NLI. parts: of each file, how many were appended."""
    found, start = [], sums(np.array([n for n, _ in parts]))
    places = [np.arange(*start[i : i + 2]) for i, (_, is_nli) in enumerate(parts) if is_nli]
    place = np.concatenate(places)
    triplets, home = _nli_rows(first[place], nli, most)
    home = np.searchsorted(start, place[home], side="right") - 1  # of each row, its file
    for i, (_, is_nli) in enumerate(parts):
        own = first[start[i] : start[i + 1] + 1]
        found.append(
            triplets.only(np.flatnonzero(home == i)) if is_nli
            else Layout(np.arange(own[0], own[-1]), own - own[0])
        )  # fmt: skip
    texts, per_row = zip(*((one.texts, one.per_row) for one in found), strict=True)
    return Layout(np.concatenate(texts), sums(np.concatenate(per_row)))


def _nli_rows(first: np.ndarray, nli: np.ndarray, most: int) -> tuple[Layout, np.ndarray]:
    """As `read/formats.py`: a row for each entailment, by premise; the contradictions of the
    premise are its negatives, and each row begins at another one. nli: (premise, label) of pairs of
    texts, which begin at `first`. -> also the pair that has a row's premise first."""
    premise, label = in_order(nli[:, 0]), nli[:, 1]
    order = np.argsort(premise, kind="stable")
    right, wrong = order[label[order] == 0], order[label[order] == 2]
    bounds = np.searchsorted(premise[wrong], np.arange(len(nli) + 1))
    begin, n = bounds[premise[right]], np.diff(bounds)[premise[right]]
    nth = np.arange(len(right)) - np.searchsorted(premise[right], premise[right])
    rows = sums(2 + np.minimum(n, most))
    row = np.repeat(np.arange(len(right)), np.diff(rows))
    place = np.arange(len(row)) - rows[row]
    turn = begin[row] + (nth[row] + place - 2) % np.maximum(n, 1)[row]
    texts = first[right][row] + place  # of the anchor and the positive
    texts[place > 1] = first[wrong[turn[place > 1]]] + 1
    return Layout(texts, rows), np.unique(premise, return_index=True)[1][premise[right]]


def chosen(
    whole: Layout, key: np.ndarray, known: np.ndarray, negatives: int, together: bool
) -> tuple[Layout, int]:
    """The rows with at most so many of their negatives, none of which is the anchor or one of its
    positives (`known`: pairs, ascending). -> also how many were left out as such."""
    kept, n_false = np.ones(len(whole.texts), bool), 0
    for start, stop in spans(len(whole.rows) - 1):
        bounds = whole.rows[start : stop + 1]
        texts = slice(bounds[0], bounds[-1])
        own = key[whole.texts[texts]]
        row = np.repeat(np.arange(stop - start), np.diff(bounds))
        hard = np.arange(texts.start, texts.stop) - bounds[row] > 1
        anchor = own[(bounds[:-1] - bounds[0])[row]]
        false = hard & ((own == anchor) | among(mixed(anchor, own), known))
        right = hard & ~false
        so_far = np.cumsum(right)  # negatives of these rows up to each text
        before = (so_far - right)[(bounds[:-1] - bounds[0])[row]]
        kept[texts] = ~hard | (right & (so_far - before <= negatives))
        n_false += int(false.sum())
    counts = np.add.reduceat(kept, whole.rows[:-1], dtype=np.int64)
    found = Layout(whole.texts[kept], sums(counts))
    return (_together(found, key) if together else found), n_false


def _together(each: Layout, key: np.ndarray) -> Layout:
    """As `read/training.py`: all positives of an anchor in one row, before its negatives, each
    once, and as many negatives as the row had that had most."""
    row, place = each.places()
    own = key[each.texts]
    group = in_order(own[each.rows[:-1]]).astype(np.int64)
    n = int(group.max()) + 1
    most = np.zeros(n, np.int64)
    np.maximum.at(most, group, each.per_row - 2)
    kind = np.minimum(place, 2)
    # One of each text in a group and kind, the first; kept in the order group, kind, appearance.
    order = np.lexsort((own, kind, group[row]))
    same = [np.diff(values[order], prepend=-1) == 0 for values in (kind, group[row])]
    again = np.concatenate([[False], own[order][1:] == own[order][:-1]]) & same[0] & same[1]
    at = np.sort(order[~again])
    at = at[np.lexsort((kind[at], group[row[at]]))]
    which, kind = group[row[at]], kind[at]
    begin = np.searchsorted(3 * which + kind, 3 * np.arange(n) + 2)
    stays = (kind < 2) | (np.arange(len(at)) - begin[which] < most[which])
    right = np.bincount(which[kind == 1], minlength=n)
    rows = sums(np.bincount(which[stays], minlength=n))
    return Layout(each.texts[at[stays]], rows, right - 1 if (right > 1).any() else None)


def in_order(values: np.ndarray) -> np.ndarray:
    """int32, a number for each value, equal ones alike, in the order in which they first come."""
    order = values.argsort(kind="stable")
    found = values[order]
    begins = np.ones(len(values), bool)  # the first one of equal values
    begins[1:] = found[1:] != found[:-1]
    new = np.zeros(len(values), bool)
    new[order[begins]] = True
    number = np.cumsum(new, dtype=np.int32) - 1
    code = np.empty(len(values), np.int32)
    code[order] = number[order[begins]][np.cumsum(begins, dtype=np.int32) - 1]
    return code


def among(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which values are among the known ones, which ascend."""
    if not len(known):
        return np.zeros(len(values), bool)
    return known[np.minimum(np.searchsorted(known, values), len(known) - 1)] == values


def layout_digest(layout: Layout, exact: np.ndarray, score: np.ndarray | None) -> str:
    """What names the content of rows; see `digest_of`."""
    digest, texts = hashlib.blake2b(digest_size=16), layout.texts
    for start, stop in spans(len(texts)):
        digest.update(exact[texts[start:stop]].tobytes())
    digest.update(layout.per_row.tobytes())
    if score is not None and not all(
        np.isnan(score[texts[a:b]]).all() for a, b in spans(len(texts))
    ):
        for start, stop in spans(len(texts)):
            digest.update(score[texts[start:stop]].tobytes())
    if layout.also is not None and layout.also.any():
        digest.update(layout.also.tobytes())
    if layout.labels is not None:
        digest.update(exact[layout.labels].tobytes())
    return digest.hexdigest()


def sums(counts: np.ndarray) -> np.ndarray:
    """(n + 1,) int64: where each one begins, and the end."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def spans(rows: int) -> Iterator[tuple[int, int]]:
    """Blocks of rows, (first, end), so that few are in memory at a time."""
    return ((start, min(rows, start + SPAN)) for start in range(0, rows, SPAN))


def mixed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A hash of each pair of keys, int64."""
    with np.errstate(over="ignore"):
        return a * np.int64(-7046029254386353131) ^ (b + (a >> np.int64(7)))
