"""From files of text to the batches of a rank: sources, plan, tokens and validation tasks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from mipic_llm.config import Config, SourceConfig, need
from mipic_llm.data.batch import StepBatch, join_rows
from mipic_llm.data.deal import deal_to_ranks
from mipic_llm.data.labels import Labels
from mipic_llm.data.plan import BatchPlan
from mipic_llm.data.read.rows import TextSource, key_of
from mipic_llm.data.read.training import as_list, no_labels, no_scores
from mipic_llm.data.row_store import StoredRows
from mipic_llm.data.split import split_off
from mipic_llm.data.stages import StagedPlan
from mipic_llm.data.token_cache import Tokens, only
from mipic_llm.data.tokenise import TextEncoder
from mipic_llm.errors import UserError
from mipic_llm.evaluation.agree import agree_on_rows
from mipic_llm.evaluation.answers import held_out_tasks
from mipic_llm.evaluation.encode import make_encoder
from mipic_llm.evaluation.names import name_specs
from mipic_llm.evaluation.read import load_tasks
from mipic_llm.evaluation.tasks.base import Task
from mipic_llm.model.source import Source
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.ranks import say
from mipic_llm.training.caches import open_tokens, read_sources
from mipic_llm.training.survey import look, summary
from mipic_llm.training.teacher import Teacher
from mipic_llm.types import Traits

Plan = BatchPlan | StagedPlan


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
    agree_on_rows(sources, tasks)
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
