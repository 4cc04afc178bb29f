"""New queries against the document vectors that an old model left: may an index stay?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from mipic_llm.report.evaluations import read_rows
from mipic_llm.report.paired import gap_of
from mipic_llm.report.scores import PREFIX, read_families
from mipic_llm.report.tables import markdown_table, plain_table
from mipic_llm.types import TURNED, Point, Score

OLD_ON_OLD, NEW_ON_OLD = "old queries on old documents", "new queries on old documents"
_INDEX = ("ndcg@10", "recall@10")


def index_of(run: Path, *, markdown: bool = False) -> str:
    """`index_table` of a training run that scored it, old being the model before training; empty
    for others. Raises UserError for files that cannot be read."""
    scores: dict[str, list[Score]] = {}
    for family, score in read_families(run / "scores.jsonl", "after"):
        scores.setdefault(family, []).append(score)
    if OLD_ON_OLD not in scores:
        return ""
    rows, _ = read_rows(run, "after")
    title = "May an index stay when the model changes? Old: the model before training"
    if (run / TURNED).is_dir():
        title += f", turned (an index of the base itself must be turned by {TURNED}/ first)"
    table = index_table(scores, rows or None, markdown=markdown)
    return f"**{title}**\n\n{table}" if markdown else f"{title}\n\n{table}"


def index_table(
    scores: Mapping[str, Iterable[Score]], rows: Mapping | None, *, markdown: bool = False
) -> str:  # fmt: skip
    """New queries against an old index, dims across; with rows, the 95 % intervals of what the new
    queries gain there over the old ones."""
    known = {(f, s.task, s.metric, s.point): s.value for f, many in scores.items() for s in many}
    blocks = []
    places = [key[1:] for key in known if key[0] == OLD_ON_OLD and key[3].bits == 32]
    for task in dict.fromkeys(task for task, _, _ in places):
        metrics = list(dict.fromkeys(m for t, m, _ in places if t == task))
        for metric in [m for m in _INDEX if m in metrics] or metrics[:1]:
            points: list[Point] = sorted(p for t, m, p in places if (t, m) == (task, metric))
            lines = [["x 100", *(str(p.dim) for p in points)]]
            for words, family in ((OLD_ON_OLD, OLD_ON_OLD), (NEW_ON_OLD, NEW_ON_OLD),
                                  ("new queries on new documents", PREFIX)):  # fmt: skip
                values = [known[family, task, metric, p] for p in points]
                lines.append([words, *(f"{100 * v:.2f}" for v in values)])
            if rows is not None:
                spans = [gap_of(rows, task, metric, (OLD_ON_OLD, p), (NEW_ON_OLD, p))
                         for p in points]  # fmt: skip
                lines.append(["new minus old queries, old documents", *map(str, spans)])
            title = f"{task}: {metric}, layer {points[0].layer}"
            blocks.append(f"{title}\n\n{markdown_table(lines, ':---')}" if markdown
                          else f"{title}\n{plain_table(lines)}")  # fmt: skip
    return "\n\n".join(blocks)
