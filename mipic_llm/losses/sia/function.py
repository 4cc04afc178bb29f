"""SIA as one autograd node: analytic gradient, nothing but inputs and scores kept.

Shape legend:
    L captured layers, S sequences, T tokens, D full width; G = L * S stacked sentences
    N token rows of a layer, pads included if there are any (sia_layout.py)
    P truncated prefixes, K = sum of their widths, R = P + 1 score rows (row 0 the teacher)
    g sentences of one geometry chunk, k chosen tokens

The backward pass builds the Grams again, in chunks that bound the workspace; for the backward
pass only the inputs, the order and the (R x T) scores are kept: about R / D of the tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from mipic_llm.losses.numerics import compute_dtype, full_precision
from mipic_llm.losses.sia import geometry as sia_geometry
from mipic_llm.losses.sia import relation as sia_relation
from mipic_llm.losses.sia.layout import Block, Layout, cut_blocks

# Workspace of one geometry chunk: cache sized on a CPU (measured), few launches elsewhere.
_CHUNK_BYTES = {"cpu": 16 * 2**20}
_CHUNK_BYTES_DEVICE = 512 * 2**20


class SiaOptions(NamedTuple):
    """Static choices of SIA; METHOD.md section 5 says why each exists."""

    dims: tuple[int, ...]
    ratios: tuple[float, ...]
    tau: float
    min_k: int
    detach_teacher: bool
    cosine: bool
    student_first: bool
    k_from_padded: bool
    detach_query: bool
    relation: bool
    geometry: bool


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
    """Chosen tokens of every layer, chunk by chunk."""

    def __init__(
        self,
        tokens: Sequence[Tensor],
        order_LSk: Tensor,
        layout: Layout,
        o: SiaOptions,
        dtype: torch.dtype,
    ) -> None:
        self.o, self.layout, self.dtype = o, layout, dtype
        self.k_SP = sia_geometry.set_sizes(
            layout.count_S, layout.T, o.ratios, o.min_k, o.k_from_padded
        )
        L = len(tokens)
        self.row_LSk = layout.row_ST.expand(L, -1, -1).gather(2, order_LSk)
        self.flat = tokens
        P, D = len(o.dims), layout.width
        budget = _CHUNK_BYTES.get(order_LSk.device.type, _CHUNK_BYTES_DEVICE)
        most = []
        for block in layout.like:
            k = max(self._bounds(block.longest))
            size = torch.finfo(dtype).bits // 8 * (k * D + (2 * P + 2) * k * k)
            most.append(max(1, budget // max(size, 1)))
        self.chunks = list(_chunks(L, layout.like, most))

    def _bounds(self, longest: int) -> list[int]:
        """Upper bound of each k_i among sentences of at most so many tokens, from host numbers."""
        k_1P = sia_geometry.set_sizes(
            torch.tensor([longest]), self.layout.T, self.o.ratios, self.o.min_k,
            self.o.k_from_padded or not self.layout.packed,
        )  # fmt: skip
        return [int(k) for k in k_1P[0]]

    def load(self, pieces: list[_Piece]) -> tuple[Tensor, Tensor, list[int]]:
        """Sorted, pre-centred tokens x_gkD of a chunk, k_gP, and the bounds of its Grams."""
        k_gP = torch.cat([self.k_SP[p.start : p.stop] for p in pieces])
        if k_gP.device.type == "cpu":  # short sentences: smaller Grams, known without a stall
            bounds = [int(b) for b in k_gP.amax(0)]
        else:
            bounds = self._bounds(pieces[0].longest)
        k = max(bounds)
        # a row past a sentence's set is any real token: the set's sizes leave it out
        last = self.layout.n_real - 1
        parts = [
            self.flat[p.layer].index_select(
                0, self.row_LSk[p.layer, p.start : p.stop, :k].flatten().clamp_max(last)
            )
            for p in pieces
        ]
        x_gkD = (torch.cat(parts) if len(parts) > 1 else parts[0]).to(self.dtype)
        x_gkD = x_gkD.view(len(k_gP), k, x_gkD.shape[1])
        return sia_geometry.pre_centre(x_gkD, k_gP.amax(1)), k_gP, bounds

    def loss(self) -> Tensor:
        """Geometry of every layer and sentence: (L, S)."""
        L, S, _ = self.row_LSk.shape
        loss_LS = torch.empty(L, S, dtype=self.dtype, device=self.row_LSk.device)
        for pieces in self.chunks:
            loss_g = sia_geometry.geometry_loss(*self.load(pieces), self.o.dims)
            sizes = [p.stop - p.start for p in pieces]
            for p, loss_s in zip(pieces, loss_g.split(sizes), strict=True):
                loss_LS[p.layer, p.start : p.stop] = loss_s
        return loss_LS

    def add_gradient(
        self, pieces: list[_Piece], grad_LS: Tensor, dtok: Sequence[Tensor | None]
    ) -> None:
        """Add one chunk's gradient into its layers' token gradients, at the chosen tokens."""
        x_gkD, k_gP, bounds = self.load(pieces)
        grad_g = torch.cat([grad_LS[p.layer, p.start : p.stop] for p in pieces]).to(self.dtype)
        dx_gkW = sia_geometry.geometry_gradient(
            x_gkD, k_gP, bounds, self.o.dims, grad_g, self.o.detach_teacher
        )
        sizes = [p.stop - p.start for p in pieces]
        for p, dx_skW in zip(pieces, dx_gkW.split(sizes), strict=True):
            layer_ND = dtok[p.layer]
            assert layer_ND is not None
            rows_n = self.row_LSk[p.layer, p.start : p.stop, : dx_skW.shape[1]].flatten()
            flat_nW = layer_ND[:, : dx_skW.shape[2]]
            # every row is there once (the sink of a packed layer aside, which nobody reads), so
            # read, add and put: exact, and faster than index_add
            flat_nW.index_put_(
                (rows_n,), flat_nW.index_select(0, rows_n).add_(dx_skW.flatten(0, 1))
            )


class SiaFunction(torch.autograd.Function):
    """(relation_LS, geometry_LS) of tokens (N, D) per layer, laid out as `layout` says. One node,
    so each layer's token gradient is one tensor."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        o: SiaOptions,
        layout: Layout,
        query_LSD: Tensor,
        lifted_LSK: Tensor,
        *tokens: Tensor,
    ) -> tuple[Tensor, Tensor]:
        dtype = compute_dtype(query_LSD, lifted_LSK, *tokens)
        L, S, T = len(tokens), layout.S, layout.T
        with full_precision(query_LSD.device):
            scores = []
            for layer, tok_ND in enumerate(tokens):
                vec_SRD = sia_relation.stack_vectors(
                    query_LSD[layer].to(dtype), lifted_LSK[layer].to(dtype), o.dims
                )
                scores.append(_scores(o, layout, tok_ND, vec_SRD))
            s_LSRT = torch.stack([s.s_GRT for s in scores])
            s_GRT, mask_GT = s_LSRT.flatten(0, 1), layout.mask_ST.repeat(L, 1)
            relation_LS, geometry_LS = s_LSRT.new_zeros(L, S), s_LSRT.new_zeros(L, S)
            if o.relation:
                relation_G = sia_relation.kl_rows(s_GRT, mask_GT, o.tau, o.student_first)
                relation_LS = relation_G.view(L, S)
            k = max(sia_geometry.largest_sets(T, o.ratios, o.min_k))
            order_LSk = sia_geometry.choose(s_GRT[:, 0], mask_GT, k).view(L, S, k)
            if o.geometry:
                geometry_LS = _Geometry(tokens, order_LSk, layout, o, dtype).loss()
        norms = [t for s in scores if s.inv_vec_GR is not None for t in s[1:]]
        ctx.save_for_backward(query_LSD, lifted_LSK, s_LSRT, order_LSk, *tokens, *norms)
        ctx.o, ctx.L, ctx.layout = o, L, layout
        return relation_LS, geometry_LS

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, grad_relation_LS: Tensor, grad_geometry_LS: Tensor
    ) -> tuple[Any, ...]:
        o, L, layout = ctx.o, ctx.L, ctx.layout
        query_LSD, lifted_LSK, s_LSRT, order_LSk, *rest = ctx.saved_tensors
        tokens, norms = rest[:L], rest[L:]
        need_vec, need_tok = any(ctx.needs_input_grad[2:4]), any(ctx.needs_input_grad[4:])
        S = query_LSD.shape[1]
        dquery_LSD = torch.zeros_like(query_LSD)
        dlifted_LSK = torch.zeros_like(lifted_LSK)
        dtok: list[Tensor | None] = [None] * L
        with full_precision(query_LSD.device):
            geo = None
            if o.geometry and need_tok:
                geo = _Geometry(tokens, order_LSk, layout, o, s_LSRT.dtype)
            for pieces in geo.chunks if geo else [[_Piece(i, 0, S, 0)] for i in range(L)]:
                for i in [p.layer for p in pieces if p.start == 0]:
                    dtok[i], dvec_SRD = _relation_gradient(
                        o,
                        layout,
                        query_LSD[i],
                        lifted_LSK[i],
                        sia_relation.Scores(s_LSRT[i], *(norms[2 * i : 2 * i + 2] or (None, None))),
                        tokens[i],
                        grad_relation_LS[i],
                        need_tok,
                        need_vec,
                    )
                    if dvec_SRD is not None:
                        dquery_SD, dlifted_LSK[i] = sia_relation.unstack_vectors(dvec_SRD, o.dims)
                        dquery_LSD[i] = 0 if o.detach_query else dquery_SD
                if geo:
                    geo.add_gradient(pieces, grad_geometry_LS, dtok)
                # a finished layer goes back to its own dtype at once: bf16 tokens never hold
                # fp32 gradients of all layers
                for i in [p.layer for p in pieces if p.stop == S and need_tok]:
                    own_ND = dtok[i][: layout.n_real]  # type: ignore[index]
                    dtok[i] = own_ND.to(tokens[i].dtype)
        return None, None, dquery_LSD, dlifted_LSK, *dtok


def _scores(o: SiaOptions, layout: Layout, tok_ND: Tensor, vec_SRD: Tensor) -> sia_relation.Scores:
    """Scores of one layer, padded to T; what stands at pads is read by nobody."""
    found = [
        sia_relation.score(
            layout.read(tok_ND, b).to(vec_SRD.dtype), vec_SRD[b.start : b.stop], o.dims, o.cosine
        )
        for b in layout.blocks
    ]
    if len(found) == 1:
        return found[0]

    def wide(parts: Iterable[Tensor | None]) -> Tensor:
        return torch.cat([pad(x, (0, layout.T - x.shape[2])) for x in parts if x is not None])

    s_SRT = wide(s.s_GRT for s in found)
    if not o.cosine:
        return sia_relation.Scores(s_SRT, None, None)
    vec_SR = torch.cat([s.inv_vec_GR for s in found if s.inv_vec_GR is not None])
    return sia_relation.Scores(s_SRT, vec_SR, wide(s.inv_tok_GRT for s in found))


def _relation_gradient(
    o: SiaOptions,
    layout: Layout,
    query_SD: Tensor,
    lifted_SK: Tensor,
    scores: sia_relation.Scores,
    tok_ND: Tensor,
    grad_S: Tensor,
    need_tok: bool,
    need_vec: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """The relation's gradient of one layer, in a fresh token gradient of layout.n_rows rows (zeros
    when it is off), and that of its vectors, (S, R, D)."""
    s_SRT, dtype = scores.s_GRT, scores.s_GRT.dtype
    dtok_ND = None
    if need_tok and (layout.packed or not o.relation):
        dtok_ND = s_SRT.new_zeros(layout.n_rows, layout.width)
    if not o.relation:
        return dtok_ND, None
    ds_SRT = sia_relation.kl_gradient(
        s_SRT, layout.mask_ST, grad_S.to(dtype), o.tau, o.student_first, o.detach_teacher
    )
    vec_SRD = sia_relation.stack_vectors(query_SD.to(dtype), lifted_SK.to(dtype), o.dims)
    dvec = []
    for b in layout.blocks:
        here, t = slice(b.start, b.stop), b.longest
        own = sia_relation.Scores(
            s_SRT[here, :, :t],
            None if scores.inv_vec_GR is None else scores.inv_vec_GR[here],
            None if scores.inv_tok_GRT is None else scores.inv_tok_GRT[here, :, :t],
        )
        grad = sia_relation.score_gradient(
            ds_SRT[here, :, :t], own, layout.read(tok_ND, b).to(dtype), vec_SRD[here], o.dims,
            o.detach_teacher, need_tok, need_vec,
        )  # fmt: skip
        dvec.append(grad.vec_SRD)
        if grad.tok_STD is None:
            continue
        if layout.packed:
            assert dtok_ND is not None
            layout.write(dtok_ND, b, grad.tok_STD)
        else:
            dtok_ND = grad.tok_STD.view(-1, layout.width)
    return dtok_ND, (torch.cat(dvec) if len(dvec) > 1 else dvec[0]) if need_vec else None
