"""mipic train"""

from __future__ import annotations

from mipic_llm.config import load_config
from mipic_llm.config.files import check_file
from mipic_llm.data.read.find import check_files

ABOUT = """Train a Matryoshka embedding model with DeepSpeed.

  mipic train --data.train mine.jsonl                                            one process
  deepspeed --num_gpus 8 --module mipic_llm train --ds_config zero2 [flags]      8 GPUs
  deepspeed --num_accelerators 2 --module mipic_llm train [flags]                2 CPU processes
  torchrun --nproc-per-node 8 -m mipic_llm train --ds_config zero2 [flags]       the same
  deepspeed launch/train.py --ds_config ds_configs/zero3.json        in a clone of the repository"""


def main(argv: list[str]) -> int:
    config = load_config(argv, about=ABOUT)
    # Before the seconds of imports:
    check_file("ds_config", "ds_configs", config.ds_config)
    check_files([*config.training_files, *config.data.validation])
    if config.data.check:
        from mipic_llm.training.data_check import check

        return check(config)
    from mipic_llm.training.loop import train

    return train(config)
