"""How runs stop: a launcher that is gone, an error on one rank, a signal at any moment."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ranks import ROOT, free_port, run_ranks
from tiny_models import few, tiny_bert

from mipic_llm.config import load_config
from mipic_llm.errors import EXIT_STOPPED, EXIT_USER_ERROR
from mipic_llm.runtime.watch import is_launcher, launchers
from mipic_llm.training.loop import train

WORKER = """
import os
import sys
from mipic_llm.commands.run import run_main
from mipic_llm.errors import UserError
from mipic_llm.runtime import ranks
from mipic_llm.runtime.start import start

def main(argv):
    start()
    ranks.barrier()
    if f"kill {ranks.rank()}" in argv:
        os.kill(os.getpid(), 9)
    if str(ranks.rank()) in argv:
        raise UserError(f"seen by rank {ranks.rank()}")
    ranks.barrier()

run_main(main)
"""


@pytest.mark.parametrize("who", ["0", "1", "01"])
def test_an_error_is_told_once_by_a_rank_that_has_it(tmp_path, who):
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    code, text = run_ranks(2, script, list(who))
    assert code == EXIT_USER_ERROR, text
    assert text.count("error") == 1 and "seen by rank" in text and "Traceback" not in text, text
    assert "error (rank 1): " in text or who != "1"


@pytest.mark.parametrize("who", [0, 1])
def test_a_rank_that_is_killed_is_one_line_of_the_others(tmp_path, who):
    """As the kernel does it where memory lacks."""
    (tmp_path / "worker.py").write_text(WORKER)
    _, text = run_ranks(2, tmp_path / "worker.py", [f"kill {who}"])
    line = next(line for line in text.splitlines() if line.startswith("error"))
    assert "another rank is gone (" in line and "--train.resume auto" in line
    assert text.count("error") == 1 and " by peer): " in line and "Traceback" not in text, text


def test_what_is_a_launcher():
    for line in ("/usr/bin/python3 /usr/bin/deepspeed --num_gpus 2 train.py",
                 "python -u -m deepspeed.launcher.launch --world_info=x train.py",
                 "/opt/bin/torchrun train.py", "python3 -m torch.distributed.run x"):  # fmt: skip
        assert is_launcher(line.split()), line
    for line in ("bash -c deepspeed train.py", "python run_deepspeed.py", "sh deepspeed.sh",
                 "", "timeout 9 deepspeed train.py", "nohup torchrun x"):  # fmt: skip
        assert not is_launcher(line.split()), line
    assert launchers(os.getpid()) == []  # pytest is none, and what is above it was not asked


def test_a_lost_launcher_ends_the_ranks_with_a_checkpoint(tmp_path):
    """`kill PID` of the deepspeed command, as systemd and docker do it."""
    base, out, log = tmp_path / "base", tmp_path / "out", tmp_path / "log"
    tiny_bert(base)
    command = [str(Path(sys.executable).parent / "deepspeed"), "--num_accelerators", "2",
               "--master_port", str(free_port()), str(ROOT / "launch" / "train.py"),
               "--data.train", str(few(tmp_path)), "--export.rehearse", "false",
               "--model.name", str(base), "--objective.dims", "8", "32", "--data.validation",
               "none", "--train.batch_size", "4", "--train.max_steps", "100000",
               "--tracking.mlflow", "off", "--output_dir", str(out)]  # fmt: skip
    env = dict(os.environ, OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="", PYTHONPATH=str(ROOT))
    with log.open("w") as stream:
        launcher = subprocess.Popen(command, env=env, cwd=ROOT, stdout=stream, stderr=stream)
    try:
        wait(lambda: out.joinpath("metrics.jsonl").exists() and len(left(out)) >= 2
             and out.joinpath("metrics.jsonl").stat().st_size > 0, 200, log)  # fmt: skip
    finally:
        launcher.send_signal(signal.SIGTERM)
        launcher.wait(30)
    try:
        wait(lambda: not left(out), 30, log)
    finally:
        for pid in left(out):
            os.kill(pid, signal.SIGKILL)
    text = log.read_text()
    assert "the launcher is gone" in text and "stopped by a signal" in text, text[-3000:]
    # The launcher names one rank's code: a rank that had saved and was ending, or was the last to
    # see that the launcher is gone, ends by the signal.
    assert re.search(rf"return code = ({EXIT_STOPPED}|-15)\b", text), text[-3000:]
    assert "Traceback" not in text
    assert len(list((out / "checkpoints").glob("step-*"))) == 1


class Send:
    """Sends itself a signal in an evaluation, or when a file was written."""

    def __init__(self, number: signal.Signals, step: int = -1, name: str = "") -> None:
        self.number, self.step, self.name = number, step, name

    def on_evaluation(self, run, step, scores):
        if step == self.step:
            signal.raise_signal(self.number)  # handled here, not where a thread gets to it

    def on_save(self, run, path):
        if path.name == self.name:
            signal.raise_signal(self.number)  # handled here, not where a thread gets to it


@pytest.fixture
def interrupts():
    """Ctrl-C as in a terminal: what a shell runs in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_signal_in_an_evaluation_saves_and_one_in_the_export_ends_the_run(tmp_path, interrupts):
    """And then the handlers are what they were."""
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
    flags = ["--model.name", str(tiny_bert(tmp_path / "base")), "--objective.dims", "8", "32",
             "--data.train", str(few(tmp_path)), "--data.validation",
             str(few(tmp_path, "validation", 40)), "--eval.every", "3", "--train.batch_size", "4",
             "--train.max_steps", "6", "--train.selfcheck", "false", "--export.rehearse", "false",
             "--tracking.mlflow", "off", "--output_dir", str(tmp_path / "out")]  # fmt: skip
    more = ["--train.resume", "auto"]
    assert train(load_config(flags), [Send(signal.SIGTERM, step=3)]) == EXIT_STOPPED
    assert [p.name for p in (tmp_path / "out" / "checkpoints").iterdir()] == ["step-00000004"]
    with pytest.raises(KeyboardInterrupt):
        train(load_config(flags + more), [Send(signal.SIGINT, name="parity.json")])
    assert train(load_config(flags + more)) == 0
    now = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
    assert now == before


def left(out: Path) -> list[int]:
    """Processes whose command line names `out`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            continue
        found += [int(path.parent.name)] if str(out) in words else []
    return found


def wait(done, seconds: float, log: Path) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, log.read_text()[-4000:]
        time.sleep(0.2)
