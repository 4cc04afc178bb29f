"""`mipic evaluate`: a finished model, judged by a suite at every (layer, dim) point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mipic_llm.config.schema import Config
from mipic_llm.data.read.formats import read_training
from mipic_llm.errors import EXIT_DONE, UserError
from mipic_llm.evaluation.encode import encode, spread_over_ranks
from mipic_llm.evaluation.mteb import load_mteb, run_mteb
from mipic_llm.evaluation.open import Opened, open_finished
from mipic_llm.evaluation.read import load_suite, load_tasks
from mipic_llm.evaluation.suite import PREFIX, Rows, all_points, run_suite
from mipic_llm.evaluation.table import points_table
from mipic_llm.evaluation.tasks.base import Task
from mipic_llm.report import write_scores
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.engine import start
from mipic_llm.runtime.ranks import say
from mipic_llm.types import Score

PCA_TEXTS = 10  # per channel; a covariance wants no more, and encoding them takes the most time


def evaluate(config: Config) -> int:
    """Score config.extra.model on config.extra.data; -> exit code 0.

    Writes <output_dir>/scores.jsonl (task, metric, layer, dim, value, n, readout) and prints
    tables. With --rows, also rows.npz: per test row what the model said, under
    family|task|metric|layer|dim, and gold|task. Raises UserError.
    """
    flags = config.extra
    start()
    out = _output(config)
    tasks = _tasks(flags)
    mteb_tasks = load_mteb(flags.mteb)
    name = flags.model or config.model.name
    opened = open_finished(config, name)
    say(opened.about)
    layers, dims = _sizes(opened, flags.layers, flags.dims)
    pca_texts = _pca_texts(flags.pca_text, PCA_TEXTS * opened.width)

    def vectors(texts: list[str], kind: str) -> Tensor:
        say(f"encoding {len(texts):,} {kind} texts at {len(layers)} layer(s)")
        return encode(opened.engine, opened.encoder, texts, layers,
                      batch_size=config.eval.batch_size, kind=kind)  # fmt: skip

    rows: Rows | None = {} if flags.rows else None
    scores = run_suite(
        tasks, vectors, layers=layers, points=all_points(layers, dims), pca_texts=pca_texts,
        spread=spread_over_ranks, rows=rows,
    )  # fmt: skip
    if mteb_tasks:
        points = all_points(layers, dims)
        found = run_mteb(mteb_tasks, vectors, layers=layers, points=points, name=Path(name).name)
        scores[PREFIX] += found
    if dist.rank() == 0:
        write(out / "scores.jsonl", scores)
        if rows is not None:
            named = {"|".join(map(str, key)): value for key, value in rows.items()}
            np.savez_compressed(out / "rows.npz", allow_pickle=False, **named)
        for family, found in scores.items():
            print("\n" + points_table(found, family if len(scores) > 1 else ""))
        print(f"\nscores: {out / 'scores.jsonl'}", flush=True)
    return EXIT_DONE


def write(path: Path, scores: dict[str, list[Score]]) -> None:
    """All families into one file."""
    for i, (family, found) in enumerate(scores.items()):
        write_scores(path, found, append=i > 0, readout=family)


def _tasks(flags: Any) -> list[Task]:
    """What --data and --suite name, each reported in a line."""
    if not flags.data and not flags.suite and not flags.mteb:
        raise UserError(
            "--data, --suite and --mteb name nothing to score; give --data FILE_OR_FOLDER ... "
            "(such as scored pairs: sentence1, sentence2, score)"
        )
    tasks, lines = load_tasks(flags.data)
    if flags.suite:
        more, more_lines = load_suite(flags.suite)
        twice = {task.name for task in tasks} & {task.name for task in more}
        if twice:
            raise UserError(f"--data and --suite both have a task {twice.pop()}; rename one")
        tasks, lines = tasks + more, lines + more_lines
    for line in lines:
        say(line)
    return tasks


def _pca_texts(specs: list[str], most: int) -> list[str]:
    """At most so many distinct texts of training data, evenly spread, for the post-hoc PCA."""
    if not specs:
        return []
    sources, reports = read_training(specs, negatives=0)
    texts = list(dict.fromkeys(
        text for source in sources for e in source.examples for text in (e.anchor, e.positive)
        if text is not None
    ))  # fmt: skip
    chosen = texts[:: -(-len(texts) // most)]
    say(f"PCA on {len(chosen):,} of {len(texts):,} texts of {', '.join(r.path for r in reports)}")
    return chosen


def _output(config: Config) -> Path:
    """The directory for the scores: writable, and no training run's own."""
    flagged = config.origins.get("output_dir") == "flag"
    out = Path(config.output_dir if flagged else "outputs/evaluation")
    problem = None
    if dist.rank() == 0:
        try:
            out.mkdir(parents=True, exist_ok=True)
            (out / "scores.jsonl.tmp").touch()
            (out / "scores.jsonl.tmp").unlink()
            problem = _run_scores(out / "scores.jsonl")
        except OSError as error:
            problem = f"output_dir: cannot write to {out}: {error.strerror}; name another"
    problem = dist.from_first(problem)
    if problem and not (config.overwrite and "training run" in problem):
        raise UserError(problem)
    return out


def _run_scores(path: Path) -> str | None:
    """A complaint where the file is a training run's (its rows name a stage)."""
    if not path.is_file():
        return None
    with path.open(encoding="utf-8") as file:
        if not any('"stage"' in line for line in file):
            return None
    return (
        f"output_dir: {path} holds a training run's scores; name another directory, or replace "
        "them with --overwrite true"
    )


def _sizes(
    opened: Opened, layers: list[int] | None, dims: list[int] | None
) -> tuple[list[int], list[int]]:
    """What is scored: all layers and the trained (or derived) dims unless told."""
    layers = sorted(set(layers)) if layers else list(range(1, opened.n_layers + 1))
    dims = sorted(set(dims)) if dims else opened.dims
    for name, values, most, what in (
        ("layers", layers, opened.n_layers, "the last layer"),
        ("dims", dims, opened.width, "the full width"),
    ):
        bad = [v for v in values if not 1 <= v <= most]
        if bad:
            raise UserError(f"--{name}: {bad[0]} is outside 1 .. {most}, {what} of {opened.name}")
    return layers, dims
