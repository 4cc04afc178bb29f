"""Eq 18, split by what mixes examples: here what does not; `training/step.py` does the rest.

Parameters live only in `EmbeddingModule`, the one thing DeepSpeed wraps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mipic_llm import losses
from mipic_llm.model.backbone import Backbone
from mipic_llm.objective.heads import ChainHead, FixedLift, LiftHead
from mipic_llm.types import Packing, Point, Reps


class Sampled(NamedTuple):
    """What a step looks at; the same on every rank.

    layers, links: indices of the SIA layers and of the PIC links. inner: layers (1-based) whose
    readouts a baseline needs; dim: 2DMSE's prefix.
    """

    layers: tuple[int, ...] = ()
    links: tuple[int, ...] = ()
    inner: tuple[int, ...] = ()
    dim: int = 0


def sample(
    n_layers: int,
    n_links: int,
    layers_per_step: int,
    links_per_step: int,
    *,
    seed: int,
    step: int,
    objective: str = "mipic",
    depth: int = 1,
    prefixes: Sequence[int] = (),
) -> Sampled:
    """SIA layers and links of a step, uniform without replacement (0 per step = all); for the
    baselines, which of the `depth` layers they read: ese all, 2dmse one, at one of `prefixes`.

    A function of (seed, step) alone, so every rank and every resumed run makes the same choice.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)

    def pick(n: int, k: int) -> tuple[int, ...]:
        chosen = torch.randperm(n, generator=generator)[: k or n]
        return tuple(sorted(chosen.tolist()))

    layers, links = pick(n_layers, layers_per_step), pick(n_links, links_per_step)
    if objective == "ese":
        return Sampled(inner=tuple(range(1, depth)))
    if objective == "2dmse":
        return Sampled(inner=(1 + pick(depth - 1, 1)[0],), dim=prefixes[pick(len(prefixes), 1)[0]])
    return Sampled(layers, links)


class EmbeddingModule(nn.Module):
    """Backbone, heads and every per-example term: one chunk of sequences in, `Reps` out.

    sia_layers: all layers under SIA; ladder: PIC's checkpoints (empty = no chain);
    sia_options: keyword options of `losses.sia_per_example` with dims and ratios (None = no SIA).
    sia_weights: of relation and geometry in `local`. phi: the form of the chain's heads.
    target: the layer of a link's deeper side, that of the next checkpoint or the last.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        sia_layers: Sequence[int] = (),
        ladder: Sequence[Point] = (),
        sia_options: dict | None = None,
        lift_init: str = "prefix",
        sia_weights: tuple[float, float] = (1.0, 1.0),
        phi: str = "mlp",
        target: str = "next",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.sia_weights = sia_weights
        self.sia_options = sia_options
        self.sia_layers = tuple(sia_layers) if sia_options else ()
        self.ladder = tuple(ladder)
        self.to_last = target == "last"
        dims = sia_options["dims"] if sia_options else ()
        self.lifts = nn.ModuleList(
            FixedLift(dims) if lift_init == "fixed" else LiftHead(backbone.width, dims, lift_init)
            for _ in self.sia_layers
        )
        pairs = zip(self.ladder, self.ladder[1:], strict=False)
        self.phis = nn.ModuleList(ChainHead(a.dim, b.dim, phi) for a, b in pairs)

    def forward(
        self,
        ids_ST: Tensor,
        mask_ST: Tensor | Packing,
        sampled: Sampled | None = None,
        scale: float = 0.0,
        layers: tuple[int, ...] | None = None,
    ) -> Reps | Tensor:
        """One chunk, padded or packed (see Backbone).

        scale: factor of each sequence's SIA terms in `local` (weights, sampling, 1/S).
        layers: for evaluation; gives only their readouts (L, S, D).
        """
        if layers is not None:
            return self.backbone(ids_ST, mask_ST, layers, []).readout_LSD
        assert sampled is not None
        sia = [self.sia_layers[k] for k in sampled.layers]
        reads = 1 if self.to_last else 2  # a link's shallow end, and its deep end
        ends = [p.layer for i in sampled.links for p in self.ladder[i : i + reads]]
        layers = sorted({*sia, *ends, *sampled.inner, self.backbone.n_layers})
        out = self.backbone(ids_ST, mask_ST, layers, sia)
        at = {layer: out.readout_LSD[i] for i, layer in enumerate(layers)}
        zero = self._touch_unsampled(sampled, out.readout_LSD)
        relation, geometry = self._sia(out.tokens_STD, out.mask_ST, at, sia, sampled, zero)
        chain, target = [], []
        for i in sampled.links:
            (shallow, deep) = self.ladder[i : i + 2]
            chain.append(self.phis[i](at[shallow.layer][:, : shallow.dim]))
            if not self.to_last:  # the last layer's are in z_SD
                target.append(at[deep.layer][:, : deep.dim].detach())
        mine, theirs = self.sia_weights
        local = scale * (mine * relation + theirs * geometry) + zero
        return Reps(
            z_SD=at[self.backbone.n_layers],
            chain_S=tuple(chain),
            target_S=tuple(target),
            inner_S=tuple(at[layer] for layer in sampled.inner),
            local=local,
            relation=relation.detach(),
            geometry=geometry.detach(),
        )

    def _sia(self, tokens, mask_ST, at, sia, sampled, zero) -> tuple[Tensor, Tensor]:
        if not sia:
            return zero.detach(), zero.detach()
        query_LSD = torch.stack([at[layer] for layer in sia])
        lifted = [self.lifts[k](at[layer]) for k, layer in zip(sampled.layers, sia, strict=True)]
        packing = mask_ST if isinstance(mask_ST, Packing) else None
        relation_LS, geometry_LS = losses.sia_per_example(
            tokens, query_LSD, None if packing else mask_ST, lifted_LSK=torch.stack(lifted),
            lengths=packing.lengths if packing else None, **self.sia_options,
        )  # fmt: skip
        return relation_LS.sum(), geometry_LS.sum()

    def _touch_unsampled(self, sampled: Sampled, like: Tensor) -> Tensor:
        """0 * every unsampled head: under ZeRO-3 each parameter needs a gradient every step."""
        zero = like.new_zeros((), dtype=torch.float32)
        for k, lift in enumerate(self.lifts):
            if k not in sampled.layers:
                zero = zero + 0.0 * lift(like.new_zeros(1, self.backbone.width)).sum()
        for i, phi in enumerate(self.phis):
            if i not in sampled.links:
                zero = zero + 0.0 * phi(like.new_zeros(1, self.ladder[i].dim)).sum()
        return zero
