"""Rows to the sequences of a step, in a fixed order: anchors, positives, negatives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mipic_llm.data.read.cells import plain
from mipic_llm.data.read.rows import Example, TextSource, key_of
from mipic_llm.data.token_cache import LazyTokens, RowTokens, kinds_of
from mipic_llm.data.tokenise import TextEncoder
from mipic_llm.types import Traits


class StepBatch(NamedTuple):
    """All sequences of this rank's step, in the order anchors, positives, negatives.

    ids: S arrays of token ids (int32), unpadded. Row b's anchor is sequence b, its positive
    n_anchors + b; the negatives follow row by row, ragged.
    keys: of the S texts without their prompts, see `key_of`.
    rows: which row each text is of; None where texts of other rows are negatives too.
    scores: of the S texts, NaN where nothing is known; None where the source has none.
    teacher_SK: float32, whose and also: see `Known`. groups: of the S texts, of their labels.
    skips: tokens of the S texts' prompts, where the pooling leaves them out.
    """

    ids: list[np.ndarray]
    keys: list[int]
    n_anchors: int
    n_negatives: int
    pad_id: int
    padding_side: str
    source: Traits = Traits()
    scores: list[float] | None = None
    teacher_SK: np.ndarray | None = None
    rows: list[int] | None = None
    groups: list[int] | None = None
    whose: list[int] | None = None
    also: list[int] | None = None
    skips: list[int] | None = None


def build_step(
    examples: Sequence[Example], encoder: TextEncoder, source: Traits | None = None
) -> StepBatch:
    """Tokenises this rank's rows (see `join_rows`). source: None = as the rows look."""
    source = source or TextSource("rows", list(examples), 1.0).traits
    tokens = LazyTokens(examples, encoder, source.kind == "scored")
    return join_rows(examples, tokens.rows(range(len(examples))), encoder, source)


def join_rows(
    examples: Sequence[Example], rows: Sequence[RowTokens], encoder: TextEncoder, source: Traits
) -> StepBatch:
    """A step's sequences from its rows, of one source, and their tokens; unlabelled rows stand
    twice. No tokens are copied."""
    negatives = [ids for row in rows for ids in row[2:]]
    whose = [b for b, row in enumerate(rows) for _ in row[2:]]
    texts = [e.anchor for e in examples] + [e.second for e in examples]
    texts += [text for e in examples for text in e.negatives]
    return StepBatch(
        [row[0] for row in rows] + [row[1] for row in rows] + negatives,
        [key_of(plain(text).encode()) for text in texts], len(rows), len(negatives),
        encoder.pad_id, encoder.padding_side, source,
        scores_of(examples) if source.scores else None,
        rows=None if source.in_batch else [
            e.id for e in (*examples, *examples, *(e for e in examples for _ in e.negatives))
        ],
        whose=[*range(len(rows)), *range(len(rows)), *whose],
        also=[0] * 2 * len(rows) + [int(i < e.also) for e in examples
                                    for i in range(len(e.negatives))] if source.several else None,
        skips=_skips(examples, encoder, source),
    )  # fmt: skip


def _skips(examples: Sequence[Example], encoder: TextEncoder, source: Traits) -> list[int] | None:
    """Of a step's sequences, see `StepBatch`: by the kinds of text that `token_cache` tells."""
    if not encoder.skips:
        return None
    query, document = kinds_of(
        examples[0], source.kind == "scored" or examples[0].label is not None
    )
    n = len(examples)
    others = n + sum(len(e.negatives) for e in examples)
    return [encoder.skips.get(query, 0)] * n + [encoder.skips.get(document, 0)] * others


def scores_of(examples: Sequence[Example]) -> list[float]:
    """Of a step's sequences: none of the anchors, then the rows' own, in the order of the texts."""
    given = [e.scores or (math.nan,) * (1 + len(e.negatives)) for e in examples]
    right = [scores[0] for scores in given]
    return [math.nan] * len(right) + right + [n for scores in given for n in scores[1:]]
