"""What mining leaves: rows for training, a report, and what they were made with."""

from __future__ import annotations

import json
import operator
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from mipic_llm.config import Config
from mipic_llm.disk import in_one_move
from mipic_llm.errors import masked
from mipic_llm.mining.settings import USES
from mipic_llm.mining.texts import Table
from mipic_llm.runtime.ranks import say
from mipic_llm.tracking.environment import environment

_QUANTILES = (0, 5, 25, 50, 75, 95, 100)


class Mined(NamedTuple):
    """What a row got, by the table's numbers. pair: its positive and that one's score."""

    row: int
    pair: tuple[int, float]
    negatives: list[int]
    scores: list[float]


def beside(path: Path) -> tuple[Path, Path]:
    """The report, and the record of settings and models."""
    return path.with_suffix(".md"), path.with_suffix(".yaml")


def write(
    config: Config, path: Path, table: Table, found: Sequence[Mined], counts: Counter,
    models: Sequence[dict[str, str]],
) -> str | None:  # fmt: skip
    """Write the rows (whole or not at all), report and record; print the report. -> what is wrong,
    for the user, where nothing could be written."""
    settings, (report_path, record_path), n = config.extra.mine, beside(path), len(found)
    if table.symmetric:  # of pairs found both ways round, the first
        pairs: dict[frozenset, Mined] = {}
        for m in found:
            pairs.setdefault(frozenset((int(table.own_Q[table.query_R[m.row]]), m.pair[0])), m)
        found = list(pairs.values())
        counts["pair found the other way round too"] = n - len(found)
    rows = [m for m in found if settings.short == "keep" or len(m.negatives) == settings.negatives]
    if not rows or not (settings.positives or any(m.negatives for m in rows)):
        why = "; ".join(f"{reason} {n:,}" for reason, n in counts.items() if n) or "no other texts"
        return (f"nothing was mined: {n:,} of {len(table.rows):,} rows have a positive, and {why}; "
                "loosen --mine.range and the limits")  # fmt: skip
    text = report(config, path, table, found, rows, counts, models)
    record = {
        "environment": environment(), "models": list(models), "mine": settings.model_dump(),
        "options": {key: operator.attrgetter(key)(config) for key in USES if key != "data.sources"}
        | {"data.train": config.training_files},
    }  # fmt: skip
    said = masked(yaml.safe_dump(record, sort_keys=False, allow_unicode=True))
    made = [_written(table, m) for m in rows]
    try:
        with in_one_move(report_path) as fresh:
            fresh.write_text(text, encoding="utf-8")
        with in_one_move(record_path) as fresh:
            fresh.write_text(said, encoding="utf-8")
        with in_one_move(path) as fresh:
            _rows(fresh, made, path.suffix == ".parquet")
    except OSError as error:
        return f"mine.output: cannot write {path}: {error.strerror or error}"
    say(f"\n{text}\nrows: {path}; this report: {report_path}; settings: {record_path}")
    return None


def _written(table: Table, m: Mined) -> dict[str, Any]:
    row, (positive, score) = table.rows[m.row], m.pair
    return {
        "anchor": row.anchor, "positive": row.positive or table.documents[positive],
        "negatives": [table.documents[d] for d in m.negatives],
        "pos_scores": round(score, 6), "neg_scores": [round(score, 6) for score in m.scores],
    }  # fmt: skip


def _rows(path: Path, rows: list[dict[str, Any]], parquet: bool) -> None:
    if parquet:
        import pyarrow
        import pyarrow.parquet

        text, number = pyarrow.string(), pyarrow.float64()
        kinds = (text, text, pyarrow.list_(text), number, pyarrow.list_(number))
        schema = pyarrow.schema(zip(rows[0], kinds, strict=True))
        return pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema), path)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def report(
    config: Config, path: Path, table: Table, found: Sequence[Mined], kept: Sequence[Mined],
    counts: Counter, models: Sequence[dict[str, str]],
) -> str:  # fmt: skip
    """What was mined, what was left out and why, scores, and ten examples, in Markdown."""
    settings = config.extra.mine
    sizes = Counter(len(m.negatives) for m in found)
    full, bare = sizes.pop(settings.negatives, 0), len(table.rows) - len(found)
    fewer = ", ".join(f"{n:,} got {size}" for size, n in sorted(sizes.items(), reverse=True))
    fate = "kept with what they have" if settings.short == "keep" else "left out"
    quantiles = [
        (name, [f"{x:.3f}" for x in np.percentile(scores, _QUANTILES)])
        for name, scores in (
            ("positives", [m.pair[1] for m in kept]),
            ("negatives", [score for m in kept for score in m.scores]),
            ("negative - positive", [score - m.pair[1] for m in kept for score in m.scores]),
        )
        if scores
    ]
    lines = [
        f"# Mined: {path.name}", "",
        *(f"- {about.get('vectors') or about['scores']}" for about in models),
        f"- {len(table.queries):,} queries in {len(table.rows):,} rows, {table.n_candidates:,} "
        f"candidates; range {settings.range}, sampling {settings.sampling}, seed {config.seed}",
        "", f"{len(kept):,} rows written; {full:,} got {settings.negatives} negatives.",
        *([f"Fewer: {fewer}; they are {fate}."] if fewer else []),
        *([f"{bare:,} texts give no row: no other text's score is in {settings.positives}, or the "
           "pair is there already."] if bare else []),
        "", "| candidates left out | how many |", "|---|---|",
        *(f"| {reason} | {n:,} |" for reason, n in counts.items() if n),
        "", f"| scores | {' | '.join(f'{q} %' for q in _QUANTILES)} |",
        "|---" * (len(_QUANTILES) + 1) + "|",
        *(f"| {name} | {' | '.join(values)} |" for name, values in quantiles),
        "", "Examples:", "",
    ]  # fmt: skip
    for m in [kept[i * len(kept) // 10] for i in range(min(10, len(kept)))]:
        row = _written(table, m)
        lines += [f"- {_short(row['anchor'])}", *(
            f"  - {side} {score:.3f}: {_short(text)}" for side, score, text in
            [("positive", m.pair[1], row["positive"])] +
            [("negative", s, t) for s, t in zip(m.scores, row["negatives"], strict=True)]
        )]  # fmt: skip
    return "\n".join(lines) + "\n"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 90 else f"{text[:87]}..."
