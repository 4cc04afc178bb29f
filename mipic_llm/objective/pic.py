"""Progressive information chaining (Eq 15-17 of arXiv 2604.24374).

    L_PIC = sum_i InfoNCE_tau(phi_i(z_i[:d_i]), z_{i+1}[:d_{i+1}])
z_i: the readout of the ladder's layer l_i; the deeper side gets no gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

from mipic_llm import losses
from mipic_llm.config import Config, parse_ladder, trained_dims
from mipic_llm.objective.heads import ChainHead
from mipic_llm.objective.seen import Seen
from mipic_llm.objective.term import Inside, Needs, Term, Value


class Pic(Term):
    """Units are links; the heads are their phi.

    `pic.positive: pair`: the target of a shallow anchor is its positive's deeper readout among
    all deeper candidates, that of a shallow positive its anchor's among all anchors; the mean of
    both. `self`: a text's target is its own deeper readout, among the texts of its column.
    `pic.widths: nested`: a link is the mean over every prefix at full width.
    """

    def __init__(self, config: Config, width: int, depth: int, weight: float) -> None:
        super().__init__(weight)
        p, dims = config.pic, trained_dims(config)
        self.ladder = parse_ladder(p.ladder or [])
        self.dims: list[int] | None = None
        if p.widths == "nested":
            self.ladder = tuple(point._replace(dim=width) for point in self.ladder)
            self.dims = dims
        self.links = tuple(pairwise(self.ladder))
        self.units = self.parts = len(self.links)
        self.per_step, self.tau = p.links_per_step, config.objective.tau
        self.pair, self.to_last, self.last = p.positive == "pair", p.target == "last", depth
        self.heads["phis"] = nn.ModuleList(ChainHead(a.dim, b.dim, p.head) for a, b in self.links)

    def needs(self, drawn: tuple[int, ...]) -> Needs:
        links = [self.links[i] for i in drawn]
        deep = () if self.to_last else tuple(b.layer for _, b in links)
        return Needs(readouts=tuple(a.layer for a, _ in links), constants=deep,
                     crossing=len(links), pairs=self.pair)  # fmt: skip

    def crossing(self, inside: Inside, drawn: tuple[int, ...]) -> tuple[Tensor, ...]:
        phis = self.heads["phis"]
        shallow = [self.links[i][0] for i in drawn]
        ends = [inside.readout[point.layer][:, : point.dim] for point in shallow]
        return tuple(phis[i](z_Sd) for i, z_Sd in zip(drawn, ends, strict=True))

    def across(self, seen: Seen, drawn: tuple[int, ...]) -> Iterator[Value]:
        """One value for links with the same deeper side and dims, which share every product."""
        places = range(len(drawn))
        together = bool(self.to_last and self.dims)
        for group in [places] if together else [[at] for at in places]:
            deep = self.links[drawn[group[0]]][1]
            layer = self.last if self.to_last else deep.layer
            deeper_Nd = seen.everyone(layer).detach()[:, : deep.dim]
            mean = self._mean(seen, [seen.crossing[at] for at in group], deeper_Nd)
            yield Value("chain", len(group) * mean)

    def _mean(self, seen: Seen, projected: list[Tensor], deeper_Nd: Tensor) -> Tensor:
        """Mean over these links. projected: the shallow side of each, (S, d)."""
        n, target_B, key_N = (
            seen.n_anchors,
            seen.target(),
            seen.same_N if self.pair else seen.key_N,
        )
        own_S = key_N[seen.own]
        anchors, positives, negatives = seen.columns()

        def info_nce(
            here: slice, column: Tensor, target_B: Tensor, near_BN: Tensor | None = None
        ) -> Tensor:
            """One direction (Eq 16), the mean over links and prefixes. here: the queries among this
            rank's sequences; column: which of all deeper readouts are candidates."""
            query = torch.cat([one[here] for one in projected])
            times = len(projected)
            return losses.mrl_per_dim(
                query, deeper_Nd.index_select(0, column), target_B=target_B.repeat(times),
                dims=self.dims or [query.shape[1]], tau=self.tau,
                keys=(own_S[here].repeat(times), key_N.index_select(0, column)),
                near_BN=near_BN,
            ).mean()  # fmt: skip

        if self.pair:
            column = torch.cat([positives, negatives])
            there = info_nce(slice(n), column, target_B, seen.near())
            back = info_nce(slice(n, 2 * n), anchors, target_B, seen.near(back=True))
            return (there + back) / 2
        total, start = deeper_Nd.new_zeros(()), 0
        for column, counts, size in (
            (anchors, seen.rows.anchors, n), (positives, seen.rows.anchors, n),
            (negatives, seen.rows.negatives, seen.n_negatives),
        ):  # fmt: skip
            if size:
                value = info_nce(slice(start, start + size), column, seen.place(counts, size))
                total = total + seen.part(value, size)
            start += size
        return total
