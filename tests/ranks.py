"""Real ranks for tests: processes over gloo on a free port, as a launcher would start them.

They are forked from one process that has imported the packages (`multiprocessing.forkserver`): a
start from nothing costs each rank eight seconds of imports. Tests of a start from nothing run the
commands themselves (test_readme.py, test_package.py, test_cluster.py, test_stops.py).
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import multiprocessing
import os
import runpy
import socket
import sys
import time
import traceback
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
IMPORTS = ["datasets", "deepspeed", "deepspeed.module_inject", "matplotlib.backends.backend_agg",
           "matplotlib.pyplot", "mlflow", "mpl_toolkits.mplot3d", "peft", "PIL.PngImagePlugin",
           "sentence_transformers", "sklearn.linear_model", "mipic_llm.training.loop",
           "mipic_llm.evaluation.judge", "mipic_llm.export.run", "mipic_llm.report.plots",
           "transformers.models.bert.modeling_bert", "transformers.models.qwen3.modeling_qwen3",
           "transformers.models.xlm_roberta.modeling_xlm_roberta", "tests.warm"]  # fmt: skip

SAME = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": str(ROOT)}  # fmt: skip
LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_SIZE", "MASTER_ADDR", "MASTER_PORT")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _rank(script: str, args: list[str], env: dict[str, str], log: str, cwd: str) -> None:
    """One rank, in a forked process: `python script args`, its output at the end of `log`."""
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    gc.freeze()  # DeepSpeed collects garbage at ZeRO-3: .7 s each time, among all that is imported
    sys.argv, sys.path[0] = [script, *args], str(Path(script).parent)
    code: object = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()  # a process of multiprocessing ends without
    sys.exit(code)


def set_apart() -> None:
    """Between two trainings of one process: DeepSpeed keeps what an engine at ZeRO-3 was made of,
    and looks through all of it in each later one's steps (.7 s after fifteen of them)."""
    gc.collect()
    gc.freeze()


@functools.cache
def server() -> ForkServerContext:
    """The process that has imported the packages, started at the first call."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTS)
    before = dict(os.environ)
    os.environ.update(SAME)  # what the imports see
    forkserver.ensure_running()
    os.environ.clear()
    os.environ.update(before)
    return context


def start_ranks(
    world: int, script: Path, args: list[str], log: Path, **more: str
) -> list[ForkServerProcess]:
    """Processes to `join`; more: environment variables besides those of this process."""
    context, port = server(), free_port()
    processes = []
    for rank in range(world):
        env = {**os.environ, **SAME, "RANK": str(rank), "LOCAL_RANK": str(rank),
               "WORLD_SIZE": str(world), "LOCAL_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
               "MASTER_PORT": str(port), **more}  # fmt: skip
        given = (str(script), args, env, str(log), str(ROOT))
        processes.append(context.Process(target=_rank, args=given))
        processes[-1].start()
    return processes


def run_ranks(
    world: int, script: Path, args: list[str], timeout: int = 900, **more: str
) -> tuple[int, str]:
    """-> (worst exit code, output of all ranks). A rank that has not ended by then is killed."""
    with TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        processes = start_ranks(world, script, [str(a) for a in args], log, **more)
        try:
            deadline = time.monotonic() + timeout
            for process in processes:
                process.join(max(0.1, deadline - time.monotonic()))
            late = [p for p in processes if p.exitcode is None]
            assert not late, f"{len(late)} ranks had not ended: {log.read_text()[-6000:]}"
            codes = [abs(p.exitcode) for p in processes]
        finally:
            for process in processes:
                process.kill()
        return max(codes, default=0), log.read_text(errors="replace")


def run_command(
    words: list[str], cwd: Path, log: Path, env: dict[str, str] | None = None
) -> tuple[int, str]:
    """`python launch/train.py ...` or `python -m mipic_llm train ...` typed in cwd, no rank of a
    launcher: words begin with the script or with -m. -> (exit code, what it said, in log too)."""
    script = ROOT / "launch" / f"{words[2]}.py" if words[0] == "-m" else ROOT / words[0]
    args = words[3:] if words[0] == "-m" else words[1:]
    env = {k: v for k, v in (os.environ if env is None else env).items() if k not in LAUNCHED}
    given = (str(script), args, env | SAME, str(log), str(cwd))
    process = server().Process(target=_rank, args=given)
    process.start()
    try:
        process.join(900)
        assert process.exitcode is not None, f"it had not ended: {log.read_text()[-6000:]}"
    finally:
        process.kill()
    return abs(process.exitcode), log.read_text(errors="replace")


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
