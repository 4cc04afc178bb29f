"""Matryoshka contrastive loss: InfoNCE at nested prefixes (Eq 1 and 19 of arXiv 2604.24374).

Shape legend: B anchors, N candidates, D full width, i index of a prefix.

    L_MRL = sum_i weight_i InfoNCE_tau(q[:, :d_i], c[:, :d_i])
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mipic_llm.losses.infonce import mrl_per_dim


def mrl(
    q_BD: Tensor,
    c_ND: Tensor,
    *,
    target_B: Tensor,
    dims: Sequence[int],
    tau: float,
    weights: Sequence[float] | None = None,
    exclude_BN: Tensor | None = None,
) -> Tensor:
    """Sum over prefixes of InfoNCE, each prefix sliced first and normalised after (Eq 1, 19).

    dims ascend, none wider than D; weights (default all 1) has one number per prefix. The other
    arguments are those of `info_nce`. Returns a scalar; raises ValueError on wrong arguments.
    """
    if weights is not None and len(weights) != len(dims):
        raise ValueError(f"{len(dims)} dims need as many weights, got {len(weights)}")
    loss_i = mrl_per_dim(q_BD, c_ND, target_B=target_B, dims=dims, tau=tau, exclude_BN=exclude_BN)
    return loss_i.sum() if weights is None else (loss_i * loss_i.new_tensor(weights)).sum()
