"""A training run while it goes on: what its parts and its callbacks share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mipic_llm.config import Config, dump
from mipic_llm.model.directory import Source
from mipic_llm.runtime import checkpoint
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.engine import Engine
from mipic_llm.training.feed import Data
from mipic_llm.types import Best, RunState


@dataclass
class LiveRun:
    """A run that is going on; callbacks get it as the first argument of every hook.

    config: resolved. out: the output directory. total: steps of the whole run. step: steps done.
    began: time.monotonic() when this process began its first step. best: the best evaluation by
    eval.best. mlflow_run_id: once known; goes into every checkpoint. facts: what is recorded beside
    the configuration. stop_reason: why the run stops after this step, None while it goes on.
    failure: the first error that a callback raised on this rank.
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


def save(run: LiveRun, folder: Path, state: RunState) -> Path:
    """Write the checkpoint folder/step-N; all ranks call. -> its path."""
    return checkpoint.save(folder, run.engine, state, dump(run.config), lora=run.lora)
