"""The commands of one trial, what they read, and what was recorded of them.

A step leaves <step>.done.json or <step>.failed.json beside its log.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mipic_llm.config import Config, load_config, need
from mipic_llm.config.fields import spelled
from mipic_llm.config.files import find_file
from mipic_llm.evaluation.read import suite_specs
from mipic_llm.model.files import exported
from mipic_llm.study.spec import TEXTS, Study, Trial


class Job:
    """The commands of one trial, what they read, and where they leave their files."""

    def __init__(self, study: Study, trial: Trial, out: Path) -> None:
        self.study, self.trial = study, trial
        self.folder = out / "runs" / str(trial)
        self.model = self.folder / "train" if trial.seed is not None else None
        self.flags = study.settings | study.conditions[trial.condition]
        if trial.seed is not None:
            self.flags |= study.methods[trial.method] | {"seed": trial.seed}
        else:  # read as the methods' recipe says: readout of inner layers, tokens of a text
            self.flags = {k: v for k, v in self.flags.items()
                          if k.startswith("model.") or k == "data.max_length"}  # fmt: skip

    def config(self) -> Config:
        """The trial's training configuration. Raises UserError for settings that are none."""
        config = load_config(["--recipe", self.study.recipe, *as_flags(self.flags)])
        need(not config.model.trust_remote_code, "model.trust_remote_code: a study's file cannot "
             "ask for code that comes with a model; train that one by hand")  # fmt: skip
        return config

    def steps(self) -> list[str]:
        """Names of its commands: training first (unless untrained), then each evaluation."""
        evaluations = [f"evaluate{i}" for i in range(len(self.study.evaluate))]
        return [*(["train"] if self.model else []), *evaluations]

    def command(self, step: str) -> list[str]:
        """The words of a step; those of an evaluation only once the training has ended."""
        if step == "train":
            flags = {"recipe": self.study.recipe, "output_dir": str(self.model), "overwrite": True,
                     "tracking.run_name": str(self.trial)}  # fmt: skip
            if self.study.ds_config:
                flags["ds_config"] = self.study.ds_config
            return [*self._program(step), *as_flags(flags), *as_flags(self.flags)]
        number = int(step.removeprefix("evaluate"))
        flags = {"output_dir": str(self.folder / f"scores{number}"), "rows": True}
        flags |= self.study.evaluate[number]
        if self.model is None:
            flags |= self.flags | {"recipe": self.study.recipe}
            flags["model"] = self.flags.get("model.name", "quickstart")
        else:
            flags["model"] = str(exported(self.model) or self.model / "merged")
        flags["data.max_length"] = self.study.max_length
        wanted = {k: v for k, v in flags.items() if v not in (None, [])}
        return [*self._program("evaluate"), *as_flags(wanted)]

    def _program(self, name: str) -> list[str]:
        if self.study.ranks == 1:
            return [sys.executable, "-m", "mipic_llm", name]
        launcher = Path(sys.executable).with_name("deepspeed")
        ranks = ["--num_accelerators", str(self.study.ranks)]
        return [sys.executable, str(launcher), *ranks, "--module", "mipic_llm", name]

    def reads(self, step: str) -> list[str]:
        """The files and folders whose content decides what a step gives, as specs."""
        config = self.config()
        found = [str(find_file("recipes", self.study.recipe))]
        found += [config.model.name] if Path(config.model.name).is_dir() else []
        if step == "train":
            if self.study.ds_config:
                found.append(str(find_file("ds_configs", self.study.ds_config)))
            return [*found, *config.training_files, *config.data.validation]
        e = self.study.evaluate[int(step.removeprefix("evaluate"))]
        suite = suite_specs(e["suite"]) if e.get("suite") else []
        return [*found, *(spec for key in TEXTS for spec in e.get(key) or ()), *suite]


def as_flags(values: dict[str, Any]) -> list[str]:
    """{"objective.dims": [16, 384]} -> ["--objective.dims", "16", "384"]; null is `none`."""
    words: list[str] = []
    for key, value in values.items():
        items = (value or [None]) if isinstance(value, list) else [value]
        words += [f"--{key}", *map(spelled, items)]
    return words


def read_done(folder: Path, step: str = "train") -> dict[str, Any] | None:
    """What was recorded of a finished step: command, code, data, commit, seconds. None where there
    is nothing, or nothing that can be read: the step is run again."""
    return _read(mark(folder, step, "done"))


def read_failed(folder: Path, step: str) -> dict[str, Any] | None:
    """What was recorded of a step that failed: code, reason, seconds."""
    found = _read(mark(folder, step, "failed"))
    return found if found and "reason" in found else None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def write_mark(folder: Path, step: str, kind: str, row: dict[str, Any]) -> None:
    mark(folder, step, kind).write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")


def mark(folder: Path, step: str, kind: str) -> Path:
    return folder / f"{step}.{kind}.json"


def folders(study: Study, out: Path) -> Iterator[tuple[Trial, Path]]:
    """Every trial and its folder."""
    return ((trial, out / "runs" / str(trial)) for trial in study.trials())
