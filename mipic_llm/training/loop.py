"""A training run from start to verified model."""

from __future__ import annotations

import json
import resource
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from mipic_llm.config import Config, command_of, need, validate
from mipic_llm.data.chunks import Prepared
from mipic_llm.data.prefetch import prefetch
from mipic_llm.errors import EXIT_DONE, EXIT_INCOMPLETE, EXIT_STOPPED, UserError
from mipic_llm.model.attention import choose
from mipic_llm.model.dense import write_dense
from mipic_llm.runtime import checkpoint
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.engine import start
from mipic_llm.runtime.packing import check_packing
from mipic_llm.runtime.ranks import say
from mipic_llm.tracking import Status, environment, make_trackers
from mipic_llm.training import selfcheck, setup
from mipic_llm.training.callbacks import EarlyStopping, ShowProgress, Tracking, check_callbacks
from mipic_llm.training.checks import canary, check_chunks
from mipic_llm.training.evaluator import Evaluator
from mipic_llm.training.finish import export, judge, rehearse, report
from mipic_llm.training.output import (
    claim_output,
    clear,
    deleted,
    has_news,
    put,
    record,
    writing,
)
from mipic_llm.training.resume import check_resume, find_resume, fingerprint, past_batches, restore
from mipic_llm.training.run import LiveRun
from mipic_llm.training.step import UNREAD, NotFinite, StepRunner
from mipic_llm.training.teacher import build
from mipic_llm.types import TURNED, RunState


@contextmanager
def signals() -> Iterator[list[int]]:
    """Inside, SIGINT, SIGTERM, SIGUSR1 and SIGHUP (unless nohup) are only listed; afterwards they
    do what they did.

    Python delivers signals to the main thread alone: in another one nothing is changed.
    """
    got: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1] if main else []
    if main and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {n: signal.signal(n, lambda number, _: got.append(number)) for n in numbers}
    try:
        yield got
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def train(
    config: Config, callbacks: Sequence[Any] = (), *, rows: Any = None, validation: Any = None
) -> int:
    """The whole run. -> exit code 0, or 75 when stopped by a signal after saving.

    callbacks: objects with hooks of `Callback`, called after our own. rows, validation: data in
    place of data.train and data.validation, see `prepare_data`. Raises UserError for bad input,
    CallbackError where a callback raised.
    """
    check_callbacks(callbacks)
    start()
    validate(config, dist.world_size())
    lock = claim_output(config)
    out = Path(config.output_dir)
    resume_from = find_resume(config, out / "checkpoints")
    past = past_batches(resume_from) if resume_from else ()
    begun = resume_from.parent.parent if resume_from else None
    config, source, data = setup.open_run(config, rows, validation, past, begun)
    say(data.plan.report())
    changes = check_resume(resume_from, config, source, data) if resume_from else []
    total = setup.total_steps(config, data.plan)
    if data.teacher is not None:
        build(data.teacher, config, source)
    engine = setup.open_engine(config, source, data, total)
    state = RunState(0, 0, 0, {})
    if resume_from is not None:
        state = restore(resume_from, engine, config, data.plan, changes, total)
    run = LiveRun(
        config, source, data, engine, out, total, step=state.step, best=state.best,
        saved_best=state.best, mlflow_run_id=state.mlflow_run_id, changes=changes,
    )  # fmt: skip
    evaluator = _checked(run)
    if config.overwrite and resume_from is None:
        clear(out)
    own: list[Any] = [ShowProgress()]
    with writing(out):
        if dist.rank() == 0:
            # First of all: by it a run that is killed now is known as one of ours.
            if has_news(run) or not (out / "config.yaml").is_file():  # or of another directory
                put(out / "config.yaml", record(run))
            elsewhere = begun is None or begun.resolve() != out.resolve()
            if config.model.rotate != "none" and elsewhere:
                write_dense(out / TURNED, source.dense[-1])
            after = state.step if resume_from else None
            trackers = make_trackers(config, out, resume_step=after, run_id=state.mlflow_run_id)
            own = [*map(Tracking, trackers), *own]
    if config.eval.patience:
        own.append(EarlyStopping(config.eval.patience))
    run.callbacks = [*own, *callbacks]
    status: Status = "FAILED"
    try:
        code = _train(run, state, evaluator)
        status = "KILLED" if code == EXIT_STOPPED else "FINISHED"
    finally:
        run.saver.close()
        run.emit("on_end", status)
        if lock:
            lock.close()
    engine.close()
    run.settle()
    return code


def _checked(run: LiveRun) -> Evaluator:
    """What can be refused before anything is written or deleted."""
    if run.step == 0:
        canary(run)
        if run.config.export.rehearse:
            rehearse(run)
    check_packing(run.engine, run.source.config)
    if selfcheck.wanted(run.config):
        check_chunks(run)
    return Evaluator(run)


def _train(run: LiveRun, state: RunState, evaluator: Evaluator) -> int:
    _start(run)
    before = evaluator.before()
    if state.rng:
        checkpoint.set_rng_state(state.rng)
    with signals() as got:
        code = _steps(run, state, evaluator, got)
    if code == EXIT_DONE:
        after = evaluator.after()
        found = judge(run, before, after)
        export(run)
        report(run, before, after, found)
        run.settle()
        if missing := dist.from_first(deleted(run)):
            say(f"warning: deleted in {run.out} while the run went on: {', '.join(missing)}")
            return EXIT_INCOMPLETE
    return code


def _facts(run: LiveRun) -> dict[str, Any]:
    """For environment.json: versions, machine, command, data."""
    run.facts["command"] = command_of(run.config, dist.world_size())
    run.facts["data"] = [fingerprint(source) for source in run.data.sources]
    return environment() | run.facts


def _start(run: LiveRun) -> None:
    """What this run is: environment.json (of a first start), three lines."""
    config, fresh = run.config, run.step == 0
    about = choose(config.model.attn, config.train.precision, run.source.config).about
    reading = run.source.reading(config.model.inner_norm or "raw", run.data.encoder)
    layers = setup.layer_kind(config, run.engine.module.backbone.model)
    run.facts |= {"attention": about, "vectors": reading, "layers": layers}
    with writing(run.out):
        path = run.out / "environment.json"
        if run.rank == 0 and (fresh or not path.is_file()):
            put(path, json.dumps(_facts(run), indent=2, default=str) + "\n")
    run.emit("on_start")
    if has_news(run):
        run.emit("on_save", run.out / "config.yaml")
    if fresh:
        run.emit("on_save", run.out / "environment.json")
        sizes = [(getattr(p, "ds_numel", p.numel()) / 1e6, p.requires_grad)
                 for p in run.engine.module.parameters()]  # fmt: skip
        say(
            f"{run.source.name}: {sum(n for n, _ in sizes):.1f} M parameters, "
            f"{sum(n for n, trained in sizes if trained):.2f} M trained; ZeRO-"
            f"{run.engine.stage}, {dist.world_size()} rank(s), {config.train.precision}, "
            f"{run.total} steps"
        )
        say(f"vectors: {reading}")
        say(f"attention: {about}" + (f"; layers: {layers}" if layers != "plain" else ""))
    run.settle()


def _steps(run: LiveRun, state: RunState, evaluator: Evaluator, signals: list[int]) -> int:
    """Steps until the last one, or until something stops the run. -> exit code."""
    options, data, folder = run.config.train, run.data, run.out / "checkpoints"
    runner, left = StepRunner(run.engine, run.config), run.total - run.step
    module = run.engine.module
    module.enter(min(state.epoch, len(module.objectives) - 1))
    runner.objective.memory.restore(state.memory, run.engine.device)

    def make(position):
        return position, runner.prepare(data.step(position))

    run.engine.train(True)
    run.began = time.monotonic()
    if state.rng and evaluator.missing():  # the signal came before this step's evaluation
        evaluator.during(partial(_state, run, runner, state.epoch, state.cursor))
    positions = islice(data.plan.steps(state.epoch, state.cursor), left)
    with closing(prefetch(make, positions)) as batches:
        for (epoch, cursor), batch in batches:
            if run.config.stages:
                module.enter(epoch)
                if cursor == 0:
                    say(_stage(run, epoch))
            row = _step(run, runner, batch)
            run.emit("on_step", run.step, row)
            here, every = partial(_state, run, runner, epoch, cursor + 1), options.save_every
            due = bool(every and run.step % every == 0 and run.step < run.total)
            look = bool(row) or due or evaluator.due() or len(runner.unread) >= UNREAD
            broken = runner.not_finite() if look else None
            stopping, signalled, found = run.settle(bool(signals), broken)
            if signalled and not look:
                found = run.settle(broken=runner.not_finite())[2]
            if found:
                run.finish()
                raise UserError(_poisoned(run, state, found, folder))
            if evaluator.due() and not signalled:
                evaluator.during(here)
                stopping = run.settle()[0]
            if due or signalled:
                run.save(folder, here, keep=options.keep_checkpoints, then=partial(_saved, run))
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


def _poisoned(run: LiveRun, state: RunState, found: list[NotFinite], folder: Path) -> str:
    """The line for a loss or gradient that is not finite. state: where this process began."""
    step, data = min(one.step for one in found), run.data
    names = dict.fromkeys(name for one in found if one.step == step for name in one.names)
    steps = data.plan.steps(state.epoch, state.cursor)
    batch = data.plan.batch(*next(islice(steps, step - 1 - state.step, None)))
    rows = ", ".join(str(i + 1) for _, i in batch[:8]) + " .." * (len(batch) > 8)
    last = dist.from_first(checkpoint.newest(folder) if run.rank == 0 else None)
    on = f"go on from {last} with --train.resume auto" if last else "start again"
    return (
        f"step {step}: {' and '.join(names)} not finite, on rows {rows} of "
        f"{data.sources[batch[0][0]].name}; nothing was saved since; lower --train.learning_rate "
        f"(now {run.config.train.learning_rate:g}) and {on}"
    )


def _step(run: LiveRun, runner: StepRunner, batch: Prepared) -> dict[str, float]:
    """One optimizer step. -> its row of figures, the same on every rank; empty where it is not
    logged, since reading figures means waiting for the device."""
    begun, rate, step = time.perf_counter(), run.engine.learning_rate, run.step + 1
    logged = step % run.config.train.log_every == 0 or step == run.total
    row = runner.run(batch, run.step, logged)
    run.step = step
    if not logged:
        return {}
    if run.config.stages:
        row["stage"] = 1 + run.data.plan.position(step - 1)[0]
    if len(run.data.traits) > 1:
        row[f"loss_source/{batch.batch.source.name}"] = row["loss"]
    useful, padded = row.pop("useful"), row.pop("padded")
    row.update(
        lr=rate, tokens_per_second=useful / (time.perf_counter() - begun),
        padding_share=padded / (useful + padded), memory_gib=memory_gib(),
    )  # fmt: skip
    return row


def _state(run: LiveRun, runner: StepRunner, epoch: int, cursor: int) -> RunState:
    """What a checkpoint keeps beside the engine; the next batch is (epoch, cursor)."""
    if cursor >= run.data.plan.length(epoch):
        epoch, cursor = epoch + 1, 0
    rng, memory = checkpoint.rng_state(), runner.objective.memory.state()
    return RunState(run.step, epoch, cursor, rng, run.mlflow_run_id, run.best, memory)


def memory_gib() -> float:
    """Peak memory so far: of the GPU, else of this process (resident set)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
