"""A rank whose launcher is gone stops as if the launcher had told it to.

`kill PID` of the deepspeed command ends that process alone: its child, which started the ranks,
lives on and so do they. So each rank looks whether the launchers above it are still there.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

EVERY = 1.0  # seconds
_NAMES = {"deepspeed", "ds", "deepspeed.launcher.runner", "deepspeed.launcher.launch", "torchrun",
          "torch.distributed.run", "torch.distributed.launch"}  # fmt: skip
_started = False


def watch() -> None:
    """From now on a lost launcher sends this process a SIGTERM. Without a launcher nothing is done;
    a second call neither."""
    global _started
    above = [] if _started else launchers(os.getpid())
    if above:
        _started = True
        threading.Thread(target=_look, args=(above,), name="launcher", daemon=True).start()


def _look(above: list[tuple[int, str]]) -> None:
    pause = threading.Event()
    while all(_stat(pid)[1] == began for pid, began in above):
        pause.wait(EVERY)
    try:
        print("the launcher is gone: this rank saves and stops", file=sys.stderr, flush=True)
    except OSError:
        pass  # it may have taken the terminal along
    os.kill(os.getpid(), signal.SIGTERM)


def launchers(pid: int) -> list[tuple[int, str]]:
    """(pid, start) of the processes right above `pid` that are launchers of ranks."""
    found = []
    while is_launcher(_words(pid := _stat(pid)[0])):
        found.append((pid, _stat(pid)[1]))
    return found


def is_launcher(words: list[str]) -> bool:
    """Whether a command line is a launcher itself; a shell or a script that calls one is not, and
    may end before it."""
    rest = [word for word in words if word != "-u"]
    if rest and Path(rest[0]).name.startswith("python"):
        rest = rest[1:]
    name = rest[1] if rest[:1] == ["-m"] and len(rest) > 1 else Path((rest or [""])[0]).name
    return name in _NAMES


def _words(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return []


def _stat(pid: int) -> tuple[int, str]:
    """(parent, time of start) of a process; (0, "") where it is gone, or there is no /proc."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return 0, ""
    state, parent, *rest = text.rpartition(")")[2].split()
    return (0, "") if state == "Z" else (int(parent), rest[17])
