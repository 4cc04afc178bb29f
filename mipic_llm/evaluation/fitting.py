"""Texts that axes, lenses and ranges of int8 are fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mipic_llm.config import Config
from mipic_llm.data.read.training import read_training, reading_of
from mipic_llm.data.split import split_off
from mipic_llm.runtime.ranks import say

PCA_TEXTS = 10  # per channel; a covariance wants no more, and encoding them takes the most time


def texts_for_pca(
    specs: Sequence[Any], most: int, what: str, run: Config | None = None
) -> list[str]:
    """At most so many distinct texts of training data, evenly spread, to fit `what` on. run: that
    trained on it, which says how it is read; rows that it cut off for its validation are left out,
    where all of its files are here to tell them."""
    if not specs:
        return []
    options = {} if run is None else reading_of(run.data) | {"draw": False, "together": False}
    sources, reports = read_training(specs, **options | {"negatives": 0})
    if run is not None and (cut := run.data.validation_split):
        if len(specs) == len(run.training):
            sources = split_off(sources, cut, run.seed).kept
        else:
            say("data.validation_split: files of the run are gone, so rows that it cut off cannot "
                f"be told; {what} on those too")  # fmt: skip
    texts = list(dict.fromkeys(
        text for source in sources for e in source.examples for text in (e.anchor, e.positive)
        if text is not None
    ))  # fmt: skip
    chosen = texts[:: -(-len(texts) // most)]
    say(
        f"{what} on {len(chosen):,} of {len(texts):,} texts of {', '.join(r.path for r in reports)}"
    )
    return chosen
