"""The end of a run: its model gathered from the ranks and exported; its table and its plots."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from mipic_llm.errors import UserError
from mipic_llm.evaluation.encode import encode
from mipic_llm.evaluation.families import FAMILIES
from mipic_llm.export.card import facts_of
from mipic_llm.export.live import PROBES, export_model
from mipic_llm.export.portable import make_spec, write_portable
from mipic_llm.export.verify import check_tokens, settle_tokens
from mipic_llm.model.files import older_forms
from mipic_llm.report import (
    Comparison,
    Evaluation,
    compare_two,
    families_table,
    figures_table,
    index_of,
    loss_plot,
    principal_line,
    quality_plot,
    read_rows,
    write_record,
)
from mipic_llm.runtime import checkpoint
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.ranks import say
from mipic_llm.tracking import wait_for_import
from mipic_llm.training.run import LiveRun
from mipic_llm.types import Score

LARGE = 2 << 30  # bytes of weights above which a rehearsal leaves them alone


def export(run: LiveRun) -> None:
    """Adapter (LoRA) or merged model (full), then what was asked for, each proved on rank 0.

    All ranks call, and all raise where rank 0 could not.
    """
    _write(run, run.out, PROBES)
    written = ["parity.json", "adapter" if run.lora else "merged"]
    for name in written + ["merged"] * (run.lora and run.config.export.merged):
        run.emit("on_save", run.out / name)


def rehearse(run: LiveRun) -> None:
    """The export of the untrained model, with other low-rank parts than zeros, into a folder that
    is deleted again: what would fail at the end for a reason that is there now fails now. All ranks
    call. Raises UserError."""
    folder, keep = run.out / ".rehearsal", checkpoint.rng_state()
    if run.rank == 0:
        shutil.rmtree(folder, ignore_errors=True)  # of a start that was killed
    try:
        with run.engine.nudged("lora_B"):
            _write(run, folder, 4, rehearsal=True)
    except (UserError, RuntimeError) as error:
        if dist.lost(error):
            raise
        raise UserError(f"{error} (found before the first step; nothing was trained)") from error
    finally:
        checkpoint.set_rng_state(keep)
        if run.rank == 0:
            shutil.rmtree(folder, ignore_errors=True)


def _write(run: LiveRun, out: Path, probes: int, rehearsal: bool = False) -> None:
    """Write to out and prove, on so many texts; in a rehearsal only the tokenizer of a large
    model."""
    config, engine, size = run.config, run.engine, _bytes(run)
    rows = [e.anchor for s in run.data.sources for e in s.examples[:probes]]
    texts = list(dict.fromkeys(rows))[:probes]
    if rehearsal and size > LARGE:
        spec, encoder = make_spec(config, run.source, run.data.encoder), run.data.encoder

        def tokenizer_alone() -> None:
            out.mkdir(exist_ok=True)
            write_portable(out, spec)
            settle_tokens(out, texts, spec)
            check_tokens(out, encoder, texts, spec)

        _on_first(tokenizer_alone)
        return
    if size > LARGE:  # minutes in which nothing else is said
        say(f"writing the model and loading it again ({size / 2**30:.1f} GiB of weights)")
    last = engine.module.backbone.n_layers
    # One text at a time, as the reload does: bf16 rounds differently in padded batches.
    live_ND = encode(engine, run.data.encoder.bare(), texts, [last], batch_size=1)[:, 0]
    state = engine.state(trainable_only=run.lora)
    # The tracker's thread may still be importing mlflow, and a reload imports the same large
    # packages: two threads inside one cycle of imports can meet half-made modules.
    wait_for_import()
    weights = {k.removeprefix("backbone."): v for k, v in (state or {}).items()
               if k.startswith("backbone.")}  # fmt: skip
    _on_first(lambda: export_model(
        engine.module.backbone.model, weights, live_ND, texts, config=config, source=run.source,
        encoder=run.data.encoder, out=out, rehearsal=rehearsal,
        facts=None if rehearsal else facts_of(run.out),
    ))  # fmt: skip


def _bytes(run: LiveRun) -> int:
    parameters = run.engine.module.parameters()
    return sum(getattr(p, "ds_numel", p.numel()) * p.element_size() for p in parameters)


def _on_first(write: Callable[[], None]) -> None:
    """Call on rank 0; all ranks raise where it could not."""
    problem: Exception | None = None
    if dist.rank() == 0:
        try:
            write()
        except (UserError, RuntimeError) as error:
            problem = error
        except Exception as error:  # of the hub, of a disk, of a model's own code
            problem = UserError(f"export: {type(error).__name__}: {' '.join(str(error).split())}")
            problem.__cause__ = error
    if told := dist.from_first(None if problem is None else str(problem)):
        raise problem or UserError(told)


def judge(run: LiveRun, before: list[Score], after: list[Score]) -> Comparison | None:
    """The figures after training against those before, on rank 0; also into comparison.json, from
    which the model card has its verdict. None without figures."""
    if run.rank != 0 or not after:
        return None
    stages = {"before": before, "after": after}
    found = compare_two(*(Evaluation(k, v, *read_rows(run.out, k)) for k, v in stages.items()))
    try:
        if line := principal_line(run.out):
            found.notes.append(line)
    except UserError as error:  # scores.jsonl could not be written
        say(f"note: {error}")
    try:
        write_record(run.out / "comparison.json", [found])
    except OSError as error:
        say(f"warning: {run.out / 'comparison.json'} was not written: {error.strerror}")
    return found


def keeps_more(found: Comparison, out: Path, teacher: str) -> str:
    """What to do where the training made a kind of task worse by more than chance; empty where it
    made none worse. teacher: `teacher.name` of the run."""
    means = [found.whole, *found.means.values(), *(f.mean for f in found.families.values())]
    if not (found.fell() or any(mean.sign < 0 for mean in means)):
        return ""
    taught = "--recipe anchored holds a model to what it knew; " * (teacher == "none")
    return (f"note: {taught}mipic merge --runs {out} --scale 0 .25 .5 .75 1 --rule safe --to DIR "
            "takes as much of this training as makes no kind of task worse")  # fmt: skip


def report(
    run: LiveRun, before: list[Score], after: list[Score], found: Comparison | None
) -> None:  # fmt: skip
    """Table, plots and the last lines of a run; found: see `judge`. What cannot be drawn is one
    line, no failure."""
    out, table, verdict, written = run.out, "", [], []
    if run.rank == 0:
        draw = {"loss.png": lambda to: loss_plot(out / "metrics.jsonl", to)}
        if found is not None:
            try:
                index, index_markdown = index_of(out), index_of(out, markdown=True)
            except UserError as error:  # scores.jsonl could not be written
                say(f"note: {error}")
                index = index_markdown = ""
            verdict = [*found.verdict(), *found.notes]
            families = found.families
            parts = [figures_table(found), index, families_table(families)]
            table = "\n\n".join(filter(None, parts))
            text = "\n".join([table, "", *verdict, ""])
            lines = "\n".join(f"* {line}" for line in verdict)
            tables = [families_table(families, markdown=True), index_markdown,
                      figures_table(found, markdown=True)]  # fmt: skip
            run.summary = "\n\n".join(filter(None, [lines, *tables]))
            if len(families) == 1:
                verdict.append(
                    f"note: {next(iter(families))} alone was looked at; whether other kinds of "
                    f"tasks were forgotten shows with --data.validation {FAMILIES}, small tasks of "
                    "four kinds that come with the package"
                )
            if line := keeps_more(found, out, run.config.teacher.name):
                verdict.append(line)
            draw = {
                "table.txt": lambda to: to.write_text(text, encoding="utf-8"),
                "comparison.json": lambda to: write_record(to, [found]),
                "scores.jsonl": lambda to: None, **draw,
                "quality.png": lambda to: quality_plot(before, after, to),
            }  # fmt: skip
        for name, plot in draw.items():
            try:
                plot(out / name)
                written.append(name)
            except UserError as error:
                say(f"note: {error}")
            except OSError as error:
                say(f"warning: {out / name} was not written: {error.strerror}")
    for name in dist.from_first(written):
        run.emit("on_save", out / name)
    if table:
        say(f"\n{table}\n")
    if "quality.png" in written:
        say(f"plot: {out / 'quality.png'}")
    kind = "adapter" if run.lora else "merged"
    say(f"{kind}: {out / kind} (reloaded and compared: {out / 'parity.json'})")
    if note := older_forms(out, ["merged"] if run.config.export.merged else [kind]):
        say(note)
    if run.best is not None:
        say(f"best: step {run.best.step} of {run.total}, {run.config.eval.best} "
            f"{100 * run.best.value:.2f}")  # fmt: skip
    for line in verdict:
        say(line)
