"""Checkpoints that are complete or absent: what they hold, which is whole, which go.

Layout: <output_dir>/checkpoints/step-00000120/{deepspeed/, rank_0.pt, ..., config.yaml,
manifest.json}; runtime/saving.py writes them. A shared file system is assumed.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mipic_llm.runtime import pickles
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.engine import Engine
from mipic_llm.types import RunState

MANIFEST, VERSION = "manifest.json", 1
_NAME, _TORN = re.compile(r"step-\d{8,}"), re.compile(r"\.step-\d{8,}\.(new|old)")


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


def remove(path: Path) -> None:
    """Delete a directory of ours: out of sight first, so that a kill leaves no half of it."""
    if path.is_dir() and not path.is_symlink():
        hidden = path.with_name(f".{path.name.lstrip('.').removesuffix('.new')}.old")
        if path != hidden:
            shutil.rmtree(hidden, ignore_errors=True)
            path = path.rename(hidden)
        shutil.rmtree(path)


def fingerprint(path: Path) -> list:
    """[bytes, digest] of a file. In large pieces: a thread that reads in small ones asks for
    Python's lock at each."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        piece = bytearray(min(1 << 24, os.fstat(file.fileno()).st_size + 1))
        while n := file.readinto(piece):
            digest.update(memoryview(piece)[:n])
        return [file.tell(), digest.hexdigest()]


def steps_in(folder: Path) -> list[Path]:
    """The checkpoints of a folder, whole or not, the latest step first; links and what bears
    another name are no checkpoints of ours."""
    found = [p for p in folder.glob("step-*") if _NAME.fullmatch(p.name)]
    return sorted((p for p in found if p.is_dir() and not p.is_symlink()), reverse=True,
                  key=lambda p: int(p.name[5:]))  # fmt: skip


def newest(folder: Path) -> Path | None:
    """The latest checkpoint, without a look at its content."""
    return next(iter(steps_in(folder)), None)


def manifest(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself. ValueError where that is not a manifest of this version."""
    try:
        table = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{MANIFEST}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{MANIFEST} is no JSON") from None
    if not isinstance(table, dict) or table.get("version", VERSION) != VERSION:
        raise ValueError(f"{MANIFEST} is not one of this version ({VERSION})")
    numbers = [table.get(key) for key in ("step", "world_size", "zero_stage")]
    files = table.get("files")
    if not all(type(n) is int for n in numbers) or not isinstance(files, dict):
        raise ValueError(f"{MANIFEST} lacks step, world_size, zero_stage or files")
    batches = table.get("batches", [])  # absent in older ones
    pairs = isinstance(batches, list) and all(isinstance(b, list) and len(b) == 2 for b in batches)
    ends = [0, *(b[1] for b in batches)] if pairs else []
    numbers = [n for b in batches for n in b] if pairs else [None]
    if not all(type(n) is int for n in numbers) or ends != sorted(ends) or min(
            [b[0] for b in batches], default=1) < 1:  # fmt: skip
        raise ValueError(f"{MANIFEST} has odd batches")
    return table


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint; None: every file is there as it was written, no other."""
    try:
        files = manifest(path)["files"]
        there = [p for p in path.rglob("*") if p.is_symlink() or not p.is_dir()]
        if link := next((p for p in there if p.is_symlink()), None):
            return f"{link.relative_to(path)} is a link"
        names = {str(p.relative_to(path)) for p in there} - {MANIFEST}
        if odd := names ^ set(files):
            name = min(odd)
            return f"{name} is {'not in its manifest' if name in names else 'missing'}"
        for name in sorted(names):
            if files[name] != fingerprint(path / name):
                return f"{name} is not as it was written"
    except ValueError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return None


def newest_complete(folder: Path) -> Path | None:
    """The latest undamaged checkpoint; a line for each damaged one on the way."""
    for path in steps_in(folder):
        what = damage(path)
        if what is None:
            return path
        dist.say(f"warning: checkpoint {path} is damaged and left out: {what}")
    return None


def prune(folder: Path, keep: int, also: int | None = None) -> None:
    """Delete all but the newest `keep` checkpoints (0 = keep all) and step `also`, and what killed
    runs left half-written; nothing that bears another name. Rank 0 calls, when no save is in
    flight; a disk that refuses is one line."""
    try:
        for old in steps_in(folder)[keep:] if keep else ():
            if int(old.name[5:]) != also:
                remove(old)
        for torn in folder.glob(".step-*"):
            if _TORN.fullmatch(torn.name):
                remove(torn)
    except OSError as error:
        dist.say(f"warning: an old checkpoint in {folder} was not deleted: {error.strerror}")


def delete_all(folder: Path) -> None:
    """Delete every checkpoint, those set aside too, and the folder if nothing else is in it."""
    for place in [*folder.glob("left-*"), folder]:
        if not place.is_symlink():
            prune(place, 0)
            for path in steps_in(place):
                remove(path)
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()


def set_aside(folder: Path, step: int) -> None:
    """Move checkpoints of later steps out of the way, and say so: a run goes on before them."""
    later = [path for path in steps_in(folder) if int(path.name[5:]) > step]
    if not later:
        return
    left = next(p for n in range(1, 10**6) if not (p := folder / f"left-{n}").exists())
    left.mkdir()
    for path in later:
        path.rename(left / path.name)
    names = ", ".join(path.name for path in reversed(later))
    dist.say(f"note: going on before {names}, which {'was' if len(later) == 1 else 'were'} moved "
             f"to {left}")  # fmt: skip


def load(path: Path, engine: Engine, *, lora: bool) -> RunState:
    """Weights, optimizer, schedule and this rank's state; of another ZeRO stage or number of ranks
    too, then without random states where ranks differ. UserError for files that hold more than
    numbers."""
    table = manifest(path)
    moved = table["world_size"] != dist.world_size()
    reshaped = moved or table["zero_stage"] != engine.stage
    pickles.check(path)
    with pickles.numbers_only():
        engine.load(path, trainable_only=lora, reshaped=reshaped)
        name = f"rank_{0 if moved else dist.rank()}.pt"
        found = torch.load(path / name, weights_only=True)
    # Older ones hold the place in the epoch too, which the plan of this run knows.
    state = RunState(**{key: found[key] for key in RunState._fields if key in found})
    state = state._replace(rng={}) if moved else state
    return state._replace(memory=dist.from_first(state.memory))
