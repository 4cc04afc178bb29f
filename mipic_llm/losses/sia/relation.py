"""Relation term of SIA: one attention row per sentence and prefix (Eq 4-6 of arXiv 2604.24374).

Shape legend:
    S sentences, T tokens, D full width; G sentences of several layers, one layer after another
    P truncated prefixes (d_1 < ... < d_P < D); R = P + 1 rows, row 0 the full-width teacher

    teacher  s^0_j = <h_q, h_j> / sqrt(D)
    student  s^i_j = <h_q, P_i^T h_j[:d_i]> / sqrt(D) = <P_i h_q, h_j[:d_i]> / sqrt(D)
    KL_i     between softmax(s^i / tau) and softmax(s^0 / tau), over the real tokens
The right-hand form needs P_i h_q once per sentence and never projects tokens up to D: all R rows
are one batched product of the tokens with R vectors (zero beyond d_i).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def stack_vectors(
    query_SD: Tensor, lifted_SK: Tensor, dims: Sequence[int], dtype: torch.dtype
) -> Tensor:
    """Row 0 the query, row i the vector P_i h_q padded with zeros to D: (S, R, D) of this dtype."""
    S, D = query_SD.shape
    vec_SRD = query_SD.new_zeros(S, len(dims) + 1, D, dtype=dtype)
    vec_SRD[:, 0] = query_SD
    start = 0
    for i, d in enumerate(dims, 1):
        vec_SRD[:, i, :d] = lifted_SK[:, start : start + d]
        start += d
    return vec_SRD


def unstack_vectors(dvec_SRD: Tensor, dims: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Gradients of (query_SD, lifted_SK) from those of `stack_vectors`."""
    return dvec_SRD[:, 0], torch.cat([dvec_SRD[:, i, :d] for i, d in enumerate(dims, 1)], 1)


def score(tok_STD: Tensor, vec_SRD: Tensor) -> Tensor:
    """Scores of every token, pads included: (S, R, T) (Eq 4-5)."""
    return torch.bmm(vec_SRD, tok_STD.transpose(1, 2)).mul_(tok_STD.shape[2] ** -0.5)


def score_gradient(
    ds_SRT: Tensor, tok_STD: Tensor, vec_SRD: Tensor, dims: Sequence[int], detach_teacher: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of tokens (S, T, D) and vectors (S, R, D) from that of the scores.

    dh_j = sum_i ds^i_j v_i / sqrt(D),      dv_i = sum_j ds^i_j h_j / sqrt(D)
    """
    D = tok_STD.shape[2]
    width, first = (dims[-1], 1) if detach_teacher else (D, 0)  # columns and rows with a gradient
    ds_SRT = (ds_SRT * D**-0.5)[:, first:]
    dvec_SRD = torch.zeros_like(vec_SRD)
    dvec_SRD[:, first:, :width] = torch.bmm(ds_SRT, tok_STD[:, :, :width])
    return torch.bmm(ds_SRT.transpose(1, 2), vec_SRD[:, first:]), dvec_SRD


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
