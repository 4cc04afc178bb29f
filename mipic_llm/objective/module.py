"""The one thing that DeepSpeed wraps: backbone, heads, and the per-example side of the objective.

Parameters live only here: `backbone.*`, and the heads of the terms by their names.
"""

from __future__ import annotations

from torch import Tensor, nn

from mipic_llm.model.backbone import Backbone
from mipic_llm.objective.objective import Drawn, Objective
from mipic_llm.objective.term import Inside
from mipic_llm.types import Packing, Reps


def _made(heads: nn.ModuleList) -> list[tuple]:
    """How heads were made: their classes, shapes, and what they begin with (`begin`)."""
    return [(name, type(m), getattr(m, "begin", None),
             *(getattr(p, "ds_shape", p.shape) for p in m.parameters(False)))
            for name, m in heads.named_modules()]  # fmt: skip


class EmbeddingModule(nn.Module):
    """One chunk of sequences in, `Reps` out.

    objectives: of each stage of a run, one where they share it, none for inference. Heads of all of
    them are here from the start; stages whose heads have one name and are made alike share them.
    """

    def __init__(self, backbone: Backbone, *objectives: Objective) -> None:
        super().__init__()
        self.backbone, self.objectives = backbone, objectives
        self.objective = objectives[0] if objectives else None
        known: dict[str, nn.ModuleList] = {}
        for stage, objective in enumerate(objectives, 1):
            for term in objective.terms:
                for name, heads in term.heads.items():
                    same = [h for n, h in known.items() if n.split(".")[0] == name
                            and _made(h) == _made(heads)]  # fmt: skip
                    if same:
                        term.heads[name] = same[0]
                    else:
                        known[f"{name}.{stage}" if name in known else name] = heads
        for objective in objectives:
            own = [id(heads) for heads in objective.heads().values()]
            objective.others = [heads for heads in known.values() if id(heads) not in own]
        for name, heads in known.items():
            self.add_module(name.replace(".", "_of_stage_"), heads)

    def enter(self, stage: int) -> None:
        """Go on with the objective of a stage (from 0), which takes over what the last one
        remembers of earlier steps."""
        if len(self.objectives) > 1 and self.objective is not self.objectives[stage]:
            before, self.objective = self.objective, self.objectives[stage]
            device = next(self.parameters()).device
            self.objective.memory.restore(before.memory.state(), device)

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
