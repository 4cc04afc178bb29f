"""2DMSE, Espresso's first version (arXiv 2402.14776v1): the task loss at full width and at a random
prefix, at the last layer and at a random shallower one, and that layer aligned with the last."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from mipic_llm import losses
from mipic_llm.config import Config
from mipic_llm.objective.mrl import Contrast
from mipic_llm.objective.seen import Seen
from mipic_llm.objective.term import Needs, Term, Value, per_dim, pick


class TwoDMse(Term):
    """Draws (layer, prefix width)."""

    def __init__(self, config: Config, width: int, depth: int, weight: float) -> None:
        super().__init__(weight)
        self.task, self.temperature = Contrast(config), config.ese.temperature
        self.depth, self.dims = depth, config.objective.dims or []

    def draw(self, generator: torch.Generator) -> tuple[int, ...]:
        (layer,) = pick(self.depth - 1, 1, generator)
        (at,) = pick(len(self.dims) - 1, 1, generator)
        return 1 + layer, self.dims[at]

    def needs(self, drawn: tuple[int, ...]) -> Needs:
        return Needs(gathered=drawn[:1])

    def across(self, seen: Seen, drawn: tuple[int, ...]) -> Iterator[Value]:
        layer, dim = drawn
        dims = [dim, self.dims[-1]]
        yield per_dim("mrl", self.task(seen, seen.everyone(), dims), dims)
        yield Value("express", self.task(seen, seen.everyone(layer), dims).sum())
        mine = seen.mine(layer)
        align = losses.alignment_kl(mine, seen.mine(), self.temperature)
        yield Value("align", seen.part(align, len(mine)))
