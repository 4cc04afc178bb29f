"""SIA as one autograd node: analytic gradient, nothing but inputs and scores kept.

Shape legend:
    L captured layers, S sequences, T tokens, D full width; G = L * S stacked sentences
    P truncated prefixes, K = sum of their widths, R = P + 1 score rows (row 0 the teacher)
    g sentences of one geometry chunk, k chosen tokens

The backward pass builds the Grams again, in chunks that bound the workspace; for the backward
pass only the inputs, the order and the (R x T) scores are kept: about R / D of the tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mipic_llm.losses import sia_geometry, sia_relation
from mipic_llm.losses.numerics import compute_dtype, full_precision

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
    """Sentences start to stop of one layer."""

    layer: int
    start: int
    stop: int


def _chunks(L: int, S: int, per_chunk: int) -> Iterator[list[_Piece]]:
    """Cut L layers of S sentences into chunks: slices of one layer, or several whole layers."""
    if per_chunk < S:
        for layer in range(L):
            for start in range(0, S, per_chunk):
                yield [_Piece(layer, start, min(start + per_chunk, S))]
        return
    whole = max(1, per_chunk // max(S, 1))
    for first in range(0, L, whole):
        yield [_Piece(layer, 0, S) for layer in range(first, min(first + whole, L))]


class _Geometry:
    """Chosen tokens of every layer, chunk by chunk."""

    def __init__(
        self,
        tokens: Sequence[Tensor],
        order_LSk: Tensor,
        mask_ST: Tensor,
        o: SiaOptions,
        dtype: torch.dtype,
    ) -> None:
        self.o, (S, self.T, D) = o, tokens[0].shape
        self.bounds = sia_geometry.largest_sets(self.T, o.ratios, o.min_k)
        self.k_SP = sia_geometry.set_sizes(
            mask_ST.sum(1), self.T, o.ratios, o.min_k, o.k_from_padded
        )
        first_S11 = torch.arange(S, device=order_LSk.device)[:, None] * self.T
        self.row_LSk = order_LSk + first_S11
        self.flat = [t.reshape(S * self.T, D) for t in tokens]
        self.dtype = dtype
        k, P = order_LSk.shape[2], len(o.dims)
        size = torch.finfo(self.dtype).bits // 8 * (k * D + (2 * P + 2) * k * k)
        budget = _CHUNK_BYTES.get(order_LSk.device.type, _CHUNK_BYTES_DEVICE)
        self.chunks = list(_chunks(len(tokens), S, max(1, budget // max(size, 1))))

    def load(self, pieces: list[_Piece]) -> tuple[Tensor, Tensor, list[int]]:
        """Sorted, pre-centred tokens x_gkD of a chunk, k_gP, and the bounds of its Grams."""
        k_gP = torch.cat([self.k_SP[p.start : p.stop] for p in pieces])
        bounds, k = self.bounds, self.row_LSk.shape[2]
        if k_gP.device.type == "cpu":  # short sentences: smaller Grams, known without a stall
            bounds = [int(b) for b in k_gP.amax(0)]
            k = max(bounds)
        parts = [
            self.flat[p.layer].index_select(
                0, self.row_LSk[p.layer, p.start : p.stop, :k].flatten()
            )
            for p in pieces
        ]
        x_gkD = (torch.cat(parts) if len(parts) > 1 else parts[0]).to(self.dtype)
        x_gkD = x_gkD.view(len(k_gP), k, x_gkD.shape[1])
        return sia_geometry.pre_centre(x_gkD, k_gP.amax(1)), k_gP, bounds

    def loss(self) -> Tensor:
        """Geometry of every layer and sentence: (L, S)."""
        parts = [sia_geometry.geometry_loss(*self.load(c), self.o.dims) for c in self.chunks]
        return torch.cat(parts).view(self.row_LSk.shape[:2])

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
            layer_STD = dtok[p.layer]
            assert layer_STD is not None
            rows_n = self.row_LSk[p.layer, p.start : p.stop, : dx_skW.shape[1]].flatten()
            flat_nW = layer_STD.view(-1, x_gkD.shape[2])[:, : dx_skW.shape[2]]
            # every row is there once, so read, add and put: exact, and faster than index_add
            flat_nW.index_put_(
                (rows_n,), flat_nW.index_select(0, rows_n).add_(dx_skW.flatten(0, 1))
            )


class SiaFunction(torch.autograd.Function):
    """(relation_LS, geometry_LS). One node, so each layer's token gradient is one tensor."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        o: SiaOptions,
        query_LSD: Tensor,
        lifted_LSK: Tensor,
        mask_ST: Tensor,
        *tokens: Tensor,
    ) -> tuple[Tensor, Tensor]:
        dtype = compute_dtype(query_LSD, lifted_LSK, *tokens)
        (S, T, _), L = tokens[0].shape, len(tokens)
        with full_precision(query_LSD.device):
            scores = []
            for layer, tok_STD in enumerate(tokens):
                vec_SRD = sia_relation.stack_vectors(
                    query_LSD[layer].to(dtype), lifted_LSK[layer].to(dtype), o.dims
                )
                scores.append(sia_relation.score(tok_STD.to(dtype), vec_SRD, o.dims, o.cosine))
            s_LSRT = torch.stack([s.s_GRT for s in scores])
            s_GRT, mask_GT = s_LSRT.flatten(0, 1), mask_ST.repeat(L, 1)
            relation_LS, geometry_LS = s_LSRT.new_zeros(L, S), s_LSRT.new_zeros(L, S)
            if o.relation:
                relation_G = sia_relation.kl_rows(s_GRT, mask_GT, o.tau, o.student_first)
                relation_LS = relation_G.view(L, S)
            k = max(sia_geometry.largest_sets(T, o.ratios, o.min_k))
            order_LSk = sia_geometry.choose(s_GRT[:, 0], mask_GT, k).view(L, S, k)
            if o.geometry:
                geometry_LS = _Geometry(tokens, order_LSk, mask_ST, o, dtype).loss()
        norms = [t for s in scores if s.inv_vec_GR is not None for t in s[1:]]
        ctx.save_for_backward(query_LSD, lifted_LSK, mask_ST, s_LSRT, order_LSk, *tokens, *norms)
        ctx.o, ctx.L = o, L
        return relation_LS, geometry_LS

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, grad_relation_LS: Tensor, grad_geometry_LS: Tensor
    ) -> tuple[Any, ...]:
        o, L = ctx.o, ctx.L
        query_LSD, lifted_LSK, mask_ST, s_LSRT, order_LSk, *rest = ctx.saved_tensors
        tokens, norms = rest[:L], rest[L:]
        need_vec, need_tok = any(ctx.needs_input_grad[1:3]), any(ctx.needs_input_grad[4:])
        S = query_LSD.shape[1]
        dquery_LSD = torch.zeros_like(query_LSD)
        dlifted_LSK = torch.zeros_like(lifted_LSK)
        dtok: list[Tensor | None] = [None] * L
        with full_precision(query_LSD.device):
            geo = None
            if o.geometry and need_tok:
                geo = _Geometry(tokens, order_LSk, mask_ST, o, s_LSRT.dtype)
            for pieces in geo.chunks if geo else [[_Piece(i, 0, S)] for i in range(L)]:
                for i in [p.layer for p in pieces if p.start == 0]:
                    grad = _relation_gradient(
                        o,
                        query_LSD[i],
                        lifted_LSK[i],
                        mask_ST,
                        sia_relation.Scores(s_LSRT[i], *(norms[2 * i : 2 * i + 2] or (None, None))),
                        tokens[i],
                        grad_relation_LS[i],
                        need_tok,
                        need_vec,
                    )
                    dtok[i] = grad.tok_STD
                    if grad.vec_SRD is not None:
                        dquery_SD, dlifted_LSK[i] = sia_relation.unstack_vectors(
                            grad.vec_SRD, o.dims
                        )
                        dquery_LSD[i] = 0 if o.detach_query else dquery_SD
                if geo:
                    geo.add_gradient(pieces, grad_geometry_LS, dtok)
                # a finished layer goes back to its own dtype at once: bf16 tokens never hold
                # fp32 gradients of all layers
                for i in [p.layer for p in pieces if p.stop == S and need_tok]:
                    dtok[i] = dtok[i].to(tokens[i].dtype)  # type: ignore[union-attr]
        return None, dquery_LSD, dlifted_LSK, None, *dtok


def _relation_gradient(
    o: SiaOptions,
    query_SD: Tensor,
    lifted_SK: Tensor,
    mask_ST: Tensor,
    scores: sia_relation.Scores,
    tok_STD: Tensor,
    grad_S: Tensor,
    need_tok: bool,
    need_vec: bool,
) -> sia_relation.RelationGrad:
    """The relation's gradient of one layer, in a fresh token gradient (zeros when it is off)."""
    s_SRT, dtype = scores.s_GRT, scores.s_GRT.dtype
    if not o.relation:
        zeros = torch.zeros(tok_STD.shape, dtype=dtype, device=tok_STD.device) if need_tok else None
        return sia_relation.RelationGrad(zeros, None)
    ds_SRT = sia_relation.kl_gradient(
        s_SRT, mask_ST, grad_S.to(dtype), o.tau, o.student_first, o.detach_teacher
    )
    vec_SRD = sia_relation.stack_vectors(query_SD.to(dtype), lifted_SK.to(dtype), o.dims)
    return sia_relation.score_gradient(
        ds_SRT, scores, tok_STD.to(dtype), vec_SRD, o.dims, o.detach_teacher, need_tok, need_vec
    )
