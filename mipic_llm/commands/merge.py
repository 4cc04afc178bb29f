"""mipic merge"""

from __future__ import annotations

from mipic_llm.config import load_config
from mipic_llm.config.merging import MergeFlags, check_merge
from mipic_llm.errors import EXIT_DONE

ABOUT = """Scale what a run learnt, or merge what several runs of one base learnt. One process.

  mipic merge --runs RUN --scale 0.5 --to DIR                    half way from base to run
  mipic merge --runs RUN --scale 0 .25 .5 .75 1 1.2 --to DIR     the best of them on validation data
  mipic merge --runs RUN1 RUN2 RUN3 --to DIR                     their average
  mipic merge --runs RUN1 RUN2 --how slerp --to DIR              their average on the sphere

DIR is like the directory of a run: export and evaluate read it."""


def main(argv: list[str]) -> int:
    uses = ("model.name", "model.trust_remote_code", "eval.batch_size", "tracking.mlflow",
            "tracking.experiment", "tracking.run_name")  # fmt: skip
    config = load_config(argv, extra=MergeFlags, about=ABOUT, uses=uses)
    check_merge(config.extra)
    from mipic_llm.export.merge import merge

    merge(config)
    return EXIT_DONE
