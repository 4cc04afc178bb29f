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
from mipic_llm.objective.term import Inside, Needs, Seen, Term, Value


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
        for at, i in enumerate(drawn):
            deep = self.links[i][1]
            layer = self.last if self.to_last else deep.layer
            deeper_Nd = seen.everyone(layer).detach()[:, : deep.dim]
            yield Value("chain", self._link(seen, seen.crossing[at], deeper_Nd))

    def _link(self, seen: Seen, projected: Tensor, deeper_Nd: Tensor) -> Tensor:
        n, target_B, own_S = seen.n_anchors, seen.target(), seen.key_N[seen.own]
        anchors, positives, negatives = seen.columns()
        if self.pair:
            candidates = torch.cat([positives, negatives])
            there = self._info_nce(seen, projected[:n], own_S[:n], deeper_Nd, candidates, target_B)
            back = self._info_nce(
                seen, projected[n : 2 * n], own_S[n : 2 * n], deeper_Nd, anchors, target_B
            )
            return (there + back) / 2
        total, start = deeper_Nd.new_zeros(()), 0
        for column, counts, size in (
            (anchors, seen.rows.anchors, n), (positives, seen.rows.anchors, n),
            (negatives, seen.rows.negatives, seen.n_negatives),
        ):  # fmt: skip
            if size:
                here, target_B = slice(start, start + size), seen.place(counts, size)
                value = self._info_nce(
                    seen, projected[here], own_S[here], deeper_Nd, column, target_B
                )
                total = total + seen.part(value, size)
            start += size
        return total

    def _info_nce(
        self, seen: Seen, query: Tensor, key_B: Tensor, deeper_Nd: Tensor, column: Tensor,
        target_B: Tensor,
    ) -> Tensor:  # fmt: skip
        """One direction of a link (Eq 16), the mean over its prefixes. key_B: of the query's texts;
        column: which of all deeper readouts are candidates."""
        dims = self.dims or [query.shape[1]]
        return losses.mrl_per_dim(
            query, deeper_Nd.index_select(0, column), target_B=target_B, dims=dims, tau=self.tau,
            keys=(key_B, seen.key_N.index_select(0, column)),
        ).mean()  # fmt: skip
