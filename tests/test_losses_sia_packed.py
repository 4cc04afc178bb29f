"""SIA of packed tokens is SIA of the same sentences padded, gradients included."""

from __future__ import annotations

import pytest
import torch
from test_losses_sia import DIMS, OPTIONS, make, options_of, prefixes  # noqa: F401

from mipic_llm.losses import sia_per_example
from mipic_llm.losses.sia import layout as sia_layout

LENGTHS = {
    "sorted": (14, 11, 11, 5, 2, 1),
    "shuffled": (2, 14, 1, 5, 11, 11),
    "equal": (6, 6, 6),
    "one": (9,),
}
L = 2


def both(lengths, options, dtype=torch.float64):
    """(relation, geometry, gradients) of the padded and of the packed call on the same numbers."""
    T = max(lengths)
    layers = [make(lengths, T=T, seed=s, dtype=dtype) for s in range(L)]
    mask = layers[0][2]
    up = torch.randn(2, L, len(lengths), generator=torch.Generator().manual_seed(9)).to(dtype)
    found = []
    for packed in (False, True):
        leaves = [x.detach().clone().requires_grad_() for tok, q, _, ps in layers
                  for x in (tok, q, *ps)]  # fmt: skip
        per = len(leaves) // L
        tokens = [leaves[i * per] for i in range(L)]
        query = torch.stack([leaves[i * per + 1] for i in range(L)])
        lifted = torch.stack(
            [q @ torch.cat(leaves[i * per + 2 : (i + 1) * per]).T for i, q in enumerate(query)]
        )
        if packed:
            tokens = [t[mask] for t in tokens]
        relation, geometry = sia_per_example(
            tokens, query, None if packed else mask, lifted_LSK=lifted,
            lengths=lengths if packed else None, **options,
        )  # fmt: skip
        total = (relation * up[0]).sum() + (geometry * up[1]).sum()
        grads = torch.autograd.grad(total, leaves, allow_unused=True)
        found.append((relation.detach(), geometry.detach(), grads))
    return found, mask


def agree(found, mask, rtol=1e-9, atol=1e-10):
    (relation, geometry, grads), (relation_p, geometry_p, grads_p) = found
    torch.testing.assert_close(relation_p, relation, rtol=rtol, atol=atol)
    torch.testing.assert_close(geometry_p, geometry, rtol=rtol, atol=atol)
    assert relation.abs().max() > 0.01
    per = len(grads) // L
    for i, (a, b) in enumerate(zip(grads_p, grads, strict=True)):
        if i % per == 0:
            assert b.abs().max() > 1e-3 and (a[~mask] == 0).all()
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


def settings(**changes):
    options = options_of(**changes)
    return options | {"ratios": [float(r) for r in options["ratios"]]}


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("option", OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
def test_packed_equals_padded(lengths, option):
    agree(*both(LENGTHS[lengths], settings(**option)))


@pytest.mark.parametrize("lengths", [(14, 9, 8, 8), (8, 9, 14)], ids=str)
def test_sets_longer_than_a_sentence_beside_them(lengths):
    """A block's largest set, 14 tokens, runs past the ends of its shorter sentences."""
    agree(*both(lengths, settings(detach_teacher=False) | {"ratios": [0.5, 0.9, 1.0]}))


@pytest.mark.parametrize("terms", [dict(relation=False), dict(geometry=False)], ids=str)
def test_packed_with_one_term(terms):
    found, mask = both(LENGTHS["sorted"], settings() | terms)
    for a, b in zip(found[1][2], found[0][2], strict=True):
        if b is not None:
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("blocks", [1, 4000])
def test_small_workspaces_change_nothing(monkeypatch, blocks):
    """Blocks and Gram chunks of one sentence, and of a few."""
    from mipic_llm.losses.sia import function as sia_function

    monkeypatch.setitem(sia_layout._BLOCK_BYTES, "cpu", blocks)
    monkeypatch.setitem(sia_function._CHUNK_BYTES, "cpu", blocks)
    agree(*both(LENGTHS["sorted"], settings()))
    agree(*both(LENGTHS["shuffled"], settings(kl="teacher_student", detach_teacher=False)))


def test_float32_and_bfloat16():
    agree(*both(LENGTHS["sorted"], settings(), torch.float32), rtol=1e-4, atol=1e-5)
    found, _ = both(LENGTHS["sorted"], settings(), torch.bfloat16)
    assert all(g.dtype == torch.bfloat16 for g in found[1][2])
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-2, atol=1e-2)


def test_blocks_hold_neighbours_of_similar_length():
    blocks = sia_layout.similar_blocks((100, 90, 51, 50, 49, 26, 25, 3))
    assert [tuple(b) for b in blocks] == [(0, 3, 100), (3, 6, 50), (6, 7, 25), (7, 8, 3)]
    assert [tuple(b) for b in sia_layout.cut_blocks(blocks, [2, 9, 1, 1])] == [
        (0, 2, 100), (2, 3, 100), (3, 6, 50), (6, 7, 25), (7, 8, 3),
    ]  # fmt: skip


@pytest.mark.parametrize("lengths", [(3, 2), (5, 0), (), None])
def test_lengths_that_do_not_fit_are_refused(lengths):
    tokens, query = torch.randn(6, 12), torch.randn(1, 2, 12)
    lifted = torch.randn(1, 2, sum(DIMS))
    with pytest.raises(ValueError, match="lengths|tokens|query"):
        sia_per_example([tokens], query, None, lifted_LSK=lifted, lengths=lengths, **settings())
