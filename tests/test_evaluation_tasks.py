"""Metrics against scipy, scikit-learn and hand counts; tasks that never see a test label."""

from __future__ import annotations

import math

import numpy as np
import pytest
import pytrec_eval
import torch
from scipy.stats import spearmanr
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
)
from sklearn.preprocessing import StandardScaler

from mipic_llm.data.read.labelled import ScoredPair
from mipic_llm.errors import UserError
from mipic_llm.evaluation import metrics
from mipic_llm.evaluation.pca import Pca
from mipic_llm.evaluation.suite import all_points, run_suite
from mipic_llm.evaluation.tasks.base import StsTask
from mipic_llm.evaluation.tasks.classification import ClassificationTask, LabelledTexts, fit_probe
from mipic_llm.evaluation.tasks.pairs import LabelledPairs, PairsTask, best_thresholds
from mipic_llm.evaluation.tasks.retrieval import RetrievalTask
from mipic_llm.types import Point

RNG = np.random.default_rng(0)
LAYERS, WIDTH = [2, 5], 12


def close(value: float):
    return pytest.approx(value, abs=1e-9)


def readout(text: str, kind: str, layer: int) -> torch.Tensor:
    """A vector that any text has: other at every layer and for every kind."""
    seed = sum(ord(c) * 31**i for i, c in enumerate(text)) + 7 * layer + 1000 * len(kind)
    vector = torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed % 2**31))
    return vector + 2.0 * torch.eye(WIDTH)[len(text.split()[0]) % 3]  # something to be learnt


class Encoder:
    """An `encode` that remembers what it was asked."""

    def __init__(self, layers=LAYERS) -> None:
        self.layers, self.calls = layers, []

    def __call__(self, texts: list[str], kind: str) -> torch.Tensor:
        self.calls.append((kind, texts))
        return torch.stack([torch.stack([readout(t, kind, k) for k in self.layers]) for t in texts])


def at(layer: int):
    """`Vectors` of one layer, without a suite."""
    return lambda kind, texts: torch.stack([readout(t, kind, layer) for t in texts])


WORDS = ["a", "bb", "ccc"]  # the class is in the length of the first word


def texts(n: int, start: int = 0) -> tuple[list[str], list[str]]:
    rows = [f"{WORDS[i % 3]} number {i}" for i in range(start, start + n)]
    return rows, [f"class{i % 3}" if i % 7 else f"class{(i + 1) % 3}" for i in range(n)]


def labelled_pairs(n: int, start: int) -> LabelledPairs:
    left = [f"{WORDS[i % 3]} left {i}" for i in range(start, start + n)]
    right = [f"{WORDS[(i * 2) % 3]} right {i}" for i in range(start, start + n)]
    label_N = np.array([int(i % 3 == (i * 2) % 3) if i % 5 else i % 2 for i in range(n)])
    return LabelledPairs(left, right, label_N)


def retrieval() -> RetrievalTask:
    corpus = {f"d{i}": f"{WORDS[i % 3]} document {i}" for i in range(150)}
    queries = {f"q{i}": f"{WORDS[i % 3]} query {i}" for i in range(6)}
    qrels = {f"q{i}": {f"d{7 * i + j}": float(j % 3) for j in range(9)} for i in range(5)}
    qrels["q5"] = {"d1": 0.0}  # judged, but nothing relevant
    qrels["q0"]["gone"] = 2.0  # judged relevant, but not in the corpus
    return RetrievalTask("search", queries=queries, corpus=corpus, qrels=qrels)


def classification(**changes) -> ClassificationTask:
    parts = {
        "train": LabelledTexts(*texts(60)),
        "validation": LabelledTexts(*texts(30, 60)),
        "test": LabelledTexts(*texts(30, 90)),
    }
    return ClassificationTask("topics", **(parts | changes))


# ---- metrics


def test_spearman_with_ties_equals_scipy() -> None:
    for _ in range(20):
        x, y = RNG.integers(0, 9, 50), RNG.normal(size=50)
        assert metrics.spearman(x, y) == close(spearmanr(x, y).statistic)
    assert math.isnan(metrics.spearman([1, 1], [1, 2]))


def test_labels_equal_sklearn() -> None:
    for classes in (2, 5):
        truth, guess = RNG.integers(0, classes, 70), RNG.integers(0, classes + 1, 70)
        assert metrics.accuracy(truth, guess) == close(accuracy_score(truth, guess))
        assert metrics.macro_f1(truth, guess) == close(f1_score(truth, guess, average="macro"))


def test_average_precision_with_ties_equals_sklearn() -> None:
    for _ in range(20):
        truth, score = RNG.integers(0, 2, 60), RNG.integers(-4, 5, 60) / 4
        want = average_precision_score(truth, score)
        assert metrics.average_precision(truth, score) == close(want)
    assert math.isnan(metrics.average_precision([0, 0], [0.1, 0.2]))


@pytest.mark.parametrize("dim", [4, 16])
def test_retrieval_equals_trec_eval_with_many_ties(dim: int) -> None:
    """Vectors of +-1 whose norms are powers of two: cosines, and so their ties, are exact."""
    metric = ("ndcg@1", "ndcg@10", "mrr@3", "mrr@10", "map", "accuracy@1", "accuracy@5",
              "recall@5", "recall@100")  # fmt: skip
    numbers = RNG.permutation(240)
    corpus = {f"d{n}": f"document {n}" for n in numbers}
    queries = {f"q{i}": f"query {i}" for i in range(400)} | {"d7": "document 7"}
    qrels = {q: {f"d{d}": int(RNG.integers(0, 4)) for d in RNG.choice(240, 12, replace=False)}
             for q in queries}  # fmt: skip
    qrels["d7"].pop("d7", None)
    qrels["q3"]["gone"] = 3
    qrels["q4"] = dict.fromkeys(qrels["q4"], 0)
    table = {text: torch.from_numpy(RNG.choice([-1.0, 1.0], 16)).float()
             for text in [*corpus.values(), *queries.values()]}  # fmt: skip
    task = RetrievalTask("t", queries=queries, corpus=corpus, qrels=qrels, metrics=metric)
    figures = task.score(lambda kind, texts: torch.stack([table[t] for t in texts]), [dim])
    run = {
        q: {d: float(table[queries[q]][:dim] @ table[corpus[d]][:dim]) for d in corpus if d != q}
        for q in task.queries
    }
    assert "q4" not in run and "d7" in run and list(run) == list(task.queries)
    theirs = {
        "ndcg@1": "ndcg_cut_1", "ndcg@10": "ndcg_cut_10", "map": "map", "accuracy@1": "success_1",
        "accuracy@5": "success_5", "recall@5": "recall_5", "recall@100": "recall_100",
    }  # fmt: skip
    judge = pytrec_eval.RelevanceEvaluator(qrels, {*theirs.values(), "recip_rank"})
    found = judge.evaluate(run)
    for figure in figures:
        k = int(figure.metric.partition("@")[2] or 0)
        if figure.metric.startswith("mrr"):  # trec_eval's has no cut: what lies beyond it counts 0
            want = [v if (v := found[q]["recip_rank"]) >= 1 / k else 0.0 for q in run]
        else:
            want = [found[q][theirs[figure.metric]] for q in run]
        np.testing.assert_allclose(figure.rows_N, want, atol=1e-6, err_msg=figure.metric)
        assert figure.value == close(np.mean(want)) and 0 < figure.value < 1


# ---- tasks


def test_sts_equals_scipy_at_every_point() -> None:
    pairs = [
        ScoredPair(f"{WORDS[i % 3]} {i}", f"{WORDS[i % 2]} {i + 99}", i % 7) for i in range(40)
    ]
    dims = [3, 12]
    scores = run_suite(
        [StsTask("sts", pairs)], Encoder(), layers=LAYERS, points=all_points(LAYERS, dims)
    )["prefix"]
    assert [s.point[:2] for s in scores] == [(2, 3), (2, 12), (5, 3), (5, 12)]
    for score in scores:
        layer, dim, _ = score.point
        sides = [[getattr(p, side) for p in pairs] for side in ("sentence1", "sentence2")]
        a, b = (at(layer)("symmetric", side)[:, :dim].double().numpy() for side in sides)
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        want = spearmanr(cosine, [p.score for p in pairs]).statistic
        assert score.value == close(want)
        assert score.n == 40


@pytest.mark.parametrize("values", [5, 1000])  # with many ties, with none
def test_thresholds_are_the_best_of_all(values: int) -> None:
    for _ in range(20):
        cosine, label = RNG.integers(0, values, 40) / values, RNG.integers(0, 2, 40)
        best = best_thresholds(cosine, label)
        tried = [-np.inf, *(np.unique(cosine) + 1e-9), np.inf]
        for name, judge in (
            ("accuracy", accuracy_score),
            ("macro_f1", lambda t, g: f1_score(t, g, average="macro")),
        ):
            found = judge(label, (cosine >= getattr(best, name)).astype(int))
            assert found == close(max(judge(label, (cosine > t).astype(int)) for t in tried))


def test_pairs_are_scored_by_the_tuned_threshold() -> None:
    tune, test = labelled_pairs(60, 0), labelled_pairs(40, 60)
    task = PairsTask("pairs", tune=tune, test=test)
    figures = {(f.metric, f.dim): f for f in task.score(at(2), [4, 12])}
    for dim in (4, 12):
        cosines = []
        for rows in (tune, test):
            a, b = (torch.stack([readout(t, "symmetric", 2)[:dim] for t in side]).double()
                    for side in (rows.left, rows.right))  # fmt: skip
            cosines.append(torch.cosine_similarity(a, b).numpy())
        best = best_thresholds(cosines[0], tune.label_N)
        guess = (cosines[1] >= best.macro_f1).astype(int)
        want = f1_score(test.label_N, guess, average="macro")
        assert figures["macro_f1", dim].value == close(want)
        guess = (cosines[1] >= best.accuracy).astype(int)
        assert figures["accuracy", dim].value == close(accuracy_score(test.label_N, guess))
        want = average_precision_score(test.label_N, cosines[1])
        assert figures["average_precision", dim].value == close(want)
    bare = PairsTask("pairs", tune=None, test=test)
    assert {f.metric for f in bare.score(at(2), [4])} == {"average_precision"}


def test_classification_equals_sklearn_on_standardised_unit_vectors() -> None:
    task = classification(c=(0.3,))
    figures = {(f.metric, f.dim): f.value for f in task.score(at(5), [4, 12])}
    for dim in (4, 12):
        x, y = (np.stack([readout(t, "symmetric", 5)[:dim].double().numpy() for t in rows.texts])
                for rows in (task.train, task.test))  # fmt: skip
        x, y = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y))
        scaler = StandardScaler().fit(x)
        model = LogisticRegression(C=0.3, tol=1e-10, max_iter=10_000)
        model.fit(scaler.transform(x), task.train.labels)
        guess = model.predict(scaler.transform(y))
        assert figures["accuracy", dim] == close(accuracy_score(task.test.labels, guess))
        assert figures["macro_f1", dim] == close(f1_score(task.test.labels, guess, average="macro"))
    assert figures["accuracy", 12] > 0.6  # better than chance, so something was learnt


def test_the_probe_is_converged() -> None:
    """The gradient of the whole objective, written out here, is zero at the fitted weights."""
    task = classification()
    x = np.stack([readout(t, "symmetric", 2).double().numpy() for t in task.train.texts])
    probe = fit_probe(x, np.array(task.train.labels), 0.5)
    z = (x - probe.mean_d) / probe.scale_d
    assert z.mean(0) == pytest.approx(0, abs=1e-12)
    assert z.std(0) == pytest.approx(1, abs=1e-12)
    logits = z @ probe.model.coef_.T + probe.model.intercept_
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    truth = np.array(task.train.labels)[:, None] == probe.model.classes_[None]
    gradient = 0.5 * (p - truth).T @ z + probe.model.coef_
    assert np.abs(gradient).max() / len(z) < 1e-4
    assert np.abs(probe.model.coef_).max() > 0.1
    dead = np.concatenate([x, np.full((len(x), 1), 0.25)], axis=1)  # a channel that tells nothing
    more = fit_probe(dead, np.array(task.train.labels), 0.5)
    assert np.abs(more.model.coef_[:, :-1] - probe.model.coef_).max() < 1e-4
    assert (more.guess(dead) == probe.guess(x)).all()


@pytest.mark.parametrize("validated", [True, False])
def test_c_is_chosen_without_the_test_rows(validated: bool) -> None:
    changes = {} if validated else {"validation": None}
    task = classification(c=(1e-4, 1.0), **changes)
    assert task.fit(at(2), 12).c == 1.0  # 1e-4 is far too strong for these
    assert ("ccc number 62" in task.texts()["symmetric"]) == validated


def test_no_threshold_or_probe_sees_a_test_label() -> None:
    """Shuffle, then poison the test labels: what is fitted does not change by a bit."""
    vectors = at(2)
    tune, test = labelled_pairs(60, 0), labelled_pairs(40, 60)
    shuffled = test._replace(label_N=RNG.permutation(1 - test.label_N))
    one, two = (PairsTask("p", tune=tune, test=t) for t in (test, shuffled))
    assert one.fit(vectors, [3, 12]) == two.fit(vectors, [3, 12])
    assert one.score(vectors, [3]) != two.score(vectors, [3])  # the labels do count for the score
    flipped = PairsTask("p", tune=tune._replace(label_N=1 - tune.label_N), test=test)
    assert flipped.fit(vectors, [12]) != one.fit(vectors, [12])

    class Poison:
        def __getattribute__(self, name):
            raise AssertionError(f"the fit touched the test labels ({name})")

    for c, changes in (((1.0,), {}), ((0.1, 1.0), {}), ((0.1, 1.0), {"validation": None})):
        own = classification(c=c, **changes)
        rows = own.test.texts
        other = classification(
            c=c, **changes, test=LabelledTexts(rows, list(RNG.permutation(own.test.labels)))
        )
        poisoned = classification(c=c, **changes, test=LabelledTexts(rows, Poison()))
        fits = [task.fit(vectors, 6) for task in (own, other, poisoned)]
        for fit in fits[1:]:
            assert np.array_equal(fit.model.coef_, fits[0].model.coef_)
            assert fit.c == fits[0].c
        assert own.score(vectors, [6]) != other.score(vectors, [6])
    PairsTask("p", tune=tune, test=test._replace(label_N=Poison())).fit(vectors, [3])


def test_retrieval_equals_a_hand_count() -> None:
    task = retrieval()
    figures = {(f.metric, f.dim): f for f in task.score(at(5), [4, 12])}
    for dim in (4, 12):
        gains, recalls = [], []
        for q, text in task.queries.items():
            query = readout(text, "query", 5)[:dim].double()
            cosine = {
                d: float(torch.cosine_similarity(query, readout(t, "document", 5)[:dim], dim=0))
                for d, t in task.corpus.items()
            }
            ranked = sorted(cosine, key=cosine.__getitem__, reverse=True)
            relevant = task.relevant[q]
            dcg = sum(relevant.get(d, 0) / math.log2(i + 2) for i, d in enumerate(ranked[:10]))
            best = sorted(relevant.values(), reverse=True)[:10]
            gains.append(dcg / sum(g / math.log2(i + 2) for i, g in enumerate(best)))
            recalls.append(len(set(ranked[:100]) & set(relevant)) / len(relevant))
        assert figures["ndcg@10", dim].value == close(np.mean(gains))
        assert figures["recall@100", dim].value == close(np.mean(recalls))
        assert figures["ndcg@10", dim].n == 5  # q5 has no answer
    assert 0 < figures["recall@100", 12].value < 1


def test_retrieval_ties_and_the_query_among_the_documents() -> None:
    """Of equal documents the later id comes first; the query itself is no answer to it."""
    corpus = {f"d{i:03}": "a same text" for i in range(300)} | {"q": "Title a question"}
    task = RetrievalTask("t", queries={"q": "a question"}, corpus=corpus,
                         qrels={"q": {"d299": 1.0, "d200": 1.0, "d199": 1.0}})  # fmt: skip
    figures = task.score(lambda kind, t: at(2)("document", t), [12])
    value = {figure.metric: figure.value for figure in figures}
    assert value["recall@100"] == close(2 / 3)  # d299 and d200 are among the first hundred
    assert value["ndcg@10"] == close(1 / (1 + 1 / math.log2(3) + 1 / 2))
    assert value["mrr@10"] == 1 and value["map"] == close((1 + 2 / 100 + 3 / 101) / 3)
    with pytest.raises(ValueError, match="no query has a relevant document"):
        RetrievalTask("t", queries={"q": "a"}, corpus={"d": "b"}, qrels={"q": {"d": 0.0}})


def test_queries_and_documents_numbered_on_their_own() -> None:
    """The same id says nothing where the texts differ, or where it is judged to be an answer."""
    corpus = {"1": "first answer", "2": "second answer", "3": "a third question"}
    queries = {"1": "first answer", "2": "what is second?", "3": "a third question"}
    qrels = {"1": {"1": 1.0}, "2": {"2": 1.0}, "3": {"1": 1.0}}
    task = RetrievalTask("t", queries=queries, corpus=corpus, qrels=qrels)
    assert len(task.queries) == 3 and task.itself == {"3"}
    same = {text: torch.eye(9)[i] for i, text in enumerate({*corpus.values(), *queries.values()})}
    ndcg = task.score(lambda kind, texts: torch.stack([same[t] for t in texts]), [9])[0]
    assert ndcg.rows_N[0] == 1.0
    with pytest.raises(ValueError, match="no relevant document is in the corpus"):
        RetrievalTask("t", queries=queries, corpus=corpus, qrels={"1": {"d1": 1.0}})


# ---- the suite


def whole_suite() -> list:
    pairs = [ScoredPair(f"a number {i}", f"bb number {i + 1}", i % 5) for i in range(30)]
    labelled = PairsTask("pairs", tune=labelled_pairs(30, 0), test=labelled_pairs(30, 30))
    return [StsTask("sts", pairs), labelled, classification(), retrieval()]


def test_every_text_is_encoded_once_over_the_whole_suite() -> None:
    encoder = Encoder()
    found = run_suite(whole_suite(), encoder, layers=LAYERS, points=all_points(LAYERS, [4, 12]))
    assert sorted(kind for kind, _ in encoder.calls) == ["document", "query", "symmetric"]
    for _, asked in encoder.calls:
        assert len(asked) == len(set(asked))
    keys = [(s.task, s.metric, s.point) for s in found["prefix"]]
    assert len(keys) == len(set(keys)) == 4 * (1 + 3 + 2 + 7)


def test_jobs_can_be_done_in_any_order_elsewhere() -> None:
    def backwards(jobs):
        return [job() for job in reversed(jobs)][::-1]

    args = {"layers": LAYERS, "points": all_points(LAYERS, [4, 12])}
    one = run_suite(whole_suite(), Encoder(), **args)
    assert run_suite(whole_suite(), Encoder(), spread=backwards, **args) == one


def test_pca_rows_are_those_of_sklearn() -> None:
    """The family pca at dim d = the same task on sklearn's d components of unit vectors."""
    train = [f"{WORDS[i % 3]} train {i}" for i in range(80)]
    tasks = whole_suite()
    found = run_suite(tasks, Encoder(), layers=LAYERS, points=all_points(LAYERS, [2, 5]),
                      pca_texts=train)  # fmt: skip
    assert found["prefix"] != found["pca"]
    for layer in LAYERS:
        unit = torch.nn.functional.normalize(at(layer)("symmetric", train).double(), dim=1).numpy()
        for dim in (2, 5):
            sk = PCA(dim, svd_solver="full").fit(unit)

            def turned(kind, rows, layer=layer, sk=sk):
                x = torch.nn.functional.normalize(at(layer)(kind, rows).double(), dim=1)
                return torch.from_numpy(sk.transform(x.numpy())).float()

            for task in (tasks[0], tasks[1], tasks[3]):  # cosines do not mind the axes' signs
                want = {(f.metric): f.value for f in task.score(turned, [dim])}
                have = {s.metric: s.value for s in found["pca"]
                        if s.task == task.name and s.point == Point(layer, dim)}  # fmt: skip
                assert have == {k: pytest.approx(v, abs=1e-9) for k, v in want.items()}
    few = run_suite(tasks, Encoder(), layers=LAYERS, points=all_points(LAYERS, [2, 5]),
                    pca_texts=train, pca_widest=2)  # fmt: skip
    assert few["prefix"] == found["prefix"]
    assert few["pca"] == [s for s in found["pca"] if s.point.dim == 2]


def test_pca_needs_more_texts_than_components() -> None:
    with pytest.raises(UserError, match="8 distinct texts cannot give 8"):
        Pca.fit(torch.randn(8, 12), 8)


def test_points_outside_are_refused() -> None:
    tasks = [whole_suite()[0]]
    with pytest.raises(ValueError, match="layer is not among"):
        run_suite(tasks, Encoder(), layers=LAYERS, points=all_points([3], [4]))
    with pytest.raises(ValueError, match="beyond the width"):
        run_suite(tasks, Encoder(), layers=LAYERS, points=all_points([2], [13]))
    with pytest.raises(ValueError, match="encode gave"):
        run_suite(tasks, Encoder([2]), layers=LAYERS, points=all_points([2], [4]))
