"""Evaluation tasks: they name their texts, and score readouts at every point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from mipic_llm.evaluation.metrics import spearman
from mipic_llm.types import Point, Score

Encode = Callable[[list[str]], Tensor]  # texts -> (N, L, D) readouts, float32, on CPU


class StsTask:
    """Semantic textual similarity: Spearman of cosine with human scores (METHOD: protocol)."""

    def __init__(self, name: str, pairs: Sequence) -> None:
        self.name = name
        self.pairs = pairs

    def texts(self) -> list[str]:
        """Each distinct text once, in first-seen order."""
        both = (t for p in self.pairs for t in (p.sentence1, p.sentence2))
        return list(dict.fromkeys(both))

    def scores(
        self,
        readout_NLD: Tensor,
        row: dict[str, int],
        layers: Sequence[int],
        points: Sequence[Point],
    ) -> list[Score]:
        """row: text -> its row of readout_NLD; layers: the captured layers, in order."""
        gold = np.array([p.score for p in self.pairs], dtype=np.float64)
        left = [row[p.sentence1] for p in self.pairs]
        right = [row[p.sentence2] for p in self.pairs]
        found = []
        for point in points:
            cut_Nd = readout_NLD[:, layers.index(point.layer), : point.dim].double().numpy()
            a, b = cut_Nd[left], cut_Nd[right]
            norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
            cosine = (a * b).sum(1) / np.maximum(norms, 1e-12)
            value = spearman(cosine, gold)
            found.append(Score(self.name, "spearman", point, value, len(self.pairs)))
        return found


def load_tasks(specs: Sequence[str]) -> list[StsTask]:
    """STS files by path ('demo' = the built-in pairs); named after the file, then its folder."""
    from mipic_llm.data.formats import read_scored_pairs

    stems = [Path(s).name.split(".")[0] for s in specs]
    tasks = []
    for spec, stem in zip(specs, stems, strict=True):
        generic = stem in ("train", "validation", "test", "dev") or stems.count(stem) > 1
        folder = Path(spec).resolve().parent.name
        tasks.append(StsTask(f"{folder}-{stem}" if generic else stem, read_scored_pairs(spec)[0]))
    return tasks


def run_tasks(
    tasks: Sequence[StsTask], encode: Encode, layers: Sequence[int], points: Sequence[Point]
) -> list[Score]:
    """All scores of all tasks; the union of their texts is encoded once."""
    texts = list(dict.fromkeys(t for task in tasks for t in task.texts()))
    if not texts:
        return []
    readout_NLD = encode(texts)
    row = {text: i for i, text in enumerate(texts)}
    return [s for task in tasks for s in task.scores(readout_NLD, row, layers, points)]
