"""Readouts of earlier steps, as further columns of the relation between texts.

The cross-batch memory of Wang et al. 2020 (arXiv 1912.06798), used without gradients: a step has
few texts to be compared with, the last steps had many, and their readouts have hardly moved since.
"""

from __future__ import annotations

import torch
from torch import Tensor

Kept = tuple[Tensor, Tensor]  # readouts (M, D), and the keys of their texts (M,), int64


class Memory:
    """A ring of the newest `size` readouts of all ranks, with the keys of their texts, so the same
    on every rank; part of a run's state."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._ring: Kept | None = None
        self._filled, self._next = 0, 0
        self._seen: Kept | None = None

    def look(self, everyone_ND: Tensor, key_N: Tensor) -> Kept:
        """What is kept, (M, D) and (M,), to be seen beside a step's own; those wait for `keep`."""
        now = everyone_ND.detach(), key_N
        self._seen = now if self.size else None
        readout, key = self._ring or now
        return readout[: self._filled], key[: self._filled]

    def keep(self) -> None:
        """The step that looked last has made its update: its readouts stay, the oldest go."""
        if self._seen is None:
            return
        new = [x[-self.size :] for x in self._seen]
        if self._ring is None:
            self._ring = _empty(self.size, *new)
        places_N = torch.arange(self._next, self._next + len(new[0]), device=new[0].device)
        for ring, rows in zip(self._ring, new, strict=True):
            ring[places_N % self.size] = rows
        self._next = (self._next + len(new[0])) % self.size
        self._filled = min(self.size, self._filled + len(new[0]))
        self._seen = None

    def state(self) -> tuple[Tensor, int, Tensor] | None:
        """The kept rows on the CPU, as they lie, where the next one goes, and their keys; None =
        empty."""
        if self._ring is None:
            return None
        readout, key = (x[: self._filled].cpu() for x in self._ring)
        return readout, self._next, key

    def restore(self, state: tuple[Tensor, int, Tensor] | None, device: torch.device) -> None:
        """What `state` gave. At another size: the newest, and their places start anew."""
        if state is None or not self.size:
            return
        rows_MD, following, key_M = state
        n = len(rows_MD)
        if not (n == self.size or following == n < self.size):
            rows_MD, key_M = (x.roll(-following, 0)[-self.size :] for x in (rows_MD, key_M))
            n = len(rows_MD)
            following = n % self.size
        self._ring = _empty(self.size, rows_MD.to(device), key_M.to(device))
        for ring, rows in zip(self._ring, (rows_MD, key_M), strict=True):
            ring[:n] = rows
        self._filled, self._next = n, following


def _empty(size: int, readout: Tensor, key: Tensor) -> Kept:
    return readout.new_zeros(size, readout.shape[1]), key.new_zeros(size)
