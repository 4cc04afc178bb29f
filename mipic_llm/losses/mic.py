"""MIC: prefixes that repeat nothing of the rest, and spread evenly (arXiv 2605.29987).

Shape legend: S texts of this rank, T tokens, D width, d a prefix of P, N texts of all ranks.

    tokens of one text, each channel standardised over them: z = (h - mean) / s,  C = z' z / m
    cross  = mean_{a < d <= b} max(0, |C_ab| - threshold)^2
    floor  = mean_{a < d} max(0, 1 - s_a) + 1/2 mean_{b >= d} max(0, 1 - s_b)
    texts, y their readouts at the prefix, v_a the variance of channel a over texts
    even   = std_a(v_a) / mean_a(v_a)
    spread = log mean over pairs of different texts of exp(-2 t (1 - cos(y_i, y_j))),  t = 2
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

from mipic_llm.losses.numerics import LEFT_OUT, compute_dtype, full_precision

_EPS = 1e-4  # added to a variance
_TEXTS = 16  # whose D x D correlations are there at a time
SPREAD = 2.0


@lru_cache(maxsize=4)  # the same at every step
def _shares(
    dims: tuple[int, ...], D: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """How much each pair of channels counts in cross, and each channel in floor. Not to be written
    to."""
    with torch.inference_mode(False):
        inside_PD = (torch.arange(D) < torch.tensor(dims)[:, None]).double()
        share_PD, rest_PD = (x / x.sum(1, keepdim=True) for x in (inside_PD, 1 - inside_PD))
        pairs_DD = share_PD.T @ rest_PD / len(dims)
        channels_D = (share_PD + rest_PD / 2).mean(0)
        return pairs_DD.to(device, dtype), channels_D.to(device, dtype)


def decorrelation(
    tokens_STD: Tensor, mask_ST: Tensor, dims: Sequence[int], threshold: float
) -> tuple[Tensor, Tensor]:
    """(cross, floor), each the mean over dims, summed over texts: scalars.

    tokens_STD: mask_ST is True at real ones. dims: prefixes below D. The correlations are made
    again in the backward pass, a few texts at a time. float32, or float64 for float64 inputs.
    """
    dtype, D = compute_dtype(tokens_STD), tokens_STD.shape[2]
    pairs_DD, channels_D = _shares(tuple(dims), D, dtype, tokens_STD.device)

    def block(h_STD: Tensor, real_ST: Tensor) -> Tensor:
        real_ST1 = real_ST[..., None].to(dtype)
        n_S11 = real_ST1.sum(1, keepdim=True)
        h_STD = h_STD.to(dtype)
        off_STD = (h_STD - (h_STD * real_ST1).sum(1, keepdim=True) / n_S11) * real_ST1
        s_S1D = (off_STD.square().sum(1, keepdim=True) / n_S11 + _EPS).sqrt()
        z_STD = off_STD / s_S1D
        over_SDD = ((z_STD.mT @ z_STD / n_S11).abs() - threshold).clamp_min(0)
        floor = (1 - s_S1D).clamp_min(0) * channels_D
        return torch.stack([(over_SDD.square() * pairs_DD).sum(), floor.sum()])

    with full_precision(tokens_STD.device):
        parts = [
            checkpoint(block, tokens_STD[i : i + _TEXTS], mask_ST[i : i + _TEXTS],
                       use_reentrant=False, preserve_rng_state=False)
            for i in range(0, len(tokens_STD), _TEXTS)
        ]  # fmt: skip
    cross, floor = torch.stack(parts).sum(0).unbind()
    return cross, floor


def isotropy(y_ND: Tensor, key_N: Tensor, dims: Sequence[int]) -> tuple[Tensor, Tensor]:
    """(even, spread) of each prefix, (P,) each. key_N: equal where texts are equal; pairs of them
    do not count. float32, or float64 for float64 inputs."""
    even, spread, y_ND = [], [], y_ND.to(compute_dtype(y_ND))
    same_NN = key_N[:, None] == key_N
    pairs = (~same_NN).sum().clamp_min(1).log()
    with full_precision(y_ND.device):
        for d in dims:
            variance_d = y_ND[:, :d].var(0, correction=0)
            mean = variance_d.mean() + _EPS**2
            even.append((((variance_d / mean).var(correction=0)) + _EPS**2).sqrt())
            unit_Nd = normalize(y_ND[:, :d], dim=1)
            near_NN = 2 * SPREAD * (unit_Nd @ unit_Nd.T - 1)
            spread.append(near_NN.masked_fill(same_NN, LEFT_OUT).flatten().logsumexp(0) - pairs)
    return torch.stack(even), torch.stack(spread)
