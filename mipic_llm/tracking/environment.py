"""What a run ran on."""

from __future__ import annotations

import getpass
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from mipic_llm.config import Config
from mipic_llm.config.files import PACKAGE

PACKAGES = ("mipic_llm torch deepspeed transformers peft tokenizers datasets bitsandbytes mlflow "
            "numpy flash-attn sentence-transformers")  # fmt: skip

COMPUTE = "mipic_llm torch deepspeed transformers peft"  # what all ranks must have alike


def environment() -> dict[str, Any]:
    """Versions, processors and commit for environment.json; no host name and no path."""
    record: dict[str, Any] = {"python": platform.python_version(), "platform": platform.platform()}
    record |= versions(PACKAGES)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8", "replace").splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    record["cpu"] = models[0] if models else platform.processor() or platform.machine()
    record["cores"] = cores()
    record["cuda"], record["gpus"] = None, []
    if torch := sys.modules.get("torch"):  # loaded in a run; importing it here would take seconds
        record["cuda"] = torch.version.cuda
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        record["gpus"] = [torch.cuda.get_device_name(i) for i in range(count)]
    record["commit"] = commit()
    return record


def versions(packages: str = COMPUTE) -> dict[str, str | None]:
    """Of packages, by name; None where one is not installed."""
    found: dict[str, str | None] = {}
    for package in packages.split():
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def cores() -> int | None:
    """Those that this process may use."""
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable else os.cpu_count()


def run_tags(config: Config) -> dict[str, str]:
    """What MLflow's pages show and filter by: source, user, the user's own commit and whether files
    differ from it, launcher, backbone, objective."""
    found = {
        "mlflow.source.name": "mipic train", "mlflow.source.type": "LOCAL",
        "launcher": _launcher(), "backbone": config.model.name, "objective": config.objective.name,
    }  # fmt: skip
    try:
        found["mlflow.user"] = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        pass
    if head := _git(Path.cwd(), "rev-parse HEAD"):
        found["mlflow.source.git.commit"] = head
        changes = _git(Path.cwd(), "status --porcelain -uno")
        found |= {} if changes is None else {"git.dirty": str(bool(changes)).lower()}
    return found


def _launcher() -> str:
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env:
        return "torchrun"
    # Not LOCAL_RANK: a run without a launcher sets it itself.
    return (
        "deepspeed" if "LOCAL_SIZE" in env else "slurm" if "SLURM_JOB_ID" in env else "one process"
    )


def _git(folder: Path, args: str) -> str | None:
    """What git says there; None where there is no git, or no repository."""
    try:
        return subprocess.run(["git", "-C", str(folder), *args.split()], check=True, text=True,
                              capture_output=True, timeout=5).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None


def commit() -> str | None:
    """The commit of our checkout, with +changes when files differ from it; None outside of one."""
    # A package installed inside somebody else's checkout is not that checkout: ls-files fails.
    asked = ("ls-files --error-unmatch __init__.py", "rev-parse HEAD", "status --porcelain -uno")
    listed, head, changes = (_git(PACKAGE, args) for args in asked)
    return head + ("+changes" if changes else "") if listed and head else None
