"""What a comparison of two models holds and says: differences, intervals, families, a verdict."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mipic_llm.disk import in_one_move
from mipic_llm.report.tables import main_metrics
from mipic_llm.types import Point


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

    @property
    def interval(self) -> str:
        """x 100, in brackets; empty where there is none."""
        return f"[{100 * self.low:+.2f}, {100 * self.high:+.2f}]" if self.known else ""

    def __str__(self) -> str:
        return f"{100 * self.gap:+.2f} {self.interval}".rstrip()


class Difference(NamedTuple):
    """One figure of two models at one size; nan where a model has none. n: test rows."""

    task: str
    metric: str
    point: Point
    old: float
    new: float
    span: Span
    n: int

    @property
    def name(self) -> str:
        return f"{self.task}/{self.metric}@{self.point}"


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
            lines.append(f"worse at {len(worse)} sizes, most at {most.name}: {most.span}")
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
        return Span(*_numbers(found, *Span._fields))

    return {
        name: Family({Point(s["layer"], s["dim"]): span(s) for s in found["sizes"]},
                     span(found["mean"]))
        for name, found in record.get("families", {}).items()
    }  # fmt: skip


def differences_of(record: Mapping[str, Any]) -> list[Difference]:
    """The figures of a comparison from its `record`."""
    return [
        Difference(f["task"], f["metric"], Point(f["layer"], f["dim"], f.get("bits", 32)),
                   *_numbers(f, "old", "new"), Span(*_numbers(f, "difference", "low", "high")),
                   f["n"])
        for f in record["figures"]
    ]  # fmt: skip


def _numbers(found: Mapping[str, Any], *keys: str) -> list[float]:
    return [math.nan if found[key] is None else found[key] for key in keys]


def write_record(path: str | Path, found: Iterable[Comparison]) -> None:
    """Comparisons as a JSON list, in one move."""
    text = json.dumps([one.record() for one in found], indent=1) + "\n"
    with in_one_move(path) as fresh:
        fresh.write_text(text, encoding="utf-8")
