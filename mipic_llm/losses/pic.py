"""Progressive information chaining (Eq 15-17 of arXiv 2604.24374).

Shape legend: B anchors (sentences of this rank), N candidates (sentences of all ranks), d_{i+1}
the width of the deeper end of link i.

    L_PIC = sum_i InfoNCE_tau(phi_i(z_i[:d_i]), z_{i+1}[:d_{i+1}])
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mipic_llm.losses.infonce import info_nce


def pic(
    projected: Sequence[Tensor],
    targets: Sequence[Tensor],
    *,
    target_B: Tensor,
    tau: float,
) -> Tensor:
    """Sum over links of InfoNCE between the projected shallow readout and the deeper one (Eq 17).

    projected[i] is (B, d_{i+1}), targets[i] is (N, d_{i+1}); target_B is shared by every link.
    The method detaches the deeper side: the caller passes detached targets, nothing is detached
    here. Returns a scalar; raises ValueError on wrong arguments.
    """
    return pic_per_link(projected, targets, target_B=target_B, tau=tau).sum()


def pic_per_link(
    projected: Sequence[Tensor],
    targets: Sequence[Tensor],
    *,
    target_B: Tensor,
    tau: float,
) -> Tensor:
    """The InfoNCE of each link on its own: (n_links,)."""
    if not projected or len(projected) != len(targets):
        raise ValueError(
            "pic needs at least one link and one target per link, got "
            f"{len(projected)} projections and {len(targets)} targets"
        )
    links = zip(projected, targets, strict=True)
    return torch.stack([info_nce(p, t, target_B=target_B, tau=tau) for p, t in links])
