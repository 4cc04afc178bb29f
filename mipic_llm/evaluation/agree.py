"""Do all ranks mean the same run? Each reads its own settings and files, on its own machine."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, Any

from mipic_llm.config import Config, flatten, need
from mipic_llm.config.compare import BASE, NO_MATTER, TEACHER, Change, settings_of
from mipic_llm.config.files import find_file
from mipic_llm.data.read.rows import TextSource
from mipic_llm.data.row_store import digest_of
from mipic_llm.errors import UserError
from mipic_llm.evaluation.tasks.base import Task, digest
from mipic_llm.model.source import Source
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.ranks import say
from mipic_llm.tracking.environment import versions

_PATHS = NO_MATTER | BASE | TEACHER | {"data.train", "data.validation"}
PATIENCE = 30.0  # seconds until a disk of the network shows what another machine wrote


def _first_apart(own: Mapping[str, Any]) -> tuple[str, int, str, Any, Any] | None:
    """-> (name, rank, its machine, rank 0's value, its value) of the first that is not equal on all
    ranks; the same on every rank, all call."""
    tables = dist.gather_objects((socket.gethostname(), dict(own)))
    (_, first), *others = tables
    for rank, (host, table) in enumerate(others, 1):
        for name in {**first, **table}:
            if first.get(name) != table.get(name):
                return name, rank, host, first.get(name), table.get(name)
    return None


def agree_on_settings(config: Config, source: Source) -> None:
    """UserError on every rank where two have other packages, other settings, paths aside, or
    another base."""
    if dist.world_size() == 1:
        return
    if apart := _first_apart(versions()):
        name, rank, host, old, new = apart
        raise UserError(f"{name} is {old} on rank 0 and {new} on rank {rank} ({host}); install the "
                        "same on every machine")  # fmt: skip
    row = {key: value for key, value in settings_of(config).items() if key not in _PATHS}
    if apart := _first_apart({key: repr(value) for key, value in row.items()}):
        name, rank, host, old, new = apart
        raise UserError(f"{Change(name, old, new)} from rank 0 to rank {rank} ({host}); start all "
                        "ranks with the same flags and recipe")  # fmt: skip
    file = config.ds_config and find_file("ds_configs", config.ds_config)
    if apart := _first_apart({"ds_config": file and file.read_bytes()}):
        raise UserError(f"ds_config: {config.ds_config} holds something else on rank {apart[1]} "
                        f"({apart[2]}) than on rank 0; give all the same")  # fmt: skip
    if apart := _first_apart({"base": source.content}):
        raise UserError(f"model.name: {flatten(config)['model.name']} holds other files on rank "
                        f"{apart[1]} ({apart[2]}) than on rank 0; give all the same")  # fmt: skip


def agree_on_rows(sources: Sequence[TextSource], tasks: Sequence[Task]) -> None:
    """The same of the rows that were read, by content and order: ranks draw their parts of a batch
    by the numbers of rows. Reads all rows where there are several ranks."""
    if dist.world_size() == 1:
        return
    own = {f"training data {i}": (s.name, s.weight, s.drawn, digest_of(s.examples))
           for i, s in enumerate(sources, 1)}  # fmt: skip
    own |= {f"evaluation data {i}": (t.name, digest(t)) for i, t in enumerate(tasks, 1)}
    _refuse(own)


def agree_on_texts(what: str, *texts: Sequence[str]) -> None:
    """The same of texts; what: what a line calls them."""
    if dist.world_size() == 1:
        return
    found = hashlib.blake2b(digest_size=16)
    for text in chain(*texts):
        found.update(json.dumps(text).encode())
    _refuse({what: ("", found.hexdigest())})


def _refuse(own: Mapping[str, tuple]) -> None:
    """own: name and content of each data set, by kind and number."""
    if apart := _first_apart(own):
        kind, rank, host, old, new = apart
        name = f"{kind.rstrip(' 0123456789')} {(old or new)[0]}".strip()
        raise UserError(
            f"{name}: rank {rank} ({host}) has other rows, or another order, than rank 0; give "
            "every machine the same file, and in a program seed what draws or shuffles rows"
        )


def one_place(config: Config, lock: IO | None) -> bool:
    """Whether output_dir is one directory for all ranks; all call. lock: rank 0's file in it.

    A note where it is not: then nothing but the finished model can be written. UserError where
    checkpoints are asked for, since each machine would keep its own part of them.
    """
    if dist.world_size() == 1:
        return True
    word, problem = os.urandom(8).hex(), None
    try:
        if lock is not None:
            os.pwrite(lock.fileno(), word.encode(), 0)
            os.fsync(lock.fileno())
    except OSError as error:
        problem = f"output_dir: cannot write to {config.output_dir}: {error.strerror}; name another"
    word, problem = dist.from_first((word, problem))
    need(problem is None, str(problem))
    path, until = Path(config.output_dir) / ".lock", time.monotonic() + PATIENCE
    while not (seen := dist.rank() == 0 or _reads(path, word)) and time.monotonic() < until:
        time.sleep(0.2)
    found = dist.gather_objects(None if seen else socket.gethostname())
    rank = next((r for r, host in enumerate(found) if host), None)
    if rank is None:
        return True
    what = f"output_dir: {path.parent} of rank {rank} ({found[rank]}) is not where rank 0 writes"
    t = config.train
    if t.save_every or t.resume != "never" or config.eval.best:
        raise UserError(f"{what}, and checkpoints are of parts of all ranks; give an absolute path "
                        "on a disk that all machines share")  # fmt: skip
    say(f"note: {what}; the finished model will be there, and no checkpoint before it")
    return False


def _reads(path: Path, word: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") == word
    except OSError:
        return False
