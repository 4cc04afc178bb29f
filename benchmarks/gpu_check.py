"""Is this trainer right and fast on this machine's GPU? One command, a time budget.

    python benchmarks/gpu_check.py --budget 540 --out DIR [--only PART ...] [--dry]

Parts run in order of importance, each in a process of its own with a time limit: first what must be
right (several at once), then what must be fast (alone). A part's rows are written as soon as they
are known, so that a part that breaks, hangs or is cut off costs only what is left of it. Without a
GPU, or with --dry, everything runs on tiny shapes: that shows that the check works, nothing more.

DIR gets rows.jsonl (one result a line), log.txt (what the parts printed) and profile.txt. Nothing
is needed from the network: gpu_wheels.sh collects what such a machine lacks. Exit code 1 where a
row says `ok: false` or a part did not end.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # not this folder: its names are common
AT_ONCE = 4  # parts of the first kind beside each other


class Part(NamedTuple):
    """name: a generator of rows in gpu_kernels.py, gpu_parts.py, gpu_runs.py or gpu_fast.py.
    limit: seconds on a GPU. alone: it is timed."""

    name: str
    limit: int
    alone: bool = False


PARTS = [
    Part("kernels", 120), Part("attention", 120), Part("objectives", 150), Part("chunks", 120),
    Part("stages", 240), Part("syncs", 120), Part("resume", 240), Part("fused", 150),
    Part("offload", 240), Part("losses", 120),
    Part("machine", 60, True), Part("qwen3_lora", 80, True), Part("qwen3_full", 80, True),
    Part("bge", 120, True), Part("peers", 120, True), Part("shapes", 80, True),
    Part("faster", 200, True),
]  # fmt: skip


class Writer:
    """Appends rows to rows.jsonl, one write each, and prints them."""

    def __init__(self, out: Path, part: str, dry: bool, commit: str) -> None:
        from benchmarks.harness import machine

        self.path, self.began = out / "rows.jsonl", time.monotonic()
        self.common = {"part": part, "dry_run": dry, "device": machine(), "commit": commit}

    def __call__(self, case: str, **fields: object) -> None:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        row = self.common | {"case": case} | fields
        row |= {"after_s": round(time.monotonic() - self.began, 1), "date": now}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, default=str) + "\n")
        print(line(row), flush=True)


def line(row: dict) -> str:
    """A row for people."""
    verdict = {True: "ok  ", False: "FAIL", None: "    "}[row.get("ok")]
    hidden = {"part", "case", "ok", "device", "commit", "dry_run", "date", "after_s", "traceback"}
    rest = "  ".join(f"{k} {_short(v)}" for k, v in row.items() if k not in hidden)
    return f"{verdict} {row['part']}: {row['case']}  {rest}"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def run_part(name: str, out: Path, dry: bool, commit: str) -> int:
    """In the part's own process: its rows, or one that says why it ended."""
    from mipic_llm.quiet import quiet

    quiet()
    from benchmarks import gpu_fast, gpu_kernels, gpu_parts, gpu_runs

    write = Writer(out, name, dry, commit)
    found = next(m for m in (gpu_kernels, gpu_parts, gpu_runs, gpu_fast) if hasattr(m, name))
    try:
        with tempfile.TemporaryDirectory() as folder:
            for case, fields in getattr(found, name)(gpu_parts.Run(dry, Path(folder), out)):
                write(case, **fields)
    except BaseException as error:
        write("the part itself", ok=False, note=f"{type(error).__name__}: {str(error)[:1500]}",
              traceback=traceback.format_exc()[-4000:].replace(f"{ROOT}/", ""))  # fmt: skip
        traceback.print_exc()
        return 1
    return 0


def start_part(part: Part, args: argparse.Namespace, deadline: float, dry: bool) -> str:
    """Run a part to its end or its limit; its output goes to log.txt. -> how it ended."""
    out, left = Path(args.out), deadline - time.monotonic()
    limit = min(part.limit * (3 if dry else 1), left)
    if limit < 10:
        return "not run: out of time"
    command = [sys.executable, str(Path(__file__).resolve()), "--part", part.name,
               "--out", args.out, "--commit", args.commit, *(["--dry"] if dry else [])]  # fmt: skip
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PYTHONUNBUFFERED": "1",
    }
    if not part.alone:
        env["OMP_NUM_THREADS"] = "1" if dry else "2"
    began, how = time.monotonic(), "ended"
    with tempfile.TemporaryFile("w+") as log:
        child = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            if child.wait(limit):
                how = f"exit code {child.returncode}"
        except subprocess.TimeoutExpired:
            how = f"cut off after {limit:.0f} s"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # also what the part left running
        child.wait()
        log.seek(0)
        text = log.read()
    how += f" ({time.monotonic() - began:.0f} s)"
    with (out / "log.txt").open("a", encoding="utf-8") as file:
        file.write(f"======== {part.name}: {how}\n{text[-400_000:]}\n")
    results = [t for t in text.splitlines() if t[:5].strip() in ("ok", "FAIL") or t[:5] == "     "]
    print("\n".join([f"-- {part.name}: {how}", *results]), flush=True)
    return how


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", type=float, default=540, help="seconds for all of it")
    parser.add_argument("--out", required=True, help="folder of rows.jsonl, log.txt, profile.txt")
    parser.add_argument("--only", nargs="+", metavar="PART", choices=[p.name for p in PARTS],
                        help="these parts")  # fmt: skip
    parser.add_argument("--dry", action="store_true", help="tiny shapes, even on a GPU")
    parser.add_argument("--commit", default="", help="what to write as commit (default: git's)")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    args = parser.parse_args()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    if args.part:
        return run_part(args.part, out, args.dry, args.commit)
    import torch

    from benchmarks.harness import commit_id, machine

    deadline = time.monotonic() + args.budget
    args.commit = args.commit or commit_id()
    dry = args.dry or not torch.cuda.is_available()
    what = ": DRY RUN on tiny shapes, its times mean nothing" if dry else ""
    print(f"{machine()}, torch {torch.__version__}, commit {args.commit}{what}", flush=True)
    parts = [p for p in PARTS if not args.only or p.name in args.only]
    ended = {}
    with ThreadPoolExecutor(AT_ONCE if not dry else 2) as pool:
        first = [p for p in parts if not p.alone]
        found = pool.map(lambda p: start_part(p, args, deadline, dry), first)
        ended |= dict(zip([p.name for p in first], found, strict=True))
    for part in (p for p in parts if p.alone):
        ended[part.name] = start_part(part, args, deadline, dry)
    rows_file = out / "rows.jsonl"
    rows = [json.loads(r) for r in rows_file.read_text().splitlines()] if rows_file.exists() else []
    bad = [r for r in rows if r.get("ok") is False]
    lost = [f"{name}: {how}" for name, how in ended.items() if not how.startswith("ended")]
    print(f"{len(rows)} rows, {len(bad)} failed; parts that did not end: {'; '.join(lost) or '-'}")
    return 1 if bad or lost else 0


if __name__ == "__main__":
    sys.exit(main())
