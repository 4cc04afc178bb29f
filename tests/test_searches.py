"""Queries and documents of different layers or models, against a naive search."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_evaluation_tasks import LAYERS, Encoder, retrieval, whole_suite

from mipic_llm.commands.evaluate import main
from mipic_llm.errors import UserError
from mipic_llm.evaluation import searches
from mipic_llm.evaluation.suite import all_points, run_suite
from mipic_llm.report import index
from mipic_llm.report.evaluations import read_rows
from mipic_llm.report.paired import gap_of
from mipic_llm.types import Point


def older(texts, kind):
    """(N, 1, 12) readouts of another model: channels in another order, and other values."""
    return Encoder([2])(texts, kind).flip(2) + 0.1


def naive(task, query, document, dim: int) -> float:
    """Recall@10 by sorting everything."""
    corpus, found = list(task.corpus), []
    d_Nd = document(list(task.corpus.values()))[:, :dim].double().numpy()
    d_Nd /= np.linalg.norm(d_Nd, axis=1, keepdims=True)
    for q, text in task.queries.items():
        score_N = d_Nd @ query([text])[0, :dim].double().numpy()
        score = {c: s for c, s in zip(corpus, score_N, strict=True)
                 if not (c == q and q in task.itself)}  # fmt: skip
        top = sorted(sorted(score, reverse=True), key=lambda c: -score[c])[:10]
        found.append(len(set(top) & set(task.relevant[q])) / len(task.relevant[q]))
    return float(np.mean(found))


def readouts(kind: str, layer: int):
    return lambda texts: Encoder([layer])(texts, kind)[:, 0]


def test_every_pair_of_layers_and_models_equals_a_naive_search() -> None:
    task, dims = retrieval(), [4, 12]
    more = [*searches.asymmetric(LAYERS), *searches.same_index(LAYERS[-1], 2)]
    rows: dict = {}
    found = run_suite(whole_suite(), Encoder(), layers=LAYERS, points=all_points(LAYERS, dims),
                      more=more, models={searches.OLD: (older, [2])}, rows=rows)  # fmt: skip
    have = {(f, s.metric, s.point): s.value for f, many in found.items() for s in many
            if s.task == task.name}  # fmt: skip
    assert {s.task for f, many in found.items() if f != "prefix" for s in many} == {task.name}
    old = {k: (lambda texts, k=k: older(texts, k)[:, 0]) for k in ("query", "document")}
    a, b = LAYERS
    for dim in dims:
        for q, d in ((a, b), (b, a)):
            want = naive(task, readouts("query", q), readouts("document", d), dim)
            assert have[f"queries at {q}", "recall@10", Point(d, dim)] == pytest.approx(want)
        for family, query in ((index.OLD_ON_OLD, old["query"]),
                              (index.NEW_ON_OLD, readouts("query", b))):  # fmt: skip
            want = naive(task, query, old["document"], dim)
            assert have[family, "recall@10", Point(b, dim)] == pytest.approx(want)
        span = gap_of(rows, task.name, "recall@10", (index.OLD_ON_OLD, Point(b, dim)),
                      (index.NEW_ON_OLD, Point(b, dim)))  # fmt: skip
        gap = (have[index.NEW_ON_OLD, "recall@10", Point(b, dim)]
               - have[index.OLD_ON_OLD, "recall@10", Point(b, dim)])  # fmt: skip
        assert span.gap == pytest.approx(gap) and span.low <= gap <= span.high
    cells = searches.by_query_layer(found)[task.name, task.metrics[0], 4]
    assert set(cells) == {(q, d) for q in LAYERS for d in LAYERS}
    assert cells[a, a] == have["prefix", task.metrics[0], Point(a, 4)]
    assert "old queries on old documents" in index.index_table(found, rows)


def test_the_same_model_as_its_older_one_gains_nothing(tmp_path, capsys) -> None:
    task = retrieval()
    (tmp_path / "qrels").mkdir()
    for name, texts in (("queries", task.queries), ("corpus", task.corpus)):
        lines = [f'{{"_id": "{k}", "text": "{v}"}}' for k, v in texts.items()]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    judged = [f"{q}\t{d}\t1" for q, ds in task.relevant.items() for d in ds if d in task.corpus]
    (tmp_path / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]))
    out = tmp_path / "out"
    main(["--data", str(tmp_path), "--dims", "16", "--layers", "3", "6", "--old", "quickstart",
          "--asymmetric", "true", "--output_dir", str(out)])  # fmt: skip
    told = capsys.readouterr().out
    assert "+0.00 [+0.00, +0.00]" in told and "documents at 3   documents at 6" in told
    assert "documents at 6   ms a query" in told
    times = read_rows(out)[1]["query_ms"]
    assert set(times) == {"3", "6"} and 0 < times["3"] < times["6"]
    assert (out / "asymmetric.png").is_file()


def test_what_cannot_be_searched_is_refused() -> None:
    with pytest.raises(UserError, match="--old: no task has queries and documents"):
        searches.need_searches("--old", [whole_suite()[0]])
    with pytest.raises(UserError, match="two --layers or more"):
        searches.asymmetric([6])
    assert torch.equal(older(["a"], "query")[:, 0], readouts("query", 2)(["a"]).flip(1) + 0.1)
