"""Rows and token ids of the training: read and made, or taken from the disk; all ranks call."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mipic_llm import launched
from mipic_llm.config import Config, need
from mipic_llm.data import row_build, stream, token_cache
from mipic_llm.data.growing import cache_home
from mipic_llm.data.read.rows import ReadReport, TextSource
from mipic_llm.data.read.training import read_training, reading_of
from mipic_llm.data.row_store import Pairs, StoredRows, pairs_of
from mipic_llm.data.token_cache import LazyTokens, StoredTokens, Tokens
from mipic_llm.data.tokenise import TextEncoder
from mipic_llm.errors import UserError
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.ranks import say

CACHE_ROWS = 10_000  # below, tokenising takes seconds and is spread over the steps


def read_sources(given: list[Any], config: Config) -> tuple[list[TextSource], list[ReadReport]]:
    """What was given, in memory or, where it is large, on disk; all ranks call."""
    d, home = config.data, config.data.token_cache
    large = {i: spec for i, spec in enumerate(given) if stream.wanted(spec, d.stream)}
    need(
        not large or home != "off", "data.token_cache is off, and rows that memory need not hold "
        "(data.stream) are kept in it; give a directory, or --data.stream false",
    )  # fmt: skip
    options = reading_of(d)
    stored: dict[int, tuple[stream.Reading, Path]] = {}
    for i, spec in large.items():
        one = stream.Reading(spec, **options)
        folder = _home(home) / f"rows-{dist.from_first(one.key() if dist.rank() == 0 else None)}"
        told = _Told(f"{one.path}: rows read")
        problem, _ = _built(folder, row_build.is_whole, partial(one.build, folder, told))
        need(problem is None, str(problem))
        stored[i] = one, folder
    # A positive of one source is no negative of the same anchor in another.
    several = len(given) > 1
    known = {i: StoredRows(folder).known_pairs() for i, (_, folder) in stored.items() if several}
    here = [spec for i, spec in enumerate(given) if i not in large]
    sources, reports = read_training(
        here, **options,
        beside=Pairs(np.unique(np.concatenate([*known.values()]))) if known else (),
    ) if here else ([], [])  # fmt: skip
    if known:
        known[-1] = pairs_of(sources)
    for i, (one, folder) in stored.items():
        source, more = one.source(folder, [pairs for j, pairs in known.items() if j != i])
        sources.insert(i, source)
        reports += more
        say(f"{source.name}: its rows lie in {folder}")
    return sources, reports


class _Told:
    """A line every 15 seconds on how far something is."""

    def __init__(self, what: str) -> None:
        self.what, self.begun, self.last = what, time.monotonic(), time.monotonic()
        self.at: int | None = None  # what was done before: of a builder that was killed

    def __call__(self, done: int, total: int | None = None) -> None:
        now = time.monotonic()
        self.at = done if self.at is None else self.at
        if now - self.last < 15:
            return
        self.last, rate = now, (done - self.at) / (now - self.begun)
        left = f", ETA {(total - done) / rate / 60:.0f} min" if total and rate > 0 else ""
        say(f"{self.what}: {done:,}{f' of {total:,}' if total else ''}{left}")


def _home(option: str) -> Path:
    """Where rows and tokens lie, for `data.token_cache`."""
    return cache_home(option) / "tokens" if option == "auto" else cache_home(option)


def _built(
    folder: Path, is_whole: Callable[[Path], bool], build: Callable[[], None]
) -> tuple[str | None, bool]:
    """Make a directory of a cache where it is not there: on each machine its first rank looks, and
    builds. -> (what went wrong, whether it was there, for that rank to say); all ranks call."""
    first = launched.first_here()
    problem, hit = None, first and is_whole(folder)  # which reads all of a token cache
    dist.barrier()  # all have looked before anyone builds
    if first and not hit:
        try:
            build()
        except OSError as error:
            problem = f"data.token_cache: cannot write to {folder.parent}: {error.strerror}"
        except UserError as error:
            problem = str(error)
    return next((p for p in dist.gather_objects(problem) if p), None), hit


def open_tokens(source: TextSource, encoder: TextEncoder, option: str) -> Tokens:
    """A source's token ids: from the cache, built first where it is not there; or as they come.

    On each machine its first rank builds; a shared directory is safe (see growing.py).
    """
    examples, scored = source.examples, source.symmetric
    lazy = LazyTokens(examples, encoder, scored)
    on_disk = isinstance(examples, StoredRows)
    if option == "off" or (option == "auto" and len(examples) < CACHE_ROWS and not on_disk):
        return lazy
    key = token_cache.key_of(examples, encoder, scored)
    if key is None:
        need(not on_disk, f"{source.name}: this tokenizer's state cannot be hashed, so its ids "
             "cannot be kept; give --data.stream false")  # fmt: skip
        say(f"note: {source.name}: this tokenizer's state cannot be hashed: no token cache")
        return lazy
    problem, told = None, _Told(f"{source.name}: rows tokenised")
    try:
        folder = _home(option) / key
    except UserError as error:
        problem = str(error)
    if problem := next((p for p in dist.gather_objects(problem) if p), None):
        need(option == "auto" and not on_disk, problem)
        say(f"note: {problem}; texts are tokenised as they come")
        return lazy

    def build() -> None:
        say(f"{source.name}: tokenising {len(examples):,} rows for the cache")
        token_cache.build(folder, examples, encoder, scored, lambda done: told(done, len(examples)))

    problem, hit = _built(folder, token_cache.is_whole, build)
    if problem and option == "auto" and problem.startswith("data.token_cache") and not on_disk:
        say(f"note: {problem}; texts are tokenised as they come")
        return lazy
    need(problem is None, str(problem))
    stored = StoredTokens(folder)
    say(f"{source.name}: tokenised {len(stored.starts) - 1:,} texts, {int(stored.starts[-1]):,} "
        f"tokens, cache {'hit' if hit else 'miss'} ({folder})")  # fmt: skip
    return stored
