"""A training run from start to verified model."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from mipic_llm.config import Config, command_of, validate
from mipic_llm.errors import EXIT_DONE, EXIT_INCOMPLETE, EXIT_STOPPED
from mipic_llm.evaluation.agree import one_place
from mipic_llm.evaluation.encode import rules_of
from mipic_llm.model.attention import choose
from mipic_llm.model.dense import write_dense
from mipic_llm.runtime import checkpoint
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.batches import check_batches
from mipic_llm.runtime.ranks import say
from mipic_llm.runtime.start import start
from mipic_llm.tracking import Status, check_tracking, environment, make_trackers
from mipic_llm.training import selfcheck, setup
from mipic_llm.training.callbacks import EarlyStopping, ShowProgress, Tracking, check_callbacks
from mipic_llm.training.checks import canary, check_chunks, check_lora, check_sight
from mipic_llm.training.evaluator import Evaluator
from mipic_llm.training.finish import export, judge, rehearse, report
from mipic_llm.training.output import (
    claim_output,
    clear,
    deleted,
    has_news,
    keep_figures,
    put,
    record,
    writing,
)
from mipic_llm.training.resume import (
    check_resume,
    find_resume,
    fingerprint,
    output_of,
    past_batches,
    restore,
)
from mipic_llm.training.run import LiveRun
from mipic_llm.training.stepping import run_steps
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
    check_tracking(config, config.output_dir)
    # Given back however this ends: a notebook keeps the frames of an error, and what they hold.
    with claim_output(config) or nullcontext() as lock:
        return _run(config, callbacks, rows, validation, one_place(config, lock))


def _run(config: Config, callbacks: Sequence[Any], rows: Any, validation: Any, shared: bool) -> int:
    """`train` in an output directory that is claimed; shared: by all ranks."""
    out = Path(config.output_dir)
    resume_from = find_resume(config, out / "checkpoints")
    past = past_batches(resume_from) if resume_from else ()
    begun = output_of(resume_from) if resume_from else None
    config, source, data = setup.open_run(config, rows, validation, past, begun)
    say(data.plan.report())
    changes = check_resume(resume_from, config, source, data) if resume_from else []
    total = setup.total_steps(config, data.plan)
    if data.teacher is not None:
        build(data.teacher, config, source)
    engine = setup.open_engine(config, source, data, total)
    state = RunState(0, {})
    if resume_from is not None:
        state = restore(resume_from, engine, config, changes, total)
    run = LiveRun(
        config, source, data, engine, out, total, step=state.step, best=state.best,
        saved_best=state.best, mlflow_run_id=state.mlflow_run_id, changes=changes,
        one_place=shared,
    )  # fmt: skip
    memory = {"data.train": rows, "data.validation": validation}
    run.facts["in_memory"] = [
        key for key, given in memory.items() if any(not isinstance(x, str) for x in given or ())
    ]
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
            if begun is not None and elsewhere:
                keep_figures(begun, out)
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
        # Of a failed run too: at ZeRO-3 DeepSpeed would hold its weights. Among several ranks that
        # would wait for collectives which a rank that failed does not join.
        if status != "FAILED" or dist.world_size() == 1:
            engine.close()
    run.settle()
    return code


def _checked(run: LiveRun) -> Evaluator:
    """What can be refused before anything is written or deleted."""
    run.facts["terms"] = _kernels(run)  # first: they are tried here, not within a step
    check_batches(run.engine, run.source.config)
    if run.step == 0:
        check_lora(run)
        canary(run)
        check_sight(run)
        if run.config.export.rehearse:
            rehearse(run)
    if selfcheck.wanted(run.config):
        check_chunks(run)
    return Evaluator(run)


def _train(run: LiveRun, state: RunState, evaluator: Evaluator) -> int:
    _start(run)
    before = evaluator.before()
    if state.rng:
        checkpoint.set_rng_state(state.rng)
    with signals() as got:
        code = run_steps(run, state, evaluator, got)
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
    given = " and ".join(run.facts["in_memory"])
    run.facts["command"] = command_of(run.config, dist.world_size()) + (
        f"  # {given}: objects of a program" if given else ""
    )
    run.facts["data"] = [fingerprint(source) for source in run.data.sources]
    return environment() | run.facts


def _kernels(run: LiveRun) -> list[str]:
    """How terms compute on this device, a line each. UserError where one's kernels break it."""
    dtype = setup.dtype_of(run.config.train.precision)
    lines = {line: None for objective in run.engine.module.objectives for term in objective.terms
             if (line := term.about(run.engine.device, dtype))}  # fmt: skip
    return [*lines]


def _start(run: LiveRun) -> None:
    """What this run is: environment.json (of a first start), some lines."""
    config, fresh = run.config, run.step == 0
    about = choose(config.model.attn, config.train.precision, run.source.config).about
    reading = run.source.reading(config.model.inner_norm or "raw", run.data.encoder)
    layers = run.engine.module.backbone.about_layers
    run.facts |= {"attention": about, "vectors": reading, "layers": layers}
    run.facts |= rules_of(run.source, run.data.encoder)
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
        for line in run.facts["terms"]:
            say(line)
    run.settle()
