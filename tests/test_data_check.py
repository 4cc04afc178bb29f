"""--data.check: all data is read and shown, every bad row at once, and nothing is loaded; and the
line at the start of a run."""

from __future__ import annotations

import pytest
from test_data_formats import write_jsonl
from tiny_models import SENTENCES, tiny_bert

from mipic_llm.commands import train
from mipic_llm.commands.run import run_main
from mipic_llm.config import load_config
from mipic_llm.data import stream
from mipic_llm.data.token_cache import LazyTokens, StoredTokens, build
from mipic_llm.data.tokenise import TextEncoder
from mipic_llm.training import setup
from mipic_llm.training.survey import script

LONG = " ".join(SENTENCES[:4])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model whose weights cannot be read, rows with every oddity, and validation pairs."""
    folder = tmp_path_factory.mktemp("check")
    tiny_bert(folder / "bert")
    (folder / "bert" / "model.safetensors").write_text("whoever reads this fails")
    pairs = list(zip(SENTENCES[::2], SENTENCES[1::2], strict=True))
    rows = [{"anchor": a, "positive": b, "neg": "\u043d\u0435\u0442", "id": a} for a, b in pairs]
    rows[1] = dict(rows[0])  # repeated
    rows[2]["positive"] = rows[2]["anchor"]
    rows[3]["neg"] = [LONG, rows[3]["positive"], "\u03bd\u03b1\u03b9"]  # cut; a positive; another
    write_jsonl(folder / "good.jsonl", rows)
    scored = [r | {"scores": [9, *range(5, 5 + (3 if i == 3 else 1))]} for i, r in enumerate(rows)]
    scored[4]["scores"] = [2, 3]
    write_jsonl(folder / "scored.jsonl", scored)
    rows[4]["positive"], rows[5]["anchor"] = " ", None
    write_jsonl(folder / "bad.jsonl", rows)
    with (folder / "bad.jsonl").open("a") as file:
        file.write('{"anchor": \n')
    (folder / "broken.jsonl").write_text("{}\n")
    scored = [{"sentence1": SENTENCES[6], "sentence2": f"no {i}", "score": i} for i in range(3)]
    write_jsonl(folder / "valid.jsonl", scored)
    return folder


def run(argv: list[str]) -> int:
    with pytest.raises(SystemExit) as stop:
        run_main(train.main, argv)
    return stop.value.code


def flags(place, *train_files: str, **more: str) -> list[str]:
    values = {"data.validation": str(place / "valid.jsonl"), "data.max_length": "32",
              "data.negatives": "2", "objective.dims": "none", "train.batch_size": "2",
              "data.token_cache": "off"}  # fmt: skip
    files = [str(place / name) for name in train_files]
    pairs = [word for k, v in {**values, **more}.items() for word in (f"--{k}", v)]
    return ["--recipe", "none", "--model.name", str(place / "bert"), "--pic.enabled", "false",
            "--sia.layers", "1", "--data.train", *files, *pairs]  # fmt: skip


def test_good_data(place, capsys, tmp_path) -> None:
    out = str(tmp_path / "out")
    argv = flags(place, "good.jsonl", **{"data.check": "true", "output_dir": out})
    assert run(argv) == 0
    said = capsys.readouterr().out
    for part in (
        "validation " + str(place / "valid.jsonl"), "3 rows of", "training ",
        "anchor/positive/neg; ignored: id; 1 negatives left out, equal to their anchor",
        "12, of them 1 repeated, 1 with a positive equal to the anchor",
        "negatives  1 to 2 in a row, 13 in all", "1 rows have a text of the validation data",
        "12, 11 different; tokens: ", "1 of 13 cut at 32",
        "scripts: Cyrillic 84.6%, Latin 7.7%, Greek 7.7%", "0 bad; nothing was trained",
    ):  # fmt: skip
        assert part in said, part
    assert not (tmp_path / "out").exists() and "scores " not in said
    assert run(flags(place, "scored.jsonl", **{"data.check": "true", "output_dir": out})) == 0
    said = capsys.readouterr().out
    assert "scores     of 12 rows: positives 2 to 9, negatives 3 to 7; 1 with a negative" in said


def test_scored_pairs_and_a_score_column(place, capsys) -> None:
    more = {"data.check": "true"}
    assert run(flags(place, "valid.jsonl", **more)) == 0
    assert "scores     0 to 2, 3 different" in capsys.readouterr().out
    assert run(flags(place, "valid.jsonl", "good.jsonl", **more, **{"data.score_column": "x"})) == 2
    assert "no file of data.train has pairs and a column x; give" in capsys.readouterr().out


def test_every_bad_row_and_file_at_once(place, capsys) -> None:
    argv = flags(place, "bad.jsonl", "broken.jsonl", "good.jsonl", **{"data.check": "true"})
    assert run(argv) == 2
    said = capsys.readouterr().out
    for part in ("line 5: empty positive", "line 6: anchor is null", "line 13: broken JSON",
                 "broken.jsonl: found columns none", "12, of them 1 repeated",
                 "4 bad; mend them, or leave bad rows out with --data.on_bad_rows skip;",
                 ):  # fmt: skip
        assert part in said, part
    assert run(flags(place, "broken.jsonl", **{"data.check": "true"})) == 2
    assert "1 bad; mend them; nothing was trained" in capsys.readouterr().out  # no row to leave out
    more = {"data.check": "true", "data.validation": str(place / "broken.jsonl")}
    assert run(flags(place, "good.jsonl", **more)) == 2
    assert "found columns" in capsys.readouterr().out


def test_rows_on_disk_give_the_same_table(place, capsys, tmp_path, monkeypatch) -> None:
    """Of every kind, good and bad, block by block; nothing is left behind."""
    monkeypatch.setattr("mipic_llm.data.stream.BLOCK", 3)
    monkeypatch.setattr("mipic_llm.training.survey.LOOKED_AT", 4)
    built, build = [], stream.Reading.build
    monkeypatch.setattr(stream.Reading, "build", lambda *a: (built.append(a[0].spec), build(*a)))
    nli = [{"premise": "a b", "hypothesis": f"c {n}", "label": n % 3} for n in range(9)]
    write_jsonl(tmp_path / "nli.jsonl", nli)
    classes = [{"text": s, "label": n % 3} for n, s in enumerate(SENTENCES)]
    write_jsonl(tmp_path / "classes.jsonl", classes)
    graded = [{"sentence1": a, "sentence2": "b c", "label": n / (1 if n < 4 else 2)}
              for n, a in enumerate(SENTENCES[:9])]  # fmt: skip
    write_jsonl(tmp_path / "graded.jsonl", graded)
    names = ["broken.jsonl", "good.jsonl", "scored.jsonl", "bad.jsonl", str(tmp_path / "nli.jsonl"),
             str(tmp_path / "classes.jsonl"), str(tmp_path / "graded.jsonl")]  # fmt: skip
    more = {"data.label_column": "label", "data.token_cache": str(tmp_path / "cache"),
            "data.check": "true", "data.validation_split": "2"}  # fmt: skip
    told = []
    for option in ("false", "true"):
        code = run(flags(place, *names, **more, **{"data.stream": option}))
        told.append((code, capsys.readouterr().out))
    for a, b in zip(told[0][1].splitlines(), told[1][1].splitlines(), strict=False):
        assert a == b
    assert told[0] == told[1] and told[0][0] == 2 and "validation split" in told[0][1]
    assert "scored pairs sentence1/sentence2/label (0 to 4, larger = more alike)" in told[0][1]
    assert len(built) == len(names) and not list((tmp_path / "cache").iterdir())


def test_a_label_column_that_no_file_has_is_bad(place, capsys) -> None:
    more = {"data.label_column": "lable", "data.check": "true"}
    assert run(flags(place, "good.jsonl", **more)) == 2
    assert "data.label_column: no file of data.train has text and" in capsys.readouterr().out


@pytest.mark.parametrize("streamed", ["false", "true"])
def test_rows_are_those_of_the_training_where_positives_are_averaged(
    place, capsys, tmp_path, streamed
) -> None:
    rows = [{"query": f"{SENTENCES[i]} why", "pos": [SENTENCES[i], SENTENCES[i + 4]],
             "neg": [SENTENCES[i + 8]], "scores": [5, 4, 2]} for i in range(4)]  # fmt: skip
    write_jsonl(tmp_path / "several.jsonl", rows)
    more = {"data.positives": "averaged", "data.check": "true", "data.stream": streamed,
            "data.token_cache": str(tmp_path / "cache")}  # fmt: skip
    assert run(flags(place, str(tmp_path / "several.jsonl"), **more)) == 0
    said = capsys.readouterr().out
    assert "rows       4, of them 0 repeated" in said and "1 to 1 in a row, 4 in all" in said
    assert "positives  8, 8 different" in said
    assert "of 4 rows: positives 4 to 5, negatives 2 to 2; 0 with a negative above" in said


def test_only_the_first_process_answers(place, capsys, monkeypatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run(flags(place, "bad.jsonl", **{"data.check": "true"})) == 0
    assert not capsys.readouterr().out


def test_the_line_at_the_start(place, capsys) -> None:
    setup.open_run(load_config(flags(place, "good.jsonl")))
    said = capsys.readouterr().out.splitlines()
    # 11 anchors, 11 positives, 3 negatives: each text once per kind
    assert (
        "texts: 1 of 25 cut at 32 tokens; of 12 rows 1 are repeated, 1 have a positive equal to "
        "their anchor, 1 have a text of the validation data"
    ) in said, said


def test_cut_texts_are_counted_in_the_cache_too(place, tmp_path) -> None:
    from transformers import AutoTokenizer

    from mipic_llm.data.read.training import read_training

    (source,), _ = read_training(str(place / "good.jsonl"), negatives=2)
    tokenizer = AutoTokenizer.from_pretrained(place / "bert")
    encoder = TextEncoder(tokenizer, 32, append_eos_id=None, prompts={})
    build(tmp_path / "cache", source.examples, encoder)
    assert StoredTokens(tmp_path / "cache").cut() == (12 + 12 + 13, 1)
    assert LazyTokens(source.examples, encoder).cut()[1] == 1
    exact = len(tokenizer(LONG)["input_ids"])
    for length, cut in ((exact, 0), (exact - 1, 1)):  # a text that just fits is not cut
        encoder = TextEncoder(tokenizer, length, append_eos_id=None, prompts={})
        encoder.ids([LONG, SENTENCES[0]])
        assert (encoder.made, encoder.cut) == (2, cut)


def test_a_folder_that_is_trained_on_and_judged_by(place, capsys) -> None:
    """Its corpus is one for both; a leak is a query, or an answer, that both have."""
    folder = place / "search"
    (folder / "qrels").mkdir(parents=True)
    for name in ("corpus", "queries"):
        rows = [{"_id": i, "text": f"{name} {SENTENCES[i]}"} for i in range(6)]
        write_jsonl(folder / f"{name}.jsonl", rows)

    def judge(split: str, *pairs: tuple[int, int]) -> None:
        text = "".join(f"{q}\t{d}\t1\n" for q, d in pairs)
        (folder / "qrels" / f"{split}.tsv").write_text("q\td\ts\n" + text)

    judge("train", (0, 0), (1, 1), (2, 2), (3, 3))
    more = {"data.validation": str(folder), "data.check": "true"}
    for judged, leaks in (([(4, 4), (5, 5)], 0), ([(4, 3)], 1), ([(0, 5)], 1)):
        judge("dev", *judged)
        assert run(flags(place, "search", **more)) == 0
        text = capsys.readouterr().out
        assert f"leaks      {leaks} rows have a text of the validation data" in text
        assert "judged in" in text and "dev.tsv" in text and "4 rows of" in text


@pytest.mark.parametrize(
    ("text", "name"),
    [("12 !", "no letters"), ("\u4e2d\u6587 a", "Cjk"), ("\u3042", "Hiragana"),
     ("Caf\u00e9", "Latin")],
)  # fmt: skip
def test_scripts(text, name) -> None:
    assert script(text) == name
