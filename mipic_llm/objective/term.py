"""The interface of a term of an objective.

Shape legend: S sequences of this rank (anchors, positives, negatives), B its anchors, T tokens,
D full width, d a prefix width, P prefixes.

A term is per example (it reads tokens and readouts inside the wrapped module, where the heads are)
or across examples (it reads the readouts of all ranks), or both. It gives values without weights;
objective.py samples, scales to the global batch, and descends and logs the sum of weight * value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mipic_llm.losses.numerics import constant
from mipic_llm.objective.seen import Seen
from mipic_llm.types import Packing, Traits


class Needs(NamedTuple):
    """What a term reads in a step; layers are 1-based. The last layer's readout is always there.

    tokens: layers whose tokens, and readouts, `per_example` reads.
    readouts: layers whose readouts `crossing` reads.
    gathered: layers whose readouts of all ranks `across` reads, with gradients.
    constants: the same without gradients.
    crossing: how many tensors `crossing` gives. Anchors and positives alone where `pairs`.
    """

    tokens: tuple[int, ...] = ()
    readouts: tuple[int, ...] = ()
    gathered: tuple[int, ...] = ()
    constants: tuple[int, ...] = ()
    crossing: int = 0
    pairs: bool = False


class Value(NamedTuple):
    """A part of the loss, logged as loss/<name> and descended as weight * value.

    value: a scalar, this rank's share: the mean over ranks is the value over the global batch.
    details: logged beside it under loss/<name>@<key>, such as each dim's share.
    """

    name: str
    value: Tensor
    weight: float = 1.0
    details: tuple[tuple[str, Tensor], ...] = ()


def per_dim(
    name: str, value_P: Tensor, dims: Sequence[int | str], weights: Sequence[float] | None = None
) -> Value:
    """The `Value` of a term with one value per prefix: their (weighted) sum, each one logged."""
    total = value_P.sum()
    if weights is not None:
        total = (value_P * constant(tuple(weights), value_P.dtype, value_P.device)).sum()
    details = zip(map(str, dims), value_P.detach().unbind(), strict=True)
    return Value(name, total, details=tuple(details))


class Inside(NamedTuple):
    """One chunk inside the wrapped module: by layer, readouts (S, D) and tokens ((S, T, D), or
    (tokens, D) of a packed chunk, whose mask is its Packing)."""

    readout: Mapping[int, Tensor]
    tokens: Mapping[int, Tensor]
    mask_ST: Tensor | Packing


class Term:
    """A term of the objective. Subclasses override what they need.

    weight: its factor in the loss.
    units, per_step: of how many units (layers, links) one step samples how many, 0 = all; values
        are scaled by units / sampled, so that the expectation is unchanged.
    parts: how many values its sum is made of, which `objective.reduction: mean` divides by.
    heads: trained modules by the name of their place in the state dict; a list with one module per
        unit, each from (S, dim_in) vectors, with `dim_in` as an attribute.
    memory: how many readouts of earlier steps it wants to see.
    local: name and weight of each value that `per_example` gives.
    """

    units = 0
    per_step = 0
    parts = 1
    memory = 0

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight
        self.local: tuple[tuple[str, float], ...] = ()
        self.heads: dict[str, nn.ModuleList] = {}

    def about(self, device: torch.device, dtype: torch.dtype) -> str:
        """How it is computed there, in a line for the user; "" where there is but one way."""
        return ""

    def takes(self, source: Traits) -> bool:
        """Whether its values across examples make sense for rows of this kind, in which others are
        left out: InfoNCE wants pairs that belong together."""
        return source.kind != "scored"

    def draw(self, generator: torch.Generator) -> tuple[int, ...]:
        """Indices of this step's units, uniform without replacement."""
        return pick(self.units, self.per_step, generator) if self.units else ()

    def needs(self, drawn: tuple[int, ...]) -> Needs:
        return Needs()

    def per_example(self, inside: Inside, drawn: tuple[int, ...]) -> tuple[Tensor, ...]:
        """Inside the wrapped module: sums over the sequences of one chunk, as `local` lists."""
        return ()

    def crossing(self, inside: Inside, drawn: tuple[int, ...]) -> tuple[Tensor, ...]:
        """Inside the wrapped module: what of each sequence `across` sees, through heads, (S, d)
        each. No two values of `across` may use the same one."""
        return ()

    def across(self, seen: Seen, drawn: tuple[int, ...]) -> Iterator[Value]:
        """Values between examples of all ranks."""
        return iter(())


def pick(n: int, k: int, generator: torch.Generator) -> tuple[int, ...]:
    """k of n indices (0 = all), ascending."""
    return tuple(sorted(torch.randperm(n, generator=generator)[: k or n].tolist()))
