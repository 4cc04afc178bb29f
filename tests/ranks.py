"""Real ranks for tests: processes over gloo on a free port, as a launcher would start them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_ranks(world: int, script: Path, args: list[str], log: IO[str]) -> list[subprocess.Popen]:
    port = free_port()
    processes = []
    for rank in range(world):
        env = dict(os.environ, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world),
                   MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS="1",
                   CUDA_VISIBLE_DEVICES="", TOKENIZERS_PARALLELISM="false",
                   PYTHONPATH=str(ROOT))  # fmt: skip
        processes.append(subprocess.Popen(
            [sys.executable, str(script), *args], env=env, cwd=ROOT,
            stdout=log, stderr=subprocess.STDOUT,
        ))  # fmt: skip
    return processes


def run_ranks(world: int, script: Path, args: list[str], timeout: int = 900) -> tuple[int, str]:
    """-> (worst exit code, output of all ranks)."""
    with tempfile.TemporaryFile("w+") as log:  # a pipe read rank by rank would fill and hang
        processes = start_ranks(world, script, args, log)
        try:
            deadline = time.monotonic() + timeout
            codes = [p.wait(max(0.1, deadline - time.monotonic())) for p in processes]
        finally:
            for process in processes:
                process.kill()
        log.seek(0)
        return max(map(abs, codes), default=0), log.read()


def train_cases(world: int, cases: list[dict], folder: Path) -> dict:
    """Losses and weight norms of every case of tests/dist_worker.py on `world` ranks."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cases.json").write_text(json.dumps(cases))
    script = ROOT / "tests" / "dist_worker.py"
    code, output = run_ranks(
        world, script, [str(folder / "cases.json"), str(folder / "answers.json")]
    )
    assert code == 0, output[-6000:]
    return json.loads((folder / "answers.json").read_text())
