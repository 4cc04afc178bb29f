"""Distillation of single texts and of rows from a teacher (losses/distil.py).

vector: each prefix, through a linear map where widths differ, against the teacher's vector.
scores, margin: the cosines of an anchor with its own positive and negatives, at each prefix,
against the scores that the rows hold, or else against the cosines of the teacher's vectors.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from mipic_llm import losses
from mipic_llm.config import Config
from mipic_llm.objective.heads import VectorMap
from mipic_llm.objective.seen import Seen
from mipic_llm.objective.term import Inside, Needs, Term, Value, per_dim
from mipic_llm.types import Traits


class TeacherVector(Term):
    """Units are the linear maps, all of them in every step."""

    def __init__(
        self, config: Config, width: int, depth: int, weight: float, teacher_width: int
    ) -> None:
        super().__init__(weight)
        t = config.teacher
        self.dims, self.form = t.dims or config.objective.dims or [width], t.vector_loss
        self.last = depth
        self.mapped = [d for d in self.dims if d != teacher_width]
        self.parts, self.units = len(self.dims), len(self.mapped)
        start = "prefix" if t.name == "base" else "linear"
        maps = (VectorMap(d, teacher_width, start) for d in self.mapped)
        self.heads["teacher_maps"] = nn.ModuleList(maps)

    def takes(self, source: Traits) -> bool:
        return True

    def needs(self, drawn: tuple[int, ...]) -> Needs:
        return Needs(crossing=len(self.mapped))

    def crossing(self, inside: Inside, drawn: tuple[int, ...]) -> tuple[Tensor, ...]:
        z_SD = inside.readout[self.last]
        maps = self.heads["teacher_maps"]
        return tuple(maps[i](normalize(z_SD[:, : maps[i].dim_in], dim=1)) for i in drawn)

    def across(self, seen: Seen, drawn: tuple[int, ...]) -> Iterator[Value]:
        """One value for each mapped prefix (no two may share a crossing), one for the others."""
        assert seen.teacher_NK is not None
        own_SK = seen.teacher_NK[seen.own]
        crossing = dict(zip(self.mapped, seen.crossing, strict=True))
        for d in self.dims:
            made = crossing[d] if d in crossing else normalize(seen.mine()[:, :d], dim=1)
            value = seen.part(losses.vector_loss(made, own_SK, self.form), len(made))
            yield per_dim("teacher_vector", value[None], [d])


class TeacherScores(Term):
    """Both terms of the scores of a row: KL (teacher.scores), margin-MSE (teacher.margin)."""

    def __init__(self, config: Config, width: int, depth: int, weight: float) -> None:
        super().__init__(weight)
        t, self.tau = config.teacher, config.objective.tau
        self.dims = t.dims or config.objective.dims or [width]
        self.parts, self.kl, self.margin = len(self.dims), t.scores, t.margin
        self.taught, self.temperature = t.name != "none", t.scores_temperature

    def takes(self, source: Traits) -> bool:
        return source.kind == "pairs" and (source.scores or self.taught)

    def across(self, seen: Seen, drawn: tuple[int, ...]) -> Iterator[Value]:
        row_N, n = seen.anchor_of(), seen.n_anchors
        anchors, positives, _ = seen.columns()
        if seen.source.scores:
            score_N, temperature = seen.score_N, self.temperature or 1.0
        else:
            t_NK = seen.teacher_NK
            assert t_NK is not None
            score_N = cosine_similarity(t_NK[anchors][row_N], t_NK, dim=1)
            temperature = self.temperature or self.tau
        assert score_N is not None
        # A negative counts where its score and its positive's are known; a row where one counts.
        right_N = score_N[positives][row_N]
        negative_N = torch.ones_like(row_N, dtype=torch.bool)
        negative_N[torch.cat([anchors, positives])] = False
        counts_N = negative_N & ~score_N.isnan() & ~right_N.isnan()
        per_row = row_N.new_zeros(len(anchors)).index_add_(0, row_N, counts_N.long())
        margins, rows = per_row.sum().clamp_min(1), (per_row > 0).sum().clamp_min(1)
        mine, here = seen.mine(), seen.known_rows()
        use = (counts_N | ((per_row > 0)[row_N] & ~negative_N))[seen.own][n:]
        logits_C = torch.where(use, score_N[seen.own][n:], 0.0).to(mine.dtype) / temperature

        def cosines() -> Tensor:  # anew for each value, which has a graph of its own
            return losses.candidate_cosines(mine[:n], mine[n:], here[n:], self.dims)

        if self.kl:
            cos_PC = cosines()
            kl_P = losses.candidate_kl(cos_PC / self.tau, logits_C, here[n:], use, n)
            yield per_dim("teacher_scores", seen.share(kl_P, rows), self.dims)._replace(
                weight=self.kl)  # fmt: skip
        if self.margin:
            cos_PC = cosines()
            mse_P = losses.margin_mse(cos_PC, logits_C * self.tau, here[n:], use, n)
            yield per_dim("teacher_margin", seen.share(mse_P, margins), self.dims)._replace(
                weight=self.margin)  # fmt: skip
