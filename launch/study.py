"""Compare methods on equal terms: methods x seeds x conditions of one YAML, with intervals.

    python launch/study.py [--study launch/studies/quickstart.yaml] [--output_dir DIR] [--jobs N]

Trains and judges each trial once (run again to go on with what is missing), then writes
study.md, figures.csv and report.html into the output directory, and logs them to MLflow.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from mipic_llm.config.read import run_main
from mipic_llm.errors import UserError

DEFAULT = Path(__file__).resolve().parent / "studies" / "quickstart.yaml"


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"launch/study.py: {message}; see --help")


def main(argv: list[str]) -> int:
    form = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="launch/study.py", description=__doc__, formatter_class=form)
    parser.add_argument("--study", type=Path, default=DEFAULT, help="the study's YAML")
    parser.add_argument("--output_dir", type=Path, help="default: outputs/study-<its name>")
    parser.add_argument("--jobs", type=int, default=1, help="trials at a time (default 1)")
    parser.add_argument("--mlflow", default="auto", help="auto = MLFLOW_TRACKING_URI, else sqlite "
                        "in the output directory; off; or a tracking URI")  # fmt: skip
    parser.add_argument("--report_only", action="store_true", help="tables of what is done so far")
    args = parser.parse_args(argv)
    if args.jobs < 1:
        raise UserError(f"--jobs is {args.jobs}; give 1 or more")
    from mipic_llm.study.conduct import conduct  # after the flags: --help must be quick

    return conduct(args.study, args.output_dir, jobs=args.jobs, mlflow=args.mlflow,
                   report_only=args.report_only)  # fmt: skip


if __name__ == "__main__":
    run_main(main)
