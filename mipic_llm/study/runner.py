"""Runs the trials of a study as commands of the package; what is done and unchanged stays done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mipic_llm.config import Config, load_config, need
from mipic_llm.config.files import find_file
from mipic_llm.errors import UserError
from mipic_llm.evaluation.read import suite_specs
from mipic_llm.study import identity
from mipic_llm.study.spec import Study, Trial


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
            flags.setdefault("data.max_length", self.config().data.max_length)
        else:
            kind = "adapter" if (self.model / "adapter").is_dir() else "merged"
            flags["model"] = str(self.model / kind)
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
            *(e.get("bits_text") or []),
            *suite,
        ]

    def run(self, threads: int, extra_env: dict[str, str], keep: bool) -> bool:
        """Do what is not done. -> whether everything succeeded."""
        self.folder.mkdir(parents=True, exist_ok=True)
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), **extra_env}
        steps, (commit, code) = self.steps(), identity.code()
        for number, step in enumerate(steps):
            words = self.command(step)
            row = {"command": words[1:], "code": code, "data": identity.data(self.reads(step))}
            done = read_done(self.folder, step)
            if done and all(done.get(k) == row[k] for k in (["command"] if keep else row)):
                continue
            for later in steps[number:]:
                _done(self.folder, later).unlink(missing_ok=True)
            begun = time.monotonic()
            with (self.folder / f"{step}.log").open("w") as log:
                status = subprocess.run(words, env=env, stdout=log, stderr=subprocess.STDOUT,
                                        check=False).returncode  # fmt: skip
            seconds = round(time.monotonic() - begun, 1)
            if status != 0:
                print(f"{self.trial}: {step} FAILED with code {status}: {log.name}", flush=True)
                return False
            row |= {"commit": commit, "seconds": seconds}
            _done(self.folder, step).write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
            print(f"{self.trial}: {step} {seconds:.0f} s", flush=True)
        return True


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
    with ThreadPoolExecutor(jobs) as pool:
        good = list(pool.map(lambda job: job.run(threads, extra_env, keep), todo))
    return [job.trial for job, ok in zip(todo, good, strict=True) if not ok]


def check(study: Study, out: Path, files: bool = True) -> None:
    """Refuse before the first trial what a trial would refuse: settings that are no options, and
    (unless told otherwise) files that are not there. Raises UserError."""
    for trial in study.trials():
        job = Job(study, trial, out)
        try:
            job.config()
            for step in job.steps() if files else []:
                identity.data(job.reads(step))
        except UserError as error:
            raise UserError(f"study {study.name}, {trial}: {error}") from None


def read_done(folder: Path, step: str = "train") -> dict[str, Any] | None:
    """What was recorded of a finished step: command, code, data, commit, seconds. None where there
    is nothing, or nothing that can be read: the step is run again."""
    try:
        found = json.loads(_done(folder, step).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _done(folder: Path, step: str) -> Path:
    return folder / f"{step}.done.json"


def folders(study: Study, out: Path) -> Iterator[tuple[Trial, Path]]:
    """Every trial and its folder."""
    return ((trial, out / "runs" / str(trial)) for trial in study.trials())
