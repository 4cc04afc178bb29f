"""Suite `profile`: where a step's CPU time goes, quickstart backbone: MRL, MIPIC, and MIPIC
`before`: the same loss without what this project does for speed on a CPU (one padded pass in place
of groups of like length, SIA by autograd with tokens projected up to D).

Regions are timed by wrapping the functions that make a step (CPU time of the process, so a busy
machine shows little); what is inside a wrapped function and wrapped itself is counted once, with
the inner one. No row of it has a target.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from benchmarks import data, harness, models, results
from benchmarks.harness import Options
from benchmarks.results import Row


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
    from mipic_llm.losses.prefixes import OverPrefixes
    from mipic_llm.losses.sia.function import SiaFunction
    from mipic_llm.model.backbone import Backbone
    from mipic_llm.objective import EmbeddingModule, Objective
    from mipic_llm.runtime.engine import Engine
    from mipic_llm.training import step

    places = [
        (Backbone, "forward", "backbone forward, readouts"),
        (EmbeddingModule, "forward", "heads forward"),
        (SiaFunction, "forward", "SIA forward"),
        (SiaFunction, "backward", "SIA backward"),
        (OverPrefixes, "forward", "InfoNCE of MRL and chain, forward"),
        (OverPrefixes, "backward", "InfoNCE of MRL and chain, backward"),
        (Objective, "across", "the rest of the cross terms"),
        (Engine, "backward", "backbone and heads backward"),
        (Engine, "step", "clipping, AdamW"),
        (step, "prepare", "padding"),
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


def naive_sia(
    tokens: Sequence[Tensor],
    query_LSD: Tensor,
    mask_ST: Tensor,
    *,
    dims: Sequence[int],
    ratios: Sequence[float],
    tau: float,
    min_k: int,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """What losses.sia_per_example gives for the balanced preset (P = [I 0]), in plain batched
    autograd: every prefix projected up to D, every Gram from scratch."""
    relation, geometry = [], []
    m_S, D = mask_ST.sum(1), query_LSD.shape[2]
    for tok_STD, q_SD in zip(tokens, query_LSD, strict=True):
        scale = D**0.5 * tau

        def log_row(h_STD: Tensor, q_SD1: Tensor = q_SD[:, :, None], scale=scale) -> Tensor:
            s_ST = (h_STD @ q_SD1)[:, :, 0] / scale
            return torch.log_softmax(s_ST.masked_fill(~mask_ST, -1e9), 1)

        log_t_ST = log_row(tok_STD).detach()
        order_ST = torch.sort(log_t_ST, dim=1, descending=True, stable=True).indices
        relation_S = geometry_S = tok_STD.new_zeros(len(m_S))
        for d, ratio in zip(dims, ratios, strict=True):
            log_p_ST = log_row(tok_STD[:, :, :d] @ torch.eye(d, D))
            relation_S = relation_S + (log_p_ST.exp() * (log_p_ST - log_t_ST)).sum(1)
            k_S = torch.minimum(m_S, (ratio * m_S - 1e-9).ceil().clamp_min(min_k).long())
            k = int(k_S.max())
            in_Sk1 = (torch.arange(k) < k_S[:, None])[:, :, None]
            x_SkD = tok_STD.gather(1, order_ST[:, :k, None].expand(-1, -1, D)) * in_Sk1
            x_SkD = (x_SkD - x_SkD.sum(1, keepdim=True) / k_S[:, None, None]) * in_Sk1
            K_Skk = x_SkD[:, :, :d] @ x_SkD[:, :, :d].transpose(1, 2)
            L_Skk = (x_SkD @ x_SkD.transpose(1, 2)).detach()
            norms_S = K_Skk.norm(dim=(1, 2)) * L_Skk.norm(dim=(1, 2))
            geometry_S = geometry_S + 1 - (K_Skk * L_Skk).sum((1, 2)) / norms_S
        relation.append(relation_S)
        geometry.append(geometry_S)
    return torch.stack(relation), torch.stack(geometry)


@contextmanager
def before(meter: Meter) -> Iterator[None]:
    """The naive SIA in the place of ours, under the meter (its backward is the backbone's)."""
    from mipic_llm import losses

    kept = losses.sia_per_example
    losses.sia_per_example = meter.wrap("SIA forward", naive_sia)
    try:
        yield
    finally:
        losses.sia_per_example = kept


VARIANTS = {"mrl": ("mrl", []), "mipic": ("mipic", []),
            "mipic before": ("mipic", ["--train.length_groups", "false"])}  # fmt: skip


def run(o: Options) -> list[Row]:
    from mipic_llm.data.batch import build_step
    from mipic_llm.evaluation.encode import make_encoder
    from mipic_llm.runtime.start import start

    start()
    B, runs = (4, 1) if o.quick else (32, o.runs or 5)
    examples, source = data.triplets(o.data)
    steps, meters, first = {}, {name: Meter() for name in VARIANTS}, {}
    for name, (terms, more) in VARIANTS.items():
        flags = models.flags(terms=terms, precision="fp32", B=B, more=more)
        made = models.trainee("quickstart", flags)
        batch = build_step(data.cycled(examples, B), make_encoder(made.config, made.source))
        steps[name] = models.Stepper(made, [batch])
        with before(Meter()) if more else nullcontext():
            first[name] = steps[name]()
    for key in ("loss/mrl", "loss/relation", "loss/geometry", "loss/chain"):
        gap = abs(first["mipic before"][key] / first["mipic"][key] - 1)
        if gap > 1e-4:
            raise SystemExit(f"profile: {key} of the naive step differs by {gap:.1e}")
    for _ in range(runs):  # in turn, as everywhere
        for name, step in steps.items():
            with (
                before(meters[name]) if VARIANTS[name][1] else nullcontext(),
                regions(meters[name]),
            ):
                meters[name].wrap("the rest of the step", step)()
    rows = []
    for name, meter in meters.items():
        whole, terms = sum(meter.ms.values()), VARIANTS[name][0]
        for label, spent in [*sorted(meter.ms.items(), key=lambda x: -x[1]), ("whole", whole)]:
            t = harness.Timing(spent / runs, spent / runs, spent / runs, 0.0)
            rows.append(results.row("profile", name, label, t, model="quickstart", mode="full",
                                    zero_stage=0, ranks=1, B=B, lengths=source, terms=terms,
                                    ratio=spent / whole, note="share of the step in ratio; "
                                    f"mean of {runs} steps, {o.threads} threads"))  # fmt: skip
    return rows
