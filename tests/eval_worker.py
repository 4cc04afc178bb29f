"""Run by `ranks.run_ranks` on every rank: `mipic evaluate`'s whole path for many command lines.

argv: JSON file with a list of argument lists. Each writes its own --output_dir.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from mipic_llm.commands import evaluate


def main() -> None:
    torch.set_num_threads(1)
    for args in json.loads(Path(sys.argv[1]).read_text()):
        evaluate.main(args)


if __name__ == "__main__":
    main()
