"""Rows cut off the training data for validation, so that no text is on both sides.

Shape legend: N rows of all sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mipic_llm.data.read.cells import plain
from mipic_llm.data.read.rows import Example, TextSource, key_of
from mipic_llm.data.row_store import StoredRows, text_keys
from mipic_llm.errors import UserError


class Split(NamedTuple):
    """The sources without the rows that were cut off, those rows by source, and a line about it."""

    kept: list[TextSource]
    held: list[TextSource]
    report: str


def split_off(sources: list[TextSource], wanted: float, seed: int) -> Split:
    """Cut about `wanted` labelled rows off (below 1: that share of them), whole groups at a time.

    Rows whose anchors or positives share a text, over all sources, are one group (connected
    components; blanks do not count). Groups are taken in an order drawn from `seed`, those that fit
    into what is still wanted. Negatives of the rows that stay are left out where they are texts of
    the rows cut off. Raises UserError where no group fits, or a source would lose all rows.
    """
    group_N = _groups(sources)
    labelled_N = np.concatenate([np.full(len(s.examples), s.examples[0].positive is not None)
                                 for s in sources])  # fmt: skip
    size_G = np.bincount(group_N, weights=labelled_N).astype(int)
    rows = int(size_G.sum())
    if not rows:
        raise UserError("data.validation_split: unlabelled text cannot be scored; give rows of "
                        "pairs, or data.validation")  # fmt: skip
    aim, got, taken = int(wanted if wanted >= 1 else round(wanted * rows)), 0, []
    for group in np.random.default_rng((seed, rows)).permutation(len(size_G)):
        if 0 < size_G[group] <= aim - got:
            taken.append(group)
            got += size_G[group]
    if not got:
        least = size_G[size_G > 0].min()
        raise UserError(
            f"data.validation_split: {wanted:g} of {rows:,} rows is {aim}, and the smallest group "
            f"of rows that share texts has {least:,}; ask for more, or give data.validation"
        )
    held_N = np.isin(group_N, taken)
    held, stays, start = [], [], 0
    for source in sources:
        mine_N = held_N[start : start + len(source.examples)]
        start += len(mine_N)
        if mine_N.all():
            raise UserError(f"data.validation_split: {source.name} would lose all of its "
                            f"{len(mine_N):,} rows; ask for less")  # fmt: skip
        cut = [source.examples[i] for i in np.flatnonzero(mine_N).tolist()]
        held.append(source._replace(examples=_numbered(cut)))
        stays.append(mine_N)
    known = {plain(t) for s in held for e in s.examples for t in (e.anchor, e.positive) if t}
    kept, lost = [], 0
    for source, mine_N in zip(sources, stays, strict=True):
        some, n = _kept(source.examples, mine_N, known)
        kept.append(source._replace(examples=some))
        lost += n
    report = (
        f"validation split: {got:,} of {rows:,} rows, {len(taken):,} of {(size_G > 0).sum():,} "
        f"groups of rows that share texts, by seed {seed}"
    )
    if lost:
        report += f"; {lost:,} negatives left out of training, being texts of these rows"
    return Split(kept, held, report)


def _groups(sources: list[TextSource]) -> np.ndarray:
    """(N,) number of each row's group."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    key = np.concatenate([text_keys(source.examples) for source in sources], axis=1)
    n = key.shape[1]
    known, text = np.unique(key, return_inverse=True)
    row = np.tile(np.arange(n, dtype=np.int32), 2)
    edges = (np.ones(2 * n, np.int8), (row, text.ravel().astype(np.int32) + n))
    graph = coo_matrix(edges, shape=(n + len(known),) * 2)
    labels = connected_components(graph, directed=False)[1][:n]
    return np.unique(labels, return_inverse=True)[1]


def _kept(
    examples: Sequence[Example], gone_N: np.ndarray, known: set[str]
) -> tuple[Sequence[Example], int]:
    """The rows that are not gone, without negatives among the known texts; how many those were."""
    if isinstance(examples, StoredRows):
        keys = np.array([key_of(text.encode()) for text in known], np.int64)
        rest = examples.without(gone_N, keys)
        return rest, int(examples.negatives()[~gone_N].sum() - rest.negatives().sum())
    rest = _numbered([e for e, gone in zip(examples, gone_N.tolist(), strict=True) if not gone])
    some = [_without(e, known) for e in rest]
    return some, sum(len(a.negatives) - len(b.negatives) for a, b in zip(rest, some, strict=True))


def _numbered(examples: list[Example]) -> list[Example]:
    return [e._replace(id=i) for i, e in enumerate(examples)]


def _without(example: Example, known: set[str]) -> Example:
    """The row without the negatives that are among the known texts, nor their scores."""
    keep = [i for i, t in enumerate(example.negatives) if plain(t) not in known]
    return example if len(keep) == len(example.negatives) else example.only(keep)
