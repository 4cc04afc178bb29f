"""Self-distilled intra-relational alignment, SIA (Eq 4-14 of arXiv 2604.24374).

Shape legend:
    L captured layers, S sequences, T tokens, D full width; G = L * S stacked sentences
    P truncated prefixes (d_1 < ... < d_P < D), K = sum of the d_i, R = P + 1 score rows
    g sentences of one geometry chunk, k chosen tokens

    relation = sum_i KL(softmax(s^i / tau) || softmax(s^0 / tau))      see sia_relation.py
    geometry = sum_i 1 - CKA(h[top_i, :d_i], h[top_i, :])              see sia_geometry.py
The gradient is analytic. Only the inputs and the (R x T) scores are kept for the backward pass;
the Grams are built again there, in chunks that bound the workspace.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mipic_llm.losses import sia_geometry, sia_relation
from mipic_llm.losses.numerics import check_tau, compute_dtype, full_precision

# Workspace of one geometry chunk: cache sized on a CPU, launch bound elsewhere.
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


def sia(
    tokens_STD: Tensor,
    query_SD: Tensor,
    mask_ST: Tensor,
    *,
    lifts: Sequence[Tensor],
    dims: Sequence[int],
    ratios: Sequence[float],
    tau: float,
    min_k: int = 8,
    detach_teacher: bool = True,
    similarity: str = "dot",
    kl: str = "student_teacher",
    k_from: str = "real",
    detach_query: bool = False,
    relation: bool = True,
    geometry: bool = True,
) -> tuple[Tensor, Tensor]:
    """SIA of one layer: (relation, geometry), each the sum over prefixes of the batch mean.

    lifts[i] is P_i, (d_i, D). The rest is documented at `sia_per_example`, which does the work.
    """
    if len(lifts) != len(dims) or any(
        p.shape != (d, query_SD.shape[-1]) for p, d in zip(lifts, dims, strict=False)
    ):
        raise ValueError(
            f"lifts must have shapes (d, {query_SD.shape[-1]}) for d in {list(dims)}, got "
            f"{[tuple(p.shape) for p in lifts]}"
        )
    dtype = compute_dtype(tokens_STD, query_SD, *lifts)
    with full_precision(query_SD.device):
        source_SD = query_SD.detach() if detach_query else query_SD
        lifted_SK = source_SD.to(dtype) @ torch.cat([p.to(dtype) for p in lifts]).T
    relation_1S, geometry_1S = sia_per_example(
        [tokens_STD],
        query_SD[None],
        mask_ST,
        lifted_LSK=lifted_SK[None],
        dims=dims,
        ratios=ratios,
        tau=tau,
        min_k=min_k,
        detach_teacher=detach_teacher,
        similarity=similarity,
        kl=kl,
        k_from=k_from,
        detach_query=detach_query,
        relation=relation,
        geometry=geometry,
    )
    return relation_1S.mean(), geometry_1S.mean()


def sia_per_example(
    tokens_LSTD: Tensor | Sequence[Tensor],
    query_LSD: Tensor,
    mask_ST: Tensor,
    *,
    lifted_LSK: Tensor,
    dims: Sequence[int],
    ratios: Sequence[float],
    tau: float,
    min_k: int = 8,
    detach_teacher: bool = True,
    similarity: str = "dot",
    kl: str = "student_teacher",
    k_from: str = "real",
    detach_query: bool = False,
    relation: bool = True,
    geometry: bool = True,
) -> tuple[Tensor, Tensor]:
    """SIA of several layers at once: (relation_LS, geometry_LS), summed over prefixes (Eq 4-12).

    tokens_LSTD: (L, S, T, D), or a sequence of L tensors (S, T, D): cheaper, since nothing is
        copied to stack them.
    query_LSD: the readout h_q of each layer. mask_ST: bool, True at real tokens, pads anywhere.
    lifted_LSK: folded queries P_i h_q of all prefixes side by side on the last axis; their
        gradient trains P.
    dims: truncated prefixes only, ascending and below D.
    ratios: gamma_i, one per prefix, in (0, 1].
    tau: temperature of the relation's softmax over real tokens.
    min_k: smallest set: k_i = min(m, max(min_k, ceil(gamma_i m))), m = real tokens (Eq 7).
    detach_teacher: no gradient through the teacher row nor through the full-width Gram.
    similarity: "dot" (Eq 4-5), scores are inner products over sqrt(D); "cosine": each inner
        product over the norms of its two vectors, <P_i h_q, h_j[:d_i]> / (|P_i h_q| |h_j[:d_i]|)
        and <h_q, h_j> / (|h_q| |h_j|), norms clamped at 1e-12.
    kl: "student_teacher" is KL(student || teacher) (Eq 6); "teacher_student" the other order.
    k_from: "real" or "padded": whether the ceil takes m or T. Pads are never chosen.
    detach_query: no gradient of the relation into query_LSD (only a trained teacher has one: the
        student's goes through lifted_LSK, where the caller detaches the query before lifting).
    relation, geometry: False skips that term, which is then zero.

    Tokens are ranked once by the teacher score, in the dtype of the computation (float32, or
    float64 for float64 inputs), ties in reading order; the sets are nested. CKA counts as 1 (loss
    0, gradient 0) where fewer than two tokens are chosen or all chosen tokens are equal.
    Differentiable once. Raises ValueError on wrong shapes or options.
    """
    tokens = list(tokens_LSTD.unbind(0)) if isinstance(tokens_LSTD, Tensor) else list(tokens_LSTD)
    options = SiaOptions(
        dims=tuple(int(d) for d in dims),
        ratios=tuple(float(r) for r in ratios),
        tau=float(tau),
        min_k=int(min_k),
        detach_teacher=detach_teacher,
        cosine=_one_of("similarity", similarity, ("dot", "cosine")) == "cosine",
        student_first=_one_of("kl", kl, ("student_teacher", "teacher_student"))
        == "student_teacher",
        k_from_padded=_one_of("k_from", k_from, ("real", "padded")) == "padded",
        detach_query=detach_query,
        relation=relation,
        geometry=geometry,
    )
    _check(tokens, query_LSD, mask_ST, lifted_LSK, options)
    return _Sia.apply(options, query_LSD, lifted_LSK, mask_ST.bool(), *tokens)


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return value


def _check(
    tokens: list[Tensor], query_LSD: Tensor, mask_ST: Tensor, lifted_LSK: Tensor, o: SiaOptions
) -> None:
    check_tau(o.tau)
    if not tokens or tokens[0].dim() != 3 or any(t.shape != tokens[0].shape for t in tokens):
        raise ValueError(
            "tokens must be L tensors of one shape (S, T, D), got "
            f"{[tuple(t.shape) for t in tokens]}"
        )
    (S, T, D), L = tokens[0].shape, len(tokens)
    if query_LSD.shape != (L, S, D):
        raise ValueError(f"query_LSD must be {(L, S, D)}, got {tuple(query_LSD.shape)}")
    if mask_ST.shape != (S, T):
        raise ValueError(f"mask_ST must be {(S, T)}, got {tuple(mask_ST.shape)}")
    if not o.dims or any(a >= b for a, b in zip((0, *o.dims), (*o.dims, D), strict=True)):
        raise ValueError(f"SIA prefixes must ascend and stay below D = {D}, got {list(o.dims)}")
    if lifted_LSK.shape != (L, S, sum(o.dims)):
        raise ValueError(f"lifted_LSK must be {(L, S, sum(o.dims))}, got {tuple(lifted_LSK.shape)}")
    if len(o.ratios) != len(o.dims) or not all(0 < r <= 1 for r in o.ratios):
        raise ValueError(f"{len(o.dims)} prefixes need as many ratios in (0, 1], got {o.ratios}")
    if o.min_k < 1:
        raise ValueError(f"min_k must be at least 1, got {o.min_k}")


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
        self, tokens: Sequence[Tensor], order_LSk: Tensor, mask_ST: Tensor, o: SiaOptions
    ) -> None:
        self.o, (S, self.T, D) = o, tokens[0].shape
        self.bounds = sia_geometry.largest_sets(self.T, o.ratios, o.min_k)
        self.k_SP = sia_geometry.set_sizes(
            mask_ST.sum(1), self.T, o.ratios, o.min_k, o.k_from_padded
        )
        first_S11 = torch.arange(S, device=order_LSk.device)[:, None] * self.T
        self.row_LSk = order_LSk + first_S11
        self.flat = [t.reshape(S * self.T, D) for t in tokens]
        self.dtype = compute_dtype(*tokens)
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


class _Sia(torch.autograd.Function):
    """Both terms in one node, so that each layer's token gradient is one tensor."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, o: SiaOptions, query_LSD: Tensor, lifted_LSK: Tensor, mask_ST: Tensor, *tokens
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
            relation_LS = s_LSRT.new_zeros(L, S)
            geometry_LS = s_LSRT.new_zeros(L, S)
            mask_LST = mask_ST.expand(L, S, T)
            if o.relation:
                relation_LS = sia_relation.kl_rows(
                    s_LSRT.flatten(0, 1), mask_LST.flatten(0, 1), o.tau, o.student_first
                ).view(L, S)
            k = max(sia_geometry.largest_sets(T, o.ratios, o.min_k))
            order_LSk = sia_geometry.choose(
                s_LSRT[:, :, 0].flatten(0, 1), mask_LST.flatten(0, 1), k
            ).view(L, S, k)
            if o.geometry:
                geo = _Geometry(tokens, order_LSk, mask_ST, o)
                parts = [
                    sia_geometry.geometry_loss(*geo.load(pieces), o.dims) for pieces in geo.chunks
                ]
                geometry_LS = torch.cat(parts).view(L, S)
        norms = [t for s in scores if s.inv_vec_GR is not None for t in s[1:]]
        ctx.save_for_backward(query_LSD, lifted_LSK, mask_ST, s_LSRT, order_LSk, *tokens, *norms)
        ctx.o, ctx.L = o, L
        return relation_LS, geometry_LS

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_relation_LS: Tensor, grad_geometry_LS: Tensor):  # type: ignore[override]
        o, L = ctx.o, ctx.L
        query_LSD, lifted_LSK, mask_ST, s_LSRT, order_LSk, *rest = ctx.saved_tensors
        tokens, norms = rest[:L], rest[L:]
        need_tok = any(ctx.needs_input_grad[4:])
        with full_precision(query_LSD.device):
            dquery_LSD, dlifted_LSK, dtok = _relation_backward(
                ctx, o, query_LSD, lifted_LSK, mask_ST, s_LSRT, tokens, norms, grad_relation_LS
            )
            if o.geometry and need_tok:
                geo = _Geometry(tokens, order_LSk, mask_ST, o)
                _geometry_backward(geo, grad_geometry_LS, dtok)
        out = [
            d.to(t.dtype) if n else None
            for d, t, n in zip(dtok, tokens, ctx.needs_input_grad[4:], strict=True)
        ]
        return None, dquery_LSD, dlifted_LSK, None, *out


def _relation_backward(
    ctx, o, query_LSD, lifted_LSK, mask_ST, s_LSRT, tokens, norms, grad_relation_LS
):
    """Gradients of the relation: query, lifted, and a fresh token gradient per layer."""
    L, S, R, T = s_LSRT.shape
    dtype = s_LSRT.dtype
    need_tok = any(ctx.needs_input_grad[4:])
    if not o.relation:
        dtok = [torch.zeros_like(t, dtype=dtype) if need_tok else None for t in tokens]
        return torch.zeros_like(query_LSD), torch.zeros_like(lifted_LSK), dtok
    ds_LSRT = sia_relation.kl_gradient(
        s_LSRT.flatten(0, 1),
        mask_ST.expand(L, S, T).flatten(0, 1),
        grad_relation_LS.flatten(),
        o.tau,
        o.student_first,
        o.detach_teacher,
    ).view(L, S, R, T)
    dquery, dlifted, dtok = [], [], []
    for layer, tok_STD in enumerate(tokens):
        vec_SRD = sia_relation.stack_vectors(
            query_LSD[layer].to(dtype), lifted_LSK[layer].to(dtype), o.dims
        )
        pair = norms[2 * layer : 2 * layer + 2] if o.cosine else (None, None)
        grad = sia_relation.score_gradient(
            ds_LSRT[layer],
            sia_relation.Scores(s_LSRT[layer], *pair),
            tok_STD.to(dtype),
            vec_SRD,
            o.dims,
            o.detach_teacher,
            need_tok,
            any(ctx.needs_input_grad[1:3]),
        )
        dtok.append(grad.tok_STD)
        if grad.vec_SRD is not None:
            dq_SD, dl_SK = sia_relation.unstack_vectors(grad.vec_SRD, o.dims)
            dquery.append(torch.zeros_like(dq_SD) if o.detach_query else dq_SD)
            dlifted.append(dl_SK)
    if not dquery:
        return None, None, dtok
    return (
        torch.stack(dquery).to(query_LSD.dtype),
        torch.stack(dlifted).to(lifted_LSK.dtype),
        dtok,
    )


def _geometry_backward(geo: _Geometry, grad_LS: Tensor, dtok: list[Tensor]) -> None:
    """Add the geometry's gradient into the token gradients, at the chosen tokens only."""
    for pieces in geo.chunks:
        x_gkD, k_gP, bounds = geo.load(pieces)
        grad_g = torch.cat([grad_LS[p.layer, p.start : p.stop] for p in pieces])
        dx_gkW = sia_geometry.geometry_gradient(
            x_gkD, k_gP, bounds, geo.o.dims, grad_g.to(geo.dtype), geo.o.detach_teacher
        )
        g, k, W = dx_gkW.shape
        done = 0
        for p in pieces:
            size = p.stop - p.start
            dx_nW = dx_gkW[done : done + size].reshape(size * k, W)
            rows_n = geo.row_LSk[p.layer, p.start : p.stop, :k].flatten()
            flat_nW = dtok[p.layer].view(-1, x_gkD.shape[2])[:, :W]
            # every row is there once, so read, add and put: exact, and 2x faster than index_add
            flat_nW.index_put_((rows_n,), flat_nW.index_select(0, rows_n).add_(dx_nW))
            done += size
