"""Evaluation of the live model before, during and after training; the best checkpoint.

Rows go to <output_dir>/scores.jsonl with stage before, during (and a step) or after; then the hook
`on_evaluation` is called. metrics.jsonl keeps to one row per training step.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from mipic_llm.config import nearest, parse_point
from mipic_llm.errors import UserError
from mipic_llm.evaluation.encode import encode, spread_over_ranks
from mipic_llm.evaluation.suite import PREFIX, run_suite
from mipic_llm.report.scores import read_scores, write_scores
from mipic_llm.runtime import checkpoint
from mipic_llm.runtime.ranks import say
from mipic_llm.training import setup
from mipic_llm.training.callbacks import emit, key_of
from mipic_llm.training.run import LiveRun, save
from mipic_llm.types import Best, Point, RunState, Score


class Evaluator:
    """Scores the run's validation tasks. All ranks call every method; rank 0 writes the file."""

    def __init__(self, run: LiveRun) -> None:
        self.run = run
        self.options = run.config.eval
        depth = run.source.config.num_hidden_layers
        self.layers, self.points = setup.eval_points(run.config, depth)
        self.some = self.points
        if self.options.points:
            self.some = _chosen(self.options.points, self.points)
        self.path = run.out / "scores.jsonl"
        self.folder = run.out / "best"

    def before(self) -> list[Score]:
        """Scores at all points; a resumed run keeps the figures of its first start."""
        if self.run.step > 0 and self.path.is_file():
            self._drop_after(self.run.step)
            return read_scores(self.path, stage="before")
        scores = self._score(self.points)
        if self.options.best:
            names = [key_of(s) for s in scores if s.point in self.some]
            if self.options.best not in names:
                raise UserError(
                    f"eval.best: {self.options.best!r} is not measured"
                    f"{nearest([self.options.best], names)}; there are: {', '.join(names[:6])} .."
                )
        self._keep(scores, "before")
        return scores

    def after(self) -> list[Score]:
        """Scores at all points, of the best checkpoint's weights where eval.best names a figure."""
        run, best = self.run, self.run.best
        if self.options.best and best is not None and best.step != run.step:
            checkpoint.load(self.folder / f"step-{best.step:08d}", run.engine, lora=run.lora)
            say(f"going on with step {best.step}, the best by {self.options.best}: "
                f"{best.value:.4f}")  # fmt: skip
        scores = self._score(self.points)
        self._keep(scores, "after")
        return scores

    def due(self) -> bool:
        """Whether eval.every asks for an evaluation after this step. `after` scores the last step,
        but for a comparison of checkpoints (eval.best) it counts too."""
        every, last = self.options.every, self.run.step == self.run.total
        if not every or (last and not self.options.best):
            return False
        return last or self.run.step % every == 0

    def during(self, state: Callable[[], RunState]) -> None:
        """Scores at the chosen points. If they are the best so far, the checkpoint `state()` is
        kept in <output_dir>/best."""
        run, scores = self.run, self._score(self.some)
        if self.options.best:
            value = {key_of(s): s.value for s in scores}[self.options.best]
            value = -math.inf if math.isnan(value) else value
            if run.best is None or value > run.best.value:
                run.best = Best(run.step, value, 0)
                kept = save(run, self.folder, state())
                for old in self.folder.iterdir() if run.rank == 0 else ():
                    if old != kept:
                        shutil.rmtree(old)
                emit(run, "on_save", kept)
            else:
                run.best = run.best._replace(worse=run.best.worse + 1)
        self._keep(scores, "during")

    def _score(self, points: list[Point]) -> list[Score]:
        run = self.run
        if not run.data.tasks:
            return []
        layers = sorted({p.layer for p in points})

        def vectors(texts: list[str], kind: str) -> torch.Tensor:
            return encode(run.engine, run.data.encoder, texts, layers,
                          batch_size=self.options.batch_size, kind=kind)  # fmt: skip

        return run_suite(run.data.tasks, vectors, layers=layers, points=points,
                         spread=spread_over_ranks)[PREFIX]  # fmt: skip

    def _keep(self, scores: list[Score], stage: str) -> None:
        step = self.run.step
        if not scores:
            return
        if self.run.rank == 0:
            mark = step if stage == "during" else None
            write_scores(self.path, scores, stage=stage, append=stage != "before", step=mark)
        emit(self.run, "on_evaluation", step, scores)

    def _drop_after(self, step: int) -> None:
        """Rows that the killed run wrote beyond the checkpoint; they will be written again."""
        if self.run.rank != 0:
            return
        lines = self.path.read_text("utf-8").splitlines(keepends=True)
        kept = [
            line for line in lines if line.endswith("\n") and _is_before(json.loads(line), step)
        ]
        temporary = Path(f"{self.path}.tmp")
        temporary.write_text("".join(kept), encoding="utf-8")
        temporary.replace(self.path)


def _is_before(row: dict, step: int) -> bool:
    return row.get("stage") == "before" or (row.get("stage") == "during" and row["step"] <= step)


def _chosen(items: list[str], known: list[Point]) -> list[Point]:
    """eval.points, each dim@layer; UserError for one that the table does not hold."""
    words = " ".join(items).replace(",", " ").split()
    points = [parse_point(word, "eval.points: ") for word in words]
    strangers = [str(p) for p in points if p not in known]
    if strangers:
        raise UserError(
            f"eval.points: {strangers[0]} is not among the points of this run: "
            f"{' '.join(map(str, known))}; every layer is there with --eval.every_layer true"
        )
    return list(dict.fromkeys(points))
