"""Training rows written to disk in one pass over their files; row_store.py reads them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mipic_llm.data.growing import Growing, building, settle
from mipic_llm.data.layout import Layout, chosen, in_order, layout_digest, of_parts, sums
from mipic_llm.data.read.cells import plain
from mipic_llm.data.read.rows import SPARE, Row, key_of
from mipic_llm.data.row_store import MANIFEST
from mipic_llm.disk import samples

VERSION = 4
_RAW = {"texts.bin": np.uint8, "lengths.bin": np.int64, "keys.bin": np.int64, "exact.bin": np.int64,
        "scores.bin": np.float64, "per_row.bin": np.int32, "nli.bin": np.int64}  # fmt: skip


def name_of(files: Iterable[Path], settings: Any) -> str:
    """What names the rows that are read from these files under these settings.

    A file is named by its name, size, time of change and content at 64 places.
    """
    digest = hashlib.blake2b(repr((VERSION, settings)).encode(), digest_size=16)
    for path in files:
        about = path.stat()
        digest.update(repr((path.name, about.st_size, about.st_mtime_ns)).encode())
        for piece in samples(path):
            digest.update(piece)
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
        settle(aside, folder, is_whole)


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

    key, first, labelled = raw("keys.bin"), sums(raw("per_row.bin")), done["labelled"]
    np.save(folder / "starts.npy", sums(raw("lengths.bin")))
    np.save(folder / "keys.npy", key)
    score, counts = raw("scores.bin"), []
    n_alone = n_false = 0
    if any(nli for _, nli in done["parts"]):
        whole = of_parts(first, raw("nli.bin").reshape(-1, 2), done["parts"],
                          negatives and negatives + SPARE)  # fmt: skip
    elif done["label"]:
        label = first[:-1] + 1
        _, which, counts = np.unique(key[label], return_inverse=True, return_counts=True)
        shared = np.flatnonzero(counts[which] > 1)
        n_alone = len(label) - len(shared)
        text = first[:-1][shared]
        whole = Layout(text, np.arange(len(text) + 1), None, label[shared])
    else:
        whole = Layout(np.arange(len(key)), first)
    scored = not np.isnan(score).all()
    np.save(folder / "scores.npy", score if scored else score[:0])
    found, together = whole, together and not done["scored"]
    if labelled and not done["scored"] and (together or (whole.per_row > 2).any()):
        whole.write(folder, "all_")
        found, n_false = chosen(whole, key, whole.pairs(key), negatives, together)
    elif together:  # bare text: equal ones come one after another
        found = whole.only(np.argsort(in_order(key[whole.texts]), kind="stable"))
    found.write(folder)
    exact = np.memmap(folder / "exact.bin", np.int64, mode="r")
    digest = layout_digest(found, exact, score if scored else None)
    for name in _RAW.keys() - {"texts.bin", "exact.bin"}:
        (folder / name).unlink()
    sizes = {p.name: p.stat().st_size for p in folder.iterdir() if p.suffix in (".npy", ".bin")}
    table = {"sizes": sizes, "labelled": labelled, "scores": scored, "digest": digest,
             "scored": done["scored"], "reports": done["reports"], "n_false": n_false,
             "n_alone": n_alone, "labels": [len(counts), int(sum(n > 1 for n in counts))],
             "negatives": negatives, "together": together}  # fmt: skip
    (folder / MANIFEST).write_text(json.dumps(table), encoding="utf-8")
