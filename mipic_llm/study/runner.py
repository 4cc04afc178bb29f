"""Runs the trials of a study as commands of the package, each once; what is done stays done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mipic_llm.errors import UserError
from mipic_llm.study.spec import UNTRAINED, Evaluation, Study, Trial


class Job:
    """The commands of one trial and where they leave their files."""

    def __init__(self, study: Study, trial: Trial, out: Path) -> None:
        self.study, self.trial = study, trial
        self.folder = out / "runs" / trial.folder
        self.model = self.folder / "train" if trial.seed is not None else None

    def flags(self) -> dict[str, Any]:
        s, t = self.study, self.trial
        own = {} if t.seed is None else {**s.methods[t.method], "seed": t.seed}
        return {**s.settings, **s.conditions[t.condition], **own}

    def commands(self) -> list[tuple[str, list[str]]]:
        """(step name, arguments): training first (unless untrained), then each evaluation."""
        found = []
        if self.model is not None:
            flags = ["--recipe", self.study.recipe, "--output_dir", str(self.model), "--overwrite",
                     "true", "--tracking.run_name", str(self.trial)]  # fmt: skip
            if self.study.ds_config:
                flags += ["--ds_config", self.study.ds_config]
            found.append(("train", [*self._program("train"), *flags, *as_flags(self.flags())]))
        for i, evaluation in enumerate(self.study.evaluate):
            found.append((f"evaluate{i}", self._evaluate(evaluation, i)))
        return found

    def _evaluate(self, e: Evaluation, i: int) -> list[str]:
        flags: dict[str, Any] = {"output_dir": str(self.folder / f"scores{i}"), "rows": True}
        flags |= {"data": e.data, "suite": e.suite, "layers": e.layers, "dims": e.dims}
        flags["pca_text"] = e.pca_text
        if self.model is None:
            base = {k: v for k, v in self.flags().items() if k.startswith("model.")}
            flags |= base
            # its readout is that of the methods' recipe, whose settings decide the inner layers
            flags |= {"recipe": self.study.recipe, "model": base.get("model.name", "quickstart")}
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

    def run(self, threads: int, extra_env: dict[str, str], say: Callable[[str], None]) -> bool:
        """Do what is not done. -> whether everything succeeded."""
        self.folder.mkdir(parents=True, exist_ok=True)
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), **extra_env}
        steps = [name for name, _ in self.commands()]
        for name in steps:  # a command is known only once its forerunners have left their files
            command = dict(self.commands())[name]
            done = self.folder / f"{name}.done.json"
            if done.is_file() and json.loads(done.read_text())["command"] == command[1:]:
                continue
            for later in steps[steps.index(name) :]:
                (self.folder / f"{later}.done.json").unlink(missing_ok=True)
            begun = time.monotonic()
            with (self.folder / f"{name}.log").open("w") as log:
                code = subprocess.run(command, env=env, stdout=log, stderr=subprocess.STDOUT,
                                      check=False).returncode  # fmt: skip
            seconds = round(time.monotonic() - begun, 1)
            if code != 0:
                say(f"{self.trial}: {name} FAILED with code {code}: {self.folder / name}.log")
                return False
            row = {"command": command[1:], "seconds": seconds}
            done.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
            say(f"{self.trial}: {name} {seconds:.0f} s")
        return True


def as_flags(values: dict[str, Any]) -> list[str]:
    """{"objective.dims": [16, 384]} -> ["--objective.dims", "16", "384"]; null is `none`."""
    words: list[str] = []
    for key, value in values.items():
        words.append(f"--{key}")
        if value is None:
            words.append("none")
        elif isinstance(value, list):
            words += [str(v) for v in value] or ["none"]
        else:
            words.append(str(value).lower() if isinstance(value, bool) else str(value))
    return words


def run_all(
    study: Study, out: Path, *, jobs: int, extra_env: dict[str, str], say: Callable[[str], None]
) -> list[Trial]:
    """All trials, `jobs` at a time, sharing the cores. -> those that failed."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = max(1, (cores or 1) // (jobs * study.ranks))
    todo = [Job(study, trial, out) for trial in study.trials()]
    with ThreadPoolExecutor(jobs) as pool:
        good = list(pool.map(lambda job: job.run(threads, extra_env, say), todo))
    return [job.trial for job, ok in zip(todo, good, strict=True) if not ok]


def check(study: Study, out: Path) -> None:
    """Refuse what every trial would refuse, before the first one: settings that are no options."""
    from mipic_llm.config.read import load_config

    for trial in study.trials():
        if trial.method == UNTRAINED:
            continue
        job = Job(study, trial, out)
        words = dict(job.commands())["train"]
        try:
            load_config(words[words.index("--recipe") :])
        except UserError as error:
            raise UserError(
                f"study {study.name}, {trial.condition}/{trial.method}: {error}"
            ) from None


def seconds_of(job_folder: Path, step: str = "train") -> float | None:
    """Wall time of a finished step."""
    path = job_folder / f"{step}.done.json"
    return json.loads(path.read_text())["seconds"] if path.is_file() else None


def folders(study: Study, out: Path) -> Sequence[tuple[Trial, Path]]:
    return [(trial, out / "runs" / trial.folder) for trial in study.trials()]
