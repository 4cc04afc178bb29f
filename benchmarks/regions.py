"""Suite `profile`: where a step's CPU time goes, quickstart backbone, MRL against MIPIC.

Regions are timed by wrapping the functions that make a step (CPU time of the process, so a busy
machine shows little); what is inside a wrapped function and wrapped itself is counted once, with
the inner one. No row of it has a target.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks import data, harness, models
from benchmarks.harness import Options, Row


class Meter:
    """CPU ms by region, exclusive of regions inside."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = defaultdict(float)
        self._inside: list[float] = []

    def wrap(self, name: str, function: Callable) -> Callable:
        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = time.process_time()
            self._inside.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                spent = 1e3 * (time.process_time() - begun)
                self.ms[name] += spent - self._inside.pop()
                if self._inside:
                    self._inside[-1] += spent

        return timed


@contextmanager
def regions(meter: Meter) -> Iterator[None]:
    """The functions of a step under the meter; put back at the end."""
    from mipic_llm.losses.infonce import _PrefixInfoNCE
    from mipic_llm.losses.sia_function import SiaFunction
    from mipic_llm.model.backbone import Backbone
    from mipic_llm.model.objective import EmbeddingModule
    from mipic_llm.training import step
    from mipic_llm.training.cross import Crossing
    from mipic_llm.training.engine import Engine

    places = [
        (Backbone, "forward", "backbone forward, readouts"),
        (EmbeddingModule, "forward", "heads forward"),
        (SiaFunction, "forward", "SIA forward"),
        (SiaFunction, "backward", "SIA backward"),
        (_PrefixInfoNCE, "forward", "InfoNCE of MRL and chain, forward"),
        (_PrefixInfoNCE, "backward", "InfoNCE of MRL and chain, backward"),
        (Crossing, "__call__", "the rest of the cross terms"),
        (Engine, "backward", "backbone and heads backward"),
        (Engine, "step", "clipping, AdamW"),
        (step, "chunks", "padding"),
    ]
    kept = [(owner, name, vars(owner)[name]) for owner, name, _ in places]
    for owner, name, label in places:
        found = vars(owner)[name]
        if isinstance(found, staticmethod):
            setattr(owner, name, staticmethod(meter.wrap(label, found.__func__)))
        else:
            setattr(owner, name, meter.wrap(label, found))
    try:
        yield
    finally:
        for owner, name, found in kept:
            setattr(owner, name, found)


def run(o: Options) -> list[Row]:
    from mipic_llm.data.collate import build_step
    from mipic_llm.training.engine import start
    from mipic_llm.training.feed import make_encoder

    start()
    B, runs = (4, 1) if o.quick else (32, o.runs or 5)
    examples, source = data.triplets(o.data)
    steps, meters = {}, {terms: Meter() for terms in ("mrl", "mipic")}
    for terms in meters:
        made = models.trainee("quickstart", models.flags(terms=terms, precision="fp32", B=B))
        batch = build_step(data.cycled(examples, B), make_encoder(made.config, made.source))
        steps[terms] = models.Stepper(made, [batch])
        steps[terms]()
    for _ in range(runs):  # in turn, as everywhere
        for terms, step in steps.items():
            with regions(meters[terms]):
                meters[terms].wrap("the rest of the step", step)()
    rows = []
    for terms, meter in meters.items():
        whole = sum(meter.ms.values())
        for label, spent in [*sorted(meter.ms.items(), key=lambda x: -x[1]), ("whole", whole)]:
            t = harness.Timing(spent / runs, spent / runs, spent / runs, 0.0)
            rows.append(harness.row("profile", terms, label, t, model="quickstart", mode="full",
                                    zero_stage=0, ranks=1, B=B, lengths=source, terms=terms,
                                    ratio=spent / whole, note="share of the step in ratio; "
                                    f"mean of {runs} steps, {o.threads} threads"))  # fmt: skip
    return rows
