"""Training rows on disk, for more of them than memory holds: written in one pass over the files,
read as a sequence of `Example`.

Layout: <folder>/{texts.bin, starts.npy, keys.npy, scores.npy, texts.npy, rows.npy, manifest.json}.
Text t is texts.bin[starts[t] : starts[t + 1]], UTF-8, with the key keys[t] (`key_of`) and the score
scores[t] (NaN: none). Row r has the texts texts[rows[r] .. rows[r + 1] - 1]: its anchor, its
positive (labelled rows only), its negatives; texts that are read and not used are in no row.
In memory a process has 16 bytes a row, while it plans some 60.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from mipic_llm.data.growing import Growing, building, settle
from mipic_llm.data.read.cells import plain
from mipic_llm.data.read.rows import Example, Row, key_of

VERSION = 1
MANIFEST = "manifest.json"
SPAN = 1 << 20  # rows looked at together
_RAW = {"texts.bin": np.uint8, "lengths.bin": np.int64, "keys.bin": np.int64,
        "scores.bin": np.float64, "per_row.bin": np.int32}  # fmt: skip
_SAMPLE, _SAMPLES = 1 << 16, 64  # bytes and places of a file that name it


class StoredRows(Sequence[Example]):
    """The rows of a finished directory."""

    def __init__(self, folder: Path) -> None:
        def mapped(name: str) -> np.ndarray:
            return np.load(folder / name, mmap_mode="r")

        self.manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        self.digest: str = self.manifest["digest"]
        self.labelled: bool = self.manifest["labelled"]
        self.has_scores: bool = self.manifest["scores"]
        self._texts = np.memmap(folder / "texts.bin", np.uint8, mode="r")
        self._starts, self._key, self._score, self._text, self._first = map(
            mapped, ("starts.npy", "keys.npy", "scores.npy", "texts.npy", "rows.npy")
        )

    def same_score(self) -> bool:
        """Whether all scores are one and the same."""
        known = self._score[self._text][self._first[:-1] + 1]
        return bool(known.min() == known.max())

    def most_negatives(self) -> int:
        """Of any row."""
        return int(np.diff(self._first).max()) - 2

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
        texts = [
            bytes(self._texts[a:b]).decode()
            for a, b in zip(self._starts[places], self._starts[places + 1], strict=True)
        ]
        if not self.labelled:
            return Example(texts[0], None, (), row)
        scores = tuple(self._score[places[1:]].tolist()) if self.has_scores else ()
        scores = () if all(map(math.isnan, scores)) else scores
        return Example(texts[0], texts[1], tuple(texts[2:]), row, scores)

    def pair_keys(self) -> np.ndarray:
        """(2, rows) int64: the keys of each row's anchor and positive (the same of bare text)."""
        first = self._first[:-1]
        return self._key[np.stack([self._text[first], self._text[first + self.labelled]])]

    def each_text(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of all texts in their order, int64: key, row, place in the row."""
        row = np.repeat(np.arange(len(self)), np.diff(self._first))
        return self._key[self._text], row, np.arange(len(row)) - self._first[row]

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


def build(folder: Path, read: Any, negatives: int) -> None:
    """Write the rows of a source; goes on where a killed builder was.

    read(done): the rows that follow after the first `done["read"]`, in blocks of (rows, what to
    note), the last one's note being the report. negatives: the most that a row keeps.
    """
    with building(folder, is_whole) as aside:
        if aside is None:
            return
        with Growing(aside, list(_RAW)) as files:
            for rows, done in read(files.done):
                _append(files, rows)
                files.mark(done)
            done = files.done
        _finish(aside, done, negatives)
        settle(aside, folder)


def _append(files: Growing, rows: Sequence[Row]) -> None:
    texts: list[bytes] = []
    keys, scores, per_row = [], [], []
    for anchor, positive, hard, own in rows:
        row = [anchor, *([] if positive is None else [positive]), *hard]
        per_row.append(len(row))
        keys += [key_of(plain(text).encode()) for text in row]
        scores += [math.nan, *(own or (math.nan,) * (len(row) - 1))]
        texts += [text.encode() for text in row]
    columns = {"lengths.bin": [len(text) for text in texts], "keys.bin": keys,
               "scores.bin": scores, "per_row.bin": per_row}  # fmt: skip
    files.write("texts.bin", b"".join(texts))
    for name, values in columns.items():
        files.write(name, np.array(values, _RAW[name]).tobytes())


def _finish(folder: Path, done: dict[str, Any], negatives: int) -> None:
    """From what was appended to what is read; which negatives a row has is decided here, since a
    text that is wrong in one row may be the positive of the same anchor in another."""

    def raw(name: str) -> np.ndarray:
        return np.fromfile(folder / name, _RAW[name])

    def write(name: str, values: np.ndarray) -> None:
        np.save(folder / name, values)

    per_row, key = raw("per_row.bin").astype(np.int64), raw("keys.bin")
    first, labelled = _sums(per_row), done["labelled"]
    write("starts.npy", _sums(raw("lengths.bin")))
    write("keys.npy", key)
    score = raw("scores.bin")
    scored = not np.isnan(score).all()
    write("scores.npy", score if scored else score[:0])
    kept, n_false = np.ones(len(key), bool), 0
    if labelled and (per_row > 2).any():
        known = np.unique(mixed(key[first[:-1]], key[first[:-1] + 1]))
        for start, stop in _spans(len(per_row)):
            texts = slice(first[start], first[stop])
            row = np.repeat(np.arange(start, stop), per_row[start:stop])
            hard = np.arange(texts.start, texts.stop) - first[row] > 1
            anchor = key[first[row]]
            pair = mixed(anchor, key[texts])
            at = np.minimum(np.searchsorted(known, pair), len(known) - 1)
            false = hard & ((key[texts] == anchor) | (known[at] == pair))
            right = hard & ~false
            so_far = np.cumsum(right)  # negatives of these rows up to each text
            before = (so_far - right)[first[start:stop] - first[start]][row - start]
            kept[texts] = ~hard | (right & (so_far - before <= negatives))
            n_false += int(false.sum())
        per_row = np.add.reduceat(kept, first[:-1], dtype=np.int64)
    write("texts.npy", np.flatnonzero(kept))
    write("rows.npy", _sums(per_row))
    digest = hashlib.blake2b(key[kept].tobytes(), digest_size=16)
    digest.update(per_row.tobytes())
    if scored:
        digest.update(score[kept].tobytes())
    for name in ("lengths.bin", "keys.bin", "scores.bin", "per_row.bin"):
        (folder / name).unlink()
    sizes = {p.name: p.stat().st_size for p in folder.iterdir() if p.suffix in (".npy", ".bin")}
    table = {"sizes": sizes, "labelled": labelled, "scores": scored, "digest": digest.hexdigest(),
             "scored": done["scored"], "reports": done["reports"], "n_false": n_false}  # fmt: skip
    (folder / MANIFEST).write_text(json.dumps(table), encoding="utf-8")


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
