"""DeepSpeed's engine around a module, or its refusal of a DeepSpeed file in one line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from mipic_llm.errors import UserError, one_line
from mipic_llm.runtime.start import deepspeed


def initialize(
    module: nn.Module, optimizer: Any, scheduler: Any, ds_config: dict[str, Any], file: str | None
) -> Any:
    """file: the user's DeepSpeed file, None for ours. Raises UserError for what DeepSpeed asserts
    about that file only when it makes its optimizer: combinations of its keys."""
    try:
        engine, *_ = deepspeed.initialize(
            model=module, optimizer=optimizer, lr_scheduler=scheduler, config=ds_config,
            dist_init_required=False,
        )  # fmt: skip
    except (AssertionError, NotImplementedError, ValueError) as error:
        if file is None:
            raise
        told = one_line(error) or type(error).__name__
        raise UserError(f"ds_config {file}: DeepSpeed refuses it: {told}; mend the file") from error
    _tolerant_timers(engine)
    return engine


def _tolerant_timers(engine: Any) -> None:
    """Let a pass begin whose timers run. DeepSpeed starts those of the backward once for each
    forward behind it, of which a step has several (groups of like length), and asserts that they
    stand still: `wall_clock_breakdown` ended every run."""
    start = engine._start_timers

    def begin(names: Iterable[str]) -> None:
        start([name for name in names if not getattr(engine.timers(name), "started_", False)])

    engine._start_timers = begin
