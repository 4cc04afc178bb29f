"""A training run while it goes on: what its parts and its callbacks share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from mipic_llm.config import Config, dump
from mipic_llm.config.compare import Change
from mipic_llm.errors import UserError
from mipic_llm.model.source import Source
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.engine import Engine
from mipic_llm.runtime.ranks import say
from mipic_llm.runtime.saving import NotWritten, Saver
from mipic_llm.training.feed import Data
from mipic_llm.training.resume import identity
from mipic_llm.training.step import NotFinite
from mipic_llm.types import Best, RunState


class CallbackError(RuntimeError):
    """A callback raised; the message names the callback and the hook."""


@dataclass
class LiveRun:
    """A run that is going on; every hook of a callback gets it.

    config: resolved. out: output directory. total: steps of the whole run; step: those done. began:
    time.monotonic() at this process's first step. best: by eval.best; saved_best: at the last
    checkpoint. changes: of the configuration, in a resumed run. facts: recorded beside the
    configuration. summary: Markdown for a tracker's page. stop_reason: why the run stops after this
    step, None while it goes on. failure: the first error of a callback on this rank. saving: the
    step of the save in flight, and what is to be done when it is over. one_place: all ranks see
    the same output directory, so that there can be checkpoints.
    """

    config: Config
    source: Source
    data: Data
    engine: Engine
    out: Path
    total: int
    callbacks: Sequence[Any] = ()
    step: int = 0
    began: float = math.nan
    best: Best | None = None
    saved_best: Best | None = None
    mlflow_run_id: str | None = None
    changes: Sequence[Change] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    summary: str = ""
    stop_reason: str | None = None
    failure: Exception | None = None
    one_place: bool = True
    saver: Saver = field(default_factory=Saver)
    saving: tuple[int, Callable[[bool], None]] | None = None

    @property
    def rank(self) -> int:
        """This process's place among the ranks; files and prints belong to rank 0."""
        return dist.rank()

    @cached_property
    def identity(self) -> dict[str, str]:
        """Of rows and base model, by content; for rank 0, in the thread of the first save."""
        return identity(self.source, self.data)

    @property
    def lora(self) -> bool:
        return self.config.lora.rank > 0

    def stop(self, reason: str) -> None:
        """End the run after the running step; the model is evaluated and exported as usual."""
        self.stop_reason = self.stop_reason or reason

    def emit(self, hook: str, *args: Any) -> None:
        """Call one hook of every callback. `settle` raises what one of them raised."""
        for callback in self.callbacks:
            name = type(callback).__name__
            try:
                answer = getattr(callback, hook, lambda *_: None)(self, *args)
            except Exception as error:
                failure = CallbackError(f"callback {name}.{hook}: {type(error).__name__}: {error}")
                failure.__cause__ = error
                self.failure = self.failure or failure
            else:
                if answer and hook in ("on_step", "on_evaluation"):
                    self.stop(f"{name} asked for it")

    def settle(
        self, signalled: bool = False, broken: NotFinite | None = None
    ) -> tuple[bool, bool, list[NotFinite]]:
        """Agree over ranks on what hooks left, on signals and on figures, and on whether a save is
        over; all ranks call.

        -> (whether the run stops, whether a rank got a signal, what ranks found not finite). Raises
        CallbackError on every rank if a hook raised on one.
        """
        own = [self.failure is not None, self.stop_reason is not None, signalled, bool(broken),
               self.saver.busy]  # fmt: skip
        agreed = (dist.mean_over_ranks(torch.tensor(own).float()) > 0).tolist()
        failed, stopping, signalled, poisoned, busy = agreed
        if not busy:
            self.finish()
        if failed:
            raise self.failure or CallbackError("a callback raised on another rank")
        if stopping:
            self.stop("a callback on another rank asked for it")
        found = dist.gather_objects(broken) if poisoned else []
        return stopping, signalled, [one for one in found if one is not None]

    def save(
        self, folder: Path, state: Callable[[], RunState], *, keep: int, also: int | None = None,
        then: Callable[[bool], None],
    ) -> None:  # fmt: skip
        """Begin the checkpoint folder/step-N of `state()`, asked for when the save before is over;
        all ranks call. keep, also: see `checkpoint.prune`. then: called when it is written (True)
        or the disk did not take it (said in one line). Raises UserError for weights that are not
        finite."""
        self.finish()
        if not all(dist.gather_objects(self.engine.finite())):
            raise UserError(
                f"step {self.step}: trained weights are not finite, so no checkpoint was written; "
                "lower --train.learning_rate and go on with --train.resume auto"
            )
        self.saving = self.step, then
        self.saver.start(folder, self.engine, state(), dump(self.config), lora=self.lora,
                         identity=lambda: self.identity, batches=self.data.plan.sizes(self.step),
                         keep=keep, also=also)  # fmt: skip

    def finish(self) -> Path | None:
        """Wait for the save in flight, if there is one; all ranks call. -> its path, None where
        the disk did not take it."""
        if self.saving is None:
            return None
        (step, then), self.saving = self.saving, None
        try:
            path = self.saver.wait()
        except NotWritten as error:
            say(f"warning: the checkpoint of step {step} was not written: {error}")
            path = None
        then(path is not None)
        if path is not None:
            self.emit("on_save", path)
        return path
