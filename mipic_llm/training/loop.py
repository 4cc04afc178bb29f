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

from mipic_llm.config import Config, dump, need, validate
from mipic_llm.data.batch import Prepared, prefetch
from mipic_llm.errors import EXIT_DONE, EXIT_STOPPED
from mipic_llm.model.attention import choose
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
from mipic_llm.training.finish import export, rehearse, report
from mipic_llm.training.run import LiveRun
from mipic_llm.training.step import StepRunner
from mipic_llm.types import RunState


@contextmanager
def signals() -> Iterator[list[int]]:
    """Inside, SIGINT, SIGTERM and SIGUSR1 are only listed; afterwards they do what they did.

    Python delivers signals to the main thread alone: in another one nothing is changed.
    """
    got: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1) if main else ()
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
    lock = setup.claim_output(config)
    out = Path(config.output_dir)
    resume_from = find_resume(config, out / "checkpoints")
    config, source, data = setup.open_run(config, rows, validation)
    say(data.plan.report())
    total = setup.total_steps(config, data.plan)
    engine = setup.open_engine(config, source, data, total)
    state = RunState(0, 0, 0, {})
    if resume_from is not None:
        state = checkpoint.load(resume_from, engine, lora=config.lora.rank > 0)
        say(f"resuming {resume_from} at step {state.step} of {total}")
    own: list[Any] = [ShowProgress()]
    if dist.rank() == 0:
        resume_step = state.step if resume_from else None
        trackers = make_trackers(config, out, resume_step=resume_step, run_id=state.mlflow_run_id)
        own = [*map(Tracking, trackers), *own]
    if config.eval.patience:
        own.append(EarlyStopping(config.eval.patience))
    run = LiveRun(
        config, source, data, engine, out, total, [*own, *callbacks], step=state.step,
        best=state.best, mlflow_run_id=state.mlflow_run_id,
    )  # fmt: skip
    status: Status = "FAILED"
    try:
        code = _train(run, state)
        status = "FINISHED" if code == EXIT_DONE else "KILLED"
    finally:
        run.emit("on_end", status)
        if lock:
            lock.close()
    engine.close()
    run.settle()
    return code


def find_resume(config: Config, folder: Path) -> Path | None:
    option = config.train.resume
    if option == "never":
        return None
    if option != "auto":
        whole = checkpoint.is_complete(Path(option))
        need(whole, f"train.resume: {option} is no complete checkpoint; try auto")
        return Path(option)
    found = dist.from_first(checkpoint.newest_complete(folder) if dist.rank() == 0 else None)
    hint = "start with --train.save_every N"
    need(found is not None, f"train.resume: no complete checkpoint in {folder}; {hint}")
    return found


def _train(run: LiveRun, state: RunState) -> int:
    _start(run)
    if run.step == 0:
        canary(run)
        if run.config.export.rehearse:
            rehearse(run)
    check_packing(run.engine, run.source.config)
    if selfcheck.wanted(run.config):
        check_chunks(run)
    evaluator = Evaluator(run)
    before = evaluator.before()
    if state.rng:
        checkpoint.set_rng_state(state.rng)
    with signals() as got:
        code = _steps(run, state, evaluator, got)
    if code == EXIT_DONE:
        after = evaluator.after()
        export(run)
        report(run, before, after)
        run.settle()
    return code


def _start(run: LiveRun) -> None:
    """What this run is: config.yaml and environment.json (not of a resumed run), two lines."""
    config, fresh = run.config, run.step == 0
    about = choose(config.model.attn, config.train.precision, run.source.config).about
    run.facts["attention"] = about
    if fresh and run.rank == 0:
        (run.out / "config.yaml").write_text(dump(config), encoding="utf-8")
        text = json.dumps(environment() | run.facts, indent=2, default=str)
        (run.out / "environment.json").write_text(text + "\n", encoding="utf-8")
    run.emit("on_start")
    if fresh:
        run.emit("on_save", run.out / "config.yaml")
        run.emit("on_save", run.out / "environment.json")
        sizes = [(getattr(p, "ds_numel", p.numel()) / 1e6, p.requires_grad)
                 for p in run.engine.module.parameters()]  # fmt: skip
        say(
            f"{run.source.name}: {sum(n for n, _ in sizes):.1f} M parameters, "
            f"{sum(n for n, trained in sizes if trained):.2f} M trained, pooling "
            f"{run.source.pooling}; ZeRO-{run.engine.stage}, {dist.world_size()} rank(s), "
            f"{config.train.precision}, {run.total} steps"
        )
        say(f"attention: {about}")
    run.settle()


def _steps(run: LiveRun, state: RunState, evaluator: Evaluator, signals: list[int]) -> int:
    """Steps until the last one, or until something stops the run. -> exit code."""
    options, data, folder = run.config.train, run.data, run.out / "checkpoints"
    runner, left = StepRunner(run.engine, run.config), run.total - run.step
    runner.objective.memory.restore(state.memory, run.engine.device)

    def make(position):
        return position, runner.prepare(data.step(position))

    run.engine.train(True)
    run.began = time.monotonic()
    positions = islice(data.plan.steps(state.epoch, state.cursor), left)
    with closing(prefetch(make, positions)) as batches:
        for (epoch, cursor), batch in batches:
            row = _step(run, runner, batch)
            run.emit("on_step", run.step, row)
            here = partial(_state, run, runner, epoch, cursor + 1)
            if evaluator.due():
                evaluator.during(here)
            stopping, signalled = run.settle(bool(signals))
            every = options.save_every
            if (every and run.step % every == 0 and run.step < run.total) or signalled:
                run.save(folder, here())
                if run.rank == 0:
                    checkpoint.prune(folder, options.keep_checkpoints)
            if stopping:
                say(f"stopping at step {run.step}: {run.stop_reason}")
                break
            if signalled and run.step < run.total:
                say(f"stopped by a signal at step {run.step}; go on with --train.resume auto")
                return EXIT_STOPPED
    return EXIT_DONE


def _step(run: LiveRun, runner: StepRunner, batch: Prepared) -> dict[str, float]:
    """One optimizer step. -> its row of figures, the same on every rank; empty where it is not
    logged, since reading figures means waiting for the device."""
    begun, rate, step = time.perf_counter(), run.engine.learning_rate, run.step + 1
    logged = step % run.config.train.log_every == 0 or step == run.total
    row = runner.run(batch, run.step, logged)
    run.step = step
    if not logged:
        return {}
    useful, padded = row.pop("useful"), row.pop("padded")
    row.update(
        lr=rate, tokens_per_second=useful / (time.perf_counter() - begun),
        padding_share=padded / (useful + padded), memory_gib=memory_gib(),
    )  # fmt: skip
    return row


def _state(run: LiveRun, runner: StepRunner, epoch: int, cursor: int) -> RunState:
    """What a checkpoint keeps beside the engine; the next batch is (epoch, cursor)."""
    if cursor >= run.data.plan.steps_per_epoch:
        epoch, cursor = epoch + 1, 0
    rng, memory = checkpoint.rng_state(), runner.objective.memory.state()
    return RunState(run.step, epoch, cursor, rng, run.mlflow_run_id, run.best, memory)


def memory_gib() -> float:
    """Peak memory so far: of the GPU, else of this process (resident set)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
