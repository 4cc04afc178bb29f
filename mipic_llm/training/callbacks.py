"""Callbacks: five hooks of a run. Tracking, progress and early stopping are three of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mipic_llm.config import flatten, nearest, need
from mipic_llm.config.files import find_file
from mipic_llm.evaluation.tasks.base import digest
from mipic_llm.report.judged import judged
from mipic_llm.report.progress import Progress
from mipic_llm.runtime.ranks import say
from mipic_llm.tracking import Status, Tracker, write_record
from mipic_llm.training.run import LiveRun
from mipic_llm.types import Score


class Callback(Protocol):
    """What a run tells of itself. Override any hook; the others do nothing (type checkers take a
    hook of a Protocol without a statement for one that a subclass must have).

    Every rank calls every hook in the same order; files and prints belong to `run.rank == 0`. A run
    stops cleanly after the step (with its evaluation and export) when `on_step` or `on_evaluation`
    returns "stop" on any rank, or when a hook called `run.stop(reason)`. A hook that raises ends
    the run as a failed one, with an error that names it.
    """

    def on_start(self, run: LiveRun) -> None:
        """Model and data are loaded; nothing was evaluated or trained yet."""
        return None

    def on_step(self, run: LiveRun, step: int, row: Mapping[str, float]) -> Any:
        """After optimizer step `step` (from 1). row: the keys of metrics.jsonl; empty for a step
        that train.log_every leaves out, whose figures stay on the device."""
        return None

    def on_evaluation(self, run: LiveRun, step: int, scores: Sequence[Score]) -> Any:
        """After an evaluation: before the first step, during training, and after the last one."""
        return None

    def on_save(self, run: LiveRun, path: Path) -> None:
        """A file or directory is complete: a checkpoint (some steps after its own), the exported
        model, a table, a plot."""
        return None

    def on_end(self, run: LiveRun, status: Status) -> None:
        """The last hook: FINISHED, KILLED (stopped by a signal) or FAILED. A run that is refused
        before `on_start` (bad input, an export that would fail) calls no hook."""
        return None


HOOKS = [name for name in vars(Callback) if name.startswith("on_")]


def check_callbacks(callbacks: Iterable[Any]) -> None:
    """Raises UserError for an object without any hook, and for a misspelt hook."""
    for callback in callbacks:
        is_class = isinstance(callback, type)
        name = callback.__name__ if is_class else type(callback).__name__
        own = [name for name in dir(callback) if name.startswith("on_")]
        wrong = [name for name in own if name not in HOOKS]
        need(not is_class, f"callbacks: {name} is a class; give an instance, {name}()")
        need(not wrong, f"callbacks: {name}.{wrong and wrong[0]} is not a hook"
             f"{nearest(wrong[:1], HOOKS)}")  # fmt: skip
        need(bool(own), f"callbacks: {name} has none of the hooks {', '.join(HOOKS)}")


class Tracking(Callback):
    """Rows, scores and files go to a tracker (metrics.jsonl, MLflow); on rank 0 only."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker, self.scores = tracker, list[Score]()

    def on_start(self, run: LiveRun) -> None:
        if run.step == 0 or run.changes:  # a resumed run has them already
            self.tracker.params(flatten(run.config) | run.facts)
            self.tracker.data(run.facts.get("data", []), "training")
            self.tracker.data([
                {"name": task.name, "kind": "texts", "digest": digest(task),
                 "rows": sum(len(texts) for texts in task.texts().values())}
                for task in run.data.tasks
            ], "validation")  # fmt: skip
            if run.step == 0 and run.config.ds_config:
                self.tracker.artifact(find_file("ds_configs", run.config.ds_config))

    def on_step(self, run: LiveRun, step: int, row: Mapping[str, float]) -> None:
        run.mlflow_run_id = self.tracker.run_id or run.mlflow_run_id
        if row:
            self.tracker.metrics(row, step)

    def on_evaluation(self, run: LiveRun, step: int, scores: Sequence[Score]) -> None:
        self.scores = list(scores)
        self.tracker.evaluation({f"eval/{s.name}": s.value for s in scores}, step)

    def on_save(self, run: LiveRun, path: Path) -> None:
        checkpoint = path.parent.name in ("checkpoints", "best")
        if not checkpoint and not (run.lora and path.name == "merged"):
            self.tracker.artifact(path)

    def on_end(self, run: LiveRun, status: Status) -> None:
        name, model = run.config.tracking.register, run.out / "merged"
        if status == "FINISHED" and (run.config.tracking.log_model or name) and model.is_dir():
            decision = judged(run.out, run.config.eval.best)
            figures = {f"eval/{s.name}": s.value for s in self.scores}
            self.tracker.model(model, figures, run.step, (name, decision) if name else None)
        if run.summary:
            self.tracker.describe(run.summary)
        self.tracker.close(status)
        write_record(run.out, self.tracker)
        if line := self.tracker.where():
            say(line)


class ShowProgress(Callback):
    """The progress bar or lines of rank 0."""

    display: Progress | None = None

    def on_step(self, run: LiveRun, step: int, row: Mapping[str, float]) -> None:
        if self.display is None:
            self.display = Progress(run.total, step - 1, run.rank == 0, began=run.began)
        self.display.update(step, row)

    def on_end(self, run: LiveRun, status: Status) -> None:
        if self.display is not None:
            self.display.close()


class EarlyStopping(Callback):
    """Stops after `patience` evaluations without a better eval.best."""

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def on_evaluation(self, run: LiveRun, step: int, scores: Sequence[Score]) -> None:
        if run.best is not None and run.best.worse >= self.patience:
            run.stop(
                f"{run.config.eval.best} was best at step {run.best.step} and {run.best.worse} "
                "evaluations since were no better"
            )
