"""Readouts of earlier steps, as further columns of the relation between texts.

The cross-batch memory of Wang et al. 2020 (arXiv 1912.06798), used without gradients: a step has
few texts to be compared with, the last steps had many, and their readouts have hardly moved since.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Memory:
    """A ring of the newest `size` readouts of all ranks, so the same on every rank; part of a
    run's state."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._ring_MD: Tensor | None = None
        self._filled, self._next = 0, 0
        self._seen_ND: Tensor | None = None

    def look(self, everyone_ND: Tensor) -> Tensor | None:
        """What is kept, (M, D), to be seen beside a step's own readouts; those wait for `keep`."""
        if not self.size:
            return None
        self._seen_ND = everyone_ND.detach()
        if not self._filled:
            return None
        assert self._ring_MD is not None
        return self._ring_MD[: self._filled]

    def keep(self) -> None:
        """The step that looked last has made its update: its readouts stay, the oldest go."""
        if self._seen_ND is None:
            return
        new_ND = self._seen_ND[-self.size :]
        if self._ring_MD is None:
            self._ring_MD = new_ND.new_zeros(self.size, new_ND.shape[1])
        places_N = torch.arange(self._next, self._next + len(new_ND), device=new_ND.device)
        self._ring_MD[places_N % self.size] = new_ND
        self._next = (self._next + len(new_ND)) % self.size
        self._filled = min(self.size, self._filled + len(new_ND))
        self._seen_ND = None

    def state(self) -> tuple[Tensor, int] | None:
        """The kept rows on the CPU, as they lie, and where the next one goes; None = empty."""
        if self._ring_MD is None:
            return None
        return self._ring_MD[: self._filled].cpu(), self._next

    def restore(self, state: tuple[Tensor, int] | None, device: torch.device) -> None:
        """What `state` gave. At another size: the newest, and their places start anew."""
        if state is None or not self.size:
            return
        rows_MD, following = state
        same = len(rows_MD) == self.size or following == len(rows_MD) < self.size
        if not same:
            rows_MD = rows_MD.roll(-following, 0)[-self.size :]
            following = len(rows_MD) % self.size
        self._ring_MD = rows_MD.new_zeros(self.size, rows_MD.shape[1], device=device)
        self._ring_MD[: len(rows_MD)] = rows_MD
        self._filled, self._next = len(rows_MD), following
