"""Texts that axes, lenses and ranges of int8 are fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mipic_llm.config import Config, DataConfig
from mipic_llm.data.aside import looking
from mipic_llm.data.read.find import texts_within
from mipic_llm.data.read.rows import TextSource
from mipic_llm.data.read.training import reading_of
from mipic_llm.data.split import split_off
from mipic_llm.runtime.ranks import say

# Per channel. Encoding them takes the most time. A covariance wants no more; a map of all channels
# onto others gains up to twice as many and little beyond (notes, 2026-11-28, texts of a lens).
PCA_TEXTS, LENS_TEXTS = 10, 20


def spread(n: int, most: int) -> list[int]:
    """Positions of at most so many of n things, evenly apart."""
    return list(range(n)) if n <= most else [i * n // most for i in range(most)]


def texts_for_pca(
    specs: Sequence[Any], most: int, what: str, run: Config | None = None
) -> list[str]:
    """At most so many distinct texts of training data, evenly spread, to fit `what` on. run: that
    trained on it, which says how it is read; rows that it cut off for its validation are left out,
    where all of its files are here to tell them."""
    if not specs:
        return []
    data = DataConfig() if run is None else run.data
    if run is None:
        specs = [name for spec in specs for name in _texts(spec)]
    options = {} if run is None else reading_of(data) | {"draw": False, "together": False}
    with looking(specs, data) as look:
        found = [look(spec, **options | {"negatives": 0}) for spec in specs]
        sources, reports = [rows for rows, _ in found], [r for _, some in found for r in some]
        if run is not None and (cut := data.validation_split):
            if len(specs) == len(run.training):
                sources = split_off(sources, cut, run.seed).kept
            else:
                say("data.validation_split: files of the run are gone, so rows that it cut off "
                    f"cannot be told; {what} on those too")  # fmt: skip
        # Where memory need not hold all rows, no more are looked at than texts are wanted.
        stored = any(not isinstance(source.examples, list) for source in sources)
        n_rows = sum(len(source.examples) for source in sources)
        step = max(1, n_rows // most) if stored else 1
        texts = _distinct(sources, step)
    chosen = [texts[i] for i in spread(len(texts), most)]
    of = f"of rows {step:,} apart" if step > 1 else f"of {len(texts):,} texts"
    say(f"{what} on {len(chosen):,} {of} of {', '.join(report.path for report in reports)}")
    return chosen


def _texts(spec: Any) -> list[Any]:
    return texts_within(spec) if isinstance(spec, str) else [spec]


def _distinct(sources: Sequence[TextSource], step: int) -> list[str]:
    """Texts of every step-th row."""
    found = dict[str, None]()
    for source in sources:
        for i in range(0, len(source.examples), step):
            both = source.examples[i].anchor, source.examples[i].positive
            found.update((text, None) for text in both if text is not None)
    return list(found)
