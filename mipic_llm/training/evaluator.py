"""Evaluation of the live model: before, during and after training; the best checkpoint; patience.

Rows go to <output_dir>/scores.jsonl with stage before, during (and a step) or after, and to
MLflow as `eval/<task>/<metric>@<layer>x<dim>`. metrics.jsonl keeps to one row per training step.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mipic_llm.config.fields import nearest
from mipic_llm.config.read import dump
from mipic_llm.config.schema import parse_ladder
from mipic_llm.errors import UserError
from mipic_llm.evaluation.encode import encode
from mipic_llm.evaluation.suite import PREFIX, run_suite
from mipic_llm.report.scores import read_scores, write_scores
from mipic_llm.runtime import checkpoint
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.ranks import say
from mipic_llm.training import setup
from mipic_llm.types import Best, Point, RunState, Score

if TYPE_CHECKING:
    from mipic_llm.training.loop import Run


def key_of(score: Score) -> str:
    """`<task>/<metric>@<layer>x<dim>`: what eval.best names."""
    return f"{score.task}/{score.metric}@{score.point.layer}x{score.point.dim}"


class Evaluator:
    """All ranks call every method; files and trackers are rank 0's."""

    def __init__(self, run: Run, best: Best | None) -> None:
        self.run, self.best = run, best
        self.options = run.config.eval
        depth = run.source.config.num_hidden_layers
        self.layers, self.points = setup.eval_points(run.config, depth)
        self.some = self.points
        if self.options.points:
            self.some = _chosen(self.options.points, self.points)
        self.path = run.out / "scores.jsonl"
        self.folder = run.out / "best"

    def before(self, step: int) -> list[Score]:
        """All points; a resumed run keeps the figures of its first start."""
        if step > 0 and self.path.is_file():
            self._drop_after(step)
            return read_scores(self.path, stage="before")
        scores = self._score(self.points)
        if self.options.best:
            names = [key_of(s) for s in scores if s.point in self.some]
            if self.options.best not in names:
                raise UserError(
                    f"eval.best: {self.options.best!r} is not measured"
                    f"{nearest([self.options.best], names)}; there are: {', '.join(names[:6])} .."
                )
        self._keep(scores, "before", step)
        return scores

    def after(self, step: int) -> list[Score]:
        """All points, on the best checkpoint's weights where eval.best asked for one."""
        if self.options.best and self.best is not None and self.best.step != step:
            path = self.folder / f"step-{self.best.step:08d}"
            checkpoint.load(path, self.run.engine, lora=self.run.config.lora.rank > 0)
            say(f"going on with step {self.best.step}, the best by {self.options.best}: "
                f"{self.best.value:.4f}")  # fmt: skip
        scores = self._score(self.points)
        self._keep(scores, "after", step)
        return scores

    def due(self, step: int) -> bool:
        """After this step, if eval.every says so; the last step's turn comes in `after`, but for a
        comparison of checkpoints it counts too."""
        every = self.options.every
        last = step == self.run.total
        return bool(every) and (step % every == 0 or last) and (not last or bool(self.options.best))

    def during(self, step: int, state: RunState) -> bool:
        """The chosen points; keeps the checkpoint if it is the best. -> whether to stop early."""
        scores = self._score(self.some)
        self._keep(scores, "during", step)
        if not self.options.best:
            return False
        value = {key_of(s): s.value for s in scores}[self.options.best]
        value = -math.inf if math.isnan(value) else value
        if self.best is None or value > self.best.value:
            self.best = Best(step, value, 0)
            self._save(state)
        else:
            self.best = self.best._replace(worse=self.best.worse + 1)
        patience = self.options.patience
        if patience and self.best.worse >= patience:
            say(f"stopping at step {step}: {self.options.best} was best at step {self.best.step} "
                f"and {self.best.worse} evaluations since were no better")  # fmt: skip
            return True
        return False

    def _save(self, state: RunState) -> None:
        run = self.run
        state = state._replace(best=self.best)
        lora = run.config.lora.rank > 0
        kept = checkpoint.save(self.folder, run.engine, state, dump(run.config), lora=lora)
        if dist.rank() == 0:
            for old in self.folder.iterdir():
                if old != kept:
                    shutil.rmtree(old)

    def _score(self, points: list[Point]) -> list[Score]:
        run = self.run
        if not run.data.tasks:
            return []
        layers = sorted({p.layer for p in points})

        def vectors(texts: list[str], kind: str) -> torch.Tensor:
            return encode(run.engine, run.data.encoder, texts, layers,
                          batch_size=self.options.batch_size)  # fmt: skip

        return run_suite(run.data.tasks, vectors, layers=layers, points=points)[PREFIX]

    def _keep(self, scores: list[Score], stage: str, step: int) -> None:
        if dist.rank() == 0 and scores:
            mark = step if stage == "during" else None
            write_scores(self.path, scores, stage=stage, append=stage != "before", step=mark)
            self.run.tracker.evaluation({f"eval/{key_of(s)}": s.value for s in scores}, step)

    def _drop_after(self, step: int) -> None:
        """Rows that the killed run wrote beyond the checkpoint; they will be written again."""
        import json

        if dist.rank() != 0:
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
    points = [p for item in items for p in parse_ladder([item])]
    strangers = [str(p) for p in points if p not in known]
    if strangers:
        raise UserError(
            f"eval.points: {strangers[0]} is not among the points of this run: "
            f"{' '.join(map(str, known))}; every layer is there with --eval.every_layer true"
        )
    return list(dict.fromkeys(points))
