"""A training run while it goes on: what its parts and its callbacks share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mipic_llm.config import Config, dump
from mipic_llm.model.directory import Source
from mipic_llm.runtime import checkpoint
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.engine import Engine
from mipic_llm.training.feed import Data
from mipic_llm.types import Best, RunState


class CallbackError(RuntimeError):
    """A callback raised; the message names the callback and the hook."""


@dataclass
class LiveRun:
    """A run that is going on; every hook of a callback gets it.

    config: resolved. out: output directory. total: steps of the whole run; step: those done. began:
    time.monotonic() at this process's first step. best: by eval.best. facts: recorded beside the
    configuration. stop_reason: why the run stops after this step, None while it goes on. failure:
    the first error of a callback on this rank.
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
    mlflow_run_id: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    stop_reason: str | None = None
    failure: Exception | None = None

    @property
    def rank(self) -> int:
        """This process's place among the ranks; files and prints belong to rank 0."""
        return dist.rank()

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

    def settle(self, signalled: bool = False) -> tuple[bool, bool]:
        """Agree over ranks on what hooks left and on signals; all ranks call.

        -> (whether the run stops, whether a rank got a signal). Raises CallbackError on every rank
        if a hook raised on one.
        """
        own = [self.failure is not None, self.stop_reason is not None, signalled]
        failed, stopping, signalled = (dist.mean_over_ranks(torch.tensor(own).float()) > 0).tolist()
        if failed:
            raise self.failure or CallbackError("a callback raised on another rank")
        if stopping:
            self.stop("a callback on another rank asked for it")
        return stopping, signalled

    def save(self, folder: Path, state: RunState) -> Path:
        """Write the checkpoint folder/step-N; all ranks call. -> its path."""
        path = checkpoint.save(folder, self.engine, state, dump(self.config), lora=self.lora)
        self.emit("on_save", path)
        return path
