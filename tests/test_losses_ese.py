"""ESE, 2DMSE's alignment and the relation between sentences against naive references."""

from __future__ import annotations

import math

import pytest
import torch

from mipic_llm.losses import (
    LeftOut,
    alignment_kl,
    compress,
    layer_weight,
    neighbourhood_kl,
    pca_target,
)
from mipic_llm.losses import relation as relation_module


def randn(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def gradients(value, *inputs):
    return torch.autograd.grad(-1.7 * value, inputs, allow_unused=True, retain_graph=True)


def naive_kl(p, q):
    """KL(p || q), term by term."""
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p.tolist(), q.tolist(), strict=True))


def test_layer_weights_fall_as_published():
    assert [layer_weight(i) for i in (1, 2, 5)] == [1, 1 / (1 + math.log(2)), 1 / (1 + math.log(5))]


def test_published_target_spans_the_singular_vectors_of_the_softmaxed_products():
    z, k = 0.3 * randn(9, 6), 3
    A = torch.softmax(z.T @ z / math.sqrt(6), dim=1)
    # A A^T has the squared singular values and the left singular vectors of A
    values, vectors = torch.linalg.eigh(A @ A.T)
    top, scale = vectors.flip(1)[:, :k], values.flip(0)[:k].sqrt()
    want = (z @ top) * scale
    got = pca_target(z, k)
    assert got.shape == (9, 3) and not got.requires_grad
    torch.testing.assert_close(got.abs().double(), want.abs(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(pca_target(z.flip(0), k), got.flip(0))  # row order means nothing


def test_covariance_target_is_pca():
    from sklearn.decomposition import PCA

    z = randn(30, 5) * torch.tensor([3.0, 1, 2, 0.5, 4]) + 7
    want = PCA(2, svd_solver="full").fit_transform(z.numpy())
    got = pca_target(z, 2, "covariance")
    got = got - got.mean(0)
    torch.testing.assert_close(got.abs().double(), torch.tensor(want).abs(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_compress_is_mse_plus_kl_of_softmaxes(temperature):
    z, target = randn(4, 3).requires_grad_(), randn(4, 3, seed=1).requires_grad_()
    mse = (
        sum((a - b) ** 2 for a, b in zip(z.flatten(), target.detach().flatten(), strict=True)) / 12
    )
    kl = torch.zeros((), dtype=torch.float64)
    for row, goal in zip(z, target.detach(), strict=True):
        p, q = torch.exp(goal / temperature), torch.exp(row / temperature)
        p, q = p / p.sum(), q / q.sum()
        kl = kl + (p * (p.log() - q.log())).sum() / 4
    want = mse + temperature * kl
    got = compress(z, target, temperature)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(gradients(got, z)[0], gradients(want, z)[0])
    assert gradients(compress(z, target, temperature), z, target)[1] is None  # a constant
    assert torch.autograd.gradcheck(lambda x: compress(x, target.detach(), temperature), (z,))


def test_alignment_kl_teaches_only_the_student():
    student, teacher = randn(3, 5).requires_grad_(), randn(3, 5, seed=2).requires_grad_()
    p, q = teacher.detach().softmax(1), student.detach().softmax(1)
    want = sum(naive_kl(a, b) for a, b in zip(p, q, strict=True)) / 3
    got = alignment_kl(student, teacher)
    assert got.item() == pytest.approx(want, rel=1e-12)
    grads = gradients(got, student, teacher)
    torch.testing.assert_close(grads[0], -1.7 * (q - p) / 3)  # d KL / d logits of the student
    assert grads[1] is None


def left_out(own, n):
    """All texts are different: tests/terms.py has equal ones."""
    return None if own is None else LeftOut(*[torch.tensor(own)] * 3, torch.arange(n))


def test_a_text_without_any_other_has_no_relation():
    q = randn(3, 6).requires_grad_()
    own, same = torch.arange(3), torch.zeros(3, dtype=torch.int64)
    got = neighbourhood_kl(q, q, dims=(2, 4), tau=1e-9, left_out=LeftOut(own, own, same, same))
    assert got == 0 and not gradients(got, q)[0].any()


@pytest.mark.parametrize("own", [None, [8, 0, 3, 1, 2, 5, 7]])
@pytest.mark.parametrize("n_kept", [0, 5])
def test_row_tiles_of_neighbourhood_kl_change_nothing(monkeypatch, n_kept, own):
    out, kept = left_out(own, 9 + n_kept), randn(n_kept, 6)
    found = []
    two_rows = relation_module._TILE_MATRICES * (9 + n_kept) * 8 * 2
    for size in (relation_module._TILE_BYTES, two_rows):  # all rows at once; two rows a tile
        monkeypatch.setattr(relation_module, "_TILE_BYTES", size)
        torch.manual_seed(5)
        q = torch.randn(7, 6, dtype=torch.float64, requires_grad=True)
        c = torch.randn(9, 6, dtype=torch.float64, requires_grad=True)
        value = neighbourhood_kl(q, c, dims=[2, 4], tau=0.3, left_out=out, kept_MD=kept)
        (3 * value).backward()
        found.append((value, q.grad, c.grad))
    assert found[0][1].abs().max() > 0
    for whole, tiled in zip(*found, strict=True):
        torch.testing.assert_close(tiled, whole)


@pytest.mark.parametrize("own", [None, [4, 0, 2]])
@pytest.mark.parametrize("n_kept", [0, 4])
def test_neighbourhood_kl_compares_prefix_and_full_rows(n_kept, own):
    q, c, dims, tau = (
        randn(3, 6).requires_grad_(),
        randn(5, 6, seed=3).requires_grad_(),
        (2, 4),
        0.2,
    )
    want, kept = torch.zeros((), dtype=torch.float64), randn(n_kept, 6, seed=4).requires_grad_()

    def row(b, d):
        others = [x for i, x in enumerate(c) if own is None or i != own[b]] + list(kept.detach())
        cos = [torch.cosine_similarity(q[b, :d], x[:d], dim=0) / tau for x in others]
        weights = torch.stack(cos).exp()
        return weights / weights.sum()

    for d in dims:
        for b in range(3):
            full = row(b, 6).detach()
            want = want + (full * (full.log() - row(b, d).log())).sum() / 3
    out = left_out(own, 5 + n_kept)
    got = neighbourhood_kl(q, c, dims=dims, tau=tau, left_out=out, kept_MD=kept)
    torch.testing.assert_close(got, want)
    assert gradients(got, kept) == (None,)
    for a, b in zip(gradients(got, q, c), gradients(want, q, c), strict=True):
        assert b.abs().max() > 1e-4 and b[:, 4:].abs().max() < 1e-12  # the full width is a constant
        torch.testing.assert_close(a, b)


def test_neighbourhood_kl_of_each_prefix_with_weights_of_their_own():
    q, c, kept = (randn(n, 6, seed=n).requires_grad_() for n in (3, 5, 4))
    options = dict(tau=0.2, left_out=left_out([4, 0, 2], 9), kept_MD=kept)
    dims = (1, 2, 4)
    apart = neighbourhood_kl(q, c, dims=dims, per_dim=True, **options)
    alone = [neighbourhood_kl(q, c, dims=(d,), **options) for d in dims]
    torch.testing.assert_close(apart, torch.stack(alone))
    for weights in ((2.0, -0.5, 3.0), (0.0, 1.0, 0.0), (0.0, 0.0, 0.0)):
        want = sum(w * v for w, v in zip(weights, alone, strict=True))
        found = (apart * torch.tensor(weights)).sum()
        for a, b in zip(gradients(found, q, c), gradients(want, q, c), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("bad", [0, 7])
def test_wrong_sizes_are_refused(bad):
    with pytest.raises(ValueError, match="k must be in"):
        pca_target(randn(3, 6), bad)
    with pytest.raises(ValueError, match="form must be"):
        pca_target(randn(3, 6), 2, "pcaa")
    with pytest.raises(ValueError, match="shapes differ"):
        compress(randn(3, 2), randn(3, 3))
