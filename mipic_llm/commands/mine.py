"""mipic mine"""

from __future__ import annotations

from mipic_llm.config import load_config
from mipic_llm.config.files import check_file
from mipic_llm.data.read.find import check_files
from mipic_llm.mining.settings import USES, MineFlags

ABOUT = """Find hard negatives (or pairs) for training rows: the texts that a model takes for near.

  mipic mine --model DIR --data.train rows.jsonl --mine.output mined.jsonl
  mipic mine --data.train rows.jsonl --mine.corpus passages.jsonl --mine.range 10:50
  deepspeed --num_accelerators 2 --module mipic_llm mine --model DIR --data.train rows.jsonl"""


def main(argv: list[str]) -> int:
    config = load_config(argv, extra=MineFlags, about=ABOUT, uses=USES)
    config.extra.mine.check()
    check_file("ds_config", "ds_configs", config.ds_config)
    check_files([*config.training_files, *config.extra.mine.corpus])
    from mipic_llm.mining.run import mine

    return mine(config)
