"""Run by `ranks.run_ranks` on every rank: trains each case a few steps, prints rank 0's losses.

argv: JSON file of cases ({"name", "args"}), file for the answers. Args are those of the command
line, so the whole path from flags to DeepSpeed is under test; heads and batches are real.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from ranks import set_apart

from mipic_llm.config import load_config
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.start import start
from mipic_llm.training import setup
from mipic_llm.training.step import StepRunner


def run(args: list[str], steps: int) -> dict:
    set_apart()
    config, source, data = setup.open_run(load_config(args))
    engine = setup.open_engine(config, source, data, 10)
    runner = StepRunner(engine, config)
    engine.train(True)
    rows = []
    for step in range(steps):
        row = runner.run(data.step((0, step)), step)
        del row["padded"]  # the only figure that may differ between ways of the same training
        rows.append(row)
    state = engine.state(trainable_only=True)
    norms = {k: float(v.double().norm()) for k, v in (state or {}).items()}
    return {"rows": rows, "norms": norms}


def main() -> None:
    start()
    torch.set_num_threads(1)
    cases = json.loads(Path(sys.argv[1]).read_text())
    answers = {case["name"]: run(case["args"], case.get("steps", 3)) for case in cases}
    if dist.rank() == 0:
        Path(sys.argv[2]).write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
