"""Principal components of the untrained model against the trained one: was training worth it?"""

from __future__ import annotations

from pathlib import Path

from mipic_llm.report.evaluations import Evaluation, read_evaluation, read_rows
from mipic_llm.report.paired import compare_two
from mipic_llm.report.scores import PCA, PREFIX, read_families


def principal_line(run: Path) -> str:
    """Where a finished training is worse, by more than chance, than principal components of the
    model before it; empty where it is nowhere, or they were not scored. UserError for files that
    cannot be read."""
    scores = [s for family, s in read_families(run / "scores.jsonl", "before") if family == PCA]
    if not scores:
        return ""
    rows, about = read_rows(run, "before")
    kept = {("gold", s.task): rows["gold", s.task] for s in scores if ("gold", s.task) in rows}
    for task, metric, point, *_ in scores:
        if (said := (PCA, task, metric, *point.place)) in rows:
            kept[(PREFIX, *said[1:])] = rows[said]
    known = {s[:3] for s in scores}
    after = read_evaluation(run, "after", "after")
    after = after._replace(scores=[s for s in after.scores if s[:3] in known])
    found = compare_two(Evaluation(PCA, scores, kept, about), after)
    mains = found.mains()
    worse = [d for d in mains if d.span.sign < 0]
    if not worse:
        return ""
    most = min(worse, key=lambda d: d.span.gap)
    return (
        f"note: at {len(worse)} of {len(mains)} sizes the trained model is worse than principal "
        f"components of the untrained one, most at {most.name}: "
        f"{100 * most.new:.2f} against {100 * most.old:.2f}, {most.span}; a training begins with "
        "those axes with --model.rotate centred"
    )
