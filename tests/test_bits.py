"""int8 and binary vectors: codes of sentence-transformers, scores of an index, and reports."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sentence_transformers.util import quantize_embeddings
from test_evaluation_tasks import LAYERS, Encoder, retrieval, whole_suite
from tiny_models import few
from torch.nn.functional import normalize

from mipic_llm.commands.evaluate import main
from mipic_llm.errors import UserError
from mipic_llm.evaluation.bits import Quantiser
from mipic_llm.evaluation.judge import _bits
from mipic_llm.evaluation.pca import Pca
from mipic_llm.evaluation.searches import float_queries
from mipic_llm.evaluation.suite import all_points, run_suite
from mipic_llm.evaluation.tasks.base import StsTask
from mipic_llm.evaluation.tasks.retrieval import RetrievalTask
from mipic_llm.report import read_rows, read_scores
from mipic_llm.types import Point

RNG = np.random.default_rng(3)
TEXTS = [f"text {i}" for i in range(50)]


def vectors(n: int, d: int) -> torch.Tensor:
    return torch.from_numpy(RNG.normal(size=(n, d)) + RNG.normal(size=d)).float()


@pytest.mark.parametrize("d", [5, 16, 384])
def test_codes_are_those_of_sentence_transformers(d: int) -> None:
    """The same bytes, for values inside the ranges and outside of them, and a constant channel."""
    fitted, new = vectors(300, d), 1.5 * vectors(200, d)
    fitted[:, 1] = new[:, 1] = 0
    q = Quantiser.fit(fitted)
    unit = normalize(new, dim=1).numpy()
    theirs = quantize_embeddings(unit, "int8", calibration_embeddings=normalize(fitted).numpy())
    assert np.array_equal(q.codes(new, 8), theirs)
    assert len(np.unique(theirs)) > 50 and theirs.min() == -128 and theirs.max() == 127
    assert np.array_equal(q.codes(new, 1), quantize_embeddings(unit, "ubinary"))


def test_what_is_compared_is_what_an_index_compares() -> None:
    a, b = vectors(40, 33), vectors(40, 33)
    q = Quantiser.fit(torch.cat([a, b]))
    low, high = q.range_2d.double().numpy()
    step = (high - low) / 255
    decoded = low + (q.codes(a, 8).astype(float) + 128.5) * step
    assert q.stored(a, 8).numpy() == pytest.approx(decoded, abs=1e-6)
    assert float((q.stored(a, 8) - normalize(a)).abs().max()) <= step.max() / 2 + 1e-6
    bits = np.unpackbits(q.codes(a, 1) ^ q.codes(b, 1), axis=1)[:, :33].sum(1)  # Hamming
    cosine = torch.cosine_similarity(q.stored(a, 1), q.stored(b, 1)).numpy()
    assert cosine == pytest.approx(1 - 2 * bits / 33, abs=1e-6)
    centred = Quantiser.fit(a, centre=True)
    want = normalize(a).numpy() > normalize(a).numpy().mean(0)
    assert np.array_equal(centred.stored(a, 1).numpy() > 0, want)
    assert np.array_equal(q.stored(a, 32), a)


@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("pca", [False, True])
def test_a_search_in_signs_equals_a_naive_one_by_hamming(pca: bool, centre: bool) -> None:
    """Ties are many; of equal distances the document whose id is later comes first. A mean that is
    off the documents is off queries in float32 too."""
    d, code = 12, {}
    texts = [f"t{i}" for i in range(90)]
    for text in texts:
        code[text] = vectors(1, d)[0]
    queries, corpus = texts[:20], texts[20:]
    qrels = {q: {c: 1 for c in RNG.choice(corpus, 3, replace=False)} for q in queries}
    task = RetrievalTask("r", queries={q: q for q in queries}, corpus={c: c for c in corpus},
                         qrels=qrels, metrics=["recall@10", "mrr@10"])  # fmt: skip

    def encode(asked, kind):
        return torch.stack([code[t] for t in asked])[:, None]

    found = run_suite([task], encode, layers=[1], points=all_points([1], [7, 12], [32, 1]),
                      pca_texts=corpus if pca else (), bits_texts=corpus if centre else (),
                      centre=centre, more=float_queries(pca))  # fmt: skip
    family = "pca, float queries" if pca else "float queries"
    every = torch.stack([code[t] for t in texts])
    turned = Pca.fit(torch.stack([code[t] for t in corpus]), d).turn(every) if pca else every
    for dim in (7, 12):
        recall, asymmetric = [], []
        unit = normalize(turned[:, :dim])
        if centre:
            unit -= normalize(turned[20:, :dim]).mean(0)
        code = dict(zip(texts, unit, strict=True))
        for q in queries:
            x = code[q][:dim]
            hamming = {c: -int(((code[c][:dim] > 0) != (x > 0)).sum()) for c in corpus}
            product = {c: float((x.double() * (2.0 * (code[c][:dim] > 0) - 1)).sum())
                       for c in corpus}  # fmt: skip
            for value, out in ((hamming, recall), (product, asymmetric)):
                top = sorted(sorted(corpus, reverse=True), key=lambda c: -value[c])[:10]
                out.append(len(set(top) & set(qrels[q])) / 3)
        point = Point(1, dim, 1)
        have = {(f, s.metric, s.point): s.value for f, many in found.items() for s in many}
        signs = have["pca" if pca else "prefix", "recall@10", point]
        assert signs == pytest.approx(np.mean(recall))
        assert have[family, "recall@10", point] == pytest.approx(np.mean(asymmetric))
    assert {s.point.bits for s in found[family]} == {1}


def test_all_tasks_and_pca_in_bits_equal_scoring_the_stored_vectors() -> None:
    """Every task at (layer, dim, bits) = the task on vectors cut, turned and stored by hand."""
    points = all_points(LAYERS, [4, 12], [32, 8, 1])
    plain = run_suite(whole_suite(), Encoder(), layers=LAYERS, points=all_points(LAYERS, [4, 12]))
    train = [f"bird train {i}" for i in range(60)]
    rows: dict = {}
    found = run_suite(whole_suite(), Encoder(), layers=LAYERS, points=points, pca_texts=train,
                      bits_texts=train, rows=rows)  # fmt: skip
    assert [s for s in found["prefix"] if s.point.bits == 32] == plain["prefix"]
    one = Encoder()(train, "symmetric")
    for column, layer in enumerate(LAYERS):
        pca = Pca.fit(one[:, column], 12)
        for family, turn in (("prefix", lambda z: z), ("pca", pca.turn)):
            for dim in (4, 12):
                q = Quantiser.fit(turn(one[:, column])[:, :dim])
                for bits in (8, 1):

                    def hand(kind, texts, c=column, turn=turn, q=q, d=dim, b=bits):  # fmt: skip
                        return q.stored(turn(Encoder()(list(texts), kind)[:, c])[:, :d], b)

                    for task in whole_suite():
                        want = {f.metric: f.value for f in task.score(hand, [dim])}
                        have = {s.metric: s.value for s in found[family] if s.task == task.name
                                and s.point == Point(layer, dim, bits)}  # fmt: skip
                        assert have == pytest.approx(want, nan_ok=True)
    sts = next(t for t in whole_suite() if isinstance(t, StsTask))
    assert ("prefix", sts.name, "spearman", 2, 4) in rows
    assert ("pca", sts.name, "spearman", 2, 4, 8) in rows


def test_without_text_the_ranges_are_those_of_what_is_scored() -> None:
    task = retrieval()
    points = all_points([2], [6], [8])
    queries, documents = (Encoder()(task.texts()[k], k)[:, 0, :6] for k in ("query", "document"))
    q = Quantiser.fit(torch.cat([queries, documents]))
    have = run_suite([task], Encoder([2]), layers=[2], points=points)["prefix"]

    def hand(kind, texts):
        return q.stored(Encoder()(list(texts), kind)[:, 0, :6], 8)

    assert [s.value for s in have] == pytest.approx([f.value for f in task.score(hand, [6])])


def test_bits_that_are_none_are_refused() -> None:
    assert _bits([1, 8, 8]) == [32, 8, 1]
    with pytest.raises(UserError, match=r"--bits: 4 is none of 32, 8, 1"):
        _bits([4])


def test_the_command_leaves_rows_tables_and_a_picture(tmp_path, capsys) -> None:
    out, texts = tmp_path / "out", few(tmp_path, rows=200)
    main(["--data", "demo", "--dims", "16", "384", "--layers", "6", "--bits", "8", "1",
          "--bits_text", str(texts), "--output_dir", str(out)])  # fmt: skip
    told = capsys.readouterr().out
    scores = {s.point: s for s in read_scores(out / "scores.jsonl")}
    assert set(scores) == {Point(6, d, b) for d in (16, 384) for b in (32, 8, 1)}
    assert abs(scores[6, 384, 8].value - scores[6, 384, 32].value) < 0.01
    assert scores[6, 16, 1].value < scores[6, 384, 1].value < scores[6, 384, 32].value
    lines = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    assert [row.get("bits") for row in lines].count(None) == 2  # float32 rows as ever
    rows, about = read_rows(out)
    assert about["bits"]["fitted_on"] == [str(texts)]
    given = [json.loads(line) for line in texts.read_text().splitlines()]
    assert about["bits"]["texts"] == len({row[k] for row in given for k in ("anchor", "positive")})
    assert ("prefix", "demo", "spearman", 6, 16, 1) in rows
    assert "ranges of int8 on" in told and "bytes a vector" in told and "384 binary" in told
    assert (out / "bytes.png").stat().st_size > 10_000
