"""The launches of SIA's Triton kernels: where texts lie, which tile a text has, what is passed on.

Shape legend:
    L layers, S sentences, T tokens of the longest, D full width; N token rows of a layer
    P truncated prefixes, K = sum of their widths; M rows of a tile, n sentences of one launch
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import gcd
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mipic_llm.losses.numerics import constant, moved, sent
from mipic_llm.losses.sia import geometry, kernels
from mipic_llm.losses.sia.function import SiaOptions

TILES = (16, 32, 64)  # rows of a tile
# Of a program, by the rows of its tile: as few as hold it without spilling much.
WARPS = {16: 1, 32: 2, 64: 4}
WARPS_BACK = {16: 2, 32: 4, 64: 8}  # of `gradients`
COLUMNS = 32  # of one step
PREFIXES = 15  # score rows of a kernel, less the teacher
_SLOPE_BYTES = 512 * 2**20  # workspace of the slopes of one launch


class Launch(NamedTuple):
    """n sentences from place `at` of the list of sentences, in tiles of `rows` rows."""

    at: int
    n: int
    rows: int


class Texts:
    """Where the sentences lie and how large their sets are, for the kernels.

    first_S1: row of each sentence's first token, and the end. mask_N: 1 at real tokens; None when
    packed. sets_SP: k_i. sentence_s: the sentences of all launches, by the rows of their tile.
    """

    def __init__(
        self, lengths: Sequence[int] | None, mask_ST: Tensor | None, o: SiaOptions,
        device: torch.device, skip: int,
    ) -> None:  # fmt: skip
        self.skip = skip
        if lengths is None:
            assert mask_ST is not None
            S, T = mask_ST.shape
            self.mask_N: Tensor | None = mask_ST.contiguous().view(torch.uint8).flatten()
            size_S = torch.full((S,), T)
            sets_SP = geometry.set_sizes(mask_ST.sum(1), o.ratios, o.min_k)
            self.sets_SP = sets_SP.int().contiguous()
        else:
            self.mask_N, size_S = None, torch.tensor(lengths)
            sets_SP = geometry.set_sizes(size_S, o.ratios, o.min_k)
            self.sets_SP = sent(sets_SP.int().contiguous(), device)
        first_S1 = torch.zeros(len(size_S) + 1, dtype=torch.int64)
        torch.cumsum(size_S, 0, out=first_S1[1:])
        self.first_S1 = sent(first_S1, device)
        kind_s = torch.bucketize(size_S[skip:], torch.tensor(TILES))
        self.sentence_s = sent((kind_s.argsort(stable=True) + skip).int(), device)
        self.launches, at = [], 0
        for rows, n in zip(TILES, kind_s.bincount(minlength=len(TILES)).tolist(), strict=True):
            if n:
                self.launches.append(Launch(at, n, rows))
            at += n


class Call:
    """What all launches of one call share."""

    def __init__(
        self, o: SiaOptions, texts: Texts, query_LSD: Tensor, lifted_LSK: Tensor,
        tokens: Sequence[Tensor],
    ) -> None:  # fmt: skip
        self.o, self.texts, self.tokens = o, texts, tokens
        self.query, self.lifted = query_LSD, lifted_LSK
        self.device = tokens[0].device
        (self.L, self.S, self.D), self.N = query_LSD.shape, len(tokens[0])
        self.K, self.P = lifted_LSK.shape[2], len(o.dims)
        self.layers = self._addresses(tokens)
        wide = [0, *o.dims] + [0] * (PREFIXES - self.P)
        at = [0, 0] + [sum(o.dims[:i]) for i in range(1, self.P)] + [0] * (PREFIXES - self.P)
        self.edge, self.at, self.wide = (
            constant(tuple(v), torch.int32, self.device)
            for v in ((0, *o.dims, self.D), at, wide)
        )  # fmt: skip
        self.hint = gcd(16, *o.dims, self.D)
        self.scale = self.D**-0.5
        self.mask = texts.first_S1 if texts.mask_N is None else texts.mask_N  # not read when packed
        self.padded = texts.mask_N is not None

    def _addresses(self, tensors: Sequence[Tensor]) -> Tensor:
        return moved([t.data_ptr() for t in tensors], torch.int64, self.device)

    def _common(
        self, rows: int, warps: dict[int, int] = WARPS, more: Sequence[Tensor] = ()
    ) -> dict[str, Any]:
        align = gcd(16, *(x.data_ptr() for x in (*self.tokens, *more)))
        return {"PADDED": self.padded, "ALIGN": align, "M": rows, "C": COLUMNS,
                "num_warps": warps[rows]}  # fmt: skip

    def scores(self, relation_LS: Tensor) -> Tensor:
        """Scores (L, P + 1, N); relation_LS is filled for the sentences of the kernels."""
        t, o = self.texts, self.o
        score_LRN = relation_LS.new_empty(self.L, self.P + 1, self.N)
        for at, n, rows in t.launches:
            kernels.scores[(n, self.L)](
                self.layers, self.tokens[0], self.query, self.lifted, t.sentence_s, t.first_S1,
                self.mask, self.at, self.wide, score_LRN, relation_LS, at, self.S, self.N, self.D,
                self.K, self.P, o.tau, self.scale, STUDENT_FIRST=o.student_first,
                RELATED=o.relation, **self._common(rows),
            )  # fmt: skip
        return score_LRN

    def grams(
        self, launch: Launch, score_LRN: Tensor, geometry_LS: Tensor, grad_LS: Tensor | None = None,
        slope: Tensor | None = None,
    ) -> None:  # fmt: skip
        """Fill geometry_LS for the sentences of a launch, or with a gradient their slopes."""
        t, back = self.texts, grad_LS is not None
        grad, slope = (geometry_LS if x is None else x for x in (grad_LS, slope))
        kernels.grams[(launch.n, self.L)](
            self.layers, self.tokens[0], t.sentence_s, t.first_S1, self.mask, t.sets_SP, self.edge,
            score_LRN, grad, geometry_LS, slope, launch.at, self.S, self.N, self.D, self.P,
            BACK=back, TEACHER=not self.o.detach_teacher, HINT=self.hint,
            **self._common(launch.rows),
        )  # fmt: skip

    def pieces(self) -> Iterator[Launch]:
        """Launches whose slopes fit the workspace."""
        for at, n, rows in self.texts.launches:
            most = max(1, _SLOPE_BYTES // (4 * self.L * (self.P + 1) * rows * rows))
            for start in range(0, n, most):
                yield Launch(at + start, min(most, n - start), rows)

    def gradients(
        self, score_LRN: Tensor, grads: tuple[Tensor, Tensor], dquery_LSD: Tensor,
        dlifted_LSK: Tensor, dtok: Sequence[Tensor],
    ) -> None:  # fmt: skip
        """Fill the gradients of the kernels' sentences."""
        t, o = self.texts, self.o
        dlayers, teacher = self._addresses(dtok), not o.detach_teacher
        bands = self.P + teacher if o.relation or o.geometry else 0
        related, shaped = (g.to(torch.float32).contiguous() for g in grads)
        for launch in self.pieces():
            at, n, rows = launch
            slope = related
            if o.geometry:
                slope = related.new_empty(self.L * n * (self.P + 1) * rows * rows)
                self.grams(launch, score_LRN, shaped, shaped, slope)
            kernels.gradients[(n, self.L)](
                self.layers, dlayers, self.tokens[0], self.query, self.lifted, dquery_LSD,
                dlifted_LSK, t.sentence_s, t.first_S1, self.mask, t.sets_SP, self.edge, self.at,
                self.wide, score_LRN, related, slope, at, self.S, self.N, self.D, self.K, self.P,
                bands, o.tau, self.scale, STUDENT_FIRST=o.student_first, RELATED=o.relation,
                SHAPED=o.geometry, TEACHER=teacher, HINT=self.hint,
                **self._common(rows, WARPS_BACK, dtok),
            )  # fmt: skip
