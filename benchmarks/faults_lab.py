"""What the suite `faults` needs: a tiny model, its undisturbed runs, ranks forked from this
process, which has imported the packages, and tallies."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import results
from benchmarks.results import Row

STEPS, EVERY, LONG = 12, 3, 200


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
        verdict = results.verdict(self.survived / max(1, self.tried), 1, True)
        return results.row("faults", self.kind, "", model="tiny-bert", mode="lora", ranks="1, 2",
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
                 for port in [free_port()] for rank in range(cell.ranks)]  # fmt: skip
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

        folder, before = out / "checkpoints", steps_of(out)
        if torn := [p.name for p in checkpoint.steps_in(folder) if checkpoint.damage(p)]:
            return f"damaged: {torn}", False, 0
        newest = checkpoint.newest(folder)
        lost = before - (int(newest.name[5:]) if newest else 0)
        go_on = "--train.resume auto" if newest else "--overwrite true"
        codes = self.run(cell, out, *go_on.split(), *more)
        if any(codes):
            return f"{go_on}: {codes} {self.tail(out)}", False, lost
        equal = adapter_of(out) == adapter_of(self.whole(cell)[0])
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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def adapter_of(out: Path) -> bytes:
    path = out / "adapter" / "adapter_model.safetensors"
    return path.read_bytes() if path.is_file() else b""


def rows_of(out: Path) -> list[dict[str, Any]]:
    path = out / "metrics.jsonl"
    lines = path.read_text("utf-8", "replace").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def steps_of(out: Path) -> int:
    return max((row["step"] for row in rows_of(out)), default=0)
