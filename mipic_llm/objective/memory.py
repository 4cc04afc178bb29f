"""Readouts of earlier steps, as further columns of the relation between texts.

The cross-batch memory of Wang et al. 2020 (arXiv 1912.06798), used without gradients: a step has
few texts to be compared with, the last steps had many, and their readouts have hardly moved since.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Readouts (M, D), the keys of their texts (M,), int64, and with a teacher its vectors (M, K).
Kept = tuple[Tensor, ...]


class Memory:
    """A ring of the newest `size` readouts of all ranks, with what is known of their texts, so the
    same on every rank; part of a run's state."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._ring: Kept | None = None
        self._filled, self._next = 0, 0
        self._seen: Kept | None = None

    def look(
        self, everyone_ND: Tensor, key_N: Tensor, teacher_NK: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """What is kept, (M, D), (M,) and (M, K) or None, to be seen beside a step's own; those wait
        for `keep`."""
        taught = () if teacher_NK is None else (teacher_NK,)
        now = everyone_ND.detach(), key_N, *taught
        self._seen = now if self.size else None
        readout, key, *kept = (x[: self._filled] for x in self._ring or now)
        return readout, key, kept[0] if kept else None

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

    def state(self) -> tuple[Any, ...] | None:
        """The kept rows on the CPU, as they lie, where the next one goes, their keys, and the
        teacher's vectors where there is one; None = empty."""
        if self._ring is None:
            return None
        readout, *known = (x[: self._filled].cpu() for x in self._ring)
        return readout, self._next, *known

    def restore(self, state: tuple[Any, ...] | None, device: torch.device) -> None:
        """What `state` gave. At another size: the newest, and their places start anew."""
        if state is None or not self.size:
            return
        readout, following, *known = state
        kept, n = [readout, *known], len(readout)
        if not (n == self.size or following == n < self.size):
            kept = [x.roll(-following, 0)[-self.size :] for x in kept]
            n = len(kept[0])
            following = n % self.size
        self._ring = _empty(self.size, *(x.to(device) for x in kept))
        for ring, rows in zip(self._ring, kept, strict=True):
            ring[:n] = rows
        self._filled, self._next = n, following


def _empty(size: int, *like: Tensor) -> Kept:
    return tuple(x.new_zeros(size, *x.shape[1:]) for x in like)
