"""From files of text to the batches of a rank: sources, plan, tokens and validation tasks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mipic_llm.config import Config, SourceConfig, need
from mipic_llm.data import token_cache
from mipic_llm.data.batch import StepBatch, join_rows
from mipic_llm.data.plan import BatchPlan
from mipic_llm.data.read.formats import TextSource, as_list, read_training
from mipic_llm.data.token_cache import LazyTokens, StoredTokens, Tokens, deal
from mipic_llm.data.tokenise import TextEncoder
from mipic_llm.errors import UserError
from mipic_llm.evaluation.encode import make_encoder
from mipic_llm.evaluation.names import name_specs
from mipic_llm.evaluation.read import load_tasks
from mipic_llm.evaluation.tasks.base import Task
from mipic_llm.model.directory import Source
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.ranks import say
from mipic_llm.training.survey import look, no_scores, summary
from mipic_llm.types import Traits

CACHE_ROWS = 10_000  # below, tokenising takes seconds and is spread over the steps


class Data(NamedTuple):
    sources: list
    plan: BatchPlan
    encoder: TextEncoder
    tasks: list[Task]
    traits: Sequence[Traits]
    tokens: Sequence[Tokens] = ()  # of each source; none where nothing is trained
    balance: bool = False

    @property
    def unlabelled(self) -> bool:
        """Whether a source is bare text, two views of which the model must vary."""
        return any(traits.kind == "texts" for traits in self.traits)

    def step(self, position: tuple[int, int]) -> StepBatch:
        """This rank's part of the global batch at (epoch, index)."""
        batch = self.plan.batch(*position)
        source, numbers = batch[0][0], [i for _, i in batch]
        tokens, examples = self.tokens[source], self.sources[source].examples
        if self.balance and dist.world_size() > 1:
            own = deal(tokens.lengths(numbers), dist.world_size())[dist.rank()]
            numbers = [numbers[i] for i in own]
        else:
            numbers = list(self.plan.local(numbers, dist.rank()))
        rows, traits = tokens.rows(numbers), self.traits[source]
        return join_rows([examples[i] for i in numbers], rows, self.encoder, traits)


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
    sources, reports = read_training(
        given,
        negatives=d.negatives,
        on_bad_rows=d.on_bad_rows,
        cache_dir=d.cache_dir,
        ignore=d.ignore_columns,
        score_column=d.score_column,
    )
    for report in reports:
        say(str(report))
    need(
        d.score_column is None or d.score_column in [s.scored for s in sources],
        no_scores(d.score_column),
    )
    sources = tempered(sources, d.mixture_temperature)
    world, size = dist.world_size(), config.train.batch_size
    if past and past[-1][0] == size * world:
        past = past[:-1]  # goes on
    plan = BatchPlan(sources, size, world, config.seed, past)
    tasks, lines = load_tasks(
        d.validation if validation is None else validation, split="validation"
    )
    for line in lines:
        say(f"evaluation {line}")
    encoder = make_encoder(config, source)
    own = [s.changes() if isinstance(s, SourceConfig) else {} for s in given]
    encoders = [make_encoder(config.replace(**new), source) if new else encoder for new in own]
    pairs = zip(sources, encoders, strict=True)
    tokens = [open_tokens(s, its, d.token_cache) for s, its in pairs]
    counts = [t.cut() for t in tokens]  # on every rank: what cannot be tokenised stops all of them
    cut = sum(n for _, n in counts), sum(n for n, _ in counts), encoder.max_length
    if dist.rank() == 0:
        say(summary(look(sources, tasks), cut))
    pairs = zip(sources, _labels(sources), strict=True)
    traits = [source.traits._replace(name=label) for source, label in pairs]
    return Data(sources, plan, encoder, tasks, traits, tokens, d.balance_tokens)


def _labels(sources: Sequence[TextSource]) -> list[str]:
    """What metrics call the sources: short, and each another."""
    try:
        return name_specs([source.name for source in sources])
    except UserError:  # one is given twice
        return [f"source-{i + 1}" for i in range(len(sources))]


def tempered(sources: list[TextSource], temperature: float) -> list[TextSource]:
    """The weights of a mixture: rows of each source in proportion to weight * size^(1 / T), as many
    in all as before."""
    before = [s.weight * len(s.examples) for s in sources]
    after = [s.weight * len(s.examples) ** (1 / temperature) for s in sources]
    scale = sum(before) / sum(after)
    return [s if temperature == 1 else s._replace(weight=scale * new / len(s.examples))
            for s, new in zip(sources, after, strict=True)]  # fmt: skip


def open_tokens(source: TextSource, encoder: TextEncoder, option: str) -> Tokens:
    """A source's token ids: from the cache, built first where it is not there; or as they come.

    On each machine its first rank builds; a shared directory is safe (see token_cache.py).
    """
    lazy = LazyTokens(source.examples, encoder, bool(source.scored))
    if option == "off" or (option == "auto" and len(source.examples) < CACHE_ROWS):
        return lazy
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "mipic_llm" / "tokens"
    folder = (home if option == "auto" else Path(option)).expanduser()
    key = token_cache.key_of(source.examples, encoder, bool(source.scored))
    if key is None:
        say(f"note: {source.name}: this tokenizer's state cannot be hashed: no token cache")
        return lazy
    problem, hit = None, token_cache.is_whole(folder / key)
    dist.barrier()  # all have looked before anyone builds
    if not hit:
        say(f"{source.name}: tokenising {len(source.examples):,} rows for the cache")
    if not hit and int(os.environ.get("LOCAL_RANK") or 0) == 0:
        try:
            token_cache.build(folder / key, source.examples, encoder, bool(source.scored))
        except OSError as error:
            problem = f"data.token_cache: cannot write to {folder}: {error.strerror}"
        except UserError as error:
            problem = str(error)
    problem = next((p for p in dist.gather_objects(problem) if p), None)
    if problem and option == "auto" and problem.startswith("data.token_cache"):
        say(f"note: {problem}; texts are tokenised as they come")
        return lazy
    if problem:
        raise UserError(problem)
    stored = StoredTokens(folder / key)
    say(f"{source.name}: tokenised {len(stored.starts) - 1:,} texts, {int(stored.starts[-1]):,} "
        f"tokens, cache {'hit' if hit else 'miss'} ({folder / key})")  # fmt: skip
    return stored
