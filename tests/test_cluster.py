"""launch/cluster/slurm.sbatch with stand-ins for Slurm's two commands: real ranks, real signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ranks import ROOT, free_port
from tiny_models import few, tiny_bert

SCRIPT = ROOT / "launch" / "cluster" / "slurm.sbatch"
WORLD, STEPS, EVERY = 2, 24, 4
# Starts the tasks of one machine as srun does; its code is the highest of theirs.
SRUN = f"""#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
pids=()
for task in $(seq 0 {WORLD - 1}); do
  SLURM_PROCID=$task SLURM_LOCALID=$task SLURM_NTASKS={WORLD} "$@" & pids+=($!)
done
echo "${{pids[@]}}" > "$FAKE/pids"
worst=0
for pid in "${{pids[@]}}"; do wait "$pid"; code=$?; (( code > worst )) && worst=$code; done
exit $worst
"""
SCONTROL = """#!/usr/bin/env bash
if [ "$1" = show ]; then printf '127.0.0.1\\nother\\n'; else echo "$@" >> "$FAKE/requeued"; fi
"""


@pytest.fixture
def slurm(tmp_path) -> dict[str, str]:
    """The environment of a job on a machine that has `srun` and `scontrol`."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (binaries / name).write_text(text)
        (binaries / name).chmod(0o755)
    path = f"{binaries}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    port = next(p for p in iter(free_port, None) if 20000 <= p < 40000)  # the script's own range
    return dict(os.environ, PATH=path, FAKE=str(tmp_path), SLURM_SUBMIT_DIR=str(ROOT),
                SLURM_JOB_NODELIST="both", SLURM_JOB_ID=str(port - 20000), OMP_NUM_THREADS="1",
                CUDA_VISIBLE_DEVICES="", PYTHONPATH=str(ROOT))  # fmt: skip


def job(env: dict[str, str], out: Path, base: Path, log: Path) -> subprocess.Popen:
    flags = ["--data.train", str(few(base.parent)), "--export.rehearse", "false",
             "--model.name", str(base), "--objective.dims", "8", "16", "32", "--train.batch_size",
             "4", "--data.validation", "none", "--tracking.mlflow", "off", "--train.max_steps",
             str(STEPS), "--train.save_every", str(EVERY)]  # fmt: skip
    with log.open("a") as stream:
        return subprocess.Popen(["bash", str(SCRIPT), str(out), *flags], env=env, cwd=out.parent,
                                stdout=stream, stderr=subprocess.STDOUT)  # fmt: skip


def test_a_job_out_of_time_saves_is_queued_again_and_goes_on(slurm, tmp_path):
    base, out, log = tmp_path / "base", tmp_path / "out", tmp_path / "log"
    tiny_bert(base, layers=2)
    first = job(slurm, out, base, log)
    deadline = time.monotonic() + 300
    while not (out / "checkpoints" / f"step-{EVERY:08d}").exists():
        assert first.poll() is None and time.monotonic() < deadline, log.read_text()[-4000:]
        time.sleep(0.02)
    tasks = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(tasks) == WORLD
    for pid in tasks:  # what --signal=USR1@300 does
        os.kill(pid, signal.SIGUSR1)
    assert first.wait(300) == 75, log.read_text()[-4000:]
    assert (tmp_path / "requeued").read_text().split() == ["requeue", slurm["SLURM_JOB_ID"]]
    assert not (out / "adapter").exists(), "it ended before the signal: nothing was tested"

    second = job(slurm | {"SLURM_RESTART_COUNT": "1"}, out, base, log)
    assert second.wait(300) == 0, log.read_text()[-4000:]
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, STEPS + 1))
    assert (out / "adapter" / "adapter_model.safetensors").exists()
    assert len((tmp_path / "requeued").read_text().splitlines()) == 1, "a finished job is not"


def test_a_restart_without_a_checkpoint_begins_anew_and_no_directory_is_told(slurm, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "bin" / "srun").write_text('#!/usr/bin/env bash\necho "$@"; exit 75\n')
    again = slurm | {"SLURM_RESTART_COUNT": "2"}

    def run(env: dict[str, str], *args: str) -> subprocess.CompletedProcess:
        return subprocess.run(["bash", str(SCRIPT), *args], env=env, check=False, text=True,
                              capture_output=True)  # fmt: skip

    fresh, anew = run(slurm, str(out), "--seed", "3"), run(again, str(out))
    assert fresh.returncode == anew.returncode == 75
    assert "--overwrite" not in fresh.stdout and "--train.resume" not in fresh.stdout
    assert f"--seed 3 --output_dir {out}" in fresh.stdout
    assert anew.stdout.rstrip().endswith("--overwrite true")
    (out / "checkpoints" / "step-00000004").mkdir(parents=True)
    assert run(again, str(out)).stdout.rstrip().endswith("--train.resume auto")
    missing = run(slurm)
    assert missing.returncode == 2 and missing.stderr.startswith("usage: sbatch")
