"""Training rows and a corpus as numbered texts, their vectors, and the scores of their pairs."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mipic_llm.config import Config, flatten, need
from mipic_llm.config.files import legal_path
from mipic_llm.data.read.cells import plain, texts_of
from mipic_llm.data.read.containers import containers
from mipic_llm.data.read.folders import beir_of, beir_texts
from mipic_llm.data.read.formats import collect_rows
from mipic_llm.data.read.rows import Example, key_of
from mipic_llm.data.read.training import read_training
from mipic_llm.errors import UserError
from mipic_llm.evaluation.open import Opened, free, open_finished
from mipic_llm.evaluation.tasks.base import DOCUMENT, QUERY, SYMMETRIC
from mipic_llm.mining.nearest import cosines
from mipic_llm.model.directory import read_config
from mipic_llm.model.files import content_of, resolve_name
from mipic_llm.report.progress import Progress
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.ranks import say

# (query, document) numbers of P pairs -> (P,) float64 scores
Score = Callable[[np.ndarray, np.ndarray], np.ndarray]
_BATCHES = 32  # batches between two lines of progress
# What flags say of the first model; the second one follows its own files.
_OWN = ("model.revision", "model.pooling", "model.append_eos", "model.padding_side",
        "model.inner_norm", "model.quantization", "data.max_length", "data.query_prompt",
        "data.document_prompt")  # fmt: skip


class Table(NamedTuple):
    """R rows over Q queries and N documents, of which the first `n_candidates` may be negatives.

    Texts are distinct as in training's masks. query_R, positive_R: numbers; positive -1 = to be
    found. own_Q: the document that is the query's own text, or -1. known: per query, its positives
    in all rows. symmetric: queries and documents are the same kind of text.
    """

    rows: list[Example]
    queries: list[str]
    documents: list[str]
    n_candidates: int
    query_R: np.ndarray
    positive_R: np.ndarray
    own_Q: np.ndarray
    known: list[set[int]]
    symmetric: bool


def read_table(config: Config, data: Any = None) -> Table:
    """Read `data` (see `read_training`; None = data.train) and mine.corpus. Raises UserError."""
    settings, d = config.extra.mine, config.data
    own = next((s.path for s in d.sources if s.changes() and data is None), None)
    need(own is None, f"data.sources: {own} has prompts or a length of its own, which mining does "
         "not follow; mine it by itself (--data.train, --data.query_prompt ..)")  # fmt: skip
    sources, reports = read_training(
        config.training if data is None else data, negatives=1 << 30, on_bad_rows=d.on_bad_rows,
        cache_dir=d.cache_dir, ignore=d.ignore_columns,
    )  # fmt: skip
    for report in reports:
        say(str(report))
    for s in sources:
        need(s.traits.kind in ("pairs", "texts"), f"{s.name}: mining takes pairs, triplets and "
             f"unlabelled text; its rows are {s.traits.kind}")  # fmt: skip
    rows = [example for source in sources for example in source.examples]
    bare = next((s.name for s in sources if s.examples[0].positive is None), None)
    need(not bare or settings.span, f"{bare} has no positives; --mine.positives 0.7:0.95 takes "
         "those from the nearest texts with such scores")  # fmt: skip
    queries, documents = {}, {}  # key -> number and text

    def add(texts: dict[int, tuple[int, str]], text: str) -> int:
        return texts.setdefault(key_of(plain(text).encode()), (len(texts), text))[0]

    for text in _corpus(config) if settings.corpus else (
        text for row in rows for text in (row.positive or row.anchor, *row.negatives)
    ):  # fmt: skip
        add(documents, text)
    n_candidates = len(documents)
    query_R = np.array([add(queries, row.anchor) for row in rows])
    positive_R = np.array([add(documents, r.positive) if r.positive else -1 for r in rows])
    known: list[set[int]] = [set() for _ in queries]
    for query, positive in zip(query_R, positive_R.tolist(), strict=True):
        known[query] |= {positive} - {-1}
    own_Q = np.array([documents.get(key, (-1,))[0] for key in queries])
    texts = [[text for _, text in found.values()] for found in (queries, documents)]
    symmetric = not settings.corpus and bool((positive_R < 0).all())
    return Table(rows, *texts, n_candidates, query_R, positive_R, own_Q, known, symmetric)


def _corpus(config: Config) -> list[str]:
    """The texts of mine.corpus, a title before its text. Raises UserError."""

    def pick(row: dict) -> str:
        if {"text", "sentence"} & set(row):
            return "text" if "text" in row else "sentence"
        raise UserError(f"mine.corpus: {spec} has the columns {', '.join(map(str, row))}; give a "
                        "column text (a title may stand beside it) or sentence")  # fmt: skip

    def parse(row: dict, column: str) -> list[str]:
        return texts_of(row if row.get("title") else row.get(column), column)

    found, skip = [], config.data.on_bad_rows == "skip"
    for spec in config.extra.mine.corpus:
        beir = beir_of(folder := legal_path(spec))
        files = beir.corpus if beir else beir_texts(folder, "corpus")
        for part in (p for file in files or [spec] for p in containers(file, "train", None)):
            read = collect_rows(part, pick, parse, skip)
            more = f", {len(read.rejected):,} rejected" if read.rejected else ""
            say(f"read {read.n_rows:,} texts of {part.path} as the corpus{more}")
            found += [text for texts in read.parsed for text in texts]
    return found


class Vectors(NamedTuple):
    """Unit vectors of all queries and documents, float32 on the host."""

    query_QD: Tensor
    document_ND: Tensor


def vectors_of(config: Config, name: str, table: Table) -> tuple[Vectors, dict[str, str]]:
    """-> vectors, and what made them; the model is freed. All ranks call. Raises UserError."""
    opened = open_finished(config, name)
    say(opened.about)
    kinds = (SYMMETRIC, SYMMETRIC) if table.symmetric else (QUERY, DOCUMENT)
    vectors = Vectors(*(_encode(opened, texts, kind, config.eval.batch_size)
                        for texts, kind in zip(table[1:3], kinds, strict=True)))  # fmt: skip
    need(all(bool(v.isfinite().all()) for v in vectors), f"{name} gives vectors that are not "
         "finite; try another model, or --train.precision fp32")  # fmt: skip
    about = {"name": name, "vectors": opened.about, "content": opened.source.content}
    opened.engine.close()
    del opened
    free()
    return vectors, about


def _encode(opened: Opened, texts: list[str], kind: str, batch_size: int) -> Tensor:
    """(N, D) unit vectors, longest texts first; the same batches on any number of ranks."""
    say(f"encoding {len(texts):,} {kind} texts")
    order = sorted(range(len(texts)), key=lambda i: (-len(texts[i]), i))
    found_ND, step = torch.empty(len(texts), opened.width), batch_size * _BATCHES
    progress = Progress(len(texts), enabled=dist.rank() == 0, what="text")
    for low in range(0, len(order), step):
        part = order[low : low + step]
        readout_NLD = opened.encode([texts[i] for i in part], [opened.n_layers],
                                    batch_size=batch_size, kind=kind, show=False)  # fmt: skip
        found_ND[part] = normalize(readout_NLD[:, 0].float(), dim=-1)
        progress.update(low + len(part), {})
    return found_ND


def second_scores(config: Config, name: str, table: Table) -> tuple[Score, dict[str, str]]:
    """The scores of mine.rescore, and what it is. All ranks call. Raises UserError."""
    code, values = config.model.trust_remote_code, flatten(Config())
    config = config.replace(**{key: values[key] for key in _OWN}, **{"model.name": name})
    shape = read_config(name, trust_remote_code=code)
    if not any("SequenceClassification" in kind for kind in shape.architectures or ()):
        vectors, about = vectors_of(config, name, table)
        return partial(cosines, *vectors), about
    name = resolve_name(name)
    need(importlib.util.find_spec("sentence_transformers") is not None, "mine.rescore: a cross-"
         "encoder takes sentence-transformers: pip install sentence-transformers")  # fmt: skip
    need(shape.num_labels == 1, f"mine.rescore: {name} gives a pair {shape.num_labels} labels; "
         "give a cross-encoder with one score")  # fmt: skip
    from sentence_transformers import CrossEncoder

    device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
    model = CrossEncoder(name, device=device, trust_remote_code=code)

    def score(query_P: np.ndarray, document_P: np.ndarray) -> np.ndarray:
        numbers, size = zip(query_P, document_P, strict=True), config.eval.batch_size
        pairs = [(table.queries[q], table.documents[d]) for q, d in numbers]
        found = model.predict(pairs, batch_size=size, show_progress_bar=False) if pairs else []
        return np.asarray(found, dtype=np.float64)

    commit = getattr(shape, "_commit_hash", None)
    about = f"{name}: a cross-encoder, scores through {type(model.activation_fn).__name__}"
    say(about)
    return score, {"name": name, "scores": about, "content": content_of(name, commit)}
