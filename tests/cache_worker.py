"""Run by `ranks.run_ranks` on every rank: trains each case some steps, with the self-check of
GradCache before, and with a fault put into GradCache where the case asks for one.

argv: JSON file of cases ({"name", "args", "steps", "check", "fault"}), file for the answers: rows,
and the trained weights or what the self-check said.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
from pathlib import Path
from unittest import mock

import torch
from ranks import set_apart

from mipic_llm.config import load_config
from mipic_llm.errors import UserError
from mipic_llm.runtime import checkpoint
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.engine import Engine
from mipic_llm.runtime.start import start
from mipic_llm.training import selfcheck, setup
from mipic_llm.training import step as step_module
from mipic_llm.training.step import StepRunner


def spoil_one(losses, factor: float):
    """The second chunk's backward runs and comes to nothing, or to no number."""
    for i, loss in enumerate(losses):
        yield loss * factor if i == 1 else loss


def fault(name: str | None):
    if name == "rng":  # the second pass draws other dropout masks than the first
        return mock.patch.object(step_module, "_set_rng_state", lambda state: None)
    if name in ("chunk", "nan"):
        own, factor = Engine.backward, 0.0 if name == "chunk" else math.nan
        return mock.patch.object(
            Engine, "backward", lambda self, losses, n: own(self, spoil_one(losses, factor), n)
        )
    return contextlib.nullcontext()


def run(case: dict) -> dict:
    set_apart()
    config, source, data = setup.open_run(load_config(case["args"]))
    engine = setup.open_engine(config, source, data, 25)
    runner = StepRunner(engine, config)

    def batch(step: int):
        return data.step(divmod(step, data.plan.steps_per_epoch))

    if case.get("check"):
        assert selfcheck.wanted(config)
        before = checkpoint.rng_state()["torch"]
        try:
            with fault(case.get("fault")):
                found = selfcheck.selfcheck(engine, config, batch(0))
        except UserError as error:
            return {"error": str(error)}
        assert torch.equal(before, checkpoint.rng_state()["torch"])
        print(case["name"], found, flush=True)
    engine.train(True)
    rows = [runner.run(batch(step), step) for step in range(case["steps"])]
    state = engine.state(trainable_only=True) or {}
    return {"rows": rows, "weights": {k: v.flatten().tolist() for k, v in state.items()}}


def main() -> None:
    start()
    torch.set_num_threads(1)
    cases = json.loads(Path(sys.argv[1]).read_text())
    answers = {case["name"]: run(case) for case in cases}
    if dist.rank() == 0:
        Path(sys.argv[2]).write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
