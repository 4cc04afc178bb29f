"""Espresso (arXiv 2402.14776v2): learn to express at every layer, learn to compress into k
channels. The formulas are in losses/ese.py; the last layer's contrastive loss is the mrl term."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mipic_llm import losses
from mipic_llm.config import Config, trained_dims
from mipic_llm.objective.mrl import Contrast
from mipic_llm.objective.seen import Seen
from mipic_llm.objective.term import Needs, Term, Value


class Ese(Term):
    def __init__(self, config: Config, width: int, depth: int, weight: float) -> None:
        super().__init__(weight)
        self.options, self.task = config.ese, Contrast(config)
        self.k, self.inner = trained_dims(config)[0], tuple(range(1, depth))

    def needs(self, drawn: tuple[int, ...]) -> Needs:
        return Needs(gathered=self.inner)

    def across(self, seen: Seen, drawn: tuple[int, ...]) -> Iterator[Value]:
        compressed = self._compress(seen, seen.everyone())
        expressed = torch.zeros_like(compressed)
        for layer in self.inner:
            weight = losses.layer_weight(layer) / len(self.inner)
            there = seen.everyone(layer)
            expressed = expressed + weight * self.task(seen, there, [self.k])[0]
            compressed = compressed + weight * self._compress(seen, there)
        yield Value("express", expressed)
        yield Value("compress", compressed)

    def _compress(self, seen: Seen, readout_ND: Tensor) -> Tensor:
        target = losses.pca_target(readout_ND.detach(), self.k, self.options.pca)[seen.own]
        mine = readout_ND[seen.own, : self.k]
        return seen.part(losses.compress(mine, target, self.options.temperature), len(mine))
