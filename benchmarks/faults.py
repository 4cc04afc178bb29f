"""Suite `faults`: runs of a tiny model are killed, starved and moved; is anything lost?

    python benchmarks/run.py faults --kills 60 [--seed 0] [--case kills]

A run takes seconds: its ranks are forked from this process, which has imported the packages (but
for the launcher's). Every kind has one row: tried, survived (the exit code, the line that is due,
and at the end the model), steps done again at most, adapters byte-equal to that of the undisturbed
run of the same ranks and stage.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import harness
from benchmarks.harness import Options, Row

STEPS, EVERY, LONG = 12, 3, 200
PACKAGES = ("mipic_llm.commands.train", "mipic_llm.training.loop", "mipic_llm.export.verify",
            "peft", "transformers.models.bert.modeling_bert", "sentence_transformers")  # fmt: skip


class Cell(NamedTuple):
    ranks: int
    stage: int


CELLS = [Cell(ranks, stage) for stage in range(4) for ranks in (1, 2)]
Ranks = list[multiprocessing.process.BaseProcess]


class Tally:
    """What came of one kind of fault."""

    def __init__(self, kind: str) -> None:
        self.kind, self.tried, self.survived, self.equal, self.lost = kind, 0, 0, 0, [0]
        self.more = ""

    def add(self, cell: Cell, problem: str, equal: bool | None = None, lost: int = 0) -> None:
        self.tried += 1
        self.survived += not problem
        self.equal += bool(equal)
        self.lost.append(lost)
        cells, again = f"{cell.ranks} rank(s), ZeRO-{cell.stage}", f", lost {lost}" * bool(lost)
        now = time.strftime("%H:%M:%S")
        print(f"{now} {self.kind}: {cells}: {problem or 'ok'}{again}", flush=True)

    def row(self) -> Row:
        note = f"tried {self.tried}, survived {self.survived}, adapter equal {self.equal}, "
        note += f"steps done again at most {max(self.lost)}{self.more}"
        verdict = harness.verdict(self.survived / max(1, self.tried), 1, True)
        return harness.row("faults", self.kind, "", model="tiny-bert", mode="lora", ranks="1, 2",
                           zero_stage="0-3", note=note, **verdict)  # fmt: skip


class Lab:
    """The base model, the rows, and the undisturbed runs."""

    def __init__(self, home: Path, seed: int) -> None:
        from benchmarks import models
        from benchmarks.flops import TINY_BERT

        self.home, self.random, self.count = home, random.Random(seed), 0
        self.base = models.write_model(TINY_BERT, home / "base")
        texts = [" ".join(f"w{5 + (7 * i + j) % 300}" for j in range(9)) for i in range(100)]
        pairs = ({"anchor": text, "positive": text[4:]} for text in texts)
        (home / "rows.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
        self.done: dict[Cell, tuple[Path, float]] = {}

    def out(self) -> Path:
        self.count += 1
        return self.home / f"run-{self.count}"

    def log(self, out: Path) -> Path:
        return self.home / f"{out.name}.log"

    def tail(self, out: Path) -> str:
        return self.log(out).read_text("utf-8", "replace")[-1500:]

    def flags(self, cell: Cell, out: Path, *more: str) -> list[str]:
        return [
            "--ds_config", f"zero{cell.stage}", "--model.name", str(self.base), "--data.train",
            str(self.home / "rows.jsonl"), "--objective.dims", "12", "48", "--data.max_length",
            "16", "--data.validation", "none", "--train.batch_size", str(8 // cell.ranks),
            "--train.max_steps", str(STEPS), "--train.save_every", str(EVERY), "--train.precision",
            "fp32", "--train.log_every", "1", "--model.dropout", "0.1", "--train.selfcheck",
            "false", "--sia.memory", "8", "--tracking.mlflow", "off", "--output_dir", str(out),
            *more,
        ]  # fmt: skip

    def start(
        self, cell: Cell, out: Path, *more: str, act: Callable[[], list[Any]] = list,
        export: bool = True,
    ) -> Ranks:  # fmt: skip
        """Fork the ranks. act: makes rank 0's callbacks. Their output goes to `log(out)`."""
        context, argv = multiprocessing.get_context("fork"), self.flags(cell, out, *more)
        ranks = [context.Process(target=_rank, daemon=True,
                                 args=(rank, cell.ranks, port, argv, self.log(out), act, export))
                 for port in [_port()] for rank in range(cell.ranks)]  # fmt: skip
        for rank in ranks:
            rank.start()
        return ranks

    def run(self, cell: Cell, out: Path, *more: str, **how: Any) -> list[int]:
        return wait(self.start(cell, out, *more, **how))

    def whole(self, cell: Cell) -> tuple[Path, float]:
        """-> (directory, seconds) of the undisturbed run."""
        if cell not in self.done:
            out, begun = self.out(), time.monotonic()
            codes = self.run(cell, out)
            if any(codes):
                raise RuntimeError(f"undisturbed run {cell}: {codes}\n{self.log(out).read_text()}")
            self.done[cell] = out, time.monotonic() - begun
        return self.done[cell]

    def end(self, cell: Cell, out: Path, *more: str) -> tuple[str, bool, int]:
        """Go on, or start again where nothing was saved. -> (what went wrong, whether the adapter
        is that of the undisturbed run, steps done again)."""
        from mipic_llm.runtime import checkpoint

        folder, before = out / "checkpoints", _steps(out)
        if torn := [p.name for p in checkpoint.steps_in(folder) if checkpoint.damage(p)]:
            return f"damaged: {torn}", False, 0
        newest = checkpoint.newest(folder)
        lost = before - (int(newest.name[5:]) if newest else 0)
        go_on = "--train.resume auto" if newest else "--overwrite true"
        codes = self.run(cell, out, *go_on.split(), *more)
        if any(codes):
            return f"{go_on}: {codes} {self.tail(out)}", False, lost
        equal = _adapter(out) == _adapter(self.whole(cell)[0])
        if equal:
            shutil.rmtree(out)
        return "" if equal else f"another adapter after {go_on}", equal, max(0, lost)


def _rank(
    rank: int, ranks: int, port: int, argv: list[str], log: Path, act: Callable[[], list[Any]],
    export: bool,
) -> None:  # fmt: skip
    """One rank, in a forked process."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks),
                      MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))  # fmt: skip
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    from mipic_llm.commands.run import run_main
    from mipic_llm.config import load_config
    from mipic_llm.runtime.ranks import leave
    from mipic_llm.training import loop

    if not export:
        loop.export = loop.report = lambda *_: None  # type: ignore[assignment]
    try:
        run_main(lambda flags: loop.train(load_config(flags), act() if rank == 0 else ()), argv)
    finally:
        leave()


def wait(ranks: Ranks, seconds: float = 240) -> list[int]:
    """Exit codes; one that has not ended by then is killed, and has the code 99."""
    until, codes = time.monotonic() + seconds, []
    for rank in ranks:
        rank.join(max(0.1, until - time.monotonic()))
        codes.append(99 if rank.exitcode is None else rank.exitcode)
        rank.kill()
        rank.join()
    return codes


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _adapter(out: Path) -> bytes:
    path = out / "adapter" / "adapter_model.safetensors"
    return path.read_bytes() if path.is_file() else b""


def _rows(out: Path) -> list[dict[str, Any]]:
    path = out / "metrics.jsonl"
    lines = path.read_text("utf-8", "replace").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def _steps(out: Path) -> int:
    return max((row["step"] for row in _rows(out)), default=0)


# ------------------------------------------------------------------------------ the kinds


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


def damaged(lab: Lab, n: int) -> Tally:
    """The newest checkpoint of a finished run is damaged; it goes on from the older one."""
    tally = Tally("damaged checkpoint")
    for i in range(n):
        cell, out = CELLS[i % len(CELLS)], lab.out()
        shutil.copytree(lab.whole(cell)[0], out)
        shutil.rmtree(out / "adapter")
        newest = out / "checkpoints" / f"step-{STEPS - EVERY:08d}"
        path = lab.random.choice([p for p in sorted(newest.rglob("*")) if p.is_file()])
        data, how = bytearray(path.read_bytes()), lab.random.randrange(4)
        if how == 0:
            data[lab.random.randrange(len(data))] ^= 1 << lab.random.randrange(8)
            path.write_bytes(data)
        elif how == 1:
            os.truncate(path, lab.random.randrange(len(data)))
        elif how == 2:
            path.unlink()
        else:
            path.with_suffix(".more").write_bytes(b"x")
        codes = lab.run(cell, out, "--train.resume", "auto")
        text, equal = lab.tail(out), _adapter(out) == _adapter(lab.whole(cell)[0])
        told = "damaged and left out" in text or path.name == "manifest.json"
        problem = "" if equal and told and not any(codes) else f"{path.name} {how}: {codes} {text}"
        tally.add(cell, problem, equal, STEPS - (STEPS - 2 * EVERY))
    return tally


@contextmanager
def small_disk(folder: Path) -> Iterator[tuple[Path, str]]:
    """A tmpfs of 24 MiB -> (where, ""); where no one may mount, a limit on the size of files stands
    in, and is said."""
    folder.mkdir()
    mounted = not subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)],
                                 capture_output=True, check=False).returncode  # fmt: skip
    try:
        yield folder, "" if mounted else "; no tmpfs could be mounted: a limit on files stood in"
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False)


class Full:
    """No byte more goes to the disk from step 4 on; from step 8 on again, if `ends`."""

    def __init__(self, filler: Path, limit: bool, ends: bool) -> None:
        self.filler, self.limit, self.ends = filler, limit, ends

    def on_step(self, run: Any, step: int, row: Any) -> None:
        if step == EVERY + 1:
            run.finish()
            if self.limit:
                resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
                return
            with self.filler.open("wb", buffering=0) as file:
                for size in (1 << 20, 1 << 12):
                    try:
                        while file.write(bytes(size)):
                            pass
                    except OSError:
                        pass
        if step == 2 * EVERY + 2 and self.ends:
            run.finish()
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            self.filler.unlink(missing_ok=True)


def full_disk(lab: Lab, n: int, ends: bool) -> Tally:
    tally = Tally("disk full for 4 steps" if ends else "disk full to the end")
    for i in range(n):
        cell = CELLS[(3 * i + 1) % len(CELLS)]
        with small_disk(lab.home / f"disk-{lab.count}-{ends}") as (disk, tally.more):
            out, full = disk / lab.out().name, Full(disk / "filler", bool(tally.more), ends)
            codes = lab.run(cell, out, act=partial(list, (full,)))
            text, lost = lab.tail(out), 0
            said = text.count("was not written: ")
            want = f"checkpoint of step {2 * EVERY} was not written"
            problem = "" if want in text and "Traceback" not in text else f"{codes}: {text}"
            if ends:
                problem = problem or ("" if codes == [0] * cell.ranks else f"{codes}: {text}")
                equal = _adapter(out) == _adapter(lab.whole(cell)[0])
            else:
                problem = problem or ("" if set(codes) == {2} else f"{codes}: {text}")
                full.filler.unlink(missing_ok=True)
                wrong, equal, lost = lab.end(cell, out)
                problem = problem or wrong
            tally.add(cell, problem or ("" if equal else "another adapter"), equal, lost)
            print(f"  lines of warning: {said}")
    return tally


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
            equal = _adapter(out) == _adapter(whole)
            problem = "" if equal and not any(codes) else f"{codes}: {lab.tail(out)}"
            tally.add(cell, problem, equal)
    tally.more = f"; at most {longer:.0f} s longer"
    return tally


def launcher(lab: Lab, n: int) -> Tally:
    """`kill PID` of the deepspeed command: 30 s later no process is left, and the run goes on."""
    tally = Tally("launcher killed")
    for i in range(n):
        cell = Cell(2, 1 + i % 3)
        steps = ("--train.max_steps", str(LONG), "--train.save_every", str(LONG))
        whole, out = lab.out(), lab.out()
        first = lab.run(cell, whole, *steps)
        program, script = Path(sys.executable).parent / "deepspeed", "launch/train.py"
        command = [str(program), "--num_accelerators", "2", "--master_port", str(_port()), script]
        env = os.environ | {"PYTHONPATH": str(harness.ROOT)}
        with lab.log(out).open("w") as stream:
            above = subprocess.Popen([*command, *lab.flags(cell, out, *steps)], env=env,
                                     cwd=harness.ROOT, stdout=stream, stderr=stream)  # fmt: skip
        until = time.monotonic() + 300
        while _steps(out) < 20 and time.monotonic() < until and above.poll() is None:
            time.sleep(0.05)
        above.send_signal(signal.SIGTERM)
        above.wait(30)
        begun = time.monotonic()
        while (left := _left(out)) and time.monotonic() < begun + 30:
            time.sleep(0.1)
        seconds, before = time.monotonic() - begun, _steps(out)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        saved = [p.name for p in (out / "checkpoints").glob("step-*")]
        codes = lab.run(cell, out, *steps, "--train.resume", "auto")
        equal = bool(_adapter(out)) and _adapter(out) == _adapter(whole)
        good = not (left or any(first) or any(codes)) and saved == [f"step-{before:08d}"] and equal
        problem = (
            "" if good and before < LONG else f"{left} {saved} {before} {codes}: {lab.tail(out)}"
        )
        tally.add(cell, problem, equal, before - int(saved[0][5:]) if saved else before)
        tally.more = f"; the last rank ended {seconds:.0f} s after the launcher"
    return tally


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

    wanted = {row["step"]: row["loss"] for row in _rows(plain(Cell(1, 0)))}
    pairs = [(one, two) for one in CELLS for two in CELLS if one != two]
    for one, two in lab.random.sample(pairs, n):
        path, out = plain(one) / "checkpoints" / f"step-{EVERY:08d}", lab.out()
        codes = lab.run(two, out, *more, "--train.resume", str(path), export=False)
        found = {row["step"]: row["loss"] for row in _rows(out)}
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
