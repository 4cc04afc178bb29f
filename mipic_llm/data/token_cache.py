"""Every row's token ids, made once and read as int32 slices of memory-mapped files.

Layout: <folder>/<key>/{ids.bin, starts.npy, rows.npy, manifest.json}. Sequence s is
ids[starts[s] : starts[s + 1]]; row r owns sequences rows[r] .. rows[r + 1] - 1: its anchor, its
positive (labelled rows only), its negatives. The key hashes whatever the ids depend on and the size
of the model's table, which they must fit: a change of text, tokenizer, prompts or max_length is
another directory. It appears by a rename, so half-written ones are never read, and of two builders
one wins.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mipic_llm.data.growing import PROGRESS, Growing, building, settle
from mipic_llm.data.layout import mapped
from mipic_llm.data.read.rows import Example
from mipic_llm.data.row_store import StoredRows
from mipic_llm.data.tokenise import TextEncoder

VERSION = 2
MANIFEST = "manifest.json"
BLOCK = 1024  # rows tokenised at a time
MARK = 65_536  # rows after which a killed builder goes on


# Token ids of a training row: anchor, positive, negatives; int32, read only. Unlabelled text is its
# own positive: the same array twice.
RowTokens = tuple[np.ndarray, ...]


# Which of its hard negatives each row has in a step; None = all.
Chosen = Sequence[Sequence[int]] | None


def only(examples: Sequence[Example], chosen: Chosen) -> list[Example]:
    """The rows with the chosen hard negatives, and the scores of those."""
    if chosen is None:
        return list(examples)
    return [e.only(own) for e, own in zip(examples, chosen, strict=True)]


class LazyTokens:
    """Rows tokenised when they are first asked for, and remembered by the encoder."""

    def __init__(
        self, examples: Sequence[Example], encoder: TextEncoder, scored: bool = False
    ) -> None:
        self.examples, self.encoder, self.scored = examples, encoder, scored

    def rows(self, numbers: Iterable[int], chosen: Chosen = None) -> list[RowTokens]:
        examples = only([self.examples[i] for i in numbers], chosen)
        return list(_tokenise(examples, self.encoder.arrays, self.scored))

    def lengths(self, numbers: Sequence[int], chosen: Chosen = None) -> np.ndarray:
        """Tokens of each row over all its forward passes."""
        return np.array([sum(map(len, row)) for row in self.rows(numbers, chosen)])

    def cut(self, most: int = 10_000) -> tuple[int, int]:
        """(texts looked at, those of them cut at max_length); of so many rows, evenly spaced."""
        made, cut = self.encoder.made, self.encoder.cut
        self.rows(range(0, len(self.examples), 1 + (len(self.examples) - 1) // most))
        return self.encoder.made - made, self.encoder.cut - cut


class StoredTokens:
    """The same from the files of `build`; every process maps the same pages."""

    def __init__(self, folder: Path) -> None:
        self.starts = mapped(folder / "starts.npy")
        self._first = mapped(folder / "rows.npy")
        self._ids = mapped(folder / "ids.bin", np.int32)
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        self.labelled, self._cut = manifest["labelled"], manifest["cut"]

    def rows(self, numbers: Iterable[int], chosen: Chosen = None) -> list[RowTokens]:
        if chosen is None:
            return [self._row(i) for i in numbers]
        return [self._row(i, n) for i, n in zip(numbers, chosen, strict=True)]

    def _row(self, number: int, chosen: Sequence[int] | None = None) -> RowTokens:
        first, last = int(self._first[number]), int(self._first[number + 1])
        starts = self.starts[first : last + 1].tolist()
        ends = list(pairwise(starts))
        if chosen is not None:
            ends = ends[:2] + [ends[2 + n] for n in chosen]
        ids = [np.asarray(self._ids[a:b]) for a, b in ends]
        return tuple(ids) if self.labelled else (ids[0], ids[0])

    def lengths(self, numbers: Sequence[int], chosen: Chosen = None) -> np.ndarray:
        """Tokens of each row over all its forward passes."""
        if chosen is not None:
            return np.array([sum(map(len, row)) for row in self.rows(numbers, chosen)])
        rows = np.asarray(numbers)
        tokens = self.starts[self._first[rows + 1]] - self.starts[self._first[rows]]
        return tokens if self.labelled else 2 * tokens

    def cut(self) -> tuple[int, int]:
        """(texts, those of them cut at max_length)."""
        return len(self.starts) - 1, self._cut


Tokens = LazyTokens | StoredTokens


def kinds_of(example: Example, scored: bool) -> tuple[str, str]:
    """Kinds of a row's anchor and of its other texts (of `tokenise.KINDS`)."""
    if scored:
        return "symmetric", "symmetric"
    return "query", "document" if example.positive is not None else "query"


def _tokenise(examples: Sequence[Example], ids: Any, scored: bool) -> Iterable[RowTokens]:
    """ids(texts, kind) is asked once per column. Anchors take the query prompt, the others the
    document prompt; unlabelled text is a query in both views, or the prompt would tell them apart;
    both texts of a scored pair take the prompt of STS.
    """
    query, document = kinds_of(examples[0], scored) if len(examples) else ("", "")
    anchors = ids([e.anchor for e in examples], query)
    labelled = {e.positive is not None for e in examples}
    assert len(labelled) == 1, "sources mixed in a step"
    if labelled == {False}:
        yield from ((anchor, anchor) for anchor in anchors)
        return
    positives = ids([e.positive or "" for e in examples], document)
    negatives = iter(ids([text for e in examples for text in e.negatives], document))
    for example, anchor, positive in zip(examples, anchors, positives, strict=True):
        yield anchor, positive, *(next(negatives) for _ in example.negatives)


def key_of(examples: Sequence[Example], encoder: TextEncoder, scored: bool = False) -> str | None:
    """What names the ids of these rows; None for a tokenizer whose whole state we cannot read."""
    backend = getattr(encoder.tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    state = json.loads(backend.to_str())
    state.pop("truncation", None)  # left behind by the last call; ours is max_length
    state.pop("padding", None)
    settings = [VERSION, state, type(encoder.tokenizer).__name__, encoder.max_length,
                encoder.append_eos_id, sorted(encoder.prompts.items()),
                encoder.vocabulary]  # fmt: skip
    settings += ["scored"] if scored else []
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16)
    if isinstance(examples, StoredRows):
        digest.update(examples.digest.encode())
        return digest.hexdigest()
    for example in examples:
        digest.update(json.dumps(example[:3]).encode())
    return digest.hexdigest()


def is_whole(folder: Path) -> bool:
    """Every file is there with the size and content that the manifest, written last, says."""
    try:
        files = json.loads((folder / MANIFEST).read_text("utf-8"))["files"]
        return all(_fingerprint(folder / name) == found for name, found in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def _fingerprint(path: Path) -> list:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
    return [path.stat().st_size, digest.hexdigest()]


def build(
    folder: Path, examples: Sequence[Example], encoder: TextEncoder, scored: bool = False,
    told: Callable[[int], None] = lambda done: None,
) -> None:  # fmt: skip
    """Writes the files; goes on where a killed builder was. told: called with the rows that are
    done. OSError where the place cannot be written to."""
    with building(folder, is_whole) as aside:
        if aside:
            _write(aside, examples, encoder, scored, told)
            settle(aside, folder, is_whole)


def _write(
    aside: Path, examples: Sequence[Example], encoder: TextEncoder, scored: bool,
    told: Callable[[int], None],
) -> None:  # fmt: skip
    labelled, counted = examples[0].positive is not None, ("lengths.bin", "per_row.bin")
    with Growing(aside, ["ids.bin", *counted]) as files:
        done, unmarked = files.done or {"rows": 0, "cut": 0}, 0
        before = encoder.cut - done["cut"]
        for start in range(done["rows"], len(examples), BLOCK):
            lengths, per_row = [], []
            block = examples[start : start + BLOCK]
            for row in _tokenise(block, encoder.fresh, scored):
                texts = row if labelled else row[:1]
                per_row.append(len(texts))
                lengths += map(len, texts)
                files.write("ids.bin", b"".join(ids.tobytes() for ids in texts))
            for name, values in zip(counted, (lengths, per_row), strict=True):
                files.write(name, np.array(values, np.int32).tobytes())
            unmarked += len(block)
            done = {"rows": start + len(block), "cut": encoder.cut - before}
            if unmarked >= MARK or done["rows"] == len(examples):
                files.mark(done)
                unmarked = 0
                told(done["rows"])
    for name, raw in zip(("starts.npy", "rows.npy"), counted, strict=True):
        counts = np.fromfile(aside / raw, np.int32)
        (aside / raw).unlink()
        np.save(aside / name, np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]))
    (aside / PROGRESS).unlink()
    found = {p.name: _fingerprint(p) for p in sorted(aside.iterdir())}
    table = {"labelled": labelled, "cut": done["cut"], "files": found}
    (aside / MANIFEST).write_text(json.dumps(table), encoding="utf-8")
