"""Files of torch.save that may be a stranger's: read as numbers, never as code.

A pickle can call any function while it is read. What a checkpoint of ours needs beside tensors and
plain Python is short, so everything else is refused before anything is read (`check`), and reading
itself takes nothing else (`numbers_only`, torch's weights_only).
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from mipic_llm.errors import UserError
from mipic_llm.runtime import ranks as dist

# Where numpy's arrays are rebuilt depends on its version; the others are small records.
ALLOWED = (
    "numpy._core.multiarray._reconstruct", "numpy.core.multiarray._reconstruct", "numpy.ndarray",
    "numpy.dtype", "numpy.dtypes.UInt32DType", "deepspeed.utils.tensor_fragment.fragment_address",
    "deepspeed.runtime.zero.config.ZeroStageEnum",
    "deepspeed.runtime.fp16.loss_scaler.LossScaler", "mipic_llm.types.Best",
)  # fmt: skip
FORCED, FREED = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


def check(folder: Path, *, alone: bool = False) -> None:
    """Raise UserError for a *.pt below folder that would call anything else. Nothing is run. Each
    rank looks at its share, and all raise; alone: this one looks at all, and the others not."""
    paths = sorted(folder.rglob("*.pt"))
    if alone:
        problem = _strange(folder, paths)
    else:
        own = _strange(folder, paths[dist.rank() :: dist.world_size()])
        problem = next((p for p in dist.gather_objects(own) if p), None)
    if problem:
        raise UserError(problem)


def _strange(folder: Path, paths: Iterable[Path]) -> str | None:
    """The line for the last of these files that would; None where all are numbers."""
    problem = None
    for path in paths:
        try:
            strange = sorted(set(get_unsafe_globals_in_checkpoint(str(path))) - set(ALLOWED))
        except Exception as error:  # no file of torch.save, or built to mislead
            strange = [f"something unreadable ({' '.join(str(error).split())[:100]})"]
        if strange:
            problem = (
                f"checkpoint {folder}: {path.name} holds {', '.join(strange)[:200]}, which no "
                "checkpoint of ours does: it was made to run code, or is damaged; nothing of it "
                "was run, use another"
            )
    return problem


def _named() -> Iterator[tuple[Any, str]]:
    for name in ALLOWED:
        module, _, attribute = name.rpartition(".")
        try:
            yield getattr(importlib.import_module(module), attribute), name
        except (ImportError, AttributeError):
            pass  # a place of another version


@contextmanager
def numbers_only() -> Iterator[None]:
    """Inside, every torch.load of this process is one with weights_only and the list above."""
    kept = {key: os.environ.pop(key, None) for key in (FORCED, FREED)}
    os.environ[FORCED] = "1"
    try:
        with safe_globals(list(_named())):
            yield
    finally:
        del os.environ[FORCED]
        os.environ.update({key: value for key, value in kept.items() if value is not None})


def read(path: Path, **options: Any) -> Any:
    """torch.load of a single file, as numbers."""
    with numbers_only():
        return torch.load(path, weights_only=True, **options)
