"""Run by `ranks.run_ranks` on every rank: launch/evaluate.py's whole path for many command lines.

argv: JSON file with a list of argument lists. Each writes its own --output_dir.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import torch

LAUNCH = Path(__file__).resolve().parents[1] / "launch" / "evaluate.py"


def main() -> None:
    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location("evaluate", LAUNCH)
    assert spec and spec.loader
    program = importlib.util.module_from_spec(spec)
    sys.modules["evaluate"] = program  # its dataclass looks its own module up
    spec.loader.exec_module(program)
    for args in json.loads(Path(sys.argv[1]).read_text()):
        program.main(args)


if __name__ == "__main__":
    main()
