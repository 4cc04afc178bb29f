"""Evaluation of the live model before, during and after training; the best checkpoint.

Rows go to <output_dir>/scores.jsonl with stage before, during (and a step) or after; then the hook
`on_evaluation` is called. metrics.jsonl keeps to one row per training step.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import torch

from mipic_llm.config import Config, nearest, need, parse_ladder, parse_point
from mipic_llm.evaluation.encode import encode, spread_over_ranks
from mipic_llm.evaluation.suite import PREFIX, run_suite
from mipic_llm.report.scores import read_scores, rows_of, write_scores
from mipic_llm.runtime import checkpoint
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.ranks import say
from mipic_llm.training.callbacks import key_of
from mipic_llm.training.run import LiveRun
from mipic_llm.types import Best, Point, RunState, Score


def eval_points(config: Config, n_layers: int) -> list[Point]:
    """What is scored: the last layer at every dim, and the ladder; or every layer at every dim."""
    dims = config.objective.dims or []
    if config.eval.every_layer:
        return [Point(k, d) for k in range(1, n_layers + 1) for d in dims]
    ladder = parse_ladder(config.pic.ladder or [])
    return [Point(n_layers, d) for d in dims] + [p for p in ladder if p.layer != n_layers]


class Evaluator:
    """Scores the run's validation tasks. All ranks call every method; rank 0 writes the file."""

    def __init__(self, run: LiveRun) -> None:
        self.run, self.options = run, run.config.eval
        self.points = eval_points(run.config, run.source.config.num_hidden_layers)
        self.some = _chosen(self.options.points or [], self.points) or self.points
        self.path, self.folder = run.out / "scores.jsonl", run.out / "best"

    def before(self) -> list[Score]:
        """Scores at all points; a resumed run keeps the figures of its first start."""
        if self.run.step > 0 and self.path.is_file():
            self._drop_later_rows()
            return read_scores(self.path, stage="before")
        scores = self._score(self.points, "before")
        if best := self.options.best:
            names = [key_of(s) for s in scores if s.point in self.some]
            hint = f"{nearest([best], names)}; there are: {', '.join(names[:6])} .."
            need(best in names, f"eval.best: {best!r} is not measured{hint}")
        self._tell(scores)
        return scores

    def after(self) -> list[Score]:
        """Scores at all points, of the best checkpoint's weights where eval.best names a figure."""
        run, best = self.run, self.run.best
        if self.options.best and best is not None and best.step != run.step:
            checkpoint.load(self.folder / f"step-{best.step:08d}", run.engine, lora=run.lora)
            say(f"going on with step {best.step}, the best by {self.options.best}: "
                f"{best.value:.4f}")  # fmt: skip
        scores = self._score(self.points, "after")
        self._tell(scores)
        return scores

    def due(self) -> bool:
        """Whether eval.every asks for an evaluation after this step. `after` scores the last step,
        but for a comparison of checkpoints (eval.best) it counts too."""
        every, last = self.options.every, self.run.step == self.run.total
        return bool(every and (self.options.best if last else self.run.step % every == 0))

    def missing(self) -> bool:
        """Whether this step's evaluation is due and scores.jsonl has none."""
        if not self.due():
            return False
        there = self.run.rank == 0 and self.path.is_file() and any(
            row.get("stage") == "during" and row.get("step") == self.run.step
            for _, row in rows_of(self.path)
        )  # fmt: skip
        return not dist.from_first(there)

    def during(self, state: Callable[[], RunState]) -> None:
        """Scores at the chosen points. If they are the best so far, the checkpoint `state()` is
        kept in <output_dir>/best."""
        run, scores = self.run, self._score(self.some, "during")
        if self.options.best:
            run.finish()  # which decides what the best is
            value = {key_of(s): s.value for s in scores}[self.options.best]
            value = -math.inf if math.isnan(value) else value
            if run.best is None or value > run.best.value:
                was, run.best = run.best, Best(run.step, value, 0)

                def then(written: bool) -> None:
                    if not written:
                        run.best = was

                # An older one stays as long as a checkpoint speaks of it.
                also = run.saved_best and run.saved_best.step
                run.save(self.folder, state, keep=1, also=also, then=then)
            else:
                run.best = run.best._replace(worse=run.best.worse + 1)
        self._tell(scores)

    def _score(self, points: list[Point], stage: str) -> list[Score]:
        run, layers = self.run, sorted({p.layer for p in points})
        if not run.data.tasks:
            return []

        def vectors(texts: list[str], kind: str) -> torch.Tensor:
            return encode(run.engine, run.data.encoder, texts, layers,
                          batch_size=self.options.batch_size, kind=kind)  # fmt: skip

        scores = run_suite(run.data.tasks, vectors, layers=layers, points=points,
                           spread=spread_over_ranks)[PREFIX]  # fmt: skip
        try:
            if run.rank == 0:
                write_scores(self.path, scores, stage=stage, append=stage != "before",
                             step=run.step if stage == "during" else None)  # fmt: skip
        except OSError as error:
            say(f"warning: {self.path} was not written: {error.strerror}")
        return scores

    def _tell(self, scores: list[Score]) -> None:
        if scores:
            self.run.emit("on_evaluation", self.run.step, scores)

    def _drop_later_rows(self) -> None:
        """Those that the killed run wrote beyond the checkpoint; they will be written again."""
        if self.run.rank == 0:
            kept = [row for _, row in rows_of(self.path) if row.get("stage") == "before" or
                    (row.get("stage") == "during" and row["step"] <= self.run.step)]  # fmt: skip
            temporary = Path(f"{self.path}.tmp")
            temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
            temporary.replace(self.path)


def _chosen(items: list[str], known: list[Point]) -> list[Point]:
    """eval.points, each dim@layer; UserError for one that the table does not hold."""
    words = " ".join(items).replace(",", " ").split()
    points = [parse_point(word, "eval.points: ") for word in words]
    strangers = [str(p) for p in points if p not in known]
    need(
        not strangers,
        f"eval.points: {strangers and strangers[0]} is not among the points of this run: "
        f"{' '.join(map(str, known))}; every layer is there with --eval.every_layer true",
    )
    return list(dict.fromkeys(points))
