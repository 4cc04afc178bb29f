"""Distillation from a teacher: of single vectors, and of the scores of a row's candidates.

Shape legend: S texts; P prefixes; K the teacher's width; B rows (an anchor each); C candidates, a
positive of each row first, then the negatives of all rows, row_C says whose.

    vector    mean_s 1 - cos(y_s, t_s)   or   mean_s |y_s - t_s|^2, |t_s| = 1
    KL        sum_b sum_{c of b} p_c (log p_c - log q_c),   p = softmax over a row of the
              teacher's logits, q of the student's
    margin    sum over negatives c of ((z_b+ - z_c) - (s_b+ - s_c))^2
Sources: Hinton et al. 2015 (arXiv 1503.02531); Hofstaetter et al. 2020, margin-MSE (arXiv
2010.02666). The sums over rows are divided by their number over all ranks by the caller.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from mipic_llm.losses.numerics import LEFT_OUT, compute_dtype, full_precision


def vector_loss(y_SK: Tensor, t_SK: Tensor, form: str) -> Tensor:
    """Mean over the rows of 1 - cosine ("cosine"), or of the squared distance to the teacher's
    vector at length 1 ("l2"); a scalar. t_SK is a constant."""
    dtype = compute_dtype(y_SK, t_SK)
    y_SK, t_SK = y_SK.to(dtype), normalize(t_SK.detach().to(dtype), dim=1)
    if form == "cosine":
        return 1 - cosine_similarity(y_SK, t_SK, dim=1).mean()
    return (y_SK - t_SK).square().sum(1).mean()


def candidate_cosines(a_BD: Tensor, c_CD: Tensor, row_C: Tensor, dims: Sequence[int]) -> Tensor:
    """(P, C): the cosine of each candidate with the anchor of its row, at each prefix."""
    with full_precision(a_BD.device):
        dtype = compute_dtype(a_BD, c_CD)
        found = []
        for d in dims:
            a_Bd, c_Cd = (normalize(x[:, :d].to(dtype), dim=1) for x in (a_BD, c_CD))
            found.append((a_Bd[row_C] * c_Cd).sum(1))
        return torch.stack(found)


def candidate_kl(
    student_PC: Tensor, teacher_C: Tensor, row_C: Tensor, use_C: Tensor, n_rows: int
) -> Tensor:
    """KL from the teacher's distribution over the candidates of each row to the student's, summed
    over rows: (P,). Both are logits. use_C: candidates that count."""
    teacher_1C = teacher_C[None].detach()
    log_p_1C, log_q_PC = (
        _log_softmax(z.masked_fill(~use_C, LEFT_OUT), row_C, n_rows)
        for z in (teacher_1C, student_PC)
    )
    return (log_p_1C.exp() * (log_p_1C - log_q_PC) * use_C).sum(1)


def margin_mse(
    student_PC: Tensor, teacher_C: Tensor, row_C: Tensor, use_C: Tensor, n_rows: int
) -> Tensor:
    """Squared difference of the margins positive - negative of student and teacher, summed over
    negatives: (P,). The first n_rows candidates are the positives. use_C: what counts."""
    gap_PC = student_PC - teacher_C.detach()
    right_PC = gap_PC[:, :n_rows][:, row_C[n_rows:]]
    return ((right_PC - gap_PC[:, n_rows:]).square() * use_C[n_rows:]).sum(1)


def _log_softmax(z_PC: Tensor, row_C: Tensor, n_rows: int) -> Tensor:
    """Over the candidates of each row."""
    index_PC = row_C.expand_as(z_PC)
    least = z_PC.new_full((len(z_PC), n_rows), LEFT_OUT)
    top_PB = least.scatter_reduce(1, index_PC, z_PC.detach(), "amax")
    z_PC = z_PC - top_PB.gather(1, index_PC)
    total_PB = torch.zeros_like(least).index_add(1, row_C, z_PC.exp())
    return z_PC - total_PB.log().gather(1, index_PC)
