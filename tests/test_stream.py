"""Rows on disk: the same batches as in memory, builds that go on, and what is refused."""

from __future__ import annotations

import json
import random

import pytest
from test_data_formats import write_jsonl
from tiny_models import SENTENCES, tiny_bert

from mipic_llm.config import SourceConfig, load_config
from mipic_llm.data import growing, layout, row_store, stream, token_cache
from mipic_llm.data.plan import BatchPlan
from mipic_llm.data.read.training import read_training
from mipic_llm.data.split import Split
from mipic_llm.errors import UserError
from mipic_llm.evaluation import fitting
from mipic_llm.evaluation.fitting import texts_for_pca
from mipic_llm.model.directory import open_source
from mipic_llm.training.distinct import MARKS, distinct
from mipic_llm.training.feed import prepare_data
from mipic_llm.training.loop import train
from mipic_llm.training.setup import resolve_for

ROWS = 700


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Files of every kind, with repeated texts, wrong negatives, scores and blanks."""
    folder, draw = tmp_path_factory.mktemp("stream"), random.Random(0)
    tiny_bert(folder / "bert")

    def text() -> str:
        return f"{draw.choice(SENTENCES)} {draw.randrange(60)}" + " " * draw.randrange(2)

    pairs = []
    for _ in range(ROWS):
        hard = [text() for _ in range(draw.randrange(14))]
        pairs.append({"anchor": text(), "positive": text(), "negatives": hard, "id": 3})
        if draw.random() < 0.3:
            pairs[-1] |= {"pos_scores": draw.random(), "neg_scores": [draw.random() for _ in hard]}
        if draw.random() < 0.2:
            hard.append(pairs[-1]["anchor"] if hard else text())
            if "neg_scores" in pairs[-1]:
                pairs[-1]["neg_scores"].append(0.5)
        if draw.random() < 0.2 and hard:  # the positive of the same anchor in another row
            pairs.append({"anchor": pairs[-1]["anchor"], "positive": hard[0], "negatives": []})
    write_jsonl(folder / "pairs.jsonl", pairs)
    write_jsonl(folder / "bare.jsonl", [{"text": f"{text()} {n // 2}"} for n in range(ROWS)])
    scored = [{"sentence1": text(), "sentence2": text(), "score": draw.randrange(6) / 5}
              for _ in range(ROWS)]  # fmt: skip
    write_jsonl(folder / "scored.jsonl", scored)
    for name, n in (("labels.jsonl", ROWS), ("few.jsonl", 30)):
        write_jsonl(folder / name, [{"text": text(), "label": draw.randrange(n // 8) / 2}
                                    for _ in range(n)])  # fmt: skip
    (folder / "nli").mkdir()
    words = ["entailment", "neutral", "contradiction", "-"]
    for name in "ab":
        nli = [{"premise": f"{draw.choice(SENTENCES)}{' ' * draw.randrange(2)}", "hypothesis":
                text(), "gold_label": draw.choice(words)} for _ in range(ROWS // 2)]  # fmt: skip
        write_jsonl(folder / "nli" / f"{name}.jsonl", nli)
    (folder / "two").mkdir()
    write_jsonl(folder / "two" / "a.jsonl", pairs[: ROWS // 3])
    write_jsonl(folder / "two" / "b.jsonl", pairs[ROWS // 3 :])
    (folder / "mixed").mkdir()  # of NLI and of pairs, one after the other
    for name, rows in (("a", pairs[:90]), ("b", nli[:90]), ("c", pairs[90:150]), ("d", nli[50:])):
        write_jsonl(folder / "mixed" / f"{name}.jsonl", rows)
    words = dict(zip(words, ("entailment", "neutral", "contradiction", None), strict=True))
    write_jsonl(folder / "mixed" / "e.jsonl", [
        {"sentence1": r["premise"], "sentence2": r["hypothesis"], "label": words[r["gold_label"]]}
        for r in nli[:80] if words[r["gold_label"]] is not None])  # fmt: skip
    # Whole numbers in the first blocks, fractions later.
    graded = [{**row, "label": float(n % 5) if n < 150 else n / 9} for n, row in enumerate(scored)]
    for row in graded:
        del row["score"]
    write_jsonl(folder / "graded.jsonl", graded)
    # Columns that only some blocks have.
    ragged = [{"anchor": text(), "positive": text(), "match": 1} for _ in range(130)]
    write_jsonl(folder / "ragged.jsonl", pairs[:70] + ragged + pairs[150:300])
    (folder / "search" / "qrels").mkdir(parents=True)  # in BEIR's layout
    write_jsonl(folder / "search" / "corpus.jsonl", [
        {"_id": n, "title": text() * (n % 2), "text": text()} for n in range(200)])  # fmt: skip
    write_jsonl(folder / "search" / "queries.jsonl", [
        {"_id": f"q{n}", "text": text()} for n in range(ROWS)])  # fmt: skip
    judged = [f"q{n}\t{d}\t{int(i < 2)}\n" for n in range(ROWS)
              for i, d in enumerate(draw.sample(range(200), 2 + n % 6))]  # fmt: skip
    (folder / "search" / "qrels" / "train.tsv").write_text("q\td\tscore\n" + "".join(judged))
    return folder


def read(path, negatives: int = 2, skip: bool = False) -> stream.Reading:
    return stream.Reading(str(path), negatives, "skip" if skip else "error")


@pytest.fixture
def small_blocks(monkeypatch) -> None:
    monkeypatch.setattr(stream, "BLOCK", 60)
    monkeypatch.setattr(layout, "SPAN", 50)
    monkeypatch.setattr(token_cache, "BLOCK", 32)
    monkeypatch.setattr(token_cache, "MARK", 96)


KINDS = ["pairs.jsonl", "bare.jsonl", "scored.jsonl", "two", "labels.jsonl", "nli", "mixed",
         "graded.jsonl", "ragged.jsonl", "search"]  # fmt: skip
PAIRS = {"pairs.jsonl", "two", "nli", "mixed", "ragged.jsonl", "search"}
HOW = [(0, False, False), (3, False, False), (3, True, False), (2, False, True)]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("negatives", "draw", "together"), HOW)
def test_rows_batches_and_reports_are_those_of_memory(
    place, tmp_path, small_blocks, name: str, negatives: int, draw: bool, together: bool
) -> None:
    own = {"draw": draw, "label_column": "label", "together": together}
    own["label_column"] = "label" if name == "labels.jsonl" else None
    (want,), reports = read_training(str(place / name), negatives=negatives, **own)
    reading, told = read(place / name, negatives)._replace(**own), []
    reading.build(tmp_path / "rows", lambda *numbers: told.append(numbers))
    assert told[-1][1] in (None, told[-1][0])  # how many there are, where that was said
    found, more = reading.source(tmp_path / "rows")
    assert list(map(repr, found.examples)) == list(map(repr, want.examples))  # NaN is NaN
    last = len(want.examples) - 1
    assert list(map(repr, found.examples[-1:])) == [repr(want.examples[last])]
    assert (found.traits, *found[2:]) == (want.traits, *want[2:])
    assert (found.drawn == 3) == (draw and name in PAIRS)
    assert found.traits.several == (together and name in PAIRS)
    assert name != "labels.jsonl" or (found.labelled and more[-1].n_alone == reports[-1].n_alone)
    same = ("path", "n_rows", "n_kept", "ignored", "n_scored")
    for a, b in zip(more, reports, strict=True):
        assert [getattr(a, key) for key in same] == [getattr(b, key) for key in same]
        assert b.kind.startswith(a.kind)
    assert sum(r.n_false for r in more) == sum(r.n_false for r in reports)
    assert row_store.digest_of(want.examples) == row_store.digest_of(found.examples)
    plans = [BatchPlan([one], 7, 2, 5) for one in (want, found)]
    for epoch in range(3):
        for index in range(plans[0].length(epoch)):
            assert plans[0].batch(epoch, index) == plans[1].batch(epoch, index)


def test_steps_are_those_of_memory(place, tmp_path) -> None:
    """Sources that know of one another, labels, a split and drawn negatives, on disk and not."""
    other = tmp_path / "other.jsonl"  # what is wrong in one file is right in another
    rows = [json.loads(line) for line in (place / "pairs.jsonl").read_text().splitlines()]
    right = [row for row in rows if row["negatives"]][::3]
    turned = [{"anchor": f" {r['anchor']}", "positive": r["negatives"][0],
               "negative": r["positive"] if n % 2 else f"no {n}"}
              for n, r in enumerate(right)]  # fmt: skip
    write_jsonl(other, turned)
    names = [
        place / "pairs.jsonl",
        other,
        *(place / n for n in ("labels.jsonl", "nli", "bare.jsonl")),
    ]
    flags = ["--model.name", str(place / "bert"), "--data.max_length", "16", "--data.validation",
             "none", "--train.batch_size", "8", "--data.train", *map(str, names),
             "--data.label_column", "label",
             "--data.token_cache", str(tmp_path / "cache")]  # fmt: skip
    kinds = [["--data.negatives", "2", "--data.validation_split", "0.02"],
             ["--data.negatives_draw", "random"], ["--data.positives", "averaged"]]  # fmt: skip
    for kind in kinds:
        made = []
        for on_disk in ((), range(5), (0, 2), (1, 3, 4)):
            some = {str(names[i]) for i in on_disk}
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(stream, "wanted", lambda spec, _, some=some: spec in some)
                config = load_config([*flags, *kind])
                source = open_source(config.model)
                made.append(prepare_data(resolve_for(config, source), source))
            for i, one in enumerate(made[-1].sources):
                assert isinstance(one.examples, row_store.StoredRows) == (i in on_disk)
        for data in made[1:]:
            assert data.traits == made[0].traits and len(data.tasks) == len(made[0].tasks)
            for a, b in zip(made[0].tasks, data.tasks, strict=True):
                assert a.texts() == b.texts()
            for a, b in zip(made[0].sources, data.sources, strict=True):
                assert list(map(repr, a.examples)) == list(map(repr, b.examples))
                assert a[2:] == b[2:]
            for marks in (None, MARKS):  # what a teacher reads
                a, b = (distinct(one.sources, marks) for one in (made[0], data))
                assert all((x == y).all() for x, y in zip(a[:3], b[:3], strict=True))
                some = range(0, len(a.key_n), 40)
                assert list(map(a.read, some)) == list(map(b.read, some))
            length = data.plan.length(0)
            assert length == made[0].plan.length(0)
            for index in range(0, length, 7):
                a, b = made[0].step((0, index)), data.step((0, index))
                assert [x.tolist() for x in a.ids] == [x.tolist() for x in b.ids]
                assert repr(a[1:]) == repr(b[1:])


@pytest.mark.parametrize("name", ["two", "mixed", "graded.jsonl", "search"])
def test_a_killed_builder_is_followed_by_one_that_goes_on(
    place, tmp_path, small_blocks, name: str
) -> None:
    """Killed after each of its marks in turn, in the middle of writing what follows."""

    class Killed(Exception):
        pass

    reading, alone, killed = read(place / name), tmp_path / "alone", tmp_path / "killed"
    reading.build(alone, lambda *_: None)
    begun, plain = [], growing.Growing.mark

    def mark(self, done) -> None:
        plain(self, done)
        self.write("texts.bin", b"lost")
        if len(begun) < 8:
            begun.append(done)
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(growing.Growing, "mark", mark)
        for _ in range(8):
            with pytest.raises(Killed):
                reading.build(killed, lambda *_: None)
        patch.setattr(growing.Growing, "mark", plain)
        reading.build(killed, lambda *_: None)
    read_so_far = [sum(report[2] for report in done["reports"]) for done in begun]
    assert read_so_far == sorted(set(read_so_far)), "a block was read twice"
    for path in alone.iterdir():
        assert (killed / path.name).read_bytes() == path.read_bytes(), path.name


def test_tokens_go_on_too(place, tmp_path, small_blocks) -> None:
    config = load_config(["--model.name", str(place / "bert"), "--data.max_length", "16"])
    source = open_source(config.model)
    from mipic_llm.evaluation.encode import make_encoder

    config = resolve_for(config, source)
    (rows,), _ = read_training(str(place / "pairs.jsonl"), negatives=2)
    token_cache.build(tmp_path / "alone", rows.examples, make_encoder(config, source))
    told: list[int] = []

    def stop(done: int) -> None:
        told.append(done)
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            token_cache.build(tmp_path / "killed", rows.examples, make_encoder(config, source),
                              told=stop)  # fmt: skip
    token_cache.build(tmp_path / "killed", rows.examples, make_encoder(config, source))
    assert told == [96, 192]
    for path in (tmp_path / "alone").iterdir():
        assert (tmp_path / "killed" / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_run_is_the_same_and_its_steps_too(place, tmp_path, request) -> None:
    """Through the whole command: metrics equal those of memory; the second start finds its rows."""
    flags = ["--model.name", str(place / "bert"), "--data.train", str(place / "pairs.jsonl"),
             "--data.validation", "none", "--data.max_length", "16", "--train.batch_size", "8",
             "--train.max_steps", "4", "--train.save_every", "2",
             "--tracking.mlflow", "off", "--export.rehearse", "false",
             "--data.token_cache", str(tmp_path / "cache")]  # fmt: skip
    losses = {}
    for option in ("false", "true"):
        out = tmp_path / option
        more = ["--data.stream", option, "--output_dir", str(out)]
        assert train(load_config([*flags, *more])) == 0
        lines = (out / "metrics.jsonl").read_text().splitlines()
        losses[option] = [json.loads(line)["loss"] for line in lines]
    assert losses["true"] == losses["false"]
    request.getfixturevalue("steps_alone")  # what both leave was exported
    for option, other in (("true", "false"), ("false", "true")):  # a run goes on in the other way
        out = tmp_path / option
        more = ["--data.stream", other, "--output_dir", str(out), "--train.resume",
                str(out / "checkpoints" / "step-00000002")]  # fmt: skip
        assert train(load_config([*flags, *more])) == 0
        lines = (out / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["loss"] for line in lines] == losses["true"]
    first = (place / "pairs.jsonl").read_text().splitlines()  # one blank more is another row
    first[0] = first[0].replace('"anchor": "', '"anchor": " ')
    (tmp_path / "other.jsonl").write_text("\n".join(first))
    for option in ("true", "false"):
        own = ["--data.stream", option, "--data.train", str(tmp_path / "other.jsonl")]
        with pytest.raises(UserError, match="other rows"):
            train(load_config([*flags, *more, *own]))
    kept, _ = sorted((tmp_path / "cache").glob("rows-*"), key=lambda p: p.stat().st_mtime_ns)
    before = kept.stat().st_mtime_ns
    config = load_config([*flags, "--data.stream", "true"])
    source = open_source(config.model)
    data = prepare_data(resolve_for(config, source), source)
    assert kept.stat().st_mtime_ns == before
    assert isinstance(data.sources[0].examples, row_store.StoredRows)


def test_what_names_the_rows_follows_the_files_and_how_they_are_read(place, tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [{"anchor": "a", "positive": "b"}] * 3)
    first = read(path).key()
    assert read(path).key() == first and read(path, negatives=5).key() != first
    given = SourceConfig(path=str(path), columns={"anchor": "positive"})
    assert read(path)._replace(spec=given).key() != first
    write_jsonl(path, [{"anchor": "a", "positive": "c"}] * 3)
    assert read(path).key() != first


def test_axes_are_fitted_without_all_rows_in_memory(place, tmp_path, monkeypatch, capsys) -> None:
    """Of rows on disk no more than are wanted are looked at; nothing stays in the directory."""

    def config(how: str):
        return load_config(["--data.train", str(place / "pairs.jsonl"), str(place / "bare.jsonl"),
                            "--data.stream", how, "--data.token_cache", str(tmp_path),
                            "--data.validation_split", "0.1"])  # fmt: skip

    here, there = config("false"), config("true")
    whole = texts_for_pca(here.training, 10**6, "axes", here)
    assert texts_for_pca(there.training, 10**6, "axes", there) == whole
    looked = []
    whose = row_store.StoredRows.__getitem__
    monkeypatch.setattr(row_store.StoredRows, "__getitem__",
                        lambda self, i: looked.append(i) or whose(self, i))  # fmt: skip
    monkeypatch.setattr(fitting, "split_off", lambda sources, *_: Split(sources, [], ""))
    some = texts_for_pca(there.training, 50, "axes", there)
    assert 25 < len(some) <= 50 and len(looked) < 2 * 60
    assert set(some) <= set(texts_for_pca(here.training, 10**6, "axes"))
    assert not list(tmp_path.iterdir()) and "rows 30 apart of" in capsys.readouterr().out


def test_auto_streams_large_files_only(place, monkeypatch) -> None:
    path = str(place / "pairs.jsonl")
    assert not stream.wanted(path, "auto") and stream.wanted(path, "true")
    assert not stream.wanted(path, "false") and not stream.wanted([{"text": "a"}], "true")
    monkeypatch.setattr(stream, "LARGE", 100)
    assert stream.wanted(path, "auto") and stream.wanted(f"{path}=2", "auto")
    assert not stream.wanted("demo", "true")


def test_what_cannot_be_streamed_is_said(place, tmp_path, small_blocks) -> None:
    nli = [{"premise": "a", "hypothesis": "b", "label": n} for n in (1, 2, 1)]
    write_jsonl(tmp_path / "nli.jsonl", nli)
    (tmp_path / "nlis").mkdir()
    for name in "ab":
        write_jsonl(tmp_path / "nlis" / f"{name}.jsonl", nli)
    classes = [{"sentence1": f"a {n}", "sentence2": "b", "label": n % 3} for n in range(130)]
    write_jsonl(tmp_path / "classes.jsonl", classes)
    write_jsonl(tmp_path / "none.jsonl", [{"anchor": "a", "positive": n} for n in range(70)])
    write_jsonl(tmp_path / "one.jsonl", [{"text": f"t {n}", "label": "x"} for n in range(3)])
    rows = [{"anchor": f"a{n}", "positive": f"b{n}"} for n in range(100)]
    rows[77] = {"anchor": "a"}
    write_jsonl(tmp_path / "bad.jsonl", rows)
    (tmp_path / "mixed").mkdir()
    write_jsonl(tmp_path / "mixed" / "a.jsonl", rows[:70])
    write_jsonl(tmp_path / "mixed" / "b.jsonl", [{"text": "a"}])
    write_jsonl(tmp_path / "same.jsonl", [{"sentence1": "a", "sentence2": "b", "score": 0.5}] * 3)
    for name, told in (
        ("nli.jsonl", "holds no entailment pair"), ("nlis", "holds no entailment pair"),
        ("classes.jsonl", "may be classes"),
        ("one.jsonl", "two labels or more .* found 1 labels in the column label"),
        ("bad.jsonl", "line 78: column positive is"),
        ("mixed", "cannot be mixed"), ("same.jsonl", "the same score"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=told):
            reading = read(tmp_path / name)._replace(label_column="label")
            reading.build(tmp_path / "rows" / name, lambda *_: None)
            reading.source(tmp_path / "rows" / name)
    with pytest.raises(UserError, match="none of its 70 rows can be used"):
        read(tmp_path / "none.jsonl", skip=True).build(tmp_path / "rows" / "none", lambda *_: None)
    for name in ("first", "last"):  # a block of bad rows is left out like each of them
        bad = [{"anchor": "a", "positive": n} for n in range(70)]
        good = rows[:70] if name == "last" else rows[80:]
        write_jsonl(tmp_path / f"{name}.jsonl", [*good, *bad] if name == "last" else [*bad, *good])
        with (tmp_path / f"{name}.jsonl").open("a") as file:
            file.write("{\n" * 65)
        reading = read(tmp_path / f"{name}.jsonl", skip=True)
        reading.build(tmp_path / "rows" / name, lambda *_: None)
        source, (report,) = reading.source(tmp_path / "rows" / name)
        (want,), (same,) = read_training(str(tmp_path / f"{name}.jsonl"), negatives=2,
                                         on_bad_rows="skip")  # fmt: skip
        assert list(source.examples) == list(want.examples) and report == same
    reading = read(tmp_path / "bad.jsonl", skip=True)
    reading.build(tmp_path / "rows" / "kept", lambda *_: None)
    source, (report,) = reading.source(tmp_path / "rows" / "kept")
    assert len(source.examples) == 99 and report.rejected[0][0] == 78


def test_a_damaged_file_is_said_by_its_reader(tmp_path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 not parquet")
    reading = stream.Reading(str(tmp_path / "x.parquet"), 1)
    with pytest.raises(UserError, match="x.parquet cannot be read"):
        reading.build(tmp_path / "rows", lambda *_: None)
