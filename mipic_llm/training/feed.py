"""From files of text to the batches of a rank: sources, plan, tokens and validation tasks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mipic_llm.config import Config, SourceConfig, need
from mipic_llm.data import row_build, stream, token_cache
from mipic_llm.data.batch import StepBatch, join_rows
from mipic_llm.data.deal import deal_to_ranks
from mipic_llm.data.growing import cache_home
from mipic_llm.data.labels import Labels
from mipic_llm.data.plan import BatchPlan
from mipic_llm.data.read.rows import ReadReport, TextSource, key_of
from mipic_llm.data.read.training import as_list, read_training, reading_of
from mipic_llm.data.row_store import Pairs, StoredRows, pairs_of
from mipic_llm.data.split import split_off
from mipic_llm.data.stages import StagedPlan
from mipic_llm.data.token_cache import LazyTokens, StoredTokens, Tokens, only
from mipic_llm.data.tokenise import TextEncoder
from mipic_llm.errors import UserError
from mipic_llm.evaluation.answers import held_out_tasks
from mipic_llm.evaluation.encode import make_encoder
from mipic_llm.evaluation.names import name_specs
from mipic_llm.evaluation.read import load_tasks
from mipic_llm.evaluation.tasks.base import Task
from mipic_llm.model.directory import Source
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.ranks import say
from mipic_llm.training.survey import look, no_labels, no_scores, summary
from mipic_llm.training.teacher import Teacher
from mipic_llm.types import Traits

Plan = BatchPlan | StagedPlan
CACHE_ROWS = 10_000  # below, tokenising takes seconds and is spread over the steps


class Data(NamedTuple):
    sources: list
    plan: Plan
    encoder: TextEncoder
    tasks: list[Task]
    traits: Sequence[Traits]
    tokens: Sequence[Tokens] = ()  # of each source; none where nothing is trained
    balance: bool = False
    labels: Sequence[Labels | None] = ()  # of sources of labelled text
    teacher: Teacher | None = None
    encoders: Sequence[TextEncoder] = ()  # of each source, as tokens

    @property
    def unlabelled(self) -> bool:
        """Whether a source is bare text, two views of which the model must vary."""
        return any(traits.kind == "texts" for traits in self.traits)

    def step(self, position: tuple[int, int]) -> StepBatch:
        """This rank's part of the global batch at (epoch, index)."""
        batch = self.plan.batch(*position)
        source, numbers = batch[0][0], [i for _, i in batch]
        tokens, examples = self.tokens[source], self.sources[source].examples
        if self.labels and (labels := self.labels[source]):
            return self._labelled_step(source, labels, numbers, self.plan.seed_of(*position))
        chosen, most = None, self.sources[source].drawn
        if most:
            sizes = [len(examples[i].negatives) for i in numbers]
            chosen = self.plan.draw(*position, sizes, most)
        own = self.plan.local(range(len(numbers)), dist.rank())
        if self.balance and dist.world_size() > 1:
            own = deal_to_ranks(tokens.lengths(numbers, chosen), dist.world_size())[dist.rank()]
        numbers = [numbers[i] for i in own]
        chosen = chosen and [chosen[i] for i in own]
        rows, traits = tokens.rows(numbers, chosen), self.traits[source]
        some = only([examples[i] for i in numbers], chosen)
        return self.taught(join_rows(some, rows, self.encoders[source], traits))

    def taught(self, batch: StepBatch) -> StepBatch:
        """With the teacher's vectors, where there is one."""
        if self.teacher is None:
            return batch
        return batch._replace(teacher_SK=self.teacher.vectors(batch))

    def _labelled_step(
        self, source: int, labels: Labels, numbers: list[int], seed: tuple[int, ...]
    ) -> StepBatch:
        """A step of labelled text: each row has another of its label as its positive."""
        tokens, examples = self.tokens[source], self.sources[source].examples
        others, own = [labels.partner(i, seed) for i in numbers], range(len(numbers))
        own = self.plan.local(own, dist.rank())
        if self.balance and dist.world_size() > 1:
            both = tokens.lengths(numbers) + tokens.lengths(others)
            own = deal_to_ranks(both, dist.world_size())[dist.rank()]
        pairs = [(numbers[i], others[i]) for i in own]
        rows = [examples[i]._replace(positive=examples[j].anchor) for i, j in pairs]
        ids = [(a[0], b[0]) for i, j in pairs for a, b in [tokens.rows([i, j])]]
        batch = join_rows(rows, ids, self.encoders[source], self.traits[source])
        groups = 2 * [key_of(str(e.label).encode()) for e in rows]
        return self.taught(batch._replace(groups=groups))


def prepare_data(
    config: Config, source: Source, rows: Any = None, validation: list[Any] | None = None,
    past: Sequence[tuple[int, int]] = (),
) -> Data:  # fmt: skip
    """rows: what to train on in place of `data.train`: specs, lists of dicts, datasets.Datasets.
    validation: in place of `data.validation`: specs and NamedRows. past: of a run that is resumed,
    the sizes of its global batches, each with the step at which it ended.
    """
    d = config.data
    given = as_list(config.training if rows is None else rows)
    sources, reports = read_sources(given, config)
    for report in reports:
        say(str(report))
    need(
        d.score_column is None or d.score_column in [s.scored for s in sources],
        no_scores(d.score_column),
    )
    need(d.label_column is None or any(s.labelled for s in sources), no_labels(d.label_column))
    held: list[TextSource] = []
    if d.validation_split:
        sources, held, line = split_off(sources, d.validation_split, config.seed)
        say(line)
    world, size = dist.world_size(), config.train.batch_size
    if past and past[-1][0] == size * world:
        past = past[:-1]  # goes on
    if config.stages:
        need(rows is None, "stages name the data of a run; leave rows or stages out")
        need(not past, "train.resume: a run in stages goes on with global batches of one size; "
             "give the ranks and the train.batch_size that it had")  # fmt: skip
        parts, rest = [], iter(sources)
        for stage in config.stages:
            own_sources = [*islice(rest, len(stage.training))]
            parts.append((tempered(own_sources, d.mixture_temperature), stage.steps,
                          stage.batch_size))  # fmt: skip
        sources = [source for part, *_ in parts for source in part]
        plan: Plan = StagedPlan(parts, size, world, config.seed)
    else:
        sources = tempered(sources, d.mixture_temperature)
        plan = BatchPlan(sources, size, world, config.seed, past)
    tasks, lines = load_tasks(
        d.validation if validation is None else validation, split="validation"
    )
    more, more_lines = held_out_tasks(held)
    tasks += more
    for line in lines + more_lines:
        say(f"evaluation {line}")
    encoder = make_encoder(config, source)
    lengths = [stage.max_length for stage in config.stages for _ in stage.training]
    own = [({"data.max_length": n} if n else {}) | (
        s.changes() if isinstance(s, SourceConfig) else {}
    ) for s, n in zip(given, lengths or [None] * len(given), strict=True)]  # fmt: skip
    encoders = [make_encoder(config.replace(**new), source) if new else encoder for new in own]
    pairs = zip(sources, encoders, strict=True)
    tokens = [open_tokens(s, its, d.token_cache) for s, its in pairs]
    counts = [t.cut() for t in tokens]  # on every rank: what cannot be tokenised stops all of them
    cut = sum(n for _, n in counts), sum(n for n, _ in counts), encoder.max_length
    if dist.rank() == 0:
        say(summary(look(sources, tasks), cut))
    pairs = zip(sources, _labels(sources, bool(config.stages)), strict=True)
    traits = [source.traits._replace(name=label) for source, label in pairs]
    traits = [t._replace(in_batch=_in_batch(s, spec))
              for t, s, spec in zip(traits, sources, given, strict=True)]  # fmt: skip
    labels = [Labels(s.examples) if s.labelled else None for s in sources]
    return Data(sources, plan, encoder, tasks, traits, tokens, d.balance_tokens, labels,
                encoders=encoders)  # fmt: skip


def _labels(sources: Sequence[TextSource], again: bool) -> list[str]:
    """What metrics call the sources: short, and each another. again: one of several stages is the
    same."""
    names = [source.name for source in sources]
    try:
        if again:
            distinct = list(dict.fromkeys(names))
            short = dict(zip(distinct, name_specs(distinct), strict=True))
            return [short[name] for name in names]
        return name_specs(names)
    except UserError:  # one is given twice
        return [f"source-{i + 1}" for i in range(len(sources))]


def _in_batch(source: TextSource, spec: Any) -> bool:
    """Whether texts of other rows are negatives. UserError where a row would have none at all."""
    if not isinstance(spec, SourceConfig) or spec.in_batch:
        return True
    rows = source.examples
    if isinstance(rows, StoredRows):
        row = next(iter(np.flatnonzero(rows.negatives() < 1)), None)
    else:
        row = next((e.id for e in rows if len(e.negatives) <= e.also), None)
    need(
        row is None, f"{source.name}: in_batch is false, so that only a row's own negatives count, "
        f"and row {row is not None and row + 1} has none; give it some (mipic mine), or leave "
        "in_batch out",
    )  # fmt: skip
    return False


def tempered(sources: list[TextSource], temperature: float) -> list[TextSource]:
    """The weights of a mixture: rows of each source in proportion to weight * size^(1 / T), as many
    in all as before."""
    before = [s.weight * len(s.examples) for s in sources]
    after = [s.weight * len(s.examples) ** (1 / temperature) for s in sources]
    scale = sum(before) / sum(after)
    return [s if temperature == 1 else s._replace(weight=scale * new / len(s.examples))
            for s, new in zip(sources, after, strict=True)]  # fmt: skip


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
    """Make a directory of a cache where it is not there: on each machine its first rank does.
    -> (what went wrong, whether it was there); the same on every rank, all call."""
    problem, hit = None, is_whole(folder)
    dist.barrier()  # all have looked before anyone builds
    if not hit and int(os.environ.get("LOCAL_RANK") or 0) == 0:
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
    folder, told = _home(option) / key, _Told(f"{source.name}: rows tokenised")
    if not token_cache.is_whole(folder):
        say(f"{source.name}: tokenising {len(examples):,} rows for the cache")
    problem, hit = _built(folder, token_cache.is_whole, lambda: token_cache.build(
        folder, examples, encoder, scored, lambda done: told(done, len(examples))))  # fmt: skip
    if problem and option == "auto" and problem.startswith("data.token_cache") and not on_disk:
        say(f"note: {problem}; texts are tokenised as they come")
        return lazy
    need(problem is None, str(problem))
    stored = StoredTokens(folder)
    say(f"{source.name}: tokenised {len(stored.starts) - 1:,} texts, {int(stored.starts[-1]):,} "
        f"tokens, cache {'hit' if hit else 'miss'} ({folder})")  # fmt: skip
    return stored
