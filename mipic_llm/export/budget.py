"""`mipic export --bytes`: which dim, stored with how many bits, fits a number of bytes best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from mipic_llm.config import Config, need
from mipic_llm.data.tokenise import TextEncoder
from mipic_llm.evaluation.bits import Quantiser
from mipic_llm.evaluation.fitting import texts_for_pca
from mipic_llm.evaluation.read import load_tasks
from mipic_llm.evaluation.suite import Rows, run_suite
from mipic_llm.evaluation.tasks.base import SYMMETRIC, Task
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
_PRECISION = {8: "int8", 1: "ubinary"}  # sentence-transformers' words


class Fit(NamedTuple):
    """The best point, how its vectors are stored, and on what texts that was fitted."""

    point: Point
    range_2d: Tensor
    fitted_on: str
    notes: list[str]

    def write(self, folder: Path) -> None:
        """quantization.json: what an index must know."""
        write_json(folder / FILE, {
            "bits": self.point.bits, "precision": _PRECISION.get(self.point.bits, "float32"),
            "dim": self.point.dim, "bytes": self.point.bytes, "fitted_on": self.fitted_on,
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
    texts = texts_for_pca(training, _TEXTS, "ranges of int8", config.data)
    if not texts:
        every = [t for task in tasks for some in task.texts().values() for t in some]
        texts = every[:: -(-len(every) // _TEXTS)]
    fitted_on = f"{len(texts):,} texts of " + ("the training data" if training else "the tasks")

    def vectors(some: list[str], kind: str) -> Tensor:
        return read_texts(backbone, encoder, some, kind)[:, None]

    rows: Rows = {}
    points = list(dict.fromkeys([whole, *small]))
    scores = run_suite(tasks, vectors, layers=[last], points=points, bits_texts=texts, rows=rows)
    found = scores[PREFIX]
    mains = main_metrics(found)
    means = {
        p: float(np.mean([s.value for s in found if (s.point, s.metric) == (p, mains[s.task])]))
        for p in points
    }
    known = [p for p in small if math.isfinite(means[p])]  # of equal signs alone there is none
    need(bool(known), f"bytes: no size of at most {most} bytes has a figure on every task; give "
         "other --data, or more bytes")  # fmt: skip
    best = max(known, key=lambda p: (means[p], -p.bytes))
    spans = {p: _span(rows, tasks, mains, whole, p) for p in known}
    table = [["stored as", "bytes", "mean x 100", f"less {whole.dim} float32", "95 % interval"]]
    for p in sorted(known, key=lambda p: -means[p]):
        gap = f"{100 * (means[p] - means[whole]):+.2f}"
        table.append([p.size, f"{p.bytes}", f"{100 * means[p]:.2f}", gap, spans[p]])
    what = ", ".join(f"{metric} of {task}" for task, metric in mains.items())
    say(f"\n{what}; {whole.dim} float32, {whole.bytes:,} bytes: {100 * means[whole]:.2f}\n"
        f"{plain_table(table)}\n")  # fmt: skip
    cost = (f"{100 * means[best]:.2f}, {100 * (means[best] - means[whole]):+.2f} {spans[best]} "
            f"against {whole.dim} float32 in {whole.bytes:,} bytes")  # fmt: skip
    note = (
        f"## In {most} bytes\n\nChosen among the sizes of at most {most} bytes a vector: "
        f"{best.size}, {best.bytes} bytes. Mean of {what}, x 100: {cost} (95 % interval, paired "
        "over the rows). It was chosen on these rows, so the figure is a little too good."
    )
    ranges = read_texts(backbone, encoder, texts, SYMMETRIC)[:, : best.dim]
    say(f"bytes: {best.size} in {best.bytes} bytes: {cost}; chosen on these very rows")
    return Fit(best, Quantiser.fit(ranges).range_2d, fitted_on, [note, _usage(best)])


def _span(
    rows: Rows, tasks: Sequence[Task], mains: dict[str, str], whole: Point, point: Point
) -> str:
    """The interval of the mean difference over tasks from the whole vector, x 100."""
    gaps: list[Any] = []
    for task in tasks:
        metric, gold = mains[task.name], rows.get(("gold", task.name))
        one, two = (rows[PREFIX, task.name, metric, *p.place] for p in (whole, point))
        gaps.append(resampled(metric, two, gold) - resampled(metric, one, gold))
    low, high = middle(np.mean(gaps, axis=0))
    return f"[{100 * low:+.2f}, {100 * high:+.2f}]"


def _usage(point: Point) -> str:
    """Python for the card: the codes that an index stores."""
    if point.bits == 32:
        return "It is stored as it is, in float32."
    ranges = point.bits == 8
    lines = [
        *(["import json", "", "import numpy as np"] if ranges else []),
        "from sentence_transformers import SentenceTransformer",
        "from sentence_transformers.util import quantize_embeddings", "",
        f'model = SentenceTransformer("{PATH}")',
        *([f'ranges = np.array(json.load(open("{PATH}/{FILE}"))["ranges"])'] if ranges else []),
        'vectors = model.encode(["Open the settings."], normalize_embeddings=True)',
        f'codes = quantize_embeddings(vectors, precision="{_PRECISION[point.bits]}"'
        + (", ranges=ranges)" if ranges else ")"),
    ]  # fmt: skip
    told = "" if ranges else " Eight channels share a byte; compare by Hamming distance."
    return f"```python\n{chr(10).join(lines)}\n```\n\n`codes` has {point.bytes} bytes a text.{told}"
