"""A training run from start to verified adapter."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from mipic_llm.config.files import find_file
from mipic_llm.config.read import dump, flatten
from mipic_llm.config.schema import Config, validate
from mipic_llm.data.batch import Prefetcher, build_step
from mipic_llm.errors import EXIT_DONE, EXIT_STOPPED, UserError
from mipic_llm.model.attention import choose
from mipic_llm.model.load import Source
from mipic_llm.report import before_after_table, loss_plot, quality_plot
from mipic_llm.runtime import checkpoint
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.engine import Engine, start
from mipic_llm.runtime.packing import check_packing
from mipic_llm.runtime.ranks import say
from mipic_llm.tracking import Tracker, environment, make_tracker
from mipic_llm.training import selfcheck, setup
from mipic_llm.training.evaluator import Evaluator
from mipic_llm.training.feed import Data
from mipic_llm.training.finish import export
from mipic_llm.training.progress import Progress
from mipic_llm.training.step import StepRunner
from mipic_llm.types import RunState, Score


class Run(NamedTuple):
    config: Config
    source: Source
    data: Data
    engine: Engine
    tracker: Tracker
    out: Path
    total: int


class Stop:
    """SIGINT, SIGTERM or SIGUSR1 ask for a checkpoint and a clean end after the running step."""

    def __init__(self) -> None:
        self.asked = False
        for name in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(name, self._ask)

    def _ask(self, *_args) -> None:
        self.asked = True

    def on_any_rank(self) -> bool:
        return bool(dist.mean_over_ranks(torch.tensor(float(self.asked))) > 0)


def train(config: Config) -> int:
    """The whole run. -> exit code 0, or 75 when stopped by a signal after saving."""
    start()
    validate(config, dist.world_size())
    lock = setup.claim_output(config)
    out = Path(config.output_dir)
    resume_from = find_resume(config, out / "checkpoints")
    config, source, data = setup.open_run(config)
    say(data.plan.report())
    total = setup.total_steps(config, data.plan)
    engine = setup.open_engine(config, source, data, total)
    state = RunState(0, 0, 0, {})
    if resume_from is not None:
        state = checkpoint.load(resume_from, engine, lora=config.lora.rank > 0)
        say(f"resuming {resume_from} at step {state.step} of {total}")
    tracker = make_tracker(
        config, out, is_main=dist.rank() == 0, resume_step=state.step if resume_from else None,
        run_id=state.mlflow_run_id,
    )  # fmt: skip
    run = Run(config, source, data, engine, tracker, out, total)
    status = "FAILED"
    try:
        code = _train(run, state)
        status = "FINISHED" if code == EXIT_DONE else "KILLED"
        return code
    finally:
        tracker.close(status)
        if lock:
            lock.close()


def find_resume(config: Config, folder: Path) -> Path | None:
    option = config.train.resume
    if option == "never":
        return None
    if option == "auto":
        found = dist.from_first(checkpoint.newest_complete(folder) if dist.rank() == 0 else None)
        if found is None:
            raise UserError(
                f"train.resume: no complete checkpoint in {folder}; start with --train.save_every N"
            )
        return found
    if not checkpoint.is_complete(Path(option)):
        raise UserError(f"train.resume: {option} is no complete checkpoint; try auto")
    return Path(option)


def _train(run: Run, state: RunState) -> int:
    if state.step == 0:
        _describe(run)
        canary(run)
    check_packing(run.engine, run.source.config)
    if selfcheck.wanted(run.config):
        check_chunks(run)
    evaluator = Evaluator(run, state.best)
    before = evaluator.before(state.step)
    if state.rng:
        checkpoint.set_rng_state(state.rng)
    code, last = _steps(run, state, evaluator)
    if code != EXIT_DONE:
        return code
    after = evaluator.after(last)
    export(run)
    _finish(run, before, after)
    return EXIT_DONE


def _describe(run: Run) -> None:
    kernel = choose(run.config.model.attn, run.config.train.precision, run.source.config)
    if dist.rank() == 0:
        (run.out / "config.yaml").write_text(dump(run.config), encoding="utf-8")
        record = environment() | {"attention": kernel.about}
        text = json.dumps(record, indent=2, default=str)
        (run.out / "environment.json").write_text(text + "\n", encoding="utf-8")
        run.tracker.params(flatten(run.config) | {"attention": kernel.about})
        for name in ("config.yaml", "environment.json"):
            run.tracker.artifact(run.out / name)
        if run.config.ds_config:
            run.tracker.artifact(find_file("ds_configs", run.config.ds_config))
    parameters = list(run.engine.module.parameters())
    size = {k: sum(getattr(p, "ds_numel", p.numel()) for p in parameters if k or p.requires_grad)
            for k in (0, 1)}  # fmt: skip
    say(
        f"{run.source.name}: {size[1] / 1e6:.1f} M parameters, {size[0] / 1e6:.2f} M trained, "
        f"pooling {run.source.pooling}; ZeRO-{run.engine.stage}, {dist.world_size()} rank(s), "
        f"{run.config.train.precision}, {run.total} steps"
    )
    say(f"attention: {kernel.about}")


def canary(run: Run) -> None:
    """Unlabelled text needs two views that differ; a backbone without dropout gives twins."""
    if not run.data.unlabelled:
        return
    source = next(s for s in run.data.sources if s.examples[0].positive is None)
    batch = build_step(list(source.examples[:2]), run.data.encoder)
    from mipic_llm.data.batch import chunks

    piece = chunks(batch, 0)[0]
    device = run.engine.device
    run.engine.train(True)
    keep = checkpoint.rng_state()
    layer = (run.engine.module.backbone.n_layers,)
    with torch.no_grad():
        args = piece.ids_ST.to(device), piece.mask_ST.to(device)
        one, two = (run.engine.forward(*args, layers=layer) for _ in range(2))
    checkpoint.set_rng_state(keep)
    if torch.equal(one, two):
        raise UserError(
            "data.train: unlabelled text, but this backbone gives the same vector twice (it has no "
            "dropout), so the loss would learn nothing; give --model.view_noise 0.1"
        )


def check_chunks(run: Run) -> None:
    """The self-check of GradCache on the shortest rows of this rank's first batch."""
    data = run.data
    rows = data.plan.local(data.plan.batch(0, 0), dist.rank())
    examples = [data.sources[s].examples[i] for s, i in rows]
    texts = [(e.anchor, e.positive or "", *e.negatives) for e in examples]
    chosen = selfcheck.shortest([sum(map(len, row)) for row in texts])
    batch = build_step([examples[b] for b in chosen], data.encoder)
    loss, gradient = selfcheck.selfcheck(run.engine, run.config, batch)
    say(f"self-check: a step in chunks equals a plain one (loss to {loss:.0e}, gradients to "
        f"{gradient:.0e})")  # fmt: skip


def _positions(run: Run, state: RunState) -> Iterator[tuple[int, int]]:
    for done, position in enumerate(run.data.plan.steps(state.epoch, state.cursor)):
        if state.step + done >= run.total:
            return
        yield position


def _steps(run: Run, state: RunState, evaluator: Evaluator) -> tuple[int, int]:
    """-> (exit code, the last step that was done)."""
    config, data, out = run.config, run.data, run.out
    runner, stop = StepRunner(run.engine, config), Stop()
    runner.cross.memory.restore(state.memory, run.engine.device)
    progress = Progress(run.total, state.step, enabled=dist.rank() == 0)

    def make(position):
        return position, data.step(position)

    run.engine.train(True)
    step = state.step
    saved = step
    try:
        with Prefetcher(make, _positions(run, state)) as batches:
            for (epoch, cursor), batch in batches:
                begun = time.perf_counter()
                rate = run.engine.learning_rate
                row, tokens = runner.run(batch, step)
                step += 1
                useful, padded = (dist.mean_over_ranks(tokens) * dist.world_size()).tolist()
                row.update(
                    lr=rate, tokens_per_second=useful / (time.perf_counter() - begun),
                    padding_share=padded / (useful + padded), memory_gib=memory_gib(),
                )  # fmt: skip
                if step % config.train.log_every == 0 or step == run.total:
                    run.tracker.metrics(row, step)
                progress.update(step, row)
                every = config.train.save_every
                enough = False
                if evaluator.due(step):
                    state = _state(run, step, (epoch, cursor + 1), evaluator, runner)
                    enough = evaluator.during(step, state)
                stopping = stop.on_any_rank()
                if (every and step % every == 0 and step < run.total) or stopping:
                    _save(run, out, _state(run, step, (epoch, cursor + 1), evaluator, runner))
                    saved = step
                if enough:
                    break
                if stopping and step < run.total:
                    progress.close()
                    say(f"stopped by a signal at step {saved}; go on with --train.resume auto")
                    return EXIT_STOPPED, step
    finally:
        progress.close()
    return EXIT_DONE, step


def _state(
    run: Run, step: int, position: tuple[int, int], evaluator: Evaluator, runner: StepRunner
) -> RunState:
    epoch, cursor = position
    if cursor >= run.data.plan.steps_per_epoch:
        epoch, cursor = epoch + 1, 0
    run_id = run.tracker.wait_run_id(0.0)
    rng, memory = checkpoint.rng_state(), runner.cross.memory.state()
    return RunState(step, epoch, cursor, rng, run_id, evaluator.best, memory)


def _save(run: Run, out: Path, state: RunState) -> None:
    folder = out / "checkpoints"
    checkpoint.save(folder, run.engine, state, dump(run.config), lora=run.config.lora.rank > 0)
    if dist.rank() == 0:
        checkpoint.prune(folder, run.config.train.keep_checkpoints)


def memory_gib() -> float:
    """Peak memory so far: of the GPU, else of this process (resident set)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _finish(run: Run, before: list[Score], after: list[Score]) -> None:
    if dist.rank() != 0:
        return
    loss_plot(run.out / "metrics.jsonl", run.out / "loss.png")
    run.tracker.artifact(run.out / "loss.png")
    if after:
        layer = run.source.config.num_hidden_layers
        table = before_after_table(before, after, layer=layer)
        (run.out / "table.txt").write_text(table + "\n", encoding="utf-8")
        quality_plot(before, after, run.out / "quality.png")
        for name in ("table.txt", "quality.png", "scores.jsonl"):
            run.tracker.artifact(run.out / name)
        print("\n" + table + "\n")
        print(f"plot: {run.out / 'quality.png'}")
    kind = "adapter" if run.config.lora.rank else "merged"
    print(
        f"{kind}: {run.out / kind} (reloaded and compared: {run.out / 'parity.json'})", flush=True
    )
