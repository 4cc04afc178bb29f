"""Run by `harness.in_child`: calls MODULE:FUNCTION with JSON arguments, writes JSON (rank 0).

The deepspeed launcher adds --local_rank in front; it is read from the environment instead.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder: its names are common
from benchmarks import harness  # noqa: E402


def main() -> None:
    target, arguments, out = [a for a in sys.argv[1:] if not a.startswith("--local_rank")]
    arguments = json.loads(arguments)
    if threads := arguments.pop("threads", 0):
        import torch

        torch.set_num_threads(threads)
    result = harness.call(target, **arguments)
    if os.environ.get("RANK", "0") == "0":
        Path(out).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
