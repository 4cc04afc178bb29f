"""`mipic evaluate`: a finished model, scored by a suite at every (layer, dim) point."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mipic_llm.config import Config
from mipic_llm.config.evaluating import OUTPUT, check_bits
from mipic_llm.errors import EXIT_DONE, UserError
from mipic_llm.evaluation.agree import agree_on_rows
from mipic_llm.evaluation.encode import spread_over_ranks
from mipic_llm.evaluation.fitting import LENS_TEXTS, PCA_TEXTS, texts_for_pca
from mipic_llm.evaluation.lens import HELD_OUT
from mipic_llm.evaluation.mteb import load_mteb, run_mteb
from mipic_llm.evaluation.open import Opened, open_finished
from mipic_llm.evaluation.read import load_suite, load_tasks
from mipic_llm.evaluation.routes import CALIBRATION, Encode
from mipic_llm.evaluation.searches import (
    OLD,
    asymmetric,
    asymmetric_tables,
    float_queries,
    need_searches,
    same_index,
)
from mipic_llm.evaluation.show import depth_figure, write_and_show
from mipic_llm.evaluation.suite import Rows, about, all_points, run_suite
from mipic_llm.evaluation.tasks.base import QUERY, Task
from mipic_llm.evaluation.timing import query_times
from mipic_llm.report import write_rows
from mipic_llm.report.index import index_table
from mipic_llm.report.plots import save
from mipic_llm.report.scores import PREFIX
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.ranks import say
from mipic_llm.runtime.start import start
from mipic_llm.tracking import follow
from mipic_llm.types import BITS, Score


def evaluate(config: Config) -> int:
    """Score config.extra.model on config.extra.data; -> exit code 0.

    Writes <output_dir>/scores.jsonl (task, metric, layer, dim, bits where they are not 32, value,
    n, readout, max_length) and prints tables; with bits also bytes.png. Unless --rows is false,
    also rows.npz: per test row what the model said, under family|task|metric|layer|dim[|bits], and
    gold|task. Raises UserError.
    """
    flags = config.extra
    check_bits(flags.bits, flags.bits_text, flags.centre)
    start()
    out = _output(config)
    tasks = _tasks(flags)
    agree_on_rows((), tasks)
    mteb_tasks = load_mteb(flags.mteb)
    name = flags.model or config.model.name
    opened = open_finished(config, name)
    say(opened.about)
    layers = _sizes("layers", flags.layers, range(1, opened.n_layers + 1), opened.n_layers, name)
    dims = _sizes("dims", flags.dims, opened.dims, opened.width, name)
    bits = _bits(flags.bits)
    points = all_points(layers, dims, bits)
    read = sorted({*layers, *([opened.n_layers] if flags.lens_text else [])})
    rows: Rows | None = {} if flags.rows else None

    def vectors(texts: list[str], kind: str) -> Tensor:
        say(f"encoding {len(texts):,} {kind} texts at {len(read)} layer(s)")
        return opened.encode(texts, read, batch_size=config.eval.batch_size, kind=kind)

    pca_texts = texts_for_pca(flags.pca_text, PCA_TEXTS * opened.width, "PCA")
    lens_texts = texts_for_pca(flags.lens_text, LENS_TEXTS * opened.width + HELD_OUT, "lens")
    fitted = texts_for_pca(flags.bits_text, CALIBRATION, "ranges of int8") or pca_texts
    more, models, old = float_queries(bool(pca_texts)) if 1 in bits else [], {}, None
    if flags.asymmetric:
        need_searches("--asymmetric", tasks)
        more += asymmetric(layers, lens=bool(lens_texts))
    if flags.old:
        need_searches("--old", tasks)
        old = _older(config, flags.old, dims[-1])
        models[OLD] = _last_layer(old, config.eval.batch_size), [old.n_layers]
        more += same_index(layers[-1], old.n_layers)
    scores = run_suite(
        tasks, vectors, layers=read, points=points, spread=spread_over_ranks, rows=rows,
        pca_texts=pca_texts, lens_texts=lens_texts, bits_texts=fitted, centre=flags.centre,
        more=more, models=models,
    )  # fmt: skip
    if mteb_tasks:
        whole = all_points(layers, dims)
        scores[PREFIX] += run_mteb(mteb_tasks, vectors, layers=read, points=whole,
                                   name=Path(name).name)  # fmt: skip
    scores = {family: found for family, found in scores.items() if found}
    times = _times(opened, tasks, layers) if flags.asymmetric else {}
    for one in filter(None, (opened, old)):
        one.engine.close()
    if dist.rank() == 0:
        facts = about(tasks, opened.encoder, name)
        facts |= {"old": flags.old} if flags.old else {}
        facts |= {"query_ms": times} if times else {}
        if len(bits) > 1:
            facts["bits"] = {"fitted_on": list(flags.bits_text or flags.pca_text) or "the data",
                             "texts": len(fitted) or None, "centred": flags.centre}  # fmt: skip
        try:
            _write(flags, name, out, scores, rows, facts)
        except OSError as error:
            raise UserError(f"output_dir: {out}: {error.strerror}: not all was written; the "
                            "figures stand above") from None  # fmt: skip
        _track(config, name, out, scores, facts["max_length"])
    return EXIT_DONE


def _write(
    flags: Any, name: str, out: Path, scores: dict[str, list[Score]], rows: Rows | None,
    facts: dict[str, Any],
) -> None:  # fmt: skip
    """Tables, scores.jsonl, pictures and rows.npz, in place of another model's."""
    for old in ("rows.npz", "bytes.png", "asymmetric.png"):
        (out / old).unlink(missing_ok=True)
    write_and_show(out, scores, facts["max_length"])
    times = facts.get("query_ms", {})
    if found := asymmetric_tables(scores, times) if times else "":
        save(depth_figure(scores, times), out / "asymmetric.png")
        print(f"\n{found}\n\nplot: {out / 'asymmetric.png'}", flush=True)
    if flags.old:
        print(f"\nnew: {name}, old: {flags.old}\n\n{index_table(scores, rows)}", flush=True)
    if rows is not None:
        write_rows(out / "rows.npz", rows, facts)


def _track(
    config: Config, name: str, out: Path, scores: dict[str, list[Score]], max_length: int
) -> None:
    """The settings, figures and their file to MLflow, below the run of the model's training."""
    told = config.extra.model_dump(exclude={"model", "rows", "data"}) | {
        "data": list(map(str, config.extra.data)), "max_length": max_length}  # fmt: skip
    tracker = follow(config, "evaluate", name, out, told)
    for family, found in scores.items():
        group = "eval" if family == PREFIX else f"eval-{family}"
        tracker.evaluation({f"{group}/{s.name}": s.value for s in found}, 0)
    tracker.artifact(out / "scores.jsonl")
    tracker.close()
    if line := tracker.where():
        say(line)


def _older(config: Config, name: str, widest: int) -> Opened:
    """The older model. UserError where it is narrower than what is scored."""
    opened = open_finished(config, name)
    say(opened.about)
    if widest > opened.width:
        raise UserError(f"--old: {name} has {opened.width} channels, {widest} are to be scored; "
                        f"give --dims of at most {opened.width}")  # fmt: skip
    return opened


def _times(opened: Opened, tasks: Sequence[Task], layers: Sequence[int]) -> dict[int, float]:
    """`query_times` of the searches' own queries."""
    queries = [text for task in tasks for text in task.texts().get(QUERY, [])]
    return query_times(opened.engine, opened.encoder, queries, layers, QUERY)


def _last_layer(opened: Opened, batch_size: int) -> Encode:
    """A model's last layer, for a suite."""
    return lambda texts, kind: opened.encode(texts, [opened.n_layers], batch_size=batch_size,
                                             kind=kind)  # fmt: skip


def _bits(told: Sequence[int]) -> list[int]:
    """Bits of a stored channel, 32 first and always. UserError for other numbers."""
    if strange := [b for b in told if b not in BITS]:
        raise UserError(f"--bits: {strange[0]} is none of {', '.join(map(str, BITS))}: float32, "
                        "int8, or the sign alone")  # fmt: skip
    return sorted({32, *told}, reverse=True)


def _tasks(flags: Any) -> list[Task]:
    """What --data and --suite name, each reported in a line."""
    if not flags.data and not flags.suite and not flags.mteb:
        raise UserError(
            "--data, --suite and --mteb name nothing to score; give --data FILE_OR_FOLDER ... "
            "(such as scored pairs: sentence1, sentence2, score)"
        )
    tasks, lines = load_tasks(flags.data)
    more, more_lines = load_suite(flags.suite) if flags.suite else ([], [])
    if twice := {task.name for task in tasks} & {task.name for task in more}:
        raise UserError(f"--data and --suite both have a task {twice.pop()}; rename one")
    for line in lines + more_lines:
        say(line)
    return tasks + more


def _output(config: Config) -> Path:
    """The directory for the scores: writable, and no training run's own, whose rows name a stage.
    All ranks call."""
    flagged = config.origins.get("output_dir") == "flag"
    out = Path(config.output_dir if flagged else OUTPUT)
    path, problem = out / "scores.jsonl", None
    if dist.rank() == 0:
        try:
            out.mkdir(parents=True, exist_ok=True)
            (out / "scores.jsonl.tmp").touch()
            (out / "scores.jsonl.tmp").unlink()
            if path.is_file() and not config.overwrite and '"stage"' in path.read_text("utf-8"):
                problem = (
                    f"output_dir: {path} holds a training run's scores; name another directory, or "
                    "replace them with --overwrite true"
                )
        except OSError as error:
            problem = f"output_dir: cannot write to {out}: {error.strerror}; name another"
    if problem := dist.from_first(problem):
        raise UserError(problem)
    return out


def _sizes(
    flag: str, told: list[int] | None, known: Sequence[int], most: int, name: str
) -> list[int]:
    """The layers or dims to score: those told, else those known. UserError outside 1 .. most."""
    for value in told or ():
        if not 1 <= value <= most:
            raise UserError(f"--{flag}: {value} is outside 1 .. {most}, the most that {name} has")
    return sorted(set(told)) if told else list(known)
