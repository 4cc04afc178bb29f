"""GOR against a loop over pairs, in float64, gradients of both sides included."""

from __future__ import annotations

import pytest
import torch

from mipic_llm.losses import gor_per_dim, prefixes

B, N, D = 4, 7, 9
DIMS = (2, 5, 9)


def make(dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    x_BD, y_ND = (torch.randn(n, D, generator=g, dtype=torch.float64) for n in (B, N))
    own_B = torch.tensor([3, 0, 6, 2])
    return x_BD.to(dtype).requires_grad_(), y_ND.to(dtype).requires_grad_(), own_B


def naive(x_BD, y_ND, own_B, d):
    squares = [
        torch.cosine_similarity(x_BD[b, :d], y_ND[n, :d], dim=0) ** 2
        for b in range(len(x_BD))
        for n in range(len(y_ND))
        if n != own_B[b]
    ]
    return torch.stack(squares).mean()  # every row has as many others


@pytest.mark.parametrize("dims", [DIMS, (9,), (3, 5)])
def test_gor_is_the_mean_squared_cosine_of_different_rows(dims):
    x_BD, y_ND, own_B = make()
    got = gor_per_dim(x_BD, y_ND, own_B=own_B, dims=dims)
    want = torch.stack([naive(x_BD, y_ND, own_B, d) for d in dims])
    torch.testing.assert_close(got, want)
    upstream = torch.tensor([-2.5, 1.0, 0.7], dtype=torch.float64)[: len(dims)]
    pairs = (torch.autograd.grad((upstream * v).sum(), [x_BD, y_ND]) for v in (got, want))
    for a, b in zip(*pairs, strict=True):
        assert b.abs().max() > 1e-3
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_one_set_against_itself():
    """The caller's case: x is a slice of y, and y gets both gradients."""
    _, y_ND, _ = make()
    own_B = torch.arange(2, 6)
    got = gor_per_dim(y_ND[2:6], y_ND, own_B=own_B, dims=DIMS).sum()
    want = sum(naive(y_ND[2:6], y_ND, own_B, d) for d in DIMS)
    (a,), (b,) = (torch.autograd.grad(v, [y_ND]) for v in (got, want))
    torch.testing.assert_close(a, b)


def test_row_tiles_change_nothing(monkeypatch):
    found = []
    for size in (prefixes._TILE_BYTES, 1):  # all rows at once; one row a tile
        monkeypatch.setattr(prefixes, "_TILE_BYTES", size)
        x_BD, y_ND, own_B = make()
        value = gor_per_dim(x_BD, y_ND, own_B=own_B, dims=DIMS)
        found.append((value, *torch.autograd.grad(value.sum(), [x_BD, y_ND])))
    for whole, tiled in zip(*found, strict=True):
        torch.testing.assert_close(tiled, whole, rtol=1e-12, atol=1e-14)


def test_bf16_is_accumulated_in_float32_and_zero_rows_are_finite():
    x_BD, y_ND, own_B = make(torch.bfloat16)
    got = gor_per_dim(x_BD, y_ND, own_B=own_B, dims=DIMS)
    want = [naive(x_BD.double(), y_ND.double(), own_B, d) for d in DIMS]
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), torch.stack(want), rtol=1e-5, atol=1e-6)
    x_BD, y_ND, own_B = make(torch.float32)
    x_BD.data[0] = 0
    value = gor_per_dim(x_BD, y_ND, own_B=own_B, dims=DIMS)
    for g in (value, *torch.autograd.grad(value.sum(), [x_BD, y_ND])):
        assert torch.isfinite(g).all()


def test_a_row_alone_costs_nothing_and_wrong_arguments_are_refused():
    x_BD, y_ND, own_B = make()
    alone = gor_per_dim(x_BD[:1], x_BD[:1], own_B=torch.tensor([0]), dims=DIMS)
    assert alone.tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="own_B"):
        gor_per_dim(x_BD, y_ND, own_B=own_B[1:], dims=DIMS)
    with pytest.raises(ValueError, match="one width"):
        gor_per_dim(x_BD, y_ND[:, 1:], own_B=own_B, dims=DIMS)
