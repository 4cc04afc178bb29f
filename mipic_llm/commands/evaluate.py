"""mipic evaluate"""

from __future__ import annotations

from mipic_llm.config import load_config
from mipic_llm.config.evaluating import OUTPUT, EvaluateFlags
from mipic_llm.config.files import check_file
from mipic_llm.data.read.find import check_files

ABOUT = """Score a finished model at every layer and size.

  mipic evaluate --model DIR --data a.jsonl b.jsonl --dims 16 64 --output_dir OUT
  deepspeed --num_accelerators 2 --module mipic_llm evaluate --ds_config zero3 --model DIR ..."""


# What it reads of a training's options: how vectors are made, and how many at a time.
USES = (
    "ds_config", "output_dir", "overwrite", "model.name", "model.revision",
    "model.trust_remote_code", "model.attn", "model.pooling", "model.append_eos",
    "model.padding_side", "model.inner_norm", "model.quantization", "data.max_length",
    "data.query_prompt", "data.document_prompt", "data.stream", "train.precision",
    "eval.batch_size", "eval.symmetric_prompt", "tracking.mlflow", "tracking.experiment",
    "tracking.run_name",
)  # fmt: skip


def main(argv: list[str]) -> int:
    config = load_config(argv, extra=EvaluateFlags, about=ABOUT, uses=USES,
                         defaults={"output_dir": OUTPUT})  # fmt: skip
    check_file("ds_config", "ds_configs", config.ds_config)
    flags = config.extra
    check_file("--suite", "suites", flags.suite)
    check_files([*flags.data, *flags.pca_text, *flags.lens_text, *flags.bits_text])
    from mipic_llm.evaluation.judge import evaluate

    return evaluate(config)
