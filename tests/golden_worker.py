"""Run by `ranks.run_ranks` on every rank: trains each case of tests/golden.py a few steps.

argv: JSON file with {case: flags}, number of steps, file for the answers. `train` is the only part
of the golden runs that knows the inside of the package; adapt it when the package changes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from ranks import set_apart

from mipic_llm.config import load_config
from mipic_llm.data.batch import build_step
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.start import start
from mipic_llm.training import setup
from mipic_llm.training.step import StepRunner


def train(flags: list[str], steps: int) -> list[dict[str, float]]:
    """Optimizer steps from command-line flags. -> metrics of each step: loss, its parts, norm."""
    set_apart()
    config, source, data = setup.open_run(load_config(flags))
    engine = setup.open_engine(config, source, data, 10)
    runner = StepRunner(engine, config)
    engine.train(True)
    rows = []
    for step in range(steps):
        local = data.plan.local(data.plan.batch(0, step), dist.rank())
        examples = [data.sources[s].examples[i] for s, i in local]
        rows.append(runner.run(build_step(examples, data.encoder), step))
    return rows


def main() -> None:
    start()
    torch.set_num_threads(1)
    cases, steps = json.loads(Path(sys.argv[1]).read_text()), int(sys.argv[2])
    answers = {name: train(flags, steps) for name, flags in cases.items()}
    if dist.rank() == 0:
        Path(sys.argv[3]).write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
