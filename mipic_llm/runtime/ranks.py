"""Collectives over the ranks. Every helper is the identity on one process.

Numbers and objects on the host go over gloo, in a group of their own; tensors on a device over what
serves that device in the process group (nccl).
"""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from datetime import timedelta
from functools import lru_cache

import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

# How long ranks wait on the host for one that writes, tokenises or checks an export. A rank that
# ends is noticed at once, by its connection.
HOST_LIMIT = timedelta(hours=12)
# What gloo, nccl and the store of the ranks say where another process is not there any more.
_GONE = re.compile("connection (closed|reset) by peer|broken pipe|socket closed|got 0 bytes|"
                   "remote process exited", re.IGNORECASE)  # fmt: skip


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def ranks_here() -> int:
    """Ranks on this machine; no two launchers have the same variable for it. All ranks call."""
    return gather_objects(socket.gethostname()).count(socket.gethostname())


def say(text: str) -> None:
    """One line for the user, from rank 0, above the progress bar if there is one. A reader that
    went away (a closed terminal, a dead tee) ends no run, nor does a letter that it cannot show."""
    if rank() == 0:
        code = getattr(sys.stdout, "encoding", None) or "utf-8"
        try:
            tqdm.write(text.encode(code, "backslashreplace").decode(code))
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _host(aside: bool = False) -> dist.ProcessGroup:
    """All ranks over gloo; made when all ranks first ask for it. aside: a second such group, for a
    thread beside the training, whose collectives would else meet those of the training."""
    return _host_of(dist.group.WORLD, aside)


@lru_cache(maxsize=2)
def _host_of(_world: dist.ProcessGroup, _aside: bool) -> dist.ProcessGroup:
    return dist.new_group(backend="gloo", timeout=HOST_LIMIT)


def leave() -> None:
    """Join the collectives' threads: a process that ends with one running may abort (SIGABRT)."""
    _host_of.cache_clear()
    if dist.is_initialized():
        dist.destroy_process_group()


def lost(error: BaseException) -> str | None:
    """What an error of a collective says of another rank whose process is gone; None for any
    other."""
    found = _GONE.search(str(error)) if isinstance(error, RuntimeError) else None
    return found[0].lower() if found and world_size() > 1 else None


def first_error(alone: bool = False) -> bool:
    """For a rank that ends with an error: whether it is the first, so that one line is printed.
    Follow it by `part`. alone: the answer where rank 0, which holds the store, is gone."""
    if world_size() == 1:
        return True
    try:
        return _store().add(_ERROR, 1) == 1
    except RuntimeError:  # rank 0 held it, and went, most often with a line of its own
        return alone


def error_elsewhere() -> bool:
    """Whether another rank has ended with an error, so that collectives here fail."""
    try:
        return world_size() > 1 and _store().add(_ERROR, 0) > 0
    except RuntimeError:
        return False


def part() -> None:
    """End the collectives, so that others do not wait in them; rank 0, whose process holds what
    ranks agree by, stays until all have seen that there is an error, 5 seconds at most."""
    if world_size() == 1:
        return
    store, last, world = _store(), rank() == 0, world_size()
    try:
        store.add(_SEEN, 1)
        if last and not torch.cuda.is_available():  # nccl would wait for the others
            leave()
        until = time.monotonic() + 5
        while last and store.add(_SEEN, 0) < world and time.monotonic() < until:
            time.sleep(0.05)
    except RuntimeError:
        pass


_ATTEMPT = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
_ERROR, _SEEN = f"mipic/error/{_ATTEMPT}", f"mipic/seen/{_ATTEMPT}"


def _store() -> dist.Store:
    return dist.distributed_c10d._get_default_store()


def barrier() -> None:
    if world_size() > 1:
        dist.barrier(group=_host())


def _rows(x_Nd: Tensor, counts: tuple[int, ...], group: dist.ProcessGroup | None) -> Tensor:
    own = x_Nd.new_zeros((max(counts), *x_Nd.shape[1:]))
    own[: len(x_Nd)] = x_Nd
    parts = [torch.empty_like(own) for _ in counts]
    dist.all_gather(parts, own, group=group)
    return torch.cat([part[:n] for part, n in zip(parts, counts, strict=True)])


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_Nd: Tensor, counts: tuple[int, ...]) -> Tensor:
        ctx.counts = counts
        return _rows(x_Nd, counts, None)

    @staticmethod
    def backward(ctx, grad_Nd: Tensor):
        # Every rank used our rows: their gradients add up. No other factor. A rank gets
        # the sum for its own rows only: half of what an all-reduce would send.
        rows, parts = max(ctx.counts), []
        for part in grad_Nd.contiguous().split(list(ctx.counts)):
            if len(part) < rows:
                part = torch.cat([part, part.new_zeros((rows - len(part), *part.shape[1:]))])
            parts.append(part)
        own = torch.empty_like(parts[0])
        dist.reduce_scatter(own, parts)
        return own[: ctx.counts[rank()]], None


def gather_rows(x_Nd: Tensor, counts: tuple[int, ...]) -> Tensor:
    """Rows of all ranks in rank order, (sum counts, ...), with exact gradients.

    counts: rows on every rank (`all_counts`), which may differ and may be 0.
    """
    if world_size() == 1 or max(counts) == 0:
        return x_Nd
    return _GatherRows.apply(x_Nd, counts)


def gather_host_rows(x_Nd: Tensor, counts: tuple[int, ...]) -> Tensor:
    """The same of a tensor on the host, without gradients."""
    return x_Nd if world_size() == 1 else _rows(x_Nd, counts, _host())


def all_counts(*numbers: int) -> list[tuple[int, ...]]:
    """For each number, its value on every rank, in rank order."""
    if world_size() == 1:
        return [(n,) for n in numbers]
    own = torch.tensor(numbers)
    table = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(table, own, group=_host())
    return [tuple(column) for column in torch.stack(table, dim=1).tolist()]


def mean_over_ranks(values: Tensor) -> Tensor:
    """Elementwise mean over ranks of a small detached tensor, on its own device."""
    if world_size() > 1:
        values = values.clone()
        dist.all_reduce(values, group=_host() if values.device.type == "cpu" else None)
        values /= world_size()
    return values


def from_first(value):
    """Rank 0's value (any picklable object), on every rank."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=_host())
    return box[0]


def gather_objects(value, aside: bool = False) -> list:
    """Everybody's value in rank order, on every rank. aside: see `_host`."""
    if world_size() == 1:
        return [value]
    table: list = [None] * world_size()
    dist.all_gather_object(table, value, group=_host(aside))
    return table
