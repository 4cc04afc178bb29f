"""Files that start trainings in containers and clusters: start.sh with a stand-in for Python, the
Dockerfile, the Kubernetes job and the SkyPilot task by their formats and by our own options. There
is no Docker and no cluster here: nothing is built or submitted."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
import tomllib
from pathlib import Path

import pytest
import yaml
from ranks import ROOT

from mipic_llm.config import load_config
from mipic_llm.errors import EXIT_STOPPED, EXIT_USER_ERROR

CLUSTER = ROOT / "launch" / "cluster"
START, DOCKERFILE = CLUSTER / "start.sh", ROOT / "launch" / "docker" / "Dockerfile"
# Says how it was called, then waits for a signal, or ends with the code in $CODE_<rank>.
PYTHON = """#!/usr/bin/env bash
echo "$RANK/$WORLD_SIZE local $LOCAL_RANK at $MASTER_ADDR: $*" >> "$FAKE/calls"
trap 'exit 75' TERM
code="CODE_$RANK"
[ -z "${!code:-}" ] || exit "${!code}"
for _ in $(seq 100); do sleep 0.1; done
exit 9
"""


class Starter:
    """start.sh in a folder, with that Python."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "out"
        (folder / "python").write_text(PYTHON)
        (folder / "python").chmod(0o755)

    def begin(self, **env: object) -> subprocess.Popen:
        (self.folder / "calls").unlink(missing_ok=True)
        own = {"PYTHON": str(self.folder / "python"), "FAKE": str(self.folder), "GPUS": "2"}
        words = ["bash", str(START), str(self.out), "--data.train", "a b.jsonl"]
        env = os.environ | own | {key: str(value) for key, value in env.items()}
        return subprocess.Popen(words, env=env, stderr=subprocess.DEVNULL)

    def calls(self) -> list[str]:
        return sorted((self.folder / "calls").read_text().splitlines())


@pytest.fixture
def starter(tmp_path) -> Starter:
    return Starter(tmp_path)


def test_every_gpu_gets_a_rank_and_all_words(starter):
    assert starter.begin(CODE_0=0, CODE_1=0).wait(20) == 0
    words = "-m mipic_llm train --train.save_every 200 --data.train a b.jsonl --output_dir "
    words += str(starter.out)
    assert starter.calls() == [f"{i}/2 local {i} at 127.0.0.1: {words}" for i in (0, 1)]
    many = {"NODES": 3, "NODE_RANK": 2, "MASTER_ADDR": "head"}
    assert starter.begin(CODE_4=0, CODE_5=0, **many).wait(20) == 0
    assert [c.partition(":")[0] for c in starter.calls()] == [
        "4/6 local 0 at head", "5/6 local 1 at head"]  # fmt: skip


@pytest.mark.parametrize("gpus, code", [("", 1), ("0", EXIT_USER_ERROR), ("two", EXIT_USER_ERROR)])
def test_a_machine_without_gpus_is_no_finished_training(starter, gpus, code):
    """It ended with 0, which a Job takes for done."""
    tools = starter.folder / "tools"
    tools.mkdir()
    (tools / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    (tools / "nvidia-smi").chmod(0o755)
    path = f"{tools}:{os.environ['PATH']}"
    assert starter.begin(GPUS=gpus, PATH=path).wait(20) == code
    assert not (starter.folder / "calls").exists()


def test_a_signal_reaches_all_ranks_and_their_code_is_the_answer(starter):
    process = starter.begin()
    while len((starter.folder / "calls").read_text().splitlines()
              if (starter.folder / "calls").exists() else []) < 2:  # fmt: skip
        time.sleep(0.05)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == EXIT_STOPPED


def test_the_worst_code_wins_and_ranks_that_wait_for_a_failed_one_are_ended(starter):
    assert starter.begin(CODE_0=0, CODE_1=EXIT_USER_ERROR).wait(20) == EXIT_USER_ERROR
    # The rank that waits would end with the worse code 9.
    assert starter.begin(CODE_1=3, PATIENCE=2).wait(20) == 3


def test_it_goes_on_where_there_is_a_checkpoint_and_replaces_a_start_without_one(starter):
    def words() -> str:
        starter.begin(CODE_0=0, CODE_1=0).wait(20)
        return starter.calls()[0].partition("--output_dir ")[2].removeprefix(str(starter.out))

    starter.out.mkdir()
    assert words() == ""
    (starter.out / "config.yaml").touch()
    assert words() == " --overwrite true"
    (starter.out / "adapter").mkdir()
    assert words() == "", "a finished model is never replaced: the run refuses"
    (starter.out / "checkpoints" / "step-00000200").mkdir(parents=True)
    assert words() == " --train.resume auto"


def training(words: list[str]) -> None:
    """Words after the first, OUTPUT_DIR, are options of a training that a configuration takes."""
    out, *flags = words
    config = load_config([*flags, "--output_dir", out])
    assert config.train.save_every == 200 and config.ds_config == "zero1"


def test_the_kubernetes_job_has_a_jobs_fields_and_a_trainings_flags():
    job = yaml.safe_load((CLUSTER / "job.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert job.keys() == {"apiVersion", "kind", "metadata", "spec"}
    spec = job["spec"]
    assert spec.keys() == {"backoffLimit", "podFailurePolicy", "template"}
    pod = spec["template"]["spec"]
    assert pod.keys() == {"restartPolicy", "terminationGracePeriodSeconds", "containers", "volumes"}
    assert pod["restartPolicy"] == "Never", "a failure policy needs it"
    codes = {code: rule["action"] for rule in spec["podFailurePolicy"]["rules"]
             for code in rule.get("onExitCodes", {}).get("values", [])}  # fmt: skip
    assert codes == {EXIT_USER_ERROR: "FailJob", EXIT_STOPPED: "Ignore"}
    (container,) = pod["containers"]
    assert container.keys() <= {"name", "image", "args", "env", "resources", "volumeMounts"}
    named = {rule["onExitCodes"]["containerName"] for rule in spec["podFailurePolicy"]["rules"]
             if "onExitCodes" in rule}  # fmt: skip
    assert named == {container["name"]}
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    assert all(isinstance(word, str) for word in container["args"])
    training(list(container["args"]))


def test_the_skypilot_task_has_a_tasks_fields_and_a_trainings_flags():
    task = yaml.safe_load((CLUSTER / "sky.yaml").read_text())
    assert task.keys() <= {"name", "workdir", "num_nodes", "resources", "envs", "file_mounts",
                           "setup", "run"}  # fmt: skip
    assert task["resources"].keys() <= {"accelerators", "use_spot", "disk_size", "job_recovery"}
    assert task["resources"]["job_recovery"]["recover_on_exit_codes"] == [EXIT_STOPPED]
    for text in (task["setup"], task["run"]):
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    words = shlex.split(task["run"].replace("\\\n", " ").partition("exec ")[2])
    assert (ROOT / words[0]).is_file()
    training(words[1:])
    extras(task["setup"])


def extras(text: str) -> None:
    """Every '.[a,b]' names extras of ours."""
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    found = {one for names in re.findall(r"\.\[([\w,]+)\]", text) for one in names.split(",")}
    assert found and found <= set(known)


def test_the_dockerfile_is_one_and_copies_what_there_is():
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.M).replace("\\\n", " ")
    lines = [line.split(None, 1) for line in text.splitlines() if line.strip()]
    assert lines[0][0] == "FROM" and lines[-1][0] == "ENTRYPOINT"
    assert {word for word, _ in lines} <= {"FROM", "ARG", "ENV", "RUN", "WORKDIR", "COPY",
                                           "ENTRYPOINT"}  # fmt: skip
    for word, rest in lines:
        if word == "COPY":
            assert all((ROOT / name).exists() for name in rest.split()[:-1]), rest
        if word == "RUN":
            subprocess.run(["bash", "-n"], input=rest, text=True, check=True)
    (entry,) = yaml.safe_load(lines[-1][1])
    assert ROOT / entry.removeprefix("/opt/mipic/") == START and os.access(START, os.X_OK)
    extras(text)
    command = DOCKERFILE.read_text().replace("\\\n#", " ")
    words = shlex.split(re.search(r"#   docker run .* mipic_llm +(/data/.*)", command)[1])
    load_config([*words[1:], "--output_dir", words[0]])
