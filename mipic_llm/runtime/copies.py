"""Copies of what a checkpoint holds, in host memory, to be written while the training goes on."""

from __future__ import annotations

import io
import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from mipic_llm.runtime import ranks as dist


class Frozen:
    """What a file will hold: a pickle in which tensors are numbers, and these tensors."""

    def __init__(self, content: Any) -> None:
        stream = io.BytesIO()
        pickler = _Pickler(stream)
        pickler.dump(content)
        self.rest, self.tensors = stream.getvalue(), pickler.tensors

    def thaw(self) -> Any:
        unpickler = _Unpickler(io.BytesIO(self.rest))  # made above, so it is no stranger's
        unpickler.tensors = self.tensors
        return unpickler.load()


class _Pickler(pickle.Pickler):
    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self.tensors: list[Tensor] = []
        self.known: dict[tuple, int] = {}

    def persistent_id(self, value: Any) -> int | None:
        if not isinstance(value, Tensor):
            return None
        place = value.untyped_storage().data_ptr(), value.storage_offset()
        key = (*place, value.dtype, value.shape, value.stride())
        if key not in self.known:  # tied weights stay one
            self.known[key] = len(self.tensors)
            self.tensors.append(value.detach())
        return self.known[key]


class _Unpickler(pickle.Unpickler):
    tensors: list[Tensor]

    def persistent_load(self, number: int) -> Tensor:
        return self.tensors[number]


class Copies:
    """Copies of tensors in host memory (pinned, where they come from a GPU), which are used again
    in the next save: fresh memory costs six times as long as the copy itself."""

    def __init__(self) -> None:
        self.free: dict[tuple, list[Tensor]] = defaultdict(list)
        self.used: list[Tensor] = []
        self.room = 0

    def begin(self) -> None:
        """The last save is over; what it did not use goes: shapes may change from save to save, as
        those of a memory that fills. Half of the memory left may be taken by the ranks here."""
        self.free.clear()
        for copy in self.used:
            self.free[_kind(copy)].append(copy)
        self.used.clear()
        self.room = _memory_left() // 2 // dist.ranks_here()

    def of(self, content: Any) -> Frozen | None:
        """content with copies of its tensors; None where there is no room for them."""
        frozen = Frozen(content)
        want: dict[tuple, list[Tensor]] = defaultdict(list)
        for tensor in frozen.tensors:
            want[_kind(tensor)].append(tensor)
        new = sum(x.nbytes for kind, all in want.items() for x in all[len(self.free[kind]) :])
        if new > self.room:
            return None
        self.room -= new
        frozen.tensors = [self._copy(x) for x in frozen.tensors]
        return frozen

    def end(self) -> None:
        """Wait until the device has sent all."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def _copy(self, tensor: Tensor) -> Tensor:
        free = self.free[_kind(tensor)]
        copy = free.pop() if free else torch.empty(
            tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda
        )  # fmt: skip
        self.used.append(copy)
        return copy.copy_(tensor, non_blocking=True)


def _kind(tensor: Tensor) -> tuple:
    return tensor.shape, tensor.dtype


# Where control groups of version 2 and of version 1 say how much memory a container may have, how
# much it has, and what of that are files that can be read again.
_GROUPS = (
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def _memory_left() -> int:
    """Bytes that this machine, or the container on it, can still give."""
    left, groups = psutil.virtual_memory().available, Path("/sys/fs/cgroup")
    for folder, most, now, files in _GROUPS:
        group = groups / folder
        try:
            limit, used = (int((group / name).read_text()) for name in (most, now))
            lines = (group / "memory.stat").read_text().splitlines()
            stat = dict(line.split() for line in lines)
            left = min(left, limit - used + int(stat[files]))
        except (OSError, ValueError, KeyError):  # no container, or one without a limit
            pass
    return left
