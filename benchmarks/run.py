"""All speed and memory figures: `python benchmarks/run.py SUITE [--quick] [--plot]`.

Suites: sia, step, peers, gradcache, scaling, startup, save, stream, faults, profile, gpu; `plot`
draws the pictures of what benchmarks/results.csv holds. benchmarks/README.md explains every number.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder: its names are common
from benchmarks import harness, results  # noqa: E402
from mipic_llm.quiet import quiet  # noqa: E402

SUITES = (
    "sia",
    "step",
    "peers",
    "gradcache",
    "scaling",
    "startup",
    "save",
    "stream",
    "faults",
    "profile",
    "gpu",
)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suite", choices=[*SUITES, "plot"], help="what to measure, or plot")
    parser.add_argument("--quick", action="store_true",
                        help="tiny cases and few steps; nothing is written to the CSV")  # fmt: skip
    parser.add_argument("--plot", action="store_true", help="draw the suite's picture afterwards")
    parser.add_argument("--no-csv", action="store_true", help="print only")
    parser.add_argument("--data", metavar="FILE",
                        help="triplets of peers, gradcache (default: built-in)")  # fmt: skip
    parser.add_argument("--case", help="only this case of the suite")
    parser.add_argument("--runs", type=int, default=0, help="timed steps (0 = the suite's own)")
    parser.add_argument(
        "--rows",
        type=int,
        default=4096,
        help="gradcache: rows in every run; stream: rows of the file (10 million)",
    )
    parser.add_argument("--kills", type=int, default=60, help="faults: runs that are killed")
    parser.add_argument("--seed", type=int, default=0, help="faults: draws the moments")
    parser.add_argument("--threads", type=int, default=1, help="torch threads on a CPU (default 1)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    if args.suite == "plot":
        from benchmarks import plots

        for path in plots.draw_all(results.read_rows()):
            print(path.relative_to(harness.ROOT))
        return 0
    if args.data and not Path(args.data).is_file():
        raise SystemExit(f"--data: no file {args.data}")
    quiet()
    import torch

    torch.set_num_threads(args.threads)
    options = harness.Options(args.quick, args.data and str(Path(args.data).resolve()), args.case,
                              args.rows, args.runs, args.threads, args.kills,
                              args.seed)  # fmt: skip
    module = {"profile": "regions"}.get(args.suite, args.suite)  # profile is a standard module
    rows = importlib.import_module(f"benchmarks.{module}").run(options)
    print(results.table(rows))
    if not (args.no_csv or args.quick):
        results.append_rows(rows)
    if args.plot:
        from benchmarks import plots

        kept = [] if args.quick or args.no_csv else results.read_rows()
        shown = kept or [{n: str(r.get(n, "")) for n in results.HEADER} for r in rows]
        for path in plots.draw(args.suite, shown):
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
