"""Checkpoints that are complete or absent: written aside, listed in a manifest, renamed.

Layout: <output_dir>/checkpoints/step-00000120/{deepspeed/, rank_0.pt, ..., config.yaml,
manifest.json}. manifest.json is written last, before the rename. A shared file system is assumed.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mipic_llm.errors import UserError
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.engine import Engine
from mipic_llm.types import RunState

MANIFEST = "manifest.json"


def rng_state() -> dict[str, Any]:
    """Every random generator of this rank."""
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {"torch": torch.get_rng_state(), "cuda": cuda, "numpy": np.random.get_state(),
            "python": random.getstate()}  # fmt: skip


def set_rng_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])


def save(folder: Path, engine: Engine, state: RunState, config_yaml: str, *, lora: bool) -> Path:
    """Write checkpoint step-N under folder; all ranks call. -> its path."""
    final = folder / f"step-{state.step:08d}"
    fresh = folder / f".step-{state.step:08d}.new"
    if dist.rank() == 0:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        (fresh / "config.yaml").write_text(config_yaml, encoding="utf-8")
    dist.barrier()
    engine.save(fresh, trainable_only=lora)
    if dist.rank():  # the same on every rank
        state = state._replace(memory=None)
    torch.save(state._asdict(), fresh / f"rank_{dist.rank()}.pt")
    dist.barrier()
    written = sorted(p for p in fresh.rglob("*") if p.is_file())
    dist.barrier()  # all have looked before rank 0 writes the manifest
    own = {}
    for path in written[dist.rank() :: dist.world_size()]:  # hundreds of GB: each its share
        _sync(path)
        own[str(path.relative_to(fresh))] = _fingerprint(path)
    parts = dist.gather_objects(own)
    if dist.rank() == 0:
        table = {"step": state.step, "world_size": dist.world_size(), "zero_stage": engine.stage,
                 "files": {name: part[name] for part in parts for name in part}}  # fmt: skip
        (fresh / MANIFEST).write_text(json.dumps(table, indent=1), encoding="utf-8")
        _sync(fresh / MANIFEST)
        shutil.rmtree(final, ignore_errors=True)
        fresh.rename(final)
        _sync(folder)
    dist.barrier()
    return final


def _fingerprint(path: Path) -> list:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
    return [path.stat().st_size, digest.hexdigest()]


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_complete(folder: Path) -> bool:
    """Every file of the manifest is there, with its size and content."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError):
        return False
    paths = [(folder / name, found) for name, found in files.items()]
    return all(p.is_file() and p.stat().st_size == size for p, (size, _) in paths) and all(
        _fingerprint(path) == found for path, found in paths
    )


def newest_complete(folder: Path) -> Path | None:
    found = sorted(folder.glob("step-*"), reverse=True)
    return next((path for path in found if is_complete(path)), None)


def prune(folder: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints, and what killed runs left half-written."""
    if keep:
        for old in sorted(folder.glob("step-*"), reverse=True)[keep:]:
            shutil.rmtree(old)
    for torn in folder.glob(".step-*.new"):
        shutil.rmtree(torn)


def load(path: Path, engine: Engine, *, lora: bool) -> RunState:
    """Weights, optimizer, schedule and this rank's state. UserError at another world size."""
    table = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    for key, now in (("world_size", dist.world_size()), ("zero_stage", engine.stage)):
        if table[key] != now:
            raise UserError(
                f"train.resume: {path} was written with {key} {table[key]}, this run has {now}; "
                "resume with the same"
            )
    engine.load(path, trainable_only=lora)
    # Our own file, checked against the manifest: tensors, tuples and numpy state.
    state = RunState(**torch.load(path / f"rank_{dist.rank()}.pt", weights_only=False))
    return state._replace(memory=dist.from_first(state.memory))
