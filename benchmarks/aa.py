"""A/A: how often does a study call a method better than itself? Every such verdict is false.

    python benchmarks/aa.py --out DIR [--runs 120] [--steps 20] [--seeds 3]

Trains and scores one method with seeds 1 .. RUNS on the quickstart's data, by the commands of a
study, and makes studies of a against b out of runs that no other of them has: the first SEEDS runs
are a, the next SEEDS are b, and so on. Intervals and verdicts are those of `mipic study`. What is
done stays in DIR/runs (scores.jsonl and rows.npz of each run); another start goes on. --shuffles N
judges N further times, with the runs dealt out in another order.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder: its names are common
from mipic_llm.commands.run import dispatch  # noqa: E402
from mipic_llm.quiet import quiet  # noqa: E402
from mipic_llm.report.tables import markdown_table  # noqa: E402
from mipic_llm.study.collect import Figure, Key, cells_of, read_figures  # noqa: E402
from mipic_llm.study.job import Job, read_done, write_mark  # noqa: E402
from mipic_llm.study.spec import Study, Trial, read_study  # noqa: E402
from mipic_llm.study.tables import main_cells  # noqa: E402

BLOCK = 20  # runs of one process: each leaves some 25 MB behind
EVALUATE = {"data": ["demo-families"], "layers": [3, 6], "dims": [16, 32, 64, 128, 256, 384]}
RATE = 1e-3  # five times that of LoRA: so few steps teach something, and seeds differ


def runs_of(n_runs: int, steps: int) -> Study:
    """The study whose trials are the runs: one method, n_runs seeds."""
    settings = {"data.validation": "none", "train.max_steps": steps, "train.batch_size": 16,
                "train.learning_rate": RATE, "data.max_length": 32, "export.rehearse": False,
                "tracking.mlflow": "off"}  # fmt: skip
    return read_study("quickstart")._replace(
        name="aa", settings=settings, methods={"mrl": {"objective.name": "mrl"}}, baseline="mrl",
        seeds=list(range(1, n_runs + 1)), evaluate=[EVALUATE], untrained=False, max_length=32,
    )  # fmt: skip


def missing(study: Study, out: Path) -> list[Trial]:
    """Trials that are not scored, or by another command."""
    found = []
    for trial in study.trials():
        job = Job(study, trial, out)
        done = read_done(job.folder)
        wanted = done is None or done.get("command") != job.command("train")[1:]
        if wanted or read_done(job.folder, "evaluate0") is None:
            found.append(trial)
    return found


def run_one(job: Job) -> None:
    """Train and score in this process, by the words of a study's commands; the model goes."""
    for step in job.steps():
        words, begun = job.command(step)[1:], time.monotonic()
        code = dispatch(words[2:])  # without -m mipic_llm
        if code:
            raise SystemExit(f"{job.trial}: {step} ended with code {code}")
        write_mark(job.folder, step, "done",
                   {"command": words, "seconds": round(time.monotonic() - begun, 1)})  # fmt: skip
    shutil.rmtree(job.folder / "train")


def train(study: Study, out: Path, words: Sequence[str]) -> None:
    """What is missing, BLOCK runs a process."""
    while left := missing(study, out):
        print(f"{len(left)} of {len(study.seeds)} runs left", flush=True)
        with (out / "log.txt").open("a") as log:
            code = subprocess.run([sys.executable, __file__, *words, "--block"], stdout=log,
                                  stderr=subprocess.STDOUT, check=False).returncode  # fmt: skip
        if code:
            raise SystemExit(f"a run ended with code {code}; see {out / 'log.txt'}")


Figures = dict[tuple, Figure]  # of one run, by (family, task, metric, point)
Verdicts = dict[Key, int]  # of one study: 1 where b is "better" than a, -1 "worse", 0 neither


def judge(a: Sequence[Figures], b: Sequence[Figures]) -> Verdicts:
    """What `mipic study` says of b against a, at the main metric of each task."""
    study = runs_of(len(a), 1)._replace(methods={"a": {}, "b": {}}, baseline="a")
    found: dict[Key, dict[int, Figure]] = {}
    for method, runs in (("a", a), ("b", b)):
        for seed, figures in enumerate(runs, 1):
            for place, figure in figures.items():
                found.setdefault(Key("all", method, *place), {})[seed] = figure
    cells = main_cells(study, cells_of(study, found))
    return {key: cell.gap.sign for key, cell in cells.items() if key.method == "b"}


def deal(runs: Sequence[Figures], seeds: int) -> Iterator[Verdicts]:
    """The verdict of each study, 2 x seeds runs each, none in two of them."""
    for start in range(0, len(runs) - 2 * seeds + 1, 2 * seeds):
        part = runs[start : start + 2 * seeds]
        yield judge(part[:seeds], part[seeds:])


def shares(studies: Sequence[Verdicts]) -> str:
    """How many points are better or worse (+- standard error, over studies), and how many studies
    have such a point at all: at all layers, and at the deepest, of which verdicts speak."""
    last, text = max(key.point.layer for key in studies[0]), []
    for where, deep in (("all layers", False), ("deepest layer", True)):
        keys = [key for key in studies[0] if key.point.layer == last or not deep]
        sign_SP = np.array([[study[key] for key in keys] for study in studies])
        for word, sign in (("better", 1), ("worse", -1)):
            part_S = 100 * (sign_SP == sign).mean(1)
            error = part_S.std(ddof=1) / len(part_S) ** 0.5
            text.append(f"{where}, {word}: {part_S.mean():.1f} +- {error:.1f} % of points, in "
                        f"{np.count_nonzero(part_S)} of {len(part_S)} studies")  # fmt: skip
    return "\n".join(text)


def table(studies: Sequence[Verdicts], runs: Sequence[Figures]) -> str:
    """In how many studies each point is better or worse, and how far runs lie apart there."""
    rows: dict[str, list[str]] = {}
    for key in sorted(studies[0], key=lambda key: (key.task, key.point)):
        signs = [study[key] for study in studies]
        spread = 100 * np.std([run[key[2:]].value for run in runs], ddof=1)
        row = rows.setdefault(f"{key.task}, {key.point.layer}", [])
        row.append(f"{signs.count(1)}/{signs.count(-1)} ({spread:.2f})")
    dims = map(str, sorted({key.point.dim for key in studies[0]}))
    lines = [["task, layer", *dims], *([name, *row] for name, row in rows.items())]
    return ("studies where b is better/worse (deviation of the runs, x 100)\n\n"
            f"{markdown_table(lines, '---')}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=120)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[3], help="of each of the two in a study"
    )
    parser.add_argument("--shuffles", type=int, default=0, help="further orders of the runs")
    parser.add_argument("--block", action="store_true", help="train some of the runs and end")
    args = parser.parse_args()
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    study = runs_of(args.runs, args.steps)
    if args.block:
        quiet()
        for trial in missing(study, out)[:BLOCK]:
            run_one(Job(study, trial, out))
        return
    train(study, out, sys.argv[1:])
    runs = [read_figures(Job(study, trial, out).folder / "scores0") for trial in study.trials()]
    rng = np.random.default_rng(0)
    for n_seeds in args.seeds:
        studies = list(deal(runs, n_seeds))
        print(f"\n{len(studies)} studies of {n_seeds} seeds a method\n\n{shares(studies)}\n")
        print(table(studies, runs), flush=True)
        for _ in range(args.shuffles):
            studies += deal([runs[i] for i in rng.permutation(len(runs))], n_seeds)
        if args.shuffles:
            print(f"\nwith other orders of the runs, {len(studies)} studies\n\n{shares(studies)}")


if __name__ == "__main__":
    main()
