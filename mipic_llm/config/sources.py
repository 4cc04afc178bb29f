"""Items of lists in a recipe: a source of training data with settings of its own, and a stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from pydantic import Field

from mipic_llm.config.fields import Section, opt
from mipic_llm.errors import UserError

Schedule = Literal["cosine", "linear", "constant", "wsd"]

# fmt: off


class SourceConfig(Section):
    path: str = Field(description="a file, directory, glob or Hugging Face id, as in data.train")
    name: str | None = opt(None, "what metrics and lines call it; None = the path")
    weight: float = opt(1.0, "passes over it per epoch", gt=0)
    query_prompt: str | None = opt(None, "text before its anchors; None = data.query_prompt")
    document_prompt: str | None = opt(None, "text before its other texts, likewise")
    max_length: int | None = opt(None, "tokens per text; None = data.max_length", ge=4)
    negatives: int | None = opt(None, "hard negatives used per row at most; None = data.negatives",
        ge=0)
    in_batch: bool = opt(True, "false = only a row's own negatives count, not the texts of "
        "other rows")
    columns: dict[str, str] = opt({}, "a name of a row format (anchor, positive, negative, text ..)"
        ": the column of this source that holds it")

    # fmt: on
    def changes(self) -> dict[str, Any]:
        """Options of a run that are others for the texts of this source."""
        found = {"data.query_prompt": self.query_prompt, "data.max_length": self.max_length,
                 "data.document_prompt": self.document_prompt}  # fmt: skip
        return {key: value for key, value in found.items() if value is not None}


@contextmanager
def entry_of_stages(i: int) -> Iterator[None]:
    """A UserError inside says which stage (from 0) it is about."""
    try:
        yield
    except UserError as error:
        raise UserError(f"entry {i + 1} of stages: {error}") from None


# What all stages have in common: what is exported, what was made before the first step.
_SHARED = ("objective.dims", "objective.preset", "sia.memory", "teacher.name", "teacher.revision",
           "teacher.max_length")
_OWN = ("objective.", "sia.", "pic.", "scored.", "ese.", "mic.", "teacher.")


# fmt: off
class StageConfig(Section):
    name: str | None = opt(None, "what lines call it")
    steps: int = Field(description="optimizer steps", gt=0)
    train: list[str] = opt([], "what it trains on, as data.train")
    sources: list[SourceConfig] = opt([], "or this, as data.sources")
    learning_rate: float | None = opt(None, "peak rate, to which that of heads keeps its "
        "proportion; None = train.learning_rate", gt=0)
    schedule: Schedule | None = opt(None, "of the rate within it; None = train.schedule")
    warmup_ratio: float | None = opt(None, "share of its steps; None = train.warmup_ratio", ge=0,
        le=1)
    batch_size: int | None = opt(None, "anchors per rank and step; None = train.batch_size", ge=1)
    max_length: int | None = opt(None, "tokens per text; None = data.max_length", ge=4)
    options: dict[str, Any] = opt({}, "its own values of options of objective, sia, pic, scored, "
        "ese, mic and teacher, such as {objective.name: mrl, objective.tau: 0.02}")

    # fmt: on
    @property
    def training(self) -> list[str | SourceConfig]:
        """What to train on, in order."""
        return [*self.train, *self.sources]

    def changes(self) -> dict[str, Any]:
        """Options of a run that are others in this stage. UserError for one that all share."""
        for key in self.options:
            if key in _SHARED or not key.startswith(_OWN):
                raise UserError(f"options has {key}, which all stages share; give it beside stages")
        if {"pic.ladder", "pic.checkpoints"} <= self.options.keys():
            raise UserError("options has pic.ladder and pic.checkpoints; leave one out")
        found = {"train.batch_size": self.batch_size, "data.max_length": self.max_length}
        return self.options | {key: value for key, value in found.items() if value is not None}
