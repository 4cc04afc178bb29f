"""Table and plots of finished runs, from the files they left: no model, no GPU.

    python launch/report.py RUN_DIR [RUN_DIR ...] [--output FILE.png]

Prints one table per run and writes quality.png and loss.png into each run directory. With
--output, the quality curves of all the runs go into that one file instead.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from mipic_llm import report
from mipic_llm.config.read import run_main
from mipic_llm.errors import UserError


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"launch/report.py: {message}; see --help")


def main(argv: list[str]) -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="launch/report.py", description=__doc__, formatter_class=form)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR", help="a run's output_dir")
    parser.add_argument("--output", type=Path, metavar="FILE.png", help="one plot of all the runs")
    parser.add_argument("--markdown", action="store_true", help="tables in Markdown")
    args = parser.parse_args(argv)
    curves: dict[str, list[report.Score]] = {}
    for run in args.runs:
        before, after = report.before_and_after(run / "scores.jsonl")
        layer = max((s.point.layer for s in [*before, *after]), default=0)
        print(f"{run}\n")
        table = report.before_after_table(before, after, layer=layer, markdown=args.markdown)
        print(table + "\n")
        curves |= {f"before ({run.name})": before} if not curves and before else {}
        curves[run.name if run.name not in curves else str(run)] = after
        if args.output is None:
            report.quality_plot(before, after, run / "quality.png")
            report.loss_plot(run / "metrics.jsonl", run / "loss.png")
            print(f"wrote {run / 'quality.png'} and {run / 'loss.png'}\n")
    if args.output is not None:
        report.comparison_plot(curves, args.output)
        print(f"wrote {args.output}")


if __name__ == "__main__":
    sys.exit(run_main(main))
