"""Readouts of earlier steps, as further columns of the relation between texts.

The cross-batch memory of Wang et al. 2020 (arXiv 1912.06798), without gradients: a step has few
texts to be compared with, the last steps had many, and their readouts have hardly moved since.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Memory:
    """The newest `size` readouts, of all ranks, in the order in which they were added: the same
    on every rank, and part of a run's state."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._kept_MD: Tensor | None = None
        self._step_ND: Tensor | None = None

    def beside(self, everyone_ND: Tensor) -> Tensor:
        """(N + M, D): a step's readouts, then those kept, which are constants."""
        if not self.size:
            return everyone_ND
        self._step_ND = everyone_ND.detach()
        if self._kept_MD is None:
            return everyone_ND
        return torch.cat([everyone_ND, self._kept_MD.to(everyone_ND)])

    def keep(self) -> None:
        """The step that looked here last was a real one: remember its readouts."""
        if self._step_ND is None:
            return
        new_ND = self._step_ND[-self.size :].clone()
        if self._kept_MD is not None:
            new_ND = torch.cat([self._kept_MD.to(new_ND), new_ND])[-self.size :]
        self._kept_MD, self._step_ND = new_ND, None

    def state(self) -> Tensor | None:
        """(M, D) on the CPU, for a checkpoint; None where nothing is kept."""
        return None if self._kept_MD is None else self._kept_MD.cpu()

    def restore(self, state_MD: Tensor | None) -> None:
        """What `state` gave."""
        self._kept_MD = state_MD
