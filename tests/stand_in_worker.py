"""Commands on a device that is not the host (tests/stand_in.py), one after the other:
`python stand_in_worker.py jobs.json found.json`.

jobs: name -> the words of a command. found: name -> {"code": what it returned or raised, "steps":
the waits between forward and update of each step, "waits": all}; and "mixed": what the stand-in
says to a sum over both devices. A plain engine takes the place of DeepSpeed, which has no such
device.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from mipic_llm.evaluation import judge
from mipic_llm.evaluation import open as opening
from mipic_llm.mining import run as mining
from mipic_llm.runtime import engine
from mipic_llm.runtime import start as starting
from mipic_llm.runtime.optimizer import parameter_groups
from mipic_llm.training import loop, setup
from mipic_llm.training.step import StepRunner

import stand_in  # isort: skip  (last: transformers must have been imported without it)


class Plain(engine.Engine):
    """One rank, AdamW of torch, everything on the stand-in."""

    def __init__(self, module: Any, ds_config: Any, config: Any, schedule: Any) -> None:
        self.stage, self.module, self.device = 0, module.to(stand_in.DEVICE), stand_in.DEVICE
        if config is not None:
            names = {p: name for name, p in self.module.named_parameters()}
            groups = parameter_groups(self.module, config)
            self.trained = [names[p] for group in groups for p in group["params"]]
            self.optimizer = torch.optim.AdamW(groups, foreach=False)
            self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, schedule)

    def close(self) -> None:
        pass

    def save(self, *_: Any, **__: Any) -> None:
        pass

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def backward(self, losses: Iterator[torch.Tensor], n: int) -> None:
        for loss in losses:
            loss.backward()

    def gradients(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, parameter in self.module.named_parameters():
            if parameter.requires_grad:
                yield name, parameter.grad.detach().float()

    def forget_gradients(self) -> None:
        self.optimizer.zero_grad()

    def step(self) -> torch.Tensor:
        grads = [p.grad for p in self.module.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        return norm

    @property
    def learning_rate(self) -> float:
        return float(self.schedule.get_last_lr()[0])

    def train(self, mode: bool = True) -> None:
        self.module.train(mode)


def on_device() -> torch.device:
    started()
    return stand_in.DEVICE


started, plainly, steps = starting.start, StepRunner.gradients, []


def watched(self: StepRunner, *args: Any, **kwargs: Any) -> Any:
    before = len(stand_in.waits)
    out = plainly(self, *args, **kwargs)
    steps.append(stand_in.waits[before:])
    return out


def main(jobs: str, found: str) -> None:
    for module in (judge, loop, mining):
        module.start = on_device
    setup.Engine = opening.Engine = Plain
    StepRunner.gradients = watched
    results: dict[str, Any] = {}
    with stand_in.device() as device:
        try:
            torch.ones(2, device=device) + torch.ones(2)
        except RuntimeError as error:
            results["mixed"] = str(error)
        for name, words in json.loads(Path(jobs).read_text("utf-8")).items():
            steps.clear()
            stand_in.waits.clear()
            code: Any
            try:
                code = importlib.import_module(f"mipic_llm.commands.{words[0]}").main(words[1:])
            except Exception:
                code = traceback.format_exc()
            results[name] = {"code": code, "steps": list(steps), "waits": list(stand_in.waits)}
    Path(found).write_text(json.dumps(results), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
