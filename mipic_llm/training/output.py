"""The output directory of a run: claimed by one process, cleared on demand, and its own records."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mipic_llm.config import Config, dump, need, read_record
from mipic_llm.errors import UserError
from mipic_llm.model.files import forms_of
from mipic_llm.report import ROWS
from mipic_llm.runtime import checkpoint
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.ranks import say
from mipic_llm.training.run import LiveRun
from mipic_llm.types import TURNED

# What some disks of clusters answer to a lock.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)


def claim_output(config: Config) -> IO | None:
    """Make output_dir ours: a lock against a second live run, and no silent mixing of runs."""
    out = Path(config.output_dir)
    problem = None
    lock = None
    if dist.rank() == 0:
        try:
            out.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW  # a link would empty what it leads to
            lock = os.fdopen(os.open(out / ".lock", flags, 0o666), "r+")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                say(f"note: the disk of {out} knows no locks; start no second run there")
            problem = _other_run(out, config)
        except BlockingIOError:
            problem = (
                f"output_dir: a run is writing to {out} right now; wait for it or name another"
            )
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            place = getattr(error, "filename", None) or out
            problem = f"output_dir: cannot write to {place}: {reason}; name another"
    problem = dist.from_first(problem)
    if problem:
        if lock:
            lock.close()
        raise UserError(problem)
    return lock


# What a run writes into its output_dir, and all that --overwrite deletes.
_FOLDERS = ("adapter", "merged", "mlruns", TURNED, ".adapter.new", ".merged.new", ".rehearsal")
_FILES = (
    "config.yaml", "environment.json", "metrics.jsonl", "metrics.jsonl.tmp", "scores.jsonl",
    "scores.jsonl.tmp", "table.txt", "parity.json", "loss.png", "quality.png", "rows.npz",
    "rows.npz.tmp", "rows-before.npz", "rows-before.npz.tmp", "comparison.json",
    "comparison.json.tmp", "mlflow.json", ".config.yaml.new", ".environment.json.new",
)  # fmt: skip


def _other_run(out: Path, config: Config) -> str | None:
    for path in (out / name for name in (*_FILES, *_FOLDERS)):
        if path.is_symlink():
            return f"output_dir: {path} is a link, which a run does not follow; remove it"
    # What a start that was killed leaves before config.yaml says whose directory this is.
    early = (".lock", ".rehearsal", ".config.yaml.new")
    kept = [p for p in out.iterdir() if p.name not in early]
    resume = config.train.resume
    own = resume == "auto" or Path(resume).resolve().is_relative_to(out.resolve())
    if not kept or (resume != "never" and own):
        return None
    if not config.overwrite or resume != "never":
        return (
            f"output_dir: {out} holds another run; name another, go on with --train.resume auto, "
            "or delete it with --overwrite true"
        )
    try:
        record = out / "config.yaml"
        if record.read_text("utf-8").startswith(("# recipe: ", "# from step ")):
            read_record(record)
            return None
    except (OSError, ValueError):  # ValueError: not UTF-8, or no configuration of ours
        pass
    return f"output_dir: {out} was not written by a run, so --overwrite will not delete it"


def clear(out: Path) -> None:
    """Delete what an earlier run left in its output_dir, nothing else; all ranks call."""
    problem = None
    if dist.rank() == 0:
        try:
            for folder in (out / "checkpoints", out / "best"):
                if folder.is_dir() and not folder.is_symlink():
                    checkpoint.delete_all(folder)
            for path in [*(out / name for name in _FOLDERS), *forms_of(out)]:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
            for name in reversed(_FILES):  # config.yaml, which says that they are ours, at last
                (out / name).unlink(missing_ok=True)
        except OSError as error:
            problem = f"output_dir: cannot delete {error.filename}: {error.strerror}"
    if problem := dist.from_first(problem):
        raise UserError(problem)


def deleted(run: LiveRun) -> list[str]:
    """What of the run's records is gone; config.yaml, which the export needs, is written again."""
    names = ("config.yaml", "environment.json", "metrics.jsonl")
    gone = [name for name in names if not (run.out / name).is_file()]
    if run.rank == 0 and "config.yaml" in gone:
        (run.out / "config.yaml").write_text(dump(run.config), encoding="utf-8")
    return gone


def keep_figures(begun: Path, out: Path) -> None:
    """Of a run that goes on in another directory, those of its model before training."""
    for name in ("scores.jsonl", ROWS["before"]):
        if (begun / name).is_file():
            shutil.copyfile(begun / name, out / name)


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Inside, rank 0 writes the first files of a run; what the disk refuses is a UserError on every
    rank. All ranks call."""
    problem = None
    try:
        yield
    except OSError as error:
        problem = f"output_dir: cannot write to {out}: {error.strerror}; make room or name another"
    problem = dist.from_first(problem)
    need(problem is None, str(problem))


def has_news(run: LiveRun) -> bool:
    """Whether config.yaml has something to say that it did not say before."""
    return run.step == 0 or bool(run.changes)


def put(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def record(run: LiveRun) -> str:
    """config.yaml: the values of now; what changed at which step stands in comments above."""
    path, mark = run.out / "config.yaml", "# from step "
    lines = path.read_text("utf-8", "replace").splitlines() if run.step and path.is_file() else []
    lines = [line for line in lines if line.startswith(mark)]
    lines += [f"{mark}{run.step} on: {' '.join(str(c).split())}" for c in run.changes]
    return "".join(f"{line}\n" for line in lines) + dump(run.config)
