"""scores.jsonl and metrics.jsonl: written and read. No model needed."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mipic_llm.disk import in_one_move
from mipic_llm.errors import UserError
from mipic_llm.report.tables import plain_table
from mipic_llm.types import Point, Score

# Families of vectors at a point. prefix: the first d channels of the readout. pca: the first d
# principal components of the whole readout, what a user gets without Matryoshka training. lens: an
# inner layer's readout mapped onto the last layer's, without training too.
PREFIX, PCA, LENS = "prefix", "pca", "lens"


def write_scores(
    path: str | Path, scores: Iterable[Score], stage: str | None = None, append: bool = False,
    readout: str | None = None, step: int | None = None, max_length: int | None = None,
) -> None:  # fmt: skip
    """One row {task, metric, layer, dim, value, n} per score, with bits where they are not 32,
    and stage, readout, step and max_length (tokens of a text that were read) if given.

    Replaces the file in one move, or adds to it with `append`.
    """
    path = Path(path)
    mark = {"stage": stage, "readout": readout, "step": None if step is None else int(step),
            "max_length": max_length}  # fmt: skip
    mark = {key: value for key, value in mark.items() if value is not None}
    text = ""
    for task, metric, point, value, n in scores:
        row = {"task": task, "metric": metric, "layer": int(point.layer), "dim": int(point.dim)}
        row |= {} if point.bits == 32 else {"bits": int(point.bits)}
        # NaN (constant scores have no rank correlation) is no JSON: null
        value = float(value) if math.isfinite(value) else None
        text += json.dumps({**row, "value": value, "n": int(n), **mark}) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    old = path.read_text("utf-8") if append and path.exists() else ""
    with in_one_move(path) as fresh:
        fresh.write_text(old + text, encoding="utf-8")


def read_scores(path: str | Path, stage: str | None = None) -> list[Score]:
    """The scores of a file (or of one `stage`) of the model's own vectors, without PCA's.

    Raises UserError for a file that is missing or a line that is no score.
    """
    return [score for family, score in read_families(path, stage) if family == PREFIX]


def read_families(path: str | Path, stage: str | None = None) -> list[tuple[str, Score]]:
    """(family, score) of every row; family: prefix, pca (post-hoc), or another route of
    evaluation/routes.py. See `read_scores`."""
    scores = []
    for number, row in rows_of(path):
        try:
            value = math.nan if row["value"] is None else float(row["value"])
            point = Point(int(row["layer"]), int(row["dim"]), int(row.get("bits", 32)))
            score = Score(str(row["task"]), str(row["metric"]), point, value, int(row["n"]))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(
                f"{path}: line {number}: not a score ({type(error).__name__}: {error}); expected "
                "keys task, metric, layer, dim, value, n"
            ) from None
        if stage in (None, row.get("stage")):
            scores.append((str(row.get("readout", PREFIX)), score))
    return scores


def before_and_after(path: str | Path) -> tuple[list[Score], list[Score]]:
    """The two stages of a run's file; rows without a stage (`mipic evaluate`) count as after."""
    before, after = (read_scores(path, stage) for stage in ("before", "after"))
    return (before, after) if before or after else ([], read_scores(path))


def rows_of(path: str | Path) -> list[tuple[int, dict[str, Any]]]:
    """Numbered rows of a JSON-lines file; a torn last line (killed run) is left out."""
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except FileNotFoundError:
        folder = Path(path).parent
        if (folder / "config.yaml").is_file():
            raise UserError(
                f"{folder} has no figures: it was made without validation data, or has not ended; "
                "score its model with mipic evaluate --model, or train with --data.validation"
            ) from None
        raise UserError(f"{path}: no such file; is this a run's output directory?") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break
            raise UserError(f"{path}: line {number}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}: line {number}: not a JSON object")
        rows.append((number, row))
    return rows


class Scores(list[Score]):
    """Figures of an evaluation: a list of Score that prints, and shows in a notebook, as a table.

    before: the same figures before training, where there are any.
    """

    def __init__(self, scores: Iterable[Score], before: Iterable[Score] = ()) -> None:
        super().__init__(scores)
        self.before = list(before)

    def rows(self) -> list[dict[str, Any]]:
        """One dict per score: task, metric, layer, dim, value, n; bits where some are not 32, and
        before if that is known."""
        old = {s[:3]: s.value for s in self.before}
        bits = any(s.point.bits != 32 for s in self)
        return [
            {"task": s.task, "metric": s.metric, "layer": s.point.layer, "dim": s.point.dim}
            | ({"bits": s.point.bits} if bits else {}) | {"value": s.value, "n": s.n}
            | ({"before": old.get(s[:3], math.nan)} if old else {})
            for s in self
        ]  # fmt: skip

    def to_pandas(self) -> Any:
        """`rows` as a pandas DataFrame (needs the package pandas)."""
        import pandas

        return pandas.DataFrame(self.rows())

    def _cells(self) -> list[list[str]]:
        rows = self.rows()
        shown = [[f"{v:.4f}" if isinstance(v, float) else str(v) for v in row.values()]
                 for row in rows]  # fmt: skip
        return [list(rows[0] if rows else ["no scores"]), *shown]

    def __repr__(self) -> str:
        return plain_table(self._cells())

    def _repr_html_(self) -> str:
        head, *body = [[html.escape(cell) for cell in row] for row in self._cells()]
        lines = [f"<th>{'</th><th>'.join(head)}</th>"]
        lines += [f"<td>{'</td><td>'.join(row)}</td>" for row in body]
        return f"<table><tr>{'</tr><tr>'.join(lines)}</tr></table>"
