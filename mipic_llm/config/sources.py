"""One source of training data with settings of its own: an item of `data.sources`."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from mipic_llm.config.fields import Section, opt

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
