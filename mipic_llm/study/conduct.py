"""`mipic study`: run what is missing, then tables, pictures and the MLflow parent run."""

from __future__ import annotations

import json
from pathlib import Path

from mipic_llm.errors import EXIT_DONE, UserError
from mipic_llm.study.collect import collect, costs, provenance, write_csv
from mipic_llm.study.pictures import study_page
from mipic_llm.study.runner import check, run_all
from mipic_llm.study.spec import read_study
from mipic_llm.study.tables import markdown
from mipic_llm.tracking import Parent


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
    except OSError as error:
        raise UserError(f"output_dir: cannot write to {out}: {error.strerror}") from None
    failed = []
    if not report_only:
        check(study, out)
    parent = Parent(mlflow, out, study.name)
    if not report_only:
        (out / "study.json").write_text(json.dumps(study._asdict(), indent=1, default=tuple))
        print(f"{study.name}: {len(study.trials())} trials, {jobs} at a time, in {out}", flush=True)
        failed = run_all(study, out, jobs=jobs, extra_env=parent.env(), keep=keep)
    cells = collect(study, out)
    if not cells:
        first = f"; the first failure: {out / 'runs' / str(failed[0])}" if failed else ""
        raise UserError(f"{out} holds no finished trial of {study.name}{first}")
    layers = sorted({key.point.layer for key in cells}, reverse=True)
    shown = layers if len(layers) < 4 else [layers[0], layers[len(layers) // 2], layers[-1]]
    text = markdown(study, cells, costs(study, out), shown, provenance(study, out))
    (out / "study.md").write_text(text + "\n", encoding="utf-8")
    write_csv(cells, out / "figures.csv")
    study_page(study, cells, out, text)
    print(f"\n{text}\n\ntables: {out / 'study.md'}, figures: {out / 'figures.csv'}, page: "
          f"{out / 'report.html'}", flush=True)  # fmt: skip
    for name in ("study.md", "figures.csv", "report.html", "study.json"):
        if (out / name).is_file():
            parent.run.artifact(out / name)
    parent.run.close("FAILED" if failed else "FINISHED")
    return 1 if failed else EXIT_DONE
