"""Suite `faults`: runs of a tiny model are killed, starved and moved; is anything lost?

    python benchmarks/run.py faults --kills 60 [--seed 0] [--case kills]

A run takes seconds: its ranks are forked from this process, which has imported the packages (but
for the launcher's). Every kind has one row: tried, survived (the exit code, the line that is due,
and at the end the model), steps done again at most, adapters byte-equal to that of the undisturbed
run of the same ranks and stage.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import harness
from benchmarks.faults_disk import damaged, full_disk
from benchmarks.faults_lab import (
    CELLS,
    EVERY,
    LONG,
    STEPS,
    Cell,
    Lab,
    Tally,
    adapter_of,
    free_port,
    rows_of,
    steps_of,
    wait,
)
from benchmarks.harness import Options
from benchmarks.results import Row

PACKAGES = ("mipic_llm.commands.train", "mipic_llm.training.loop", "mipic_llm.export.verify",
            "peft", "transformers.models.bert.modeling_bert", "sentence_transformers")  # fmt: skip


def kills(lab: Lab, kind: str, moment: Callable[[Cell, Path], float | None], n: int) -> Tally:
    """SIGKILL after `moment` (seconds; None: it waited itself), to all ranks or to one of them."""
    tally = Tally(f"SIGKILL {kind}")
    for i in range(n):
        cell = CELLS[i % len(CELLS)]
        lab.whole(cell)
        for _ in range(5):  # a run that ended first was not killed
            out = lab.out()
            more = () if kind == "anywhere" else ("--export.rehearse", "false")
            ranks = lab.start(cell, out, *more)
            seen = moment(cell, out)
            alive = [r for r in ranks if r.is_alive()]
            for rank in alive if lab.random.random() < 0.7 else alive[:1]:
                rank.kill()
            codes = wait(ranks, 60)
            if seen is not None and any(codes):
                break
        problem, equal, lost = lab.end(cell, out, *more)
        if 99 in codes:
            problem = f"a rank lives on without the other: {lab.tail(out)}"
        if lost > 2 * EVERY:
            problem = problem or f"{lost} steps lost"
        tally.add(cell, problem, equal, lost)
    return tally


def anywhere(lab: Lab) -> Callable[[Cell, Path], float]:
    def moment(cell: Cell, out: Path) -> float:
        time.sleep(at := lab.random.uniform(0, lab.whole(cell)[1]))
        return at

    return moment


def after(lab: Lab, names: list[str], most: float) -> Callable[[Cell, Path], float | None]:
    """Up to `most` seconds after one of these files was there."""

    def moment(cell: Cell, out: Path) -> float | None:
        path, until = out / lab.random.choice(names), time.monotonic() + 120
        while not path.exists():
            if time.monotonic() > until or (out / "parity.json").exists():
                return None
            time.sleep(0.0005)
        time.sleep(at := lab.random.uniform(0, most))
        return at

    return moment


def tracker(lab: Lab, n: int) -> Tally:
    """An MLflow server that takes connections and never answers."""
    tally, longer = Tally("hanging tracker"), 0.0
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        for i in range(n):
            cell, out, begun = CELLS[(3 * i + 1) % len(CELLS)], lab.out(), time.monotonic()
            whole, seconds = lab.whole(cell)
            begun = time.monotonic()
            uri = f"http://127.0.0.1:{server.getsockname()[1]}"
            codes = lab.run(cell, out, "--tracking.mlflow", uri)
            longer = max(longer, time.monotonic() - begun - seconds)
            equal = adapter_of(out) == adapter_of(whole)
            problem = "" if equal and not any(codes) else f"{codes}: {lab.tail(out)}"
            tally.add(cell, problem, equal)
    tally.more = f"; at most {longer:.0f} s longer"
    return tally


def launcher(lab: Lab, n: int) -> Tally:
    """`kill PID` of the deepspeed command: 30 s later no process is left, and the run goes on. All
    its runs are launched: forked ranks have another heap, and sums may round otherwise there."""
    tally = Tally("launcher killed")
    for i in range(n):
        cell = Cell(2, 1 + i % 3)
        whole, out = lab.out(), lab.out()
        codes = [_launched(lab, cell, whole).wait(300)]
        above, until = _launched(lab, cell, out), time.monotonic() + 300
        while steps_of(out) < 20 and time.monotonic() < until and above.poll() is None:
            time.sleep(0.05)
        above.send_signal(signal.SIGTERM)
        above.wait(30)
        begun = time.monotonic()
        while (left := _left(out)) and time.monotonic() < begun + 30:
            time.sleep(0.1)
        seconds, before = time.monotonic() - begun, steps_of(out)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        saved = [p.name for p in (out / "checkpoints").glob("step-*")]
        codes.append(_launched(lab, cell, out, "--train.resume", "auto").wait(300))
        equal = bool(adapter_of(out)) and adapter_of(out) == adapter_of(whole)
        good = not (left or any(codes)) and saved == [f"step-{before:08d}"] and equal
        problem = (
            "" if good and before < LONG else f"{left} {saved} {before} {codes}: {lab.tail(out)}"
        )
        tally.add(cell, problem, equal, before - int(saved[0][5:]) if saved else before)
        tally.more = f"; the last rank ended {seconds:.0f} s after the launcher"
    return tally


def _launched(lab: Lab, cell: Cell, out: Path, *more: str) -> subprocess.Popen[bytes]:
    """A run of LONG steps by the deepspeed command."""
    program = str(Path(sys.executable).parent / "deepspeed")
    steps = ("--train.max_steps", str(LONG), "--train.save_every", str(LONG))
    command = [program, "--num_accelerators", "2", "--master_port", str(free_port()),
               "launch/train.py", *lab.flags(cell, out, *steps, *more)]  # fmt: skip
    env = os.environ | {"PYTHONPATH": str(harness.ROOT)}
    with lab.log(out).open("a") as stream:
        return subprocess.Popen(command, env=env, cwd=harness.ROOT, stdout=stream, stderr=stream)


def _left(out: Path) -> list[int]:
    """Processes whose command line names `out`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            continue
        found += [int(path.parent.name)] if str(out) in words else []
    return found


def changes(lab: Lab, n: int) -> Tally:
    """Another number of ranks or another stage from step 3 on: the losses of the uninterrupted run
    of one rank without ZeRO (no dropout, so that they can be)."""
    tally, worst = Tally("ranks or stage changed"), 0.0
    more = ("--model.dropout", "0", "--train.keep_checkpoints", "0", "--export.rehearse", "false")
    old: dict[Cell, Path] = {}

    def plain(cell: Cell) -> Path:
        if cell not in old:
            old[cell] = lab.out()
            lab.run(cell, old[cell], *more, export=False)
        return old[cell]

    wanted = {row["step"]: row["loss"] for row in rows_of(plain(Cell(1, 0)))}
    pairs = [(one, two) for one in CELLS for two in CELLS if one != two]
    for one, two in lab.random.sample(pairs, n):
        path, out = plain(one) / "checkpoints" / f"step-{EVERY:08d}", lab.out()
        codes = lab.run(two, out, *more, "--train.resume", str(path), export=False)
        found = {row["step"]: row["loss"] for row in rows_of(out)}
        there = sorted(found) == list(range(EVERY + 1, STEPS + 1))
        off = max((abs(found[s] / wanted[s] - 1) for s in found), default=1.0)
        worst = max(worst, off)
        good = there and off < 1e-5 and not any(codes)
        tally.add(two, "" if good else f"from {one}: {codes}, {off:.1e}: {lab.tail(out)}", None)
    tally.more = f"; losses off by at most {worst:.1e} of their size"
    return tally


def run(o: Options) -> list[Row]:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    for name in PACKAGES:
        importlib.import_module(name)
    n, few = (3, 1) if o.quick else (o.kills, 0)
    export, quarter = [".adapter.new"], n // 4 or 1
    saves = [f"checkpoints/.step-{s:08d}.new" for s in range(EVERY, STEPS, EVERY)]
    folder = tempfile.mkdtemp()
    lab = Lab(Path(folder), o.seed)
    kinds: dict[str, Callable[[], Tally]] = {
        "kills anywhere": lambda: kills(lab, "anywhere", anywhere(lab), n - 2 * (n // 4)),
        "kills in a save": lambda: kills(lab, "in a save", after(lab, saves, 0.04), quarter),
        "kills in the export": lambda: kills(lab, "in the export", after(lab, export, 1), quarter),
        "damaged": lambda: damaged(lab, few or 8),
        "full disk": lambda: full_disk(lab, few or 4, True),
        "full disk to the end": lambda: full_disk(lab, few or 2, False),
        "changes": lambda: changes(lab, few or 12),
        "tracker": lambda: tracker(lab, 0 if o.quick else 2),
        "launcher": lambda: launcher(lab, 0 if o.quick else 2),
    }
    rows = []
    for name, work in kinds.items():
        if name.startswith(o.case or ""):
            tally = work()
            rows += [tally.row()] if tally.tried else []
    if all(row["met"] == "true" for row in rows):
        shutil.rmtree(folder)
    else:
        print(f"what did not survive is in {folder}")
    return rows
