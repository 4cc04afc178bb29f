"""Trainable heads beside the backbone, dropped at export: P (SIA), phi (PIC), and the maps to a
teacher's width."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mipic_llm.config import chain_hidden


class FixedLift(nn.Module):
    """P_i = [I 0], not trained: (S, D) -> the first d_i channels of each prefix, (S, sum d_i).

    What the relation teaches is then learnt by the prefix, not by a head dropped at export.
    """

    def __init__(self, dims: Sequence[int], width: int) -> None:
        super().__init__()
        self.dims, self.dim_in = tuple(dims), width

    def forward(self, h_SD: Tensor) -> Tensor:
        return torch.cat([h_SD[..., :d] for d in self.dims], dim=-1)


class VectorMap(nn.Linear):
    """A prefix in the space of a teacher's vectors, (S, d) -> (S, K).

    init "prefix": [I; 0], the prefix itself, for a teacher whose channels are the student's;
    "linear": a fresh nn.Linear.
    """

    def __init__(self, dim_in: int, dim_out: int, init: str) -> None:
        super().__init__(dim_in, dim_out, bias=False)
        self.dim_in, self.begin = dim_in, init
        if init == "prefix":
            with torch.no_grad():
                self.weight.copy_(torch.eye(dim_out, dim_in))

    def forward(self, z_Sd: Tensor) -> Tensor:
        return super().forward(z_Sd.to(self.weight.dtype))


class Temperature(nn.Module):
    """A learnable temperature: tau exp(-change), for each row of (S, D) -> (S, 1).

    The change begins at zero, where bf16 is fine enough for it. At least a hundredth, as in CLIP
    (arXiv 2103.00020).
    """

    def __init__(self, tau: float) -> None:
        super().__init__()
        self.tau, self.dim_in, self.begin = tau, 1, tau
        self.change = nn.Parameter(torch.zeros(1))

    def forward(self, z_SD: Tensor) -> Tensor:
        change = self.change.to(torch.promote_types(self.change.dtype, torch.float32))
        return (self.tau * (-change).exp()).clamp_min(0.01).expand(len(z_SD), 1)


class LiftHead(nn.Linear):
    """All P_i of one layer, folded into the query: h_q -> [P_1 h_q, ..., P_n h_q] (Eq 5).

    weight is (sum d_i, D). init "prefix": P_i = [I 0], the student score starts as the truncated
    dot product; "linear": a fresh nn.Linear. Called as a module, so ZeRO-3 gathers it.
    """

    def __init__(self, width: int, dims: Sequence[int], init: str) -> None:
        super().__init__(width, sum(dims), bias=False)
        self.dim_in, self.begin = width, init
        if init == "prefix":
            with torch.no_grad():
                self.weight.copy_(torch.cat([torch.eye(d, width) for d in dims]))


class ChainHead(nn.Module):
    """phi_i of a link (d_i, d_{i+1}), applied to the shallow readout (Eq 15).

    "mlp": Linear(d_i, h) - ReLU - Linear(h, d_{i+1}), h = max(d_i, d_{i+1}) // 2: the paper's.
    "residual": z, padded with zeros to d_{i+1}, plus an MLP with h = max(d_i, d_{i+1}) // 8 whose
    last layer starts at zero: phi begins as the identity, so what the link teaches is seen in the
    readout itself, not only through a head that is dropped at export.
    """

    def __init__(self, dim_in: int, dim_out: int, form: str = "mlp") -> None:
        super().__init__()
        self.dim_in, self.begin = dim_in, form
        hidden = chain_hidden(dim_in, dim_out, form)
        self.down = nn.Linear(dim_in, hidden)
        self.up = nn.Linear(hidden, dim_out)
        self.residual = form == "residual"
        if self.residual:
            with torch.no_grad():
                self.up.weight.zero_()
                self.up.bias.zero_()

    def forward(self, z_Sd: Tensor) -> Tensor:
        out_Sd = self.up(torch.relu(self.down(z_Sd)))
        if self.residual:
            out_Sd = out_Sd + nn.functional.pad(z_Sd, (0, out_Sd.shape[1] - z_Sd.shape[1]))
        return out_Sd
