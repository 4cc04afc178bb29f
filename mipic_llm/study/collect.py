"""From the files of finished trials to one table of figures: means, spreads and intervals."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mipic_llm.report.bootstrap import interval, resampled
from mipic_llm.report.comparison import Span
from mipic_llm.report.evaluations import read_rows
from mipic_llm.report.scores import read_families, rows_of
from mipic_llm.study.job import Job, folders, read_done, read_failed
from mipic_llm.study.spec import UNTRAINED, Study
from mipic_llm.types import Point


class Key(NamedTuple):
    """What a figure is about. family: prefix, or pca (post-hoc)."""

    condition: str
    method: str
    family: str
    task: str
    metric: str
    point: Point


class Cell(NamedTuple):
    """A figure over seeds, and its difference from others at the same place (x 1, not 100).

    spread: standard deviation over seeds (n - 1), nan for one. gap: mean difference from the
    baseline and its interval; gap0: from the untrained model; nan where there is nothing to pair.
    max_length: tokens of a text that were read; several joined by /.
    """

    mean: float
    spread: float
    n_seeds: int
    gap: Span
    gap0: Span
    max_length: str


class Figure(NamedTuple):
    """What one trained model has at one place."""

    value: float
    draws: np.ndarray | None  # on resampled test rows; None where a task has no rows
    max_length: str


def collect(study: Study, out: Path) -> dict[Key, Cell]:
    """Every figure of every finished evaluation, averages over tasks included.

    Reads scores.jsonl and rows.npz of each. What is missing is left out, so that a running study
    can be looked at; a gap is over the seeds that both methods have.
    """
    found: dict[Key, dict[int, Figure]] = {}
    for trial, folder in folders(study, out):
        seed = -1 if trial.seed is None else trial.seed
        for number in range(len(study.evaluate)):
            if read_done(folder, f"evaluate{number}"):
                for place, figure in read_figures(folder / f"scores{number}").items():
                    found.setdefault(Key(*trial[:2], *place), {})[seed] = figure
    return cells_of(study, found)


def cells_of(study: Study, found: dict[Key, dict[int, Figure]]) -> dict[Key, Cell]:
    """The study's table from the figures of its trials by seed (untrained: -1); `found` gets those
    of its averages."""
    for name, tasks in study.averages.items():
        _add_average(found, name, tasks)
    return {key: cell for key, seeds in found.items()
            if (cell := _cell(study, key, seeds, found)) is not None}  # fmt: skip


def read_figures(where: Path) -> dict[tuple, Figure]:
    """(family, task, metric, point) -> figure, of one evaluation's directory."""
    figures, told = {}, next((row for _, row in rows_of(where / "scores.jsonl")), {})
    rows, _ = read_rows(where)
    for family, s in read_families(where / "scores.jsonl"):
        said_N = rows.get((family, s.task, s.metric, *s.point.place))
        draws = None
        if said_N is not None:
            draws = resampled(s.metric, said_N, rows.get(("gold", s.task)))
        figures[family, s.task, s.metric, s.point] = Figure(
            s.value, draws, str(told.get("max_length", ""))
        )
    return figures


def _add_average(found: dict[Key, dict[int, Figure]], name: str, tasks: list[str]) -> None:
    """Means over the tasks under that name, for the seeds that have all of them."""
    places: dict[Key, list[dict[int, Figure]]] = {}
    for key, seeds in found.items():
        if key.task in tasks:
            places.setdefault(key._replace(task=name), []).append(seeds)
    for key, parts in places.items():
        shared = set.intersection(*map(set, parts))
        if len(parts) == len(tasks) and shared:
            found[key] = {}
            for seed in sorted(shared):
                values, draws, lengths = zip(*(part[seed] for part in parts), strict=True)
                mean = None if any(d is None for d in draws) else np.mean(draws, axis=0)
                found[key][seed] = Figure(float(np.mean(values)), mean, _each(lengths))


def _each(lengths: Iterable[str]) -> str:
    return "/".join(dict.fromkeys(lengths))


def _cell(
    study: Study, key: Key, seeds: dict[int, Figure], found: dict[Key, dict[int, Figure]]
) -> Cell | None:
    """Mean, spread, and differences from the baseline and the untrained model; None without a
    finite value."""
    finite = [f.value for f in seeds.values() if math.isfinite(f.value)]
    if not finite:
        return None
    spread = float(np.std(finite, ddof=1)) if len(finite) > 1 else math.nan
    gaps = []
    for method in (study.baseline, UNTRAINED):
        base = found.get(key._replace(method=method), {})
        base = dict.fromkeys(seeds, base[-1]) if -1 in base else base
        shared = {*seeds} & {*base} if key.method not in (UNTRAINED, method) else ()
        gaps.append(_gap([(seeds[s], base[s]) for s in sorted(shared)]))
    return Cell(float(np.mean(finite)), spread, len(finite), *gaps,
                _each(f.max_length for f in seeds.values()))  # fmt: skip


def _gap(pairs: Sequence[tuple[Figure, Figure]]) -> Span:
    """Mean difference over seeds; nan where rows are missing."""
    draws = [(a.draws, b.draws) for a, b in pairs if a.draws is not None and b.draws is not None]
    if not draws:
        return Span(math.nan)
    gap = float(np.mean([a.value - b.value for a, b in pairs]))
    return Span(gap, *interval(*zip(*draws, strict=True)))


class Cost(NamedTuple):
    """What training a method took, the median over seeds."""

    seconds: float
    tokens_per_second: float
    memory_gib: float


def costs(study: Study, out: Path) -> dict[tuple[str, str], Cost]:
    """By (condition, method): wall time of the training command, rate and peak memory of a step."""
    found: dict[tuple[str, str], list[Cost]] = {}
    for trial, folder in folders(study, out):
        if done := read_done(folder):
            rows = [row for _, row in rows_of(folder / "train" / "metrics.jsonl")]
            rate = float(np.median([r["tokens_per_second"] for r in rows]))
            memory = max(r["memory_gib"] for r in rows)
            found.setdefault(trial[:2], []).append(Cost(done["seconds"], rate, memory))
    return {k: Cost(*np.median(v, axis=0).tolist()) for k, v in found.items()}


def provenance(study: Study, out: Path) -> list[str]:
    """Lines about the code and data of the finished trials: a warning where they differ."""
    seen: dict[str, dict[str, list[str]]] = {}  # the code or a spec of data -> digest -> steps
    labels = {"": "not recorded"}
    for trial, folder in folders(study, out):
        for step in ("train", *(f"evaluate{i}" for i in range(len(study.evaluate)))):
            if done := read_done(folder, step):
                code = done.get("code", "")
                labels.setdefault(code, f"{done.get('commit')} ({code})")
                for what, digest in {"The code": code, **done.get("data", {})}.items():
                    seen.setdefault(what, {}).setdefault(digest, []).append(f"{trial} {step}")
    lines = [f"Code: {labels[code]}." for code in seen.get("The code", {})]
    lines = lines if len(lines) == 1 else []
    for what, found in seen.items():
        if len(found) > 1:
            some = [f"{labels.get(digest, digest)}: {', '.join(steps[:4])}"
                    f"{f' and {len(steps) - 4} more' if len(steps) > 4 else ''}"
                    for digest, steps in found.items()]  # fmt: skip
            lines.append(f"**{what} is not the same in all trials.** {'; '.join(some)}.")
    return lines


def unfinished(study: Study, out: Path) -> list[str]:
    """A line for each trial that failed, with its reason, and one for those that were not run."""
    lines, waiting = [], []
    for trial, folder in folders(study, out):
        for step in Job(study, trial, out).steps():
            if read_done(folder, step):
                continue
            if told := read_failed(folder, step):
                lines.append(f"**{trial} failed** at {step}: {told['reason']} (log: "
                             f"{folder.relative_to(out) / step}.log)")  # fmt: skip
            else:
                waiting.append(str(trial))
            break
    if waiting:
        lines.append(f"not run yet: {', '.join(waiting)}")
    return lines


def write_csv(cells: dict[Key, Cell], path: Path) -> None:
    """One row per figure; values x 100."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*Key._fields[:-1], *Point._fields, "mean", "spread", "n_seeds",
                         *Span._fields, *(f"{name}0" for name in Span._fields),
                         "max_length"])  # fmt: skip
        for key, c in cells.items():
            row = [c.mean, c.spread, c.n_seeds, *c.gap, *c.gap0, c.max_length]
            numbers = [f"{100 * v:.3f}" if isinstance(v, float) else v for v in row]
            writer.writerow([*key[:-1], *key.point, *("" if n == "nan" else n for n in numbers)])
