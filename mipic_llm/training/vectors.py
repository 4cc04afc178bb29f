"""Where a teacher's vectors come from: another model, loaded as `evaluate` does, or a file.

Both have `block(texts, rows)`: the vectors of some distinct texts, (n, K) float16 of length 1.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from mipic_llm.config import Config, need
from mipic_llm.config.schema import ModelConfig
from mipic_llm.data.read.cells import plain
from mipic_llm.data.read.rows import key_of
from mipic_llm.errors import UserError
from mipic_llm.evaluation.open import free, open_finished
from mipic_llm.model.directory import read_model
from mipic_llm.model.files import content_of
from mipic_llm.model.source import Source, prompts_by_kind
from mipic_llm.runtime import ranks as dist
from mipic_llm.training.distinct import MARKS, Texts

# Options that, of a training's own, say nothing of another model.
_OTHERS = ("pooling", "append_eos", "padding_side", "inner_norm", "quantization")
_PROMPTS = ("data.query_prompt", "data.document_prompt")


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


def about_model(
    config: Config, base: Source, kinds: set[str]
) -> tuple[list[Any], int, dict[str, str]]:
    """-> (what its vectors depend on, their width, its prompts by kind). kinds: of the texts."""
    told, source = _settings(config, base)
    prompts = prompts_by_kind(source, told.data, told.eval.symmetric_prompt)
    prompts = {kind: prompts[kind] for kind in MARKS}
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
             [told.train.precision, m.quantization] if own else "",
             *([prompts["symmetric"]] if "symmetric" in kinds else [])]  # fmt: skip
    return about, source.width, prompts


class ModelVectors:
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
        for place, kind in enumerate(MARKS):
            here_n = texts.kind_n[rows] == place
            if here_n.any():
                some = [texts.read(i) for i in index_n[here_n].tolist()]
                made = self.opened.encode(some, [self.opened.n_layers],
                                          batch_size=self.batch_size, kind=kind,
                                          show=False)  # fmt: skip
                made_nK[torch.from_numpy(here_n)] = made[:, 0]
        self.opened.encoder.forget()
        need(bool(made_nK.isfinite().all()), f"teacher.name: {self.opened.name} gives vectors that "
             "are not finite")  # fmt: skip
        return normalize(made_nK, dim=1).half().numpy()

    def close(self) -> None:
        self.opened.engine.close()
        del self.opened
        free()


# -------------------------------------------------------------------------------- of a file


def about_file(name: str) -> tuple[list[Any], int]:
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
    from pyarrow import types

    file, width = pyarrow.parquet.ParquetFile(name), None
    if not {"text", "vector"} <= set(file.schema_arrow.names):
        raise ValueError(f"its columns are {', '.join(file.schema_arrow.names)}; text and vector "
                         "are expected")  # fmt: skip
    kind = file.schema_arrow.field("vector").type
    if not (types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)):
        raise ValueError(f"its column vector holds {kind}; lists of numbers are expected")
    for batch in file.iter_batches(columns=["text", "vector"]):
        rows = batch.column("vector")
        values = np.asarray(rows.flatten(), np.float32)
        width = width or len(values) // max(1, len(rows))
        lengths = set(rows.value_lengths().to_pylist())
        if lengths != {width}:
            raise ValueError(f"its vectors have lengths {sorted(map(str, lengths | {width}))}")
        texts = batch.column("text").to_pylist()
        if not all(text is None or isinstance(text, str) for text in texts):
            raise ValueError(f"its column text holds {batch.column('text').type}; text is expected")
        yield texts, values.reshape(-1, width)


class FileVectors:
    """A file of vectors. Read whole, by the ranks that write blocks."""

    def __init__(self, name: str, texts: Texts, width: int, writes: bool) -> None:
        self.name, self.made_nK, problem = name, None, None
        if writes:
            try:
                self.made_nK = self._read(texts, width)
            except (UserError, OSError, ValueError) as error:
                problem = f"teacher.name: {self.name} {error}"
        problem = next((p for p in dist.gather_objects(problem) if p), None)
        need(problem is None, str(problem))

    def _read(self, texts: Texts, width: int) -> np.ndarray:
        key_n, n = texts.key_n, len(texts.key_n)
        if self.name.endswith(".npy"):
            rows = np.load(self.name, mmap_mode="r", allow_pickle=False)
            need(
                len(rows) == n,
                f"has {len(rows):,} rows, and the data has {n:,} distinct texts "
                "(by their first appearance: anchor, positive and negatives of each row)",
            )
            order_n = np.empty(n, np.int64)
            order_n[np.argsort(texts.first_n)] = np.arange(n)
            made_nK = _unit(rows[order_n])
        else:
            made_nK, there_n = np.empty((n, width), np.float16), np.zeros(n, bool)
            for some, rows in _parquet(self.name):
                keys = np.array([key_of(plain(text or "").encode()) for text in some], np.int64)
                at = np.minimum(np.searchsorted(key_n, keys), n - 1)
                fits = key_n[at] == keys
                made_nK[at[fits]], there_n[at[fits]] = _unit(rows[fits]), True
            lost = np.flatnonzero(~there_n)
            need(not len(lost), f"has no vector of {len(lost):,} of the data's {n:,} texts, such "
                 f"as {texts.read(int(lost[0]))[:60]!r}" if len(lost) else "")  # fmt: skip
        need(bool(np.isfinite(made_nK).all()), "has vectors that are not finite")
        return made_nK

    def block(self, texts: Texts, rows: slice) -> np.ndarray:
        return np.empty((0, 0)) if self.made_nK is None else self.made_nK[rows]

    def close(self) -> None:
        self.made_nK = None


def _unit(rows_nK: np.ndarray) -> np.ndarray:
    made = torch.from_numpy(np.array(rows_nK, np.float32))
    return normalize(made, dim=1).half().numpy()
