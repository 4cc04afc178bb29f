"""Mining against a naive reference in numpy, on one rank and two, and by the command line."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch
import yaml
from api_worker import settings as training
from pyarrow import parquet
from ranks import ROOT, run_ranks
from tiny_models import SENTENCES, TEXTS, tiny_bert, tiny_qwen3
from transformers import BertConfig, BertForSequenceClassification

import mipic_llm
from mipic_llm import UserError
from mipic_llm.commands.run import dispatch
from mipic_llm.data.read.rows import Example
from mipic_llm.data.read.training import read_training
from mipic_llm.mining import nearest as nearest_texts
from mipic_llm.mining import texts as mining_texts
from mipic_llm.mining.nearest import nearest
from mipic_llm.mining.run import sample, search
from mipic_llm.mining.settings import MineSettings
from mipic_llm.mining.texts import Table, Vectors

CPU = torch.device("cpu")


def unit(rng, n: int, d: int = 6) -> np.ndarray:
    x = rng.standard_normal((n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


# ------------------------------------------------------------------------------ the nearest texts


def naive_nearest(query_BD, document_ND, k: int, hidden):
    index, score = [], []
    for q, own in zip(query_BD.astype(np.float64), hidden, strict=True):
        s = (q * document_ND).sum(-1)
        s[list(own)] = -np.inf
        order = sorted(range(len(s)), key=lambda i: (-s[i], i))[:k]
        score.append(s[order])
        index.append([i if np.isfinite(s[i]) else -1 for i in order])
    return np.array(index), np.array(score)


@pytest.mark.parametrize("tile", [1, 7, 1000])
@pytest.mark.parametrize("k, slack", [(1, 0), (5, 1), (40, 32), (90, 3)])
def test_nearest_is_exact_whatever_the_tiles(tile, k, slack, monkeypatch):
    if tile == 7:  # few pairs and few queries that are asked again at a time, too
        monkeypatch.setattr(nearest_texts, "_PAIRS", 50)
        monkeypatch.setattr(nearest_texts, "_CELLS", 64)
    rng = np.random.default_rng(k)
    documents = unit(rng, 90)
    documents[30:75] = documents[3]  # more equal texts than are kept beside the first k
    queries = np.concatenate([unit(rng, 11), documents[3:4]])
    hidden = [rng.choice(90, i % 4, replace=False).tolist() for i in range(11)] + [range(2, 90)]
    wanted = naive_nearest(queries, documents, k, hidden)
    found = nearest(torch.from_numpy(queries), torch.from_numpy(documents), k, hidden,
                    slack=slack, tile=tile)  # fmt: skip
    np.testing.assert_array_equal(found[0], wanted[0])
    np.testing.assert_array_equal(found[1], wanted[1])
    assert (found[0][-1] == -1).sum() == max(0, k - 2)


def test_equal_texts_come_in_their_order():
    documents = torch.from_numpy(np.repeat(unit(np.random.default_rng(0), 1), 500, axis=0))
    index, _ = nearest(documents[:3], documents, 5, [[], [0], [1, 3]], slack=2, tile=64)
    assert index.tolist() == [[0, 1, 2, 3, 4], [1, 2, 3, 4, 5], [0, 2, 4, 5, 6]]


# --------------------------------------------------------------------------- limits and sampling


def random_table(bare: bool = False) -> tuple[Table, Vectors]:
    """40 queries, 70 rows, 60 documents of which 50 may be negatives; some are a query's text."""
    rng = np.random.default_rng(7)
    query_R = np.concatenate([np.arange(40), rng.integers(0, 40, 30)])
    positive_R = np.full(70, -1) if bare else rng.integers(0, 60, 70)
    own_Q = np.where(np.arange(40) % 3 == 0, np.arange(40), -1)
    known = [set(positive_R[query_R == q].tolist()) - {-1} for q in range(40)]
    documents = unit(rng, 60)
    documents[20] = documents[21]
    queries = 0.5 * unit(rng, 40) + 0.5 * documents[:40]
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    rows = [Example(str(q), None, (), i) for i, q in enumerate(query_R)]
    table = Table(rows, [str(q) for q in range(40)], [f"d{i}" for i in range(60)], 50, query_R,
                  positive_R, own_Q, known, False)  # fmt: skip
    return table, Vectors(torch.from_numpy(queries.astype(np.float32)), torch.from_numpy(documents))


def pool_of(table, vectors, row: int, o: MineSettings, second=None):
    """-> (positive, its score, candidates within all limits, best first), or None."""
    q = table.query_R[row]
    q_D, d_ND = vectors.query_QD[q].double().numpy(), vectors.document_ND.double().numpy()
    first = [float((q_D * d).sum()) for d in d_ND]
    score = first if second is None else [float(second(np.array([q]), np.array([d]))[0])
                                          for d in range(len(d_ND))]  # fmt: skip
    legal = [d for d in range(table.n_candidates) if d not in table.known[q]
             and d != table.own_Q[q]]  # fmt: skip
    low, high = (int(x) for x in o.range.split(":"))
    ranked = sorted(legal, key=lambda d: (-first[d], d))[:high]
    positive, most = table.positive_R[row], np.inf
    if positive < 0:
        a, b = (float(x) for x in o.positives.split(":"))
        within = [d for d in ranked if a <= score[d] <= b]
        if not within:
            return None
        positive = min(within, key=lambda d: (-score[d], d))
        most = score[positive]
    right = score[positive]
    if o.absolute is not None:
        most = min(most, o.absolute)
    if o.relative is not None:
        most = min(most, right - (1 - o.relative) * abs(right))
    if o.margin is not None:
        most = min(most, right - o.margin)
    pool = [d for d in ranked[low:] if score[d] <= most and d != positive]
    return int(positive), right, sorted(pool, key=lambda d: (-score[d], d)), score


CASES = [
    dict(relative=None), dict(), dict(relative=0.8, range="3:20"), dict(absolute=0.3),
    dict(relative=None, margin=0.1, range="0:40"), dict(absolute=0.2, relative=0.9, margin=0.05),
    dict(relative=None, range="49:60"), dict(negatives=50, relative=None, range="0:1000"),
    dict(positives="0.3:0.8"), dict(positives="0.55:0.6", relative=None, range="2:30"),
]  # fmt: skip


@pytest.mark.parametrize("rescored", [False, True], ids=["one model", "rescored"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_rows_are_those_of_a_naive_search(case, rescored):
    table, vectors = random_table(bare="positives" in case)
    o, rng = MineSettings(**case), np.random.default_rng(3)
    grid = rng.uniform(-1, 1, (40, 60)).round(1)  # with ties
    second = (lambda q, d: grid[q, d]) if rescored else None
    found, out = search(table, vectors, second, o, 1, CPU)
    found = {m.row: m for m in found}
    n_pool = 0
    for row in range(70):
        wanted = pool_of(table, vectors, row, o, second)
        assert (wanted is None) == (row not in found)
        if wanted is None:
            continue
        positive, right, pool, score = wanted
        m = found[row]
        assert m.pair == (positive, right)
        assert m.negatives == pool[: o.negatives], row
        assert m.scores == [score[d] for d in m.negatives]
        n_pool += len(pool)
    assert n_pool > 5 or case == dict(relative=None, range="49:60")
    # Every candidate of a row is in its pool, is its positive, or was counted.
    low, high = o.ranks
    known = [sum(0 <= d < 50 for d in table.known[q] | {table.own_Q[q]}) for q in range(40)]
    seen = sum(min(high, 50 - known[table.query_R[m]]) for m in found)
    hidden = ("the query's own text", "a known positive of the query")
    if "positives" not in case:
        assert sum(n for reason, n in out.items() if reason not in hidden) + n_pool == seen
    if high >= 50:
        assert sum(out[reason] for reason in hidden) == sum(known)


@pytest.mark.parametrize("sampling", ["random", "strata"])
def test_sampling_draws_from_the_same_pool_by_seed(sampling):
    table, vectors = random_table()
    o = MineSettings(sampling=sampling, relative=None, negatives=5)
    first, again, other = (search(table, vectors, None, o, seed, CPU)[0] for seed in (1, 1, 2))
    assert first == again and first != other
    places = set()
    for m in first:
        _, _, pool, score = pool_of(table, vectors, m.row, o)
        places.add(tuple(pool.index(d) for d in m.negatives))
        assert set(m.negatives) <= set(pool) and len(set(m.negatives)) == 5
        assert m.scores == [score[d] for d in m.negatives]
    assert len(places) > 20  # each row draws for itself


def test_one_of_each_stratum():
    score = np.array([0.9, 0.89, 0.88, 0.55, 0.5, 0.25, 0.1, 0.0])
    drawn = [sample(score, 3, "strata", (s, 0)) for s in range(200)]
    assert all(a < 3 and 3 <= b < 5 and 5 <= c for a, b, c in drawn)
    counts = Counter(place for places in drawn for place in places)
    assert set(counts) == set(range(8)) and min(counts.values()) > 30
    gap = np.array([1.0, 0.99, 0.98, 0.0])  # the middle part is empty: another one instead
    for s in range(20):
        a, b, c = sample(gap, 3, "strata", (s, 0))
        assert a < 3 and b == 3 and c < 3 and c != a
    assert sorted(sample(np.full(4, 0.5), 3, "strata", (0, 0))) != []
    assert sample(score, 9, "random", (0, 0)) == list(range(8))


# --------------------------------------------------------------------------------- the whole way


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("base") / "bert"
    return str(tiny_bert(folder, sentence_transformers=True))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A query twice with two positives, its own text among the candidates, texts that differ in
    case alone (one vector), and a negative."""
    made = [{"anchor": a, "positive": b, "negative": c}
            for a, b, c in zip(SENTENCES, SENTENCES[1:], TEXTS * 4, strict=False)]  # fmt: skip
    made += [{"anchor": SENTENCES[0], "positive": SENTENCES[5], "negative": SENTENCES[2].upper()},
             {"anchor": f" {SENTENCES[0]} ", "positive": "Another  text",
              "negative": "another Text"}]  # fmt: skip
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    source = {"path": str(path), "query_prompt": "find: "}
    path.with_suffix(".jsonl.yaml").write_text(json.dumps({"data": {"sources": [source]}}))
    path.with_suffix(".jsonl.txt").write_text("A text.\nAnother.\n")
    return path


@pytest.fixture(scope="module")
def mined(base, rows, tmp_path_factory):
    """By command line, on one rank and on two (ZeRO-3)."""
    root = tmp_path_factory.mktemp("mined")
    for world, more in ((1, []), (2, ["--ds_config", "zero3"])):
        flags = ["--model", base, "--data.train", str(rows),
                 "--mine.output", f"{root}/{world}.jsonl",
                 "--mine.sampling", "random", "--mine.relative", "none", "--mine.negatives", "3",
                 "--eval.batch_size", "4"]  # fmt: skip
        code, output = run_ranks(world, ROOT / "launch" / "mine.py", [*flags, *more])
        assert code == 0, output[-4000:]
        (root / f"{world}.txt").write_text(output)
    return root


def test_two_ranks_write_the_same_bytes(mined):
    one, two = ((mined / f"{world}.jsonl").read_bytes() for world in (1, 2))
    assert one == two and one.count(b"\n") == len(SENTENCES) + 1
    assert not list(mined.glob("*.tmp"))


def test_what_stands_in_the_rows(mined, base, rows):
    model = mipic_llm.load(base)
    for line in (mined / "1.jsonl").read_text().splitlines():
        row = json.loads(line)
        same = " ".join(row["anchor"].split())
        assert len(row["negatives"]) == len(row["neg_scores"]) == 3
        assert not {same, row["positive"]} & set(row["negatives"])
        if same == SENTENCES[0]:
            assert not {SENTENCES[1], SENTENCES[5], "Another  text"} & set(row["negatives"])
        query = model.encode(row["anchor"], kind="query")
        for text, score in zip([row["positive"], *row["negatives"]],
                               [row["pos_scores"], *row["neg_scores"]], strict=True):  # fmt: skip
            assert score == pytest.approx(
                float(query @ model.encode(text, kind="document")), abs=2e-6
            )


def test_the_report_and_the_record(mined, base):
    report = (mined / "1.md").read_text()
    assert report.strip() in (mined / "1.txt").read_text()
    assert "25 rows written; 25 got 3 negatives" in report and "ZeRO-0, 1 rank" in report
    assert "| a known positive of the query | 25 |" in report
    assert "| the query's own text | 22 |" in report and report.count("  - positive") == 10
    record = yaml.safe_load((mined / "1.yaml").read_text())
    assert record["mine"]["sampling"] == "random" and record["mine"]["relative"] is None
    assert record["models"][0]["name"] == base and len(record["models"][0]["content"]) == 32
    assert "ETA" in (mined / "1.txt").read_text()


def test_training_takes_the_rows(mined, base, tmp_path):
    sources, (report,) = read_training([str(mined / "1.jsonl")], negatives=3)
    assert report.n_kept == 25 and report.n_false == 0 and not report.ignored
    first = json.loads((mined / "1.jsonl").read_text().splitlines()[0])
    assert sources[0].examples[0].negatives == tuple(first["negatives"])
    assert sources[0].examples[0].scores == (first["pos_scores"], *first["neg_scores"])
    own = training(base) | {"data.negatives": 3, "validation": []}
    run = mipic_llm.train(mined / "1.jsonl", output_dir=tmp_path / "run", **own)
    losses = [json.loads(x)["loss"] for x in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 3 and all(np.isfinite(losses))


def test_python_and_parquet(mined, base, rows, tmp_path):
    data = [json.loads(line) for line in rows.read_text().splitlines()]
    own = {"sampling": "random", "relative": None, "negatives": 3, "eval": {"batch_size": 4}}
    path = mipic_llm.mine(data, model=base, output=tmp_path / "a" / "rows.parquet", **own)
    wanted = [json.loads(line) for line in (mined / "1.jsonl").read_text().splitlines()]
    assert parquet.read_table(path).to_pylist() == wanted
    assert yaml.safe_load((path.parent / "rows.yaml").read_text())["options"]["data.train"] == [
        "rows in memory"
    ]
    with pytest.raises(UserError, match="exists; name another file"):
        mipic_llm.mine(data, model=base, output=path, **own)
    mipic_llm.mine(rows, model=base, output=path, overwrite=True, negatives=24, short="drop",
                   relative=None)  # fmt: skip
    assert {len(row["negatives"]) for row in parquet.read_table(path).to_pylist()} == {24}
    with pytest.raises(UserError, match="mine.negatives is 0; it must be 1 or more"):
        mipic_llm.mine(data, model=base, output=path, negatives=0)


def test_a_corpus_and_prompts(tmp_path, rows, monkeypatch):
    """A BEIR folder's corpus with titles; queries and documents each with the model's prompt, and
    encoded a few at a time."""
    monkeypatch.setattr(mining_texts, "_BATCHES", 1)
    (tmp_path / "queries.jsonl").write_text('{"_id": "1", "text": "not this"}\n')
    (tmp_path / "corpus.jsonl").write_text("".join(
        json.dumps({"_id": str(i), "title": "T" * (i % 2), "text": text}) + "\n"
        for i, text in enumerate(SENTENCES[:9])
    ))  # fmt: skip
    base = str(tiny_qwen3(tmp_path / "qwen3", sentence_transformers=True))
    path = mipic_llm.mine(
        [{"anchor": "a dog", "positive": "Two dogs."}], model=base, negatives=9, relative=None,
        output=tmp_path / "mined.jsonl", corpus=[str(tmp_path)], eval={"batch_size": 4},
    )  # fmt: skip
    (row,) = map(json.loads, path.read_text().splitlines())
    texts = [f"T {text}" if i % 2 else text for i, text in enumerate(SENTENCES[:9])]
    assert sorted(row["negatives"]) == sorted(texts)
    model = mipic_llm.load(base)
    query = model.encode("a dog", kind="query")
    wanted = sorted((model.encode(texts, kind="document") @ query).tolist(), reverse=True)
    assert row["neg_scores"] == pytest.approx(wanted, abs=2e-6)
    bare = model.encode(texts) @ model.encode("a dog")
    assert abs(max(bare) - wanted[0]) > 1e-4  # the prompt matters


def test_unlabelled_text_becomes_pairs(base, tmp_path):
    texts = [*SENTENCES, SENTENCES[3]]
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n")
    path = mipic_llm.mine(tmp_path / "texts.txt", model=base, output=tmp_path / "pairs.jsonl",
                          positives="-1:0.95", negatives=2)  # fmt: skip
    found = list(map(json.loads, path.read_text().splitlines()))
    v = mipic_llm.load(base).encode(SENTENCES).astype(np.float64)
    cosine, pairs = v @ v.T, []
    for i in range(len(SENTENCES)):
        near = [j for j in np.argsort(-cosine[i]) if j != i and cosine[i, j] <= 0.95]
        if near and (near[0], i) not in pairs:
            pairs.append((i, near[0]))
    assert [(r["anchor"], r["positive"]) for r in found] == [
        (SENTENCES[i], SENTENCES[j]) for i, j in pairs
    ]
    assert len(pairs) < len(SENTENCES)
    for row in found:
        assert all(s <= 0.95 * row["pos_scores"] + 1e-6 for s in row["neg_scores"])


def test_a_cross_encoder_decides(base, rows, tmp_path):
    from sentence_transformers import CrossEncoder
    from transformers import AutoTokenizer

    tokenizer, folder = AutoTokenizer.from_pretrained(base), tmp_path / "cross"
    torch.manual_seed(0)
    shape = BertConfig.from_pretrained(base, num_labels=1, initializer_range=0.5)
    BertForSequenceClassification(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    own = {"relative": None, "negatives": 3, "model": base}
    path = mipic_llm.mine(rows, output=tmp_path / "a.jsonl", rescore=str(folder), **own)
    cross = CrossEncoder(str(folder), device="cpu")
    for line in path.read_text().splitlines()[::5]:
        row = json.loads(line)
        texts = [row["positive"], *row["negatives"]]
        wanted = cross.predict([(row["anchor"], text) for text in texts])
        assert [row["pos_scores"], *row["neg_scores"]] == pytest.approx(wanted, abs=1e-5)
        assert row["neg_scores"] == sorted(row["neg_scores"], reverse=True)
    assert "cross-encoder" in (tmp_path / "a.md").read_text()
    other = str(tiny_bert(tmp_path / "other", seed=5))  # an embedding model
    path = mipic_llm.mine(rows, output=tmp_path / "b.jsonl", rescore=other, **own,
                          **{"data.query_prompt": "find: "})  # fmt: skip
    row = json.loads(path.read_text().splitlines()[3])
    query, right = mipic_llm.load(other).encode([row["anchor"], row["negatives"][0]])
    assert row["neg_scores"][0] == pytest.approx(float(query @ right), abs=2e-6)
    shape.num_labels = 3
    BertForSequenceClassification(shape).save_pretrained(folder)
    with pytest.raises(UserError, match="gives a pair 3 labels"):
        mipic_llm.mine(rows, output=tmp_path / "c.jsonl", rescore=str(folder), **own)


@pytest.mark.parametrize(
    "flags, message",
    [
        (
            "--mine.output a.csv",
            "mine.output is a.csv; give a file that ends in .jsonl or .parquet",
        ),
        ("--mine.range 5", "mine.range is '5'; give LOW:HIGH, such as 10:50"),
        ("--mine.range 5:5", "mine.range is '5:5'"),
        ("--mine.positives high", "such as 0.7:0.95"),
        ("--mine.sampling best", "one of: top, random, strata"),
        ("--mine.relativ 1", "did you mean --mine.relative"),
        ("--mine.corpus nowhere.jsonl", "no such file: nowhere.jsonl"),
        ("--mine.corpus {rows}", "has the columns anchor, positive, negative; give a column text"),
        ("--mine.output {rows} --overwrite true", "is what mining reads; give another file"),
        (
            "--data.train {rows}.txt --mine.output {out}",
            ".txt has no positives; --mine.positives 0.7",
        ),
        ("--mine.output {out} --mine.absolute -2", "nothing was mined: 25 of 25 rows"),
        ("--mine.output {out} --mine.rescore nowhere/x", "nowhere/x"),
        ("--mine.output {rows}/x.jsonl", "cannot write to"),
        ("--recipe {rows}.yaml --mine.output {out}", "has prompts or a length of its own"),
    ],
)
def test_bad_input_is_one_line(base, rows, tmp_path, flags, message, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = flags.format(rows=rows, out=tmp_path / "out.jsonl").split()
    before = rows.read_bytes()
    first = [] if {"--data.train", "--recipe"} & set(words) else ["--data.train", str(rows)]
    with pytest.raises(UserError) as error:
        dispatch(["mine", "--model", base, *first, *words])
    assert message in str(error.value) and "\n" not in str(error.value)
    assert rows.read_bytes() == before and not list(tmp_path.iterdir())


def test_the_exit_code(base, tmp_path):
    flags = ["--model", base, "--data.train", str(tmp_path / "none.jsonl")]
    code, output = run_ranks(1, ROOT / "launch" / "mine.py", flags)
    assert code == 2 and output.count("error:") == 1 and "Traceback" not in output
