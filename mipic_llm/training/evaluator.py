"""Evaluation of the live model before, during and after training; the best checkpoint.

Rows go to <output_dir>/scores.jsonl with stage before, during (and a step) or after, and what the
model said of each test row before and after to rows-before.npz and rows.npz; then the hook
`on_evaluation` is called. metrics.jsonl keeps to one row per training step.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import torch

from mipic_llm.config import Config, nearest, need, parse_ladder, parse_point
from mipic_llm.disk import in_one_move
from mipic_llm.evaluation.encode import encode, spread_over_ranks
from mipic_llm.evaluation.searches import OLD, same_index, searched
from mipic_llm.evaluation.suite import Rows, about, run_suite
from mipic_llm.evaluation.tasks.base import SYMMETRIC
from mipic_llm.report import ROWS, write_rows
from mipic_llm.report.scores import PREFIX, read_scores, rows_of, write_scores
from mipic_llm.report.tables import main_metrics
from mipic_llm.runtime import checkpoint
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.ranks import say
from mipic_llm.training.distinct import some_texts
from mipic_llm.training.run import LiveRun
from mipic_llm.types import Best, Point, RunState, Score

TEXTS_PER_COMPONENT = 4  # at least; with fewer, the axes are those of the texts themselves


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
        self.points = eval_points(run.config, run.source.n_layers)
        self.some = _chosen(self.options.points or [], self.points) or self.points
        self.path, self.folder = run.out / "scores.jsonl", run.out / "best"
        self._check_best()
        self.first: dict[tuple, float] = {}  # figures before training
        # With a teacher `base` a user may want to keep the index: vectors before training, of
        # queries and documents at the last layer, by kind.
        self.keeps = run.config.teacher.name == "base" and searched(run.data.tasks)
        self.old: dict[str, tuple[list[str], torch.Tensor]] = {}

    def before(self) -> list[Score]:
        """Scores at all points; a resumed run keeps the figures of its first start."""
        if self.run.step > 0 and dist.from_first(self.path.is_file()):
            self._drop_later_rows()
            scores = read_scores(self.path, stage="before") if self.run.rank == 0 else []
            scores = dist.from_first(scores)
            self.first = {s[:3]: s.value for s in scores}
            return scores
        if self.run.step and self.run.data.tasks:
            say(f"note: no figures from before the training are here: those of step "
                f"{self.run.step} stand for them")  # fmt: skip
        scores = self._score(self.points, "before")
        self.first = {s[:3]: s.value for s in scores}
        self._tell(scores)
        return scores

    def _check_best(self) -> None:
        """UserError where eval.best is no figure of these tasks at the points that are looked at
        during training."""
        if best := self.options.best:
            names = [f"{task.name}/{metric}@{p}" for task in self.run.data.tasks
                     for metric in task.metrics for p in self.some]  # fmt: skip
            hint = f"{nearest([best], names)}; there are: {', '.join(names[:6])} .."
            need(best in names, f"eval.best: {best!r} is not measured{hint}")

    def after(self) -> list[Score]:
        """Scores at all points, of the best checkpoint's weights where eval.best names a figure."""
        run, best = self.run, self.run.best
        if self.options.best and best is not None and best.step != run.step:
            checkpoint.load(self.folder / f"step-{best.step:08d}", run.engine, lora=run.lora)
            say(f"going on with step {best.step}, the best by {self.options.best}: "
                f"{best.value:.4f}")  # fmt: skip
        if self.keeps and not self.old:
            say("note: the run was resumed, so new queries were not scored on old documents; "
                f"`mipic evaluate --model {run.out / ('adapter' if run.lora else 'merged')} --old "
                f"{run.config.model.name} --data ..` does it")  # fmt: skip
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
        run, scores, words = self.run, self._score(self.some, "during"), ""
        if self.options.best:
            run.finish()  # which decides what the best is
            value = {s.name: s.value for s in scores}[self.options.best]
            value = -math.inf if math.isnan(value) else value
            if run.best is None or value > run.best.value:
                was, run.best = run.best, Best(run.step, value, 0)

                def then(written: bool) -> None:
                    if not written:
                        run.best = was

                # An older one stays as long as a checkpoint speaks of it.
                also = run.saved_best and run.saved_best.step
                run.save(self.folder, state, keep=1, also=also, then=then)
                words = f"; {self.options.best} {100 * value:.2f}, a new best"
            else:
                run.best = run.best._replace(worse=run.best.worse + 1)
                words = f"; {self.options.best} {100 * value:.2f}, the best is " \
                        f"{100 * run.best.value:.2f} of step {run.best.step}"  # fmt: skip
        say(f"step {run.step}: {self._brief(scores)}{words}")
        self._tell(scores)

    def _brief(self, scores: list[Score]) -> str:
        """The main figure of each task x 100, at the smallest and the largest size of the deepest
        layer, and its change since the start."""
        parts = []
        for task, metric in main_metrics(scores).items():
            mine = {s.point: s for s in scores if (s.task, s.metric) == (task, metric)}
            last = max(p.layer for p in mine)
            points = sorted(p for p in mine if p.layer == last)
            for s in (mine[p] for p in dict.fromkeys([points[0], points[-1]])):
                gap = 100 * (s.value - self.first.get(s[:3], math.nan))
                change = "" if math.isnan(gap) else f" ({gap:+.2f})"
                parts.append(f"{s.name} {100 * s.value:.2f}{change}")
        return ", ".join(parts[:8]) + " .." * (len(parts) > 8)

    def _score(self, points: list[Point], stage: str) -> list[Score]:
        run, layers = self.run, sorted({p.layer for p in points})
        if not run.data.tasks:
            return []

        def vectors(texts: list[str], kind: str) -> torch.Tensor:
            found_NLD = encode(run.engine, run.data.encoder, texts, layers,
                               batch_size=self.options.batch_size, kind=kind)  # fmt: skip
            if self.keeps and stage == "before" and kind != SYMMETRIC:
                self.old[kind] = texts, found_NLD[:, -1:].clone()
            return found_NLD

        def old(texts: list[str], kind: str) -> torch.Tensor:
            known, found_N1D = self.old[kind]
            assert texts == known, "the tasks of a run do not change"
            return found_N1D

        more, models = [], {}
        if self.old and stage == "after":
            more, models = same_index(layers[-1], layers[-1]), {OLD: (old, layers[-1:])}
        tasks, encoder, during = run.data.tasks, run.data.encoder, stage == "during"
        rows: Rows | None = None if during else {}
        fitted = self._pca_texts() if stage == "before" else []
        found = run_suite(tasks, vectors, layers=layers, points=points, rows=rows, more=more,
                          models=models, spread=spread_over_ranks, pca_texts=fitted,
                          pca_widest=len(fitted) // TEXTS_PER_COMPONENT)  # fmt: skip
        scores = found.pop(PREFIX)
        told = {"stage": stage, "max_length": encoder.max_length}
        try:
            if run.rank == 0:
                write_scores(self.path, scores, append=stage != "before",
                             step=run.step if during else None, **told)  # fmt: skip
                for family, some in found.items():
                    write_scores(self.path, some, append=True, readout=family, **told)
                if rows is not None:
                    facts = about(tasks, encoder, run.config.model.name)
                    write_rows(run.out / ROWS[stage], rows, facts)
        except OSError as error:
            say(f"warning: {self.path} was not written: {error.strerror}")
        return scores

    def _pca_texts(self) -> list[str]:
        """Training texts that the untrained model's principal components are fitted on. None where
        they are too few for the smallest size, and where training begins turned onto such axes."""
        run, most = self.run, self.options.pca
        if not most or run.config.model.rotate != "none" or not run.data.tasks:
            return []
        scored = sum(len(set(texts)) for t in run.data.tasks for texts in t.texts().values())
        texts = some_texts(run.data.sources, min(most, scored))
        enough = len(texts) >= TEXTS_PER_COMPONENT * min(p.dim for p in self.points)
        return texts if enough else []

    def _tell(self, scores: list[Score]) -> None:
        if scores:
            self.run.emit("on_evaluation", self.run.step, scores)

    def _drop_later_rows(self) -> None:
        """Those that the killed run wrote beyond the checkpoint; they will be written again."""
        if self.run.rank == 0:
            kept = [row for _, row in rows_of(self.path) if row.get("stage") == "before" or
                    (row.get("stage") == "during" and row["step"] <= self.run.step)]  # fmt: skip
            try:
                with in_one_move(self.path) as fresh:
                    fresh.write_text("".join(json.dumps(row) + "\n" for row in kept), "utf-8")
            except OSError as error:
                say(f"warning: {self.path} keeps rows of steps that are made again: "
                    f"{error.strerror}")  # fmt: skip


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
