"""Self-distilled intra-relational alignment (Eq 4-14 of arXiv 2604.24374): relation and geometry
among the tokens of each text, at the layers of `sia.layers`, for every truncated prefix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mipic_llm import losses
from mipic_llm.config import Config, trained_dims
from mipic_llm.errors import kernel_fault
from mipic_llm.objective.heads import FixedLift, LiftHead
from mipic_llm.objective.term import Inside, Needs, Term
from mipic_llm.types import Packing


class Sia(Term):
    """Units are layers; the heads are the lifts P of each layer."""

    def __init__(self, config: Config, width: int, depth: int, weight: float) -> None:
        super().__init__(weight)
        s, dims = config.sia, trained_dims(config)[:-1]
        self.layers, self.units, self.per_step = s.layers, len(s.layers), s.layers_per_step
        self.parts = self.units * len(dims)
        self.local = (("relation", s.relation_weight), ("geometry", s.geometry_weight))
        self.options: dict[str, Any] = {
            "dims": dims, "ratios": s.ratios, "tau": s.temperature, "min_k": s.min_k,
            "detach_teacher": s.detach_teacher, "kl": s.kl, "relation": s.relation,
            "geometry": s.geometry, "kernels": s.kernels,
        }  # fmt: skip
        fixed = s.lift_init == "fixed"
        self.heads["lifts"] = nn.ModuleList(
            FixedLift(dims, width) if fixed else LiftHead(width, dims, s.lift_init)
            for _ in self.layers
        )

    def about(self, device: torch.device, dtype: torch.dtype) -> str:
        if not self.options["kernels"] or not (said := losses.sia_about(device, dtype)):
            return ""
        return f"SIA: {kernel_fault(said, '--sia.kernels false')}"

    def needs(self, drawn: tuple[int, ...]) -> Needs:
        return Needs(tokens=tuple(self.layers[k] for k in drawn))

    def per_example(self, inside: Inside, drawn: tuple[int, ...]) -> tuple[Tensor, ...]:
        layers = [self.layers[k] for k in drawn]
        lifts = self.heads["lifts"]
        lifted = [lifts[k](inside.readout[layer]) for k, layer in zip(drawn, layers, strict=True)]
        mask = inside.mask_ST
        packed = isinstance(mask, Packing)
        values = losses.sia_per_example(
            [inside.tokens[layer] for layer in layers],
            torch.stack([inside.readout[layer] for layer in layers]),
            None if packed else mask, lifted_LSK=torch.stack(lifted),
            lengths=mask.lengths if packed else None, **self.options,
        )  # fmt: skip
        return tuple(value_LS.sum() for value_LS in values)
