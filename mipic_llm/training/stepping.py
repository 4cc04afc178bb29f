"""The steps of a run, with its evaluations and checkpoints, until something ends them."""

from __future__ import annotations

import resource
import sys
import time
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path

import torch

from mipic_llm.config import need
from mipic_llm.data.chunks import Prepared
from mipic_llm.data.prefetch import prefetch
from mipic_llm.errors import EXIT_DONE, EXIT_STOPPED, UserError
from mipic_llm.runtime import checkpoint
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.ranks import say
from mipic_llm.training.evaluator import Evaluator
from mipic_llm.training.run import LiveRun
from mipic_llm.training.step import UNREAD, NotFinite, StepRunner
from mipic_llm.types import RunState


def run_steps(run: LiveRun, state: RunState, evaluator: Evaluator, signals: list[int]) -> int:
    """Steps until the last one, or until something stops the run. -> exit code."""
    options, data, folder = run.config.train, run.data, run.out / "checkpoints"
    runner, left = StepRunner(run.engine, run.config), run.total - run.step
    module, start = run.engine.module, data.plan.position(run.step)
    module.enter(min(start[0], len(module.objectives) - 1))
    runner.objective.memory.restore(state.memory, run.engine.device)

    def make(position):
        return position, runner.prepare(data.step(position))

    run.engine.train(True)
    run.began, clock = time.monotonic(), _Clock()
    now, every = partial(_state, run, runner), options.save_every
    if state.rng and evaluator.missing():  # the signal came before this step's evaluation
        evaluator.during(now)
    positions = islice(data.plan.steps(*start), left)
    with closing(prefetch(make, positions)) as batches:
        for (epoch, cursor), batch in batches:
            if run.config.stages:
                module.enter(epoch)
                if cursor == 0:
                    say(_stage(run, epoch))
            row = _step(run, runner, batch, clock)
            run.emit("on_step", run.step, row)
            due = bool(every and run.step % every == 0 and run.step < run.total)
            look = bool(row) or due or evaluator.due() or len(runner.unread) >= UNREAD
            broken = runner.not_finite() if look else None
            stopping, signalled, found = run.settle(bool(signals), broken)
            if (signalled or stopping) and not look:
                found = run.settle(broken=runner.not_finite())[2]
            if found:
                run.finish()
                raise UserError(_poisoned(run, found, folder))
            if evaluator.due() and not signalled:
                evaluator.during(now)
                stopping = run.settle()[0]
            need(
                not signalled or run.one_place, f"stopped by a signal at step {run.step}, without "
                "a checkpoint, since the ranks share no output_dir; give one on a disk that all "
                "machines share",
            )  # fmt: skip
            if due or signalled:
                run.save(folder, now, keep=options.keep_checkpoints, then=partial(_saved, run))
            if signalled:
                need(
                    run.finish() is not None, f"stopped by a signal at step {run.step}, but "
                    f"{folder} took no checkpoint; make room and go on with --train.resume auto",
                )  # fmt: skip
                say(f"stopped by a signal at step {run.step}; go on with --train.resume auto")
                return EXIT_STOPPED
            if stopping:
                say(f"stopping at step {run.step}: {run.stop_reason}")
                break
    run.finish()
    return EXIT_DONE


def _stage(run: LiveRun, number: int) -> str:
    """The line for the begin of a stage."""
    stage, rate = run.config.stages[number], run.config.train.learning_rate
    own = "".join(f", {key} {value}" for key, value in stage.changes().items())
    return (
        f"stage {number + 1} of {len(run.config.stages)}{f' ({stage.name})' * bool(stage.name)}: "
        f"{stage.steps:,} steps, peak rate {stage.learning_rate or rate:g}{own}, "
        f"{', '.join(one if isinstance(one, str) else one.path for one in stage.training)}"
    )


def _saved(run: LiveRun, written: bool) -> None:
    if written:
        run.saved_best = run.best


def _poisoned(run: LiveRun, found: list[NotFinite], folder: Path) -> str:
    """The line for a loss or gradient that is not finite."""
    step, data = min(one.step for one in found), run.data
    names = dict.fromkeys(name for one in found if one.step == step for name in one.names)
    batch = data.plan.batch(*data.plan.position(step - 1))
    rows = ", ".join(str(i + 1) for _, i in batch[:8]) + " .." * (len(batch) > 8)
    last = dist.from_first(checkpoint.newest(folder) if run.rank == 0 else None)
    on = f"go on from {last} with --train.resume auto" if last else "start again"
    return (
        f"step {step}: {' and '.join(names)} not finite, on rows {rows} of "
        f"{data.sources[batch[0][0]].name}; nothing was saved since; lower --train.learning_rate "
        f"(now {run.config.train.learning_rate:g}) and {on}"
    )


class _Clock:
    """Of the steps that nobody has waited for yet: a GPU works them off while the host goes on, so
    that the time of the one that is waited for is that of all of them."""

    def __init__(self) -> None:
        self.begun, self.useful = 0.0, 0

    def add(self, batch: Prepared, waited: bool) -> None:
        """A step begins. waited: for all steps before it."""
        if waited:
            self.begun, self.useful = time.perf_counter(), 0
        self.useful += sum(map(len, batch.batch.ids))


def _step(
    run: LiveRun, runner: StepRunner, batch: Prepared, clock: _Clock
) -> dict[str, float]:  # fmt: skip
    """One optimizer step. -> its row of figures, the same on every rank; empty where it is not
    logged, since reading figures means waiting for the device."""
    rate, step = run.engine.learning_rate, run.step + 1
    clock.add(batch, waited=not runner.unread)
    logged = step % run.config.train.log_every == 0 or step == run.total
    row = runner.run(batch, run.step, logged, since=clock.useful)
    run.step = step
    if not logged:
        return {}
    if run.config.stages:
        row["stage"] = 1 + run.data.plan.position(step - 1)[0]
    if len(run.data.traits) > 1:
        row[f"loss_source/{batch.batch.source.name}"] = row["loss"]
    useful, padded = row.pop("useful"), row.pop("padded")
    row.update(
        lr=rate, tokens_per_second=row.pop("since") / (time.perf_counter() - clock.begun),
        padding_share=padded / (useful + padded), memory_gib=memory_gib(),
    )  # fmt: skip
    return row


def _state(run: LiveRun, runner: StepRunner) -> RunState:
    """What a checkpoint keeps beside the engine."""
    rng, memory = checkpoint.rng_state(), runner.objective.memory.state()
    return RunState(run.step, rng, run.mlflow_run_id, run.best, memory)


def memory_gib() -> float:
    """Peak memory so far: of the GPU, else of this process (resident set)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
