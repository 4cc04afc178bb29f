"""The one thing that DeepSpeed wraps: backbone, heads, and the per-example side of the objective.

Parameters live only here: `backbone.*`, and the heads of the terms by their names.
"""

from __future__ import annotations

from torch import Tensor, nn

from mipic_llm.model.backbone import Backbone
from mipic_llm.objective.objective import Drawn, Objective
from mipic_llm.objective.term import Inside
from mipic_llm.types import Packing, Reps


class EmbeddingModule(nn.Module):
    """One chunk of sequences in, `Reps` out. objective None: for inference."""

    def __init__(self, backbone: Backbone, objective: Objective | None = None) -> None:
        super().__init__()
        self.backbone, self.objective = backbone, objective
        for name, heads in (objective.heads() if objective else {}).items():
            self.add_module(name, heads)

    def forward(
        self,
        ids_ST: Tensor,
        mask_ST: Tensor | Packing,
        drawn: Drawn | None = None,
        sequences: float = 1.0,
        layers: tuple[int, ...] | None = None,
    ) -> Reps | Tensor:
        """One chunk, padded or packed (see Backbone).

        drawn: what the terms sampled in this step; sequences: see `Objective.inside`.
        layers: for evaluation; gives only their readouts (L, S, D).
        """
        if layers is not None:
            return self.backbone(ids_ST, mask_ST, layers, []).readout_LSD
        assert drawn is not None and self.objective is not None
        needs = self.objective.needs(drawn)
        tokens = sorted({layer for need in needs for layer in need.tokens})
        read = {layer for n in needs for layer in (*n.readouts, *n.gathered, *n.constants)}
        asked = sorted({*tokens, *read, self.objective.last})
        out = self.backbone(ids_ST, mask_ST, asked, tokens)
        inside = Inside(
            dict(zip(asked, out.readout_LSD, strict=True)),
            dict(zip(tokens, out.tokens_STD, strict=True)), out.mask_ST,
        )  # fmt: skip
        local, sums = self.objective.inside(inside, drawn, sequences)
        return Reps(*self.objective.outputs(inside, drawn), local, sums)
