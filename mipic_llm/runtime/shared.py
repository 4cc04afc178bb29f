"""A tensor on the host that the ranks of a machine hold once."""

from __future__ import annotations

import socket
import tempfile
import uuid
from math import prod
from pathlib import Path

import torch

from mipic_llm.disk import allocate
from mipic_llm.errors import UserError
from mipic_llm.runtime import ranks


class Shared:
    """A float32 tensor on the host, once for all ranks of a machine: a file of the directory for
    temporary files (TMPDIR), mapped into memory. One process has a plain tensor. All ranks call.

    tensor: (L, N, D). Every rank writes rows of its own; `complete` then makes all of them seen.
    Raises UserError on all ranks where a directory has no room for it.
    """

    def __init__(self, *shape: int) -> None:
        self._places: list = [None]
        if ranks.world_size() == 1 or prod(shape) == 0:
            self.tensor = torch.empty(shape)
            return
        folder = Path(tempfile.gettempdir())
        about, size = folder.stat(), 4 * prod(shape)
        # Two containers of one machine may have two such directories.
        self._places = ranks.gather_objects((socket.gethostname(), about.st_dev, about.st_ino))
        path, problem = folder / f"mipic-{ranks.from_first(uuid.uuid4().hex)}", None
        if self._first():
            try:
                with path.open("wb") as file:
                    allocate(file, size)
            except OSError as error:
                path.unlink(missing_ok=True)
                problem = (f"{folder}: cannot hold {size / 2**30:.2f} GiB of vectors of an "
                           f"evaluation: {error.strerror}; name a directory with room in the "
                           "environment variable TMPDIR")  # fmt: skip
        problems = [found for found in ranks.gather_objects(problem) if found]
        if not problems:
            mapped = torch.from_file(str(path), shared=True, size=prod(shape), dtype=torch.float32)
            self.tensor = mapped.view(shape)
        ranks.barrier()
        if self._first():
            path.unlink(missing_ok=True)  # it lives as long as it is mapped, a kill included
        if problems:
            raise UserError(problems[0])

    def complete(self, rows_of: list[list[int]]) -> None:
        """rows_of: for each rank, the rows that it wrote. Those of other machines come over the
        network, one of L at a time."""
        if len(set(self._places)) > 1:
            counts = tuple(map(len, rows_of))
            order = [row for rows in rows_of for row in rows]
            for part_ND in self.tensor:
                found_ND = ranks.gather_host_rows(part_ND[rows_of[ranks.rank()]], counts)
                if self._first():
                    part_ND[order] = found_ND
        ranks.barrier()

    def _first(self) -> bool:
        """Whether this is the first rank of its machine."""
        return self._places.index(self._places[ranks.rank()]) == ranks.rank()
