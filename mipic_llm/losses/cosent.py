"""CoSENT and AnglE: of scored pairs, the more alike ones should be nearer, at every prefix.

Shape legend: N pairs of all ranks; D full width; i index of a prefix.

    loss_i = log(1 + sum over pairs n, m with score_n < score_m of exp((s^i_n - s^i_m) / tau))
    CoSENT: s^i_n = cos(x_n[:d_i], y_n[:d_i])
    AnglE:  s^i_n = |cos + sin|, sin = <x'', y'> - <x', y''>,  x', x'' the halves of x[:d_i] / |.|
            (an odd d_i is padded by a zero): the angle between complex vectors x' + i x''
With the pairs in the order of their scores, the inner sum over m is one running logsumexp from the
highest score down, read where the next higher score begins: O(N log N), no (N, N) matrix.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from mipic_llm.losses.numerics import check_tau, compute_dtype, full_precision


def cosent_per_dim(
    x_ND: Tensor, y_ND: Tensor, score_N: Tensor, *, dims: Sequence[int], tau: float,
    angle: bool = False,
) -> Tensor:  # fmt: skip
    """CoSENT of each prefix, or AnglE where `angle`, unweighted: (n_dims,) in the order of dims.

    x_ND, y_ND: the two texts of each pair, of all ranks. score_N: how alike they are, any scale,
    larger = more alike; pairs of equal score are not compared. Each prefix is sliced first and
    L2-normalised after. Gradients go to both sides. 0 where all scores are equal. Returns float32,
    or float64 for float64 inputs. Raises ValueError on wrong shapes or tau.
    Sources: Su 2022, "CoSENT"; Huang et al. 2024, doi 10.1109/TASLP.2024.3402087; Li and Li 2023,
    "AnglE-optimized text embeddings" (arXiv 2309.12871), in the sign of its code.
    """
    check_tau(tau)
    if x_ND.shape != y_ND.shape or x_ND.dim() != 2 or score_N.shape != (len(x_ND),):
        raise ValueError(
            f"pairs must be of shapes (N, D), (N, D) and (N,), got "
            f"{tuple(x_ND.shape)}, {tuple(y_ND.shape)}, {tuple(score_N.shape)}"
        )
    dtype = compute_dtype(x_ND, y_ND)
    with full_precision(x_ND.device):
        x_ND, y_ND = x_ND.to(dtype), y_ND.to(dtype)
        alike = _angle if angle else _cosine
        s_iN = torch.stack([alike(x_ND[:, :d], y_ND[:, :d]) for d in dims])
        return _in_order(s_iN / tau, score_N)


def _cosine(x_Nd: Tensor, y_Nd: Tensor) -> Tensor:
    return (normalize(x_Nd, dim=1) * normalize(y_Nd, dim=1)).sum(1)


def _angle(x_Nd: Tensor, y_Nd: Tensor) -> Tensor:
    odd = x_Nd.shape[1] % 2
    x_Nd, y_Nd = (pad(normalize(z, dim=1), (0, odd)) for z in (x_Nd, y_Nd))
    (x_1, x_2), (y_1, y_2) = x_Nd.chunk(2, 1), y_Nd.chunk(2, 1)
    return ((x_Nd * y_Nd).sum(1) + (x_2 * y_1 - x_1 * y_2).sum(1)).abs()


def _in_order(s_iN: Tensor, score_N: Tensor) -> Tensor:
    score_N, order_N = score_N.sort()
    s_iN = s_iN[:, order_N]
    above_N = torch.searchsorted(score_N, score_N, right=True)  # where the next higher one begins
    down_iN = torch.logcumsumexp(-s_iN.flip(1), 1).flip(1)  # over all pairs from n on
    nothing_i1 = s_iN.new_full((len(s_iN), 1), -torch.inf)
    each_iN = s_iN + torch.cat([down_iN, nothing_i1], 1)[:, above_N]
    return torch.cat([s_iN.new_zeros(len(s_iN), 1), each_iN], 1).logsumexp(1)
