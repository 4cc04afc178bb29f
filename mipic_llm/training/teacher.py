"""A teacher's vectors of the training's texts: made once, kept on disk, read by the batches.

Each distinct text (texts that differ in blanks alone are one) has one vector of length 1, float16.
They lie in the order of the texts' keys, in blocks: <folder>/<key>/{00000.f16, ..., about.json}.
The key hashes whatever the vectors depend on: the model's files or the hub's commit, its pooling,
prompts, tokens and precision, and the texts. A block appears by a rename, whole, so that an
interrupted build goes on where it stopped, and of two builders each may be first.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mipic_llm import launched
from mipic_llm.config import Config, need
from mipic_llm.data.batch import StepBatch
from mipic_llm.data.growing import cache_home
from mipic_llm.data.read.rows import TextSource
from mipic_llm.model.source import Source
from mipic_llm.report.progress import Progress
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.ranks import say
from mipic_llm.training.distinct import Texts, distinct, kinds, marks_of
from mipic_llm.training.vectors import FileVectors, ModelVectors, about_file, about_model

VERSION = 1
BLOCK = 4096  # texts
FILES = (".npy", ".parquet")


class Teacher:
    """The vectors of one teacher for one training's texts; `build` makes what is not there yet.

    folder: of the blocks; None = they stay in the memory of every rank.
    """

    def __init__(self, key: str, width: int, texts: Texts, folder: Path | None) -> None:
        self.key, self.width, self.texts, self.folder = key, width, texts, folder
        self._blocks: dict[int, np.ndarray] = {}

    @property
    def first_here(self) -> bool:
        """Whether this rank is the first one of its machine, which writes."""
        return launched.first_here()

    @property
    def n_blocks(self) -> int:
        return -(-len(self.texts.key_n) // BLOCK)

    def vectors(self, batch: StepBatch) -> np.ndarray:
        """(S, K) float32, of a step's sequences."""
        key_S, n, marks = np.array(batch.keys), batch.n_anchors, self.texts.marks
        if batch.source.kind == "scored" or batch.groups is not None:
            key_S ^= marks["symmetric"]
        elif batch.source.kind != "texts":
            key_S[n:] ^= marks["document"]
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
        """Mapped by torch, which closes the file: a `np.memmap` keeps it open, and a process may
        open some thousand files, of which four million texts have as many."""
        if block not in self._blocks:
            size = self._size(block) * self.width
            found = torch.from_file(str(self._path(block)), size=size, dtype=torch.float16)
            self._blocks[block] = found.view(-1, self.width).numpy()
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
        elif self.first_here and not self._whole(block):
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
        return None
    if t.name.endswith(FILES):
        about, width = about_file(t.name)
        texts = distinct(sources)
    else:
        if any(s.changes() for s in config.own_sources):
            say("note: the teacher reads the texts of all sources with one length and the same "
                "prompts; those of data.sources are the student's alone")  # fmt: skip
        used = {kind for source in sources for kind in kinds(source)}
        about, width, prompts = about_model(config, base, used)
        texts = distinct(sources, marks_of(prompts))
    digest = hashlib.blake2b(json.dumps([VERSION, about]).encode(), digest_size=16)
    digest.update(texts.key_n.tobytes())
    if t.name.endswith(".npy"):
        digest.update(texts.first_n.tobytes())
    key, option = digest.hexdigest(), config.data.token_cache
    folder = None if option == "off" else cache_home(option) / "teachers" / key
    return Teacher(key, width, texts, folder)


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
    if name.endswith(FILES):
        writes = teacher.folder is None or teacher.first_here
        maker = FileVectors(name, teacher.texts, teacher.width, writes)
    else:
        maker = ModelVectors(config, base)
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
