"""Runs the trials of a study as commands of the package; what is done and unchanged stays done.

A step of a trial leaves <step>.done.json or <step>.failed.json beside its log.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean
from typing import Any

from mipic_llm.config import Config, load_config, nearest, need
from mipic_llm.config.derive import LONGEST
from mipic_llm.config.files import find_file
from mipic_llm.data.read.training import read_training
from mipic_llm.errors import UserError
from mipic_llm.evaluation.read import load_suite, load_tasks, suite_specs
from mipic_llm.evaluation.tasks.base import Task
from mipic_llm.model.directory import Source, open_source
from mipic_llm.study import identity
from mipic_llm.study.spec import Study, Trial
from mipic_llm.training.feed import read_sources
from mipic_llm.training.survey import look


class Job:
    """The commands of one trial, what they read, and where they leave their files."""

    def __init__(self, study: Study, trial: Trial, out: Path) -> None:
        self.study, self.trial = study, trial
        self.folder = out / "runs" / str(trial)
        self.model = self.folder / "train" if trial.seed is not None else None
        self.flags = study.settings | study.conditions[trial.condition]
        if trial.seed is not None:
            self.flags |= study.methods[trial.method] | {"seed": trial.seed}
        else:  # read as the methods' recipe says: readout of inner layers, tokens of a text
            self.flags = {k: v for k, v in self.flags.items()
                          if k.startswith("model.") or k == "data.max_length"}  # fmt: skip

    def config(self) -> Config:
        """The trial's training configuration. Raises UserError for settings that are none."""
        config = load_config(["--recipe", self.study.recipe, *as_flags(self.flags)])
        need(not config.model.trust_remote_code, "model.trust_remote_code: a study's file cannot "
             "ask for code that comes with a model; train that one by hand")  # fmt: skip
        return config

    def steps(self) -> list[str]:
        """Names of its commands: training first (unless untrained), then each evaluation."""
        evaluations = [f"evaluate{i}" for i in range(len(self.study.evaluate))]
        return [*(["train"] if self.model else []), *evaluations]

    def command(self, step: str) -> list[str]:
        """The words of a step; those of an evaluation only once the training has ended."""
        if step == "train":
            flags = {"recipe": self.study.recipe, "output_dir": str(self.model), "overwrite": True,
                     "tracking.run_name": str(self.trial)}  # fmt: skip
            if self.study.ds_config:
                flags["ds_config"] = self.study.ds_config
            return [*self._program(step), *as_flags(flags), *as_flags(self.flags)]
        number = int(step.removeprefix("evaluate"))
        flags = {"output_dir": str(self.folder / f"scores{number}"), "rows": True}
        flags |= self.study.evaluate[number]
        if self.model is None:
            flags |= self.flags | {"recipe": self.study.recipe}
            flags["model"] = self.flags.get("model.name", "quickstart")
        else:
            kind = "adapter" if (self.model / "adapter").is_dir() else "merged"
            flags["model"] = str(self.model / kind)
        flags["data.max_length"] = self.study.max_length
        wanted = {k: v for k, v in flags.items() if v not in (None, [])}
        return [*self._program("evaluate"), *as_flags(wanted)]

    def _program(self, name: str) -> list[str]:
        if self.study.ranks == 1:
            return [sys.executable, "-m", "mipic_llm", name]
        launcher = Path(sys.executable).with_name("deepspeed")
        ranks = ["--num_accelerators", str(self.study.ranks)]
        return [sys.executable, str(launcher), *ranks, "--module", "mipic_llm", name]

    def reads(self, step: str) -> list[str]:
        """The files and folders whose content decides what a step gives, as specs."""
        config = self.config()
        found = [str(find_file("recipes", self.study.recipe))]
        found += [config.model.name] if Path(config.model.name).is_dir() else []
        if step == "train":
            if self.study.ds_config:
                found.append(str(find_file("ds_configs", self.study.ds_config)))
            return [*found, *config.training_files, *config.data.validation]
        e = self.study.evaluate[int(step.removeprefix("evaluate"))]
        suite = suite_specs(e["suite"]) if e.get("suite") else []
        return [
            *found,
            *(e.get("data") or []),
            *(e.get("pca_text") or []),
            *(e.get("lens_text") or []),
            *(e.get("bits_text") or []),
            *suite,
        ]

    def run(self, threads: int, extra_env: dict[str, str], keep: bool, pace: Pace) -> bool:
        """Do what is not done. -> whether everything succeeded."""
        self.folder.mkdir(parents=True, exist_ok=True)
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), **extra_env}
        steps, (commit, code) = self.steps(), identity.code()
        for number, step in enumerate(steps):
            log, begun = self.folder / f"{step}.log", time.monotonic()
            try:
                words = self.command(step)
                row = {"command": words[1:], "code": code, "data": identity.data(self.reads(step))}
                done = read_done(self.folder, step)
                if done and all(done.get(k) == row[k] for k in (["command"] if keep else row)):
                    pace.passed(self.trial, step, done.get("seconds", 0.0))
                    continue
                for later in steps[number:]:
                    for kind in ("done", "failed"):
                        _mark(self.folder, later, kind).unlink(missing_ok=True)
                with log.open("w") as file:
                    status = subprocess.run(words, env=env, stdout=file, stderr=subprocess.STDOUT,
                                            check=False).returncode  # fmt: skip
                why = "" if status == 0 else _reason(log, status)
            except (UserError, OSError) as error:  # what it reads is gone, or the disk is full
                status, why = 2, str(error)
            seconds = round(time.monotonic() - begun, 1)
            if why:
                row = {"code": status, "reason": why, "seconds": seconds}
                _mark(self.folder, step, "failed").write_text(json.dumps(row, indent=1) + "\n")
                pace.lost(self.trial)
                print(f"{self.trial}: {step} FAILED: {why} (log: {log}); {pace}", flush=True)
                return False
            row |= {"commit": commit, "seconds": seconds}
            text = json.dumps(row, indent=1) + "\n"
            _mark(self.folder, step, "done").write_text(text, encoding="utf-8")
            pace.passed(self.trial, step, seconds)
            print(f"{self.trial}: {step} {seconds:.0f} s; {pace}", flush=True)
        return True


class Pace:
    """How far a study is, as text: trials done, failed and left, and about how long they take: by
    the mean time of each step (training, first evaluation ..) so far."""

    def __init__(self, jobs: Sequence[Job], at_once: int) -> None:
        self.left = {job.trial: job.steps() for job in jobs}
        self.total, self.failed, self.at_once = len(jobs), 0, at_once
        self.seconds: dict[str, list[float]] = {}
        self.lock = threading.Lock()

    def passed(self, trial: Trial, step: str, seconds: float) -> None:
        with self.lock:
            self.seconds.setdefault(step, []).append(seconds)
            self.left[trial].remove(step)
            if not self.left[trial]:
                del self.left[trial]

    def lost(self, trial: Trial) -> None:
        with self.lock:
            del self.left[trial]
            self.failed += 1

    def __str__(self) -> str:
        with self.lock:
            steps = [step for many in self.left.values() for step in many]
            done, left = self.total - self.failed - len(self.left), len(self.left)
            words = f"{done} of {self.total} trials done" + f", {self.failed} failed" * (
                self.failed > 0)  # fmt: skip
            if not left:
                return words
            if not {*steps} <= {*self.seconds}:
                return f"{words}, {left} left"
            whole = sum(fmean(self.seconds[step]) for step in steps) / min(self.at_once, left)
        minutes = "less than a minute" if whole < 60 else f"about {span(whole)}"
        return f"{words}, {left} left: {minutes}"


def span(seconds: float) -> str:
    """185 -> 3 min; 7500 -> 2 h 5 min."""
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _reason(log: Path, status: int) -> str:
    """What a command said last of its failure: the user's error, else the end of a traceback."""
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines()]
    lines = [line for line in lines if line]
    told = [line for line in lines if re.match(r"error( \(rank \d+\))?: ", line)]
    return f"code {status}, {(told or lines or ['nothing was said'])[-1][:400]}"


def as_flags(values: dict[str, Any]) -> list[str]:
    """{"objective.dims": [16, 384]} -> ["--objective.dims", "16", "384"]; null is `none`."""
    words: list[str] = []
    for key, value in values.items():
        items = (value or [None]) if isinstance(value, list) else [value]
        spelled = {None: "none", True: "true", False: "false"}
        words.append(f"--{key}")
        words += [spelled[v] if v is None or isinstance(v, bool) else str(v) for v in items]
    return words


def run_all(
    study: Study, out: Path, *, jobs: int, extra_env: dict[str, str], keep: bool = False
) -> list[Trial]:
    """All trials, `jobs` at a time, sharing the cores. -> those that failed.

    keep: a finished trial with the same command counts as done, whatever code and data it is of.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = max(1, (cores or 1) // (jobs * study.ranks))
    todo = [Job(study, trial, out) for trial in study.trials()]
    pace = Pace(todo, jobs)
    with ThreadPoolExecutor(jobs) as pool:
        good = list(pool.map(lambda job: job.run(threads, extra_env, keep, pace), todo))
    return [job.trial for job, ok in zip(todo, good, strict=True) if not ok]


def check(study: Study, out: Path, files: bool = True) -> list[str]:
    """Refuse before the first trial what a trial would refuse: settings that are no options, and
    (unless told otherwise) data that is not there or cannot be evaluated. -> lines on the data for
    the report. Raises UserError."""
    sources: dict[tuple, tuple[Config, list[str]]] = {}
    models: dict[str, Source] = {}
    for trial in study.trials():
        job = Job(study, trial, out)
        try:
            config = job.config()
            for step in job.steps() if files else []:
                identity.data(job.reads(step))
            if files:
                key = str(config.model)
                models[key] = models.get(key) or open_source(config.model)
                _check_sizes(study, models[key])
        except UserError as error:
            raise UserError(f"study {study.name}, {trial}: {error}") from None
        if trial.seed is not None:
            key = tuple(str(one) for one in config.training)
            sources.setdefault(key, (config, []))[1].append(f"{trial.condition}/{trial.method}")
    return _check_data(study, list(sources.values())) if files else []


def _check_sizes(study: Study, model: Source) -> None:
    known = {"layers": model.config.num_hidden_layers, "dims": model.width}
    for e in study.evaluate:
        for what, most in known.items():
            for n in e.get(what) or []:
                need(type(n) is int and 1 <= n <= most, f"evaluate: {what}: {n!r} is outside 1 .. "
                     f"{most}, the most that {model.name} has")  # fmt: skip


def _check_data(study: Study, sources: Sequence[tuple[Config, list[str]]]) -> list[str]:
    """Read the evaluation data whole, and the training data to see whether it has texts of it."""
    tasks: list[Task] = []
    for number, e in enumerate(study.evaluate, 1):
        try:
            mine, lines = load_tasks(e.get("data") or [])
            more, more_lines = load_suite(e["suite"]) if e.get("suite") else ([], [])
            for spec in ("pca_text", "lens_text", "bits_text"):
                if e.get(spec):
                    read_training(e[spec], negatives=0)
        except UserError as error:
            raise UserError(f"study {study.name}, evaluation {number}: {error}") from None
        for line in lines + more_lines:
            print(f"evaluation {number}: {line}", flush=True)
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
        try:
            rows, _ = read_sources(list(config.training), config)
        except UserError as error:
            raise UserError(f"study {study.name}, {trials[0]}: {error}") from None
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


def read_done(folder: Path, step: str = "train") -> dict[str, Any] | None:
    """What was recorded of a finished step: command, code, data, commit, seconds. None where there
    is nothing, or nothing that can be read: the step is run again."""
    return _read(_mark(folder, step, "done"))


def read_failed(folder: Path, step: str) -> dict[str, Any] | None:
    """What was recorded of a step that failed: code, reason, seconds."""
    found = _read(_mark(folder, step, "failed"))
    return found if found and "reason" in found else None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _mark(folder: Path, step: str, kind: str) -> Path:
    return folder / f"{step}.{kind}.json"


def folders(study: Study, out: Path) -> Iterator[tuple[Trial, Path]]:
    """Every trial and its folder."""
    return ((trial, out / "runs" / str(trial)) for trial in study.trials())
