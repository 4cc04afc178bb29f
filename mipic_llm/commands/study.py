"""mipic study"""

from __future__ import annotations

from pathlib import Path

from mipic_llm.commands.run import Parser
from mipic_llm.errors import UserError

ABOUT = """Compare methods on equal terms: methods x seeds x conditions of one YAML, with intervals.

  mipic study [--study FILE or a shipped one's name] [--output_dir DIR] [--jobs N]

Trains and scores each trial once, then writes study.md, figures.csv and report.html into the
output directory, and logs them to MLflow. Run it again to go on with what is missing; a trial whose
settings, code or data changed is run again."""


def main(argv: list[str]) -> int:
    parser = Parser("study", ABOUT)
    parser.add_argument("--study", default="quickstart", help="the study's YAML, or the name of a "
                        "shipped one (default quickstart)")  # fmt: skip
    parser.add_argument("--output_dir", type=Path, help="default: outputs/study-<its name>")
    parser.add_argument("--jobs", type=int, default=1, help="trials at a time (default 1)")
    parser.add_argument("--mlflow", default="auto", help="auto = MLFLOW_TRACKING_URI, else "
                        "mlruns.db where you stand; off; or a tracking URI")  # fmt: skip
    parser.add_argument("--report_only", action="store_true", help="tables of what is done so far")
    parser.add_argument("--keep", action="store_true", help="finished trials count as done even if "
                        "code or data changed since; the tables say so")  # fmt: skip
    args = parser.parse_args(argv)
    if args.jobs < 1:
        raise UserError(f"--jobs is {args.jobs}; give 1 or more")
    from mipic_llm.study.conduct import conduct

    return conduct(args.study, args.output_dir, jobs=args.jobs, mlflow=args.mlflow,
                   report_only=args.report_only, keep=args.keep)  # fmt: skip
