"""`--data.check true`: all data read, and what was found printed; no weights are loaded."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mipic_llm.config import Config, SourceConfig
from mipic_llm.data import stream
from mipic_llm.data.growing import cache_home
from mipic_llm.data.read.find import split_weight
from mipic_llm.data.read.rows import ReadReport, TextSource
from mipic_llm.data.read.training import no_labels, no_scores, read_training, reading_of
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
    if int(os.environ.get("RANK") or 0):
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
    large = any(stream.wanted(spec, d.stream) for spec in config.training)
    with tempfile.TemporaryDirectory(dir=_aside(d.token_cache) if large else None) as aside:
        for number, spec in enumerate(config.training):
            name, its = spec, encoder
            if isinstance(spec, SourceConfig):
                name, its = spec.path, make_encoder(config.replace(**spec.changes()), source)
            try:
                rows, reports = _read(spec, config, Path(aside) / str(number))
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


def _aside(option: str) -> Path | None:
    """Where rows that memory need not hold are kept while they are looked at; None = with the
    system's other temporary files. UserError where it cannot be written to."""
    if option == "off":
        return None
    folder = cache_home(option)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"data.token_cache: cannot write to {folder}: {error.strerror}") from None
    return folder


def _read(spec: Any, config: Config, folder: Path) -> tuple[TextSource, list[ReadReport]]:
    """The rows of one spec, bad ones left out; of a large one (`data.stream`) written to a folder
    in one pass."""
    options = reading_of(config.data) | {"on_bad_rows": "skip"}
    if stream.wanted(spec, config.data.stream):
        reading = stream.Reading(spec, **options)
        try:
            reading.build(folder, lambda *_: None)
        except OSError as error:
            raise UserError(
                f"cannot write its rows to {folder.parent}: {error.strerror}; make room, or name "
                "another directory as data.token_cache"
            ) from None
        return reading.source(folder)
    (rows,), reports = read_training([spec], **options)
    return rows, reports


def _say(title: str, lines: Sequence[tuple[str, str]]) -> int:
    print(title)
    for name, value in lines:
        print(f"  {name:<11}{value}")
    return 1
