"""Rows to the sequences of a step, cut into padded or packed chunks; made ahead in a thread.

A step's order of sequences is fixed: anchors, positives, negatives. Chunks permute it by length
(less padding) and say how, so that readouts are put back by `out[chunk.index_S] = readout`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from mipic_llm.data.read.cells import plain
from mipic_llm.data.read.rows import Example, TextSource, key_of
from mipic_llm.data.token_cache import LazyTokens, RowTokens, kinds_of
from mipic_llm.data.tokenise import TextEncoder, pack, pad
from mipic_llm.types import Known, Packing, Traits

MOST_GROUPS = 8  # length groups of one step; more save little

Item = TypeVar("Item")
Made = TypeVar("Made")


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


class Chunk(NamedTuple):
    """One forward pass. Padding of the chunk count has weight 0 and an empty index_S.

    index_S: positions of these sequences in the step's order, int64.
    ids_ST, mask_ST: int64; packed: (1, N) and a Packing. A weight-0 chunk holds one dummy sequence,
    so that a rank with fewer chunks still takes part in every ZeRO-3 gather; its outputs must enter
    the loss times 0.
    """

    index_S: Tensor
    ids_ST: Tensor
    mask_ST: Tensor | Packing
    weight: float

    def rows_within(self, n: int) -> tuple[Tensor, Tensor]:
        """Which of these sequences are among the step's first n, and their places there; int64, on
        the host, so that no device has to be asked."""
        here = (self.index_S < n).nonzero().flatten()
        return here, self.index_S[here]

    def to(self, device: torch.device) -> Chunk:
        """Ids and mask on the device; pinned ones are copied while the host goes on."""
        return self._each(lambda t: t.to(device, non_blocking=True))

    def pinned(self) -> Chunk:
        """The same in page-locked memory."""
        return self._each(lambda t: t.pin_memory())

    def _each(self, move: Callable[[Tensor], Tensor]) -> Chunk:
        mask = self.mask_ST
        mask = mask.each(move) if isinstance(mask, Packing) else move(mask)
        return self._replace(ids_ST=move(self.ids_ST), mask_ST=mask)


class Padding(NamedTuple):
    """Tokens of a step's forward passes: real ones, and pads (dummies count as pads)."""

    useful: int
    padded: int


class Prepared(NamedTuple):
    """A rank's step, ready for the device.

    known: of the batch's sequences. chunks: all of them, longest first. dummy: a weight-0 chunk
    (see `Chunk`).
    """

    batch: StepBatch
    known: Known
    chunks: tuple[Chunk, ...]
    dummy: Chunk

    def passes(self, n: int) -> tuple[Chunk, ...]:
        """The chunks, and dummies up to the n that ranks agreed on (the most that any has)."""
        assert n >= len(self.chunks), f"{len(self.chunks)} chunks do not fit in {n} passes"
        return self.chunks + (self.dummy,) * (n - len(self.chunks))

    def tokens(self, n: int) -> Padding:
        """Real and padded tokens of n passes."""
        useful = sum(map(len, self.batch.ids))
        return Padding(useful, sum(c.ids_ST.numel() for c in self.passes(n)) - useful)


def prepare(
    batch: StepBatch,
    chunk_size: int,
    chunk_tokens: int = 0,
    pass_cost: int = 0,
    packed: bool = False,
    pin: bool | None = None,
) -> Prepared:
    """The step in chunks of at most chunk_size sequences and chunk_tokens padded tokens (0 = no
    limit). Nothing is asked of other ranks, so a thread may do it ahead.

    Without a limit: as many length groups as pay, where one more forward pass costs as much as
    `pass_cost` padded tokens (0 = one group). packed: each chunk is one row without pads;
    chunk_tokens counts real tokens, and without a limit one chunk holds all.
    pin: put tensors in page-locked memory; None = where there is a GPU.
    Longest first, so that a step that cannot fit in memory fails at once.
    """
    order = sorted(range(len(batch.ids)), key=lambda s: -len(batch.ids[s]))  # stable
    lengths, starts = [len(batch.ids[s]) for s in order], [0]
    if chunk_size or chunk_tokens:
        starts = _starts(lengths, chunk_size, chunk_tokens, packed)
    elif pass_cost and not packed:
        starts = min(_groupings(lengths), key=lambda g: g[0] + len(g[1]) * pass_cost)[1]
    pin = torch.cuda.is_available() if pin is None else pin

    def join(index: list[int], weight: float) -> Chunk:
        rows = [batch.ids[s] for s in index]
        skips = batch.skips and [batch.skips[s] for s in index]
        made = pack(rows, skips) if packed else pad(
            rows, batch.pad_id, batch.padding_side, skips)  # fmt: skip
        chunk = Chunk(torch.tensor(index if weight else [], dtype=torch.int64), *made, weight)
        return chunk.pinned() if pin else chunk

    stops = [*starts[1:], len(order)]
    made = [join(order[a:b], 1.0) for a, b in zip(starts, stops, strict=True)]
    known = Known(
        torch.tensor(batch.keys), None if batch.scores is None else torch.tensor(batch.scores),
        None if batch.teacher_SK is None else torch.from_numpy(batch.teacher_SK),
        None if batch.rows is None else torch.tensor(batch.rows),
        None if batch.groups is None else torch.tensor(batch.groups),
        None if batch.whose is None else torch.tensor(batch.whose),
        None if batch.also is None else torch.tensor(batch.also),
    )  # fmt: skip
    known = known.each(Tensor.pin_memory) if pin else known
    return Prepared(batch, known, tuple(made), join(order[-1:], 0.0))


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
    texts = [e.anchor for e in examples] + [e.anchor if e.positive is None else e.positive
             for e in examples] + [text for e in examples for text in e.negatives]  # fmt: skip
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


def _starts(lengths: list[int], chunk_size: int, chunk_tokens: int, packed: bool) -> list[int]:
    """First rows of chunks within both limits (0 = none); lengths fall. A chunk has a row at least,
    so one text longer than chunk_tokens is a chunk of its own."""
    starts, first, real = [0], 0, lengths[0]
    for i in range(1, len(lengths)):
        real += lengths[i]
        size = i + 1 - first
        tokens = real if packed else size * lengths[first]
        if (chunk_size and size > chunk_size) or (chunk_tokens and tokens > chunk_tokens):
            starts.append(i)
            first, real = i, lengths[i]
    return starts


def _groupings(lengths: Sequence[int], most: int = MOST_GROUPS) -> list[tuple[int, list[int]]]:
    """For 1 .. most groups of rows (lengths fall): fewest padded tokens, and the first rows.

    Dynamic programming over the distinct lengths: best[j] with one more group is the minimum over
    i of best[i] + (rows from i to j) * (length at i). Fewer than `most` where lengths are fewer.
    """
    falling, count = np.unique(-np.asarray(lengths), return_counts=True)
    edge = np.concatenate([[0], np.cumsum(count)])  # rows before each distinct length
    n = len(falling)
    cost = (edge[None, 1:] - edge[:-1, None]) * -falling[:, None]  # [i, j]: lengths i .. j together
    cost = np.where(np.arange(n)[None] >= np.arange(n)[:, None], cost, np.inf)
    best, cuts, found = cost[0], [np.zeros(n, dtype=np.int64)], []
    for k in range(1, min(most, n) + 1):
        if k > 1:
            before = np.concatenate([[np.inf], best[:-1]])  # all lengths before i, in k - 1 groups
            table = before[:, None] + cost
            cuts.append(table.argmin(0))
            best = table.min(0)
        starts, j = [], n - 1
        for level in reversed(range(k)):
            i = int(cuts[level][j])
            starts.append(int(edge[i]))
            j = i - 1
        found.append((int(best[-1]), starts[::-1]))
    return found


def prefetch(
    make: Callable[[Item], Made], items: Iterable[Item], depth: int = 2
) -> Generator[Made, None, None]:
    """make(item) for items, made ahead in one background thread: `depth` are ready while the next
    is made.

    What make or items raise is raised at the step it belongs to. Closing the generator stops the
    thread, also in the middle of the items: use it in `contextlib.closing`.
    make must draw no random numbers from a global generator: it runs ahead of the training step.
    """
    source, end = iter(items), object()

    def one() -> Any:
        item = next(source, end)
        return end if item is end else make(item)  # type: ignore[arg-type]

    pool = ThreadPoolExecutor(1, "prefetch")
    try:
        ahead = deque(pool.submit(one) for _ in range(depth + 1))
        while (made := ahead.popleft().result()) is not end:
            ahead.append(pool.submit(one))
            yield made
    finally:
        pool.shutdown(cancel_futures=True)
