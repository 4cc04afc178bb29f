"""Train: `deepspeed launch/train.py --ds_config ds_configs/zero3.json` (or torchrun, or python)."""

from __future__ import annotations

import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

from mipic_llm.config.read import load_config, run_main  # noqa: E402


def main(argv: list[str]) -> int:
    config = load_config(argv, about="Train a Matryoshka embedding model with DeepSpeed.")
    from mipic_llm.training.loop import train  # after the flags: --help must not load DeepSpeed

    return train(config)


if __name__ == "__main__":
    run_main(main)
