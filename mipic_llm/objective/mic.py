"""MIC (losses/mic.py), beside the mrl term: at the layers of `mic.layers`, for truncated prefixes.

    mic.weight * mean over layers and prefixes of (cross + floor + even + spread)
cross, floor: among the tokens of each text. even, spread: among the readouts of all texts.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mipic_llm import losses
from mipic_llm.config import Config
from mipic_llm.objective.seen import Seen
from mipic_llm.objective.term import Inside, Needs, Term, Value, per_dim
from mipic_llm.types import Packing, Traits


class _Mic(Term):
    def __init__(self, config: Config, width: int, depth: int, weight: float) -> None:
        super().__init__(weight)
        self.layers, self.threshold = tuple(config.mic.layers or ()), config.mic.threshold
        self.dims = [d for d in config.objective.dims or [] if d < width]

    def takes(self, source: Traits) -> bool:
        return True  # it reads no label


class MicTokens(_Mic):
    def __init__(self, config: Config, width: int, depth: int, weight: float) -> None:
        super().__init__(config, width, depth, weight)
        self.local = (("mic_cross", 1.0), ("mic_floor", 1.0))

    def needs(self, drawn: tuple[int, ...]) -> Needs:
        return Needs(tokens=self.layers)

    def per_example(self, inside: Inside, drawn: tuple[int, ...]) -> tuple[Tensor, ...]:
        sums, mask = [], inside.mask_ST
        for layer in self.layers:
            tokens = inside.tokens[layer]
            if isinstance(mask, Packing):
                tokens = pad_sequence(tokens.split(mask.lengths), batch_first=True)
                real = torch.arange(tokens.shape[1], device=tokens.device)
                mask_ST = real < mask.cu_S1.diff()[:, None]
            else:
                mask_ST = mask
            sums.append(torch.stack(
                losses.decorrelation(tokens, mask_ST, self.dims, self.threshold)
            ))  # fmt: skip
        return tuple(torch.stack(sums).mean(0).unbind())


class MicTexts(_Mic):
    def needs(self, drawn: tuple[int, ...]) -> Needs:
        return Needs(gathered=self.layers)

    def across(self, seen: Seen, drawn: tuple[int, ...]) -> Iterator[Value]:
        # Every rank has all texts: the mean over ranks is this value, and so is the gradient.
        n = len(self.layers) * len(self.dims)
        for layer in self.layers:
            values = losses.isotropy(seen.everyone(layer), seen.key_N, self.dims)
            for name, value_P in zip(("mic_even", "mic_spread"), values, strict=True):
                yield per_dim(name, value_P / n, [f"{d}@{layer}" for d in self.dims])
