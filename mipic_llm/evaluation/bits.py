"""Vectors as an index stores them: int8 with a range for each channel, or one bit, the sign.

The codes are those of sentence-transformers' `quantize_embeddings`. What is scored is what an index
compares: of int8 the middle of each step, of binary -1 and 1, whose cosine is 1 - 2 x Hamming / d.
Shape legend: N texts, d channels kept.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

STEPS = 255  # from the lowest to the highest value of a channel


class Quantiser(NamedTuple):
    """range_2d: least and greatest value of each channel over unit vectors, float32. mean_d: what
    is taken off before the sign; None = nothing, as most indexes do."""

    range_2d: Tensor
    mean_d: Tensor | None = None

    @classmethod
    def fit(cls, z_Nd: Tensor, centre: bool = False) -> Quantiser:
        """On prefixes of text that stands for what will be stored; lengths carry nothing."""
        unit_Nd = normalize(z_Nd.float(), dim=1)
        range_2d = torch.stack([unit_Nd.amin(0), unit_Nd.amax(0)])
        return cls(range_2d, unit_Nd.mean(0) if centre else None)

    def codes(self, z_Nd: Tensor, bits: int) -> np.ndarray:
        """(N, d) int8 for 8 bits; for one bit (N, ceil(d / 8)) uint8, eight channels to a byte."""
        unit_Nd = normalize(z_Nd.float(), dim=1)
        if bits == 1:
            return np.packbits(self._above(unit_Nd).numpy(), axis=-1)
        return (self._steps(unit_Nd) - 128).to(torch.int8).numpy()

    def stored(self, z_Nd: Tensor, bits: int) -> Tensor:
        """(N, d) float32: the values that an index compares after storing with 32, 8 or 1 bits."""
        if bits == 32:
            return z_Nd
        unit_Nd = normalize(z_Nd.float(), dim=1)
        if bits == 1:
            return 2 * self._above(unit_Nd).float() - 1
        return self.range_2d[0] + (self._steps(unit_Nd) + 0.5) * self._step_d()

    def asking(self, z_Nd: Tensor) -> Tensor:
        """(N, d) float32: queries that are not stored, for stored documents (asymmetric distances:
        Gordo and Perronnin, 2011). The mean is off where it is off those."""
        unit_Nd = normalize(z_Nd.float(), dim=1)
        return unit_Nd if self.mean_d is None else unit_Nd - self.mean_d

    def _above(self, unit_Nd: Tensor) -> Tensor:
        return unit_Nd > (0 if self.mean_d is None else self.mean_d)

    def _step_d(self) -> Tensor:
        step_d = (self.range_2d[1] - self.range_2d[0]) / STEPS
        return torch.where(step_d == 0, 1.0, step_d)

    def _steps(self, unit_Nd: Tensor) -> Tensor:
        """Numbers of steps from the lowest value, 0 to STEPS; what lies outside goes to the end."""
        return ((unit_Nd - self.range_2d[0]) / self._step_d()).floor().clamp(0, STEPS)
