"""What the Triton kernels of SIA for short texts share: one sentence's tokens as a tile.

Shape legend:
    M rows of a tile: the tokens of one sentence in reading order, and rows past its end
    D full width, P truncated prefixes, c columns of one step
    R = 16 score rows: row 0 the teacher, rows 1 to P the students
"""

from __future__ import annotations

import triton
import triton.language as tl

R = tl.constexpr(16)
EXACT = tl.constexpr("tf32x3")  # products on tensor cores with the digits of float32


@triton.jit
def own_rows(FIRST, MASK, s, PADDED: tl.constexpr, M: tl.constexpr):
    """Rows of a sentence's tile, which of them are its own, and which are real tokens."""
    first, here = tl.load(FIRST + s), tl.arange(0, M)
    rows = first + here
    inside = rows < tl.load(FIRST + s + 1)
    real = inside
    if PADDED:
        real = tl.load(MASK + rows, mask=inside, other=0) != 0
    return rows, inside, real


@triton.jit
def layer_tokens(LAYERS, layer, LIKE, ALIGN: tl.constexpr):
    """Where a layer's tokens begin, from the table of addresses."""
    return tl.multiple_of(tl.load(LAYERS + layer).to(LIKE.dtype), ALIGN)


@triton.jit
def read_tile(tokens, rows, real, cols, stop, D):
    """Columns below `stop` of the real tokens, zero elsewhere: (M, c) float32."""
    kept = real[:, None] & (cols < stop)[None, :]
    return tl.load(tokens + rows[:, None] * D + cols[None, :], mask=kept, other=0.0).to(tl.float32)


@triton.jit
def read_vectors(QUERY, LIFTED, at, wide, text, cols, D, K):
    """The vectors of the score rows: the query, then P_i h_q, zero from d_i on: (R, c) float32.

    at, wide: of each row (kernels.py), read before any loop over columns: within one, the compiler
    fetches them ahead through shared memory, and then addresses that come from there."""
    r = tl.arange(0, R)
    query = tl.load(QUERY + text * D + cols, mask=cols < D, other=0.0).to(tl.float32)
    kept = cols[None, :] < wide[:, None]
    lifted = tl.load(LIFTED + text * K + at[:, None] + cols[None, :], mask=kept, other=0.0)
    return tl.where((r == 0)[:, None], query[None, :], lifted.to(tl.float32))


@triton.jit
def log_softmax(s, real, tau):
    """log p and p of softmax(s / tau) over the real tokens; both 0 elsewhere."""
    z = tl.where(real[None, :], s / tau, -1e30)
    z -= tl.max(z, 1)[:, None]
    total = tl.sum(tl.where(real[None, :], tl.exp(z), 0.0), 1)
    log_p = tl.where(real[None, :], z - tl.log(tl.maximum(total, 1.0))[:, None], 0.0)
    return log_p, tl.where(real[None, :], tl.exp(log_p), 0.0)


@triton.jit
def relation_rows(s, real, tau, P, STUDENT_FIRST: tl.constexpr):
    """Of every student row: log p - log t and KL, with p and t (relation.py)."""
    r = tl.arange(0, R)
    student = ((r > 0) & (r <= P))[:, None] & real[None, :]
    log_p, p = log_softmax(s, real, tau)
    log_t = tl.sum(tl.where((r == 0)[:, None], log_p, 0.0), 0)
    t = tl.sum(tl.where((r == 0)[:, None], p, 0.0), 0)
    gap = tl.where(student, log_p - log_t[None, :], 0.0)
    if STUDENT_FIRST:
        kl = tl.sum(p * gap, 1)
    else:
        kl = -tl.sum(t[None, :] * gap, 1)
    return gap, kl, p, t, student


@triton.jit
def relation_slope(s, real, tau, P, teacher, STUDENT_FIRST: tl.constexpr):
    """d KL / d scores, (R, M); row 0 only where `teacher` is 1 (`relation.kl_gradient`)."""
    gap, kl, p, t, student = relation_rows(s, real, tau, P, STUDENT_FIRST)
    if STUDENT_FIRST:
        ds = tl.where(student, p * (gap - kl[:, None]), 0.0)
        dt = tl.sum(tl.where(student, t[None, :] - p, 0.0), 0)
    else:
        ds = tl.where(student, p - t[None, :], 0.0)
        dt = tl.sum(tl.where(student, t[None, :] * (-gap - kl[:, None]), 0.0), 0)
    return tl.where((tl.arange(0, R) == 0)[:, None], (dt * teacher)[None, :], ds) / tau


@triton.jit
def ranks(score, rows, real, M: tl.constexpr):
    """Place of each token by the teacher's score, best 0, ties in reading order."""
    here = tl.arange(0, M)
    s = tl.load(score + rows, mask=real, other=float("-inf"))
    better = s[None, :] > s[:, None]
    earlier = (s[None, :] == s[:, None]) & (here[None, :] < here[:, None])
    return tl.sum((better | earlier).to(tl.int32), 1)


@triton.jit
def largest_set(SETS, s, P):
    """Tokens of a sentence's largest set."""
    i = tl.arange(0, R)
    return tl.max(tl.load(SETS + s * P + i, mask=i < P, other=0), 0)


@triton.jit
def centred(x, chosen, size):
    """The chosen rows without their mean, zero elsewhere (`geometry.pre_centre`)."""
    mean = tl.sum(tl.where(chosen[:, None], x, 0.0), 0) / tl.maximum(size, 1).to(tl.float32)
    return tl.where(chosen[:, None], x - mean[None, :], 0.0)


@triton.jit
def double_centred(A, chosen, size, M: tl.constexpr):
    """H A H over the chosen tokens, zero elsewhere, and the trace before (`geometry._centre`)."""
    kept = chosen[:, None] & chosen[None, :]
    A = tl.where(kept, A, 0.0)
    k = tl.maximum(size, 1).to(tl.float32)
    down, across = tl.sum(A, 1) / k, tl.sum(A, 0) / k
    half = tl.sum(down, 0) / (2 * k)
    out = tl.where(kept, A - (down - half)[:, None] - (across - half)[None, :], 0.0)
    here = tl.arange(0, M)
    return out, tl.sum(tl.sum(tl.where(here[:, None] == here[None, :], A, 0.0), 1), 0)


@triton.jit
def add_gram(A, tokens, rows, chosen, size, start, stop, D, C: tl.constexpr):
    """A and the Gram of the centred columns from start to stop."""
    for c in range(start, stop, C):
        cols = c + tl.arange(0, C)
        x = centred(read_tile(tokens, rows, chosen, cols, stop, D), chosen, size)
        A = tl.dot(x, tl.trans(x), A, input_precision=EXACT)
    return A
