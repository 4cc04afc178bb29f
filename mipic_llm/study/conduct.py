"""`mipic study`: run what is missing, then tables, pictures and the MLflow parent run."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mipic_llm.errors import EXIT_DONE, UserError
from mipic_llm.study.checks import check, one_length
from mipic_llm.study.collect import collect, costs, provenance, unfinished, write_csv
from mipic_llm.study.pictures import study_page
from mipic_llm.study.runner import run_all
from mipic_llm.study.spec import Study, Trial, read_study
from mipic_llm.study.tables import markdown
from mipic_llm.tracking import Parent, Tracker


def conduct(
    path: str, out: Path | None, *, jobs: int, mlflow: str, report_only: bool = False,
    keep: bool = False,
) -> int:  # fmt: skip
    """-> exit code 0, or 1 when a trial failed (the others are done and reported all the same).

    keep: finished trials of other code or data are not run again. Raises UserError for a study
    that cannot be run.
    """
    study = read_study(path)
    out = out or Path("outputs") / f"study-{study.name}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".lock").touch()
    except OSError as error:
        raise UserError(f"output_dir: cannot write to {out}: {error.strerror}") from None
    failed: list[Trial] = []
    if not report_only:
        with _claimed(out):
            checked = check(study, out)
            study = one_length(study, out)
            parent = Parent(mlflow, out, study.name)
            told = study._asdict() | {"checked": checked}
            (out / "study.json").write_text(json.dumps(told, indent=1, default=tuple))
            trials = len(study.trials())
            print(f"{study.name}: {trials} trials, {jobs} at a time, in {out}", flush=True)
            with _ended(parent.run):
                failed = run_all(study, out, jobs=jobs, extra_env=parent.env(), keep=keep)
                text = _report(study, out, bool(failed))
    else:
        text = _report(study, out, False)
        parent = Parent(mlflow, out, study.name)
    print(f"\n{text}\n\ntables: {out / 'study.md'}, figures: {out / 'figures.csv'}, page: "
          f"{out / 'report.html'}", flush=True)  # fmt: skip
    for name in ("study.md", "figures.csv", "report.html", "study.json"):
        if (out / name).is_file():
            parent.run.artifact(out / name)
    parent.run.describe(text.partition("\n## ")[0])
    parent.run.close("FAILED" if failed else "FINISHED")
    return 1 if failed else EXIT_DONE


def _report(study: Study, out: Path, failed: bool) -> str:
    """Write study.md, figures.csv and report.html. -> study.md. UserError where nothing is done."""
    cells, missing = collect(study, out), unfinished(study, out)
    if not cells:
        first = f"; {missing[0]}" if failed else ""
        raise UserError(f"{out} holds no finished trial of {study.name}{first}")
    notes = [*_checked(out / "study.json"), *provenance(study, out)]
    text = markdown(study, cells, costs(study, out), notes, missing)
    (out / "study.md").write_text(text + "\n", encoding="utf-8")
    write_csv(cells, out / "figures.csv")
    study_page(study, cells, out, text)
    return text


@contextmanager
def _ended(run: Tracker) -> Iterator[None]:
    """An error inside ends the study's run in MLflow too, where it would go on for ever."""
    try:
        yield
    except BaseException as error:
        run.close("FAILED" if isinstance(error, Exception) else "KILLED")
        raise


@contextmanager
def _claimed(out: Path) -> Iterator[None]:
    """Inside, `out` is this study's alone: a second one would run the same trials and empty their
    logs. Raises UserError where another is running."""
    with (out / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"output_dir: a study is running in {out} right now; wait for it or "
                "name another (--report_only shows what is done so far)"
            ) from None
        yield


def _checked(record: Path) -> list[str]:
    """What the start that ran the trials found out about the data."""
    try:
        return [str(line) for line in json.loads(record.read_text("utf-8"))["checked"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
