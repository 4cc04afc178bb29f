"""The learning rate over the steps of a run."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from typing import Any

from mipic_llm.config import Config


def schedule_of(train: Any, total: int) -> Callable[[int], float]:
    """Factor of the peak rate at step n of `total`: linear warm-up, then as `train.schedule` says.

    wsd: warm-up, stable, decay (arXiv 2404.06395), the last part linear.
    """
    warmup, floor = round(total * train.warmup_ratio), train.min_learning_rate_ratio
    decay = min(round(total * train.decay_ratio), total - warmup)
    level = total - decay if train.schedule == "wsd" else warmup

    def factor(n: int) -> float:
        if n < warmup:
            return (n + 1) / warmup
        if train.schedule == "constant":
            return 1.0
        done = min(1.0, max(0, n - level) / max(1, total - level))
        left = 0.5 * (1 + math.cos(math.pi * done)) if train.schedule == "cosine" else 1 - done
        return floor + (1 - floor) * left

    return factor


def schedule_of_stages(config: Config) -> Callable[[int], float]:
    """The same of a run in stages, each with a schedule of its own."""
    train, ends, factors = config.train, [0], []
    for stage in config.stages:
        own = {k: v for k in ("schedule", "warmup_ratio") if (v := getattr(stage, k)) is not None}
        peak = (stage.learning_rate or train.learning_rate) / train.learning_rate
        factors.append((peak, schedule_of(train.model_copy(update=own), stage.steps)))
        ends.append(ends[-1] + stage.steps)

    def factor(n: int) -> float:
        at = min(bisect_right(ends, n), len(factors)) - 1
        return factors[at][0] * factors[at][1](n - ends[at])

    return factor
