"""Rows cut off the training data for validation, so that no text is on both sides.

Shape legend: N rows of all sources.
"""

from __future__ import annotations

from itertools import chain
from typing import NamedTuple

import numpy as np

from mipic_llm.data.read.cells import plain
from mipic_llm.data.read.rows import Example, TextSource
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
    for source in sources:
        if not isinstance(source.examples, list):
            raise UserError(f"data.validation_split: the rows of {source.name} are not in memory; "
                            "give --data.stream false, or data.validation")  # fmt: skip
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
    kept, held, start = [], [], 0
    for source in sources:
        mine = held_N[start : start + len(source.examples)].tolist()
        start += len(mine)
        for side, flag in ((held, True), (kept, False)):
            some = [e for e, cut in zip(source.examples, mine, strict=True) if cut is flag]
            side.append(source._replace(examples=_numbered(some)))
        if not kept[-1].examples:
            raise UserError(f"data.validation_split: {source.name} would lose all of its "
                            f"{len(mine):,} rows; ask for less")  # fmt: skip
    known = {plain(t) for s in held for e in s.examples for t in (e.anchor, e.positive) if t}
    pruned = [[_without(e, known) for e in s.examples] for s in kept]
    lost = sum(len(e.negatives) for s in kept for e in s.examples) - sum(
        len(e.negatives) for e in chain(*pruned)
    )
    kept = [s._replace(examples=some) for s, some in zip(kept, pruned, strict=True)]
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

    number: dict[str, int] = {}
    row, text = [], []
    for i, e in enumerate(e for source in sources for e in source.examples):
        for t in {plain(e.anchor), plain(e.positive or e.anchor)}:
            row.append(i)
            text.append(number.setdefault(t, len(number)))
    n = row[-1] + 1
    edges = (np.ones(len(row), np.int8), (row, np.array(text) + n))
    graph = coo_matrix(edges, shape=(n + len(number),) * 2)
    labels = connected_components(graph, directed=False)[1][:n]
    return np.unique(labels, return_inverse=True)[1]


def _numbered(examples: list[Example]) -> list[Example]:
    return [e._replace(id=i) for i, e in enumerate(examples)]


def _without(example: Example, known: set[str]) -> Example:
    """The row without the negatives that are among the known texts, nor their scores."""
    keep = [i for i, t in enumerate(example.negatives) if plain(t) not in known]
    if len(keep) == len(example.negatives):
        return example
    scores = example.scores and (example.scores[0], *(example.scores[1 + i] for i in keep))
    return example._replace(negatives=tuple(example.negatives[i] for i in keep), scores=scores)
