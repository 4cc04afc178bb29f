"""InfoNCE at nested prefixes: the Matryoshka contrastive loss, and each link of the chain.

Shape legend: B anchors (rows) of this rank, b of one tile; N candidates of all ranks; D full width;
i index of a prefix.

    z^i_bn = cos(q_b[:d_i], c_n[:d_i]) / tau
    loss_i = mean_b ( logsumexp_n z^i_bn - z^i_b,target(b) ),   slope = softmax(z) - onehot(target)
    n: all candidates but false negatives, whose text is that of the anchor or of its positive, and
       those of `too_near`, which are decided once, at full width
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mipic_llm.losses.numerics import LEFT_OUT, compute_dtype, full_precision
from mipic_llm.losses.prefixes import check_target, over_prefixes, tiles

Keys = tuple[Tensor, Tensor]  # of the texts of the rows of q (B,) and c (N,), int64


def mrl_per_dim(
    q_BD: Tensor,
    c_ND: Tensor,
    *,
    target_B: Tensor,
    dims: Sequence[int],
    tau: float | Tensor,
    keys: Keys | None = None,
    near_BN: Tensor | None = None,
    right_BN: Tensor | None = None,
    hardness: float = 0.0,
) -> Tensor:
    """InfoNCE of each prefix, unweighted: (n_dims,) in the order of dims (Eq 1, 16, 19).

    Each prefix is sliced first and L2-normalised after. dims ascend within 1 .. D. target_B: int64,
    the index of each anchor's positive in c_ND. keys: equal where texts are equal; candidates with
    the text of the anchor or of its positive are left out of the anchor's denominator, but for the
    positive itself. near_BN: bool, True where a candidate is left out too; with fewer rows than q,
    it is that of q's rows again and again. right_BN: bool, more positives: an anchor's loss is then
    logsumexp_n z - mean of z over its positives, none of which is left out. hardness: times the
    cosine, without gradient, is added to the logit of each negative, so that near ones weigh more
    (Lan et al. 2025, arXiv 2503.04812).
    Gradients go to both sides, and to tau where it is a tensor. Returns float32, or float64 for
    float64 inputs. Raises ValueError on wrong shapes, indices, dims or tau. Source: arXiv
    2604.24374.
    """
    B, N = len(q_BD), len(c_ND)
    check_target(target_B, B, N)
    if keys is not None and [k.shape for k in keys] != [(B,), (N,)]:
        raise ValueError(f"keys must be of shapes ({B},) and ({N},), got "
                         f"{' and '.join(str(tuple(k.shape)) for k in keys)}")  # fmt: skip
    if near_BN is not None and (B % len(near_BN) or near_BN.shape[1] != N):
        raise ValueError(f"near_BN must be of shape ({B}, {N}), got {tuple(near_BN.shape)}")
    grown = 1 + hardness * (tau.detach() if isinstance(tau, Tensor) else tau) if hardness else 1.0
    term = _CrossEntropy(FalseNegatives(target_B, keys, near_BN, right_BN), grown)
    return over_prefixes(q_BD, c_ND, term, dims=dims, tau=tau)


def too_near(
    q_BD: Tensor, c_ND: Tensor, *, target_B: Tensor, margin: float, relative: bool = False,
    keys: Keys | None = None,
) -> Tensor:  # fmt: skip
    """Which candidates are nearer to the anchor than a negative should be: bool (B, N).

        cos(q_b, c_n) > cos(q_b, c_target(b)) - margin,  relative: - margin |cos(q_b, c_target(b))|
    Never the positive; nor, with `keys`, a text that `mrl_per_dim` leaves out for itself. No
    gradient. Source: the margin of CachedGISTEmbedLoss in sentence-transformers (Solatorio 2024,
    arXiv 2402.16829).
    """
    check_target(target_B, len(q_BD), len(c_ND))
    dtype = compute_dtype(q_BD, c_ND)
    near_BN = torch.empty(len(q_BD), len(c_ND), dtype=torch.bool, device=q_BD.device)
    with full_precision(q_BD.device), torch.no_grad():
        q_BD, c_ND = (normalize(x.to(dtype), dim=1) for x in (q_BD, c_ND))
        right_B = (q_BD * c_ND[target_B]).sum(1)
        least_B1 = (right_B - margin * (right_B.abs() if relative else 1))[:, None]
        for here in tiles(q_BD, c_ND, 1):
            torch.gt(q_BD[here] @ c_ND.T, least_B1[here], out=near_BN[here])
            if keys is not None:
                near_BN[here] &= ~_equal(keys, target_B, here)
    return near_BN.scatter_(1, target_B[:, None], False)


def _equal(keys: Keys, target_B: Tensor, here: slice) -> Tensor:
    """(b, N): candidates with the text of the anchor or of its positive."""
    (key_B, key_N), target_b1 = keys, target_B[here, None]
    return (key_N == key_B[here, None]) | (key_N == key_N[target_b1])


def false_negatives(keys: Keys, target_B: Tensor) -> Tensor:
    """How many pairs of an anchor and a candidate `mrl_per_dim` leaves out, an int64 scalar."""
    key_B, key_N = keys
    sorted_N, right_B = key_N.sort().values, key_N[target_B]

    def count(of_B: Tensor) -> Tensor:
        after = torch.searchsorted(sorted_N, of_B, right=True)
        return after - torch.searchsorted(sorted_N, of_B)

    return (count(right_B) - 1 + count(key_B) * (key_B != right_B)).sum()


class FalseNegatives(NamedTuple):
    """The candidates that an anchor is not compared with; see `mrl_per_dim`."""

    target_B: Tensor
    keys: Keys | None = None
    near_BN: Tensor | None = None
    right_BN: Tensor | None = None

    def mask(self, here: slice) -> Tensor | None:
        """(b, N), True where a candidate is left out, for the anchors of a tile."""
        target_b, out_bN = self.target_B[here], None
        if self.keys is not None:
            out_bN = _equal(self.keys, self.target_B, here)
            out_bN.scatter_(1, target_b[:, None], False)
        if self.near_BN is not None:
            rows_b = torch.arange(here.start, here.start + len(target_b), device=target_b.device)
            near_bN = self.near_BN[rows_b % len(self.near_BN)]
            out_bN = near_bN if out_bN is None else out_bN.logical_or_(near_bN)
        if self.right_BN is not None and out_bN is not None:
            out_bN &= ~self.right_BN[here]
        return out_bN

    def shares(self, here: slice, dtype: torch.dtype) -> Tensor | None:
        """(b, N): 1 / the number of positives at each of an anchor's; None where all have one."""
        if self.right_BN is None:
            return None
        share_bN = self.right_BN[here].to(dtype).scatter_(1, self.target_B[here, None], 1.0)
        return share_bN / share_bN.sum(1, keepdim=True)


class _CrossEntropy(NamedTuple):
    left_out: FalseNegatives
    grown: float | Tensor = 1.0  # factor of a negative's logit, a constant in the gradient

    def value(self, z_ibN: Tensor, here: slice) -> Tensor:
        target_b = self._leave_out(z_ibN, here)
        share_bN = self.left_out.shares(here, z_ibN.dtype)
        if share_bN is None:
            hit_ib = z_ibN[:, torch.arange(len(target_b), device=z_ibN.device), target_b]
        else:
            hit_ib = (z_ibN * share_bN).sum(2)
        return (self._weighed(z_ibN, target_b, share_bN).logsumexp(2) - hit_ib).sum(1)

    def slope(self, z_ibN: Tensor, here: slice) -> Tensor:
        target_b = self._leave_out(z_ibN, here)
        share_bN = self.left_out.shares(here, z_ibN.dtype)
        delta_ibN = self._weighed(z_ibN, target_b, share_bN).softmax(2)
        if share_bN is not None:
            return delta_ibN - share_bN
        delta_ibN[:, torch.arange(len(target_b), device=z_ibN.device), target_b] -= 1
        return delta_ibN

    def _weighed(self, z_ibN: Tensor, target_b: Tensor, share_bN: Tensor | None) -> Tensor:
        if isinstance(self.grown, float) and self.grown == 1:
            return z_ibN
        if share_bN is not None:
            return torch.where(share_bN > 0, z_ibN, z_ibN * self.grown)
        rows_b = torch.arange(len(target_b), device=z_ibN.device)
        grown_ibN = z_ibN * self.grown
        grown_ibN[:, rows_b, target_b] = z_ibN[:, rows_b, target_b]
        return grown_ibN

    def _leave_out(self, z_ibN: Tensor, here: slice) -> Tensor:
        """-> the right candidate of each anchor."""
        out_bN = self.left_out.mask(here)
        if out_bN is not None:
            z_ibN.masked_fill_(out_bN, LEFT_OUT)
        return self.left_out.target_B[here]
