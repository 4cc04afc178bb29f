"""Rows of training as evaluation tasks: does an anchor find its positives?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mipic_llm.config import need
from mipic_llm.data.read.cells import plain
from mipic_llm.data.read.labelled import ScoredPair
from mipic_llm.data.read.rows import TextSource
from mipic_llm.evaluation.tasks.base import StsTask, Task
from mipic_llm.evaluation.tasks.retrieval import METRICS, RetrievalTask


def task_of(
    name: str, source: TextSource, where: str, metrics: Sequence[str] = METRICS
) -> tuple[Task, str]:
    """Rows of training as a task: STS of scored pairs; else retrieval, where each anchor is to find
    its positives among those of all rows and the negatives. An anchor that stands among these too
    is no answer to itself.

    Rows without a positive, or whose positive is the anchor, ask nothing. UserError without rows.
    """
    examples = source.examples
    if source.scored is not None:
        pairs = [ScoredPair(e.anchor, e.positive or "", e.scores[0]) for e in examples]
        return StsTask(name, pairs), f"{name}: STS, {len(pairs):,} rows of {where}"
    asked = [e for e in examples if e.positive and plain(e.positive) != plain(e.anchor)]
    need(bool(asked), f"{where}: no row has a positive other than its anchor")
    documents = (text for e in asked for text in (e.positive, *e.negatives))
    corpus = {plain(text): text for text in documents if text}
    queries = {plain(e.anchor): e.anchor for e in asked}
    number = {text: f"{i:08}" for i, text in enumerate({**queries, **corpus})}  # one id a text
    qrels: dict[str, dict[str, float]] = {}
    for e in asked:
        qrels.setdefault(number[plain(e.anchor)], {})[number[plain(e.positive or "")]] = 1.0
    task = RetrievalTask(
        name, queries={number[k]: v for k, v in queries.items()},
        corpus={number[k]: v for k, v in corpus.items()}, qrels=qrels, metrics=metrics,
    )  # fmt: skip
    return task, (
        f"{name}: retrieval, {len(queries):,} questions of {where}, each among {len(corpus):,} "
        "answers"
    )


def held_out_tasks(sources: Sequence[TextSource]) -> tuple[list[Task], list[str]]:
    """A task per source of rows that were cut off the training data: held-out (held-out-NAME where
    there are several): STS of scored pairs, else retrieval."""
    some = [s for s in sources if s.examples and s.examples[0].positive is not None]
    names = ["held-out"] if len(some) == 1 else [
        f"held-out-{i + 1}-{re.sub(r'[^A-Za-z0-9_.]+', '-', Path(s.name).stem)}"
        for i, s in enumerate(some)
    ]  # fmt: skip
    read = [task_of(n, s, f"{s.name}, held out") for n, s in zip(names, some, strict=True)]
    return [task for task, _ in read], [line for _, line in read]
