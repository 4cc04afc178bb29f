"""`mipic export --bytes`: which dim, stored with how many bits, fits a number of bytes best."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from mipic_llm.config import Config, need
from mipic_llm.data.tokenise import TextEncoder
from mipic_llm.evaluation.bits import STEPS, Quantiser
from mipic_llm.evaluation.fitting import spread, texts_for_pca
from mipic_llm.evaluation.read import load_tasks
from mipic_llm.evaluation.searches import FLOAT, float_queries, searched
from mipic_llm.evaluation.suite import Rows, run_suite
from mipic_llm.evaluation.tasks.base import SYMMETRIC
from mipic_llm.export.card import PATH
from mipic_llm.export.fitted import read_texts, still_here
from mipic_llm.export.portable import write_json
from mipic_llm.model.backbone import Backbone
from mipic_llm.report.bootstrap import middle, resampled
from mipic_llm.report.scores import PREFIX
from mipic_llm.report.tables import main_metrics, plain_table
from mipic_llm.runtime.ranks import say
from mipic_llm.types import BITS, Point

FILE = "quantization.json"
_TEXTS = 2_000  # that fix the ranges of int8
_ASKED = "How do I open the settings?"
_PRECISION = {8: "int8", 1: "ubinary"}  # sentence-transformers' words


class Stored(NamedTuple):
    """A size, and whether searches ask documents of signs with queries in float32."""

    point: Point
    floating: bool = False

    def __str__(self) -> str:
        return f"{self.point.size}{f', {FLOAT}' * self.floating}"

    def key(self, task: str, metric: str, found: Container[tuple]) -> tuple:
        """Where its figure stands among those found: tasks that are no search have but one."""
        own = (FLOAT, task, metric, *self.point.place)
        return own if self.floating and own in found else (PREFIX, *own[1:])


class Fit(NamedTuple):
    """The best size, how its vectors are stored, and on what texts that was fitted."""

    stored: Stored
    range_2d: Tensor
    fitted_on: str
    notes: list[str]

    @property
    def point(self) -> Point:
        return self.stored.point

    def write(self, folder: Path) -> None:
        """quantization.json: what an index must know."""
        write_json(folder / FILE, {
            "bits": self.point.bits, "precision": _PRECISION.get(self.point.bits, "float32"),
            "dim": self.point.dim, "bytes": self.point.bytes, "fitted_on": self.fitted_on,
            "queries": "float32" if self.stored.floating else "as stored",
            "ranges": self.range_2d.tolist() if self.point.bits == 8 else None,
        })  # fmt: skip


def fit_bytes(
    config: Config, backbone: Backbone, encoder: TextEncoder, dims: Sequence[int], most: int,
    specs: Sequence[str],
) -> Fit:  # fmt: skip
    """Score every (dim, bits) of the last layer that takes at most so many bytes a vector on specs
    (else the run's validation data); the best has the highest mean of the tasks' main figures.
    UserError where no size is so small, or there is nothing to score."""
    last = backbone.n_layers
    whole = Point(last, backbone.width)
    sizes = [Point(last, d, bits) for bits in sorted(BITS, reverse=True) for d in dims]
    small = [p for p in sizes if p.bytes <= most]
    least = min(sizes, key=lambda p: p.bytes)
    need(bool(small), f"bytes: no size takes so few; the smallest is {least.size}, "
         f"{least.bytes} bytes")  # fmt: skip
    wanted = list(specs) or [s for s in config.data.validation if still_here(s)]
    need(bool(wanted), "bytes: the run's validation data are not here, and the size is chosen on "
         "such; give --data FILE ..")  # fmt: skip
    tasks, lines = load_tasks(wanted, split="validation")
    for line in lines:
        say(line)
    training = [s for s in config.training if still_here(s if isinstance(s, str) else s.path)]
    texts = texts_for_pca(training, _TEXTS, "ranges of int8", config)
    if not texts:
        every = [t for task in tasks for some in task.texts().values() for t in some]
        texts = [every[i] for i in spread(len(every), _TEXTS)]
    fitted_on = f"{len(texts):,} texts of " + ("the training data" if training else "the tasks")

    def vectors(some: list[str], kind: str) -> Tensor:
        return read_texts(backbone, encoder, some, kind)[:, None]

    rows: Rows = {}
    points = list(dict.fromkeys([whole, *small]))
    scores = run_suite(tasks, vectors, layers=[last], points=points, bits_texts=texts, rows=rows,
                       more=float_queries())  # fmt: skip
    mains = main_metrics(scores[PREFIX])
    values = {(family, s.task, s.metric, *s.point.place): s.value
              for family, many in scores.items() for s in many}  # fmt: skip

    def mean(way: Stored) -> float:
        return float(np.mean([values[way.key(t, m, values)] for t, m in mains.items()]))

    ways = [Stored(p) for p in small]
    ways += [Stored(p, True) for p in small if p.bits == 1] if searched(tasks) else []
    means = {way: mean(way) for way in (Stored(whole), *ways)}
    best, note = _choose(ways, means, mains, rows, {t.name: t.gold() for t in tasks}, most)
    ranges = read_texts(backbone, encoder, texts, SYMMETRIC)[:, : best.point.dim]
    return Fit(best, Quantiser.fit(ranges).range_2d, fitted_on, [note, _usage(best)])


def _choose(
    ways: Sequence[Stored], means: Mapping[Stored, float], mains: Mapping[str, str], rows: Rows,
    gold: Mapping[str, Any], most: int,
) -> tuple[Stored, str]:  # fmt: skip
    """The best of ways, and what it costs against the first of means, the whole vector."""
    known = [way for way in ways if math.isfinite(means[way])]  # of equal signs alone there is none
    need(bool(known), f"bytes: no size of at most {most} bytes has a figure on every task; give "
         "other --data, or more bytes")  # fmt: skip
    best = max(known, key=lambda way: (means[way], -way.point.bytes))
    whole = next(iter(means))
    spans = {way: _span(rows, gold, mains, whole, way) for way in known}
    told = f"{whole.point.dim} float32"
    table = [["stored as", "bytes", "mean x 100", f"less {told}", "95 % interval"]]
    for way in sorted(known, key=lambda way: -means[way]):
        gap = f"{100 * (means[way] - means[whole]):+.2f}"
        table.append([f"{way}", f"{way.point.bytes}", f"{100 * means[way]:.2f}", gap, spans[way]])
    what = ", ".join(f"{metric} of {task}" for task, metric in mains.items())
    say(f"\n{what}; {told}, {whole.point.bytes:,} bytes: {100 * means[whole]:.2f}\n"
        f"{plain_table(table)}\n")  # fmt: skip
    cost = (f"{100 * means[best]:.2f}, {100 * (means[best] - means[whole]):+.2f} {spans[best]} "
            f"against {told} in {whole.point.bytes:,} bytes")  # fmt: skip
    size = best.point.bytes
    note = (
        f"## In {most} bytes\n\nChosen among the sizes of at most {most} bytes a vector: "
        f"{best}, {size} bytes. Mean of {what}, x 100: {cost} (95 % interval, paired "
        "over the rows). It was chosen on these rows, so the figure is a little too good."
    )
    say(f"bytes: {best} in {size} bytes: {cost}; chosen on these very rows")
    return best, note


def _span(
    rows: Rows, gold: Mapping[str, Any], mains: Mapping[str, str], whole: Stored, way: Stored
) -> str:
    """The interval of the mean difference over tasks from the whole vector, x 100."""
    gaps: list[Any] = []
    for task, metric in mains.items():
        one, two = (rows[w.key(task, metric, rows)] for w in (whole, way))
        gaps.append(resampled(metric, two, gold[task]) - resampled(metric, one, gold[task]))
    low, high = middle(np.mean(gaps, axis=0))
    return f"[{100 * low:+.2f}, {100 * high:+.2f}]"


def _usage(way: Stored) -> str:
    """Python for the card: the codes that an index stores, and what they are compared by. The codes
    are written out: quantize_embeddings of sentence-transformers 5 lies elsewhere, cuts towards
    zero and lets what is outside the ranges start again from the other end."""
    point, ranges, floating = way.point, way.point.bits == 8, way.floating
    if point.bits == 32:
        return "It is stored as it is, in float32."
    lines = [
        *(["import json", ""] if ranges else []),
        "import numpy as np",
        "from sentence_transformers import SentenceTransformer", "",
        f'model = SentenceTransformer("{PATH}")',
        'vectors = model.encode_document(["Open the settings."], normalize_embeddings=True)',
    ]  # fmt: skip
    if ranges:
        how = "Compare `values`, by their cosine: each channel's codes have a range of their own."
        lines += [
            f'low, high = np.float32(json.load(open("{PATH}/{FILE}"))["ranges"])',
            f"step = np.where(high > low, (high - low) / {STEPS}, 1)",
            f"codes = (np.floor((vectors - low) / step).clip(0, {STEPS}) - 128).astype(np.int8)",
            "values = low + (codes + 128.5) * step  # what the codes stand for",
        ]
    else:
        found = "a query stays in float32, and the highest score is the nearest"
        found = found if floating else "compare by Hamming distance"
        how = f"Eight channels share a byte; {found}."
        lines += ["codes = np.packbits(vectors > 0, axis=1)"]
    if floating:
        lines += [f"signs = 2.0 * np.unpackbits(codes, axis=1, count={point.dim}) - 1",
                  f'scores = signs @ model.encode_query("{_ASKED}")']  # fmt: skip
    return f"```python\n{chr(10).join(lines)}\n```\n\n`codes` has {point.bytes} bytes a text. {how}"
