"""Data sets as they lie on a Hugging Face hub: several in one folder, searches, lists with labels.

The hub is a folder: ids are looked up there by the real load_dataset."""

from __future__ import annotations

from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from test_data_formats import error, write_jsonl

from mipic_llm.data.read.find import check_files
from mipic_llm.data.read.folders import configs_of
from mipic_llm.data.read.training import read_training
from mipic_llm.errors import UserError
from mipic_llm.evaluation.fitting import texts_for_pca
from mipic_llm.evaluation.read import load_suite, load_tasks


def read(spec, negatives=4, **more):
    (source,), reports = read_training(str(spec), negatives=negatives, **more)
    return [tuple(row[:3]) for row in source.examples], [str(report) for report in reports]


def write(folder: Path, tables: dict[str, dict[str, list[dict]]], kind: str = "parquet") -> Path:
    """A folder as the hub has it: {config: {split: rows}} in files, and its README.md."""
    lines = ["---", "license: mit", "configs:"]
    for config, splits in tables.items():
        lines += [f"- config_name: {config}", "  data_files:"]
        for split, rows in splits.items():
            path = folder / config / f"{split}-00000-of-00001.{kind}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "parquet":
                pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
            else:
                write_jsonl(path, rows)
            lines += [f"  - split: {split}", f"    path: {config}/{split}-*"]
    (folder / "README.md").write_text("\n".join([*lines, "---", "# A data set", ""]))
    return folder


def search(qrels: str | None, number=str) -> dict[str, dict[str, list[dict]]]:
    """qrels: the config with the judgements; number: the kind of their ids."""
    tables = {
        "corpus": {"corpus": [{"_id": f"{i}", "title": "T" * (i == 2), "text": f"document {i}"}
                              for i in range(1, 6)]},
        "queries": {"queries": [{"_id": f"{i}", "text": f"query {i}"} for i in range(1, 4)]},
    }  # fmt: skip

    def judged(*rows: tuple[int, int, float]) -> list[dict]:
        names = "query-id", "corpus-id", "score"
        return [dict(zip(names, (number(q), number(d), s), strict=True)) for q, d, s in rows]

    both = {"train": judged((1, 2, 1.0), (1, 3, 0.0), (2, 4, 1.0)), "test": judged((3, 5, 1.0))}
    return tables | ({qrels: both} if qrels else {})


ROWS = [("query 1", "T document 2", ("document 3",)), ("query 2", "document 4", ())]


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    real, names = datasets.load_dataset, datasets.get_dataset_config_names
    root, cache = tmp_path / "hub", str(tmp_path / "cache")

    def load(name, config=None, revision=None, cache_dir=None, **more):
        return real(str(root / name), config, cache_dir=cache, **more)

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(datasets, "get_dataset_config_names",
                        lambda name, revision=None: names(str(root / name)))  # fmt: skip
    return root


@pytest.mark.parametrize(("qrels", "number"), [("default", str), ("qrels", str), ("default", int)])
def test_a_search_of_the_hub_is_training_data(hub, monkeypatch, qrels, number) -> None:
    """By its id and as a folder: the same rows."""
    folder = write(hub / "me/search", search(qrels, number))
    for spec in ("me/search", f"me/search:{qrels}", folder):
        assert read(spec)[0] == ROWS, spec
    assert read("me/search:corpus[corpus]")[0][1] == ("document 2", None, ())
    assert "another split: " in read(folder)[1][0]
    check_files([str(folder)])
    texts = texts_for_pca([str(folder)], 99, "PCA")
    assert texts[:2] == ["document 1", "document 2"] and "query 3" in texts
    monkeypatch.chdir(hub)
    assert read("me/search")[0] == ROWS  # the folder of that name, which is here


def test_a_search_of_the_hub_is_read_as_a_stream(hub, tmp_path) -> None:
    from mipic_llm.data.read.containers import containers

    write(hub / "me/search", search("default"), kind="jsonl")
    (part,) = containers("me/search", "train", None, stream=True)
    assert [row["query"] for _, row in part.rows] == ["query 1", "query 2"]


def test_judgements_of_another_repository_find_their_texts(hub) -> None:
    """BEIR's own sets: texts in one id, judgements in ID-qrels, of other kinds of ids."""
    write(hub / "me/search", search(None))
    (hub / "me/search-qrels").mkdir()
    for split in ("train", "test"):
        rows = search("q", int)["q"][split]
        text = "".join("\t".join(map(str, row.values())) + "\n" for row in rows)
        (hub / f"me/search-qrels/{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + text)
    assert read("me/search-qrels")[0] == ROWS
    message = error(read, "me/search")
    assert "no judgements" in message and "me/search-qrels" in message
    message = error(read, hub / "me/search-qrels")
    assert "without their texts" in message and "qrels beside corpus.jsonl" in message


def test_a_search_in_two_languages(hub) -> None:
    other = {f"de-{name}": splits for name, splits in search("qrels").items()}
    other["de-queries"] = {"train": [{"id": f"{i}", "text": f"Frage {i}"} for i in range(1, 4)],
                           "test": [{"id": "1", "text": "of another split"}]}  # fmt: skip
    write(hub / "me/search", search("qrels") | other)
    assert read("me/search:de-qrels")[0][0] == ("Frage 1", "T document 2", ("document 3",))
    assert read("me/search:qrels")[0] == ROWS


def test_a_search_of_the_hub_is_scored_over_its_whole_corpus(hub, tmp_path) -> None:
    """Not among the judged documents alone, which is easier."""
    folder = write(hub / "me/search", search("default"))
    suite = tmp_path / "suite.yaml"
    suite.write_text("- {path: me/search, name: found, split: train, metrics: [ndcg@3]}\n")
    (found,), (line,) = load_suite(str(suite))
    assert len(found.corpus) == 5 and found.relevant["1"] == {"2": 1.0} and "5 documents" in line
    for spec in ("me/search", str(folder)):
        (task,), _ = load_tasks([spec])
        assert len(task.corpus) == 5 and task.relevant == {"3": {"5": 1.0}}
    write(hub / "me/texts", search(None))
    with pytest.raises(UserError, match="has no qrels"):
        load_tasks([str(hub / "me/texts")])


def test_judgements_of_one_split_are_not_trained_on_as_text(hub) -> None:
    """They were: a hub's copy without qrels/train gave its corpus as unlabelled text."""
    tables = search("qrels")
    del tables["qrels"]["train"]
    folder = write(hub / "me/search", tables)
    assert "without qrels/train.tsv (it has test-00000-of-00001.parquet)" in error(read, folder)


def test_broken_judgements_of_a_table(hub) -> None:
    tables = search("qrels")
    tables["qrels"]["train"] = [{"query-id": "1", "corpus-id": "2", "score": "good"}]
    message = error(read, write(hub / "me/search", tables))
    assert "row 1: score is 'good', a number expected; mend that row" in message
    tables["qrels"]["train"] = [{"query-id": "1", "corpus-id": "2"}]  # judged to be right
    assert read(write(hub / "me/search", tables))[0] == [("query 1", "T document 2", ())]
    tables["qrels"]["train"] = [{"query": "1", "corpus-id": "2"}]
    message = error(read, write(hub / "me/search", tables))
    assert "row 1: no columns query-id, corpus-id" in message


def test_data_sets_of_one_folder_are_not_mixed(tmp_path) -> None:
    pair = {"anchor": "a", "positive": "p"}
    folder = write(tmp_path / "nli", {
        "pair": {"train": [pair], "dev": [pair | {"anchor": "b"}]},
        "triplet": {"train": [pair | {"negative": "n"}], "test": [pair | {"anchor": "c"}]},
    })  # fmt: skip
    message = error(read, folder)
    assert f"holds the data sets pair, triplet; name one: {folder}:pair" in message
    rows, (report,) = read(f"{folder}:triplet")
    assert rows == [("a", "p", ("n",))]
    assert "another split: triplet/test-00000-of-00001.parquet" in report
    assert read(f"{folder}:pair=2")[0] == [("a", "p", ())]
    assert read(f"{folder}:triplet[test]")[0] == [("c", "p", ())]
    assert read(f"{folder}:pair", split="validation")[0] == [("b", "p", ())]
    assert read(folder / "pair")[0] == [("a", "p", ())]
    check_files([f"{folder}:pair"])
    assert "name one" in error(read, f"{folder}:tripel")
    assert "no files of the split validation, only of train" in error(
        read, f"{folder}:triplet[validation]"
    )
    write(folder, {"no": {"some": [pair], "more": [pair]}, "de": {"train": [pair]}})
    assert len(read(f"{folder}:no")[0]) == 2  # splits whose names tell nothing


@pytest.mark.parametrize(
    "text",
    ["", "---\n: [\n---\n", "---\nconfigs: 3\n---\n", "---\nconfigs: [3, {data_files: 4}]\n---\n",
     "---\nconfigs:\n- data_files: [{split: train, path: ../x.jsonl}, /x.jsonl]\n---\n",
     "---\nday: 2026-99-99\nconfigs: [{data_files: a**b}]\n---\n"],
)  # fmt: skip
def test_a_readme_that_names_nothing_here(tmp_path, text) -> None:
    write_jsonl(tmp_path / "x.jsonl", [{"anchor": "a", "positive": "p"}])
    (tmp_path / "in").mkdir()
    (tmp_path / "in/README.md").write_text(text)
    assert configs_of(tmp_path / "in") == {}
    write_jsonl(tmp_path / "in/x.jsonl", [{"anchor": "a", "positive": "p"}])
    assert read(tmp_path / "in")[0] == [("a", "p", ())]
    assert "no README.md that names a data set y" in error(read, f"{tmp_path / 'in'}:y")


@pytest.mark.parametrize(
    ("row", "found"),
    [(["a", "p"], [("a", "p", ())]), (["a", "p", "n", "m"], [("a", "p", ("n", "m"))]),
     ({"set": ["a", "p", "q"]}, [("a", "p", ()), ("a", "q", ())]),
     ({"query": "a", "doc": ["n", "p", "m"], "labels": [0, 1, 0]}, [("a", "p", ("n", "m"))]),
     ({"question": "a", "answer": ["p", "q"], "label": [True, False]}, [("a", "p", ("q",))]),
     ({"query": "a", "document": "p", "negative": ["n"]}, [("a", "p", ("n",))]),
     ({"query": "a", "positive": "p", "negatives": ["n", "m"], "labels": [0, 0]},
      [("a", "p", ("n", "m"))]), ({"document": "d", "text": "a"}, [("a", None, ())])],
)  # fmt: skip
def test_lists_of_texts(tmp_path, row, found) -> None:
    assert read(write_jsonl(tmp_path / "x.jsonl", [row]))[0] == found


@pytest.mark.parametrize(
    ("row", "message"),
    [({"set": ["a"]}, "set holds one text"), ([], "a list where an object"),
     ({"query": "a", "doc": ["n", "m"], "labels": [0, 0]}, "none of the texts of doc is right"),
     ({"query": "a", "answer": ["n", "m"], "labels": [0.9, 0.1]}, "not by 0.9; numbers of how"),
     ({"query": "a", "answer": ["n"], "labels": [10**400]}, "not by 100000000; numbers"),
     ({"query": "a", "positive": "p", "negative": "n", "score": [1.5]},
      "score has 0 numbers for 1 negatives (--data.ignore_columns score leaves them out)")],
)  # fmt: skip
def test_lists_that_say_nothing(tmp_path, row, message) -> None:
    """Texts labelled 0 are no positives, which they were taken for."""
    assert message in error(read, write_jsonl(tmp_path / "x.jsonl", [row]))


def test_a_list_of_scores_is_one_by_another_name(tmp_path) -> None:
    row = {"query": "a", "positive": "p", "negative_1": "n", "negative_2": "m"}
    for name in ("scores", "score"):
        path = write_jsonl(tmp_path / "x.jsonl", [row | {name: [0.9, 0.2, 0.1]}])
        (source,), (report,) = read_training(str(path), negatives=2)
        assert source.examples[0].scores == (0.9, 0.2, 0.1) and "1 with scores" in str(report)
    path = write_jsonl(tmp_path / "x.jsonl", [row | {"score": 0.7}])  # a margin, say
    assert not read_training(str(path), negatives=2)[0][0].examples[0].scores


def test_a_text_beside_its_query_is_no_unlabelled_text(tmp_path) -> None:
    """GLUE's QNLI has question, sentence, label."""
    path = write_jsonl(tmp_path / "x.jsonl", [{"question": "q", "sentence": "a"}])
    assert "found columns question, sentence; rename them" in error(read, path)
    assert read(path, ignore=["question"])[0] == [("a", None, ())]
