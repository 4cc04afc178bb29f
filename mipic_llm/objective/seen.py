"""The readouts of a step, of all ranks, as the terms of an objective see them.

Shape legend: S sequences of this rank (anchors, positives, negatives), N sequences of all ranks,
B anchors of this rank, D full width, d a prefix width, M remembered ones, K the teacher's width.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mipic_llm import losses
from mipic_llm.losses.numerics import moved
from mipic_llm.runtime import ranks
from mipic_llm.runtime.rows import Rows
from mipic_llm.types import Known, Traits


class Margin(NamedTuple):
    """From which cosine on a candidate is no negative, see `losses.too_near`."""

    size: float
    relative: bool


class Seen:
    """The readouts of a step, of all ranks in rank order, as a term's `across` sees them.

    crossing: what the term's own `crossing` gave, (S, d) each ((2B, d) where it said `pairs`).
    key_N, score_N, teacher_NK, row_N, whose_N, also_N: what is known of each sequence, see `Known`.
    same_N: equal where sequences are no negatives of one another: the label's key, else key_N.
    source: of the step's rows. margin: None = off; near: what was decided so far in this step.
    remembered: readouts of earlier steps (M, D), without gradients, their keys (M,), and the
        teacher's vectors of their texts (M, K), None without a teacher.
    """

    def __init__(
        self,
        everyone: Mapping[int, Tensor],
        rows: Rows,
        last: int,
        crossing: list[Tensor],
        known: Known,
        remembered: tuple[Tensor, Tensor, Tensor | None],
        source: Traits,
        margin: Margin | None = None,
        near: dict[tuple[bool, bool], Tensor] | None = None,
    ) -> None:
        self._everyone, self.rows, self.last = everyone, rows, last
        self.crossing, self.remembered, self.source = crossing, remembered, source
        self.key_N, self.score_N, self.teacher_NK, self.row_N, group_N, *more = known
        self.whose_N, self.also_N = more
        self.same_N = self.key_N if group_N is None else group_N
        self._margin, self._near = margin, {} if near is None else near
        rank = ranks.rank()
        self.n_anchors, self.n_negatives = rows.anchors[rank], rows.negatives[rank]
        first = sum(rows.per_rank[:rank])
        self.own = slice(first, first + rows.per_rank[rank])

    def everyone(self, layer: int | None = None) -> Tensor:
        """(N, D) float32 readouts of a layer, the last one by default."""
        return self._everyone[self.last if layer is None else layer]

    def mine(self, layer: int | None = None) -> Tensor:
        """This rank's rows of `everyone`, (S, D)."""
        return self.everyone(layer)[self.own]

    def part(self, mean: Tensor, n: int, total: int | None = None) -> Tensor:
        """A mean over n rows of this rank as its share of that over `total` rows of all ranks (see
        `Value`). None: all sequences."""
        return mean * n * ranks.world_size() / (total or self.rows.total)

    def share(self, total: Tensor, n: Tensor) -> Tensor:
        """A sum over rows of this rank as its share of the mean over n rows of all ranks, a number
        on the device."""
        return total * ranks.world_size() / n

    def known_rows(self) -> Tensor:
        """Which of this rank's anchors each of its sequences belongs to, (S,)."""
        assert self.whose_N is not None
        return self.whose_N[self.own]

    def anchor_of(self) -> Tensor:
        """Which of all anchors each sequence of all ranks belongs to, (N,)."""
        first, firsts = 0, []
        for anchors, size in zip(self.rows.anchors, self.rows.per_rank, strict=True):
            firsts += [first] * size
            first += anchors
        assert self.whose_N is not None
        return self.whose_N + moved(firsts, torch.int64, self.whose_N.device)

    def columns(self) -> tuple[Tensor, Tensor, Tensor]:
        """Where all anchors, positives and negatives stand in `everyone`."""
        return self.rows.columns(self.everyone().device)

    def sides(self, of_N: Tensor, back: bool = False, same: bool = False) -> tuple[Tensor, Tensor]:
        """Readouts or keys of (anchors of this rank, candidates: all positives, then all
        negatives). The candidate that is right for each anchor: `target`.

        back: of (positives of this rank, all anchors). same: the last candidates are those of the
        asking column itself, all anchors or positives, of which the own one has the own key.
        """
        n, (anchors, positives, negatives) = self.n_anchors, self.columns()
        column = [anchors] if back else [positives, negatives]
        column += [positives if back else anchors] if same else []
        asked = of_N[self.own][n : 2 * n] if back else of_N[self.own][:n]
        return asked, of_N.index_select(0, torch.cat(column))

    def near(self, back: bool = False, same: bool = False) -> Tensor | None:
        """(B, candidates) bool: which candidates of `sides` are no negatives of those who ask,
        whatever their text: too near, or of another row where the source says so. None: none."""
        found = [self.too_near(back, same)]
        if self.row_N is not None:
            row_B, row_N = self.sides(self.row_N, back, same)
            found.append(row_B[:, None] != row_N)
        if self.also_N is not None and not back:
            found.append(self._of_also(same))
        found = [out_BN for out_BN in found if out_BN is not None]
        return functools.reduce(torch.logical_or, found) if found else None

    def right(self, back: bool = False, same: bool = False) -> Tensor | None:
        """(B, candidates) bool: which candidates of `sides` are more positives of those who ask.
        None: none of any."""
        if self.also_N is None or back:
            return None
        key_N = self.sides(self.key_N, back, same)[1]
        found_BN = torch.zeros(self.n_anchors, len(key_N), dtype=torch.bool, device=key_N.device)
        place_M = sum(self.rows.anchors) + self.place(self.rows.negatives, self.n_negatives)
        assert self.whose_N is not None
        whose_M, also_M = (x[self.own][2 * self.n_anchors :] for x in (self.whose_N, self.also_N))
        found_BN[whose_M, place_M] = also_M.bool()
        return found_BN

    def _of_also(self, same: bool) -> Tensor:
        """Which candidates have the text of another positive of the anchor."""
        key_N = self.sides(self.key_N, False, same)[1]
        assert self.whose_N is not None and self.also_N is not None
        key_M, whose_M, also_M = (
            x[self.own][2 * self.n_anchors :] for x in (self.key_N, self.whose_N, self.also_N)
        )
        equal_MN = ((key_M[:, None] == key_N) & also_M[:, None].bool()).int()
        found_BN = equal_MN.new_zeros(self.n_anchors, len(key_N)).index_add_(0, whose_M, equal_MN)
        return found_BN.bool().scatter_(1, self.target()[:, None], False)

    def too_near(self, back: bool = False, same: bool = False) -> Tensor | None:
        """Which candidates are too near to be negatives, by the teacher's vectors where there are
        any, else by the last layer's readouts. Decided once for all prefixes and layers. None: no
        margin."""
        if self._margin is None:
            return None
        view = back, same
        if view not in self._near:
            judge_ND = self.everyone() if self.teacher_NK is None else self.teacher_NK
            self._near[view] = losses.too_near(
                *self.sides(judge_ND.detach(), *view), target_B=self.target(),
                margin=self._margin.size, relative=self._margin.relative,
                keys=self.sides(self.same_N, *view),
            )  # fmt: skip
        return self._near[view]

    def target(self) -> Tensor:
        """Where the positives of this rank's anchors stand among all positives, (B,)."""
        return self.place(self.rows.anchors, self.n_anchors)

    def place(self, counts: Sequence[int], n: int) -> Tensor:
        """Where this rank's n rows of a column stand among those of all ranks, (n,)."""
        first = sum(counts[: ranks.rank()])
        return torch.arange(first, first + n, device=self.everyone().device)
