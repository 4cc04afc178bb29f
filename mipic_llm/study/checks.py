"""What is refused before the first trial, and the length of texts that all evaluations share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mipic_llm.config import Config, nearest, need
from mipic_llm.config.derive import LONGEST
from mipic_llm.config.evaluating import check_bits
from mipic_llm.data.read.find import texts_within
from mipic_llm.data.read.training import read_training
from mipic_llm.errors import UserError
from mipic_llm.evaluation.read import load_suite, load_tasks
from mipic_llm.evaluation.tasks.base import Task
from mipic_llm.model.directory import open_source
from mipic_llm.model.source import Source
from mipic_llm.study import identity
from mipic_llm.study.job import Job
from mipic_llm.study.spec import TEXTS, Study
from mipic_llm.training.caches import read_sources
from mipic_llm.training.survey import look


def check(study: Study, out: Path, files: bool = True) -> list[str]:
    """Refuse before the first trial what a trial would refuse: settings that are no options, and
    (unless told otherwise) data that is not there or cannot be evaluated. -> lines on the data for
    the report. Raises UserError."""
    sources: dict[tuple, tuple[Config, list[str]]] = {}
    models: dict[str, Source] = {}
    for trial in study.trials():
        job = Job(study, trial, out)
        with _at(study, trial, ""):
            config = job.config()
        if files:
            with _at(study, trial, study.data_from):
                for step in job.steps():
                    identity.data(job.reads(step))
            with _at(study, trial, ""):
                key = str(config.model)
                models[key] = models.get(key) or open_source(config.model)
                _check_sizes(study, models[key])
        if trial.seed is not None:
            key = tuple(str(one) for one in config.training)
            sources.setdefault(key, (config, []))[1].append(f"{trial.condition}/{trial.method}")
    return _check_data(study, list(sources.values())) if files else []


@contextmanager
def _at(study: Study, where: Any, data_from: str) -> Iterator[None]:
    """An error of what is in here names the study, the place, and how its data are made."""
    try:
        yield
    except UserError as error:
        hint = f"; its data: {data_from}" if data_from else ""
        raise UserError(f"study {study.name}, {where}: {error}{hint}") from None


def _check_sizes(study: Study, model: Source) -> None:
    known = {"layers": model.n_layers, "dims": model.width}
    for e in study.evaluate:
        for what, most in known.items():
            for n in e.get(what) or []:
                need(type(n) is int and 1 <= n <= most, f"evaluate: {what}: {n!r} is outside 1 .. "
                     f"{most}, the most that {model.name} has")  # fmt: skip


def _check_data(study: Study, sources: Sequence[tuple[Config, list[str]]]) -> list[str]:
    """Read the evaluation data whole, and the training data to see whether it has texts of it."""
    tasks: list[Task] = []
    for number, e in enumerate(study.evaluate, 1):
        place = f"evaluation {number}"
        with _at(study, place, ""):
            check_bits(e.get("bits") or [], e.get("bits_text") or [], bool(e.get("centre")))
        with _at(study, place, study.data_from):
            mine, lines = load_tasks(e.get("data") or [])
            more, more_lines = load_suite(e["suite"]) if e.get("suite") else ([], [])
            for key in TEXTS[1:]:
                for spec in e.get(key) or ():
                    read_training(texts_within(spec), negatives=0)
        for line in lines + more_lines:
            print(f"{place}: {line}", flush=True)
        tasks += mine + more
    names = [task.name for task in tasks]
    for average, parts in study.averages.items():
        need(average not in names, f"study {study.name}: averages.{average}: a task has that name "
             "too; give the average another")  # fmt: skip
        for part in parts:
            need(part in names, f"study {study.name}: averages.{average}: no evaluation has a task "
                 f"{part}{nearest([part], names)}; there are: {', '.join(names)}")  # fmt: skip
    found = []
    for config, trials in sources:
        with _at(study, trials[0], study.data_from):
            rows, _ = read_sources(list(config.training), config)
        seen = look(rows, tasks)
        if seen.leaks:
            whose = ", ".join(dict.fromkeys(trials))
            found.append(f"**{seen.leaks:,} of {seen.rows:,} training rows of {whose} have a text "
                         "of the evaluation data.**")  # fmt: skip
    lines = found or ["No training row has a text of the evaluation data."]
    print("\n".join(lines), flush=True)
    return lines


def one_length(study: Study, out: Path) -> Study:
    """With one length for all evaluations, so that figures differ by the models alone: that of its
    YAML, else the fewest tokens of a text that a trial is trained with."""
    if study.max_length is not None:
        return study
    found: dict[int, list[str]] = {}
    usual: dict[str, int] = {}  # of models whose recipe names no length
    for trial in study.trials():
        config = Job(study, trial, out).config()
        length, name = config.data.max_length, config.model.name
        if length is None and name not in usual:
            usual[name] = min(LONGEST, open_source(config.model).max_length)
        found.setdefault(length or usual[name], []).append(f"{trial.condition}/{trial.method}")
    if len(found) > 1:
        told = "; ".join(f"{n}: {', '.join(dict.fromkeys(found[n]))}" for n in sorted(found))
        print(f"note: every evaluation cuts texts at {min(found)} tokens, the fewest of the trials "
              f"({told}); max_length in the study's YAML sets another", flush=True)  # fmt: skip
    return study._replace(max_length=min(found))
