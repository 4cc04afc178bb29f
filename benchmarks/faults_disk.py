"""Faults of the disk, for the suite `faults`: a damaged checkpoint, no room."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.faults_lab import CELLS, EVERY, STEPS, Lab, Tally, adapter_of


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
        text, equal = lab.tail(out), adapter_of(out) == adapter_of(lab.whole(cell)[0])
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
                equal = adapter_of(out) == adapter_of(lab.whole(cell)[0])
            else:
                problem = problem or ("" if set(codes) == {2} else f"{codes}: {text}")
                full.filler.unlink(missing_ok=True)
                wrong, equal, lost = lab.end(cell, out)
                problem = problem or wrong
            tally.add(cell, problem or ("" if equal else "another adapter"), equal, lost)
            print(f"  lines of warning: {said}")
    return tally
