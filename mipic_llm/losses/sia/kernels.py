"""The Triton kernels of SIA for short texts, for launches.py.
Formulas: relation.py and geometry.py.

Shape legend:
    L layers, S sentences, N token rows of a layer, D full width, P truncated prefixes
    M, c, R: see tile.py

One program is one sentence of one layer. EDGE is (0, d_1, .., d_P, D); AT and WIDE say where row r
lies among the lifted vectors and how wide it is (0: not there). HINT divides every edge, and ALIGN
the address of every layer's tokens: without them the compiler loads one number at a time.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mipic_llm.losses.sia.geometry import NOISE
from mipic_llm.losses.sia.tile import (
    EXACT,
    R,
    add_gram,
    centred,
    double_centred,
    largest_set,
    layer_tokens,
    own_rows,
    ranks,
    read_tile,
    read_vectors,
    relation_rows,
    relation_slope,
)

LEAST = tl.constexpr(NOISE * 2.0**-23)
LOOSE = ["at", "S", "N", "P", "tau", "scale"]  # values that need no kernel of their own


@triton.jit(do_not_specialize=LOOSE)
def scores(
    LAYERS, LIKE, QUERY, LIFTED, SENTENCE, FIRST, MASK, AT, WIDE, SCORE, RELATION,
    at, S, N, D, K, P, tau, scale,
    STUDENT_FIRST: tl.constexpr, RELATED: tl.constexpr, PADDED: tl.constexpr,
    ALIGN: tl.constexpr, M: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Scores of every row of a sentence, (L, P + 1, N), and its relation, (L, S) (Eq 4-6)."""
    layer, s = tl.program_id(1).to(tl.int64), tl.load(SENTENCE + at + tl.program_id(0))
    rows, inside, real = own_rows(FIRST, MASK, s, PADDED, M)
    tokens = layer_tokens(LAYERS, layer, LIKE, ALIGN)
    found, r = tl.zeros([R, M], dtype=tl.float32), tl.arange(0, R)
    off, wide = tl.load(AT + r), tl.load(WIDE + r)
    for c in range(0, D, C):
        cols = c + tl.arange(0, C)
        v = read_vectors(QUERY, LIFTED, off, wide, layer * S + s, cols, D, K)
        x = read_tile(tokens, rows, inside, cols, D, D)
        found = tl.dot(v, tl.trans(x), found, input_precision=EXACT)
    found *= scale
    here = SCORE + (layer * (P + 1) + r)[:, None] * N + rows[None, :]
    tl.store(here, found, mask=(r <= P)[:, None] & inside[None, :])
    if RELATED:
        _, kl, _, _, _ = relation_rows(found, real, tau, P, STUDENT_FIRST)
        tl.store(RELATION + layer * S + s, tl.sum(kl, 0))


@triton.jit(do_not_specialize=LOOSE)
def grams(
    LAYERS, LIKE, SENTENCE, FIRST, MASK, SETS, EDGE, SCORE, GRAD, GEOMETRY, SLOPE,
    at, S, N, D, P,
    BACK: tl.constexpr, TEACHER: tl.constexpr, PADDED: tl.constexpr, ALIGN: tl.constexpr,
    HINT: tl.constexpr, M: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Geometry of a sentence, (L, S) (Eq 12). BACK: instead its slopes, (L, n, P + 1, M, M) for the
    n sentences of this launch: 2 M_i of each prefix, then 2 sum N_i (`geometry_gradient`)."""
    layer, s = tl.program_id(1).to(tl.int64), tl.load(SENTENCE + at + tl.program_id(0))
    rows, _, real = own_rows(FIRST, MASK, s, PADDED, M)
    tokens = layer_tokens(LAYERS, layer, LIKE, ALIGN)
    rank, most = ranks(SCORE + layer * (P + 1) * N, rows, real, M), largest_set(SETS, s, P)
    chosen = real & (rank < most)
    full = tl.zeros([M, M], dtype=tl.float32)
    full = add_gram(full, tokens, rows, chosen, most, 0, D, D, C)
    A = tl.zeros([M, M], dtype=tl.float32)
    wide = tl.zeros([M, M], dtype=tl.float32)
    loss = 0.0
    here = tl.arange(0, M)
    text = layer * tl.num_programs(0) + tl.program_id(0)
    slope = SLOPE + text * (P + 1) * M * M + here[:, None] * M + here[None, :]
    grad = tl.load(GRAD + layer * S + s) if BACK else 0.0
    for i in range(0, P):
        start = tl.multiple_of(tl.load(EDGE + i), HINT)
        stop = tl.multiple_of(tl.load(EDGE + i + 1), HINT)
        A = add_gram(A, tokens, rows, chosen, most, start, stop, D, C)
        size = tl.load(SETS + s * P + i)
        own, trace = double_centred(A, real & (rank < size), size, M)
        other, trace_other = double_centred(full, real & (rank < size), size, M)
        dot = tl.sum(tl.sum(own * other, 1), 0)
        norm = tl.sqrt_rn(tl.sum(tl.sum(own * own, 1), 0))
        norm_other = tl.sqrt_rn(tl.sum(tl.sum(other * other, 1), 0))
        known = (norm > LEAST * trace) & (norm_other > LEAST * trace_other) & (size > 1)
        norm = tl.where(known, norm, 1.0)
        norm_other = tl.where(known, norm_other, 1.0)
        if BACK:
            cross = tl.where(known, -2 * grad / norm / norm_other, 0.0)
            tl.store(slope + i * M * M, cross * other - (cross * dot / norm / norm) * own)
            if TEACHER:
                wide += cross * own - (cross * dot / norm_other / norm_other) * other
        else:
            loss += tl.where(known, 1 - dot / norm / norm_other, 0.0)
    if BACK:
        tl.store(slope + P * M * M, wide)
    else:
        tl.store(GEOMETRY + layer * S + s, loss)


@triton.jit(do_not_specialize=[*LOOSE, "bands"])
def gradients(
    LAYERS, DLAYERS, LIKE, QUERY, LIFTED, DQUERY, DLIFTED, SENTENCE, FIRST, MASK, SETS, EDGE, AT,
    WIDE, SCORE, GRAD, SLOPE, at, S, N, D, K, P, bands, tau, scale,
    STUDENT_FIRST: tl.constexpr, RELATED: tl.constexpr, SHAPED: tl.constexpr,
    TEACHER: tl.constexpr, PADDED: tl.constexpr, ALIGN: tl.constexpr, HINT: tl.constexpr,
    M: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Gradient of a sentence's tokens, whole rows, and of its vectors, from the scores (relation:
    RELATED) and the slopes (geometry: SHAPED). Columns of the first `bands` bands have one.

    Tokens' gradients are made as (c, M); the slopes are symmetric. As (M, c) their products would
    be wgmma on 64 rows, and with that of Triton 3.6 an H200 said "illegal memory access"."""
    layer, s = tl.program_id(1).to(tl.int64), tl.load(SENTENCE + at + tl.program_id(0))
    rows, inside, real = own_rows(FIRST, MASK, s, PADDED, M)
    tokens = layer_tokens(LAYERS, layer, LIKE, ALIGN)
    dtokens = layer_tokens(DLAYERS, layer, LIKE, ALIGN)
    r, here, text = tl.arange(0, R), tl.arange(0, M), layer * S + s
    scored = SCORE + layer * (P + 1) * N
    ds = tl.zeros([R, M], dtype=tl.float32)
    if RELATED:
        score = tl.load(scored + (r[:, None] * N + rows[None, :]),
                        mask=(r <= P)[:, None] & inside[None, :], other=0.0)  # fmt: skip
        grad = tl.load(GRAD + text) * scale
        ds = relation_slope(score, real, tau, P, 1.0 if TEACHER else 0.0, STUDENT_FIRST) * grad
    G = tl.zeros([M, M], dtype=tl.float32)
    chosen, most = real, 1
    if SHAPED:
        most = largest_set(SETS, s, P)
        chosen = real & (ranks(scored, rows, real, M) < most)
    slope = SLOPE + (layer * tl.num_programs(0) + tl.program_id(0)) * (P + 1) * M * M
    slope += here[:, None] * M + here[None, :]
    if SHAPED and TEACHER:
        G = tl.load(slope + P * M * M)
    wide, off = tl.load(WIDE + r), tl.load(AT + r)
    for j in range(0, bands):
        i = bands - 1 - j
        start = tl.multiple_of(tl.load(EDGE + i), HINT)
        stop = tl.multiple_of(tl.load(EDGE + i + 1), HINT)
        if SHAPED and i < P:
            G += tl.load(slope + i * M * M)
        for c in range(start, stop, C):
            cols = c + tl.arange(0, C)
            x = read_tile(tokens, rows, real, cols, stop, D)
            dx = tl.zeros([C, M], dtype=tl.float32)
            if SHAPED:
                dx = tl.dot(tl.trans(centred(x, chosen, most)), G, dx, input_precision=EXACT)
            if RELATED:
                v = read_vectors(QUERY, LIFTED, off, wide, text, cols, D, K)
                dx = tl.dot(tl.trans(v), ds, dx, input_precision=EXACT)
                dv = tl.dot(ds, x, input_precision=EXACT)
                kept = (cols < stop)[None, :] & (cols[None, :] < wide[:, None])
                tl.store(DLIFTED + text * K + off[:, None] + cols[None, :],
                         dv.to(DLIFTED.dtype.element_ty), mask=kept)  # fmt: skip
                if TEACHER:
                    dq = tl.sum(tl.where((r == 0)[:, None], dv, 0.0), 0)
                    tl.store(DQUERY + text * D + cols, dq.to(DQUERY.dtype.element_ty),
                             mask=cols < stop)  # fmt: skip
            tl.store(dtokens + rows[None, :] * D + cols[:, None], dx.to(LIKE.dtype.element_ty),
                     mask=inside[None, :] & (cols < stop)[:, None])  # fmt: skip
    start = tl.multiple_of(tl.load(EDGE + bands), HINT)
    for c in range(start, D, C):
        cols = c + tl.arange(0, C)
        tl.store(dtokens + rows[:, None] * D + cols[None, :],
                 tl.zeros([M, C], dtype=LIKE.dtype.element_ty),
                 mask=inside[:, None] & (cols < D)[None, :])  # fmt: skip
