"""Every cross-example term against its naive reference (tests/terms.py), on one and two ranks."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from ranks import ROOT, run_ranks
from terms import (
    KEPT,
    KEPT_TEXT,
    TAU,
    D,
    K,
    World,
    back,
    facts,
    found,
    info_nce,
    judge,
    keys,
    readouts,
    setting,
    task,
)
from torch import Tensor
from torch.nn.functional import normalize

from mipic_llm.config import load_config, resolve
from mipic_llm.data.plan import BatchPlan
from mipic_llm.data.read.rows import Example, TextSource
from mipic_llm.losses import alignment_kl, compress, layer_weight, pca_target
from mipic_llm.objective import Needs, Objective, Term, Value
from mipic_llm.objective.memory import Memory
from mipic_llm.runtime.rows import Rows
from mipic_llm.training.setup import memory_size

DIMS = (2, 4, D)
LEFT_OUT = 4  # pairs of an anchor and a candidate, of the equal texts in terms.py, counted by hand
OFF = ["--sia.sentences", "0", "--pic.enabled", "false"]
CHAIN = ["--sia.sentences", "0", "--objective.alpha", "0.3", "--pic.weight", "3",
         "--objective.wide_weight", "1"]  # fmt: skip
RELATION = ["--pic.enabled", "false", "--objective.alpha", "0.3", "--sia.sentences", "5",
            "--objective.wide_weight", "1"]  # fmt: skip


def mrl(weights: tuple[float, ...] = (1, 1, 1), dims: tuple[int, ...] = DIMS) -> Callable:
    def naive(world: World) -> Tensor:
        terms = [w * task(world, world.z[3], d) for w, d in zip(weights, dims, strict=True)]
        return torch.stack(terms).sum()

    return naive


def chain(*, paired: bool, nested: bool, last: bool, mean: bool) -> Callable:
    """Links 2@1 -> 4@2 -> 20@3; nested: of full width, the mean over all dims."""

    def link(world: World, i: int) -> Tensor:
        d_in, d_out = (D, D) if nested else ((2, 4), (4, D))[i]
        query = world.heads["phis"][i](world.z[i + 1][:, :d_in])
        deeper = world.z[3 if last else i + 2].detach()[:, :d_out]
        values = []
        for d in DIMS if nested else [d_out]:
            a, p, n = world.anchors, world.positives, world.negatives
            if paired:  # an anchor finds its positive's deeper readout, a positive its anchor's
                there = info_nce(world, query, a, deeper, p + n, d)
                back = info_nce(world, query, p, deeper, a, d)
                values.append((there + back) / 2)
            else:  # each column of sentences among itself, every sentence its own positive
                each = [info_nce(world, query, c, deeper, c, d) * len(c) for c in (a, p, n)]
                values.append(sum(each) / len(query))
        return sum(values) / len(values)

    def naive(world: World) -> Tensor:
        drawn = world.drawn[-1]
        total = sum(link(world, i) for i in drawn) * 2 / len(drawn)
        return 0.3 * mrl()(world) + 0.7 * 3 * (total / 2 if mean else total)

    return naive


def relation(mean: bool, task: bool = True) -> Callable:
    """KL(full width's neighbours || a narrow prefix's): dims of at most a fifth of 20, 2 and 4."""

    def neighbours(world: World, z: Tensor, d: int) -> Tensor:
        unit, old = normalize(z[:, :d], dim=1), normalize(world.kept[:, :d], dim=1)
        rows = []
        for i in range(len(z)):
            now = world.others(i, list(range(len(z))))
            now += [p for p in [world.partner(i)] if p is not None and p not in now]
            then = [m for m, text in enumerate(world.kept_text) if text != world.text[i]]
            rows.append((unit[i] @ torch.cat([unit[now], old[then]]).T / 0.5).softmax(0))
        return rows

    def naive(world: World) -> Tensor:
        z = world.z[3]
        full = neighbours(world, z.detach(), D)
        terms = []
        for d in (2, 4):
            pairs = zip(full, neighbours(world, z, d), strict=True)
            terms.append(torch.stack([(t * (t / p).log()).sum() for t, p in pairs]).mean())
        return (0.3 * mrl()(world) if task else 0) + 0.7 * 5 * sum(terms) / (2 if mean else 1)

    return naive


def taught_neighbours(*layers: int, last: tuple[int, ...] = DIMS) -> Callable:
    """Each prefix's neighbours against the teacher's, tau 0.4; copies of a text are left out, the
    other view too; inner layers see no memory. last: prefixes of
    layer 3. 5 * mean over prefixes and layers."""

    def rows(world: World, z: Tensor, kept: Tensor, d: int) -> list[Tensor]:
        unit, old, found = normalize(z[:, :d], dim=1), normalize(kept[:, :d], dim=1), []
        for i in range(len(z)):
            now = unit[world.others(i, list(range(len(z))))]
            then = [m for m in range(len(kept)) if world.kept_text[m] != world.text[i]]
            found.append((torch.cat([now, old[then]]) @ unit[i] / 0.4).softmax(0))
        return found

    def naive(world: World) -> Tensor:
        terms = []
        for layer in layers:
            n = len(world.kept) if layer == 3 else 0
            taught = rows(world, world.taught, world.kept_taught[:n], K)
            for d in last if layer == 3 else DIMS:
                pairs = zip(taught, rows(world, world.z[layer], world.kept[:n], d), strict=True)
                terms.append(torch.stack([(t * (t / p).log()).sum() for t, p in pairs]).mean())
        return mrl()(world) + 5 * torch.stack(terms).mean()

    return naive


def taught_vectors(form: str) -> Callable:
    def naive(world: World) -> Tensor:
        terms, there = [], normalize(world.taught, dim=1)
        for i, d in enumerate(DIMS):
            made = world.heads["teacher_maps"][i](normalize(world.z[3][:, :d], dim=1))
            gap = (made - there).square().sum(1)
            cosine = 1 - torch.cosine_similarity(made, there, dim=1)
            terms.append((cosine if form == "cosine" else gap).mean())
        return mrl()(world) + 2 * torch.stack(terms).mean()

    return naive


def row_scores(temperature: float | None) -> Callable:
    """3 KL + 2 margin-MSE over each row's own candidates, means over rows with a negative and over
    negatives. Scores of the rows at this temperature; None: the teacher's cosines."""

    def naive(world: World) -> Tensor:
        kls, margins, z = [], [], world.z[3]
        for b, (a, p) in enumerate(zip(world.anchors, world.positives, strict=True)):
            there = [p, *(n for n in world.negatives if world.whose[n] == b)]
            score = torch.cosine_similarity(world.taught[[a]], world.taught[there], dim=1) / TAU
            if temperature:
                score = torch.tensor([world.score[row] for row in there]).double() / temperature
                there = [row for row, s in zip(there, score, strict=True) if s == s]
                score = score[score == score]
            if len(there) == 1:
                continue
            for d in DIMS:
                cos = torch.cosine_similarity(z[[a], :d], z[there, :d], dim=1)
                t = score.softmax(0)
                kls.append((t * (t.log() - (cos / TAU).log_softmax(0))).sum())
                margins += [((cos[0] - c) - TAU * (score[0] - s)) ** 2
                            for c, s in zip(cos[1:], score[1:], strict=True)]  # fmt: skip
        return mrl()(world) + 3 * torch.stack(kls).mean() + 2 * torch.stack(margins).mean()

    return naive


def ese(world: World) -> Tensor:
    """k = 4; losses/ese.py has references of its own."""
    total = mrl((1, 1), (4, D))(world)
    for layer, z in world.z.items():
        weight = 1.0 if layer == 3 else layer_weight(layer) / 2
        total = total + weight * compress(z[:, :4], pca_target(z, 4))
        total = total + (0 if layer == 3 else weight * task(world, z, 4))
    return total


def two_d(world: World) -> Tensor:
    ((layer, dim),) = world.drawn
    z, last = world.z[layer], world.z[3]
    total = sum(task(world, each, d) for each in (z, last) for d in (dim, D))
    return total + alignment_kl(z, last)


def three_d(world: World) -> Tensor:
    """Exits 1, 2, 3, each at every dim, which weighs 1 / (rank from the widest * sqrt(D / d))."""
    return sum(task(world, z, d) / (n * (D / d) ** 0.5)
               for z in world.z.values() for n, d in enumerate(reversed(DIMS), 1))  # fmt: skip


def learnt_tau(world: World) -> Tensor:
    """tau = TAU exp(-x), x the one parameter; the logits here are cosines over TAU."""
    tau, total = TAU * (-world.heads["temperature"][0].change[0]).exp(), torch.zeros(())
    for i, right in zip(world.anchors, world.positives, strict=True):
        wrong = world.others(right, world.others(i, world.positives + world.negatives))
        wrong = [j for j in wrong if not world.near(i, j, right)]
        for d in DIMS:
            z = normalize(world.z[3][:, :d], dim=1)
            cosines = z[[right, *wrong]] @ z[i]
            extra = 2 * cosines.detach() * (torch.arange(len(cosines)) > 0)
            total = total - torch.log_softmax(cosines / tau + extra, 0)[0]
    return total / len(world.anchors)


def several(hardness: float = 0.0, same: bool = False) -> Callable:
    """logsumexp over all positives and the negatives, less the mean of the positives. A candidate
    with the text of the anchor or of one of its positives is no negative. same: anchors are
    candidates too."""

    def naive(world: World) -> Tensor:
        total = torch.zeros(())
        for b, (i, p) in enumerate(zip(world.anchors, world.positives, strict=True)):
            right = [p, *(n for n in world.also if world.whose[n] == b)]
            found = world.positives + world.negatives + world.anchors * same
            wrong = [j for j in found if j not in right]
            for known in (i, *right):
                wrong = world.others(known, wrong)
            for d in DIMS:
                z = normalize(world.z[3][:, :d], dim=1)
                logits = z[[*right, *wrong]] @ z[i] / TAU
                extra = hardness * TAU * logits.detach() * (torch.arange(len(logits)) >= len(right))
                total = total + (logits + extra).logsumexp(0) - logits[: len(right)].mean()
        return total / len(world.anchors)

    return naive


def starbucks(world: World) -> Tensor:
    """2@1, 4@2, 20@3: the task, and KL from the whole model's scores of an anchor's candidates."""
    total, found = torch.zeros(()), world.positives + world.negatives

    def scores(z: Tensor, i: int, among: list[int], d: int) -> Tensor:
        unit = normalize(z[:, :d], dim=1)
        return unit[among] @ unit[i] / TAU

    for layer, d in ((1, 2), (2, 4), (3, D)):
        total, values = total + task(world, world.z[layer], d), []
        for i, right in zip(world.anchors, world.positives, strict=True):
            wrong = world.others(right, world.others(i, found))
            among = [right, *(j for j in wrong if not world.near(i, j, right))]
            t = scores(world.z[3].detach(), i, among, D).softmax(0)
            p = scores(world.z[layer], i, among, d).softmax(0)
            values.append((t * (t / p).log()).sum())
        total = total + (torch.stack(values).mean() if layer < 3 else 0)
    return total


def mic_texts(world: World) -> Tensor:
    """0.7 * the mean over layers 1, 2 and dims 2, 4 of evenness and spread; the rest is inside
    texts (tests/test_mic.py)."""
    total, n = mrl()(world), len(world.text)
    for z in (world.z[1], world.z[2]):
        for d in (2, 4):
            v = torch.stack([((z[:, a] - z[:, a].mean()) ** 2).mean() for a in range(d)])
            even = (((v - v.mean()) ** 2).mean()).sqrt() / v.mean()
            pairs = [torch.exp(-4 * (1 - torch.cosine_similarity(z[i, :d], z[j, :d], dim=0)))
                     for i in range(n) for j in world.others(i, list(range(n)))]  # fmt: skip
            total = total + 0.7 / 4 * (even + torch.stack(pairs).mean().log())
    return total


def gor(task: Callable) -> Callable:
    """Beside a task; positives of one anchor, and rows that are no negatives, are left alone."""

    def together(world: World, a: int, b: int) -> bool:
        right = {p: i for i, p in enumerate(world.positives)}
        right |= {n: world.whose[n] for n in world.also}
        own = a in right and b in right and right[a] == right[b]
        return own or (world.alone and world.row(a) != world.row(b))

    def naive(world: World) -> Tensor:
        total = task(world)
        for rows in (world.anchors, world.positives + world.negatives):
            for d in DIMS:
                unit = normalize(world.z[3][rows, :d], dim=1)
                squares = [
                    [(unit[a] @ unit[rows.index(b)]) ** 2 for b in world.others(row, rows)
                     if not together(world, row, b)] for a, row in enumerate(rows)
                ]  # fmt: skip
                means = [torch.stack(some).mean() for some in squares if some]
                total = total + 0.7 * sum(means, torch.zeros(())) / len(rows) / 3
        return total

    return naive


def scored(weights: tuple[float, ...], angle: float = 0, cosent: float = 1) -> Callable:
    """log(1 + sum of exp over pairs of a lower and a higher score), by two loops."""

    def alike(x: Tensor, y: Tensor) -> Tensor:
        return normalize(x, dim=0) @ normalize(y, dim=0)

    def turned(x: Tensor, y: Tensor) -> Tensor:
        x, y = (torch.complex(*normalize(v, dim=0).chunk(2)) for v in (x, y))
        product = (x * y.conj()).sum()
        return (product.real + product.imag).abs()

    def naive(world: World) -> Tensor:
        pairs = [*zip(world.anchors, world.positives, strict=True)]
        total = torch.zeros(())
        for d, weight in zip(DIMS, weights, strict=True):
            for share, measure in ((cosent, alike), (angle, turned)):
                s = {p: measure(world.z[3][a, :d], world.z[3][p, :d]) / 0.1 for a, p in pairs}
                wrong = [s[n] - s[m] for n in s for m in s if world.score[n] < world.score[m]]
                total = total + weight * share * (1 + torch.stack(wrong).exp().sum()).log()
        return total

    return naive


MARGIN = ["--objective.false_negative_margin"]


def directions(same: bool, backward: bool, same_back: bool) -> Callable:
    def naive(world: World) -> Tensor:
        z, total = world.z[3], torch.zeros(())
        for d in DIMS:
            value = task(world, z, d, same)
            total = (
                total + (value + back(world, z, d, same_back)) / 2 if backward else total + value
            )
        return total

    return naive


WAYS = ["--objective.name", "mrl", "--objective.directions"]
SCORED = ["--scored.tau", "0.1"]


def hinge(world: World) -> Tensor:
    """tests/plugin: the hardest candidate of an anchor, at each dim."""
    total, found = mrl()(world), world.positives + world.negatives
    for d in DIMS:
        unit, losses = normalize(world.z[3][:, :d], dim=1), []
        for i, right in zip(world.anchors, world.positives, strict=True):
            others = [j for j in found if j != right and world.text[j] != world.text[i]
                      and world.text[j] != world.text[right]]  # fmt: skip
            hardest = max(unit[i] @ unit[j] for j in others)
            losses.append((hardest - unit[i] @ unit[right] + 0.2).clamp_min(0))
        total = total + 0.7 * torch.stack(losses).mean()
    return total


TEACHER = ["--teacher.name", "vectors.npy"]
TAUGHT = ["--objective.name", "mrl", *TEACHER, "--teacher.relation", "0"]
SCORES = ["--teacher.scores", "3", "--teacher.margin", "2"]
NEIGHBOURS = [*TAUGHT[:4], "--teacher.relation", "5", "--teacher.relation_temperature", "0.4"]
GOR = ["--objective.gor", "0.7"]
CASES: dict[str, tuple] = {
    "plugin": (["--objective.name", "mrl", "--objective.plugins", "hinge=0.7"], hinge),
    "alone": (["--objective.name", "mrl"], mrl(), 0, "alone"),
    "alone-mipic": (CHAIN, chain(paired=True, nested=True, last=True, mean=True), 0, "alone"),
    "margin": ([*MARGIN, "0.1", "--objective.name", "mrl"], mrl()),
    "margin-relative": ([*MARGIN, "0.5", "--objective.false_negative_rule", "relative",
                         "--objective.name", "mrl"], mrl()),
    "margin-teacher": ([*MARGIN, "0.1", "--objective.name", "mrl"], mrl(), 0, "taught"),
    "margin-ese": ([*MARGIN, "-0.1", "--objective.name", "ese"], ese),
    "margin-2dmse": ([*MARGIN, "0.1", "--objective.name", "2dmse"], two_d),
    "ways-queries": ([*WAYS, "query_to_doc,query_to_query"], directions(True, False, False)),
    "ways-back": ([*WAYS, "doc_to_query,query_to_doc"], directions(False, True, False)),
    "ways-all": ([*WAYS, "query_to_doc,query_to_query,doc_to_query,doc_to_doc", *MARGIN, "0.1"],
                 directions(True, True, True)),
    "hardness": (["--objective.name", "mrl", "--objective.hardness", "4", *MARGIN, "0.1"],
                 lambda w: sum(info_nce(w, w.z[3], w.anchors, w.z[3], w.positives + w.negatives, d,
                                        hardness=4.0) for d in DIMS)),
    "learnt-tau": (["--objective.name", "mrl", "--objective.tau_learnable", "true", *MARGIN, "0.1",
                    "--objective.hardness", "2"], learnt_tau),
    "several": (["--objective.name", "mrl"], several(), 0, "several"),
    "several-hard": (["--objective.name", "mrl", "--objective.hardness", "3"], several(3.0), 0,
                     "several"),
    "several-ways": ([*WAYS, "query_to_doc,query_to_query,doc_to_query,doc_to_doc"],
                     lambda w: (several(same=True)(w) + sum(
                         back(w, w.z[3], d, True) for d in DIMS)) / 2, 0, "several"),
    "several-chain": (CHAIN, lambda w: 0.3 * (several()(w) - mrl()(w)) + chain(
        paired=True, nested=True, last=True, mean=True)(w), 0, "several"),
    "labelled": (["--objective.name", "mrl"], mrl(), 0, "labelled"),
    "labelled-chain": ([*CHAIN, "--pic.links_per_step", "1"],
                       chain(paired=True, nested=True, last=True, mean=True), 0, "labelled"),
    "scored-margin": ([*SCORED, *MARGIN, "0.1", "--objective.name", "mrl"], scored((1, 1, 1)), 0,
                      "scored"),
    "scored": ([*SCORED, "--objective.name", "mrl"], scored((1, 1, 1)), 0, "scored"),
    "scored-angle": ([*SCORED, "--objective.name", "2dmse", "--scored.loss", "angle"],
                     scored((1, 1, 1), 1, 0), 0, "scored"),
    "scored-both": ([*SCORED, "--objective.name", "mrl", "--scored.loss", "both",
                     "--scored.weight", "2", "--objective.dim_weights", "1,2,3"],
                    scored((2, 4, 6), 1), 0, "scored"),
    "scored-mipic": ([*SCORED, "--objective.alpha", "0.3", "--sia.sentences", "5"],
                     lambda w: 0.3 * scored((1, 1, 8))(w) + relation(mean=True, task=False)(w), 0,
                     "scored"),
    "teacher-relation": (NEIGHBOURS, taught_neighbours(3)),
    "teacher-relation-layers": ([*NEIGHBOURS, "--teacher.layers", "ladder"],
                                taught_neighbours(1, 2, 3)),
    "teacher-relation-narrow": ([*NEIGHBOURS, "--teacher.layers", "ladder",
                                 "--teacher.relation_dims", "narrow"],
                                taught_neighbours(1, 2, 3, last=(2, 4))),
    "teacher-cosine": ([*TAUGHT, "--teacher.vector", "2"], taught_vectors("cosine")),
    "teacher-l2": ([*TAUGHT, "--teacher.vector", "2", "--teacher.vector_loss", "l2"],
                   taught_vectors("l2")),
    "teacher-scores": ([*TAUGHT, *SCORES], row_scores(None)),
    "row-scores": (["--objective.name", "mrl", *SCORES, "--teacher.scores_temperature", "2"],
                   row_scores(2.0)),
    "row-scores-plain": (["--objective.name", "mrl", *SCORES], row_scores(1.0)),
    "3dml": (["--objective.name", "3dml"], three_d),
    "starbucks": (["--objective.name", "starbucks"], starbucks),
    "starbucks-margin": (["--objective.name", "starbucks", *MARGIN, "0.1"], starbucks),
    "mic": (["--objective.name", "mic", "--mic.layers", "1,2", "--mic.weight", "0.7"], mic_texts),
    "gor": (["--objective.name", "simcse", *GOR], gor(mrl((1,), (D,)))),
    "gor-alone": (["--objective.name", "mrl", *GOR], gor(mrl()), 0, "alone"),
    "gor-several": (["--objective.name", "mrl", *GOR], gor(several()), 0, "several"),
    "simcse": (["--objective.name", "simcse"], mrl((1,), (D,))),
    "mrl": (["--objective.name", "mrl"], mrl()),
    "mrl-weights": (["--objective.name", "mrl", "--objective.dim_weights", "1,2,3"],
                    mrl((1, 2, 3))),
    "wide": ([*RELATION, "--sia.sentences", "0", "--pic.enabled", "true", "--pic.weight", "0",
              "--objective.wide_weight", "8"], lambda w: 0.3 * mrl((1, 1, 8))(w)),
    "relation-mean": (RELATION, relation(mean=True)),
    "relation-sum": ([*RELATION, "--objective.reduction", "sum"], relation(mean=False)),
    "relation-no-memory": ([*RELATION, "--sia.memory", "0"], relation(mean=True)),
    "ese": (["--objective.name", "ese"], ese),
    "2dmse": (["--objective.name", "2dmse"], two_d),
    "2dmse-later": (["--objective.name", "2dmse"], two_d, 1),
}  # fmt: skip
for _paired in (False, True):
    for _nested in (False, True):
        for _last in (False, True):
            for _mean in (False, True):
                _flags = [
                    *CHAIN, "--pic.positive", "pair" if _paired else "self", "--pic.widths",
                    "nested" if _nested else "point", "--pic.target", "last" if _last else "next",
                    "--objective.reduction", "mean" if _mean else "sum", "--pic.head",
                    "residual" if _last else "mlp",
                ]  # fmt: skip
                _naive = chain(paired=_paired, nested=_nested, last=_last, mean=_mean)
                _name = f"chain-{_flags[-9]}-{_flags[-7]}-{_flags[-5]}-{_flags[-3]}"
                CASES[_name] = (_flags, _naive)
                if not _mean and _nested and _last:
                    CASES[f"margin-{_name}"] = ([*_flags, *MARGIN, "0.05"], _naive)
                if not _mean and _last:
                    CASES[f"sampled-{_name}"] = ([*_flags, "--pic.links_per_step", "1"], _naive)


@pytest.fixture(scope="module")
def on_two_ranks(tmp_path_factory):
    answers = tmp_path_factory.mktemp("terms") / "answers.json"
    code, output = run_ranks(2, ROOT / "tests" / "terms.py", [str(answers)])
    assert code == 0, output[-6000:]
    return json.loads(answers.read_text())


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient(name: str, on_two_ranks) -> None:
    for errors in (judge(*CASES[name]), on_two_ranks[name]):
        left_out = 0 if {"scored", "labelled"} & {*CASES[name][3:]} else LEFT_OUT
        assert errors["loss"] < 1e-6 and errors["left_out"] == left_out, errors
        assert errors["gradient"] < 1e-6 and errors["size"] > 1e-3, errors


def test_columns_of_ranks_that_hold_different_numbers() -> None:
    """Each rank holds its anchors, then as many positives, then its negatives."""
    rows, wanted, start = Rows((3, 1, 2), (2, 0, 5), 1), ([], [], []), 0
    for a, n in zip(rows.anchors, rows.negatives, strict=True):
        for column, size in zip(wanted, (a, a, n), strict=True):
            column.extend(range(start, start + size))
            start += size
    assert start == rows.total
    assert [c.tolist() for c in rows.columns(torch.device("cpu"))] == list(wanted)


def test_what_terms_draw_is_a_function_of_seed_and_step_and_uniform() -> None:
    flags = ("--sia.layers_per_step", "2", "--pic.links_per_step", "1")
    one, other = setting(*flags), setting(*flags)
    assert [one.draw(step) for step in range(9)] == [other.draw(step) for step in range(9)]
    assert setting().draw(4)[:3] == ((), (0, 1, 2), (0, 1))
    hits = torch.zeros(3)
    for step in range(2000):
        hits[list(one.draw(step)[1])] += 1
    assert (hits / 2000 - 2 / 3).abs().max() < 0.05
    two_d = setting("--objective.name", "2dmse")  # each shallower layer with each truncated prefix
    pairs = [two_d.draw(step)[0] for step in range(200)]
    assert {pair: pairs.count(pair) > 30 for pair in pairs} == dict.fromkeys(
        [(layer, dim) for layer in (1, 2) for dim in (2, 4)], True
    )


def test_a_prefix_begins_as_itself_among_the_vectors_of_its_own_base() -> None:
    for name, begin in (("base", "prefix"), ("another", "linear")):
        heads = setting("--teacher.name", name, "--teacher.vector", "1").heads()
        assert {head.begin for head in heads["teacher_maps"]} == {begin}


def test_what_no_term_uses_has_a_gradient_of_zero() -> None:
    """A term may skip what it asked for: here the chain's queries, and the last layer's readout."""

    class Inner(Term):
        def needs(self, drawn):
            return Needs(readouts=(1,), gathered=(2,), crossing=1)

        def crossing(self, inside, drawn):
            return (inside.readout[1],)

        def across(self, seen, drawn):
            yield Value("inner", seen.part(seen.mine(2).square().mean(), len(seen.mine())))

    z, rows = readouts(1)
    row, surrogate = found(Objective([Inner()], last=3), z, rows)
    wanted = z[2].square().mean()
    assert row["loss"] == pytest.approx(wanted.item(), rel=1e-12)
    got = torch.autograd.grad(surrogate, list(z.values()), allow_unused=True)
    assert not got[0].any() and not got[2].any()
    torch.testing.assert_close(got[1], torch.autograd.grad(wanted, z[2])[0])


def test_the_relation_remembers_the_texts_of_earlier_steps() -> None:
    """The newest 11 of them, without gradients, and only those of steps that were kept. Each column
    in the order of its texts' keys, or a full memory would forget others on other ranks."""
    for alone in (RELATION, NEIGHBOURS):
        assert setting(*alone, "--sia.memory", "11").memory.size == 11
    objective = setting(*RELATION, *TEACHER, "--sia.memory", "11")
    z, rows = readouts(1)
    before = objective.memory.state()
    objective.terms = [term for term in objective.terms if not term.local]
    found(objective, z, rows)  # as a self-check: not kept
    assert torch.equal(objective.memory.state()[0], before[0])
    found(objective, z, rows)
    objective.memory.keep()
    newest, following, text, taught = objective.memory.state()
    of = keys(rows)
    order = [i for c in rows.columns(newest.device) for i in sorted(c.tolist(), key=of.__getitem__)]
    assert order != sorted(order)
    kept = facts(rows, "pairs")[1][order]
    assert torch.equal(taught.roll(-following, 0)[-rows.total :], kept[-11:])
    wanted = torch.cat([before[0], z[3].detach()[order]])[-11:]
    assert torch.equal(newest.roll(-following, 0), wanted) and KEPT + rows.total > 11
    assert text.roll(-following).tolist() == [*KEPT_TEXT, *(of[i] for i in order)][-11:]
    resumed = setting(*RELATION, *TEACHER, "--sia.memory", "11")
    resumed.terms = [term for term in resumed.terms if not term.local]
    assert found(resumed, z, rows)[0] != found(objective, z, rows)[0]
    resumed.memory.restore(objective.memory.state(), newest.device)
    assert found(resumed, z, rows)[0] == found(objective, z, rows)[0]


@pytest.mark.parametrize("size", [11, 7, 30])
def test_a_restored_memory_goes_on_where_it_was(size: int) -> None:
    """At its own size with every row in its place, at another size with the newest rows."""
    rows, text, memory = torch.arange(60.0).reshape(20, 3), torch.arange(20), Memory(11)
    for start in (0, 5, 10):
        here = slice(start, start + 5)
        assert torch.equal(memory.look(rows[here], text[here], -rows[here])[0], rows[:start])
        memory.keep()
    other = Memory(size)
    other.restore(memory.state(), rows.device)
    for each in (memory, other):
        each.look(rows[15:], text[15:], -rows[15:])
        each.keep()
    (mine, here, *_), (theirs, there, their_text, taught) = memory.state(), other.state()
    assert torch.equal(taught, -theirs)
    if size == 11:
        assert here == there and torch.equal(mine, theirs)
    n = {11: 11, 7: 7, 30: 16}[size]  # 30: the 11 that were left, and 5
    back = 0 if len(theirs) < size else -there
    assert torch.equal(theirs.roll(back, 0), rows[-n:])
    assert torch.equal(their_text.roll(back), text[-n:])


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
