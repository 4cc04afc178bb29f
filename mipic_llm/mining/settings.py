"""The options of mining: which candidates may be negatives, and which of them are taken."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from mipic_llm.config import Section, need, opt
from mipic_llm.config.fields import Row
from mipic_llm.config.files import legal_path

# What mining reads of a training's options.
USES = (
    "ds_config", "overwrite", "seed", "model.name", "model.revision", "model.trust_remote_code",
    "model.attn", "model.pooling", "model.append_eos", "model.padding_side", "model.inner_norm",
    "model.quantization", "data.stream",
    "data.train", "data.sources", "data.max_length", "data.query_prompt", "data.document_prompt",
    "data.on_bad_rows", "data.ignore_columns", "data.cache_dir", "train.precision",
    "eval.batch_size", "eval.symmetric_prompt", "tracking.mlflow", "tracking.experiment",
    "tracking.run_name",
)  # fmt: skip


class MineSettings(Section):
    # fmt: off
    output: str = opt("outputs/mined.jsonl", "rows to write, .jsonl or .parquet; beside it a "
        "report (.md) and what it was made with (.yaml)")
    corpus: list[str] = opt([], "texts to choose from: files, folders (BEIR's too) or Hugging Face "
        "ids with text (and title) or sentence; empty = positives, negatives and bare texts of "
        "data.train")
    negatives: int = opt(4, "negatives per row", ge=1)
    range: str = opt("0:100", "LOW:HIGH: of a query's nearest texts, leave out the LOW nearest and "
        "look no further than the HIGH-th")
    absolute: float | None = opt(None, "a negative's score is at most this")
    relative: float | None = opt(0.95, "it is at most this share of the positive's score (NV-"
        "Retriever, arXiv 2407.15831); none = no such limit", gt=0)
    margin: float | None = opt(None, "it is at most the positive's score less this", ge=0)
    sampling: Literal["top", "random", "strata"] = opt("top", "of those within all limits: the "
        "nearest; any, by seed; or one from each of as many equal parts of their scores' span")
    short: Literal["keep", "drop"] = opt("keep", "rows that get fewer negatives than asked for")
    positives: str | None = opt(None, "LOW:HIGH: gives each unlabelled text the nearest text whose "
        "score is between these as its positive")
    rescore: str | None = opt(None, "a second model whose scores then decide: an embedding model, "
        "or a cross-encoder (through sentence-transformers)")
    # fmt: on

    @property
    def ranks(self) -> tuple[int, int]:
        return tuple(map(int, _span(self.range, r"\d{1,9}", "range", "10:50")))  # type: ignore

    @property
    def span(self) -> tuple[float, ...]:
        """Where the score of a positive lies that is found; empty where none are looked for."""
        return self.positives and _span(self.positives, r"-?\d*\.?\d+", "positives", "0.7:0.95")

    def check(self) -> Path:
        """-> the file to write. Raises UserError for what can be refused before data is read."""
        path, _ = legal_path(self.output), (self.ranks, self.span)
        legal = path.suffix in (".jsonl", ".parquet")
        need(legal, f"mine.output is {path}; give a file that ends in .jsonl or .parquet")
        return path


def _span(text: str, number: str, name: str, such: str) -> tuple[float, ...]:
    legal = re.fullmatch(f"({number}):({number})", text)
    low, high = map(float, legal.groups()) if legal else (1, 0)
    need(low < high, f"mine.{name} is {text[:40]!r}; give LOW:HIGH, such as {such}")
    return low, high


class MineFlags(Section):
    model: str | None = opt(None, "our export (adapter or merged), a sentence-transformers or "
                            "transformers directory, a Hugging Face id, or quickstart; None = "
                            "model.name")  # fmt: skip
    mine: MineSettings = Field(default_factory=MineSettings)


def flags_of(settings: Mapping[str, Any], model: str | None) -> tuple[MineFlags, dict[str, Any]]:
    """-> the flags from settings by their names, without mine., and the other settings."""
    own = [Row(f"mine.{k}", v) for k, v in settings.items() if k in MineSettings.model_fields]
    others = {k: v for k, v in settings.items() if k not in MineSettings.model_fields}
    return MineFlags.of([Row("model", model), *own]), others
