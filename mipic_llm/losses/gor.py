"""GOR, global orthogonal regularisation ("spread-out"): unrelated texts should be orthogonal.

    loss_i = mean_b mean_{n != own(b)} cos(x_b[:d_i], y_n[:d_i])^2
Source: Zhang et al. 2017, "Learning spread-out local feature descriptors" (arXiv 1708.06320); used
per prefix by EmbeddingGemma (arXiv 2509.20354).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from mipic_llm.losses.prefixes import check_index, over_prefixes


def gor_per_dim(x_BD: Tensor, y_ND: Tensor, *, own_B: Tensor, dims: Sequence[int]) -> Tensor:
    """Mean squared cosine of different rows, of each prefix: (n_dims,). 0 where N is 1.

    x_BD: rows of this rank. y_ND: rows of all ranks. own_B: int64, the index of each x among y;
    that pair is left out. dims ascend within 1 .. D. Gradients go to both sides. Returns float32,
    or float64 for float64 inputs. Raises ValueError on wrong shapes, indices or dims.
    """
    check_index("own_B", own_B, len(x_BD), len(y_ND))
    return over_prefixes(x_BD, y_ND, _SquaredCosine(own_B), dims=dims)


class _SquaredCosine(NamedTuple):
    own_B: Tensor

    def value(self, z_ibN: Tensor, here: slice) -> Tensor:
        return self._others(z_ibN, here).square_().sum((1, 2)) / max(1, z_ibN.shape[2] - 1)

    def slope(self, z_ibN: Tensor, here: slice) -> Tensor:
        return self._others(z_ibN, here).mul_(2 / max(1, z_ibN.shape[2] - 1))

    def _others(self, z_ibN: Tensor, here: slice) -> Tensor:
        own_ib1 = self.own_B[here, None].expand(z_ibN.shape[0], -1, -1)
        return z_ibN.scatter(2, own_ib1, 0.0)
