"""mipic evaluate"""

from __future__ import annotations

from mipic_llm.config import Section, load_config, opt
from mipic_llm.config.files import check_file
from mipic_llm.data.read.find import check_files

ABOUT = """Score a finished model at every layer and size.

  mipic evaluate --model DIR --data a.jsonl b.jsonl --dims 16 64 --output_dir OUT
  deepspeed --num_accelerators 2 --module mipic_llm evaluate --ds_config zero3 --model DIR ..."""


# What it reads of a training's options: how vectors are made, and how many at a time.
USES = (
    "ds_config",
    "output_dir",
    "overwrite",
    "model.name",
    "model.revision",
    "model.trust_remote_code",
    "model.attn",
    "model.pooling",
    "model.append_eos",
    "model.padding_side",
    "model.inner_norm",
    "data.max_length",
    "data.query_prompt",
    "data.document_prompt",
    "train.precision",
    "eval.batch_size",
    "eval.symmetric_prompt",
    "tracking.mlflow",
    "tracking.experiment",
    "tracking.run_name",
)


class Flags(Section):
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
                           "other")  # fmt: skip
    old: str | None = opt(None, "searches: also this older model's queries, and the new ones, "
                          "against its document vectors")  # fmt: skip
    layers: list[int] | None = opt(None, "layers to score (1-based); None = all")
    dims: list[int] | None = opt(None, "prefix widths to score; None = the trained ones, else 16, "
                                 "32, 64 .. full width")  # fmt: skip


def main(argv: list[str]) -> int:
    config = load_config(argv, extra=Flags, about=ABOUT, uses=USES)
    check_file("ds_config", "ds_configs", config.ds_config)
    flags = config.extra
    check_file("--suite", "suites", flags.suite)
    check_files([*flags.data, *flags.pca_text, *flags.lens_text, *flags.bits_text])
    from mipic_llm.evaluation.judge import evaluate

    return evaluate(config)
