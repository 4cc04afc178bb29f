"""What a table or folder may hide: labels, negatives, lists, quotes, splits; each is understood, or
refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest
from test_data_formats import error, write_jsonl

from mipic_llm.data.labels import Labels
from mipic_llm.data.read.beir import read_beir, tables_of
from mipic_llm.data.read.cells import NEGATIVE, BadRow, to_label, to_number
from mipic_llm.data.read.folders import beir_of
from mipic_llm.data.read.rows import Example
from mipic_llm.data.read.training import read_training
from mipic_llm.types import Traits

PAIR = {"anchor": "a", "positive": "p"}


def read(spec, negatives=4, **more):
    (source,), reports = read_training(str(spec), negatives=negatives, **more)
    return [tuple(row[:3]) for row in source.examples], [str(report) for report in reports]


# --- labels and scores ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value"),
    [("label", 0), ("label", "0"), ("similarity_score", 4.5), ("is_duplicate", False),
     ("isDuplicate", "1"), ("score", None), ("gold_score", 3), ("relevance", 0),
     ("entailment_judgment", "NEUTRAL"), ("Label", 1), ("is_same", 1)],
)  # fmt: skip
@pytest.mark.parametrize("pair", [("anchor", "positive"), ("query", "pos"), ("question", "answer")])
def test_a_label_beside_a_pair_is_refused_by_name(tmp_path, pair, column, value):
    row = {**dict(zip(pair, "ap", strict=True)), "id": 7, column: value}
    path = write_jsonl(tmp_path / "x.jsonl", [row])
    text = error(read, path)
    assert f"{', '.join(pair)}, {column} are scored pairs" in text
    assert f"--data.ignore_columns {column}" in text
    found, (report,) = read(path, ignore=[column])
    assert found == [("a", "p", ())] and report.endswith(f"; ignored: id, {column}")


def test_a_label_that_the_first_row_lacks(tmp_path):
    path = write_jsonl(tmp_path / "x.jsonl", [PAIR, PAIR | {"label": 0}])
    assert "anchor, positive, label are scored pairs" in error(read, path)
    assert len(read(path, ignore=["label"])[0]) == 2
    rows = [PAIR | {"label": [1]}, PAIR | {"negative": "n", "score": 1}]  # a triplet; a list
    assert len(read(write_jsonl(tmp_path / "x.jsonl", rows))[0]) == 2


@pytest.mark.parametrize(
    ("column", "value"),
    [("labels", [1, 2]), ("pos_rank", [9]), ("title", "On similarity and labels of things"),
     ("is_about", "boats"), ("id", 1), ("matched_by", "hand"), ("rescored", 1)],
)  # fmt: skip
def test_what_is_no_label_is_ignored_and_named(tmp_path, column, value):
    found, (report,) = read(write_jsonl(tmp_path / "x.jsonl", [PAIR | {column: value}]))
    assert found == [("a", "p", ())] and report.endswith(f"; ignored: {column}")


def test_nli_under_other_names(tmp_path):
    cells = [("-", "x"), ("entailment", "e"), ("contradiction", "c"), ("neutral", "n")]
    wanted = [("a", "e", ("c",))]
    for label, first in (("gold_label", 0), ("label", 1)):  # label: known by the first row's word
        rows = [{label: word, "sentence1": "a", "sentence2": text} for word, text in cells[first:]]
        found, (report,) = read(write_jsonl(tmp_path / "x.jsonl", rows))
        assert found == wanted and f"as sentence1/sentence2/{label}, giving 1" in report
    rows = [{"premise": "a", "hypothesis": t, "gold_label": word} for word, t in cells]
    assert read(write_jsonl(tmp_path / "x.jsonl", rows))[0] == wanted


# --- negatives ------------------------------------------------------------------------------------


def test_names_of_negatives():
    names = ["neg", "negs", "neg_1", "neg1", "negative", "negatives", "negative1", "negative_2",
             "hard_negative", "hard_negatives", "hard_neg", "hardNegative", "HardNegative_3",
             "neg_doc", "negative_docs", "negative_passages", "negative_messages", "Negative",
             "rejected", "rejected_response", "rejected_responses_2",
             "hard_negative_text"]  # fmt: skip
    assert [name for name in names if not NEGATIVE.fullmatch(name)] == []
    others = ["neg_scores", "negative_ids", "negation", "neglect", "n", "negative_label", "neg_"]
    assert [name for name in others if NEGATIVE.fullmatch(name)] == []


@pytest.mark.parametrize(
    "pair",
    [("anchor", "positive"), ("query", "pos"), ("question", "answer"), ("query", "response")],
)
def test_negatives_beside_any_pair(tmp_path, pair):
    row = dict(zip(pair, "ap", strict=True)) | {"hard_negative_2": "m", "neg1": "n", "x": "y"}
    found, (report,) = read(write_jsonl(tmp_path / "x.jsonl", [row]))
    assert found == [("a", "p", ("n", "m"))]
    assert f"as {pair[0]}/{pair[1]}/neg1/hard_negative_2; ignored: x" in report


def test_all_negatives_are_read_where_they_are_drawn():
    mined = [PAIR | {"neg": [f"n{i}" for i in range(30)], "neg_scores": list(range(30))},
             {"anchor": "b", "positive": "q", "neg": ["m"]}]  # fmt: skip
    (one, two, three), _ = read_training([mined, mined[1:], [PAIR]], negatives=2, draw=True)
    assert [len(e.negatives) for e in one.examples] == [30, 1] and len(one.examples[0].scores) == 31
    assert [s.drawn for s in (one, two, three)] == [2, None, None]
    (source,), _ = read_training([mined], negatives=0, draw=True)
    assert source.drawn is None and not source.examples[0].negatives


# --- labelled text --------------------------------------------------------------------------------


def test_labelled_text(tmp_path):
    rows = [{"text": f"t{n}", "label": n % 3 if n < 9 else "odd"} for n in range(10)]
    path = write_jsonl(tmp_path / "x.jsonl", rows)
    (source,), (report,) = read_training(path, negatives=1, label_column="label")
    assert [(e.anchor, e.positive, e.label, e.id) for e in source.examples] == [
        (f"t{n}", None, str(n % 3), n) for n in range(9)
    ]
    assert source.labelled and source.traits == Traits(path, "pairs", False)
    assert "as labelled text text/label" in str(report) and str(report).endswith(
        "; 1 texts left out, whose label no other has"
    )
    (bare,), (report,) = read_training(path, negatives=1)
    assert (
        bare.traits.kind == "texts" and len(bare.examples) == 10 and "ignored: label" in str(report)
    )
    labels, met = Labels(source.examples), set()
    for turn in range(40):
        for n in range(9):
            partner = labels.partner(n, (0, 0, turn))
            assert partner == labels.partner(n, (0, 0, turn))
            met.add((n, partner))
    same = {(n, m) for n in range(9) for m in range(9) if m % 3 == n % 3 and m != n}
    assert met == same
    rows = [{"text": f"t{n}", "label": "one" if n else None} for n in range(3)]
    assert "label is None, a label expected" in error(
        read_training, write_jsonl(tmp_path / "x.jsonl", rows), negatives=1,
        label_column="label",
    )  # fmt: skip
    write_jsonl(tmp_path / "x.jsonl", rows[1:])
    assert "needs two labels or more" in error(
        read_training, path, negatives=1, label_column="label"
    )


# --- scored pairs as a source ---------------------------------------------------------------------


@pytest.mark.parametrize("column", ["score", "similarity", "similarity_score", "label"])
@pytest.mark.parametrize("pair", [("sentence1", "sentence2"), ("text1", "text2")])
def test_scored_pairs(tmp_path, column, pair):
    rows = [dict(zip(pair, "ab", strict=True)) | {column: n, "id": 1} for n in (5, "2.5", 2.5)]
    path = write_jsonl(tmp_path / "x.jsonl", rows)
    (source,), (report,) = read_training(path, negatives=2)
    assert [(*e[:3], *e.scores) for e in source.examples] == [
        ("a", "b", (), n) for n in (5, 2.5, 2.5)
    ]
    assert source.traits == Traits(path, "scored", True)
    assert str(report) == (
        f"read 3 rows of {path} as scored pairs {pair[0]}/{pair[1]}/{column} (2.5 to 5, larger = "
        "more alike); ignored: id"
    )
    found, (plain,) = read(path, ignore=[column])
    assert found == [("a", "b", ())] * 3 and f"as {pair[0]}/{pair[1]}; ignored" in plain


PAIRED = [{"sentence1": "a", "sentence2": "b", "label": n % 2} for n in range(4)]


def test_labels_that_may_be_classes_want_a_word(tmp_path):
    """RTE's 0 is entailment, QQP's 1 is a duplicate, SICK's 1 to 5 is a score."""
    path = write_jsonl(tmp_path / "x.jsonl", PAIRED)
    text = error(read, path)
    for part in (
        "sentence1, sentence2, label are scored pairs, whose whole numbers may be classes",
        "--data.score_column label",
        "--data.ignore_columns label",
        "data.validation",
    ):
        assert part in text, part
    (source,), (report,) = read_training(path, negatives=2, score_column="label")
    assert source.scored and "sentence1/sentence2/label (0 to 1, larger" in str(report)
    for rows in ([PAIR | {"same": True}, PAIR | {"same": False}],
                 [{"premise": "a", "hypothesis": "b", "gold_label": n, "sentence1": "a",
                   "sentence2": "b", "same": n} for n in (0, 2)]):  # fmt: skip
        (source,), _ = read_training([rows], negatives=2, score_column="same")
        assert source.scored and source.examples[0].scores == (rows[0]["same"],)
    (one, other), _ = read_training([[PAIR], PAIRED], negatives=2, score_column="label")
    assert not one.scored and other.scored  # where a file has it


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"score": "high"}, "line 2: score is 'high', a number expected"),
        ({}, "line 2: score is null, a number expected"),
        ({"score": 1}, "every pair has the same score"),
        ({"score": 2, "sentence2": ["b", "c"]}, "line 2: sentence2 holds 2 texts, one expected"),
    ],
)
def test_bad_scored_pairs(tmp_path, row, said):
    good = {"sentence1": "a", "sentence2": "b"}
    path = write_jsonl(tmp_path / "x.jsonl", [good | {"score": 1}, good | row])
    assert said in error(read, path)


def test_what_scored_pairs_cannot_have(tmp_path):
    rows = [PAIR | {"negative": "n", "much": 1}, PAIR | {"negative": "n", "much": 2}]
    text = error(read, write_jsonl(tmp_path / "x.jsonl", rows), score_column="much")
    assert "much scores pairs, and there are negatives (negative) too" in text
    rows = [{"sentence1": "a", "sentence2": "b", "score": n} for n in (1, 2)]
    write_jsonl(tmp_path / "x.jsonl", rows)
    write_jsonl(tmp_path / "y.jsonl", [PAIR])
    text = error(read, tmp_path)
    assert "labelled rows and scored pairs cannot be mixed in one source" in text
    rows = [{"sentence1": "a", "sentence2": "b", "negative": "n", "score": 1}]  # a triplet
    assert read(write_jsonl(tmp_path / "x.jsonl", rows))[0] == [("a", "b", ("n",))]


def test_a_scored_pair_is_no_positive(tmp_path):
    """It may be quite unlike: it takes no negative from a triplet of its anchor."""
    rows = [{"sentence1": "a", "sentence2": "n", "score": n} for n in (0.1, 0.2)]
    (_, triplets), _ = read_training([rows, [PAIR | {"negative": "n"}]], negatives=2)
    assert triplets.examples[0].negatives == ("n",)


# --- scores of a row's texts ----------------------------------------------------------------------

NAN = float("nan")
MINED = {"query": "a", "pos": ["p", "q"], "neg": ["n", "", "q ", "m", "o"]}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"pos_scores": [9, 8], "neg_scores": [5, 0, 4, 3, 2]}, [(9, 5, 3), (8, 5, 3)]),
        ({"pos_score": [9, 8], "negative_scores": [5, 4, 3, 2]}, [(9, 5, 3), (8, 5, 3)]),
        ({"scores": [9, 8, 5, 0, 4, 3, 2]}, [(9, 5, 3), (8, 5, 3)]),
        ({"scores": ["9", "8", 5, 4, 3, 2]}, [(9, 5, 3), (8, 5, 3)]),
        ({"scores": [9, 8, 5, None, 4, 3, 2]}, [(9, 5, 3), (8, 5, 3)]),  # null where no text is
        ({"pos_scores": [9, 8]}, [(9, NAN, NAN), (8, NAN, NAN)]),
        ({"neg_scores": [5, 0, 4, 3, 2], "pos_scores": None}, [(NAN, 5, 3), (NAN, 5, 3)]),
        ({"pos_scores": [], "scores": None, "neg_scores": NAN}, [(), ()]),
    ],
)
def test_scores_go_with_their_texts(tmp_path, given, wanted):
    """Two negatives are wanted of five: one is absent, and one is a positive."""
    path = write_jsonl(tmp_path / "x.jsonl", [MINED | given])
    (source,), (report,) = read_training(path, negatives=2)
    assert [tuple(e[:3]) for e in source.examples] == [("a", r, ("n", "m")) for r in "pq"]
    for example, scores in zip(source.examples, wanted, strict=True):
        assert example.scores == pytest.approx(scores, nan_ok=True)
    assert source.traits.scores == any(wanted) and source.traits.kind == "pairs"
    assert (", 2 with scores" in str(report)) == any(wanted) and ("ignored" in str(report)) <= (
        not any(wanted)
    )
    (source,), (report,) = read_training(path, negatives=2, ignore=list(given))
    assert not any(e.scores for e in source.examples) and "with scores" not in str(report)
    (source,), _ = read_training(path, negatives=0)
    for example, scores in zip(source.examples, wanted, strict=True):
        assert example.scores == pytest.approx(scores[:1], nan_ok=True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"pos_scores": [1]}, "pos_scores has 1 numbers for 2 positives"),
        ({"neg_scores": [1, 2, 3]}, "neg_scores has 3 numbers for 4 negatives"),
        ({"scores": [1, 2, 3]}, "scores has 1 numbers for 4 negatives"),
        ({"scores": [1]}, "scores has 1 numbers for 2 positives"),
        ({"pos_scores": [1, "high"]}, "pos_scores is 'high', a number expected"),
        ({"neg_scores": [1, 2, None, 4]}, "neg_scores is null, a number expected"),
        ({"neg_scores": [1, 2, NAN, 4]}, "neg_scores is nan, a number expected"),
        ({"neg_scores": [True, 2, 3, 4]}, "neg_scores is True, a number expected"),
        ({"neg_scores": {"a": 1}}, "neg_scores has 1 numbers for 4 negatives"),
        ({"pos_score": [1, 2], "pos_scores": [1, 2]}, "pos_scores and pos_score both hold scores"),
        ({"scores": [1] * 6, "neg_scores": [1] * 4}, "neg_scores and scores all hold scores"),
    ],
)
def test_scores_that_fit_no_texts(tmp_path, given, said):
    path = write_jsonl(tmp_path / "x.jsonl", [MINED, MINED | given])
    assert f"x.jsonl, line 2: {said}" in error(read, path)
    (source,), (report,) = read_training(path, negatives=2, on_bad_rows="skip")
    assert len(source.examples) == 2 and said in str(report)


def test_scores_of_tables(tmp_path):
    """One number in a cell; a column of negatives each, of which some are absent."""
    path = tmp_path / "x.csv"
    path.write_text("anchor,positive,negative_1,negative_2,pos_score,neg_score\n"
                    "a,p,n,,0.5,-1e-3\nb,q,,m,,2\nc,r,,,1,\n")  # fmt: skip
    (source,), (report,) = read_training(str(path), negatives=2)
    assert [e.negatives for e in source.examples] == [("n",), ("m",), ()]
    found = [e.scores for e in source.examples]
    assert [found[0], found[2]] == [(0.5, -1e-3), (1,)] and found[1] == pytest.approx(
        (NAN, 2), nan_ok=True
    )
    assert "ignored" not in str(report) and "negative_1/negative_2, 3 with scores" in str(report)


@pytest.mark.parametrize(
    ("cell", "texts"),
    [("", ()), ("  ", ()), (None, ()), ([], ()), ([""], ()), ([None, "b"], ("b",)),
     ([["b"], " "], ("b",)), (float("nan"), ()), ([float("nan")], ()), ("b", ("b",))],
)  # fmt: skip
def test_one_rule_for_absent_negatives(tmp_path, cell, texts):
    assert read(write_jsonl(tmp_path / "x.jsonl", [PAIR | {"neg": cell}]))[0] == [("a", "p", texts)]


@pytest.mark.parametrize("cell", ["", " ", "nan", "NULL", "None", "<NA>"])
def test_absent_texts_of_a_csv(tmp_path, cell):
    path = tmp_path / "x.csv"
    path.write_text(f"anchor,positive,negative\na,p,{cell}\n")
    assert read(path)[0] == [("a", "p", ())]
    path.write_text(f"anchor,positive\na,{cell}\n")
    assert "x.csv, line 2: " in error(read, path)


def test_csv_columns_of_one_name(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("anchor,positive,negative,negative\na,p,n,m\nb,q,,o\n")
    assert read(path)[0] == [("a", "p", ("n", "m")), ("b", "q", ("o",))]
    path.write_text("anchor,positive,positive\na,p,q\n")
    assert "two columns are named positive" in error(read, path)


# --- cells ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cell", ["['b', 'c']", '["b"]', "['b' 'c']", " ", "['b', None]", '[null, "b"]', "[nan, 'b']"]
)
def test_lists_as_text(tmp_path, cell):
    path = tmp_path / "x.csv"
    quoted = cell.replace('"', '""')
    path.write_text(f'query,pos\nq,p\nr,"{quoted}"\n')
    text = error(read, path)
    assert "x.csv, line 3: " in text
    assert cell == " " or ("is a list written as text" in text and "negative_1" in text)


@pytest.mark.parametrize(
    "text",
    [
        "[1] says so",
        "[sic]",
        "[1, 2]",
        "[unclear] and [more]",
        "[]",
        "['b'] is a list",
        "['" + "[" * 9999,
        r"['\d']x",
        "['\0']",
    ],
)
def test_text_in_brackets_is_text(tmp_path, text):
    assert read(write_jsonl(tmp_path / "x.jsonl", [PAIR | {"positive": text}]))[0][0][1] == text


@pytest.mark.parametrize("text", ['{"title": "t", "text": "b"}', "[{'text': 'b'}]"])
def test_passages_as_text(tmp_path, text):
    error(read, write_jsonl(tmp_path / "x.jsonl", [PAIR | {"positive": text}]))
    other = text.replace("text", "key").replace("[", "")
    assert read(write_jsonl(tmp_path / "x.jsonl", [PAIR | {"positive": other}]))[0][0][1] == other


def test_quotes_of_a_tsv_are_text(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text('anchor\tpositive\n1\t"p\n2\t"Stop" he said\n3\tq"\n4\t"r"\n')
    wanted = [("1", '"p', ()), ("2", '"Stop" he said', ()), ("3", 'q"', ()), ("4", '"r"', ())]
    assert read(path)[0] == wanted
    path.write_text('anchor\tpositive\n1\tp\n2\t"q\nr"\n')
    text = error(read, path)
    assert "x.tsv, line 4: not 2 cells" in text and "in a .tsv no text can run over a line" in text


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_the_mark_between_cells_of_a_csv(tmp_path, mark):
    path = tmp_path / "x.csv"
    rows = [["anchor", " positive"], ['"a, b; c"', "p"]]
    path.write_text("\n".join(mark.join(row) for row in rows) + "\n")
    assert read(path)[0] == [("a, b; c", "p", ())]


@pytest.mark.parametrize(
    ("lines", "suffix"),
    [
        ("gold_label\tsentence1\nentailment\ta\n", ".tsv"),
        ('{"text": "a"}\n{"text": "b"}\n', ".jsonl"),
    ],
)
def test_a_table_named_txt(tmp_path, lines, suffix):
    (tmp_path / "x.txt").write_text(lines)
    assert f"rename it to x{suffix}" in error(read, tmp_path / "x.txt")
    (tmp_path / "x.txt").write_text("one\ttab\nand none\n{x}\n")
    assert len(read(tmp_path / "x.txt")[0]) == 3


# --- folders --------------------------------------------------------------------------------------


def write_all(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(folder / name, [{"anchor": name, "positive": "p"}])


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["train.jsonl", "validation.jsonl", "test.jsonl"], ["train.jsonl"]),
        (["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl",
          "data/test-00000-of-00001.jsonl"], ["data/train-00000-of-00002.jsonl",
                                              "data/train-00001-of-00002.jsonl"]),
        (["train/0.jsonl", "dev/0.jsonl", "extra.jsonl"], ["train/0.jsonl"]),
        (["a.jsonl", "b.jsonl", "nli_test.jsonl", "Dev.jsonl"], ["a.jsonl", "b.jsonl"]),
        (["contest.jsonl", "latest.jsonl", "devices.jsonl"],
         ["contest.jsonl", "devices.jsonl", "latest.jsonl"]),
    ],
)  # fmt: skip
def test_a_folder_is_read_for_its_training_split(tmp_path, names, wanted):
    folder = tmp_path / "testing"  # above the folder nothing counts
    write_all(folder, names)
    for spec in (folder, folder / "**" / "*.jsonl"):
        found, reports = read(spec)
        assert [row[0] for row in found] == wanted
        for name in set(names) - set(wanted):
            assert name in reports[0].split("another split: ")[1]


def test_a_folder_without_a_training_split_is_refused(tmp_path):
    write_all(tmp_path, ["test.jsonl", "dev.jsonl"])
    assert "no files of the split train, only of validation and test" in error(read, tmp_path)
    assert read(tmp_path / "test.jsonl")[0] == [("test.jsonl", "p", ())]


def test_saved_datasets(tmp_path):
    table = datasets.Dataset.from_list([PAIR] * 2)
    other = datasets.Dataset.from_list([PAIR | {"anchor": "b"}] * 2)
    datasets.DatasetDict({"train": table, "test": other}).save_to_disk(str(tmp_path / "both"))
    found, (report,) = read(tmp_path / "both")
    assert found == [("a", "p", ())] * 2
    assert "another split: test/data-00000-of-00001.arrow" in report
    table.save_to_disk(str(tmp_path / "one"))
    datasets.load_from_disk(str(tmp_path / "one")).map(lambda row: {"anchor": "cached"})
    caches = list((tmp_path / "one").glob("cache-*.arrow"))
    assert caches and read(tmp_path / "one")[0] == [("a", "p", ())] * 2


def read_search(folder):
    """Its queries, corpus and judgements."""
    return read_beir(tables_of(beir_of(folder)))


def test_an_empty_document_stays_in_the_corpus(tmp_path):
    write_jsonl(tmp_path / "queries.jsonl", [{"_id": "q", "text": "a"}])
    write_jsonl(tmp_path / "corpus.jsonl", [{"_id": "1", "title": "", "text": ""},
                                            {"_id": "2", "text": "b"}])  # fmt: skip
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq\t2\t1\n")
    assert read_search(tmp_path)[1] == {"1": "", "2": "b"}
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"_id": "1", "body": "b"}) + "\n")
    assert "neither title nor text" in error(read_search, tmp_path)


def test_a_folder_in_beirs_layout_is_training_data(tmp_path):
    """Judged above 0: positives; else hard negatives. Another split's judgements are not read."""
    folder = tmp_path / "search"
    (folder / "qrels").mkdir(parents=True)
    texts = {"d1": "one", "d2": "two", "d3": "three", "d4": "of nobody"}
    write_jsonl(folder / "corpus.jsonl", [{"_id": k, "title": "T" * (k == "d2"), "text": t}
                                          for k, t in texts.items()])  # fmt: skip
    queries = [{"_id": f"q{i}", "text": f"query {i}"} for i in range(4)]
    write_jsonl(folder / "queries.jsonl", queries)
    head = "query-id\tcorpus-id\tscore\n"
    train = folder / "qrels/train.tsv"
    train.write_text(head + "q1\td1\t1\nq1\td3\t0\nq2\td2\t2\nq2\td1\t1\nq3\td1\t0\n")
    (folder / "qrels/test.tsv").write_text(head + "q0\td4\t1\n")
    rows, (report,) = read(folder)
    second = [("query 2", "T two", ()), ("query 2", "one", ())]
    assert rows == [("query 1", "one", ("three",)), *second]
    assert "train.tsv" in report and "another split: qrels/test.tsv" in report
    assert read(folder, together=True)[0][1] == ("query 2", "T two", ("one",))
    train.write_text(head + "q1\td1\t1\nq1\td9\t1\nq9\td1\t1\n")
    message = error(read_training, str(folder), negatives=1)
    assert "train.tsv, query 1: the document d9 of query q1 is not in the corpus" in message
    train.write_text(head + "q1\td1\t1\nq9\td1\t1\n")
    message = error(read_training, str(folder), negatives=1)
    assert "query 2: the query q9 is not among the queries" in message
    rows, (report,) = read(folder, on_bad_rows="skip")
    assert rows == [("query 1", "one", ())] and "1 rejected" in report
    (folder / "corpus.jsonl").rename(folder / "documents.jsonl")
    assert "without corpus.jsonl" in error(read_training, str(folder), negatives=1)


def test_judgements_are_tabbed_text_without_quotes(tmp_path):
    write_jsonl(tmp_path / "queries.jsonl", [{"_id": "q", "text": "a"}])
    write_jsonl(tmp_path / "corpus.jsonl", [{"_id": '"1', "text": "a"}, {"_id": "2", "text": "b"}])
    path = tmp_path / "qrels/test.tsv"
    path.parent.mkdir()
    path.write_text('query-id\tcorpus-id\tscore\nq\t"1\t1\nq\t2\t0\n')
    assert read_search(tmp_path)[2] == {"q": {'"1': 1, "2": 0}}
    path.write_bytes("q\t\u00e9\t1\n".encode("latin-1"))
    assert "test.tsv, line 1: not UTF-8 text" in error(read_search, tmp_path)


def test_numbers_and_labels_of_cells() -> None:
    assert [to_label(x, "label") for x in (1, 1.0, True, " 1 ", 0.5)] == ["1", "1", "1", "1", "0.5"]
    assert [to_number(x, "score") for x in ("2", 1, -0.5)] == [2.0, 1.0, -0.5]
    for value in ("inf", float("-inf"), "nan", True, None, "much"):
        with pytest.raises(BadRow, match="score is .*, a number expected"):
            to_number(value, "score")
    row = Example("a", "b", ("c", "d", "e"), 0, (0.9, 0.1, 0.2, 0.3)).only([2, 0])
    assert (row.negatives, row.scores) == (("e", "c"), (0.9, 0.3, 0.1))
