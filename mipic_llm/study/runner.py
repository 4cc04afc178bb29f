"""Runs the trials of a study, several at a time, and says how long it will take."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean
from typing import Any

from mipic_llm.errors import UserError
from mipic_llm.study import identity
from mipic_llm.study.job import Job, mark, read_done, write_mark
from mipic_llm.study.spec import Study, Trial
from mipic_llm.tracking.environment import cores


def run_one(
    job: Job, threads: int, extra_env: dict[str, str], keep: bool, pace: Pace
) -> bool:  # fmt: skip
    """Do what is not done of a trial. -> whether everything succeeded."""
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), **extra_env}
    steps, (commit, code) = job.steps(), identity.code()
    for number, step in enumerate(steps):
        log, begun = job.folder / f"{step}.log", time.monotonic()
        status, why = 2, ""
        try:
            words = job.command(step)
            row = {"command": words[1:], "code": code, "data": identity.data(job.reads(step))}
            done = read_done(job.folder, step)
            if done and _alike(done, row, job.trial, keep):
                pace.passed(job.trial, step, done.get("seconds", 0.0))
                continue
            job.folder.mkdir(parents=True, exist_ok=True)
            for later in steps[number:]:
                for kind in ("done", "failed"):
                    mark(job.folder, later, kind).unlink(missing_ok=True)
            with log.open("w") as file:
                status = subprocess.run(words, env=env, stdout=file, stderr=subprocess.STDOUT,
                                        check=False).returncode  # fmt: skip
            if status:
                why = _reason(log, status)
            else:
                row |= {"commit": commit, "seconds": round(time.monotonic() - begun, 1)}
                write_mark(job.folder, step, "done", row)
        except (UserError, OSError) as error:  # what it reads is gone, or the disk is full
            why = str(error)
        seconds = round(time.monotonic() - begun, 1)
        if why:
            try:
                row = {"code": status, "reason": why, "seconds": seconds}
                write_mark(job.folder, step, "failed", row)
            except OSError:
                pass  # the disk is full: it is said below
            pace.lost(job.trial)
            print(f"{job.trial}: {step} FAILED: {why} (log: {log}); {pace}", flush=True)
            return False
        pace.passed(job.trial, step, seconds)
        print(f"{job.trial}: {step} {seconds:.0f} s; {pace}", flush=True)
    return True


def _alike(done: dict[str, Any], row: dict[str, Any], trial: Trial, keep: bool) -> bool:
    """Whether a step that is done is the one that would be run now. A study may have moved: where
    its own directory and the package lie makes no difference."""

    def told(found: dict[str, Any]) -> list[Any]:
        own = f"runs/{trial}/"
        first, *words = found["command"]  # -m, or the launcher
        words = [Path(first).name, *(own + w.rpartition(own)[2] if own in w else w for w in words)]
        return [words] if keep else [words, found["code"], [*found["data"].values()]]

    try:
        return told(done) == told(row)
    except (KeyError, TypeError, ValueError, AttributeError):  # of another version, or damaged
        return False


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


def run_all(
    study: Study, out: Path, *, jobs: int, extra_env: dict[str, str], keep: bool = False
) -> list[Trial]:
    """All trials, `jobs` at a time, sharing the cores. -> those that failed.

    keep: a finished trial with the same command counts as done, whatever code and data it is of.
    """
    threads = max(1, (cores() or 1) // (jobs * study.ranks))
    todo = [Job(study, trial, out) for trial in study.trials()]
    pace = Pace(todo, jobs)
    with ThreadPoolExecutor(jobs) as pool:
        good = list(pool.map(lambda job: run_one(job, threads, extra_env, keep, pace), todo))
    return [job.trial for job, ok in zip(todo, good, strict=True) if not ok]
