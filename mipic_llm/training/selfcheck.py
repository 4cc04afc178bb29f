"""GradCache against a plain step on the user's own machine, model and data, before training.

A slice of the first batch runs twice over the same chunks with the same random numbers: once as
one graph, once cached. Loss and gradients must agree, or the run is refused. Nothing of it stays:
gradients are dropped before an update, and the random state is put back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mipic_llm.config import Config
from mipic_llm.data.batch import StepBatch
from mipic_llm.data.chunks import prepare
from mipic_llm.errors import UserError
from mipic_llm.runtime import checkpoint
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.engine import Engine
from mipic_llm.training.step import StepRunner, metrics

ROWS = 4  # of each rank's first batch, the shortest: a plain pass over them fits where a chunk does
CHUNKS = 3
WIDTH = 1 << 16
PROBES = 8  # random projections of a gradient's difference
# Largest relative difference. Seen: 1e-6 in fp32; in bf16 each chunk's gradient is rounded (2^-8).
TOLERANCE = {"fp32": 1e-4, "bf16": 5e-2}
SMALL = 1e-2  # a parameter's difference counts against at least this share of the whole gradient


def wanted(config: Config) -> bool:
    """auto: whenever a chunk option is set."""
    option, t = config.train.selfcheck, config.train
    return option == "true" or (option == "auto" and bool(t.chunk_size or t.chunk_tokens))


def shortest(lengths: Sequence[int], n: int = ROWS) -> list[int]:
    """Which n rows are shortest, in their own order."""
    return sorted(sorted(range(len(lengths)), key=lambda row: lengths[row])[:n])


def selfcheck(engine: Engine, config: Config, batch: StepBatch) -> tuple[float, float]:
    """-> (relative difference of the loss, largest one of a gradient); all ranks call.

    Raises UserError, with one line, where they exceed TOLERANCE (not a number counts as that).
    """
    runner = StepRunner(engine, config)
    size = math.ceil(len(batch.ids) / CHUNKS)
    made = prepare(batch, size, packed=runner.packed)
    keep = checkpoint.rng_state()
    engine.train(True)
    found = []
    for cached in (False, True):
        checkpoint.set_rng_state(keep)
        parts, *_ = runner.gradients(made, 0, cached=cached)
        found.append((metrics(parts, {})["loss"], _signatures(engine)))
        engine.forget_gradients()
    checkpoint.set_rng_state(keep)
    loss, where, worst = dist.from_first(_compare(*found))
    tolerance = TOLERANCE[config.train.precision]
    if not (loss <= tolerance and worst <= tolerance):
        raise UserError(
            f"train.selfcheck: a step in chunks differs from a plain one on this machine (loss by "
            f"{loss:.1e}, gradient of {where} by {worst:.1e}, allowed {tolerance:.0e}), so nothing "
            "was trained; give --train.chunk_size 0 --train.chunk_tokens 0, and report it"
        )
    return loss, worst


def _signatures(engine: Engine) -> dict[str, Tensor]:
    """Per parameter: its gradient's norm and PROBES projections on random signs, so that large
    gradients need not be kept. The mean square of a projection of d is |d|^2."""
    return {name: signature(grad, i) for i, (name, grad) in enumerate(engine.gradients())}


def signature(grad: Tensor, seed: int) -> Tensor:
    """(1 + PROBES,) float64 on the CPU. The sign of an element is that of its row times that of its
    column, when the gradient is laid out in rows of at most WIDTH: few signs to draw."""
    flat = grad.flatten()
    width = max(1, min(len(flat), WIDTH))
    rows_RC = nn.functional.pad(flat, (0, -len(flat) % width)).view(-1, width)
    generator = torch.Generator().manual_seed(seed)
    values = [flat.double().square().sum().sqrt()]
    for _ in range(PROBES):
        row_R, column_C = (
            (2.0 * torch.randint(0, 2, (n,), generator=generator) - 1).to(flat)
            for n in rows_RC.shape
        )
        values.append((row_R @ rows_RC).double() @ column_C.double())
    return torch.stack(values).cpu()


def _compare(plain: tuple, cached: tuple) -> tuple[float, str, float]:
    """-> (relative difference of the loss, the worst parameter, its relative difference)."""
    (loss, want), (again, got) = plain, cached
    whole = math.sqrt(sum(float(v[0]) ** 2 for v in want.values()))
    worst, where = 0.0, "nothing"
    for name, value in want.items():
        difference = float((value[1:] - got[name][1:]).square().mean().sqrt())
        difference /= max(float(value[0]), SMALL * whole, 1e-30)
        if not difference <= worst:  # not a number is the worst
            worst, where = difference, name
            if math.isnan(worst):
                break
    return abs(loss - again) / max(abs(loss), 1e-30), where, worst
