"""A list of terms as one loss: sampling, scaling, gathering and the sum, once for all terms.

    loss = sum over terms t and their values v of  weight_t * weight_v * factor_t * v
    factor_t = (units / sampled units) / (parts, where objective.reduction is mean)
The same list of weights and values is descended and logged.

Gradient contract: every value is this rank's share, so that DeepSpeed's mean over ranks is the
gradient of the loss over the global batch, whatever the number of ranks and chunks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mipic_llm.losses import false_negatives
from mipic_llm.objective.memory import Memory
from mipic_llm.objective.seen import Margin, Seen
from mipic_llm.objective.term import Inside, Needs, Term, Value
from mipic_llm.runtime import ranks
from mipic_llm.runtime.rows import Rows
from mipic_llm.types import Known, Traits

Drawn = tuple[tuple[int, ...], ...]  # what each term samples in a step


class Part(NamedTuple):
    """One value for the log, scale * value: a detached scalar, still on its device.

    weight: its factor in the loss; 0 = a detail that is logged only.
    """

    name: str
    value: Tensor
    scale: float
    weight: float


class Objective:
    """The terms of a training.

    last: the layer whose readout is the embedding. mean: divide each term by its parts.
    seed: of the sampling. margin: which candidates are no negatives, see `Seen.near`.
    """

    def __init__(
        self, terms: Sequence[Term], *, last: int, mean: bool = True, seed: int = 0,
        margin: Margin | None = None,
    ) -> None:  # fmt: skip
        self.margin = margin
        self.terms, self.last, self.mean, self.seed = list(terms), last, mean, seed
        self.memory = Memory(max((term.memory for term in self.terms), default=0))
        self.others: list[nn.ModuleList] = []  # heads of other stages of the run

    def heads(self) -> dict[str, nn.ModuleList]:
        """Every trained head by the name of its place in the wrapped module."""
        return {name: heads for term in self.terms for name, heads in term.heads.items()}

    def draw(self, step: int) -> Drawn:
        """What each term samples: a function of (seed, step) alone, so that every rank and every
        resumed run makes the same choice."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        return tuple(term.draw(generator) for term in self.terms)

    def needs(self, drawn: Drawn) -> list[Needs]:
        return [term.needs(own) for term, own in zip(self.terms, drawn, strict=True)]

    def scaled(self, weight: float, term: Term, drawn: tuple[int, ...]) -> float:
        """weight * factor_t."""
        weight *= term.units / len(drawn) if term.units else 1.0
        return weight / term.parts if self.mean else weight

    def gathered(self, needs: Sequence[Needs]) -> list[int]:
        """Layers whose readouts are gathered with gradients, the last one first."""
        return [self.last, *sorted({n for need in needs for n in need.gathered} - {self.last})]

    def constants(self, needs: Sequence[Needs]) -> list[int]:
        """Layers whose readouts are gathered without gradients."""
        others = set(self.gathered(needs))
        return sorted({n for need in needs for n in need.constants} - others)

    # ------------------------------------------------- inside the wrapped module, chunk by chunk

    def inside(self, inside: Inside, drawn: Drawn, sequences: float) -> tuple[Tensor, Tensor]:
        """-> (the loss of the per-example terms, their unweighted sums for the log, (n,)).

        sequences: of the global batch, over the world size; infinite for a dummy chunk, whose terms
        count nothing.
        """
        like = inside.readout[self.last]
        loss, sums = self._idle_heads(drawn, like), []
        for term, own in zip(self.terms, drawn, strict=True):
            values = term.per_example(inside, own)
            if values:
                pairs = zip(term.local, values, strict=True)
                total = sum(weight * value for (_, weight), value in pairs)
                loss = loss + self.scaled(term.weight / sequences, term, own) * total
                sums += [value.detach() for value in values]
        return loss, torch.stack(sums) if sums else loss.detach().new_zeros(0)

    def outputs(self, inside: Inside, drawn: Drawn) -> tuple[tuple[Tensor, ...], ...]:
        """What of this chunk crosses examples: (with gradients, without)."""
        needs = self.needs(drawn)
        crossing = [term.crossing(inside, own) for term, own in zip(self.terms, drawn, strict=True)]
        readouts = [inside.readout[layer] for layer in self.gathered(needs)]
        constants = [inside.readout[layer].detach() for layer in self.constants(needs)]
        return (*readouts, *(x for own in crossing for x in own)), tuple(constants)

    def _idle_heads(self, drawn: Drawn, like: Tensor) -> Tensor:
        """0 * every head that is not sampled, or of another stage: under ZeRO-3 each parameter
        wants a gradient in every pass, or a later one is added to an old buffer."""
        zero = like.new_zeros((), dtype=torch.float32)
        for term, own in zip(self.terms, drawn, strict=True):
            for heads in term.heads.values():
                for unit, head in enumerate(heads):
                    if unit not in own:
                        zero = zero + 0.0 * head(like.new_zeros(1, head.dim_in)).sum()
        for head in (head for heads in self.others for head in heads):
            zero = zero + 0.0 * head(like.new_zeros(1, head.dim_in)).sum()
        return zero

    def local_parts(self, sums: Tensor, drawn: Drawn, sequences: float) -> Iterator[Part]:
        """The log of the per-example terms. sums: those of `inside`, added over chunks."""
        values = iter(sums.unbind())
        for term, own in zip(self.terms, drawn, strict=True):
            for name, weight in term.local:
                factor = self.scaled(1 / sequences, term, own)
                yield Part(name, next(values), factor, term.weight * weight)

    # ------------------------------------------------------------------------- across examples

    def limits(self, drawn: Drawn, rows: Rows) -> list[int]:
        """How many of this rank's sequences, the first ones, each output with gradients is wanted
        of: all, or anchors and positives."""
        needs, rank = self.needs(drawn), ranks.rank()
        everything, pairs = rows.per_rank[rank], 2 * rows.anchors[rank]
        crossing = [pairs if n.pairs else everything for n in needs for _ in range(n.crossing)]
        return [everything] * len(self.gathered(needs)) + crossing

    def across(
        self, outputs: list[Tensor], constants: Sequence[Tensor], known: Known, rows: Rows,
        drawn: Drawn, source: Traits,
    ) -> tuple[list[Tensor], list[Part], dict[str, Tensor]]:  # fmt: skip
        """The cross-example terms on this rank's step; all ranks call.

        outputs, constants: as `outputs` gives them, detached, in the step's order of sequences;
        the list of outputs is emptied. known: of these sequences, on their device.
        -> (the loss's gradient at each output; parts for the log; how many pairs of this rank's
        anchors and candidates the losses leave out as false negatives: of equal texts, and of texts
        that are too near where there is a margin).
        Of all values only one has a graph at a time, and a crossing output goes when it was used.
        """
        needs = self.needs(drawn)
        layers, fixed = self.gathered(needs), self.constants(needs)
        width = outputs[0].shape[1]
        own = _side_by_side(outputs[: len(layers)]).requires_grad_()
        leaves = [x.detach().requires_grad_() for x in outputs[len(layers) :]]
        outputs.clear()
        gathered = ranks.gather_rows(own, rows.per_rank)  # the step's one gather with gradients
        sides = [x_ND.detach().requires_grad_() for x_ND in gathered.split(width, 1)]
        views = dict(zip(layers, sides, strict=True))
        if fixed:
            still = ranks.gather_rows(_side_by_side(constants), rows.per_rank)
            views |= zip(fixed, still.split(width, 1), strict=True)
        everyone = known.each(lambda x: ranks.gather_rows(x, rows.per_rank))
        key_N = everyone.key_S
        # What a full memory forgets is the same however rows are dealt to ranks.
        order_N = torch.cat([c[key_N[c].argsort(stable=True)] for c in rows.columns(key_N.device)])
        taught_NK = everyone.teacher_SK
        kept_NK = None if taught_NK is None else taught_NK[order_N]
        remembered = self.memory.look(sides[0][order_N], key_N[order_N], kept_NK)
        grads, parts, near = [], [], dict[tuple[bool, bool], Tensor]()
        for term, mine, need in zip(self.terms, drawn, needs, strict=True):
            used, leaves = leaves[: need.crossing], leaves[need.crossing :]
            got: dict[int, Tensor] = {}
            seen = Seen(
                views, rows, self.last, used, everyone, remembered, source, self.margin, near
            )
            factor = self.scaled(1.0, term, mine)
            for value in term.across(seen, mine) if term.takes(source) else ():
                weight = term.weight * value.weight
                (weight * factor * value.value).backward()
                parts += _parts(value, factor, weight)
                for i, leaf in enumerate(used):
                    if leaf is not None and leaf.grad is not None:
                        got[i], used[i] = leaf.grad, None
            # What no value looked at has a gradient of zero.
            grads += [got[i] if x is None else torch.zeros_like(x) for i, x in enumerate(used)]
        found = [torch.zeros_like(x) if x.grad is None else x.grad for x in sides]
        torch.autograd.backward(gathered, _side_by_side(found))
        assert own.grad is not None
        left_out = {"false_negatives": key_N.new_zeros(())}
        if source.kind != "scored":
            seen = Seen(views, rows, self.last, [], everyone, remembered, source, self.margin, near)
            left_out["false_negatives"] = false_negatives(seen.sides(seen.same_N), seen.target())
            near_BN = seen.too_near()
            if near_BN is not None:
                left_out["false_negatives_near"] = near_BN.sum()
        return [*own.grad.split(width, 1), *grads], parts, left_out


def _side_by_side(columns: Sequence[Tensor]) -> Tensor:
    """(rows, D) each -> (rows, n D) in float32 (float64 stays), a single column not copied."""
    wide = [c.detach() if c.dtype == torch.float64 else c.detach().float() for c in columns]
    return wide[0] if len(wide) == 1 else torch.cat(wide, 1)


def _parts(value: Value, factor: float, weight: float) -> Iterator[Part]:
    yield Part(value.name, value.value.detach(), factor, weight)
    for key, detail in value.details:
        yield Part(f"{value.name}@{key}", detail, 1.0, 0.0)
