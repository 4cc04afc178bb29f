"""Scores of rows against sentence-transformers' own losses on the same vectors; the naive
references of the teacher's terms are in tests/test_terms.py."""

from __future__ import annotations

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss, MarginMSELoss
from torch.nn.functional import normalize

from mipic_llm.losses import candidate_cosines, candidate_kl, margin_mse, vector_loss

B, N, D, TAU = 5, 3, 8, 0.7  # rows, negatives of each, width, temperature


@pytest.mark.parametrize("d", [2, D])
@pytest.mark.parametrize("name", ["kl", "margin"])
def test_as_sentence_transformers_does(name: str, d: int) -> None:
    generator = torch.Generator().manual_seed(1)
    columns = [torch.randn(B, D, generator=generator, requires_grad=True) for _ in range(2 + N)]
    given_BN = torch.randn(B, 1 + N, generator=generator, requires_grad=True)
    unit = [normalize(x[:, :d], dim=1) for x in columns]
    kind = {"kl": lambda: DistillKLDivLoss(None, temperature=TAU), "margin": lambda: MarginMSELoss(
        None)}[name]()  # fmt: skip
    want = kind.compute_loss_from_embeddings(unit, given_BN)
    anchors, positives, *negatives = columns
    candidates = torch.cat([positives, torch.stack(negatives, 1).flatten(0, 1)])
    row_C = torch.cat([torch.arange(B), torch.arange(B).repeat_interleave(N)])
    given_C = torch.cat([given_BN[:, 0], given_BN[:, 1:].flatten()])
    cos_1C = candidate_cosines(anchors, candidates, row_C, [d])
    use_C = torch.ones(len(row_C), dtype=torch.bool)
    if name == "kl":
        got = candidate_kl(cos_1C / TAU, given_C / TAU, row_C, use_C, B)[0] / B * TAU**2
    else:
        got = margin_mse(cos_1C, given_C, row_C, use_C, B)[0] / (B * N)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    *ours, given = torch.autograd.grad(got, [*columns, given_BN], allow_unused=True)
    assert given is None  # the teacher is a constant
    for mine, theirs in zip(ours, torch.autograd.grad(want, columns), strict=True):
        assert theirs.abs().max() > 1e-4
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_a_vector_equal_to_the_teachers_costs_nothing_and_half_precision_is_not_kept() -> None:
    t_SK = torch.randn(3, D).half().requires_grad_()
    for form, factor in (("cosine", 5.0), ("l2", 1.0)):
        made = factor * normalize(t_SK.detach().float(), dim=1)
        value = vector_loss(made, t_SK, form)
        assert value.dtype == torch.float32 and value.abs() < 1e-6
        assert not value.requires_grad  # the teacher is a constant
    assert vector_loss(2 * made, t_SK, "l2") > 0.9
