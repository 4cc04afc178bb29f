"""GOR, global orthogonal regularisation ("spread-out"): unrelated texts should be orthogonal.

    loss_i = mean_b mean_n cos(x_b[:d_i], y_n[:d_i])^2,   n: the rows of y with another text than b
Source: Zhang et al. 2017, "Learning spread-out local feature descriptors" (arXiv 1708.06320); used
per prefix by EmbeddingGemma (arXiv 2509.20354).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from mipic_llm.losses.prefixes import over_prefixes


def gor_per_dim(
    x_BD: Tensor, y_ND: Tensor, *, keys: tuple[Tensor, Tensor], dims: Sequence[int],
    out_BN: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Mean squared cosine of different texts, of each prefix: (n_dims,). 0 where there are none.

    x_BD: rows of this rank. y_ND: rows of all ranks. keys: of their texts, (B,) and (N,), int64,
    equal where texts are equal; those pairs are left out, and those of out_BN (bool). dims ascend
    within 1 .. D. Gradients go to both sides. Returns float32, or float64 for float64 inputs.
    Raises ValueError on wrong shapes or dims.
    """
    if [len(key) for key in keys] != [len(x_BD), len(y_ND)]:
        raise ValueError(f"keys must be of {len(x_BD)} and {len(y_ND)} rows")
    return over_prefixes(x_BD, y_ND, _SquaredCosine(*keys, out_BN), dims=dims)


class _SquaredCosine(NamedTuple):
    key_B: Tensor
    key_N: Tensor
    out_BN: Tensor | None

    def value(self, z_ibN: Tensor, here: slice) -> Tensor:
        return (self._shares(z_ibN, here) * z_ibN.square_()).sum((1, 2))

    def slope(self, z_ibN: Tensor, here: slice) -> Tensor:
        return z_ibN * self._shares(z_ibN, here).mul_(2)

    def _shares(self, z_ibN: Tensor, here: slice) -> Tensor:
        """(b, N): 1 / the number of other texts, and 0 at the own one."""
        other_bN = self.key_N != self.key_B[here, None]
        if self.out_BN is not None:
            other_bN &= ~self.out_BN[here]
        other_bN = other_bN.to(z_ibN.dtype)
        return other_bN.div_(other_bN.sum(1, keepdim=True).clamp_min_(1))
