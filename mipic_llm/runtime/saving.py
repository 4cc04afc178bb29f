"""Checkpoints written while the training goes on.

A step waits until its state is copied to host memory. A thread of each rank then writes the copies
and has them on the disk; the threads agree over a group of their own, and rank 0's renames the
directory. Until then it is no checkpoint, and the older ones are whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from mipic_llm.disk import sync
from mipic_llm.runtime import checkpoint
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.checkpoint import MANIFEST, VERSION, fingerprint, remove
from mipic_llm.runtime.copies import Copies, Frozen
from mipic_llm.runtime.engine import Engine
from mipic_llm.types import RunState


class NotWritten(Exception):
    """The disk did not take a checkpoint: where, and why. Nothing is left of it."""


class Saver:
    """Saves of one run, one at a time. All ranks call `start` and `wait` alike."""

    def __init__(self) -> None:
        self._copies = Copies()
        self._thread = ThreadPoolExecutor(1, "save")
        self._result: Future[Path] | None = None

    @property
    def busy(self) -> bool:
        """Whether this rank's thread still writes."""
        return self._result is not None and not self._result.done()

    def wait(self) -> Path:
        """The checkpoint that `start` began. Raises NotWritten on every rank where one could not
        write."""
        assert self._result is not None
        result, self._result = self._result, None
        return result.result()

    def close(self) -> None:
        """Wait for what is in flight, whatever comes of it, and end the thread."""
        self._thread.shutdown()

    def start(
        self, folder: Path, engine: Engine, state: RunState, config_yaml: str, *, lora: bool,
        identity: Callable[[], dict[str, str]], batches: Sequence[tuple[int, int]], keep: int,
        also: int | None = None,
    ) -> None:  # fmt: skip
        """Copy the state for checkpoint step-N under folder, and begin to write it.

        identity: what data and base model are, for `check_resume`; rank 0's thread asks. batches:
        (rows of a global batch, until which step) over the run so far, for the order of the rows
        that follow. keep, also: see `checkpoint.prune`, called when the checkpoint is whole.
        """
        assert self._result is None, "a save is in flight"
        fresh, first = folder / f".step-{state.step:08d}.new", dist.rank() == 0
        table = {
            "version": VERSION,
            "step": state.step,
            "world_size": dist.world_size(),
            "zero_stage": engine.stage,
            "batches": batches,
        }
        files: list[tuple[Path, Frozen]] = []
        self._copies.begin()

        def begin() -> None:
            if first:
                remove(fresh)
                (fresh / "deepspeed").mkdir(parents=True)
                (fresh / "config.yaml").write_text(config_yaml, encoding="utf-8")

        def write(content: Any, path: Path) -> None:
            if (copy := self._copies.of(content)) is None:
                torch.save(content, path)
            else:
                files.append((path, copy))

        def copy() -> None:
            try:
                engine.save(fresh, write, trainable_only=lora)
                kept = state if first else state._replace(memory=None)  # the same on every rank
                write(kept._asdict(), fresh / f"rank_{dist.rank()}.pt")
            finally:
                self._copies.end()

        def finish() -> Path:
            return _or_nothing(fresh, lambda: _write(fresh, files, table, identity, keep, also))

        try:
            _or_nothing(fresh, lambda: (_together(begin, folder), _together(copy, folder)))
            self._result = self._thread.submit(finish)
        except NotWritten as error:
            self._result = Future()
            self._result.set_exception(error)


def _write(
    fresh: Path, files: list[tuple[Path, Frozen]], table: dict[str, Any],
    identity: Callable[[], dict[str, str]], keep: int, also: int | None,
) -> Path:  # fmt: skip
    """Everything after the copies; in the thread of each rank."""
    folder, final = fresh.parent, fresh.with_name(f"step-{table['step']:08d}")

    def own() -> None:
        for path, copy in files:
            torch.save(copy.thaw(), path)

    def look() -> list[str]:
        return [str(p.relative_to(fresh)) for p in fresh.rglob("*") if p.is_file()]

    def check() -> dict[str, list]:  # hundreds of GB: each rank its share
        share = names[dist.rank() :: dist.world_size()]
        try:
            for name in share:
                sync(fresh / name)
            return {name: fingerprint(fresh / name) for name in share}
        except FileNotFoundError as error:
            raise OSError(error.errno, "what another rank wrote is not to be seen; output_dir must "
                          "lie on a disk that all machines share") from None  # fmt: skip

    def commit() -> None:
        if dist.rank() == 0:
            files = {name: found for part in parts for name, found in part.items()}
            table.update(identity=identity(), files=files)
            (fresh / MANIFEST).write_text(json.dumps(table, indent=1), encoding="utf-8")
            sync(fresh / MANIFEST)
            for inner in (p for p in fresh.rglob("*") if p.is_dir()):
                sync(inner)
            sync(fresh)
            remove(final)
            fresh.rename(final)
            sync(folder)
            sync(folder.parent)
            checkpoint.prune(folder, keep, also)

    _together(own, folder)
    # What others wrote a moment ago the list of a network's disk may lack: put together, none does.
    names = sorted({name for some in _together(look, folder) for name in some})
    parts = _together(check, folder)
    _together(commit, folder)
    return final


def _or_nothing(fresh: Path, work: Callable[[], Any]) -> Any:
    """work(); where it fails, nothing is left of `fresh`."""
    try:
        return work()
    except Exception:
        if dist.rank() == 0:
            shutil.rmtree(fresh, ignore_errors=True)
        dist.gather_objects(None, aside=True)
        raise


def _together(work: Callable[[], Any], folder: Path) -> list[Any]:
    """work() on every rank. -> the answers; NotWritten on every rank where it failed on one."""
    problem = answer = fault = None
    try:
        answer = work()
    except (OSError, RuntimeError) as error:
        problem = f"{folder}: {_reason(error, folder)}"
    except Exception as error:  # no disk's; told first, for the others wait
        problem, fault = repr(error), error
    found = dist.gather_objects((problem, answer), aside=True)
    if fault:
        raise fault
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
