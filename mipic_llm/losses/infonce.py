"""InfoNCE at nested prefixes: the Matryoshka contrastive loss, and each link of the chain.

Shape legend: B anchors (rows) of this rank, b of one tile; N candidates of all ranks; D full width;
i index of a prefix.

    z^i_bn = cos(q_b[:d_i], c_n[:d_i]) / tau
    loss_i = mean_b ( logsumexp_n z^i_bn - z^i_b,target(b) ),   slope = softmax(z) - onehot(target)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mipic_llm.losses.prefixes import check_index, over_prefixes


def mrl_per_dim(
    q_BD: Tensor,
    c_ND: Tensor,
    *,
    target_B: Tensor,
    dims: Sequence[int],
    tau: float,
    exclude_BN: Tensor | None = None,
) -> Tensor:
    """InfoNCE of each prefix, unweighted: (n_dims,) in the order of dims (Eq 1, 16, 19).

    Each prefix is sliced first and L2-normalised after. dims ascend within 1 .. D. target_B: int64,
    the index of each anchor's positive in c_ND. exclude_BN: True where a candidate is left out of
    the anchor's denominator (a duplicate of the anchor, say); the target itself is never left out.
    Gradients go to both sides. Returns float32, or float64 for float64 inputs. Raises ValueError on
    wrong shapes, indices, dims or tau. Source: arXiv 2604.24374.
    """
    B, N = len(q_BD), len(c_ND)
    check_index("target_B", target_B, B, N)
    if exclude_BN is not None and (exclude_BN.shape != (B, N) or exclude_BN.dtype != torch.bool):
        raise ValueError(
            f"exclude_BN must be bool of shape ({B}, {N}), got {exclude_BN.dtype} "
            f"{tuple(exclude_BN.shape)}"
        )
    return over_prefixes(q_BD, c_ND, _CrossEntropy(target_B, exclude_BN), dims=dims, tau=tau)


class _CrossEntropy(NamedTuple):
    target_B: Tensor
    exclude_BN: Tensor | None

    def value(self, z_ibN: Tensor, here: slice) -> Tensor:
        z_ibN, target_b = self._leave_out(z_ibN, here), self.target_B[here]
        hit_ib = z_ibN[:, torch.arange(len(target_b), device=z_ibN.device), target_b]
        return (z_ibN.logsumexp(2) - hit_ib).sum(1)

    def slope(self, z_ibN: Tensor, here: slice) -> Tensor:
        delta_ibN, target_b = self._leave_out(z_ibN, here).softmax(2), self.target_B[here]
        delta_ibN[:, torch.arange(len(target_b), device=z_ibN.device), target_b] -= 1
        return delta_ibN

    def _leave_out(self, z_ibN: Tensor, here: slice) -> Tensor:
        if self.exclude_BN is None:
            return z_ibN
        out_bN = self.exclude_BN[here].scatter(1, self.target_B[here, None], False)
        return z_ibN.masked_fill(out_bN, -torch.inf)
