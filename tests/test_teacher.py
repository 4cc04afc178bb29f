"""The vectors of a teacher: what they are, where they are kept, and what is refused.

The terms are in tests/test_terms.py and test_losses_distil.py; a whole run with a teacher at ZeRO-3
in chunks, killed and resumed, in test_resume.py; at other numbers of ranks in test_reshape.py.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from sentence_transformers import SentenceTransformer
from tiny_models import WIDTH, tiny_bert, tiny_qwen3

from mipic_llm.config import load_config, validate
from mipic_llm.data.batch import StepBatch
from mipic_llm.data.read.cells import plain
from mipic_llm.data.read.rows import Example, TextSource, key_of
from mipic_llm.errors import UserError
from mipic_llm.model.directory import open_source
from mipic_llm.runtime.start import start
from mipic_llm.training import loop, setup, vectors
from mipic_llm.training import teacher as teachers

PAIRS = [{"anchor": f"a boat {i} on a lake", "positive": f"ship {i}", "negative": f"car {i % 3}"}
         for i in range(9)]  # fmt: skip
BARE = [{"text": f"a boat {i}  on a lake"} for i in range(6, 12)]  # three stand among the anchors
TEXTS = [*dict.fromkeys(t for row in PAIRS for t in row.values()),
         *(row["text"] for row in BARE[3:])]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("teacher")
    tiny_bert(home / "base")
    tiny_qwen3(home / "qwen", sentence_transformers=True)  # has a prompt for queries
    scored = [{"sentence1": a, "sentence2": b, "score": i}
              for i, (a, b) in enumerate(zip(TEXTS[:9], TEXTS[1:], strict=False))]  # fmt: skip
    labels = [{"text": text, "label": i % 3} for i, text in enumerate(TEXTS[:9])]
    for name, rows in (("pairs", PAIRS), ("bare", BARE), ("scored", scored), ("labels", labels)):
        (home / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    start()
    return home


def config_of(home: Path, *more: str):
    return load_config([
        "--model.name", str(home / "base"), "--objective.name", "mrl", "--objective.dims", "4",
        str(WIDTH), "--data.train", str(home / "pairs.jsonl"), str(home / "bare.jsonl"),
        "--data.max_length", "24", "--data.validation", "none", "--data.token_cache",
        str(home / "cache"), "--train.batch_size", "3", "--tracking.mlflow", "off", *more,
    ])  # fmt: skip


def opened(config):
    """-> (resolved configuration, data with the teacher's vectors made)."""
    config, source, data = setup.open_run(config)
    teachers.build(data.teacher, config, source)
    return config, data


def steps(data) -> list[StepBatch]:
    """An epoch's."""
    return [data.step((0, i)) for i in range(data.plan.steps_per_epoch)]


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def sequences(batch: StepBatch, data) -> list[str]:
    """The texts of a step, found by their keys."""
    keys = {key_of(plain(text).encode()): text for text in TEXTS}
    return [keys[key] for key in batch.keys]


def test_base_is_the_untrained_model_and_each_text_has_one_vector(home):
    config, data = opened(config_of(home, "--teacher.name", "base"))
    assert len(data.teacher.texts.key_n) == len(TEXTS) and data.teacher.width == WIDTH
    model = SentenceTransformer(str(home / "base"))
    model.max_seq_length = 24
    for kind in ("pairs", "texts"):
        batch = next(b for b in steps(data) if b.source.kind == kind)
        want = unit(model.encode(sequences(batch, data)))
        np.testing.assert_allclose(batch.teacher_SK, want, atol=1e-3)
        assert batch.teacher_SK.dtype == np.float32 and np.ptp(want) > 0.1


def test_another_model_reads_with_its_own_prompts(home):
    """The student is told another prompt and pooling; neither is the teacher's."""
    flags = ["--teacher.name", str(home / "qwen"), "--model.pooling", "cls",
             "--data.query_prompt", "boat: ", "--data.document_prompt", "ship: "]  # fmt: skip
    with pytest.raises(UserError, match="teacher.max_length 24: the prompt of query texts alone"):
        opened(config_of(home, *flags))
    config, data = opened(config_of(home, *flags, "--teacher.max_length", "99"))
    model = SentenceTransformer(str(home / "qwen"))
    model.max_seq_length = 99
    for batch in steps(data):
        texts, n = sequences(batch, data), batch.n_anchors
        n = len(texts) if batch.source.kind == "texts" else n
        parts = [model.encode(texts[:n], prompt_name="query")]
        parts += [model.encode(texts[n:])] if texts[n:] else []
        np.testing.assert_allclose(batch.teacher_SK, unit(np.concatenate(parts)), atol=2e-3)
    for name in ("scored", "labels"):  # read by the student without a prompt, and by the teacher
        rows = ["--data.train", str(home / "pairs.jsonl"), str(home / f"{name}.jsonl"),
                *(["--data.label_column", "label"] if name == "labels" else [])]  # fmt: skip
        for how, prompt in (("default", {}), ("query", {"prompt_name": "query"})):
            own = ["--teacher.max_length", "99", "--eval.symmetric_prompt", how]
            config, data = opened(config_of(home, *flags, *rows, *own))
            batch = next(b for b in steps(data) if b.source.kind == "scored" or b.groups)
            want = unit(model.encode(sequences(batch, data), **prompt))
            np.testing.assert_allclose(batch.teacher_SK, want, atol=2e-3)


def test_an_interrupted_build_goes_on_and_a_second_one_finds_all(home, monkeypatch, capsys):
    monkeypatch.setattr(teachers, "BLOCK", 4)
    made, block = [], teachers.ModelVectors.block

    def stops_at_the_third(self, texts, rows):
        made.append(rows.start // 4)
        if len(made) == 3:
            raise KeyboardInterrupt
        return block(self, texts, rows)

    monkeypatch.setattr(teachers.ModelVectors, "block", stops_at_the_third)
    flags = ("--teacher.name", "base", "--teacher.max_length", "12")
    with pytest.raises(KeyboardInterrupt):
        opened(config_of(home, *flags))
    config, data = opened(config_of(home, *flags))
    n = data.teacher.n_blocks
    assert n == -(-len(TEXTS) // 4) and made == [0, 1, 2, *range(2, n)]
    assert "8 of them there already" in capsys.readouterr().out
    monkeypatch.setattr(vectors, "open_finished", lambda *_: pytest.fail("loaded again"))
    again = opened(config_of(home, *flags))[1]
    assert "cache hit" in capsys.readouterr().out
    one, other = (steps(d)[0].teacher_SK for d in (data, again))
    assert np.array_equal(one, other)
    (data.teacher.folder / "00001.f16").write_bytes(b"half")  # a torn file is made anew
    assert data.teacher.missing() == [1]


def test_blocks_that_were_read_hold_no_file_open(home, monkeypatch):
    """A process may open some thousand files, and four million texts have a thousand blocks."""
    monkeypatch.setattr(teachers, "BLOCK", 1)
    data = opened(config_of(home, "--teacher.name", "base", "--teacher.max_length", "16"))[1]
    before = len(os.listdir("/proc/self/fd"))
    assert len({key for batch in steps(data) for key in batch.keys}) > 10
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_a_cache_they_stay_in_memory(home):
    kept, loose = (opened(config_of(home, "--teacher.name", "base", *more))[1]
                   for more in ((), ("--data.token_cache", "off")))  # fmt: skip
    assert loose.teacher.folder is None and kept.teacher.folder.is_dir()
    one, other = (steps(d)[0].teacher_SK for d in (kept, loose))
    assert np.array_equal(one, other)


def test_the_key_is_that_of_content(home, tmp_path):
    def key(*flags):
        config, _, data = setup.open_run(config_of(home, *flags))
        return data.teacher.key

    base = key("--teacher.name", "base")
    moved = tiny_bert(tmp_path / "moved")
    other = tiny_bert(tmp_path / "other", seed=5)
    assert key("--teacher.name", "base", "--model.name", str(moved)) == base
    named = key("--teacher.name", str(home / "base"))
    assert key("--teacher.name", str(moved)) == named
    changed = {key("--teacher.name", str(other)), key("--teacher.name", str(moved),
               "--teacher.max_length", "9"), key("--teacher.name", "base", "--model.pooling",
               "cls"), key("--teacher.name", "base", "--data.query_prompt", "boat: "),
               key("--teacher.name", "base", "--data.train", str(home / "bare.jsonl"))}  # fmt: skip
    assert len(changed | {base, named}) == 7


def test_files_of_vectors(home, tmp_path):
    rows = np.random.default_rng(1).normal(size=(len(TEXTS), 5)).astype(np.float32)
    np.save(tmp_path / "v.npy", rows)
    table = pa.table({"text": [*TEXTS[::-1], "a stranger"], "vector": [*rows[::-1], rows[0]]})
    pyarrow.parquet.write_table(table, tmp_path / "v.parquet")
    want = dict(zip(TEXTS, unit(rows), strict=True))
    for name in ("v.npy", "v.parquet"):
        data = opened(config_of(home, "--teacher.name", str(tmp_path / name)))[1]
        for batch in steps(data):
            found = np.stack([want[text] for text in sequences(batch, data)])
            np.testing.assert_allclose(batch.teacher_SK, found, atol=1e-3)


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ({"text": TEXTS[:-2], "vector": [[1.0]] * (len(TEXTS) - 2)}, "no vector of 2 of the"),
        ({"text": ["a", "b"], "vector": [[1.0], [1.0, 2.0]]}, "lengths"),
        ({"text": ["a"], "vectors": [[1.0]]}, "its columns are text, vectors"),
        ({"text": TEXTS, "vector": [[np.nan]] * len(TEXTS)}, "not finite"),
        ({"text": ["a"], "vector": ["[1.0]"]}, "its column vector holds string"),
        ({"text": [1], "vector": [[1.0]]}, "its column text holds int64"),
        (np.ones((3, 2)), f"has 3 rows, and the data has {len(TEXTS)} distinct texts"),
        (np.ones(3), "a matrix is expected"),
        (None, "cannot read"),
    ],
)  # fmt: skip
def test_what_a_file_lacks_is_one_line(home, tmp_path, rows, line):
    path = tmp_path / ("v.parquet" if isinstance(rows, dict) else "v.npy")
    if isinstance(rows, dict):
        pyarrow.parquet.write_table(pa.table(rows), path)
    elif rows is not None:
        np.save(path, rows)
    with pytest.raises(UserError, match=line) as error:
        opened(config_of(home, "--teacher.name", str(path)))
    assert str(error.value).startswith("teacher.name: ") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--teacher.vector", "1"], "there is no teacher; give --teacher.name base"),
        (["--teacher.name", "base", "--teacher.relation", "0"], "all weights of its terms are 0"),
        (["--teacher.name", "base", "--teacher.dims", "16,4"], "ascending order"),
        (["--teacher.name", "base", "--teacher.dims", "4,64"], "above the full width"),
        (["--teacher.scores", "1"], "no row has scores, and there is no teacher"),
    ],
)
def test_options_that_ask_for_nothing_are_refused(home, flags, line):
    with pytest.raises(UserError, match=line):
        config = config_of(home, *flags)
        validate(config)
        setup.open_run(config)


def test_scores_of_rows_train_without_a_teacher(home, tmp_path, monkeypatch):
    """Rows with scores and rows without in turn: the terms join where there are scores."""
    monkeypatch.setattr(loop, "export", lambda *_: None)
    monkeypatch.setattr(loop, "report", lambda *_: None)
    scored = [row | {"pos_scores": 0.9, "neg_scores": 0.1 * i} for i, row in enumerate(PAIRS)]
    path = tmp_path / "scored.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in scored))
    config = config_of(
        home, "--data.train", str(path), str(home / "pairs.jsonl"), "--teacher.scores", "1",
        "--teacher.margin", "1", "--output_dir", str(tmp_path / "out"), "--export.rehearse",
        "false",
    )  # fmt: skip
    assert loop.train(config) == 0
    rows = [json.loads(x) for x in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    with_scores = [row for row in rows if "loss/teacher_margin" in row]
    assert len(rows) == 6 and len(with_scores) == 3
    for row in with_scores:
        assert row["loss/teacher_scores@4"] > 0 and row["loss"] == pytest.approx(
            row["loss/mrl"] + (row["loss/teacher_scores"] + row["loss/teacher_margin"]), rel=1e-5
        )


def test_rows_without_a_text_twice():
    """A document has a vector of its own where prompts differ; unlabelled text is a query."""
    rows = [Example("a", "b", ("c", "a  b"), 0), Example("b", "a", (), 1)]
    sources = [TextSource("rows", rows, 1.0), TextSource("bare", [Example("c", None, (), 0)], 1.0)]
    prompts = {"query": "q: ", "document": "", "symmetric": ""}
    one, two = (teachers.distinct(sources, m) for m in (None, teachers.marks_of(prompts)))
    assert sorted(map(one.read, range(len(one.key_n)))) == ["a", "a  b", "b", "c"]
    found = [(two.read(i), kind == 0) for i, kind in enumerate(two.kind_n)]
    assert sorted(found) == [("a", False), ("a", True), ("a  b", False), ("b", False),
                             ("b", True), ("c", False), ("c", True)]  # fmt: skip


def test_rows_on_disk_have_the_same_texts(home):
    memory, disk = (opened(config_of(home, "--teacher.name", "base", "--data.stream", stream))[1]
                    for stream in ("false", "true"))  # fmt: skip
    assert memory.teacher.key == disk.teacher.key
    ours, theirs = (list(map(d.teacher.texts.read, range(len(TEXTS)))) for d in (memory, disk))
    assert ours == theirs and sorted(ours) == sorted(TEXTS)


def test_open_source_is_not_touched(home):
    """Making the base's vectors leaves the student's own dropout as it was."""
    config = config_of(home, "--teacher.name", "base", "--model.dropout", "none",
                       "--data.token_cache", "off")  # fmt: skip
    config, source, data = setup.open_run(config)
    before = source.config.hidden_dropout_prob
    teachers.build(data.teacher, config, source)
    assert source.config.hidden_dropout_prob == before > 0
    assert open_source(config.model).config.hidden_dropout_prob == before
