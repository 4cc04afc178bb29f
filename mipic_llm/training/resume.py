"""From which checkpoint a run goes on, and whether it is a checkpoint of this run."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from mipic_llm.config import Config, need, read_record
from mipic_llm.config.compare import Change, compare
from mipic_llm.data.read.rows import TextSource
from mipic_llm.data.row_store import digest_of
from mipic_llm.errors import UserError
from mipic_llm.evaluation.encode import check_record
from mipic_llm.model.source import Source
from mipic_llm.runtime import checkpoint
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.engine import Engine
from mipic_llm.runtime.ranks import say
from mipic_llm.training.feed import Data
from mipic_llm.training.setup import seed_everything
from mipic_llm.types import RunState


def find_resume(config: Config, folder: Path) -> Path | None:
    """The checkpoint that train.resume asks for; all ranks call. UserError where there is none."""
    option, found = config.train.resume, None
    if option == "never":
        return None
    what = None
    if dist.rank() == 0:
        if option == "auto":
            found = checkpoint.newest_complete(folder)
            if found is None:
                what = f"no complete checkpoint in {folder}; start with --train.save_every N"
        else:
            found = Path(option)
            if broken := checkpoint.damage(found):
                what = f"{option} is no complete checkpoint ({broken}); try auto"
    found, what = dist.from_first((found, what))
    need(what is None, f"train.resume: {what}")
    return found


def output_of(path: Path) -> Path:
    """The output directory of the run that wrote a checkpoint, which may have been set aside."""
    folder = path.resolve().parent
    return (folder.parent if folder.name.startswith("left-") else folder).parent


def fingerprint(source: TextSource) -> dict[str, Any]:
    """Name, kind, number of rows and digest (of all texts and scores) of a source, to record."""
    rows, kind = len(source.examples), source.traits.kind
    return {"name": source.name, "kind": kind, "rows": rows, "digest": digest_of(source.examples)}


def identity(source: Source, data: Data) -> dict[str, str]:
    """What the rows (wherever they lie), the base model and the teacher are, by content; reads all
    rows."""
    rows = [(one.weight, one.drawn, digest_of(one.examples)) for one in data.sources]
    digest = hashlib.blake2b(repr(rows).encode(), digest_size=16).hexdigest()
    teacher = data.teacher.key if data.teacher else ""
    return {"rows": digest, "base": source.content, "teacher": teacher}


def _record(path: Path) -> Config:
    try:
        return read_record(path / "config.yaml")
    except UserError as error:
        raise UserError(f"train.resume: {path} has no configuration of ours: {error}") from None


def past_batches(path: Path) -> list[tuple[int, int]]:
    """The sizes of the global batches up to a checkpoint, each with the step at which it ended."""
    table = checkpoint.manifest(path)
    if "batches" in table:
        return [(rows, until) for rows, until in table["batches"]]
    return [(table["world_size"] * _record(path).train.batch_size, table["step"])]


def check_resume(path: Path, config: Config, source: Source, data: Data) -> list[Change]:
    """What changes from the checkpoint's configuration to this one. UserError for what may not."""
    table = checkpoint.manifest(path)
    now = dist.from_first(identity(source, data) if dist.rank() == 0 else None)
    then = table.get("identity") or {}
    same = {k: then[k] == now[k] if k in then else None for k in now}
    changes = compare(_record(path), config, same)
    check_record(output_of(path), config, source, data.encoder)
    need(
        table["world_size"] == dist.world_size() or not any(s.batch_size for s in config.stages),
        f"train.resume: {path} is of {table['world_size']} ranks, and stages have a batch_size of "
        f"their own, per rank; start {table['world_size']} ranks again",
    )
    for name, old, new in (
        ("ranks", table["world_size"], dist.world_size()),
        ("rows of a global batch", past_batches(path)[-1][0], data.plan.rows),
    ):
        changes += [Change(name, old, new)] if old != new else []
    return changes


def restore(
    path: Path, engine: Engine, config: Config, changes: list[Change], total: int
) -> RunState:
    """The checkpoint's state in the engine, later checkpoints out of the way; a line for each
    change, to which another ZeRO stage is added. All ranks call."""
    state = checkpoint.load(path, engine, lora=config.lora.rank > 0)
    if not state.rng:  # other ranks: as a run that starts at this step
        key = (config.seed % 2**63, dist.rank(), state.step)
        seed_everything(int(np.random.SeedSequence(key).generate_state(1)[0]))
        state = state._replace(rng=checkpoint.rng_state())
    need(state.step <= total, f"train.resume: {path} is at step {state.step}, and this run has "
         f"{total} steps; give more of them, or an older checkpoint")  # fmt: skip
    say(f"resuming {path} at step {state.step} of {total}")
    then = checkpoint.manifest(path)["zero_stage"]
    if then != engine.stage:
        changes.append(Change("ZeRO stage", then, engine.stage))
    for change in changes:
        say(f"note: from step {state.step} on: {change}")
    out = Path(config.output_dir)
    problem = None
    if dist.rank() == 0:
        try:
            for folder in (out / "checkpoints", out / "best"):
                checkpoint.set_aside(folder, state.step)
        except OSError as error:
            problem = f"output_dir: cannot move later checkpoints away: {error}"
        if state.best and not (out / "best" / f"step-{state.best.step:08d}").is_dir():
            say(f"note: the best so far, step {state.best.step}, is not in {out / 'best'} any "
                "more; the best is looked for anew")  # fmt: skip
            state = state._replace(best=None)
    problem, best = dist.from_first((problem, state.best))
    need(problem is None, str(problem))
    if any(change.key == "eval.best" for change in changes):
        best = None
    return state._replace(best=best)
