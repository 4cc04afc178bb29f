"""What a file, a folder or a suite YAML is understood as."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch

from mipic_llm.data.read.containers import NamedRows
from mipic_llm.data.read.find import check_files
from mipic_llm.data.read.rows import ALL
from mipic_llm.data.read.training import read_training
from mipic_llm.errors import UserError
from mipic_llm.evaluation.fitting import texts_for_pca
from mipic_llm.evaluation.read import load_suite, load_tasks
from mipic_llm.report.paired import kind_of

DATA = Path(os.environ.get("MIPIC_DATA", "absent"))


def rows(path: Path, *items: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def pair(label, i: int, key: str = "label") -> dict:
    return {"sentence1": f"one {i}", "sentence2": f"two {i}", key: label}


@pytest.fixture
def root(tmp_path) -> Path:
    rows(tmp_path / "sts" / "test.jsonl", pair(1.5, 0, "score"), pair(4, 1, "score"))
    rows(tmp_path / "sts" / "dev.jsonl", *(pair(i, i, "score") for i in range(3)))
    rows(tmp_path / "para" / "train.jsonl", *(pair(i % 2, i) for i in range(6)))
    rows(tmp_path / "para" / "validation.jsonl", *(pair(i % 2, 10 + i) for i in range(4)))
    rows(tmp_path / "para" / "test.jsonl", *(pair(str(i % 2), 20 + i) for i in range(2)))
    for role, n in (("train_partial", 9), ("test", 3)):
        items = ({"text": f"{role} {i}", "label": i % 3} for i in range(n))
        rows(tmp_path / "topics" / f"{role}.jsonl", *items)
    folder = tmp_path / "search"
    rows(folder / "corpus.jsonl", {"_id": "d1", "title": "T", "text": "x"},
         {"_id": "d2", "title": "", "text": "y"})  # fmt: skip
    rows(folder / "queries.jsonl", {"_id": "q1", "text": "a"}, {"_id": "q2", "text": "b"})
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td9\t1\n")
    return tmp_path


def test_a_packed_corpus_and_judgements_with_blanks(root) -> None:
    corpus = root / "search" / "corpus.jsonl"
    (root / "search" / "corpus.jsonl.gz").write_bytes(gzip.compress(corpus.read_bytes()))
    corpus.unlink()
    (root / "search" / "qrels" / "test.tsv").write_bytes(
        b"query-id\tcorpus-id\tscore\r\nq1\td1 \t2\r\n q1\td9\t1\r\n\r\n"
    )
    (search,), _ = load_tasks([str(root / "search")])
    assert search.corpus == {"d1": "T x", "d2": "y"}
    assert search.relevant == {"q1": {"d1": 2.0, "d9": 1.0}}


def test_a_corpus_as_the_hub_has_it(root) -> None:
    """Parquet, or jsonl in zstd; judgements whose columns are turned round are no others' ids."""
    folder = root / "search"
    table = pyarrow.Table.from_pylist(
        [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]
    )
    pyarrow.parquet.write_table(table, folder / "corpus.parquet")
    with pyarrow.output_stream(str(folder / "queries.jsonl.zst"), compression="zstd") as file:
        file.write((folder / "queries.jsonl").read_bytes())
    for name in ("corpus", "queries"):
        (folder / f"{name}.jsonl").unlink()
    (search,), _ = load_tasks([str(folder)])
    assert search.corpus == {"d1": "T x", "d2": "y"} and search.queries == {"q1": "a"}
    qrels = folder / "qrels" / "test.tsv"
    qrels.write_text("corpus-id\tquery-id\tscore\n1\t1\t1\n")
    with pytest.raises(UserError, match="BEIR's order is query-id, corpus-id, score"):
        load_tasks([str(folder)])


def test_folders_are_understood_and_told(root) -> None:
    specs = [str(root / name) for name in ("sts", "para", "topics", "search")]
    (sts, para, topics, search), lines = load_tasks(specs)
    assert [t.name for t in (sts, para, topics, search)] == ["sts", "para", "topics", "search"]
    assert list(sts.gold_N) == [1.5, 4.0]  # the test rows, not the dev ones
    assert len(para.tune.left) == 4 and list(para.test.label_N) == [0, 1]
    assert para.tune.left[0] == "one 10"  # validation, not train
    assert topics.validation is None and topics.test.labels == ["0", "1", "2"]
    assert search.corpus == {"d1": "T x", "d2": "y"}
    assert search.queries == {"q1": "a"} and search.relevant["q1"] == {"d1": 2.0, "d9": 1.0}
    assert "threshold from 4 validation rows" in lines[1]
    assert "3 classes, probe from 9 train rows" in lines[2]
    assert "1 judged documents are not in the corpus" in lines[3]


def test_a_running_training_never_reads_test_rows(root) -> None:
    (sts, para), lines = load_tasks([str(root / "sts"), str(root / "para")], split="validation")
    assert len(sts.gold_N) == 3
    assert para.test.left[0] == "one 10" and para.tune.left[0] == "one 0"  # tuned on train
    every = [text for task in (sts, para) for texts in task.texts().values() for text in texts]
    assert not any(text.endswith((" 20", " 21")) for text in every)
    assert not any("test.jsonl" in line for line in lines)


def test_one_file_alone(root) -> None:
    (one, two), lines = load_tasks([str(root / "para" / "test.jsonl"), str(root / "sts/dev.jsonl")])
    assert one.tune is None and "average precision only" in lines[0]
    assert [one.name, two.name] == ["para-test", "sts-dev"]
    with pytest.raises(UserError, match="needs train rows"):
        load_tasks([str(root / "topics" / "test.jsonl")])


def test_rows_as_for_training_are_retrieval(root) -> None:
    """Each question's answers among all answers; an answer that is the question itself is none."""
    path = rows(
        root / "faq.jsonl", {"question": "a?", "answer": "yes"}, {"question": "b?", "answer": "no"},
        {"question": " a?", "answer": "maybe"}, {"question": "c?", "answer": "a?"},
        {"question": "d?", "answer": "d?"},
    )  # fmt: skip
    (task,), (line,) = load_tasks([str(path)], split="validation")
    assert "retrieval, 3 questions" in line and "each among 4 answers" in line
    asked = {task.queries[q]: {task.corpus[d] for d in found} for q, found in task.relevant.items()}
    assert asked == {" a?": {"yes", "maybe"}, "b?": {"no"}, "c?": {"a?"}}
    assert {task.queries[q] for q in task.itself} == {" a?"}
    other = [
        {"anchor": "x", "positive": "y", "negative": "z"},
        {"premise": "x", "hypothesis": "y", "label": 0},
        {"sentence1": "x", "sentence2": "y"},
        {"sentence1": "x", "sentence2": "y", "label": "entailment"},
    ]
    for i, row in enumerate(other):
        (task,), _ = load_tasks([str(rows(root / f"other{i}.jsonl", row))])
        assert list(task.corpus.values()) == (["y", "z"] if i == 0 else ["y"]), row
    folder = root / "split"
    rows(folder / "train.jsonl", {"anchor": "t", "positive": "u"})
    rows(folder / "validation.jsonl", {"anchor": "v", "positive": "w"})
    (task,), _ = load_tasks([str(folder)], split="validation")
    assert list(task.queries.values()) == ["v"]
    alike = rows(root / "alike.jsonl", {"anchor": "t", "positive": "t"})
    with pytest.raises(UserError, match="no row has a positive other than its anchor"):
        load_tasks([str(alike)])
    named = [{"sentence1": f"x{i}", "sentence2": "y", "similarity": i} for i in range(3)]
    (sts,), _ = load_tasks([str(rows(root / "similar.jsonl", *named))])
    assert list(sts.gold_N) == [0, 1, 2]
    named = [{"text1": f"x{i}", "text2": "y", "score": i / 2} for i in range(3)]
    (sts,), (line,) = load_tasks([str(rows(root / "texts.jsonl", *named))])
    assert list(sts.gold_N) == [0, 0.5, 1] and "STS, 3 rows" in line


def test_labels_in_one_file_are_halved_by_their_texts(root) -> None:
    items = [{"text": f"text {i % 40}", "label": i % 2} for i in range(80)]
    (task,), (line,) = load_tasks([str(rows(root / "one.jsonl", *items))], split="validation")
    assert not set(task.train.texts) & set(task.test.texts) and "half of the texts" in line
    assert len(task.train.texts) + len(task.test.texts) == 80 and len(task.test.texts) > 20
    with pytest.raises(UserError, match="needs train rows"):
        load_tasks([str(rows(root / "two.jsonl", *({**x, "label": 1} for x in items)))])


def test_suite_yaml(root) -> None:
    path = root / "suite.yaml"
    path.write_text(
        "- path: sts\n"
        "- {name: p, type: pairs, test: para/test.jsonl, train: para/train.jsonl}\n"
        "- {name: t, path: topics, c: [0.1, 1]}\n"
        "- {name: s, type: retrieval, path: search, split: test, metrics: [ndcg@3, map]}\n"
        "- {name: dev, path: sts, split: validation}\n- path: demo\n"
    )
    tasks, lines = load_suite(str(path))
    assert [t.name for t in tasks] == ["sts", "p", "t", "s", "dev", "demo"] and len(lines) == 6
    assert len(tasks[1].tune.left) == 6 and tasks[2].c == (0.1, 1.0)
    assert len(tasks[4].gold_N) == 3 and tasks[3].metrics == ("ndcg@3", "map")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a: b", "must be a list"),
        ("- sts", "entry 1: must be an object"),
        ("- {path: sts, kind: sts}", "unknown key kind"),
        ("- {path: sts, type: stss}", "type is 'stss'"),
        ("- {name: x}", "give a path"),
        ("- {name: 'a b', path: sts}", "letters, digits"),
        ("- {name: x, path: sts}\n- {name: x, path: para}", "entry 2: the name x is given twice"),
        ("- {path: sts, split: train}", "no train rows"),
        ("- {path: topics, c: -1}", "c is -1"),
        ("- {test: topics/test.jsonl, train: rare.jsonl, c: [1, 2]}", "two labels that two rows"),
        ("- {path: sts, rows: 1}", "rows is 1; give a whole number"),
        ("- {path: search, rows: 9}", "rows is not for retrieval"),
        ("- {path: sts, type: retrieval}", "no qrels"),
        ("- {path: search, metrics: [ndcg]}", "metrics: 'ndcg'; give a list of ndcg@K"),
        ("- {path: nowhere/x.jsonl}", "no such file"),
        ("- [", "not valid YAML"),
    ],
)
def test_a_wrong_suite_is_one_line(root, text: str, match: str) -> None:
    rare = [{"text": f"rare {i}", "label": max(0, i - 2)} for i in range(5)]  # 0 0 0 1 2
    rows(root / "rare.jsonl", *rare)
    (root / "suite.yaml").write_text(text)
    with pytest.raises(UserError, match=match):
        load_suite(str(root / "suite.yaml"))


def test_two_splits_of_a_role_in_memory_are_refused() -> None:
    """Of MNLI's two validation splits the later one would be taken without a word."""
    some = [pair(i, i, "score") for i in range(3)]
    splits = {"validation_matched": some, "validation_mismatched": some[:2]}
    with pytest.raises(UserError, match="matched and validation_mism.* are both validation splits"):
        load_tasks([NamedRows("mnli", splits)], split="validation")
    one = {"test": some, "validation_matched": some[:2]}
    (task,), _ = load_tasks([NamedRows("mnli", one)], split="validation")
    assert len(task.gold_N) == 2


def test_rows_thin_every_file_evenly(root) -> None:
    pairs = "- {type: pairs, test: para/test.jsonl, train: para/train.jsonl"
    whole, _ = load_suite_of(root, pairs + "}")
    tasks, lines = load_suite_of(
        root, pairs + ", rows: 3}\n- {path: sts, split: validation, rows: 2}"
    )
    assert tasks[0].tune.left == whole[0].tune.left[::2] and len(whole[0].tune.left) == 6
    assert len(tasks[1].gold_N) == 2 and "2 of 3 rows" in lines[1]


def test_bad_rows_are_named(root) -> None:
    rows(root / "para" / "test.jsonl", pair(1, 0), pair(2, 1))
    with pytest.raises(UserError, match="pair's label is '2'"):
        load_suite_of(root, "- {path: para, type: pairs}")
    rows(root / "topics" / "test.jsonl", {"text": "a", "label": None})
    with pytest.raises(UserError, match="line 1: label is None"):
        load_tasks([str(root / "topics")])
    (root / "search/qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq1 d1 2\n")
    with pytest.raises(UserError, match="line 2: 1 cells"):
        load_tasks([str(root / "search")])
    for lines, words in (
        ("q1\td1\t2\nq1\td1\t2\nq1\td1\t1", "line 4: .* judged 2 above, 1 here"),
        ("q1\td1\tgood", "line 2: score is 'good'"),
        ("", "is empty"),
    ):
        (root / "search/qrels/test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{lines}\n")
        with pytest.raises(UserError, match=words):
            load_tasks([str(root / "search")])
    rows(root / "search/corpus.jsonl", {"_id": "d", "text": "x"}, {"_id": "d", "text": "y"})
    with pytest.raises(UserError, match="the _id d is given twice"):
        load_tasks([str(root / "search")])
    rows(root / "sts" / "test2.jsonl", pair(1, 0, "score"))
    with pytest.raises(UserError, match="both test files"):
        load_tasks([str(root / "sts")])
    rows(root / "odd.jsonl", {"what": "is this"})
    with pytest.raises(UserError, match="found columns what"):
        load_tasks([str(root / "odd.jsonl")])


@pytest.mark.parametrize("columns, kind", [
    (("Question", "Answer"), "retrieval"), (("Sentence1", "SENTENCE2", "Score"), "STS"),
    (("Sentence1", "Sentence2", "Label"), "pairs"), (("Text", "Label"), "classification"),
])  # fmt: skip
def test_columns_in_capitals_are_read_as_in_training(root, columns, kind) -> None:
    def values(i: int) -> list:
        texts = [f"a {i}", f"b {i}"][: 2 if columns[0] != "Text" else 1]
        return [*texts, i % 2 if columns[-1] == "Label" else i][: len(columns)]

    found = []
    for name, own in (("capitals", columns), ("small", [c.lower() for c in columns])):
        rows(root / f"{name}.jsonl", *(dict(zip(own, values(i), strict=True)) for i in range(20)))
        (task,), (line,) = load_tasks([str(root / f"{name}.jsonl")])
        assert f": {kind}, " in line
        found.append(task.texts())
    assert found[0] == found[1]


def load_suite_of(root: Path, text: str):
    (root / "suite.yaml").write_text(text)
    return load_suite(str(root / "suite.yaml"))


@pytest.mark.skipif(not DATA.is_dir(), reason="MIPIC_DATA names no folder of data")
def test_real_folders() -> None:
    trained = ("nli", "paper_mix", "wikiqa_train")  # they have no rows to score
    folders = [d for d in sorted(DATA.iterdir()) if d.is_dir() and d.name not in trained]
    tasks, lines = load_tasks([str(folder) for folder in folders])
    kinds = {task.name: type(task).__name__ for task in tasks}
    assert kinds["stsb"] == kinds["sick"] == kinds["sts14"] == "StsTask"
    assert kinds["mrpc"] == kinds["wic"] == kinds["scitail"] == "PairsTask"
    assert kinds["banking77"] == kinds["emotion"] == "ClassificationTask"
    assert kinds["wikiqa_dev"] == "RetrievalTask"
    assert len(lines) == len(folders)


def test_the_demo_text_gives_four_kinds_of_tasks_and_none_of_it_is_training_text() -> None:
    tasks, lines = load_tasks(["demo-families"], split="validation")
    names = ["demo", "demo-pairs", "demo-subjects", "demo-search"]
    assert [t.name for t in tasks] == names and len(lines) == 4
    texts = [text for task in tasks for some in task.texts().values() for text in some]
    vectors = torch.randn(len(texts), 8, generator=torch.Generator().manual_seed(0))
    at = {text: i for i, text in enumerate(texts)}
    metrics = [
        [f.metric for f in task.score(lambda _, some: vectors[[at[t] for t in some]], [8])]
        for task in tasks
    ]
    assert [kind_of(m) for m in metrics] == ["STS", "pairs", "classification", "retrieval"]
    rows, _ = read_training(["demo"], negatives=ALL)
    trained = {t for e in rows[0].examples for t in (e.anchor, e.positive, *e.negatives)}
    assert trained and trained.isdisjoint(texts)
    search = tasks[3]
    for q, judged in search.relevant.items():  # an answer is of a pair that people found alike
        pairs = {b: s for a, b, s in tasks[0].content() if a == search.queries[q]}
        assert all(pairs[search.corpus[d]] >= 4 for d in judged)
    with pytest.raises(UserError, match="two tasks demo; demo-families brings demo and"):
        load_tasks(["demo", "demo-families"])


def test_a_beir_folder_without_the_split_says_what_to_do(tmp_path) -> None:
    (tmp_path / "search/qrels").mkdir(parents=True)
    for name in ("corpus", "queries"):
        (tmp_path / f"search/{name}.jsonl").write_text(f'{{"_id": "1", "text": "{name}"}}\n')
    for name in ("train", "test"):
        (tmp_path / f"search/qrels/{name}.tsv").write_text("q\td\tscore\n1\t1\t1\n")
    with pytest.raises(UserError, match=r"no qrels/validation.tsv among .*; .*dev"):
        load_tasks([str(tmp_path / "search")], split="validation")
    assert load_tasks([str(tmp_path / "search")])[0]
    (tmp_path / "search/qrels/train.tsv").unlink()
    with pytest.raises(UserError, match=r"without qrels/train.tsv \(it has test.tsv\)"):
        read_training(str(tmp_path / "search"), negatives=1)
    check_files([str(tmp_path / "search")])  # it can be scored
    assert texts_for_pca([str(tmp_path / "search")], 9, "PCA") == ["corpus", "queries"]
