"""From the files of finished trials to one table of figures: means, spreads and intervals."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mipic_llm.report.scores import read_families
from mipic_llm.study.runner import folders, seconds_of
from mipic_llm.study.spec import UNTRAINED, Study
from mipic_llm.study.stats import draw_rows, interval, resampled
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
    """A figure over seeds, and its difference from the baseline at the same place (x 1, not 100).

    spread: standard deviation over seeds (n - 1), nan for one. gap, low, high: mean difference and
    its 95 % interval; nan where there is no paired baseline.
    """

    mean: float
    spread: float
    n_seeds: int
    gap: float = math.nan
    low: float = math.nan
    high: float = math.nan


class _Trials(NamedTuple):
    """One method under one condition. values and draws: per key (without condition and method),
    per seed."""

    values: dict[tuple, dict[int, float]]
    draws: dict[tuple, dict[int, np.ndarray]]


def collect(study: Study, out: Path) -> dict[Key, Cell]:
    """Every figure of every trial that is done, averages over tasks included.

    Reads scores.jsonl and rows.npz of each. Trials that are missing are left out, so that a
    running study can be looked at; a gap is over the seeds that both have.
    """
    found: dict[tuple[str, str], _Trials] = {}
    for trial, folder in folders(study, out):
        part = found.setdefault((trial.condition, trial.method), _Trials({}, {}))
        _read(study, folder, trial.seed if trial.seed is not None else -1, part)
    for part in found.values():
        _add_averages(study, part)
    cells: dict[Key, Cell] = {}
    for (condition, method), part in found.items():
        base = found[condition, study.baseline]
        for place, values in part.values.items():
            finite = [v for v in values.values() if math.isfinite(v)]
            if not finite:
                continue
            spread = float(np.std(finite, ddof=1)) if len(finite) > 1 else math.nan
            gap = low = high = math.nan
            seeds = sorted(set(values) & set(base.values.get(place, {})))
            if method not in (study.baseline, UNTRAINED) and seeds and place in part.draws:
                gap = float(np.mean([values[s] - base.values[place][s] for s in seeds]))
                low, high = interval(
                    [part.draws[place][s] for s in seeds], [base.draws[place][s] for s in seeds]
                )
            cells[Key(condition, method, *place)] = Cell(
                float(np.mean(finite)), spread, len(finite), gap, low, high
            )
    return cells


def _read(study: Study, folder: Path, seed: int, into: _Trials) -> None:
    for i in range(len(study.evaluate)):
        where = folder / f"scores{i}"
        if not (folder / f"evaluate{i}.done.json").is_file():
            continue
        for family, s in read_families(where / "scores.jsonl"):
            into.values.setdefault((family, s.task, s.metric, s.point), {})[seed] = s.value
        with np.load(where / "rows.npz", allow_pickle=False) as rows:
            gold = {n.split("|")[1]: rows[n] for n in rows.files if n.startswith("gold|")}
            for name in rows.files:
                if name.startswith("gold|"):
                    continue
                family, task, metric, layer, dim = name.split("|")
                draw_RN = draw_rows(len(rows[name]), 0)
                values = resampled(metric, rows[name], gold.get(task), draw_RN)
                place = (family, task, metric, Point(int(layer), int(dim)))
                into.draws.setdefault(place, {})[seed] = values


def _add_averages(study: Study, part: _Trials) -> None:
    """Means over the tasks of each named average, under that name, where all are there."""
    for name, tasks in study.averages.items():
        for held in (part.values, part.draws):
            places: dict[tuple, list[dict]] = {}
            for (family, task, metric, point), per_seed in held.items():
                if task in tasks:
                    places.setdefault((family, name, metric, point), []).append(per_seed)
            for place, parts in places.items():
                seeds = set.intersection(*(set(p) for p in parts))
                if len(parts) == len(tasks) and seeds:
                    held[place] = {s: np.mean([p[s] for p in parts], axis=0) for s in seeds}


class Cost(NamedTuple):
    """What training a method took, the median over seeds."""

    seconds: float
    tokens_per_second: float
    memory_gib: float


def costs(study: Study, out: Path) -> dict[tuple[str, str], Cost]:
    """By (condition, method): wall time of the training command, rate and peak memory of a step."""
    from mipic_llm.report.scores import rows_of

    found: dict[tuple[str, str], list[Cost]] = {}
    for trial, folder in folders(study, out):
        seconds = seconds_of(folder)
        if seconds is None:
            continue
        rows = [row for _, row in rows_of(folder / "train" / "metrics.jsonl")]
        rate = float(np.median([r["tokens_per_second"] for r in rows]))
        memory = max(r["memory_gib"] for r in rows)
        found.setdefault((trial.condition, trial.method), []).append(Cost(seconds, rate, memory))
    return {k: Cost(*np.median(v, axis=0).tolist()) for k, v in found.items()}


def write_csv(cells: dict[Key, Cell], path: Path) -> None:
    """One row per figure; values x 100."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*Key._fields[:-1], "layer", "dim", *Cell._fields])
        for key, cell in cells.items():
            numbers = [f"{100 * v:.3f}" if isinstance(v, float) else v for v in cell]
            writer.writerow([*key[:-1], *key.point, *("" if n == "nan" else n for n in numbers)])


def points_of(cells: dict[Key, Cell]) -> Sequence[Point]:
    return sorted({key.point for key in cells})
