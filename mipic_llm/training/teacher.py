"""A teacher's vectors of the training's texts: made once, kept on disk, read by the batches.

Each distinct text (texts that differ in blanks alone are one) has one vector of length 1, float16.
They lie in the order of the texts' keys, in blocks: <folder>/<key>/{00000.f16, ..., about.json}.
The key hashes whatever the vectors depend on: the model's files or the hub's commit, its pooling,
prompts, tokens and precision, and the texts. A block appears by a rename, whole, so that an
interrupted build goes on where it stopped, and of two builders each may be first.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import socket
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import normalize

from mipic_llm.config import Config, need
from mipic_llm.config.schema import ModelConfig
from mipic_llm.data.batch import StepBatch
from mipic_llm.data.growing import cache_home
from mipic_llm.data.read.cells import plain
from mipic_llm.data.read.rows import TextSource, key_of
from mipic_llm.data.row_store import StoredRows
from mipic_llm.errors import UserError
from mipic_llm.evaluation.encode import encode
from mipic_llm.evaluation.open import open_finished
from mipic_llm.model.directory import Source, prompts_by_kind, read_model
from mipic_llm.model.files import content_of
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.ranks import say
from mipic_llm.training.progress import Progress

VERSION = 1
BLOCK = 4096  # texts
FILES = (".npy", ".parquet")
DOCUMENT = 0x5851F42D4C957F2D  # sets the key of a text as a document apart from that as a query
# Options that, of a training's own, say nothing of another model.
_OTHERS = ("pooling", "append_eos", "padding_side", "inner_norm", "quantization")
_PROMPTS = ("data.query_prompt", "data.document_prompt")


class Texts(NamedTuple):
    """The distinct texts: key_n ascending; first_n, where each comes first in the data; read(i) =
    the i-th text; apart: queries and documents have prompts of their own, query_n says which."""

    key_n: np.ndarray
    first_n: np.ndarray
    query_n: np.ndarray
    read: Callable[[int], str]
    apart: bool


class Teacher:
    """The vectors of one teacher for one training's texts; `build` makes what is not there yet.

    folder: of the blocks; None = they stay in the memory of every rank.
    """

    def __init__(self, key: str, width: int, texts: Texts, folder: Path | None) -> None:
        self.key, self.width, self.texts, self.folder = key, width, texts, folder
        self._blocks: dict[int, np.ndarray] = {}

    @property
    def n_blocks(self) -> int:
        return -(-len(self.texts.key_n) // BLOCK)

    def vectors(self, batch: StepBatch) -> np.ndarray:
        """(S, K) float32, of a step's sequences."""
        key_S = np.array(batch.keys)
        if self.texts.apart and batch.source.kind != "texts" and batch.groups is None:
            key_S[batch.n_anchors :] ^= DOCUMENT
        at_S = np.searchsorted(self.texts.key_n, key_S)
        found = np.array_equal(self.texts.key_n[np.minimum(at_S, len(self.texts.key_n) - 1)], key_S)
        assert found, "a text that was not among the training's"
        out_SK = np.empty((len(at_S), self.width), np.float32)
        for block in np.unique(at_S // BLOCK).tolist():
            here_S = at_S // BLOCK == block
            out_SK[here_S] = self._block(block)[at_S[here_S] - block * BLOCK]
        return out_SK

    def _size(self, block: int) -> int:
        return min(BLOCK, len(self.texts.key_n) - block * BLOCK)

    def _path(self, block: int) -> Path:
        assert self.folder is not None
        return self.folder / f"{block:05d}.f16"

    def _block(self, block: int) -> np.ndarray:
        if block not in self._blocks:
            shape = (self._size(block), self.width)
            self._blocks[block] = np.memmap(self._path(block), np.float16, "r", shape=shape)
        return self._blocks[block]

    def _whole(self, block: int) -> bool:
        try:
            return self._path(block).stat().st_size == 2 * self._size(block) * self.width
        except OSError:
            return False

    def missing(self) -> list[int]:
        """Blocks that are not there on every machine; all ranks call."""
        own = [self.folder is not None and self._whole(b) for b in range(self.n_blocks)]
        table = zip(*dist.gather_objects(own), strict=True)
        return [b for b, row in enumerate(table) if not all(row)]

    def keep(self, block: int, made_nK: np.ndarray) -> None:
        """All ranks call; the first of each machine writes. OSError where the disk refuses."""
        if self.folder is None:
            self._blocks[block] = made_nK
        elif int(os.environ.get("LOCAL_RANK") or 0) == 0 and not self._whole(block):
            path = self._path(block)
            fresh = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.new")
            try:
                with fresh.open("wb") as file:
                    file.write(np.ascontiguousarray(made_nK).data)
                    file.flush()
                    os.fsync(file.fileno())
                fresh.replace(path)
            finally:
                fresh.unlink(missing_ok=True)


def open_teacher(config: Config, sources: Sequence[TextSource], base: Source) -> Teacher | None:
    """The teacher that a resolved configuration asks for; nothing is loaded or made yet. base: what
    the training begins with.

    Raises UserError for what is no model and no file of vectors.
    """
    t = config.teacher
    if t.name == "none":
        need(not t.scores + t.margin or any(s.traits.scores for s in sources), "teacher.scores and "
             "teacher.margin: no row has scores, and there is no teacher; give rows with "
             "pos_scores and neg_scores, or --teacher.name MODEL")  # fmt: skip
        return None
    if t.name.endswith(FILES):
        about, width = _file(t.name)
        texts = distinct(sources, apart=False)
    else:
        if any(s.changes() for s in config.own_sources):
            say("note: the teacher reads the texts of all sources with one length and the same "
                "prompts; those of data.sources are the student's alone")  # fmt: skip
        about, width, apart = _model(config, base)
        texts = distinct(sources, apart=apart)
    digest = hashlib.blake2b(json.dumps([VERSION, about]).encode(), digest_size=16)
    digest.update(texts.key_n.tobytes())
    if t.name.endswith(".npy"):
        digest.update(texts.first_n.tobytes())
    key, option = digest.hexdigest(), config.data.token_cache
    folder = None if option == "off" else cache_home(option) / "teachers" / key
    return Teacher(key, width, texts, folder)


def distinct(sources: Sequence[TextSource], *, apart: bool) -> Texts:
    """The texts of all rows, each once (as a query and as a document where `apart`). Memory: some
    24 bytes for each text of a row, 8 of them kept."""
    found = [_each_text(source) for source in sources]
    key, row, place = (np.concatenate(column) for column in zip(*found, strict=True))
    which = np.repeat(np.arange(len(found)), [len(one[0]) for one in found])
    if apart:  # unlabelled text is a query in both views, and stands once in its row
        key = np.where(place > 0, key ^ DOCUMENT, key)
    key_n, first_n = np.unique(key, return_index=True)
    which, row, place = which[first_n], row[first_n], place[first_n]

    def read(i: int) -> str:
        e = sources[which[i]].examples[int(row[i])]
        return (e.anchor, e.positive, *e.negatives)[place[i]]

    return Texts(key_n, first_n, place == 0, read, apart)


def _each_text(source: TextSource) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of all texts of a source's rows in their order: key, row, place in the row."""
    if isinstance(source.examples, StoredRows):
        return source.examples.each_text()
    keys, rows, places = array("q"), array("q"), array("q")
    for n, e in enumerate(source.examples):
        for place, text in enumerate((e.anchor, e.positive, *e.negatives)):
            if text is not None:
                keys.append(key_of(plain(text).encode()))
                rows.append(n)
                places.append(place)
    return np.array(keys, np.int64), np.array(rows, np.int64), np.array(places, np.int64)


def build(teacher: Teacher, config: Config, base: Source) -> None:
    """Make the vectors that are not there yet; all ranks call. The model is gone afterwards."""
    n, missing, name = len(teacher.texts.key_n), teacher.missing(), config.teacher.name
    where = f" ({teacher.folder})" if teacher.folder else ""
    if not missing:
        say(f"teacher {name}: vectors of {n:,} texts, width {teacher.width}, cache hit{where}")
        return
    there = n - sum(map(teacher._size, missing))
    say(f"teacher {name}: vectors of {n:,} texts, width {teacher.width}"
        f"{f', {there:,} of them there already' if there else ''}{where}")  # fmt: skip
    _write(teacher, lambda: teacher.folder and _begin(teacher.folder, config))
    maker = _File(config, teacher) if name.endswith(FILES) else _Model(config, base)
    progress = Progress(n, there, dist.rank() == 0, what=f"teacher {name}: text")
    for block in missing:
        first = block * BLOCK
        made_nK = maker.block(teacher.texts, slice(first, first + teacher._size(block)))
        _write(teacher, lambda block=block, made=made_nK: teacher.keep(block, made))
        there += teacher._size(block)
        progress.update(there, {})
    progress.close()
    maker.close()


def _begin(folder: Path, config: Config) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if dist.rank() == 0:
        about = json.dumps(config.teacher.model_dump() | {"model": config.model.name})
        (folder / "about.json").write_text(about + "\n", encoding="utf-8")


def _write(teacher: Teacher, work: Callable[[], Any]) -> None:
    """work() on every rank; what the disk of one refuses is a UserError on all."""
    problem = None
    try:
        work()
    except OSError as error:
        problem = (f"data.token_cache: cannot write the teacher's vectors to {teacher.folder}: "
                   f"{error.strerror}; make room or name another directory")  # fmt: skip
    problem = next((p for p in dist.gather_objects(problem) if p), None)
    need(problem is None, str(problem))


# ------------------------------------------------------------------------------- of another model


def _settings(config: Config, base: Source) -> tuple[Config, Source]:
    """What `open_finished` reads the teacher with, its model.name included; and its files."""
    t, m, own = config.teacher, config.model, config.teacher.name == "base"
    if own:
        name, revision, source = m.name, m.revision, base
    else:
        name, revision = t.name, t.revision
        source = read_model(name, revision=revision, trust_remote_code=m.trust_remote_code)
    longest = t.max_length or config.data.max_length or source.max_length
    settings = {f"model.{key}": getattr(m if own else ModelConfig(), key) for key in _OTHERS}
    settings |= {"model.name": name, "model.revision": revision,
                 "train.precision": config.train.precision}  # fmt: skip
    if own:  # as the training reads it, whatever its files say
        return config.replace("flag", **settings, **{"data.max_length": longest}), source
    told = config.replace("derived", **settings, **dict.fromkeys(_PROMPTS))
    longest = min(longest, source.max_length)
    return told.replace("flag", **{"data.max_length": longest}), source


def _model(config: Config, base: Source) -> tuple[list[Any], int, bool]:
    """-> (what its vectors depend on, their width, whether queries and documents differ)."""
    told, source = _settings(config, base)
    prompts = prompts_by_kind(source, told.data)
    m, own = told.model, config.teacher.name == "base"
    after = hashlib.blake2b(digest_size=16)
    for dense in source.dense:
        for part in dense:
            raw = part.numpy().tobytes() if isinstance(part, torch.Tensor) else repr(part).encode()
            after.update(raw)
    pooling = source.pooling + ("" if source.include_prompt else " without prompts")
    about = [source.content, source.adapter and content_of(source.adapter), after.hexdigest(),
             pooling, source.lower_case, prompts["query"], prompts["document"],
             told.data.max_length, m.append_eos,
             [told.train.precision, m.quantization] if own else ""]  # fmt: skip
    return about, source.width, prompts["query"] != prompts["document"]


class _Model:
    """A model, loaded as `evaluate` does."""

    def __init__(self, config: Config, base: Source) -> None:
        told, source = _settings(config, base)
        self.batch_size = config.eval.batch_size
        try:
            self.opened = open_finished(told, source.name, source)
        except UserError as error:  # of its options, which have other names here
            raise UserError(str(error).replace("data.max_length", "teacher.max_length")) from error

    def block(self, texts: Texts, rows: slice) -> np.ndarray:
        """(n, K) of these texts; all ranks call."""
        index_n = np.arange(rows.start, rows.stop)
        made_nK = torch.empty(len(index_n), self.opened.width)
        for kind, here_n in (("query", texts.query_n[rows]), ("document", ~texts.query_n[rows])):
            if not texts.apart:
                here_n = np.full(len(index_n), kind == "query")
            if here_n.any():
                some = [texts.read(i) for i in index_n[here_n].tolist()]
                o = self.opened
                made = encode(o.engine, o.encoder, some, [o.n_layers], batch_size=self.batch_size,
                              kind=kind)  # fmt: skip
                made_nK[torch.from_numpy(here_n)] = made[:, 0]
        self.opened.encoder.forget()
        need(bool(made_nK.isfinite().all()), f"teacher.name: {self.opened.name} gives vectors that "
             "are not finite")  # fmt: skip
        return normalize(made_nK, dim=1).half().numpy()

    def close(self) -> None:
        self.opened.engine.close()
        del self.opened
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


# -------------------------------------------------------------------------------- of a file


def _file(name: str) -> tuple[list[Any], int]:
    """-> (what names its content, the width of its vectors). UserError for no file of vectors."""
    try:
        if name.endswith(".npy"):
            shape = np.load(name, mmap_mode="r", allow_pickle=False).shape
            need(len(shape) == 2, f"teacher.name: {name} has the shape {shape}; a matrix is "
                 "expected, with a row for each text")  # fmt: skip
            width = shape[1]
        else:
            found = next(_parquet(name), None)
            need(found is not None, f"teacher.name: {name} has no rows")
            width = found[1].shape[1]
        with open(name, "rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
    except OSError as error:
        raise UserError(f"teacher.name: cannot read {name}: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"teacher.name: {name} is no file of vectors: {error}") from error
    return [digest.hexdigest()], width


def _parquet(name: str) -> Any:
    """Texts and their vectors (n, K), batch by batch. ValueError for other columns or shapes."""
    import pyarrow.parquet

    file, width = pyarrow.parquet.ParquetFile(name), None
    if not {"text", "vector"} <= set(file.schema_arrow.names):
        raise ValueError(f"its columns are {', '.join(file.schema_arrow.names)}; text and vector "
                         "are expected")  # fmt: skip
    for batch in file.iter_batches(columns=["text", "vector"]):
        rows = batch.column("vector")
        values = np.asarray(rows.flatten(), np.float32)
        width = width or len(values) // max(1, len(rows))
        lengths = set(rows.value_lengths().to_pylist())
        if lengths != {width}:
            raise ValueError(f"its vectors have lengths {sorted(map(str, lengths | {width}))}")
        yield batch.column("text").to_pylist(), values.reshape(-1, width)


class _File:
    """A file of vectors. Read whole, by the ranks that write blocks."""

    def __init__(self, config: Config, teacher: Teacher) -> None:
        self.name, self.made_nK, problem = config.teacher.name, None, None
        if teacher.folder is None or int(os.environ.get("LOCAL_RANK") or 0) == 0:
            try:
                self.made_nK = self._read(teacher)
            except (UserError, OSError, ValueError) as error:
                problem = f"teacher.name: {self.name} {error}"
        problem = next((p for p in dist.gather_objects(problem) if p), None)
        need(problem is None, str(problem))

    def _read(self, teacher: Teacher) -> np.ndarray:
        key_n, n = teacher.texts.key_n, len(teacher.texts.key_n)
        if self.name.endswith(".npy"):
            rows = np.load(self.name, mmap_mode="r", allow_pickle=False)
            need(
                len(rows) == n,
                f"has {len(rows):,} rows, and the data has {n:,} distinct texts "
                "(by their first appearance: anchor, positive and negatives of each row)",
            )
            order_n = np.empty(n, np.int64)
            order_n[np.argsort(teacher.texts.first_n)] = np.arange(n)
            made_nK = _unit(rows[order_n])
        else:
            made_nK, there_n = np.empty((n, teacher.width), np.float16), np.zeros(n, bool)
            for texts, rows in _parquet(self.name):
                keys = np.array([key_of(plain(text or "").encode()) for text in texts], np.int64)
                at = np.minimum(np.searchsorted(key_n, keys), n - 1)
                fits = key_n[at] == keys
                made_nK[at[fits]], there_n[at[fits]] = _unit(rows[fits]), True
            lost = np.flatnonzero(~there_n)
            need(not len(lost), f"has no vector of {len(lost):,} of the data's {n:,} texts, such "
                 f"as {teacher.texts.read(int(lost[0]))[:60]!r}" if len(lost) else "")  # fmt: skip
        need(bool(np.isfinite(made_nK).all()), "has vectors that are not finite")
        return made_nK

    def block(self, texts: Texts, rows: slice) -> np.ndarray:
        return np.empty((0, 0)) if self.made_nK is None else self.made_nK[rows]

    def close(self) -> None:
        self.made_nK = None


def _unit(rows_nK: np.ndarray) -> np.ndarray:
    made = torch.from_numpy(np.array(rows_nK, np.float32))
    return normalize(made, dim=1).half().numpy()
