"""SIA as one autograd node with an analytic gradient.

Shape legend:
    L layers, S sentences, T tokens, D full width; N token rows of a layer (see layout.py)
    P truncated prefixes, K = sum of their widths, R = P + 1 score rows (row 0 the teacher)
    g sentences of one geometry chunk, k chosen tokens

Only the inputs, the ranking and the scores (R x T per sentence, about R / D of the tokens) are
saved. Backward makes the Grams again, in chunks that bound the workspace.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from mipic_llm.losses.numerics import compute_dtype, full_precision
from mipic_llm.losses.sia import geometry, relation
from mipic_llm.losses.sia.layout import Block, Layout, cut_blocks

# Workspace of one geometry chunk: cache sized on a CPU (measured), few launches elsewhere.
_CHUNK_BYTES = {"cpu": 16 * 2**20}
_CHUNK_BYTES_DEVICE = 2**31


class SiaOptions(NamedTuple):
    """Static choices of SIA, documented at `sia_per_example`."""

    dims: tuple[int, ...]
    ratios: tuple[float, ...]
    tau: float
    min_k: int
    detach_teacher: bool
    student_first: bool
    relation: bool
    geometry: bool


class Kept(NamedTuple):
    """What the backward needs beside the inputs: scores and ranking."""

    s_LSRT: Tensor
    order_LSk: Tensor | None


class SiaFunction(torch.autograd.Function):
    """(relation_LS, geometry_LS) of tokens (N, D) per layer. One node for both terms and all
    layers, so that each layer's token gradient is one tensor."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, o: SiaOptions, layout: Layout, query_LSD: Tensor, lifted_LSK: Tensor,
        *tokens: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        with full_precision(query_LSD.device):
            *found, kept = values(o, layout, query_LSD, lifted_LSK, tokens)
        ctx.save_for_backward(query_LSD, lifted_LSK, *kept, *tokens)
        ctx.o, ctx.layout = o, layout
        return found[0], found[1]

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, grad_relation_LS: Tensor, grad_geometry_LS: Tensor
    ) -> tuple[Any, ...]:
        query_LSD, lifted_LSK, s_LSRT, order_LSk, *tokens = ctx.saved_tensors
        with full_precision(query_LSD.device):
            dquery_LSD, dlifted_LSK, dtok = gradients(
                ctx.o, ctx.layout, query_LSD, lifted_LSK, tokens, Kept(s_LSRT, order_LSk),
                (grad_relation_LS, grad_geometry_LS),
            )  # fmt: skip
        return None, None, dquery_LSD, dlifted_LSK, *dtok


def values(
    o: SiaOptions, layout: Layout, query_LSD: Tensor, lifted_LSK: Tensor, tokens: Sequence[Tensor],
) -> tuple[Tensor, Tensor, Kept]:  # fmt: skip
    """(relation_LS, geometry_LS, what `gradients` needs)."""
    dtype = compute_dtype(query_LSD, lifted_LSK, *tokens)
    L, S = len(tokens), layout.S
    scores = []
    for tok_ND, q_SD, p_SK in zip(tokens, query_LSD, lifted_LSK, strict=True):
        vec_SRD = relation.stack_vectors(q_SD, p_SK, o.dims, dtype)
        scores.append(_scores(layout, tok_ND, vec_SRD))
    s_LSRT = torch.stack(scores)
    s_GRT, mask_GT = s_LSRT.flatten(0, 1), layout.mask_ST.repeat(L, 1)
    relation_LS, geometry_LS = s_LSRT.new_zeros(L, S), s_LSRT.new_zeros(L, S)
    order_LSk = None
    if o.relation:
        relation_LS = relation.kl_rows(s_GRT, mask_GT, o.tau, o.student_first).view(L, S)
    if o.geometry:
        k = max(geometry.largest_sets(layout.T, o.ratios, o.min_k))
        order_LSk = geometry.choose(s_GRT[:, 0], mask_GT, k).view(L, S, k)
        geometry_LS = _Geometry(tokens, order_LSk, layout, o, dtype).loss()
    return relation_LS, geometry_LS, Kept(s_LSRT, order_LSk)


def gradients(
    o: SiaOptions, layout: Layout, query_LSD: Tensor, lifted_LSK: Tensor, tokens: Sequence[Tensor],
    kept: Kept, grads_LS: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor, list[Tensor]]:  # fmt: skip
    """Gradients of query_LSD, lifted_LSK and of each layer's tokens, in their own dtypes."""
    s_LSRT, order_LSk = kept
    grad_relation_LS, grad_geometry_LS = grads_LS
    L, S, dtype = len(tokens), layout.S, s_LSRT.dtype
    dquery_LSD, dlifted_LSK = torch.zeros_like(query_LSD), torch.zeros_like(lifted_LSK)
    dtok = [query_LSD] * L  # each is replaced
    geo = None
    if o.geometry:
        assert order_LSk is not None
        geo = _Geometry(tokens, order_LSk, layout, o, dtype)
    for pieces in geo.chunks if geo else [[_Piece(i, 0, S, 0)] for i in range(L)]:
        for i in [p.layer for p in pieces if p.start == 0]:
            if not o.relation:
                dtok[i] = s_LSRT.new_zeros(layout.n_rows, layout.width)
                continue
            vec_SRD = relation.stack_vectors(query_LSD[i], lifted_LSK[i], o.dims, dtype)
            dtok[i], dvec_SRD = _relation_gradient(
                o, layout, vec_SRD, s_LSRT[i], tokens[i], grad_relation_LS[i].to(dtype)
            )
            dquery_LSD[i], dlifted_LSK[i] = relation.unstack_vectors(dvec_SRD, o.dims)
        if geo:
            geo.add_gradient(pieces, grad_geometry_LS, dtok)
        # a finished layer goes back to its own dtype at once: bf16 tokens never hold
        # fp32 gradients of all layers
        for i in [p.layer for p in pieces if p.stop == S]:
            dtok[i] = dtok[i][: layout.n_real].to(tokens[i].dtype)
    return dquery_LSD, dlifted_LSK, dtok


def _scores(layout: Layout, tok_ND: Tensor, vec_SRD: Tensor) -> Tensor:
    """Scores of one layer (S, R, T); what stands at pads is never read."""
    found = [
        relation.score(layout.read(tok_ND, b).to(vec_SRD.dtype), vec_SRD[b.start : b.stop])
        for b in layout.blocks
    ]
    if len(found) == 1:
        return found[0]
    return torch.cat([pad(s, (0, layout.T - s.shape[2])) for s in found])


def _relation_gradient(
    o: SiaOptions, layout: Layout, vec_SRD: Tensor, s_SRT: Tensor, tok_ND: Tensor, grad_S: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradient of one layer's relation: tokens (layout.n_rows, D), a new tensor; vec_SRD."""
    ds_SRT = relation.kl_gradient(
        s_SRT, layout.mask_ST, grad_S, o.tau, o.student_first, o.detach_teacher
    )
    dtok_ND = s_SRT.new_zeros(layout.n_rows, layout.width) if layout.packed else s_SRT
    dvec = []
    for b in layout.blocks:
        here = slice(b.start, b.stop)
        tok_gtD = layout.read(tok_ND, b).to(vec_SRD.dtype)
        dtok_gtD, dvec_gRD = relation.score_gradient(
            ds_SRT[here, :, : b.longest], tok_gtD, vec_SRD[here], o.dims, o.detach_teacher
        )
        dvec.append(dvec_gRD)
        if layout.packed:
            layout.write(dtok_ND, b, dtok_gtD)
        else:  # one block
            dtok_ND = dtok_gtD.view(-1, layout.width)
    return dtok_ND, torch.cat(dvec) if len(dvec) > 1 else dvec[0]


class _Piece(NamedTuple):
    """Sentences start to stop of one layer; the longest has `longest` tokens."""

    layer: int
    start: int
    stop: int
    longest: int


def _chunks(L: int, blocks: Sequence[Block], most: Sequence[int]) -> Iterator[list[_Piece]]:
    """Blocks of L layers as chunks, at most most[i] sentences of block i in one: slices of one
    layer where a layer does not fit at once, else the same block of several layers."""
    fill = sum((b.stop - b.start) / n for b, n in zip(blocks, most, strict=True))
    whole = max(1, int(1 / fill + 1e-9))
    for first in range(0, L, whole):
        for b in cut_blocks(blocks, most):
            yield [_Piece(layer, *b) for layer in range(first, min(first + whole, L))]


class _Geometry:
    """Geometry of the chosen tokens of every layer, chunk by chunk."""

    def __init__(
        self,
        tokens: Sequence[Tensor],
        order_LSk: Tensor,
        layout: Layout,
        o: SiaOptions,
        dtype: torch.dtype,
    ) -> None:
        self.tokens, self.layout, self.o, self.dtype = tokens, layout, o, dtype
        self.k_SP = geometry.set_sizes(layout.count_S, o.ratios, o.min_k)
        self.row_LSk = layout.row_ST.expand(len(tokens), -1, -1).gather(2, order_LSk)
        P, D = len(o.dims), layout.width
        budget = _CHUNK_BYTES.get(order_LSk.device.type, _CHUNK_BYTES_DEVICE)
        most = []
        for block in layout.similar:
            k = max(geometry.largest_sets(block.longest, o.ratios, o.min_k))
            size = torch.finfo(dtype).bits // 8 * (k * D + (4 * P + 2) * k * k)
            most.append(max(1, budget // max(size, 1)))
        self.chunks = list(_chunks(len(tokens), layout.similar, most))

    def load(self, pieces: list[_Piece]) -> geometry.Chosen:
        k_gP = torch.cat([self.k_SP[p.start : p.stop] for p in pieces])
        bounds = geometry.largest_sets(pieces[0].longest, self.o.ratios, self.o.min_k)
        if k_gP.device.type == "cpu":  # elsewhere reading it would stall
            bounds = k_gP.amax(0).tolist()
        parts = []
        for p in pieces:
            rows_n = self.row_LSk[p.layer, p.start : p.stop, : max(bounds)].flatten()
            # a row past a sentence's set is any real token: the set's sizes leave it out
            rows_n = rows_n.clamp_max(self.layout.n_real - 1)
            parts.append(self.tokens[p.layer].index_select(0, rows_n))
        x_gkD = (torch.cat(parts) if len(parts) > 1 else parts[0]).to(self.dtype)
        x_gkD = x_gkD.view(len(k_gP), max(bounds), self.layout.width)
        return geometry.Chosen(geometry.pre_centre(x_gkD, k_gP.amax(1)), k_gP, bounds)

    def loss(self) -> Tensor:
        """Geometry of every layer and sentence: (L, S)."""
        L, S, _ = self.row_LSk.shape
        loss_LS = torch.empty(L, S, dtype=self.dtype, device=self.row_LSk.device)
        for pieces in self.chunks:
            loss_g = geometry.geometry_loss(self.load(pieces), self.o.dims)
            sizes = [p.stop - p.start for p in pieces]
            for p, loss_s in zip(pieces, loss_g.split(sizes), strict=True):
                loss_LS[p.layer, p.start : p.stop] = loss_s
        return loss_LS

    def add_gradient(self, pieces: list[_Piece], grad_LS: Tensor, dtok: Sequence[Tensor]) -> None:
        """Add one chunk's gradient into its layers' token gradients, at the chosen tokens."""
        o, chosen = self.o, self.load(pieces)
        grad_g = torch.cat([grad_LS[p.layer, p.start : p.stop] for p in pieces]).to(self.dtype)
        dx_gkW = geometry.geometry_gradient(chosen, o.dims, grad_g, o.detach_teacher)
        sizes = [p.stop - p.start for p in pieces]
        for p, dx_skW in zip(pieces, dx_gkW.split(sizes), strict=True):
            rows_n = self.row_LSk[p.layer, p.start : p.stop, : dx_skW.shape[1]].flatten()
            flat_nW = dtok[p.layer][:, : dx_skW.shape[2]]
            # every row is there once (the sink of a packed layer aside, which is never read), so
            # read, add and put: exact, and faster than index_add
            sum_nW = flat_nW.index_select(0, rows_n).add_(dx_skW.flatten(0, 1))
            flat_nW.index_put_((rows_n,), sum_nW)
