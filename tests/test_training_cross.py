"""Every cross-example term of a step against a naive reference: values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from mipic_llm.config.read import load_config
from mipic_llm.config.schema import resolve
from mipic_llm.data.batch import StepBatch
from mipic_llm.data.plan import BatchPlan
from mipic_llm.data.read.formats import Example, TextSource
from mipic_llm.objective.cross import Crossing
from mipic_llm.objective.memory import Memory
from mipic_llm.objective.module import Sampled
from mipic_llm.runtime.rows import Rows, count_rows
from mipic_llm.training.setup import memory_size
from mipic_llm.types import Reps

B, NEGATIVES, D, DIMS, TAU = 3, 2, 8, [2, 4, 8], 0.5
S = 2 * B + NEGATIVES


def naive(query, candidates, target):
    logits = normalize(query, dim=1) @ normalize(candidates, dim=1).T / TAU
    return cross_entropy(logits, torch.tensor(target))


def setting(*flags: str):
    config = load_config(
        ["--objective.dims", "2,4,8", "--sia.layers", "1,2,3", "--pic.ladder", "2@1,4@2,8@3",
         "--objective.tau", str(TAU), "--sia.ratios", "none", *flags]
    )  # fmt: skip
    return resolve(config, width=D, n_layers=3)


def batch() -> StepBatch:
    columns = torch.tensor([0] * B + [1] * B + [2] * NEGATIVES)
    owners = torch.tensor([*range(B), *range(B), 0, 2])  # ragged: row 1 has no negative
    return StepBatch([[5]] * S, columns, owners, B, B, NEGATIVES, False, 0, "right")


def reps(widths: list[int]) -> Reps:
    torch.manual_seed(0)

    def random(width: int) -> torch.Tensor:
        return torch.randn(S, width, dtype=torch.float64).requires_grad_()

    zero = torch.zeros(())
    chain, target = (tuple(random(w) for w in widths) for _ in range(2))
    target = tuple(t.detach() for t in target)
    return Reps(random(D), chain, target, (), zero, zero, zero)


def test_columns_of_ranks_that_hold_different_numbers() -> None:
    """Each rank holds its anchors, then as many positives, then its negatives."""
    rows, wanted, start = Rows((3, 1, 2), (2, 0, 5), 1), ([], [], []), 0
    for a, n in zip(rows.anchors, rows.negatives, strict=True):
        for column, size in zip(wanted, (a, a, n), strict=True):
            column.extend(range(start, start + size))
            start += size
    assert start == rows.total
    assert [c.tolist() for c in rows.columns(torch.device("cpu"))] == list(wanted)


def check(found: torch.Tensor, wanted: torch.Tensor, leaves) -> None:
    torch.testing.assert_close(found.double(), wanted, rtol=2e-6, atol=2e-6)
    want = torch.autograd.grad(wanted, leaves, allow_unused=True)
    have = torch.autograd.grad(found, leaves, allow_unused=True)
    assert any(w is not None and w.abs().max() > 1e-3 for w in want)
    for h, w in zip(have, want, strict=True):
        torch.testing.assert_close(h, w, rtol=2e-5, atol=2e-6)


WIDE = 3  # --objective.wide_weight: of the dims above half of the full width


def mrl(z: torch.Tensor, dims: list[int]) -> torch.Tensor:
    terms = [
        naive(z[:B, :d], z[B:, :d], range(B)) * (WIDE if d > dims[-1] / 2 else 1) for d in dims
    ]
    return sum(terms)  # type: ignore[return-value]


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("target", ["next", "last"])
def test_the_chain(target: str, paired: bool, nested: bool, reduction: str) -> None:
    config = setting(
        "--pic.positive", "pair" if paired else "self", "--pic.widths",
        "nested" if nested else "point", "--objective.reduction", reduction, "--pic.weight", "3",
        "--objective.alpha", "0.3", "--sia.sentences", "0", "--objective.wide_weight", str(WIDE),
        "--pic.target", target,
    )  # fmt: skip
    whole, sampled = reps([D, D] if nested else [4, 8]), Sampled(links=(0, 1))
    deeper = whole.target_S
    if target == "last":  # cut from the last layer's readout, which is not handed over twice
        deeper = tuple(whole.z_SD.detach()[:, : c.shape[1]] for c in whole.chain_S)
        whole = whole._replace(target_S=())
    found = Crossing(config, 2)(whole, batch(), count_rows(batch(), 1), sampled)

    def link(query, deeper) -> torch.Tensor:
        width = query.shape[1]
        values = []
        for d in DIMS if nested else [width]:
            q, c = query[:, :d], deeper[:, :d]
            if paired:  # an anchor finds its positive's deeper readout, a positive its anchor's
                there = naive(q[:B], c[B:], range(B))
                back = naive(q[B : 2 * B], c[:B], range(B))
                values.append((there + back) / 2)
            else:  # each column of sentences among itself, every sentence its own positive
                parts = [slice(0, B), slice(B, 2 * B), slice(2 * B, S)]
                each = [naive(q[p], c[p], range(len(q[p]))) * len(q[p]) for p in parts]
                values.append(sum(each) / S)
        return sum(values) / len(values)  # type: ignore[return-value]

    chain = sum(link(q, t) for q, t in zip(whole.chain_S, deeper, strict=True))
    chain = chain / 2 if reduction == "mean" else chain
    wanted = 0.3 * mrl(whole.z_SD, DIMS) + 0.7 * 3 * chain
    check(found.total, wanted, [whole.z_SD, *whole.chain_S])
    assert found.parts["loss/chain"] == pytest.approx(chain.item(), rel=1e-5)


def neighbours(z: torch.Tensor, kept: torch.Tensor, d: int) -> torch.Tensor:
    """Of every text among all others of the step, without itself, and the kept: (S, S - 1 + M)."""
    unit, old = normalize(z[:, :d], dim=1), normalize(kept[:, :d], dim=1)
    rows = []
    for i in range(len(z)):
        others = torch.cat([unit[[j for j in range(len(z)) if j != i]], old])
        rows.append((unit[i] @ others.T / TAU).softmax(0))
    return torch.stack(rows)


def relation(z: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """KL(full width's neighbours || a narrow prefix's), dims 2 and 4: their sum."""
    full = neighbours(z.detach(), kept, z.shape[1])
    terms = [(full * (full / neighbours(z, kept, d)).log()).sum(1).mean() for d in (2, 4)]
    return terms[0] + terms[1]


def relation_setting(reduction: str, memory: int):
    config = load_config(
        ["--objective.dims", "2,4,20", "--sia.layers", "1,2", "--pic.ladder", "none",
         "--sia.ratios", "none", "--objective.tau", str(TAU), "--objective.alpha", "0.3",
         "--objective.reduction", reduction, "--sia.sentences", "5",
         "--sia.memory", str(memory), "--objective.wide_weight", str(WIDE)]
    )  # fmt: skip
    return resolve(config, width=20, n_layers=2)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_relation_between_sentences(reduction: str) -> None:
    """Over all texts of the step, anchors, positives and negatives alike; dims of at most a fifth
    of 20, which are 2 and 4."""
    torch.manual_seed(0)
    z = torch.randn(S, 20, dtype=torch.float64).requires_grad_()
    whole = reps([])._replace(z_SD=z)
    crossing = Crossing(relation_setting(reduction, memory=0), 0)
    found = crossing(whole, batch(), count_rows(batch(), 1), Sampled())
    value = relation(z, z.detach()[:0]) / (2 if reduction == "mean" else 1)
    wanted = 0.3 * mrl(z, [2, 4, 20]) + 0.7 * 5 * value
    check(found.total, wanted, [z])
    assert found.parts["loss/sentences"] == pytest.approx(value.item(), rel=1e-5)


def test_the_relation_remembers_the_texts_of_earlier_steps() -> None:
    """The newest 11 of them, without gradients, and only those of steps that were kept."""
    torch.manual_seed(0)
    crossing = Crossing(relation_setting("sum", memory=11), 0)
    steps = [torch.randn(S, 20, dtype=torch.float64).requires_grad_() for _ in range(4)]

    def run(z: torch.Tensor):
        whole = reps([])._replace(z_SD=z)
        return crossing(whole, batch(), count_rows(batch(), 1), Sampled()).total

    for z in steps[:2]:
        run(z)
        crossing.memory.keep()
    run(steps[2])  # a self-check: not kept
    state, kept = crossing.memory.state(), torch.cat([z.detach() for z in steps[:2]])[-11:]
    assert S < 11 < 2 * S and state is not None
    rows, following = state
    torch.testing.assert_close(rows.roll(-following, 0), kept, check_dtype=False)

    z = steps[3]

    def wanted() -> torch.Tensor:
        return 0.3 * mrl(z, [2, 4, 20]) + 0.7 * 5 * relation(z, kept)

    check(run(z), wanted(), [z])
    assert all(old.grad is None for old in steps[:3])

    crossing = Crossing(relation_setting("sum", memory=11), 0)  # a resumed run
    crossing.memory.restore(state, z.device)
    check(run(z), wanted(), [z])


@pytest.mark.parametrize("size", [11, 7, 30])
def test_a_restored_memory_goes_on_where_it_was(size: int) -> None:
    """At its own size with every row in its place, at another size with the newest rows."""
    rows, memory = torch.arange(60.0).reshape(20, 3), Memory(11)
    for start in (0, 5, 10):
        memory.look(rows[start : start + 5])
        memory.keep()
    other = Memory(size)
    other.restore(memory.state(), rows.device)
    for each in (memory, other):
        each.look(rows[15:])
        each.keep()
    (mine, here), (theirs, there) = memory.state(), other.state()
    if size == 11:
        assert here == there and torch.equal(mine, theirs)
    n = {11: 11, 7: 7, 30: 16}[size]  # 30: the 11 that were left, and 5
    theirs = theirs if len(theirs) < size else theirs.roll(-there, 0)
    assert torch.equal(theirs, rows[-n:])


def test_a_sampled_link_counts_for_all() -> None:
    config = setting("--pic.links_per_step", "1", "--objective.alpha", "0", "--sia.sentences", "0")
    whole = reps([D, D])
    rows = count_rows(batch(), 1)
    both = Crossing(config, 2)(whole, batch(), rows, Sampled(links=(0, 1))).total
    each = []
    for i in range(2):
        one = whole._replace(chain_S=whole.chain_S[i : i + 1], target_S=whole.target_S[i : i + 1])
        each.append(Crossing(config, 2)(one, batch(), rows, Sampled(links=(i,))).total)
    torch.testing.assert_close(torch.stack(each).mean(), both)


@pytest.mark.parametrize("weights", [None, "1,2,3"])
def test_mrl_and_simcse(weights: str | None) -> None:
    flags = ["--objective.dim_weights", weights] if weights else []
    whole, rows = reps([]), count_rows(batch(), 1)
    z = whole.z_SD
    found = Crossing(setting("--objective.name", "mrl", *flags), 0)(whole, batch(), rows, Sampled())
    scale = [1, 2, 3] if weights else [1, 1, 1]
    wanted = sum(
        w * naive(z[:B, :d], z[B:, :d], range(B)) for w, d in zip(scale, DIMS, strict=True)
    )
    check(found.total, wanted, [z])
    found = Crossing(setting("--objective.name", "simcse"), 0)(whole, batch(), rows, Sampled())
    check(found.total, naive(z[:B], z[B:], range(B)), [z])


@pytest.mark.parametrize(
    ("flags", "size"),
    [
        ([], 16_384),
        (["--train.epochs", "3"], 500),  # 2 texts x 1,000 rows an epoch, a quarter of them
        (["--train.epochs", "3", "--train.max_steps", "125"], 16_384),  # one epoch after all
        (["--train.epochs", "3", "--sia.memory", "300"], 300),
        (["--objective.name", "mrl"], 0),
        (["--sia.sentences", "0"], 0),
        (["--objective.dims", "128,384", "--pic.ladder", "none"], 0),  # no prefix is narrow
    ],
)  # fmt: skip
def test_the_memory_is_too_short_for_a_text_of_the_epoch_before(flags, size) -> None:
    config = resolve(load_config(["--recipe", "quickstart", *flags]), width=384, n_layers=6)
    rows = TextSource("rows", [Example(f"a{i}", f"b{i}", (), i) for i in range(1000)], 1.0)
    assert memory_size(config, BatchPlan([rows], 4, 2, seed=0)) == size
