"""InfoNCE at nested prefixes against a reference written from its equation, in float64.

Shape legend: B anchors, N candidates, D full width.
"""

import pytest
import torch

from mipic_llm.losses import false_negatives, mrl_per_dim, prefixes, too_near

DIMS = (3, 5, 12)


def info_nce(q_BD, c_ND, **options):
    return mrl_per_dim(q_BD, c_ND, dims=(q_BD.shape[1],), **options)[0]


def mrl(q_BD, c_ND, *, weights=None, **options):
    per_dim = mrl_per_dim(q_BD, c_ND, **options)
    return per_dim.sum() if weights is None else (per_dim * per_dim.new_tensor(weights)).sum()


def naive_info_nce(q_BD, c_ND, target_B, tau, keys=None):
    """One anchor at a time: -log( exp(cos_target / tau) / sum_n exp(cos_n / tau) )."""
    terms = []
    for b, target in enumerate(target_B.tolist()):
        cos = [torch.nn.functional.cosine_similarity(q_BD[b], c, dim=0) for c in c_ND]
        kept = [
            cos[n]
            for n in range(len(cos))
            if n == target or keys is None or keys[1][n] not in (keys[0][b], keys[1][target])
        ]
        denominator = torch.stack([torch.exp(c / tau) for c in kept]).sum()
        terms.append(-torch.log(torch.exp(cos[target] / tau) / denominator))
    return torch.stack(terms).mean()


def naive_mrl(q_BD, c_ND, target_B, dims, tau, weights, keys=None):
    terms = [
        w * naive_info_nce(q_BD[:, :d], c_ND[:, :d], target_B, tau, keys)
        for d, w in zip(dims, weights, strict=True)
    ]
    return torch.stack(terms).sum()


def make(B=5, N=9, D=12, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    q_BD = torch.randn(B, D, generator=g, dtype=torch.float64)
    c_ND = torch.randn(N, D, generator=g, dtype=torch.float64)
    target_B = torch.randperm(N, generator=g)[:B]
    keys = torch.randint(4, (B,), generator=g), torch.randint(4, (N,), generator=g)
    keys[0][0] = keys[1][target_B[0]]  # the positive is the anchor's own text: never left out
    return q_BD.to(dtype).requires_grad_(), c_ND.to(dtype).requires_grad_(), target_B, keys


def assert_same(got, want, inputs, tol=1e-10, upstream=-2.5):
    got_grads = torch.autograd.grad(got * upstream, inputs, retain_graph=True)
    want_grads = torch.autograd.grad(want * upstream, inputs)
    torch.testing.assert_close(got, want, rtol=tol, atol=tol)
    for a, b in zip(got_grads, want_grads, strict=True):
        assert b.abs().max() > 1e-6, "vacuous: the reference gradient is zero"
        torch.testing.assert_close(a, b, rtol=tol, atol=tol)


@pytest.mark.parametrize("tau", [0.05, 1.0])
@pytest.mark.parametrize("with_keys", [False, True])
def test_info_nce_equals_the_equation(tau, with_keys):
    q_BD, c_ND, target_B, keys = make()
    keys = keys if with_keys else None
    got = info_nce(q_BD, c_ND, target_B=target_B, tau=tau, keys=keys)
    assert_same(got, naive_info_nce(q_BD, c_ND, target_B, tau, keys), [q_BD, c_ND])


def test_equal_texts_change_the_loss_and_never_the_target():
    q_BD, c_ND, target_B, keys = make()
    plain = info_nce(q_BD, c_ND, target_B=target_B, tau=0.5)
    assert info_nce(q_BD, c_ND, target_B=target_B, tau=0.5, keys=keys) < plain
    counted = sum(
        n != target and key in (keys[0][b], keys[1][target])
        for b, target in enumerate(target_B.tolist())
        for n, key in enumerate(keys[1])
    )
    assert 0 < counted == false_negatives(keys, target_B) < len(q_BD) * len(c_ND)
    same = torch.zeros(5, dtype=torch.int64), torch.zeros(9, dtype=torch.int64)
    alone = info_nce(q_BD, c_ND, target_B=target_B, tau=0.5, keys=same)
    assert alone.item() == pytest.approx(0.0, abs=1e-12)
    assert false_negatives(same, target_B) == 5 * 8
    apart = torch.arange(5) + 100, torch.arange(9)
    equal = info_nce(q_BD, c_ND, target_B=target_B, tau=0.5, keys=apart)
    assert equal == plain and false_negatives(apart, target_B) == 0


@pytest.mark.parametrize("dims", [DIMS, (3, 5), (12,)])
@pytest.mark.parametrize("with_keys", [False, True])
def test_mrl_equals_the_sum_of_sliced_then_normalised_losses(dims, with_keys):
    q_BD, c_ND, target_B, keys = make(seed=1)
    keys = keys if with_keys else None
    weights = [0.5, 2.0, 3.0][: len(dims)]
    got = mrl(q_BD, c_ND, target_B=target_B, dims=dims, tau=0.2, weights=weights, keys=keys)
    assert_same(got, naive_mrl(q_BD, c_ND, target_B, dims, 0.2, weights, keys), [q_BD, c_ND])


def test_mrl_per_dim_gives_each_term():
    q_BD, c_ND, target_B, _ = make(seed=2)
    per_dim = mrl_per_dim(q_BD, c_ND, target_B=target_B, dims=DIMS, tau=0.1)
    for got, d in zip(per_dim, DIMS, strict=True):
        torch.testing.assert_close(got, naive_info_nce(q_BD[:, :d], c_ND[:, :d], target_B, 0.1))


@pytest.mark.parametrize("rule", ["absolute", "relative"])
@pytest.mark.parametrize("margin", [0.0, 0.3, -0.2])
def test_the_margin_is_that_of_sentence_transformers(monkeypatch, rule, margin):
    """On the same vectors, guided by others: value, gradients, and the count, in small tiles."""
    from sentence_transformers.sentence_transformer.losses import CachedGISTEmbedLoss

    theirs = CachedGISTEmbedLoss.__new__(CachedGISTEmbedLoss)
    torch.nn.Module.__init__(theirs)
    theirs.gather_across_devices = theirs.contrast_anchors = theirs.contrast_positives = False
    theirs.show_progress_bar, theirs.mini_batch_size, theirs.temperature = False, 9, 0.1
    theirs.margin_strategy, theirs.margin = rule, margin
    theirs.similarity_fct = torch.nn.CosineSimilarity(dim=-1)
    theirs.cross_entropy_loss = torch.nn.CrossEntropyLoss()
    torch.manual_seed(2)
    columns = [torch.randn(9, 6, requires_grad=True) for _ in range(3)]
    guide = [torch.randn(9, 5) for _ in range(3)]
    wanted = theirs.calculate_loss([[c] for c in columns], [[g] for g in guide])
    monkeypatch.setattr(prefixes, "_TILE_BYTES", 300)
    target = torch.arange(9)
    near = too_near(guide[0], torch.cat(guide[1:]), target_B=target, margin=margin,
                    relative=rule == "relative")  # fmt: skip
    assert near.dtype == torch.bool and 9 < near.sum() < 9 * 17 and not near[target, target].any()
    found = mrl_per_dim(columns[0], torch.cat(columns[1:]), target_B=target, dims=[6], tau=0.1,
                        near_BN=near)  # fmt: skip
    torch.testing.assert_close(found[0], wanted, rtol=1e-5, atol=1e-6)
    ours, want = (torch.autograd.grad(v, columns) for v in (found[0], wanted))
    torch.testing.assert_close(ours, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("ways", "hardness"), [("query_to_query", 0), ("doc_to_query", 0),
                                                (None, 0), (None, 9)])  # fmt: skip
def test_directions_are_those_of_sentence_transformers(ways, hardness):
    """And so is hardness. One rank, 5 rows of 2 negatives, no text given twice."""
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    from mipic_llm.config import load_config
    from mipic_llm.objective.mrl import Contrast
    from mipic_llm.objective.seen import Seen
    from mipic_llm.runtime.rows import Rows
    from mipic_llm.types import Known, Traits

    named = ("query_to_doc", ways) if ways else ("query_to_doc",)
    mode = "per_direction" if ways == "doc_to_query" else "joint"
    more = {"hardness_mode": "all_negatives", "hardness_strength": hardness} if hardness else {}
    theirs = MultipleNegativesRankingLoss(None, directions=named, partition_mode=mode, **more)
    torch.manual_seed(3)
    columns = [torch.randn(5, 6, requires_grad=True) for _ in range(4)]
    z, known = torch.cat(columns), Known(torch.arange(20))
    seen = Seen({1: z}, Rows((5,), (10,), 1), 1, [], known, (z[:0], z[:0]), Traits())
    config = load_config(["--objective.directions", ",".join(named), "--objective.tau", "0.05",
                          "--objective.hardness", str(hardness)])  # fmt: skip
    found = Contrast(config)(seen, z, [6])[0]
    wanted = theirs.compute_loss_from_embeddings(columns, None)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    ours, want = (torch.autograd.grad(v, columns) for v in (found, wanted))
    torch.testing.assert_close(ours, want, rtol=1e-4, atol=1e-6)


def test_equal_texts_are_not_near_too():
    q, c = torch.randn(3, 4), torch.randn(5, 4)
    keys = torch.tensor([7, 8, 9]), torch.tensor([1, 2, 3, 7, 2])  # 3: of anchor 0; 4: of target 1
    near = too_near(q, c, target_B=torch.arange(3), margin=9.0, keys=keys)
    left = [[0, 1, 1, 0, 1], [1, 0, 1, 1, 0], [1, 1, 0, 1, 1]]
    assert near.tolist() == torch.tensor(left).bool().tolist()
    rows = torch.cat([q, q])  # as the links of a chain
    args = {"target_B": torch.arange(3).repeat(2), "dims": [2, 4], "tau": 0.5}
    once = mrl_per_dim(q, c, target_B=torch.arange(3), dims=[2, 4], tau=0.5, near_BN=near)
    torch.testing.assert_close(mrl_per_dim(rows, c, near_BN=near, **args), once)
    with pytest.raises(ValueError, match="near_BN must be of shape"):
        mrl_per_dim(rows, c, near_BN=near[:, :4], **args)


def test_gradcheck():
    q_BD, c_ND, target_B, keys = make(B=3, N=5)

    def f(q, c):
        return mrl_per_dim(q, c, target_B=target_B, dims=DIMS, tau=0.3, keys=keys)

    assert torch.autograd.gradcheck(f, (q_BD, c_ND))


@pytest.mark.parametrize("frozen", [0, 1])
def test_one_side_without_gradient(frozen):
    q_BD, c_ND, target_B, _ = make()
    sides = [q_BD, c_ND]
    sides[frozen] = sides[frozen].detach()
    moving = sides[1 - frozen]
    got = mrl(*sides, target_B=target_B, dims=DIMS, tau=0.3)
    assert_same(got, naive_mrl(*sides, target_B, DIMS, 0.3, [1.0] * 3), [moving])


def test_row_tiles_change_nothing(monkeypatch):
    q_BD, c_ND, target_B, keys = make(B=7)

    def run():
        loss = mrl(q_BD, c_ND, target_B=target_B, dims=DIMS, tau=0.1, keys=keys)
        return loss, *torch.autograd.grad(loss, [q_BD, c_ND])

    whole = run()
    monkeypatch.setattr(prefixes, "_TILE_BYTES", 2 * 9 * 8 * 8)  # two rows a tile
    assert len(list(prefixes.tiles(q_BD, c_ND, 3))) == 4
    for a, b in zip(run(), whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_zero_vectors_give_finite_values_and_no_gradient_through_their_norm():
    q_BD, c_ND, target_B, _ = make(dtype=torch.float32)
    q_BD.data[0] = 0
    c_ND.data[2, :5] = 0  # zero in the short prefixes only
    loss = mrl(q_BD, c_ND, target_B=target_B, dims=DIMS, tau=0.1)
    grads = torch.autograd.grad(loss, [q_BD, c_ND])
    assert all(torch.isfinite(g).all() for g in (loss, *grads))


def test_bf16_is_close_to_fp32_and_keeps_its_gradient_dtype():
    q_BD, c_ND, target_B, _ = make(D=12, dtype=torch.bfloat16)
    loss = mrl(q_BD, c_ND, target_B=target_B, dims=DIMS, tau=0.5)
    grads = torch.autograd.grad(loss, [q_BD, c_ND])
    assert loss.dtype == torch.float32 and grads[0].dtype == torch.bfloat16
    wide = [q_BD.detach().float().requires_grad_(), c_ND.detach().float().requires_grad_()]
    want = mrl(*wide, target_B=target_B, dims=DIMS, tau=0.5)
    torch.testing.assert_close(loss, want)  # same rounded inputs, fp32 accumulation
    for a, b in zip(grads, torch.autograd.grad(want, wide), strict=True):
        torch.testing.assert_close(a.float(), b, rtol=1e-2, atol=1e-3)


def test_autocast_does_not_lower_the_precision():
    q_BD, c_ND, target_B, _ = make(dtype=torch.float32)
    want = mrl(q_BD, c_ND, target_B=target_B, dims=DIMS, tau=0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = mrl(q_BD, c_ND, target_B=target_B, dims=DIMS, tau=0.05)
    assert torch.equal(got, want)


def test_non_contiguous_inputs():
    q_BD, c_ND, target_B, _ = make()
    q_view = q_BD.detach().T.contiguous().T.requires_grad_()
    c_view = c_ND.detach().repeat_interleave(2, 1)[:, ::2].requires_grad_()
    got = mrl(q_view, c_view, target_B=target_B, dims=DIMS, tau=0.3)
    assert_same(got, naive_mrl(q_view, c_view, target_B, DIMS, 0.3, [1.0] * 3), [q_view, c_view])


def test_user_mistakes_are_value_errors():
    q_BD, c_ND, target_B, keys = make()
    with pytest.raises(ValueError, match="one width"):
        info_nce(q_BD, c_ND[:, :4], target_B=target_B, tau=0.1)
    with pytest.raises(ValueError, match="index the 9 candidates"):
        info_nce(q_BD, c_ND, target_B=target_B + 9, tau=0.1)
    with pytest.raises(ValueError, match="int64"):
        info_nce(q_BD, c_ND, target_B=target_B.float(), tau=0.1)
    with pytest.raises(ValueError, match="keys"):
        info_nce(q_BD, c_ND, target_B=target_B, tau=0.1, keys=keys[::-1])
    with pytest.raises(ValueError, match="tau"):
        info_nce(q_BD, c_ND, target_B=target_B, tau=0.0)
    with pytest.raises(ValueError, match="ascend"):
        mrl(q_BD, c_ND, target_B=target_B, dims=(5, 3), tau=0.1)
    with pytest.raises(ValueError, match="within 1 .. 12"):
        mrl(q_BD, c_ND, target_B=target_B, dims=(5, 13), tau=0.1)
    with pytest.raises(ValueError, match="none empty"):
        info_nce(q_BD[:0], c_ND, target_B=target_B[:0], tau=0.1)
    with pytest.raises(ValueError, match="floating"):
        info_nce(q_BD.long(), c_ND, target_B=target_B, tau=0.1)
