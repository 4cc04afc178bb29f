"""What a run ran on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any


def environment() -> dict[str, Any]:
    """What the run ran on, for environment.json: versions, processors, commit; no host or path."""
    packages = "torch deepspeed transformers peft tokenizers datasets bitsandbytes mlflow numpy"
    record: dict[str, Any] = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("mipic_llm", *packages.split(), "flash-attn", "sentence-transformers"):
        try:
            record[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            record[package] = None
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8", "replace").splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    record["cpu"] = models[0] if models else platform.processor() or platform.machine()
    usable = getattr(os, "sched_getaffinity", None)
    record["cores"] = len(usable(0)) if usable else os.cpu_count()
    record["cuda"], record["gpus"] = None, []
    if torch := sys.modules.get("torch"):  # a run has it loaded; nobody else should pay for it
        record["cuda"] = torch.version.cuda
        if torch.cuda.is_available():
            count = range(torch.cuda.device_count())
            record["gpus"] = [torch.cuda.get_device_name(i) for i in count]
    record["commit"] = _commit(Path(__file__).resolve().parents[1])
    return record


def _commit(folder: Path) -> str | None:
    """The commit of our checkout, with +changes when files differ from it; None outside of one."""
    git = ["git", "-C", str(folder)]
    try:
        # A package installed inside somebody else's checkout is not that checkout.
        subprocess.run([*git, "ls-files", "--error-unmatch", "__init__.py"],
                       check=True, capture_output=True, timeout=5)  # fmt: skip
        head, changes = (
            subprocess.run([*git, *args], check=True, capture_output=True, text=True, timeout=5)
            for args in (["rev-parse", "HEAD"], ["status", "--porcelain", "-uno"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("+changes" if changes.stdout.strip() else "")
