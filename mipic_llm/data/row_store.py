"""Training rows on disk, for more of them than memory holds: written in one pass over the files,
read as a sequence of `Example`.

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
import hashlib
import json
import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, overload

import numpy as np

from mipic_llm.data.growing import Growing, building, settle
from mipic_llm.data.read.cells import plain
from mipic_llm.data.read.rows import SPARE, Example, Row, TextSource, key_of

VERSION = 3
MANIFEST = "manifest.json"
SPAN = 1 << 20  # rows looked at together
_RAW = {"texts.bin": np.uint8, "lengths.bin": np.int64, "keys.bin": np.int64, "exact.bin": np.int64,
        "scores.bin": np.float64, "per_row.bin": np.int32, "nli.bin": np.int64}  # fmt: skip
_SAMPLE, _SAMPLES = 1 << 16, 64  # bytes and places of a file that name it


class _Layout(NamedTuple):
    """Which texts make which rows: int64, texts in the order of the rows, and rows + 1 bounds.
    also, labels: see above; None where there are none."""

    texts: np.ndarray
    rows: np.ndarray
    also: np.ndarray | None = None
    labels: np.ndarray | None = None

    def write(self, folder: Path, prefix: str = "") -> None:
        for name, values in self._asdict().items():
            if values is not None:
                np.save(folder / f"{prefix}{name}.npy", values)

    @classmethod
    def read(cls, folder: Path, prefix: str = "") -> _Layout:
        """Mapped, not held."""
        paths = [folder / f"{prefix}{name}.npy" for name in cls._fields]
        return cls(*(np.load(p, mmap_mode="r") if p.is_file() else None for p in paths))

    @property
    def per_row(self) -> np.ndarray:
        return np.diff(self.rows)

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each text: its row, and its place in the row."""
        row = np.repeat(np.arange(len(self.rows) - 1), self.per_row)
        return row, np.arange(len(row)) - self.rows[row]

    def only(self, row: np.ndarray, text: np.ndarray | None = None) -> _Layout:
        """With the rows, by number, in that order; of their texts those that are True."""
        per_row = self.per_row[row]
        bounds = _sums(per_row)
        at = np.repeat(self.rows[row] - bounds[:-1], per_row) + np.arange(bounds[-1])
        if text is not None:
            stays = text[at]
            bounds, at = _sums(np.add.reduceat(stays, bounds[:-1], dtype=np.int64)), at[stays]
        rest = (None if values is None else values[row] for values in self[2:])
        return _Layout(self.texts[at], bounds, *rest)


class StoredRows(Sequence[Example]):
    """The rows of a finished directory."""

    def __init__(self, folder: Path) -> None:
        def mapped(name: str) -> np.ndarray:
            return np.load(folder / name, mmap_mode="r")

        self.folder = folder
        self.manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        self.digest: str = self.manifest["digest"]
        self.labelled: bool = self.manifest["labelled"]
        self.has_scores: bool = self.manifest["scores"]
        self._texts = np.memmap(folder / "texts.bin", np.uint8, mode="r")
        self._starts, self._key, self._score = map(mapped, ("starts.npy", "keys.npy", "scores.npy"))
        self._exact = np.memmap(folder / "exact.bin", np.int64, mode="r")
        self._set(_Layout.read(folder))

    def _set(self, layout: _Layout) -> Self:
        self._layout, self._text, self._first = layout, layout.texts, layout.rows
        return self

    def _changed(self, layout: _Layout) -> StoredRows:
        other = copy.copy(self)._set(layout)
        other.digest = _digest(layout, self._exact, self._score if self.has_scores else None)
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
        whole = _Layout.read(self.folder, "all_")
        first = (whole if whole.texts is not None else self._layout).rows[:-1]
        text = whole.texts if whole.texts is not None else self._text
        return np.unique(mixed(self._key[text[first]], self._key[text[first + 1]]))

    def beside(self, known: np.ndarray) -> tuple[StoredRows, int]:
        """These rows in a run with other sources, which have the pairs of anchor and positive
        `known` (see `known_pairs`). -> also how many negatives are left out."""
        whole = _Layout.read(self.folder, "all_")
        if whole.texts is None or not len(known):
            return self, self.manifest["n_false"]
        if not any(self._wrong(known, *span) for span in _spans(len(self))):
            return self, self.manifest["n_false"]
        made, n_false = _chosen(whole, self._key, self._score if self.has_scores else None,
                                np.union1d(known, self.known_pairs()),
                                self.manifest["negatives"], self.manifest["together"])  # fmt: skip
        return self._changed(made), n_false

    def _wrong(self, known: np.ndarray, start: int, stop: int) -> bool:
        """Whether a negative of these rows makes a known pair with its anchor."""
        first = self._first[start : stop + 1] - self._first[start]
        key = self._key[self._text[self._first[start] : self._first[stop]]]
        row = np.repeat(np.arange(stop - start), np.diff(first))
        hard = np.arange(len(key)) - first[row] > 1
        return bool(_among(mixed(key[first[row]], key)[hard], known).any())

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
        for start, stop in _spans(len(self)):
            first = self._first[start : stop + 1]
            hit = np.isin(self._key[self._text[first[0] : first[-1]]], keys)
            found[start:stop] = np.add.reduceat(hit, first[:-1] - first[0], dtype=np.int64) > 0
        return found


def name_of(files: Iterable[Path], settings: Any) -> str:
    """What names the rows that are read from these files under these settings.

    A file is named by its name, size, time of change and content at 64 places.
    """
    digest = hashlib.blake2b(repr((VERSION, settings)).encode(), digest_size=16)
    for path in files:
        about = path.stat()
        digest.update(repr((path.name, about.st_size, about.st_mtime_ns)).encode())
        with path.open("rb") as file:
            for n in range(_SAMPLES):
                file.seek(n * max(0, about.st_size - _SAMPLE) // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


def is_whole(folder: Path) -> bool:
    """Every file is there with the size that the manifest, written last, says."""
    try:
        sizes = json.loads((folder / MANIFEST).read_text("utf-8"))["sizes"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return False


def build(folder: Path, read: Any, negatives: int, together: bool = False) -> None:
    """Write the rows of a source; goes on where a killed builder was.

    read(done): the rows that follow after the first `done["read"]`, in blocks of (rows, what to
    note), the last one's note being the report. negatives: the most that a row keeps. together: all
    positives of an anchor are one row.
    """
    with building(folder, is_whole) as aside:
        if aside is None:
            return
        with Growing(aside, list(_RAW)) as files:
            for rows, done in read(files.done):
                _append(files, rows, done["parts"][-1][1])
                files.mark(done)
            done = files.done
        _finish(aside, done, negatives, together)
        settle(aside, folder)


def _append(files: Growing, rows: Sequence[Row], nli: bool) -> None:
    """rows: see `Row`; of NLI, (premise, hypothesis, 0 entailed or 2 contradicted)."""
    texts: list[bytes] = []
    keys, exact, scores, per_row, premises = [], [], [], [], []
    for anchor, positive, hard, *rest in rows:
        if nli:
            premises += [key_of(anchor.encode()), hard]
            row, own = [anchor, positive], ()
        else:
            own, label = rest[0], rest[1] if len(rest) > 1 else None
            second = label if positive is None else positive
            row = [anchor, *([] if second is None else [second]), *hard]
        per_row.append(len(row))
        simple = [plain(text) for text in row]
        keys += [key_of(text.encode()) for text in simple]
        exact += [keys[n - len(row)] if text == same else key_of(text.encode())
                  for n, (text, same) in enumerate(zip(row, simple, strict=True))]  # fmt: skip
        scores += [math.nan, *(own or (math.nan,) * (len(row) - 1))]
        texts += [text.encode() for text in row]
    columns = {"lengths.bin": [len(text) for text in texts], "keys.bin": keys,
               "exact.bin": exact, "scores.bin": scores, "per_row.bin": per_row,
               "nli.bin": premises}  # fmt: skip
    files.write("texts.bin", b"".join(texts))
    for name, values in columns.items():
        files.write(name, np.array(values, _RAW[name]).tobytes())


def _finish(folder: Path, done: dict[str, Any], negatives: int, together: bool) -> None:
    """From what was appended to what is read; which negatives a row has is decided here, since a
    text that is wrong in one row may be the positive of the same anchor in another."""

    def raw(name: str) -> np.ndarray:
        return np.fromfile(folder / name, _RAW[name])

    key, first, labelled = raw("keys.bin"), _sums(raw("per_row.bin")), done["labelled"]
    np.save(folder / "starts.npy", _sums(raw("lengths.bin")))
    np.save(folder / "keys.npy", key)
    score, counts = raw("scores.bin"), []
    n_alone = n_false = 0
    if any(nli for _, nli in done["parts"]):
        whole = _of_parts(first, raw("nli.bin").reshape(-1, 2), done["parts"],
                          negatives and negatives + SPARE)  # fmt: skip
    elif done["label"]:
        label = first[:-1] + 1
        _, which, counts = np.unique(key[label], return_inverse=True, return_counts=True)
        shared = np.flatnonzero(counts[which] > 1)
        n_alone = len(label) - len(shared)
        text = first[:-1][shared]
        whole = _Layout(text, np.arange(len(text) + 1), None, label[shared])
    else:
        whole = _Layout(np.arange(len(key)), first)
    scored = not np.isnan(score).all()
    np.save(folder / "scores.npy", score if scored else score[:0])
    found, together = whole, together and not done["scored"]
    if labelled and not done["scored"] and (together or (whole.per_row > 2).any()):
        whole.write(folder, "all_")
        row = whole.rows[:-1]
        known = np.unique(mixed(key[whole.texts[row]], key[whole.texts[row + 1]]))
        found, n_false = _chosen(whole, key, score if scored else None, known, negatives, together)
    elif together:  # bare text: equal ones come one after another
        found = whole.only(np.argsort(_in_order(key[whole.texts]), kind="stable"))
    found.write(folder)
    exact = np.memmap(folder / "exact.bin", np.int64, mode="r")
    digest = _digest(found, exact, score if scored else None)
    for name in _RAW.keys() - {"texts.bin", "exact.bin"}:
        (folder / name).unlink()
    sizes = {p.name: p.stat().st_size for p in folder.iterdir() if p.suffix in (".npy", ".bin")}
    table = {"sizes": sizes, "labelled": labelled, "scores": scored, "digest": digest,
             "scored": done["scored"], "reports": done["reports"], "n_false": n_false,
             "n_alone": n_alone, "labels": [len(counts), int(sum(n > 1 for n in counts))],
             "negatives": negatives, "together": together}  # fmt: skip
    (folder / MANIFEST).write_text(json.dumps(table), encoding="utf-8")


def _of_parts(
    first: np.ndarray, nli: np.ndarray, parts: Sequence[tuple[int, bool]], most: int
) -> _Layout:
    """The rows of files, some of them of NLI. parts: of each file, how many were appended."""
    found, start = [], 0
    for n, is_nli in parts:
        own = first[start : start + n + 1]
        start += n
        if is_nli:
            found.append(_nli_rows(own, nli[:n], most))
            nli = nli[n:]
        else:
            found.append(_Layout(np.arange(own[0], own[-1]), own - own[0]))
    texts, per_row = zip(*((one.texts, one.per_row) for one in found), strict=True)
    return _Layout(np.concatenate(texts), _sums(np.concatenate(per_row)))


def _nli_rows(first: np.ndarray, nli: np.ndarray, most: int) -> _Layout:
    """As `formats._nli_rows`: a row for each entailment, by premise; the contradictions of the
    premise are its negatives, and each row begins at another one. nli: (premise, label) of pairs of
    texts, which begin at `first`."""
    premise, label = _in_order(nli[:, 0]), nli[:, 1]
    order = np.argsort(premise, kind="stable")
    right, wrong = order[label[order] == 0], order[label[order] == 2]
    bounds = np.searchsorted(premise[wrong], np.arange(len(nli) + 1))
    begin, n = bounds[premise[right]], np.diff(bounds)[premise[right]]
    nth = np.arange(len(right)) - np.searchsorted(premise[right], premise[right])
    rows = _sums(2 + np.minimum(n, most))
    row = np.repeat(np.arange(len(right)), np.diff(rows))
    place = np.arange(len(row)) - rows[row]
    turn = begin[row] + (nth[row] + place - 2) % np.maximum(n, 1)[row]
    texts = first[right][row] + place  # of the anchor and the positive
    texts[place > 1] = first[wrong[turn[place > 1]]] + 1
    return _Layout(texts, rows)


def _chosen(
    whole: _Layout, key: np.ndarray, score: np.ndarray | None, known: np.ndarray, negatives: int,
    together: bool,
) -> tuple[_Layout, int]:  # fmt: skip
    """The rows with at most so many of their negatives, none of which is the anchor or one of its
    positives (`known`: pairs, ascending). -> also how many were left out as such."""
    kept, n_false = np.ones(len(whole.texts), bool), 0
    for start, stop in _spans(len(whole.rows) - 1):
        bounds = whole.rows[start : stop + 1]
        texts = slice(bounds[0], bounds[-1])
        own = key[whole.texts[texts]]
        row = np.repeat(np.arange(stop - start), np.diff(bounds))
        hard = np.arange(texts.start, texts.stop) - bounds[row] > 1
        anchor = own[(bounds[:-1] - bounds[0])[row]]
        false = hard & ((own == anchor) | _among(mixed(anchor, own), known))
        right = hard & ~false
        so_far = np.cumsum(right)  # negatives of these rows up to each text
        before = (so_far - right)[(bounds[:-1] - bounds[0])[row]]
        kept[texts] = ~hard | (right & (so_far - before <= negatives))
        n_false += int(false.sum())
    counts = np.add.reduceat(kept, whole.rows[:-1], dtype=np.int64)
    found = _Layout(whole.texts[kept], _sums(counts))
    return (_together(found, key) if together else found), n_false


def _together(each: _Layout, key: np.ndarray) -> _Layout:
    """As `formats._together`: all positives of an anchor in one row, before its negatives, each
    once, and as many negatives as the row had that had most."""
    row, place = each.places()
    own = key[each.texts]
    group = _in_order(own[each.rows[:-1]])
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
    rows = _sums(np.bincount(which[stays], minlength=n))
    return _Layout(each.texts[at[stays]], rows, right - 1 if (right > 1).any() else None)


def _in_order(values: np.ndarray) -> np.ndarray:
    """Numbers of equal values, in the order in which they come."""
    _, first, which = np.unique(values, return_index=True, return_inverse=True)
    number = np.empty(len(first), np.int64)
    number[first.argsort()] = np.arange(len(first))
    return number[which]


def _among(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which values are among the known ones, which ascend."""
    if not len(known):
        return np.zeros(len(values), bool)
    return known[np.minimum(np.searchsorted(known, values), len(known) - 1)] == values


def _digest(layout: _Layout, exact: np.ndarray, score: np.ndarray | None) -> str:
    """What names the content of rows; see `digest_of`."""
    digest, texts = hashlib.blake2b(digest_size=16), layout.texts
    for start, stop in _spans(len(texts)):
        digest.update(exact[texts[start:stop]].tobytes())
    digest.update(layout.per_row.tobytes())
    if score is not None and not all(
        np.isnan(score[texts[a:b]]).all() for a, b in _spans(len(texts))
    ):
        for start, stop in _spans(len(texts)):
            digest.update(score[texts[start:stop]].tobytes())
    if layout.also is not None and layout.also.any():
        digest.update(layout.also.tobytes())
    if layout.labels is not None:
        digest.update(exact[layout.labels].tobytes())
    return digest.hexdigest()


def digest_of(examples: Sequence[Example]) -> str:
    """What names the content of rows, in memory or on disk: texts, scores, labels, and which
    negatives are positives."""
    if isinstance(examples, StoredRows):
        return examples.digest
    exact, per_row, scores, also = array("q"), array("q"), array("d"), array("q")
    for e in examples:
        own = [e.anchor, *([] if e.positive is None else [e.positive]), *e.negatives]
        exact.extend(key_of(text.encode()) for text in own)
        per_row.append(len(own))
        scores.extend((math.nan, *(e.scores or [math.nan] * (len(own) - 1))))
        also.append(e.also)
    n, labels = len(exact), None
    if examples[0].label is not None:
        exact.extend(key_of(str(e.label).encode()) for e in examples)
        labels = np.arange(n, len(exact))
    layout = _Layout(np.arange(n), _sums(np.array(per_row)), np.array(also), labels)
    return _digest(layout, np.array(exact), np.array(scores))


def _sums(counts: np.ndarray) -> np.ndarray:
    """(n + 1,) int64: where each one begins, and the end."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def _spans(rows: int) -> Iterator[tuple[int, int]]:
    """Blocks of rows, (first, end), so that few are in memory at a time."""
    return ((start, min(rows, start + SPAN)) for start in range(0, rows, SPAN))


def mixed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A hash of each pair of keys, int64."""
    with np.errstate(over="ignore"):
        return a * np.int64(-7046029254386353131) ^ (b + (a >> np.int64(7)))


def text_keys(examples: Sequence[Example]) -> np.ndarray:
    """(2, rows) int64: the keys of each row's anchor and positive (the same of bare text)."""
    if isinstance(examples, StoredRows):
        return examples.pair_keys()
    pairs = ((e.anchor, e.anchor if e.positive is None else e.positive) for e in examples)
    found = [key_of(plain(text).encode()) for pair in pairs for text in pair]
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
        return bool(_among(mixed(*keys), self.known)[0])
