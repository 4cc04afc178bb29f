"""Trainable heads beside the backbone, dropped at export: P (SIA) and phi (PIC)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class LiftHead(nn.Linear):
    """All P_i of one layer, folded into the query: h_q -> [P_1 h_q, ..., P_n h_q] (Eq 5).

    weight is (sum d_i, D). init "prefix": P_i = [I 0], the student score starts as the truncated
    dot product; "linear": a fresh nn.Linear. Called as a module, so ZeRO-3 gathers it.
    """

    def __init__(self, width: int, dims: Sequence[int], init: str) -> None:
        super().__init__(width, sum(dims), bias=False)
        if init == "prefix":
            with torch.no_grad():
                self.weight.copy_(torch.cat([torch.eye(d, width) for d in dims]))


class ChainHead(nn.Module):
    """phi_i: Linear(d_i, h) - ReLU - Linear(h, d_{i+1}), h = max(d_i, d_{i+1}) // 2 (Eq 15)."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        hidden = max(dim_in, dim_out) // 2
        self.down = nn.Linear(dim_in, hidden)
        self.up = nn.Linear(hidden, dim_out)

    def forward(self, z_Sd: Tensor) -> Tensor:
        return self.up(torch.relu(self.down(z_Sd)))
