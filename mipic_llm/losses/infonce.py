"""InfoNCE at nested prefixes: the Matryoshka contrastive loss, and each link of the chain.

Shape legend: B anchors (rows) of this rank, b of one tile; N candidates of all ranks; D full width;
i index of a prefix.

    z^i_bn = cos(q_b[:d_i], c_n[:d_i]) / tau
    loss_i = mean_b ( logsumexp_n z^i_bn - z^i_b,target(b) ),   slope = softmax(z) - onehot(target)
    n: all candidates but false negatives, whose text is that of the anchor or of its positive
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mipic_llm.losses.numerics import LEFT_OUT
from mipic_llm.losses.prefixes import check_index, over_prefixes

Keys = tuple[Tensor, Tensor]  # of the texts of the rows of q (B,) and c (N,), int64


def mrl_per_dim(
    q_BD: Tensor,
    c_ND: Tensor,
    *,
    target_B: Tensor,
    dims: Sequence[int],
    tau: float,
    keys: Keys | None = None,
) -> Tensor:
    """InfoNCE of each prefix, unweighted: (n_dims,) in the order of dims (Eq 1, 16, 19).

    Each prefix is sliced first and L2-normalised after. dims ascend within 1 .. D. target_B: int64,
    the index of each anchor's positive in c_ND. keys: equal where texts are equal; candidates with
    the text of the anchor or of its positive are left out of the anchor's denominator, but for the
    positive itself.
    Gradients go to both sides. Returns float32, or float64 for float64 inputs. Raises ValueError on
    wrong shapes, indices, dims or tau. Source: arXiv 2604.24374.
    """
    B, N = len(q_BD), len(c_ND)
    check_index("target_B", target_B, B, N)
    if keys is not None and [k.shape for k in keys] != [(B,), (N,)]:
        raise ValueError(f"keys must be of shapes ({B},) and ({N},), got "
                         f"{' and '.join(str(tuple(k.shape)) for k in keys)}")  # fmt: skip
    return over_prefixes(q_BD, c_ND, _CrossEntropy(target_B, keys), dims=dims, tau=tau)


def false_negatives(keys: Keys, target_B: Tensor) -> Tensor:
    """How many pairs of an anchor and a candidate `mrl_per_dim` leaves out, an int64 scalar."""
    key_B, key_N = keys
    sorted_N, right_B = key_N.sort().values, key_N[target_B]

    def count(of_B: Tensor) -> Tensor:
        after = torch.searchsorted(sorted_N, of_B, right=True)
        return after - torch.searchsorted(sorted_N, of_B)

    return (count(right_B) - 1 + count(key_B) * (key_B != right_B)).sum()


class _CrossEntropy(NamedTuple):
    target_B: Tensor
    keys: Keys | None

    def value(self, z_ibN: Tensor, here: slice) -> Tensor:
        self._leave_out(z_ibN, here)
        target_b = self.target_B[here]
        hit_ib = z_ibN[:, torch.arange(len(target_b), device=z_ibN.device), target_b]
        return (z_ibN.logsumexp(2) - hit_ib).sum(1)

    def slope(self, z_ibN: Tensor, here: slice) -> Tensor:
        self._leave_out(z_ibN, here)
        delta_ibN, target_b = z_ibN.softmax(2), self.target_B[here]
        delta_ibN[:, torch.arange(len(target_b), device=z_ibN.device), target_b] -= 1
        return delta_ibN

    def _leave_out(self, z_ibN: Tensor, here: slice) -> None:
        if self.keys is None:
            return
        (key_B, key_N), target_b1 = self.keys, self.target_B[here, None]
        out_bN = (key_N == key_B[here, None]) | (key_N == key_N[target_b1])
        z_ibN.masked_fill_(out_bN.scatter_(1, target_b1, False), LEFT_OUT)
