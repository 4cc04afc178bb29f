"""Relation term of SIA: one attention row per sentence and prefix (Eq 4-6 of arXiv 2604.24374).

Shape legend:
    G sentences times layers (layers stacked on the batch axis), T tokens, D full width
    P truncated prefixes (d_1 < ... < d_P < D); R = P + 1 rows, row 0 the full-width teacher
    W columns that are touched at all (D, or d_P when only students matter)

    teacher  s^0_j = <h_q, h_j> / sqrt(D)
    student  s^i_j = <h_q, P_i^T h_j[:d_i]> / sqrt(D) = <P_i h_q, h_j[:d_i]> / sqrt(D)
The right-hand form folds the lift into the query, so tokens are never projected up to D and all R
rows come from one batched product of the tokens with R vectors (zero beyond d_i).
"cosine" divides each inner product by the norms of its two vectors instead of by sqrt(D):
    s^0_j = <h_q, h_j> / (|h_q| |h_j|),   s^i_j = <P_i h_q, h_j[:d_i]> / (|P_i h_q| |h_j[:d_i]|)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_EPS = 1e-12  # smallest norm of the cosine


class Scores(NamedTuple):
    """s_GRT and, for "cosine", the inverse norms that made it (None for "dot")."""

    s_GRT: Tensor
    inv_vec_GR: Tensor | None
    inv_tok_GRT: Tensor | None


def stack_vectors(query_GD: Tensor, lifted_GK: Tensor, dims: Sequence[int]) -> Tensor:
    """Row 0 the query, row i the folded query P_i h_q padded with zeros to D: (G, R, D)."""
    vec_GRD = query_GD.new_zeros(query_GD.shape[0], len(dims) + 1, query_GD.shape[1])
    vec_GRD[:, 0] = query_GD
    start = 0
    for i, d in enumerate(dims, 1):
        vec_GRD[:, i, :d] = lifted_GK[:, start : start + d]
        start += d
    return vec_GRD


def score(tok_STD: Tensor, vec_SRD: Tensor, dims: Sequence[int], cosine: bool) -> Scores:
    """Teacher (row 0) and student scores of every token, pads included (Eq 4-5)."""
    s_SRT = torch.bmm(vec_SRD, tok_STD.transpose(1, 2))
    if not cosine:
        return Scores(s_SRT.mul_(tok_STD.shape[2] ** -0.5), None, None)
    sq_SRT = torch.empty_like(s_SRT)
    total_ST = tok_STD.new_zeros(tok_STD.shape[:2])
    edges = (0, *dims, tok_STD.shape[2])
    for i in range(len(dims) + 1):
        total_ST = total_ST + tok_STD[:, :, edges[i] : edges[i + 1]].square().sum(2)
        sq_SRT[:, (i + 1) % (len(dims) + 1)] = total_ST  # the full width is row 0
    inv_tok_SRT = sq_SRT.sqrt_().clamp_min_(_EPS).reciprocal_()
    inv_vec_SR = vec_SRD.norm(dim=2).clamp_min_(_EPS).reciprocal_()
    s_SRT.mul_(inv_tok_SRT).mul_(inv_vec_SR[:, :, None])
    return Scores(s_SRT, inv_vec_SR, inv_tok_SRT)


def _log_softmax(s_GRT: Tensor, mask_GT: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """log p and p of softmax(s / tau) over real tokens; both 0 at pads and in empty rows."""
    pad_G1T = ~mask_GT[:, None]
    z_GRT = (s_GRT / tau).masked_fill_(pad_G1T, torch.finfo(s_GRT.dtype).min)
    log_p_GRT = torch.log_softmax(z_GRT, 2).masked_fill_(pad_G1T, 0)
    return log_p_GRT, log_p_GRT.exp().masked_fill_(pad_G1T, 0)


def kl_rows(s_GRT: Tensor, mask_GT: Tensor, tau: float, student_first: bool) -> Tensor:
    """KL per sentence, summed over prefixes: (G,).

    student_first: KL(student || teacher) = sum_j p_j (log p_j - log t_j)           (Eq 6)
    otherwise:     KL(teacher || student) = sum_j t_j (log t_j - log p_j)
    """
    log_GRT, prob_GRT = _log_softmax(s_GRT, mask_GT, tau)
    gap_GPT = log_GRT[:, 1:] - log_GRT[:, :1]
    if student_first:
        return (prob_GRT[:, 1:] * gap_GPT).sum((1, 2))
    return -(prob_GRT[:, :1] * gap_GPT).sum((1, 2))


def kl_gradient(
    s_GRT: Tensor,
    mask_GT: Tensor,
    grad_G: Tensor,
    tau: float,
    student_first: bool,
    detach_teacher: bool,
) -> Tensor:
    """d(grad . KL)/ds: (G, R, T), row 0 zero when the teacher is detached.

    KL(p || t):  d/ds_p = p (log p - log t - KL) / tau,   d/ds_t = (t - p) / tau
    KL(t || p):  d/ds_p = (p - t) / tau,                  d/ds_t = t (log t - log p - KL) / tau
    """
    log_GRT, prob_GRT = _log_softmax(s_GRT, mask_GT, tau)
    p_GPT, t_G1T = prob_GRT[:, 1:], prob_GRT[:, :1]
    gap_GPT = log_GRT[:, 1:] - log_GRT[:, :1]
    ds_GRT = torch.zeros_like(s_GRT)
    if student_first:
        kl_GP1 = (p_GPT * gap_GPT).sum(2, keepdim=True)
        ds_GRT[:, 1:] = p_GPT * (gap_GPT - kl_GP1)
        if not detach_teacher:
            ds_GRT[:, 0] = (t_G1T - p_GPT).sum(1)
    else:
        ds_GRT[:, 1:] = p_GPT - t_G1T
        if not detach_teacher:
            kl_GP1 = -(t_G1T * gap_GPT).sum(2, keepdim=True)
            ds_GRT[:, 0] = (t_G1T * (-gap_GPT - kl_GP1)).sum(1)
    return ds_GRT.mul_((grad_G / tau)[:, None, None])


class RelationGrad(NamedTuple):
    """Gradients of one layer: tokens (S, T, D) or None, and the vectors (S, R, D)."""

    tok_STD: Tensor | None
    vec_SRD: Tensor | None


def score_gradient(
    ds_SRT: Tensor,
    scores: Scores,
    tok_STD: Tensor,
    vec_SRD: Tensor,
    dims: Sequence[int],
    detach_teacher: bool,
    need_tok: bool,
    need_vec: bool,
) -> RelationGrad:
    """Pull the score gradient back to tokens and vectors; one batched product each.

    dot:     dh_j = sum_i ds^i_j v_i / sqrt(D),      dv_i = sum_j ds^i_j h_j / sqrt(D)
    cosine:  dh_j = sum_i ds^i_j v_i / (|v_i||h_j^i|) - ds^i_j s^i_j h_j[:d_i] / |h_j^i|^2, and
             dv_i = sum_j ds^i_j h_j / (|v_i||h_j^i|) - ds^i_j s^i_j v_i / |v_i|^2
    """
    D, P = tok_STD.shape[2], len(dims)
    W, first = (dims[-1], 1) if detach_teacher else (D, 0)
    inv_vec_SR, inv_tok_SRT = scores.inv_vec_GR, scores.inv_tok_GRT
    cosine = inv_vec_SR is not None and inv_tok_SRT is not None
    if cosine:
        outer_SRT = ds_SRT * inv_vec_SR[:, :, None] * inv_tok_SRT
    else:
        outer_SRT = ds_SRT * D**-0.5
    outer_SRT = outer_SRT[:, first:]
    dtok_STD = dvec_SRD = None
    if need_tok:
        dtok_STD = torch.bmm(outer_SRT.transpose(1, 2), vec_SRD[:, first:])
        if cosine:
            c_SRT = ds_SRT * scores.s_GRT * inv_tok_SRT.square() * (inv_tok_SRT < 1 / _EPS)
            edges = (0, *dims, D)
            for i in range(P + 1):
                if i == P and detach_teacher:
                    break
                block = slice(edges[i], edges[i + 1])
                c_ST = c_SRT[:, i + 1 :].sum(1) + c_SRT[:, 0]  # row 0 is zero when detached
                dtok_STD[:, :, block] -= c_ST[:, :, None] * tok_STD[:, :, block]
    if need_vec:
        dvec_SRD = torch.zeros_like(vec_SRD)
        dvec_SRD[:, first:, :W] = torch.bmm(outer_SRT, tok_STD[:, :, :W])
        if cosine:
            c_SR = (ds_SRT * scores.s_GRT).sum(2) * inv_vec_SR.square() * (inv_vec_SR < 1 / _EPS)
            dvec_SRD -= c_SR[:, :, None] * vec_SRD
    return RelationGrad(dtok_STD, dvec_SRD)


def unstack_vectors(dvec_GRD: Tensor, dims: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Gradients of (query_GD, lifted_GK) from those of `stack_vectors`."""
    parts = [dvec_GRD[:, i, :d] for i, d in enumerate(dims, 1)]
    return dvec_GRD[:, 0], torch.cat(parts, 1)
