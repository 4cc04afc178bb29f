"""Checkpoints that are complete or absent: written aside, listed in a manifest, renamed.

Layout: <output_dir>/checkpoints/step-00000120/{deepspeed/, rank_0.pt, ..., config.yaml,
manifest.json}. manifest.json is written last, before the rename. A shared file system is assumed.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
from collections.abc import Callable, Sequence
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


class NotWritten(Exception):
    """The disk did not take a checkpoint: where, and why. Nothing is left of it."""


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


def save(
    folder: Path, engine: Engine, state: RunState, config_yaml: str, *, lora: bool,
    identity: dict[str, str], batches: Sequence[tuple[int, int]],
) -> Path:  # fmt: skip
    """Write checkpoint step-N under folder; all ranks call. -> its path. identity: what data and
    base model are, for `check_resume`; batches: (rows of a global batch, until which step) over the
    run so far, for the order of the rows that follow. Raises NotWritten on every rank where one
    could not write.
    """
    final = folder / f"step-{state.step:08d}"
    fresh = folder / f".step-{state.step:08d}.new"
    first = dist.rank() == 0

    def begin() -> None:
        if first:
            _remove(fresh)
            (fresh / "deepspeed").mkdir(parents=True)
            (fresh / "config.yaml").write_text(config_yaml, encoding="utf-8")

    def own_state() -> None:
        kept = state if first else state._replace(memory=None)  # the same on every rank
        torch.save(kept._asdict(), fresh / f"rank_{dist.rank()}.pt")

    def own_files() -> dict[str, list]:  # hundreds of GB: each rank its share
        written = sorted(p for p in fresh.rglob("*") if p.is_file())[dist.rank() :]
        own = written[:: dist.world_size()]
        for path in own:
            _sync(path)
        return {str(path.relative_to(fresh)): _fingerprint(path) for path in own}

    def end() -> None:
        if first:
            files = {name: found for part in parts for name, found in part.items()}
            table = {"version": VERSION, "step": state.step, "world_size": dist.world_size(),
                     "zero_stage": engine.stage, "batches": batches, "identity": identity,
                     "files": files}  # fmt: skip
            (fresh / MANIFEST).write_text(json.dumps(table, indent=1), encoding="utf-8")
            _sync(fresh / MANIFEST)
            _remove(final)
            fresh.rename(final)
            _sync(folder)

    try:
        _together(begin, folder)
        _together(lambda: engine.save(fresh, trainable_only=lora), folder)
        _together(own_state, folder)
        parts = _together(own_files, folder)
        _together(end, folder)
    except NotWritten:
        if first:
            shutil.rmtree(fresh, ignore_errors=True)
        dist.barrier()
        raise
    return final


def _together(work: Callable[[], Any], folder: Path) -> list[Any]:
    """work() on every rank. -> the answers; NotWritten on every rank where it failed on one."""
    problem = answer = None
    try:
        answer = work()
    except (OSError, RuntimeError) as error:
        problem = f"{folder}: {_reason(error, folder)}"
    found = dist.gather_objects((problem, answer))
    if problem := next((p for p, _ in found if p), None):
        raise NotWritten(problem)
    return [a for _, a in found]


def _reason(error: Exception, folder: Path) -> str:
    """Why a file was not written. torch says that a write failed, not why: another is tried."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    probe = folder / ".step-00000000.new"
    try:
        probe.write_bytes(bytes(1 << 20))
        probe.unlink()
    except OSError as found:
        probe.unlink(missing_ok=True)
        return found.strerror or str(found)
    return str(error).splitlines()[0]


def _remove(path: Path) -> None:
    """Delete a directory of ours: out of sight first, so that a kill leaves no half of it."""
    if path.is_dir() and not path.is_symlink():
        hidden = path.with_name(f".{path.name.lstrip('.').removesuffix('.new')}.old")
        if path != hidden:
            shutil.rmtree(hidden, ignore_errors=True)
            path = path.rename(hidden)
        shutil.rmtree(path)


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
            if files[name] != _fingerprint(path / name):
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
    runs left half-written; nothing that bears another name. Rank 0 calls; a disk that refuses is
    one line."""
    try:
        for old in steps_in(folder)[keep:] if keep else ():
            if int(old.name[5:]) != also:
                _remove(old)
        for torn in folder.glob(".step-*"):
            if _TORN.fullmatch(torn.name):
                _remove(torn)
    except OSError as error:
        dist.say(f"warning: an old checkpoint in {folder} was not deleted: {error.strerror}")


def delete_all(folder: Path) -> None:
    """Delete every checkpoint, those set aside too, and the folder if nothing else is in it."""
    for place in [*folder.glob("left-*"), folder]:
        if not place.is_symlink():
            prune(place, 0)
            for path in steps_in(place):
                _remove(path)
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
        state = RunState(**torch.load(path / name, weights_only=True))
    state = state._replace(rng={}) if moved else state
    return state._replace(memory=dist.from_first(state.memory))
