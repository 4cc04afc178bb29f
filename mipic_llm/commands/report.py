"""mipic report"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mipic_llm.commands.run import Parser
from mipic_llm.types import Score

ABOUT = """Tables and plots of finished runs, from the files they left: no model, no GPU.

  mipic report RUN_DIR [RUN_DIR ...] [--output FILE.png]

Prints one table per run and writes quality.png and loss.png into each run directory. With
--output, the quality curves of all runs go into that one file instead."""


def main(argv: list[str]) -> None:
    parser = Parser("report", ABOUT)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR", help="a run's output_dir")
    parser.add_argument("--output", type=Path, metavar="FILE.png", help="one plot of all the runs")
    parser.add_argument("--markdown", action="store_true", help="tables in Markdown")
    args = parser.parse_args(argv)
    from mipic_llm import report

    curves: dict[str, Sequence[Score]] = {}
    for run in args.runs:
        old, new = report.read_run(run)
        found = report.compare_two(old, new)
        print(f"{run}\n\n{report.figures_table(found, markdown=args.markdown)}\n")
        for table in (report.index_of(run, markdown=args.markdown),
                      report.families_table(found.families, markdown=args.markdown)):  # fmt: skip
            if table:
                print(f"{table}\n")
        if found.whole.known:
            print("\n".join(found.verdict()) + "\n")
        if old.scores and not curves:
            curves[f"before ({run.name})"] = old.scores
        curves[run.name if run.name not in curves else str(run)] = new.scores
        if args.output is None:
            report.quality_plot(old.scores, new.scores, run / "quality.png")
            report.loss_plot(run / "metrics.jsonl", run / "loss.png")
            print(f"wrote {run / 'quality.png'} and {run / 'loss.png'}\n")
    if args.output is not None:
        report.comparison_plot(curves, args.output)
        print(f"wrote {args.output}")
