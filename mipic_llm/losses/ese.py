"""Espresso sentence embeddings, ESE (arXiv 2402.14776v2, ICLR 2025), and 2DMSE, its first version.

Shape legend: N sentences, D full width, k compressed width, n layers of the backbone.

    learn to express    sum over layers i < n of w_i L(z_i[:k]),  w_i = 1 / (1 + ln i), over n - 1
    learn to compress   MSE(z[:k], t) + KL(softmax(t) || softmax(z[:k])) at the same layers, where
                        A = softmax(Z^T Z / sqrt(D)) over rows,  A = U S V^T,  t = Z U_k S_k
    ESE   L(z_n) + L(z_n[:k]) + compress(z_n) + mean over i < n of w_i (L(z_i[:k]) + compress(z_i))
    2DMSE L(z_n) + L(z_n[:d]) + L(z_i) + L(z_i[:d]) + KL(softmax(z_n) || softmax(z_i)),  i, d random
L is the task's contrastive loss; the target t and the last layer in 2DMSE's KL are constants.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mipic_llm.losses.numerics import check_tau, compute_dtype


def layer_weight(layer: int) -> float:
    """w_i = 1 / (1 + ln i) of ESE; layer is 1-based."""
    return 1 / (1 + math.log(layer))


def pca_target(z_ND: Tensor, k: int, form: str = "softmax") -> Tensor:
    """Target of `compress` for the first k channels: (N, k) in float32, without gradient.

    form "softmax": the published Z U_k S_k from the singular vectors of A above. "covariance": Z on
    the first k principal axes of the centred Z (usual PCA). Signs, which a decomposition leaves
    open, are fixed: the largest entry of each axis is positive. Raises ValueError for an unknown
    form or k outside 1 .. D.
    """
    z_ND = z_ND.detach().double()
    if not 1 <= k <= z_ND.shape[1]:
        raise ValueError(f"k must be in 1 .. {z_ND.shape[1]}, got {k}")
    if form == "softmax":
        A_DD = torch.softmax(z_ND.T @ z_ND / z_ND.shape[1] ** 0.5, dim=-1)
        axes_DD, values_D, _ = torch.linalg.svd(A_DD)
        axes_Dk, scale_k = axes_DD[:, :k], values_D[:k]
    elif form == "covariance":
        z_ND = z_ND - z_ND.mean(0)
        _, axes_DD = torch.linalg.eigh(z_ND.T @ z_ND)  # rising variance
        axes_Dk, scale_k = axes_DD.flip(1)[:, :k], 1.0
    else:
        raise ValueError(f"form must be softmax or covariance, got {form!r}")
    largest_1k = axes_Dk.abs().argmax(0, keepdim=True)
    axes_Dk = axes_Dk * axes_Dk.gather(0, largest_1k).sign() * scale_k
    return (z_ND @ axes_Dk).float()


def alignment_kl(student_Nd: Tensor, teacher_Nd: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean over rows of T * KL(softmax(teacher / T) || softmax(student / T)): a scalar, without a
    gradient to the teacher. Raises ValueError unless the temperature T is positive."""
    check_tau(temperature)
    dtype = compute_dtype(student_Nd, teacher_Nd)
    log_s = torch.log_softmax(student_Nd.to(dtype) / temperature, -1)
    log_t = torch.log_softmax(teacher_Nd.detach().to(dtype) / temperature, -1)
    return temperature * (log_t.exp() * (log_t - log_s)).sum(-1).mean()


def compress(z_Nk: Tensor, target_Nk: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean squared error plus `alignment_kl` of the first k channels to `pca_target`: a scalar.

    Raises ValueError when the shapes differ.
    """
    if z_Nk.shape != target_Nk.shape:
        raise ValueError(f"shapes differ: {tuple(z_Nk.shape)} and {tuple(target_Nk.shape)}")
    dtype = compute_dtype(z_Nk, target_Nk)
    mse = (z_Nk.to(dtype) - target_Nk.detach().to(dtype)).square().mean()
    return mse + alignment_kl(z_Nk, target_Nk, temperature)
