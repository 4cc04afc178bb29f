"""Write portable models from a run: its adapter, a merged model, or a shallow cut.

python launch/export.py --output_dir RUN                       adapter of the newest checkpoint
python launch/export.py --output_dir RUN --merged              base and adapter in one model
python launch/export.py --output_dir RUN --layers 3 --dim 64   a model cut after layer 3
"""

from __future__ import annotations

import os
from dataclasses import dataclass

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

from mipic_llm.config.read import load_config, run_main  # noqa: E402
from mipic_llm.config.schema import opt  # noqa: E402


@dataclass
class Flags:
    checkpoint: str = opt("auto", "checkpoint directory to export; auto = the finished model of "
                          "the run, else its newest complete checkpoint")  # fmt: skip
    merged: bool = opt(False, "also write a merged model (LoRA runs)")
    to: str | None = opt(None, "directory to write into; None = output_dir")
    layers: int | None = opt(None, "write a model cut after this layer (1-based)")
    dim: int | None = opt(None, "its width: the first channels of the readout; None = all")


def main(argv: list[str]) -> int:
    about = "Write portable models from a run, and prove them by reloading. One process."
    config = load_config(argv, extra=Flags, about=about)
    from mipic_llm.training.exporting import export  # after the flags: --help must stay quick

    return export(config)


if __name__ == "__main__":
    run_main(main)
