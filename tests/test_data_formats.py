"""Every row format and container round-trips; every bad input gives its one line."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import sys
from pathlib import Path

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from mipic_llm.data.read.labelled import read_scored_pairs
from mipic_llm.data.read.rows import Example, ReadReport
from mipic_llm.data.read.training import as_list, read_training
from mipic_llm.errors import UserError


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def read(path, negatives=2, **more):
    (source,), (report,) = read_training([str(path)], negatives=negatives, **more)
    return [tuple(row[:3]) for row in source.examples], report


def error(call, *args, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    text = str(caught.value)
    assert "\n" not in text and len(text) > 20
    return text


def passage(text, title=""):
    return {"docid": "1", "title": title, "text": text}


def said(text):
    return [{"role": "user", "content": text}]


FORMATS = {
    "unlabelled text": ([{"text": "a", "source": "s"}], [("a", None, ())]),
    "unlabelled sentence": ([{"sentence": "a", "label": 3}], [("a", None, ())]),
    "anchor/positive": ([{"anchor": "a", "positive": "p"}], [("a", "p", ())]),
    "anchor/positive/negative": (
        [
            {"anchor": "a", "positive": "p", "negative": "n"},
            {"anchor": "b", "positive": "q", "negative": ["n1", "n2", "n3"]},
            {"anchor": "c", "positive": "r", "negative": None},
            {"anchor": "d", "positive": "s"},
        ],
        [("a", "p", ("n",)), ("b", "q", ("n1", "n2")), ("c", "r", ()), ("d", "s", ())],
    ),
    "anchor/positive/negative_1/../negative_10": (
        [
            {
                "anchor": "a",
                "positive": "p",
                "negative_10": "z",
                "negative_2": "y",
                "negative_1": "x",
            }
        ],
        [("a", "p", ("x", "y"))],
    ),
    "query/pos/neg": (
        [{"query": "a", "pos": ["p", "q"], "neg": ["n"], "prompt": "x"}],
        [("a", "p", ("n",)), ("a", "q", ("n",))],
    ),
    "query/positives/negatives": (
        [{"query": "a", "positives": ["p", "q"], "negatives": ["n"], "pos_scores": [1, 0.9]}],
        [("a", "p", ("n",)), ("a", "q", ("n",))],
    ),
    "question/positive/negatives": (
        [{"question": "a", "positive": "p", "negatives": ["n"]}],
        [("a", "p", ("n",))],
    ),
    "query/positive/negatives": (
        [{"query": "a", "positive": "p", "negatives": ["n"]}],
        [("a", "p", ("n",))],
    ),
    "query/positive_passages/negative_passages": (
        [
            {
                "query_id": "1",
                "query": "a",
                "positive_passages": [passage("p", "T"), passage("q")],
                "negative_passages": [passage("n")],
            }
        ],
        [("a", "T p", ("n",)), ("a", "q", ("n",))],
    ),
    "query/pos_doc/neg_doc": (
        [{"query": "a", "pos_doc": "p", "neg_doc": ["n", "m", "o"]}],
        [("a", "p", ("n", "m"))],
    ),
    "question/pos_doc/neg_doc": (
        [{"question": "a", "pos_doc": [passage("p")], "neg_doc": [passage("n")]}],
        [("a", "p", ("n",))],
    ),
    "messages/positive_messages/negative_messages": (
        [
            {
                "messages": [{"role": "system", "content": "be"}, *said("a")],
                "positive_messages": [said("p")],
                "negative_messages": [said("n"), said("m")],
            }
        ],
        [("be\na", "p", ("n", "m"))],
    ),
    "query/response/rejected_response": (
        [{"query": "a", "response": "p", "rejected_response": ["n"], "label": 1}],
        [("a", "p", ("n",))],
    ),
    "query/answer": ([{"query": "a", "answer": "p"}], [("a", "p", ())]),
    "question/answer": ([{"question": "a", "answer": "p"}], [("a", "p", ())]),
    "sentence1/sentence2": ([{"sentence1": "a", "sentence2": "p"}], [("a", "p", ())]),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_row_formats(tmp_path, kind):
    rows, expected = FORMATS[kind]
    found, report = read(write_jsonl(tmp_path / "x.jsonl", rows))
    assert found == expected
    assert report.kind == kind and report.n_rows == len(rows) and report.n_kept == len(expected)


def test_negatives_that_are_positives_of_their_anchor_are_left_out(tmp_path):
    rows = [
        {"query": "a", "pos": ["p", "q"], "neg": ["q ", "n", "a", "m", "o"]},
        {"query": "a", "pos": ["r"], "neg": ["p", "r", "n"]},  # p: of the row before
        {"query": "b", "pos": ["s"], "neg": ["p"]},  # right for a alone
    ]
    wanted = [
        ("a", "p", ("n", "m")),
        ("a", "q", ("n", "m")),
        ("a", "r", ("n",)),
        ("b", "s", ("p",)),
    ]
    found, report = read(write_jsonl(tmp_path / "x.jsonl", rows))
    assert found == wanted
    assert "6 negatives left out, equal to their anchor or its positives" in str(report)
    write_jsonl(tmp_path / "x.jsonl", rows[:1])
    write_jsonl(tmp_path / "y.jsonl", rows[1:])  # files of one source know each other
    (source,), reports = read_training(str(tmp_path), negatives=2)
    assert [tuple(row[:3]) for row in source.examples] == wanted
    assert [report.n_false for report in reports] == [4, 2]
    both = [str(tmp_path / "x.jsonl"), str(tmp_path / "y.jsonl")]  # and so do sources
    assert [len(s.examples[0].negatives) for s in read_training(both, negatives=2)[0]] == [2, 1]


def test_no_negatives_asked_for(tmp_path):
    path = write_jsonl(tmp_path / "x.jsonl", FORMATS["query/pos/neg"][0])
    assert read(path, negatives=0)[0] == [("a", "p", ()), ("a", "q", ())]


@pytest.mark.parametrize("labels", [("entailment", "Neutral", "contradiction", "-"), (0, 1, 2, -1)])
def test_nli(tmp_path, labels):
    yes, maybe, no, none = labels
    cells = [
        ("a", "e1", yes), ("b", "e", yes), ("a", "c1", no), ("a", "n", maybe), ("a", "e2", yes),
        ("a", "c2", no), ("c", "c", no), ("a", "x", none),
    ]  # fmt: skip
    rows = [dict(zip(("premise", "hypothesis", "label"), cell, strict=True)) for cell in cells]
    found, report = read(write_jsonl(tmp_path / "x.jsonl", rows), negatives=1)
    # Premise a: both entailments, each with another contradiction; b: a pair; c: nothing to learn.
    assert found == [("a", "e1", ("c1",)), ("a", "e2", ("c2",)), ("b", "e", ())]
    assert "read 8 rows" in str(report) and "giving 3 examples" in str(report)
    (tmp_path / "parts").mkdir()  # a premise's rows may be in several files, some without the other
    for i, some in enumerate((rows[:1], rows[1:3], rows[3:6], rows[6:])):
        write_jsonl(tmp_path / "parts" / f"{i}.jsonl", some)
    (source,), reports = read_training(str(tmp_path / "parts"), negatives=1)
    assert [example[:3] for example in source.examples] == found
    assert [report.n_kept for report in reports] == [1, 1, 1, 0]
    rows[0]["label"] = "perhaps"
    text = error(read, write_jsonl(tmp_path / "x.jsonl", rows))
    assert "line 1: label is 'perhaps', expected entailment" in text
    text = error(read, write_jsonl(tmp_path / "x.jsonl", rows[2:3]))
    assert "holds no entailment pair" in text


# --- containers -----------------------------------------------------------------------------------

ROWS = [
    {"anchor": "one \u00e9, two", "positive": 'p "quoted"\nline', "negative": "n"},
    {"anchor": "b", "positive": "q", "negative": None},
]
EXPECTED = [("one \u00e9, two", 'p "quoted"\nline', ("n",)), ("b", "q", ())]


def write_container(folder, name):
    path = folder / name
    columns, rows = ["anchor", "positive", "negative"], ROWS
    if "tsv" in name:
        rows = [{k: v and v.replace("\n", " ") for k, v in row.items()} for row in ROWS]
    if "jsonl" in name or name.endswith(("lines.json", ".ndjson")):
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n\n"
    elif name.endswith(".json"):
        text = json.dumps(ROWS, indent=1)
    elif "sv" in name:
        with open(path, "w", newline="", encoding="utf-8-sig") as file:
            writer = csv.writer(file, delimiter=";" if "semicolon" in name else ",")
            if "tsv" in name:  # as it lies on the web: quotes are text
                writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None)
            writer.writerows([columns, *([row[c] for c in columns] for row in rows)])
        return path
    else:
        table = pyarrow.Table.from_pylist(ROWS)
        if "binary" in name:
            table = table.cast(pyarrow.schema([(c, pyarrow.binary()) for c in columns]))
        if name.endswith(".parquet"):
            pyarrow.parquet.write_table(table, path)
        else:
            new = pyarrow.ipc.new_file if name == "file.arrow" else pyarrow.ipc.new_stream
            with new(str(path), table.schema) as writer:
                writer.write_table(table)
        return path
    data = text.encode("utf-8-sig" if "bom" in name else "utf-8")
    pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}
    path.write_bytes(pack.get(path.suffix, bytes)(data))
    return path


def zstd(data: bytes) -> bytes:
    """Two frames, as a file that was appended to has them."""
    codec, half = pyarrow.Codec("zstd"), len(data) // 2
    return b"".join(codec.compress(part, asbytes=True) for part in (data[:half], data[half:]))


CONTAINERS = [
    "x.jsonl", "bom.jsonl", "x.jsonl.gz", "x.jsonl.bz2", "bom.jsonl.xz", "x.jsonl.zst",
    "bom.jsonl.zst", "x.ndjson", "x.json", "bom.json", "lines.json", "x.csv", "x.tsv",
    "semicolon.csv", "x.parquet", "binary.parquet", "file.arrow", "stream.arrow",
]  # fmt: skip


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers(tmp_path, name):
    path = write_container(tmp_path, name)
    found, report = read(path)
    wanted = [(a, p.replace("\n", " "), n) for a, p, n in EXPECTED] if "tsv" in name else EXPECTED
    assert found == wanted
    assert str(report) == f"read 2 rows of {path} as anchor/positive/negative"


def test_text_lines(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo \r\n\r\n")
    assert read(path)[0] == [("one", None, ()), ("two ", None, ())]
    path.write_bytes(b"one\n \ntwo\n")
    assert "line 2: empty text" in error(read, path)


def test_directory_glob_and_saved_dataset(tmp_path):
    for name in ("b.jsonl", "a.csv"):
        write_container(tmp_path, name)
    (tmp_path / "README.md").write_text("not data")
    (tmp_path / ".hidden.jsonl").write_text("not data")
    for spec in (tmp_path, tmp_path / "*.*[lv]"):
        (source,), reports = read_training([f"{spec}"], negatives=1)
        assert [row[:3] for row in source.examples] == EXPECTED * 2
        assert [row.id for row in source.examples] == [0, 1, 2, 3]
        assert [report.path[-5:] for report in reports] == ["a.csv", "jsonl"]
    import datasets

    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"))
    assert read(tmp_path / "saved")[0] == EXPECTED


def test_weights(tmp_path):
    path = write_container(tmp_path, "x.jsonl")
    odd = write_container(tmp_path, "x=2.csv")
    specs = [f"{path}=0.5", str(path), f"{odd}", f"{odd}=3"]
    sources, _ = read_training(specs, negatives=1)
    assert [source.weight for source in sources] == [0.5, 1.0, 1.0, 3.0]
    assert sources[0].name == str(path)
    assert "weight of" in error(read, f"{path}=0")
    assert "give a number above 0" in error(read, f"{path}=-1")


def test_hub_ids(monkeypatch):
    import datasets

    calls = []

    def load(name, config, **more):
        calls.append((name, config, more))
        if name == "me/gone":
            raise ConnectionError("Couldn't reach\n the Hub (offline mode is enabled)")
        return [{"anchor": "a", "positive": "p", "sentence1": "s", "sentence2": "t", "score": i}
                for i in range(2)]  # fmt: skip

    monkeypatch.setattr(datasets, "load_dataset", load)
    found, report = read("me/set:cfg@v1.2[train[:10%]]", cache_dir="c", ignore=["score"])
    assert found == [("a", "p", ())] * 2 and report.unit == "row"
    read("me/set=2", ignore=["score"])
    read_scored_pairs("me/set:cfg")
    read_scored_pairs("set[test]")
    revision, split = "revision", "split"
    assert calls == [
        ("me/set", "cfg", {revision: "v1.2", split: "train[:10%]", "cache_dir": "c"}),
        ("me/set", None, {revision: None, split: "train", "cache_dir": None}),
        ("me/set", "cfg", {revision: None, split: "validation", "cache_dir": None}),
        ("set", None, {revision: None, split: "test", "cache_dir": None}),
    ]
    text = error(read, "me/gone")
    assert "me/gone is no file here" in text and "Couldn't reach the Hub" in text


def test_demo(monkeypatch, tmp_path):
    demo = pytest.importorskip("mipic_llm.data.demo")
    pairs = [{"sentence1": "a", "sentence2": "b", "score": i} for i in range(3)]
    paths = {
        "train": write_container(tmp_path, "x.jsonl"),
        "validation": write_jsonl(tmp_path / "v.jsonl", pairs),
    }
    monkeypatch.setattr(demo, "demo_path", paths.__getitem__, raising=False)
    (source,), _ = read_training(["demo=2"], negatives=1)
    assert source.name == "demo" and source.weight == 2 and len(source.examples) == 2
    assert len(read_scored_pairs("demo")[0]) == 3


# --- bad input ------------------------------------------------------------------------------------


def test_missing_files(tmp_path):
    write_container(tmp_path, "train.jsonl")
    assert f"did you mean {tmp_path / 'train.jsonl'}?" in error(read, tmp_path / "trian.jsonl")
    assert "no such file" in error(read, tmp_path / "trian.jsonl")
    assert "does not exist either" in error(read, tmp_path / "no" / "x.jsonl")
    assert "no file matches" in error(read, tmp_path / "*.csv")
    (tmp_path / "empty").mkdir()
    assert "holds no data file; accepted: .jsonl" in error(read, tmp_path / "empty")
    (tmp_path / "x.xlsx").write_text("x")
    assert "unknown file type .xlsx" in error(read, tmp_path / "x.xlsx")
    assert "names no data" in error(read_training, [], negatives=1)


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv", "x.txt"])
@pytest.mark.parametrize("content", ["", "\n\n"])
def test_empty_files(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert f"{name} is empty" in error(read, tmp_path / name)


GOOD = '{"anchor": "a", "positive": "p", "negative": "n"}\n'
BAD_LINES = {
    '{"anchor": "a", "positive": ': "broken JSON (",
    '["a"]': "a list where an object with columns is expected",
    '{"anchor": "a", "positive": ""}': "empty positive",
    '{"anchor": " \\t", "positive": "p"}': "empty anchor",
    '{"anchor": null, "positive": "p"}': "anchor is null, text expected",
    '{"anchor": 3, "positive": "p"}': "anchor is a number, text expected",
    '{"anchor": ["a", "b"], "positive": "p"}': "anchor holds 2 texts, one expected",
    '{"anchor": "a", "positive": true}': "positive is true/false, text expected",
    '{"anchor": "a", "positive": []}': "empty positive",
    '{"anchor": "a", "positive": {"id": 1}}': "positive is an object without a text",
    '{"anchor": "a", "positive": "p", "negative": ["n", 3]}': "negative is a number, text expected",
    '{"anchor": "a", "positive": "[\'p\', \'q\']"}': "positive is a list written as text",
    '{"text": "a"}': "column anchor is missing (found text)",
    "{}": "column anchor is missing (found none)",
    '{"anchor": "\\ud800", "positive": "p"}': "anchor holds half a unicode character",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_bad_lines(tmp_path, line):
    path = tmp_path / "x.jsonl"
    path.write_text(GOOD + "\n" + line + "\n" + GOOD)  # the blank line counts, but is no row
    text = error(read, path)
    assert f"{path}, line 3: {BAD_LINES[line]}" in text and "--data.on_bad_rows skip" in text
    found, report = read(path, on_bad_rows="skip")
    assert found == [("a", "p", ("n",))] * 2
    assert report.n_rows == 3 and report.n_kept == 2
    assert report.rejected[0][0] == 3 and report.rejected[0][1].startswith(BAD_LINES[line])
    assert f"(1 rejected: line 3: {BAD_LINES[line]}" in str(report)


DEEP = 900 if sys.version_info < (3, 12) else 1_200
ODD_JSON = {
    "deep": ('{"text": ' + "[" * 99_999 + "]" * 99_999 + "}", "lists or objects too deep"),
    # Python 3.12 counts the depth of its C code apart.
    "lists": ('{"text": ' + "[" * DEEP + '"a"' + "]" * DEEP + "}", "lists too deep"),
    "digits": ('{"text": "a", "n": ' + "1" * 5_000 + "}", "a number of too many digits"),
    "score": ('{"sentence1": "a", "sentence2": "b", "score": 1' + "0" * 400 + "}", "score is 10"),
}


@pytest.mark.parametrize("kind", ODD_JSON)
def test_json_that_python_cannot_hold_is_a_bad_row(tmp_path, kind):
    line, says = ODD_JSON[kind]
    (tmp_path / "x.jsonl").write_text(line + "\n")
    assert f"x.jsonl, line 1: {says}" in error(read, tmp_path / "x.jsonl")
    (tmp_path / "x.json").write_text(f"[{line}]")
    assert says in error(read, tmp_path / "x.json")


def test_skip_with_a_bad_first_row_and_with_nothing_left(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("{\n" + GOOD)
    assert read(path, on_bad_rows="skip")[0] == [("a", "p", ("n",))]
    path.write_text("{\n{\n")
    text = error(read, path, on_bad_rows="skip")
    assert "none of its 2 rows can be used (line 1: broken JSON" in text


def test_report_line():
    report = ReadReport("mine.jsonl", "anchor/positive", 5749, 5745, [(17, "empty positive")] * 4)
    one = "line 17: empty positive"
    assert str(report) == (
        f"read 5,749 rows of mine.jsonl as anchor/positive (4 rejected: {one}; {one}; {one}; ...)"
    )


@pytest.mark.parametrize("table", [False, True])
def test_negatives_that_are_not_used_are_told(tmp_path, table):
    """Another trainer takes all of them; ours the first data.negatives."""
    rows = [{"anchor": f"a{i}", "positive": f"p{i}"} for i in range(3)]
    for n, row in enumerate(rows):
        hard = [f"n{n}{k}" for k in range(5 if n == 1 else 1)]
        row |= {f"negative_{k}": hard[k] if k < len(hard) else None for k in range(5)} if table \
            else {"neg": hard}  # fmt: skip
    path = write_jsonl(tmp_path / "x.jsonl", rows)
    told = "a row has up to 5 negatives, more than data.negatives uses"
    for most, said in ((1, True), (4, True), (5, False), (0, False)):
        (report,) = read_training([path], negatives=most)[1]
        assert (told in str(report)) == said, most
    assert told not in str(read_training([path], negatives=1, draw=True)[1][0])
    halves = [r._replace(n_given=n) for r, n in ((report, 3), (report, 0))]
    assert halves[0].plus(halves[1]).n_given == halves[1].plus(halves[0]).n_given == 3


@pytest.mark.parametrize("scored", [False, True])
def test_ids_in_place_of_texts_are_refused(tmp_path, scored):
    one, two = ("sentence1", "sentence2") if scored else ("query", "positive")
    rows = [{one: str(n), two: str(100 + n)} | ({"score": n / 4} if scored else {})
            for n in range(4)]  # fmt: skip
    text = error(read_training, [write_jsonl(tmp_path / "x.jsonl", rows)], negatives=1)
    assert f"{one} and {two} are whole numbers in every row, as ids are" in text
    rows[3][two] = "seven"  # sums and their results, say
    (source,), _ = read_training([write_jsonl(tmp_path / "x.jsonl", rows)], negatives=1)
    assert len(source.examples) == 4


def test_bad_columns_and_mixed_sources(tmp_path):
    path = write_jsonl(tmp_path / "x.jsonl", [{"anker": "a", "positive": "p"}])
    text = error(read, path)
    assert "found columns anker, positive; rename them to: text | anchor, positive |" in text
    write_jsonl(tmp_path / "x.jsonl", [{"text": "a"}])
    write_jsonl(tmp_path / "y.jsonl", [{"anchor": "a", "positive": "p"}])
    text = error(read_training, [str(tmp_path)], negatives=1)
    assert "cannot be mixed in one source" in text
    both = [str(tmp_path / name) for name in ("x.jsonl", "y.jsonl")]
    assert len(read_training(both, negatives=1)[0]) == 2


def test_broken_containers(tmp_path):
    def bad(name, data):
        (tmp_path / name).write_bytes(data)
        return error(read, tmp_path / name)

    assert "line 2: broken JSON" in bad("x.json", b'[{"text": "a"},\n{"text": ]')
    rows = (GOOD * 9999 + '{"text": "\u00e9"}\n').encode("latin-1")
    assert "x.jsonl, line 10000: not UTF-8 text" in bad("x.jsonl", rows)
    assert "line 10000: not UTF-8 text" in bad("x.jsonl.gz", gzip.compress(rows))
    assert "x.txt, line 1: not UTF-8 text" in bad("x.txt", "abc".encode("utf-16"))
    assert "cannot be read" in bad("x.jsonl.gz", b"not gzip")
    assert "cannot be read" in bad("y.jsonl.gz", gzip.compress(GOOD.encode() * 99)[:-20])
    assert "cannot be read" in bad("x.parquet", b"PAR1 not parquet")
    assert "cannot be read" in bad("x.arrow", b"not arrow")
    assert "line 3: not 2 cells" in bad("x.csv", b"anchor,positive\na,p\nb\n")
    assert "line 2: not 2 cells" in bad("y.csv", b"anchor,positive\na,p,q\n")
    assert "z.csv, line 2: a quote where none can be" in bad("z.csv", b'anchor,positive\na,"p"q\n')
    assert "line 4: a quote where none" in bad("z.csv", b'anchor,positive\na,p\nb,"q\nc,r\n')
    quoted = "name it .csv if its cells are in quotes"
    cells = b'a, b\t"She said ""p"""\n'
    assert f"line 3: quotes are doubled, and a .tsv has none; {quoted}" in bad(
        "q.tsv", b"anchor\tpositive\na\tp\n" + cells)  # fmt: skip
    assert f"q.tsv: its columns' names are in quotes, and a .tsv has none; {quoted}" in bad(
        "q.tsv", b'"anchor"\t"positive"\n' + cells)  # fmt: skip
    assert quoted in bad("r.tsv", b'anchor\tpositive\na\t"p\nq"\n')
    (tmp_path / "q.csv").write_bytes(b"anchor\tpositive\n" + cells)
    assert read(tmp_path / "q.csv")[0] == [("a, b", 'She said "p"', ())]
    free = b'anchor\tpositive\n"a" b "c"\t"p"\n""\t""q"" r\n'  # as they stand
    (tmp_path / "s.tsv").write_bytes(free)
    assert [row[:2] for row in read(tmp_path / "s.tsv")[0]] == [
        ('"a" b "c"', '"p"'), ('""', '""q"" r')]  # fmt: skip
    assert "two columns are named anchor" in bad("z.csv", b"anchor,positive,anchor\na,p,b\n")
    assert "line 3: empty positive" in bad("w.csv", b"anchor,positive,negative\na,p,\nb,,\n")


def test_row_numbers_of_tables(tmp_path):
    rows = [{"anchor": "a", "positive": "p"}, {"anchor": "a", "positive": " "}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "x.parquet")
    assert "x.parquet, row 2: empty positive" in error(read, tmp_path / "x.parquet")
    (tmp_path / "x.json").write_text(json.dumps(rows))
    assert "x.json, row 2: empty positive" in error(read, tmp_path / "x.json")


# --- scored pairs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["score", "label"])
def test_scored_pairs(tmp_path, column):
    rows = [{"sentence1": "a", "sentence2": "b", column: s} for s in (1, 2.5)]
    path = write_jsonl(tmp_path / "x.jsonl", rows)
    pairs, report = read_scored_pairs(path)
    assert pairs == [("a", "b", 1.0), ("a", "b", 2.5)]
    assert str(report) == f"read 2 rows of {path} as sentence1/sentence2/score"
    (tmp_path / "y.tsv").write_text(f"sentence1\tsentence2\t{column}\na\tb\t1\na\tb\t2.5\n")
    assert read_scored_pairs(str(tmp_path / "y.tsv"))[0] == pairs
    pairs, report = read_scored_pairs(str(tmp_path))
    assert len(pairs) == report.n_rows == report.n_kept == 4


def test_bad_scored_pairs(tmp_path):
    def bad(*rows):
        path = write_jsonl(tmp_path / "x.jsonl", [{"sentence1": "a", **row} for row in rows])
        return error(read_scored_pairs, path)

    good = {"sentence2": "b", "score": 1}
    for value, shown in (("high", "'high'"), (None, "null"), (True, "True"), ("nan", "'nan'")):
        text = bad(good, {"sentence2": "b", "score": value})
        assert f"line 2: score is {shown}, a number expected" in text
    assert "line 2: empty sentence2" in bad(good, {"sentence2": "", "score": 1})
    assert "found columns sentence1, sentence2, but sentence1, sentence2 and score or label" in bad(
        {"sentence2": "b"}
    )
    assert "found columns sentence1, score, but" in bad({"score": 1})
    assert "every pair has the same score" in bad(good, good)
    assert "no such file" in error(read_scored_pairs, str(tmp_path / "no.jsonl"))


def test_examples_are_numbered(tmp_path):
    path = write_jsonl(tmp_path / "x.jsonl", FORMATS["query/pos/neg"][0] * 2)
    (source,), _ = read_training([path], negatives=1)
    assert source.examples[3] == Example("a", "q", ("n",), 3)


MEMORY = [
    {"anchor": "a cat", "positive": "the cat", "negative": "a dog", "n": 1},
    {"anchor": "a car", "positive": ["the car", "my car"], "negative": None, "n": 2},
]
WANT = [
    Example("a cat", "the cat", ("a dog",), 0),
    Example("a car", "the car", (), 1),
    Example("a car", "my car", (), 2),
]


def test_rows_in_memory_are_read_as_a_file_of_them_is(tmp_path):
    file, flat = write_jsonl(tmp_path / "a.jsonl", MEMORY), MEMORY[:1]
    table = datasets.Dataset.from_list(flat)
    both = datasets.DatasetDict({"train": table, "test": table})
    given = [MEMORY, Path(file), table, both, table.to_iterable_dataset(), tuple(flat), file + "=2"]
    sources, reports = read_training(given, negatives=3)
    assert [s.examples for s in sources] == [WANT, WANT, *[WANT[:1]] * 4, WANT]
    assert [s.weight for s in sources] == [1, 1, 1, 1, 1, 1, 2]
    names = [
        "rows[0]",
        file,
        "Dataset[2]",
        "DatasetDict[3]",
        "IterableDataset[4]",
        "tuple[5]",
        file,
    ]
    assert [s.name for s in sources] == names == [r.path for r in reports]
    assert str(reports[0]) == (
        "read 2 rows of rows[0] as anchor/positive/negative, giving 3 examples; ignored: n"
    )
    for one in (MEMORY, file, table, both):  # one of them is a list of it
        assert as_list(one) == [one]
    assert read_scored_pairs([{"sentence1": "a", "sentence2": "b", "score": n} for n in (1, 2)])


@pytest.mark.parametrize("kind", ["pandas", "arrow", "numpy", "torch", None])
def test_a_format_of_a_dataset_does_not_change_its_rows(kind):
    rows = [{"sentence1": f"a{n}", "sentence2": f"b{n}", "score": n / 4, "more": n}
            for n in range(4)]  # fmt: skip
    table = datasets.Dataset.from_list(rows)
    names = ["sentence1", "sentence2", "score"]
    given = table.with_format(kind, columns=names)
    (source,), (report,) = read_training([given], negatives=1)
    assert [(e.anchor, e.positive, e.scores) for e in source.examples] == [
        (row["sentence1"], row["sentence2"], (row["score"],)) for row in rows]  # fmt: skip
    assert not report.ignored  # of the columns that the format keeps
    turned = table.with_transform(lambda some: {k: [str(v) + "!" for v in some[k]]
                                                for k in names[:2]})  # fmt: skip
    (source,), _ = read_training([turned], negatives=1)
    assert source.examples[0][:2] == ("a0!", "b0!")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([], "names no data"),
        ([[]], "rows[0] is empty"),
        (7, "int[0] is int; give a path, a list of dicts"),
        ([MEMORY, [{"anchor": "a", "positive": ""}]], "rows[1], row 1: empty positive"),
        ([["a text"]], "rows[0], row 1: text where an object with columns is expected"),
        ({"test": MEMORY}, "dict[0] is a dict without the split train (it has test)"),
        ([{"x": "a"}], "rows[0]: found columns x; rename them"),
    ],
)
def test_rows_in_memory_that_cannot_be_used(data, says):
    assert says in error(read_training, data, negatives=1)


def test_names_of_columns_in_capitals_are_known_by_their_small_letters(tmp_path):
    def kind(head: str, row: str, **more):
        (tmp_path / "a.csv").write_text(f"{head}\n{row}\n")
        (source,), (report,) = read_training([str(tmp_path / "a.csv")], negatives=2, **more)
        return source.examples[0], report

    one, report = kind("ID,Question,ANSWER,Lang", "1,who?,me,en")
    assert (one.anchor, one.positive) == ("who?", "me") and "question/answer" in report.kind
    one, _ = kind("Sentence1,Sentence2,Score", "a,b,0.5\nc,d,0.1")
    assert (one.anchor, one.positive, one.scores) == ("a", "b", (0.5,))
    one, _ = kind("Text", "a b")
    assert one.anchor == "a b"
    one, _ = kind("Question,question,answer", "no,yes,a")
    assert one.anchor == "yes", "an exact name goes first"
    with pytest.raises(UserError, match="Negative"):  # it would be left out in silence
        kind("Question,Answer,Negative", "q,a,n")
    with pytest.raises(UserError, match="found columns Query, Answer, Score"):
        kind("Query,Answer,Score", "q,a,1")
    with pytest.raises(UserError, match="found columns Frage, Antwort"):
        kind("Frage,Antwort", "q,a")


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz", "zst"])
def test_a_packed_file_that_was_cut_off_is_no_shorter_file(tmp_path, ending):
    path = write_container(tmp_path, f"x.jsonl.{ending}")
    path.write_bytes(path.read_bytes()[:-9])
    assert "cannot be read" in error(read, path)
    path.write_bytes(b"not packed")
    assert "cannot be read" in error(read, path)


def test_packed_text_by_lines(tmp_path):
    """The head that is looked at is not read twice, and nothing of it is lost."""
    lines = [f"text {i}" for i in range(12)]
    (tmp_path / "x.txt.zst").write_bytes(zstd("\n".join(lines).encode()))
    (source,), _ = read_training([str(tmp_path / "x.txt.zst")], negatives=0)
    assert [e.anchor for e in source.examples] == lines


def test_files_of_a_folder_that_are_not_read_are_named(tmp_path):
    write_container(tmp_path, "x.jsonl")
    for name in ("more.xlsx", "part.tar.gz", "b.feather", "README.md", ".hidden.zip", "run.py"):
        (tmp_path / name).write_bytes(b"x")
    _, report = read(tmp_path)
    assert "NOT READ, of other kinds: b.feather, more.xlsx, part.tar.gz" in str(report)
    assert report.strange == ("b.feather", "more.xlsx", "part.tar.gz")
    assert "NOT READ" not in str(read(tmp_path / "x.jsonl")[1])


@pytest.mark.parametrize("line", ["what is a cat\tA cat is an animal\tA dog", "121352\t29\t72"])
def test_a_table_without_names_of_columns(tmp_path, line):
    """As MS MARCO's triples lie on the web."""
    (tmp_path / "triples.tsv").write_text(f"{line}\n{line}\n")
    told = error(read, tmp_path / "triples.tsv")
    assert "names no columns" in told and "anchor, positive, negative" in told


def test_rows_whose_cells_are_arrays():
    """Of pandas' to_dict after parquet, of a Dataset in numpy's or torch's format."""
    rows = [{"anchor": "a", "positive": "b", "negative": ["c", "d"], "scores": [3.0, 2.0, 1.0]},
            {"anchor": "e", "positive": "f", "negative": [], "scores": [1.0]}]  # fmt: skip
    wanted = read_training([rows], negatives=2)[0][0].examples
    arrays = [row | {"negative": np.array(row["negative"], dtype=object),
                     "scores": np.array(row["scores"])} for row in rows]  # fmt: skip
    data = datasets.Dataset.from_list(rows)
    for form in (arrays, data.with_format("numpy"), data.with_format("torch"),
                 data.to_iterable_dataset().with_format("numpy")):  # fmt: skip
        assert read_training(form, negatives=2)[0][0].examples == wanted
