"""SIA against references written straight from the equations, in float64.

Shape legend: L layers, S sentences, T tokens, D full width, K sum of the prefix widths.
"""

import itertools
import math
from fractions import Fraction

import pytest
import torch

from mipic_llm.losses import sia_per_example
from mipic_llm.losses.sia import function as sia_function
from mipic_llm.losses.sia import geometry as sia_geometry
from mipic_llm.losses.sia.geometry import set_sizes

S, T, D = 6, 14, 12
DIMS = (2, 5, 8)
RATIOS = ("0.3", "0.5", "0.7")
LENGTHS = (14, 11, 5, 2, 1, 0)
OPTIONS = [
    dict(kl=kl, detach_teacher=detach)
    for kl, detach in itertools.product(("student_teacher", "teacher_student"), (True, False))
]


def naive_cka(x_kd, y_kD):
    """<H K H, H L H> / (|H K H| |H L H|), H written out."""
    k = x_kd.shape[0]
    if k < 2:
        return torch.ones((), dtype=x_kd.dtype)
    H_kk = torch.eye(k, dtype=x_kd.dtype) - torch.ones(k, k, dtype=x_kd.dtype) / k
    K_kk, L_kk = H_kk @ x_kd @ x_kd.T @ H_kk, H_kk @ y_kD @ y_kD.T @ H_kk
    return (K_kk * L_kk).sum() / (K_kk.norm() * L_kk.norm())


def naive_k(m, ratio, min_k):
    return min(m, max(min_k, math.ceil(Fraction(ratio) * m)))


def naive_sentence(h_TD, h_q, keep, lifts, *, dims, ratios, tau, min_k, kl, detach_teacher):
    """One sentence, one prefix at a time, tokens projected up to D literally (Eq 4-12)."""
    h_mD = h_TD[keep]
    m, D = h_mD.shape
    relation = geometry = torch.zeros((), dtype=h_TD.dtype)
    if m == 0:
        return relation, geometry
    teacher_m = h_mD @ h_q / math.sqrt(D)
    order = torch.sort(teacher_m, descending=True, stable=True).indices
    log_t = torch.log_softmax(teacher_m / tau, 0)
    log_t = log_t.detach() if detach_teacher else log_t
    for P_dD, d, ratio in zip(lifts, dims, ratios, strict=True):
        up_mD = h_mD[:, :d] @ P_dD  # P_i^T h_j[:d_i]
        log_p = torch.log_softmax(up_mD @ h_q / math.sqrt(D) / tau, 0)
        if kl == "student_teacher":
            relation = relation + (log_p.exp() * (log_p - log_t)).sum()
        else:
            relation = relation + (log_t.exp() * (log_t - log_p)).sum()
        top = order[: naive_k(m, ratio, min_k)]
        wide = h_mD[top].detach() if detach_teacher else h_mD[top]
        geometry = geometry + 1 - naive_cka(h_mD[top][:, :d], wide)
    return relation, geometry


def naive_sia(tokens, query, mask, lifts, **options):
    pairs = [
        naive_sentence(h, q, m, lifts, **options)
        for h, q, m in zip(tokens, query, mask, strict=True)
    ]
    return [torch.stack(list(term)) for term in zip(*pairs, strict=True)]


def make(lengths=LENGTHS, T=T, D=D, dims=DIMS, side="right", seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    S = len(lengths)
    tokens = torch.randn(S, T, D, generator=g, dtype=torch.float64)
    query = torch.randn(S, D, generator=g, dtype=torch.float64)
    lifts = [torch.randn(d, D, generator=g, dtype=torch.float64) / math.sqrt(d) for d in dims]
    mask = torch.zeros(S, T, dtype=torch.bool)
    for s, m in enumerate(lengths):
        at = torch.randperm(T, generator=g)[:m] if side == "holes" else torch.arange(m)
        mask[s, at if side != "left" else T - 1 - at] = True
    leaves = [x.to(dtype).requires_grad_() for x in (tokens, query, *lifts)]
    return leaves[0], leaves[1], mask, leaves[2:]


def options_of(**changes):
    base = dict(
        dims=DIMS, ratios=RATIOS, tau=0.7, min_k=3, kl="student_teacher", detach_teacher=True
    )
    return base | changes


def fast(tokens, query, mask, lifts, **options):
    """(relation, geometry) of one layer, each the mean over sentences; lifts[i] is P_i (d_i, D)."""
    wide = torch.float64 if tokens.dtype == torch.float64 else torch.float32
    with torch.autocast("cpu", enabled=False):
        lifted = query.to(wide) @ torch.cat([p.to(wide) for p in lifts]).T
    options["ratios"] = [float(r) for r in options["ratios"]]
    found = sia_per_example([tokens], query[None], mask, lifted_LSK=lifted[None], **options)
    return tuple(term_1S.mean() for term_1S in found)


def grads(value, inputs):
    got = torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(i) if g is None else g for g, i in zip(got, inputs, strict=True)]


def assert_same(got, want, inputs, tol=1e-9):
    """Values and gradients of both terms, alone and mixed, with upstream gradient != 1."""
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=tol, atol=tol)
    for weights in ((3.0, 0.0), (0.0, -2.0), (1.5, 0.5)):
        a = grads(sum(w * x for w, x in zip(weights, got, strict=True)), inputs)
        b = grads(sum(w * x for w, x in zip(weights, want, strict=True)), inputs)
        assert max(x.abs().max() for x in b) > 1e-4, "vacuous: the reference gradient is zero"
        for x, y in zip(a, b, strict=True):
            torch.testing.assert_close(x, y, rtol=tol, atol=tol)


@pytest.fixture(autouse=True, params=["each prefix alone", "all prefixes together"])
def prefixes(request, monkeypatch):
    """As on a CPU, and as on a GPU, which centres the Grams of all prefixes at once."""
    if request.param == "all prefixes together":
        monkeypatch.setattr(sia_geometry, "_together", lambda bounds, _: [slice(0, len(bounds))])


@pytest.mark.parametrize("choice", OPTIONS, ids=lambda c: "-".join(str(v) for v in c.values()))
def test_sia_equals_the_equations_for_every_option(choice):
    tokens, query, mask, lifts = make(side="holes")
    options = options_of(**choice)
    got = fast(tokens, query, mask, lifts, **options)
    want = [x.mean() for x in naive_sia(tokens, query, mask, lifts, **options)]
    assert_same(got, want, [tokens, query, *lifts])


@pytest.mark.parametrize("side", ["left", "right", "holes"])
@pytest.mark.parametrize("min_k", [1, 8])
@pytest.mark.parametrize("tau", [0.05, 1.0])
def test_sia_equals_the_equations_for_every_padding(side, min_k, tau):
    tokens, query, mask, lifts = make(side=side, seed=1)
    options = options_of(min_k=min_k, tau=tau)
    got = fast(tokens, query, mask, lifts, **options)
    want = [x.mean() for x in naive_sia(tokens, query, mask, lifts, **options)]
    assert_same(got, want, [tokens, query, *lifts])


@pytest.mark.parametrize("ratios", [("0.7", "0.5", "0.3"), ("1.0", "0.4", "1.0")])
def test_ratios_need_not_ascend(ratios):
    tokens, query, mask, lifts = make(seed=2)
    options = options_of(ratios=ratios, min_k=1, detach_teacher=False)
    got = fast(tokens, query, mask, lifts, **options)
    want = [x.mean() for x in naive_sia(tokens, query, mask, lifts, **options)]
    assert_same(got, want, [tokens, query, *lifts])


@pytest.mark.parametrize("budget", [1, 20_000, 10**9])
@pytest.mark.parametrize("stacked", [False, True])
def test_layers_stacked_on_the_batch_axis(budget, stacked, monkeypatch):
    """Per-sentence values, an upstream gradient per sentence, and every way of chunking."""
    monkeypatch.setattr(sia_function, "_CHUNK_BYTES", {"cpu": budget})
    parts = [make(side="holes", seed=s) for s in (3, 4, 5)]
    mask = parts[0][2]
    options = options_of(detach_teacher=False)
    g = torch.Generator().manual_seed(9)
    weight = torch.randn(2, 3, S, generator=g, dtype=torch.float64)
    query = torch.stack([p[1] for p in parts])
    lifted = torch.stack([torch.cat([q @ P.T for P in ls], 1) for _, q, _, ls in parts])
    tokens = [p[0] for p in parts]
    got = sia_per_example(
        torch.stack(tokens) if stacked else tokens,
        query,
        mask,
        lifted_LSK=lifted,
        **options | dict(ratios=[float(r) for r in RATIOS]),
    )
    assert got[0].shape == got[1].shape == (3, S)
    naive = [naive_sia(t, q, mask, ls, **options) for t, q, _, ls in parts]
    want = [torch.stack([n[term] for n in naive]) for term in (0, 1)]
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    inputs = [x for t, q, _, ls in parts for x in (t, q, *ls)]
    a = grads((weight[0] * got[0]).sum() + (weight[1] * got[1]).sum(), inputs)
    b = grads((weight[0] * want[0]).sum() + (weight[1] * want[1]).sum(), inputs)
    for x, y in zip(a, b, strict=True):
        assert y.abs().max() > 1e-4
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kl", ["student_teacher", "teacher_student"])
def test_gradcheck(kl):
    tokens, query, mask, lifts = make(lengths=(4, 3), T=4, D=5, dims=(2, 3), side="holes")
    options = options_of(detach_teacher=False, kl=kl, dims=(2, 3), ratios=("0.5", "0.9"), min_k=2)

    def f(tokens, query, *lifts):
        return fast(tokens, query, mask, list(lifts), **options)

    assert torch.autograd.gradcheck(f, (tokens, query, *lifts))


@pytest.mark.parametrize("term", ["relation", "geometry"])
def test_one_term_alone_is_the_same_and_the_other_is_zero(term):
    tokens, query, mask, lifts = make()
    inputs = [tokens, query, *lifts]
    index = ("relation", "geometry").index(term)
    both = fast(tokens, query, mask, lifts, **options_of())
    alone = fast(
        tokens,
        query,
        mask,
        lifts,
        **options_of(relation=term == "relation", geometry=term == "geometry"),
    )
    assert alone[1 - index] == 0
    torch.testing.assert_close(alone[index], both[index])
    for a, b in zip(grads(sum(alone), inputs), grads(both[index], inputs), strict=True):
        torch.testing.assert_close(a, b)


def test_detaching_cuts_exactly_the_teacher():
    tokens, query, mask, lifts = make()
    relation, geometry = fast(tokens, query, mask, lifts, **options_of())
    assert grads(geometry, [query])[0].abs().max() == 0
    assert grads(relation, lifts)[0].abs().max() > 1e-3
    assert grads(relation + geometry, [tokens])[0][:, :, DIMS[-1] :].abs().max() == 0
    assert grads(geometry, [tokens])[0][:, :, : DIMS[-1]].abs().max() > 1e-3
    trained = fast(tokens, query, mask, lifts, **options_of(detach_teacher=False))
    for value in trained:
        assert grads(value, [tokens])[0][:, :, DIMS[-1] :].abs().max() > 1e-3


def test_gradient_only_where_needed():
    tokens, query, mask, lifts = make()
    lifts = [p.detach() for p in lifts]
    want = [x.mean() for x in naive_sia(tokens, query, mask, lifts, **options_of())]
    frozen = query.detach()
    assert_same(fast(tokens, frozen, mask, lifts, **options_of()), want, [tokens])
    still = tokens.detach()
    relation, geometry = fast(still, query, mask, lifts, **options_of())
    want = naive_sia(still, query, mask, lifts, **options_of())[0].mean()
    (geometry + relation).backward()
    torch.testing.assert_close(query.grad, grads(want, [query])[0])


def test_where_the_pads_are_and_what_they_hold_changes_nothing():
    """Right-padded against the same sentences with pads in other places, of other values."""
    tokens, query, mask, lifts = make(lengths=(9, 4, 1), T=10)
    options = options_of(detach_teacher=False)
    reference = fast(tokens, query, mask, lifts, **options)
    want = grads(sum(reference), [tokens, query, *lifts])
    for roll in (3, 5):
        moved = tokens.detach().roll(roll, 1)
        there = mask.roll(roll, 1)
        moved = torch.where(there[:, :, None], moved, 100 * torch.randn_like(moved))
        # rolling wraps a sentence around: put it back in reading order
        order = torch.stack([torch.sort(r, stable=True).indices for r in there.long()])
        moved = moved.gather(1, order[:, :, None].expand_as(moved))
        there = there.gather(1, order)
        for s in range(3):
            moved[s, there[s]] = tokens.detach()[s, mask[s]]
        moved.requires_grad_()
        got = fast(moved, query, there, lifts, **options)
        a = grads(sum(got), [moved, query, *lifts])
        torch.testing.assert_close(torch.stack(got), torch.stack(reference), rtol=1e-12, atol=0)
        torch.testing.assert_close(a[0][there], want[0][mask], rtol=1e-9, atol=1e-12)
        assert a[0][~there].abs().max() == 0
        for x, y in zip(a[1:], want[1:], strict=True):
            torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("side", ["left", "right"])
def test_extra_padding_changes_nothing(dtype, side):
    tokens, query, mask, lifts = make(dtype=dtype, side=side)
    options = options_of(tau=0.3)
    want = fast(tokens, query, mask, lifts, **options)
    pad = torch.full((S, 9, D), 7.0, dtype=dtype)
    none = torch.zeros(S, 9, dtype=torch.bool)
    first = [pad, tokens] if side == "left" else [tokens, pad]
    wider = torch.cat(first, 1)
    got = fast(
        wider, query, torch.cat([none, mask] if side == "left" else [mask, none], 1), lifts,
        **options,
    )  # fmt: skip
    tol = 2e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(torch.stack(got), torch.stack(want), rtol=tol, atol=tol)
    inputs = [tokens, query, *lifts]
    for a, b in zip(grads(sum(got), inputs), grads(sum(want), inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=10 * tol, atol=tol)


@pytest.mark.parametrize("offset", [1e3, 1e4])
@pytest.mark.parametrize("detach_teacher", [True, False])
def test_a_channel_with_a_large_offset_keeps_the_fp32_gradient(offset, detach_teacher):
    """Channel 1 (inside every prefix) far from zero: fp32 against float64 of the same numbers."""
    tokens, query, mask, lifts = make(dtype=torch.float32)
    tokens.data[:, :, 1] += offset
    query.data[:, 1] = 0  # the scores must stay ordinary for the ranking to be comparable
    options = options_of(detach_teacher=detach_teacher)
    _, geometry = fast(tokens, query, mask, lifts, **options)
    (got,) = grads(geometry, [tokens])
    exact = [x.detach().double().requires_grad_() for x in (tokens, query, *lifts)]
    want = naive_sia(exact[0], exact[1], mask, exact[2:], **options)[1].mean()
    (wanted,) = grads(want, [exact[0]])
    cosine = torch.cosine_similarity(got.double().flatten(), wanted.flatten(), dim=0)
    assert wanted.norm() > 1e-3
    assert cosine > 0.999
    torch.testing.assert_close(geometry.double(), want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", ["all equal", "prefix equal", "zero", "top set equal"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("detach_teacher", [True, False])
def test_tokens_without_geometry_cost_nothing_and_pull_nothing(case, dtype, detach_teacher):
    tokens, query, mask, lifts = make(lengths=(14, 9), dtype=dtype)
    with torch.no_grad():
        if case == "zero":
            tokens.zero_()
        elif case == "all equal":
            tokens[:] = tokens[:, :1] * 37.3
        elif case == "prefix equal":
            tokens[:, :, : DIMS[-1]] = tokens[:, :1, : DIMS[-1]] * 37.3
        else:  # the first set (min_k = 3, dims 2) holds equal tokens, the larger ones do not
            tokens[:, :6] = query[:, None] * 3
    _, geometry = fast(tokens, query, mask, lifts, **options_of(detach_teacher=detach_teacher))
    (got,) = grads(geometry, [tokens])
    assert torch.isfinite(got).all()
    if case == "top set equal":
        options = options_of(detach_teacher=detach_teacher, dims=DIMS[1:], ratios=RATIOS[1:])
        _, rest = fast(tokens, query, mask, lifts[1:], **options)
        assert rest > 1e-3
        torch.testing.assert_close(geometry, rest)
        torch.testing.assert_close(got, grads(rest, [tokens])[0])
    else:
        assert geometry == 0 and got.abs().max() == 0


@pytest.mark.parametrize("detach_teacher", [True, False])
def test_empty_sentences_are_zero_without_nan(detach_teacher):
    tokens, query, mask, lifts = make(lengths=(0, 0, 0), T=5)
    tokens.data[0] = 0
    query.data[1] = 0
    options = options_of(detach_teacher=detach_teacher)
    got = fast(tokens, query, mask, lifts, **options)
    assert got[0] == 0 and got[1] == 0
    for g in grads(sum(got), [tokens, query, *lifts]):
        assert g.abs().max() == 0  # also fails on NaN


def test_bf16_tokens_are_computed_in_fp32():
    tokens, query, mask, lifts = make(dtype=torch.bfloat16)
    got = fast(tokens, query, mask, lifts, **options_of())
    assert got[0].dtype == torch.float32
    wide = [x.detach().float().requires_grad_() for x in (tokens, query, *lifts)]
    want = fast(wide[0], wide[1], mask, wide[2:], **options_of())
    torch.testing.assert_close(torch.stack(got), torch.stack(want))
    pairs = zip(grads(sum(got), [tokens, query, *lifts]), grads(sum(want), wide), strict=True)
    for a, b in pairs:
        assert a.dtype == torch.bfloat16
        assert (a.float() - b).norm() < 1e-2 * b.norm()


def test_autocast_does_not_lower_the_precision():
    tokens, query, mask, lifts = make(dtype=torch.float32)
    want = fast(tokens, query, mask, lifts, **options_of())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = fast(tokens, query, mask, lifts, **options_of())
        g = grads(sum(got), [tokens])[0]
    assert torch.equal(torch.stack(got), torch.stack(want))
    assert torch.equal(g, grads(sum(want), [tokens])[0])


def test_non_contiguous_inputs():
    tokens, query, mask, lifts = make()
    views = [
        tokens.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_(),
        query.detach().T.contiguous().T.requires_grad_(),
        *[p.detach().repeat(1, 2)[:, :D].requires_grad_() for p in lifts],
    ]
    assert not views[0].is_contiguous()
    got = fast(views[0], views[1], mask.T.contiguous().T, views[2:], **options_of())
    want = [x.mean() for x in naive_sia(*views[:2], mask, views[2:], **options_of())]
    assert_same(got, want, views)


def test_ties_are_ranked_in_reading_order():
    """All scores equal: the top set must be the first tokens, wherever the pads are."""
    tokens, query, mask, lifts = make(lengths=(14, 9), side="left")
    query.data.zero_()
    options = options_of()
    got = fast(tokens, query, mask, lifts, **options)
    want = [x.mean() for x in naive_sia(tokens, query, mask, lifts, **options)]
    torch.testing.assert_close(got[1], want[1])


def test_set_sizes():
    """k = min(m, max(8, ceil(gamma m))): 0.28 * 25 is 7, though its floats give more."""
    m = torch.arange(0, 513)
    for ratio in ("0.1", "0.28", "0.3", "0.55", "0.7", "1.0"):
        got = set_sizes(m, [float(ratio)], 8)[:, 0].tolist()
        assert got == [naive_k(i, ratio, 8) for i in range(513)]
    assert set_sizes(torch.tensor([25]), [0.28], 1).item() == 7


def test_user_mistakes_are_value_errors():
    tokens, query, mask, lifts = make()
    bad = [
        (dict(tau=0), "tau"),
        (dict(kl="js"), "kl"),
        (dict(ratios=("0.5",)), "ratios"),
        (dict(ratios=("0.5", "0.5", "1.5")), "ratios"),
        (dict(min_k=0), "min_k"),
        (dict(dims=(5, 2, 8)), "ascend"),
        (dict(dims=(2, 5, 9)), "lifted_LSK"),
    ]
    for change, word in bad:
        with pytest.raises(ValueError, match=word):
            fast(tokens, query, mask, lifts, **options_of(**change))
    with pytest.raises(ValueError, match="below D"):
        wide = [*lifts[:2], torch.zeros(D, D).double()]
        fast(tokens, query, mask, wide, **options_of(dims=(2, 5, D)))
    with pytest.raises(ValueError, match="mask_ST"):
        fast(tokens, query, mask[:, 1:], lifts, **options_of())
    with pytest.raises(ValueError, match="query_LSD"):
        fast(tokens, query[1:], mask, lifts, **options_of())
