"""`--data.check true`: all data read, and what was found printed; no weights are loaded."""

from __future__ import annotations

from collections.abc import Sequence

from mipic_llm import launched
from mipic_llm.config import Config, SourceConfig
from mipic_llm.data.aside import looking
from mipic_llm.data.read.find import split_weight
from mipic_llm.data.read.rows import TextSource
from mipic_llm.data.read.training import no_labels, no_scores, reading_of
from mipic_llm.data.split import split_off
from mipic_llm.errors import EXIT_DONE, EXIT_USER_ERROR, UserError
from mipic_llm.evaluation.encode import make_encoder
from mipic_llm.evaluation.read import load_tasks
from mipic_llm.evaluation.tasks.base import Task
from mipic_llm.model.directory import open_source
from mipic_llm.training.setup import resolve_for
from mipic_llm.training.survey import table


def check(config: Config) -> int:
    """Reads all data and prints what was found, every bad row included. -> 2 where rows or files
    are bad, else 0. Loads no weights; of several processes the first one answers."""
    if not launched.first():
        return EXIT_DONE
    source = open_source(config.model)
    config = resolve_for(config, source)
    encoder, bad, rows_bad = make_encoder(config, source), 0, 0
    tasks: list[Task] = []
    for spec in config.data.validation:
        try:
            mine, lines = load_tasks([spec], split="validation")
        except UserError as error:
            bad += _say(f"validation {spec}", [("bad", str(error))])
        else:
            tasks += mine
            _say(f"validation {spec}", [("read", line) for line in lines])
    d = config.data
    scored, labelled = d.score_column is None, d.label_column is None
    read: list[TextSource] = []
    options = reading_of(d) | {"on_bad_rows": "skip"}
    with looking(config.training, d) as look:
        for spec in config.training:
            name, its = spec, encoder
            if isinstance(spec, SourceConfig):
                name, its = spec.path, make_encoder(config.replace(**spec.changes()), source)
            try:
                rows, reports = look(spec, **options)
            except UserError as error:
                bad += _say(f"training {split_weight(name)[0]}", [("bad", str(error))])
            else:
                scored |= rows.scored == d.score_column
                labelled |= rows.labelled
                _say(f"training {rows.name}", table(rows, reports, tasks, its))
                rows_bad += sum(len(report.rejected) for report in reports)
                read.append(rows)
        if d.validation_split and read:
            try:
                print(split_off(read, d.validation_split, config.seed).report)
            except UserError as error:
                bad += _say("validation split", [("bad", str(error))])
    if not scored:
        bad += _say("data.score_column", [("bad", no_scores(d.score_column))])
    if not labelled:
        bad += _say("data.label_column", [("bad", no_labels(d.label_column))])
    bad += rows_bad
    mend = "; mend them" * bool(bad)
    mend += ", or leave bad rows out with --data.on_bad_rows skip" * bool(rows_bad)
    print(f"{bad:,} bad{mend}; nothing was trained (--data.check true)")
    return EXIT_USER_ERROR if bad else EXIT_DONE


def _say(title: str, lines: Sequence[tuple[str, str]]) -> int:
    print(title)
    for name, value in lines:
        print(f"  {name:<11}{value}")
    return 1
