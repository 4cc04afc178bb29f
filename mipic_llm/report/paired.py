"""Two evaluations, figure by figure: differences, paired 95 % intervals, and a verdict in words.

What a model said of each test row is kept in rows.npz beside scores.jsonl; both are drawn again
with the same rows (`report.bootstrap`). Without it there are differences and no intervals.
Shape legend: R resamples, N test rows.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from mipic_llm.errors import UserError
from mipic_llm.report.bootstrap import merit_of, middle, resampled
from mipic_llm.report.scores import before_and_after, read_scores
from mipic_llm.report.tables import main_metrics
from mipic_llm.types import Point, Score

ROWS = {"": "rows.npz", "before": "rows-before.npz", "after": "rows.npz"}  # of a stage
PREFIX = "prefix"
_MANY = 6  # tasks; above, the verdict speaks of kinds of tasks


class Evaluation(NamedTuple):
    """Figures of one model, and what stands behind them.

    rows: by (family, task, metric, *Point.place) what it said of each test row, by ("gold", task)
    what is right; empty where that was not kept. about: max_length (tokens), prompts by kind of
    text, data (task -> digest), as far as known.
    """

    name: str
    scores: Sequence[Score]
    rows: Mapping[tuple, np.ndarray]
    about: Mapping[str, Any]


def write_rows(
    path: str | Path, rows: Mapping[tuple, np.ndarray], about: Mapping[str, Any]
) -> None:
    """rows.npz of an evaluation, in one move."""
    named: dict[str, Any] = {"|".join(map(str, key)): value for key, value in rows.items()}
    temporary = Path(f"{path}.tmp")
    with temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, about=json.dumps(about), **named)
    os.replace(temporary, path)


class _Rows(Mapping):
    """The arrays of a rows.npz, each read when it is asked for."""

    def __init__(self, path: Path) -> None:
        self._file = np.load(path, allow_pickle=False)

    def __getitem__(self, key: tuple) -> np.ndarray:
        return self._file["|".join(map(str, key))]

    def __iter__(self) -> Any:
        return (tuple(name.split("|")) for name in self._file.files)

    def __len__(self) -> int:
        return len(self._file.files)

    def __contains__(self, key: Any) -> bool:
        return "|".join(map(str, key)) in self._file.files


def read_rows(folder: str | Path, stage: str = "") -> tuple[Mapping, Mapping]:
    """What `write_rows` wrote: (rows, about); both empty where there is none. UserError."""
    path = Path(folder) / ROWS[stage]
    if not path.is_file():
        return {}, {}
    try:
        rows = _Rows(path)
        return rows, json.loads(str(rows["about",])) if ("about",) in rows else {}
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise UserError(f"{path}: no rows of an evaluation ({error}); evaluate again") from None


def read_evaluation(folder: str | Path, name: str, stage: str = "") -> Evaluation:
    """Of a directory with scores.jsonl. stage: before or after, of a training run. UserError."""
    scores = read_scores(Path(folder) / "scores.jsonl", stage or None)
    return Evaluation(name, scores, *read_rows(folder, stage))


def read_run(folder: str | Path) -> tuple[Evaluation, Evaluation]:
    """A directory's figures before and after training; without stages all of them are after."""
    before, after = before_and_after(Path(folder) / "scores.jsonl")
    if not before and after and not any(read_scores(Path(folder) / "scores.jsonl", "after")):
        return Evaluation("before", [], {}, {}), read_evaluation(folder, "after")
    return read_evaluation(folder, "before", "before"), read_evaluation(folder, "after", "after")


class Span(NamedTuple):
    """A difference and its 95 % interval; nan where rows are missing."""

    gap: float
    low: float = math.nan
    high: float = math.nan

    @property
    def known(self) -> bool:
        return math.isfinite(self.low)

    @property
    def sign(self) -> int:
        """1 better, -1 worse, 0 where the interval holds zero or there is none."""
        return (self.low > 0) - (self.high < 0)

    def __str__(self) -> str:
        text = f"{100 * self.gap:+.2f}"
        return text + (f" [{100 * self.low:+.2f}, {100 * self.high:+.2f}]" if self.known else "")


class Difference(NamedTuple):
    """One figure of two models at one size; nan where a model has none. n: test rows."""

    task: str
    metric: str
    point: Point
    old: float
    new: float
    span: Span
    n: int


class Family(NamedTuple):
    """Tasks of one kind: the mean over them of the main metric's difference, at each size and over
    all sizes."""

    sizes: dict[Point, Span]
    mean: Span

    def fell(self, name: str) -> str:
        """Where it is worse by more than chance, in words; empty where it is nowhere."""
        worse = {point: span for point, span in self.sizes.items() if span.sign < 0}
        if not worse and self.mean.sign >= 0:
            return ""
        text = f"{name} {self.mean}" if self.mean.sign < 0 else name
        if len(self.sizes) == 1 or not worse:
            return text
        most = min(worse, key=lambda point: worse[point].gap)
        return f"{text} at {len(worse)} of {len(self.sizes)} sizes, most at {most}: {worse[most]}"


class Comparison(NamedTuple):
    """`new` against `old`. means: of the main metric of each task over all sizes, by task (or kind
    of task, where there are many); whole: over all of them. families: tasks of a kind together,
    by its name. notes: what is not alike."""

    old: str
    new: str
    differences: list[Difference]
    means: dict[str, Span]
    whole: Span
    families: dict[str, Family]
    notes: list[str]
    max_length: int | None

    def verdict(self) -> list[str]:
        """Plain sentences: the whole, then each task, then what rose while another fell."""
        cells = [d.span for d in self.mains() if math.isfinite(d.span.gap)]
        if not cells:
            return [f"{self.new} against {self.old}: there is no figure that both have"]
        old, new = self.old, self.new
        if (old, new) == ("before", "after"):
            old, new = "the model before training", "the trained model"
        mean = f"{self.whole} points in the mean of {len(cells)} figures (main metric, every size)"
        if not self.whole.known:
            return [f"{new} against {old}: {mean}; whether that is more than chance is "
                    "not known: what the models said of each row was not kept"]  # fmt: skip
        better, worse = (sum(s.sign == sign for s in cells) for sign in (1, -1))
        word = {1: "is better than", 0: "cannot be told from", -1: "is worse than"}
        lines = [
            f"{new} {word[self.whole.sign]} {old}: {mean}; {better} better, {worse} "
            f"worse, {len(cells) - better - worse} not told apart"
        ]
        if len(self.means) > 1:
            lines += [f"{name}: {span}" for name, span in self.means.items()]
        kinds = self.families.items()
        if len(kinds) > 1 and not any(family.fell(name) for name, family in kinds):
            lines.append("no family of tasks fell by more than chance, in the mean or at a size")
        return lines + self.losses()

    def fell(self) -> list[str]:
        """The families (of one family: the tasks) that fell, in the mean or at a size, while
        another one rose in the mean, by more than chance: what was forgotten."""
        some = {name: Family({}, span) for name, span in self.means.items()}
        some = self.families if len(self.families) > 1 else some
        fell = [words for name, family in some.items() if (words := family.fell(name))]
        return fell if any(family.mean.sign > 0 for family in some.values()) else []

    def losses(self) -> list[str]:
        """A line where one family rose and another fell; where single sizes fell, one too."""
        some = {name: family.mean for name, family in self.families.items()}
        some = some if len(some) > 1 else self.means
        rose = [f"{name} {span}" for name, span in some.items() if span.sign > 0]
        lines = []
        if fell := self.fell():
            lines.append(f"warning: {' and '.join(rose)} rose, and there fell: {'; '.join(fell)}")
        worse = [d for d in self.mains() if d.span.sign < 0]
        if worse and self.whole.sign >= 0:
            most = min(worse, key=lambda d: d.span.gap)
            lines.append(f"worse at {len(worse)} sizes, most at {most.task}/{most.metric}@"
                         f"{most.point}: {most.span}")  # fmt: skip
        return lines

    def mains(self) -> list[Difference]:
        """What verdicts speak of: the main metric of each task, in float32."""
        mains = main_metrics(self.differences)
        return [d for d in self.differences if d.metric == mains[d.task] and d.point.bits == 32]

    def record(self) -> dict[str, Any]:
        """For JSON: verdict, notes and every figure x 1."""

        def number(x: float) -> float | None:
            return x if math.isfinite(x) else None

        figures = [
            {"task": d.task, "metric": d.metric, "layer": d.point.layer, "dim": d.point.dim,
             **({} if d.point.bits == 32 else {"bits": d.point.bits}),
             "old": number(d.old), "new": number(d.new), "difference": number(d.span.gap),
             "low": number(d.span.low), "high": number(d.span.high), "n": d.n}
            for d in self.differences
        ]  # fmt: skip

        def of(span: Span) -> dict[str, float | None]:
            return {k: number(v) for k, v in span._asdict().items()}

        families = {
            name: {"mean": of(family.mean), "sizes": [
                {"layer": p.layer, "dim": p.dim, **of(span)} for p, span in family.sizes.items()]}
            for name, family in self.families.items()
        }  # fmt: skip
        return {"old": self.old, "new": self.new, "max_length": self.max_length,
                "whole": of(self.whole), "families": families,
                "verdict": self.verdict(), "warnings": self.losses(), "notes": self.notes,
                "figures": figures}  # fmt: skip


def families_of(record: Mapping[str, Any]) -> dict[str, Family]:
    """The families of a comparison from its `record`; empty for a record of an older version."""

    def span(found: Mapping[str, Any]) -> Span:
        return Span(*(math.nan if found[k] is None else found[k] for k in Span._fields))

    return {
        name: Family({Point(s["layer"], s["dim"]): span(s) for s in found["sizes"]},
                     span(found["mean"]))
        for name, found in record.get("families", {}).items()
    }  # fmt: skip


def write_record(path: str | Path, found: Iterable[Comparison]) -> None:
    """Comparisons as a JSON list, in one move."""
    path, temporary = Path(path), Path(f"{path}.tmp")
    text = json.dumps([one.record() for one in found], indent=1) + "\n"
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def compare_two(old: Evaluation, new: Evaluation) -> Comparison:
    """Every figure that one of them has. A task whose rows are not the same is left out, and said;
    other lengths and prompts are said."""
    notes = _unlike(old, new)
    one, two = ({s[:3]: s for s in e.scores} for e in (old, new))
    tasks = {key[0] for key in one} | {key[0] for key in two}
    for task in sorted(tasks):
        if why := _other_rows(old, new, task):
            notes.append(why)
            tasks.remove(task)
    mains, found = main_metrics([*old.scores, *new.scores]), []
    draws: dict[str, dict[Point, Part]] = {}  # of main figures, by task
    for key in dict.fromkeys([*one, *two]):
        task, metric, point = key
        if task not in tasks:
            continue
        a, b = (side[key].value if key in side else math.nan for side in (one, two))
        gap_R = _gaps(old, new, key) if math.isfinite(b - a) else None
        span = Span(b - a, *(middle(gap_R) if gap_R is not None else ()))
        found.append(Difference(*key, a, b, span, (one.get(key) or two[key]).n))
        if mains[task] == metric and point.bits == 32 and math.isfinite(b - a):
            draws.setdefault(task, {})[point] = (b - a, gap_R)
    by_task = {task: _mean(list(parts.values())) for task, parts in draws.items()}
    metrics = {task: {d.metric for d in found if d.task == task} for task in by_task}
    kinds = {task: kind_of(metrics[task]) for task in by_task}
    names = {task: f"{task} ({kinds[task]})" for task in by_task}
    groups = names if len(by_task) <= _MANY else kinds
    means = {group: _span(_mean([by_task[t] for t in by_task if groups[t] == group]))
             for group in dict.fromkeys(groups.values())}  # fmt: skip
    whole = _span(_mean(list(by_task.values()))) if by_task else Span(math.nan)
    families = {}
    for kind in dict.fromkeys(kinds.values()):
        mine = [task for task in by_task if kinds[task] == kind]
        points = sorted({p for task in mine for p in draws[task]}, key=lambda p: (-p.layer, p.dim))
        families[names[mine[0]] if len(mine) == 1 else kind] = Family(
            {p: _span(_mean([draws[t][p] for t in mine if p in draws[t]])) for p in points},
            _span(_mean([by_task[t] for t in mine])),
        )
    lengths = {e.about.get("max_length") for e in (old, new) if e.scores}
    same = lengths.pop() if len(lengths) == 1 else None
    return Comparison(old.name, new.name, found, means, whole, families, notes, same)


def kind_of(metrics: Iterable[str]) -> str:
    """The kind of a task with these metrics."""
    names = {metric.partition("@")[0] for metric in metrics}
    if "average_precision" in names:
        return "pairs"
    if names & {"ndcg", "mrr", "map", "recall"}:
        return "retrieval"
    return "classification" if "macro_f1" in names else "STS" if "spearman" in names else "task"


Part = tuple[float, "np.ndarray | None"]  # a difference, and the same on resampled rows


def _mean(parts: Sequence[Part]) -> Part:
    draws = [d for _, d in parts if d is not None]
    mean_R = np.mean(draws, axis=0) if len(draws) == len(parts) else None
    return float(np.mean([gap for gap, _ in parts])), mean_R


def _span(part: Part) -> Span:
    return Span(part[0], *(middle(part[1]) if part[1] is not None else ()))


def _gaps(old: Evaluation, new: Evaluation, key: tuple[str, str, Point]) -> np.ndarray | None:
    """(R,) differences on resampled rows; None where a side has no rows of this figure."""
    task, metric, point = key
    name, gold = (PREFIX, task, metric, *point.place), ("gold", task)
    if name not in old.rows or name not in new.rows:
        return None
    gold_N = new.rows[gold] if gold in new.rows else None
    a_R, b_R = (resampled(metric, e.rows[name], gold_N) for e in (old, new))
    return b_R - a_R


def gap_of(
    rows: Mapping[tuple, np.ndarray], task: str, metric: str, old: tuple[str, Point],
    new: tuple[str, Point],
) -> Span:  # fmt: skip
    """A figure of one (family, point) minus that of another, of one evaluation, on the same rows.
    rows: see Evaluation."""
    gold = rows.get(("gold", task))
    a, b = (rows[family, task, metric, *point.place] for family, point in (old, new))
    whole = np.ones((1, len(a)))
    gap = float(merit_of(metric, b, gold)(whole)[0] - merit_of(metric, a, gold)(whole)[0])
    return Span(gap, *middle(resampled(metric, b, gold) - resampled(metric, a, gold)))


def _other_rows(old: Evaluation, new: Evaluation, task: str) -> str | None:
    """Why a task of both is not the same; None where it is, as far as one can know."""
    one, two = (e.about.get("data", {}).get(task) for e in (old, new))
    sizes = [{s.n for s in e.scores if s.task == task} for e in (old, new)]
    gold = ("gold", task)
    unequal = gold in old.rows and gold in new.rows and not np.array_equal(
        old.rows[gold], new.rows[gold])  # fmt: skip
    if not all(sizes) or not (unequal or sizes[0] != sizes[1] or (one and two and one != two)):
        return None
    return (f"{task} is left out: its rows are not the same in {old.name} and {new.name}; evaluate "
            "both on the same files")  # fmt: skip


def _unlike(old: Evaluation, new: Evaluation) -> list[str]:
    """Lines on what was read in another way."""
    notes = []
    one, two = (e.about.get("max_length") for e in (old, new))
    if one and two and one != two:
        notes.append(f"warning: {old.name} read {one} tokens of a text, {new.name} {two}; evaluate "
                     "both with one --data.max_length")  # fmt: skip
    for kind in ("symmetric", "query", "document"):
        said = [(e.about.get("prompts") or {}).get(kind, "") for e in (old, new)]
        if said[0] != said[1] and old.about and new.about:
            notes.append(f"note: prompt of {kind} texts: {said[0]!r} in {old.name}, {said[1]!r} in "
                         f"{new.name}")  # fmt: skip
    return notes
