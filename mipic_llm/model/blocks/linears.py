"""Linear layers that read the same input, with their LoRA, as one matrix product.

Shape legend: N tokens; i width of the input; o_j width of output j, O their sum; r_j rank of the
LoRA of j, R their sum; P R rounded up to whole columns of memory (PAD).

    y_j = x W_j^T + s_j (x A_j^T) B_j^T          (Hu et al. 2021, arXiv 2106.09685)
    y   = [x | low] [W | E]^T                     low = s x A^T (N, R),  E the B_j in a diagonal
    dx  = [g | slope] [W ; A]                     slope = s g E (N, R)
    dA  = slope^T x,   dB_j = g_j^T low_j,        dW = g^T x
Where the s_j are not alike, s is 1, E holds the s_j B_j, and dB_j is times s_j.
So the low-rank parts and the sum over j cost no passes over (N, o) or (N, i) of their own: x and g
are written with P free columns at their right (`room`), which take low and slope.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

PAD = 16


class Linears:
    """W: (o_j, i) each. A: (r_j, i), B: (o_j, r_j), None where a layer has no LoRA. scale: s_j.

    heights: the o_j, and outputs their sum O. inputs: i. ranks: r_j, 0 without LoRA, and rank their
    sum R. room: P, free columns at the right of the input, and of the output's gradient.
    common: the s_j where all are alike, and E is without; else 1, and factors are the s_j."""

    __slots__ = ("A", "B", "W", "common", "factors", "heights", "inputs", "outputs", "rank",
                 "ranks", "room")  # fmt: skip

    def __init__(
        self, W: Sequence[Tensor], A: Sequence[Tensor | None], B: Sequence[Tensor | None],
        scale: Sequence[float],
    ) -> None:  # fmt: skip
        self.W, self.A, self.B = W, A, B
        self.heights, self.inputs = [w.shape[0] for w in W], W[0].shape[1]
        self.ranks = [0 if x is None else x.shape[0] for x in A]
        self.outputs, self.rank = sum(self.heights), sum(self.ranks)
        self.room = -(-self.rank // PAD) * PAD
        scales = {s for s, r in zip(scale, self.ranks, strict=True) if r}
        alike = len(scales) == 1
        self.common = scales.pop() if alike else 1.0
        self.factors = [1.0] * len(W) if alike else list(scale)

    def spread(self) -> Tensor | None:
        """E with zeros to its right, (O, P); None without LoRA."""
        if not self.rank:
            return None
        if len(self.W) == 1 and self.rank == self.room:
            return self.B[0]
        E_OP, column = self.W[0].new_zeros(self.outputs, self.room), 0
        rows = E_OP.split(self.heights)
        for here, B, r, factor in zip(rows, self.B, self.ranks, self.factors, strict=True):
            if B is not None:
                torch.mul(B, factor, out=here.narrow(1, column, r))
                column += r
        return E_OP

    def widened(self, E_OP: Tensor) -> Tensor:
        """[W | E]: (O, i + P)."""
        found = E_OP.new_empty(self.outputs, self.inputs + self.room)
        parts = zip(self.W, E_OP.split(self.heights), found.split(self.heights), strict=True)
        for W, E, here in parts:
            torch.cat((W, E), 1, out=here)
        return found

    def down(self) -> Tensor:
        """A of all, one below the other: (R, i)."""
        own = [A for A in self.A if A is not None]
        return torch.cat(own) if len(own) > 1 else own[0]


def roomy(rows: int, columns: int, linears: Linears, like: Tensor) -> Tensor:
    """An empty (N, columns + P)."""
    return like.new_empty(rows, columns + linears.room)


def dense(x: Tensor) -> Tensor:
    """With channels side by side, as the kernels read them."""
    return x if x.stride(-1) == 1 else x.contiguous()


def in_turn(found: Sequence[Sequence[Any]]) -> list[Any]:
    """From lists of one kind each (dW, dA, dB): all kinds of each layer in turn."""
    return [x for one in zip(*found, strict=True) for x in one]


def product(left: Tensor, right: Tensor, factor: float, out: Tensor | None = None) -> Tensor:
    """factor left @ right."""
    like = left.new_empty(right.shape[1]) if out is None else out
    return torch.addmm(like, left, right, beta=0, alpha=factor, out=out)


def _fill(wide: Tensor, columns: int, left: Tensor, right: Tensor, factor: float) -> None:
    """factor left @ right into the columns after the first `columns`, zeros into those that are
    left over."""
    end = columns + right.shape[1]
    product(left, right, factor, wide[:, columns:end])
    if end < wide.shape[1]:
        wide[:, end:] = 0


def forward(
    x_NiP: Tensor, linears: Linears, E_OP: Tensor | None, more: Tensor | None = None
) -> Tensor:
    """y (N, O), added to `more`, (N, O) or a bias (O,). x in the left i columns of x_NiP; low goes
    into the others. E_OP: `linears.spread()`."""
    i = linears.inputs
    if E_OP is not None:
        _fill(x_NiP, i, x_NiP[:, :i], linears.down().T, linears.common)
        weight = linears.widened(E_OP)
    else:
        weight = torch.cat(list(linears.W)) if len(linears.W) > 1 else linears.W[0]
    return x_NiP @ weight.T if more is None else torch.addmm(more, x_NiP, weight.T)


def input_gradient(
    g_NOP: Tensor, linears: Linears, E_OP: Tensor | None, more_Ni: Tensor | None = None
) -> Tensor:
    """dx (N, i), added to `more_Ni`. g in the left O columns of g_NOP; slope goes into the
    others."""
    outputs, weights = linears.outputs, list(linears.W)
    if E_OP is not None:
        _fill(g_NOP, outputs, g_NOP[:, :outputs], E_OP[:, : linears.rank], linears.common)
        weights += [A for A in linears.A if A is not None]
        if linears.room > linears.rank:
            weights.append(weights[0].new_zeros(linears.room - linears.rank, linears.inputs))
    weight = torch.cat(weights) if len(weights) > 1 else weights[0]
    return g_NOP @ weight if more_Ni is None else torch.addmm(more_Ni, g_NOP, weight)


def weight_gradients(
    g_NOP: Tensor, x_NiP: Tensor, linears: Linears, train: bool, low_NP: Tensor | None = None
) -> tuple[list[Tensor | None], list[Tensor | None], list[Tensor | None]]:
    """dW, dA and dB of each layer, after `input_gradient`. train: W is trained. low_NP: low, where
    x has no columns for it."""
    outputs, i, R = linears.outputs, linears.inputs, linears.rank
    g_NO, x_Ni = g_NOP[:, :outputs], x_NiP[:, :i]
    none: list[Tensor | None] = [None] * len(linears.W)
    dW = list((g_NO.T @ x_Ni).split(linears.heights)) if train else none
    if not R:
        return dW, none, none
    dA_Ri = g_NOP[:, outputs : outputs + R].T @ x_Ni
    low_NR = x_NiP[:, i : i + R] if low_NP is None else low_NP[:, :R]
    dA = [x if r else None for x, r in zip(dA_Ri.split(linears.ranks), linears.ranks, strict=True)]
    dB, column = list(none), 0
    # one by one: autograd would copy a part of a larger product once more
    for j, g_No in enumerate(g_NO.split(linears.heights, 1)):
        if r := linears.ranks[j]:
            low_Nr, column = low_NR.narrow(1, column, r), column + r
            dB[j] = product(g_No.T, low_Nr, linears.factors[j])
    return dW, dA, dB
