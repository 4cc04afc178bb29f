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
    keys = torch.tensor([3, 0, 6, 2]), torch.tensor([0, 1, 2, 3, 4, 0, 6])
    return x_BD.to(dtype).requires_grad_(), y_ND.to(dtype).requires_grad_(), keys


def naive(x_BD, y_ND, keys, d):
    means = []
    for x, key in zip(x_BD, keys[0], strict=True):
        others = [y for y, other in zip(y_ND, keys[1], strict=True) if other != key]
        squares = [torch.cosine_similarity(x[:d], y[:d], dim=0) ** 2 for y in others]
        means.append(torch.stack(squares).mean())
    return torch.stack(means).mean()


@pytest.mark.parametrize("dims", [DIMS, (9,), (3, 5)])
def test_gor_is_the_mean_squared_cosine_of_different_texts(dims):
    x_BD, y_ND, keys = make()
    got = gor_per_dim(x_BD, y_ND, keys=keys, dims=dims)
    want = torch.stack([naive(x_BD, y_ND, keys, d) for d in dims])
    torch.testing.assert_close(got, want)
    upstream = torch.tensor([-2.5, 1.0, 0.7], dtype=torch.float64)[: len(dims)]
    pairs = (torch.autograd.grad((upstream * v).sum(), [x_BD, y_ND]) for v in (got, want))
    for a, b in zip(*pairs, strict=True):
        assert b.abs().max() > 1e-3
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_one_set_against_itself():
    """The caller's case: x is a slice of y, and y gets both gradients."""
    _, y_ND, _ = make()
    keys = torch.arange(2, 6), torch.arange(7)
    got = gor_per_dim(y_ND[2:6], y_ND, keys=keys, dims=DIMS).sum()
    want = sum(naive(y_ND[2:6], y_ND, keys, d) for d in DIMS)
    (a,), (b,) = (torch.autograd.grad(v, [y_ND]) for v in (got, want))
    torch.testing.assert_close(a, b)


def test_row_tiles_change_nothing(monkeypatch):
    found = []
    for size in (prefixes._TILE_BYTES, 1):  # all rows at once; one row a tile
        monkeypatch.setattr(prefixes, "_TILE_BYTES", size)
        x_BD, y_ND, keys = make()
        value = gor_per_dim(x_BD, y_ND, keys=keys, dims=DIMS)
        found.append((value, *torch.autograd.grad(value.sum(), [x_BD, y_ND])))
    for whole, tiled in zip(*found, strict=True):
        torch.testing.assert_close(tiled, whole, rtol=1e-12, atol=1e-14)


def test_bf16_is_accumulated_in_float32_and_zero_rows_are_finite():
    x_BD, y_ND, keys = make(torch.bfloat16)
    got = gor_per_dim(x_BD, y_ND, keys=keys, dims=DIMS)
    want = [naive(x_BD.double(), y_ND.double(), keys, d) for d in DIMS]
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), torch.stack(want), rtol=1e-5, atol=1e-6)
    x_BD, y_ND, keys = make(torch.float32)
    x_BD.data[0] = 0
    value = gor_per_dim(x_BD, y_ND, keys=keys, dims=DIMS)
    for g in (value, *torch.autograd.grad(value.sum(), [x_BD, y_ND])):
        assert torch.isfinite(g).all()


def test_a_row_alone_costs_nothing_and_wrong_arguments_are_refused():
    x_BD, y_ND, keys = make()
    alone = gor_per_dim(x_BD[:1], x_BD[:1], keys=(keys[0][:1],) * 2, dims=DIMS)
    assert alone.tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="keys"):
        gor_per_dim(x_BD, y_ND, keys=keys[::-1], dims=DIMS)
    with pytest.raises(ValueError, match="one width"):
        gor_per_dim(x_BD, y_ND[:, 1:], keys=keys, dims=DIMS)
