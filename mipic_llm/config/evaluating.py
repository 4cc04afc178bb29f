"""The options of `mipic evaluate`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from mipic_llm.config.check import need
from mipic_llm.config.fields import Row, Section, opt

OUTPUT = "outputs/evaluation"  # the default of --output_dir


class EvaluateFlags(Section, frozen=False):
    model: str | None = opt(None, "our export (adapter or merged), a sentence-transformers or "
                            "transformers directory, a Hugging Face id, or quickstart; None = "
                            "model.name")  # fmt: skip
    data: list[str] = opt([], "files or folders, one task each: sentence1, sentence2, score | "
                          "sentence1, sentence2, label | text, label | a BEIR folder; demo = the "
                          "built-in pairs")  # fmt: skip
    suite: str | None = opt(None, "YAML with a list of {name, type, path | train, validation, "
                            "test}: a file, or the name of a shipped one")  # fmt: skip
    mteb: list[str] = opt([], "MTEB tasks by name (needs the mteb package and the hub's data)")
    rows: bool = opt(True, "also write rows.npz: what the model said of each test row, from which "
                     "`mipic compare` makes intervals")  # fmt: skip
    pca_text: list[str] = opt([], "training text: adds rows of post-hoc PCA fitted on it")
    lens_text: list[str] = opt([], "training text: adds rows of inner layers mapped onto the last "
        "one by least squares fitted on it, as export --lens does")  # fmt: skip
    bits: list[int] = opt([], "also score vectors as an index stores them: 8 = int8 with a range "
                          "for each channel, 1 = the sign of each channel")  # fmt: skip
    bits_text: list[str] = opt([], "text that the ranges of --bits 8 are fitted on; none = "
        "--pca_text, else the texts that are scored, without labels")  # fmt: skip
    centre: bool = opt(False, "--bits 1: take off each channel's mean over that text first")
    asymmetric: bool = opt(False, "searches: also queries of each layer against documents of every "
                           "other, and the time of a query to each layer")  # fmt: skip
    old: str | None = opt(None, "searches: also this older model's queries, and the new ones, "
                          "against its document vectors")  # fmt: skip
    layers: list[int] | None = opt(None, "layers to score (1-based); None = all")
    dims: list[int] | None = opt(None, "prefix widths to score; None = the trained ones, else 16, "
                                 "32, 64 .. full width")  # fmt: skip


def check_bits(bits: Collection[int], bits_text: Sequence[str], centre: bool) -> None:
    """UserError where options of --bits stand without it."""
    need(not bits_text or not {1, 8}.isdisjoint(bits), "--bits_text: it goes with --bits 8 or 1")
    need(not centre or 1 in bits, "--centre: it goes with --bits 1")


def evaluate_flags(data: Iterable[Any], **told: Any) -> EvaluateFlags:
    """For a program, whose data may be rows in memory. UserError for a value of another type."""
    own = EvaluateFlags.of(Row(key, value, f"evaluate: {key}") for key, value in told.items())
    own.data = list(data)
    return own
