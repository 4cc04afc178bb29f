"""data.sources: what each source says of itself, from the recipe to the batches of a run."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from test_data_formats import write_jsonl
from tiny_models import SENTENCES, tiny_bert

from mipic_llm.config import SourceConfig, dump, load_config, read_record
from mipic_llm.config.compare import compare
from mipic_llm.data.read.rows import Example, TextSource
from mipic_llm.data.read.training import read_training
from mipic_llm.errors import UserError
from mipic_llm.model.directory import open_source
from mipic_llm.model.prompts import prompt_notes
from mipic_llm.training.feed import prepare_data, tempered
from mipic_llm.training.loop import train
from mipic_llm.training.setup import resolve_for

PROMPTS = "config_sentence_transformers.json"
HEAD = "data:\n  validation: []\n  sources:\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    tiny_bert(folder / "bert")
    texts = [f"{a} {n}" for n in range(3) for a in SENTENCES]
    asked = [{"ask": a, "answer": b, "wrong": [f"{b} {n}" for n in range(3)], "anchor": "not this"}
             for a, b in zip(texts[::2], texts[1::2], strict=True)]  # fmt: skip
    write_jsonl(folder / "asked.jsonl", asked)
    write_jsonl(folder / "bare.jsonl", [{"text": text} for text in texts])
    return folder


def recipe(folder, text: str) -> str:
    path = folder / "recipe.yaml"
    path.write_text(HEAD + text)
    return str(path)


BOTH = """\
    - path: {0}/asked.jsonl
      name: questions
      weight: 2
      query_prompt: "{1}"
      max_length: 9
      negatives: 2
      columns: {{anchor: ask, positive: answer, negative: wrong}}
    - path: {0}/bare.jsonl
"""
ALONE = BOTH.replace("      negatives: 2", "      negatives: {2}\n      in_batch: false")


def test_every_source_is_read_and_tokenised_as_it_says(place) -> None:
    prompt = SENTENCES[0].split()[0]
    arguments = ["--recipe", recipe(place, BOTH.format(place, prompt)), "--train.batch_size", "4",
                 "--model.name", str(place / "bert"), "--data.max_length", "20"]  # fmt: skip
    config = load_config(arguments)
    source = open_source(config.model)
    config = resolve_for(config, source)
    data = prepare_data(config, source)
    assert [s.name for s in data.sources] == ["questions", f"{place}/bare.jsonl"]
    assert [s.weight for s in data.sources] == [2, 1]
    assert {len(e.negatives) for e in data.sources[0].examples} == {2}
    first = data.sources[0].examples[0]
    assert "not this" not in first.anchor and first.negatives == tuple(
        f"{first.positive} {n}" for n in range(2)
    )
    own = data.encoder.ids([prompt], "query")[0][1]
    steps = [data.step((0, i)) for i in range(data.plan.length(0))]
    assert Counter(s.source.name for s in steps)["questions"] == 2 * (
        len(data.sources[0].examples) // 4
    )
    for step in steps:
        longest = max(map(len, step.ids))
        if step.source.name == "questions":
            assert longest <= 9 and step.n_negatives == 2 * step.n_anchors
            assert all(ids[1] == own for ids in step.ids[: step.n_anchors])
            assert not all(ids[1] == own for ids in step.ids[step.n_anchors :])
        else:
            assert not all(ids[1] == own for ids in step.ids)
    assert read_record_of(config, place).data.sources == config.data.sources


def read_record_of(config, folder):
    path = folder / "config.yaml"
    path.write_text(dump(config))
    return read_record(path)


def test_a_source_may_keep_its_negatives_to_their_rows(place) -> None:
    def read(negatives: int):
        text = ALONE.format(place, "ask", negatives)
        flags = ["--recipe", recipe(place, text), "--train.batch_size", "4", "--model.name"]
        config = load_config([*flags, str(place / "bert")])
        source = open_source(config.model)
        return prepare_data(resolve_for(config, source), source)

    data = read(2)
    for index in range(data.plan.length(0)):
        step, rows = data.step((0, index)), data.sources[0].examples
        if step.source.name != "questions":
            assert step.rows is None and step.source.in_batch
            continue
        assert step.rows is not None and len(step.rows) == len(step.keys)
        anchors, hard = step.rows[: step.n_anchors], step.rows[2 * step.n_anchors :]
        assert step.rows[step.n_anchors : 2 * step.n_anchors] == anchors
        assert hard == [row for row in anchors for _ in rows[row].negatives]
    with pytest.raises(UserError, match=r"questions: in_batch is false.*row 1 has none"):
        read(0)


def test_a_run_of_two_sources_ends_with_an_adapter(place, tmp_path) -> None:
    arguments = ["--recipe", recipe(tmp_path, BOTH.format(place, "ask")), "--output_dir",
                 str(tmp_path / "out"), "--train.batch_size", "4", "--train.max_steps", "6",
                 "--model.name", str(place / "bert"), "--data.max_length", "20",
                 "--tracking.mlflow", "off"]  # fmt: skip
    assert train(load_config(arguments)) == 0
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").is_file()
    assert read_record(tmp_path / "out" / "config.yaml").data.train == []
    about = json.loads((tmp_path / "out" / "adapter" / PROMPTS).read_text())["prompts"]
    assert about == {"query": "", "document": "", "questions": "ask"}


def test_the_temperature_draws_sizes_together() -> None:
    def made(n: int, weight: float = 1.0) -> TextSource:
        return TextSource(str(n), [Example(f"{n} {i}", None, (), i) for i in range(n)], weight)

    sources = [made(16), made(256), made(64, 2.0)]
    assert tempered(sources, 1.0) == sources
    rows = [s.weight * len(s.examples) for s in tempered(sources, 2.0)]
    assert sum(rows) == pytest.approx(16 + 256 + 128)
    assert [r / rows[0] for r in rows] == pytest.approx([1, 4, 4])
    equal = [s.weight * len(s.examples) for s in tempered(sources[:2], 1e9)]
    assert equal == pytest.approx([136, 136])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("    - path: a\n      wieght: 2\n", "unknown key wieght; did you mean weight?"),
        ("    - path: a\n    - path: b\n      weight: -1\n", "entry 2 of data.sources: weight is"),
        ("    - name: a\n", "entry 1 of data.sources has no path"),
        ("    - path: a\n      columns: 3\n", "columns must hold texts under names, got 3"),
        ("    - path: a\n      max_length: no\n", "max_length must be a whole number"),
        ("    - a.jsonl\n", "data.sources"),
        ("    - path: a\n  train: [b]\n", "data.train and data.sources are both given"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path, text: str, told: str) -> None:
    with pytest.raises(UserError, match="data.sources") as caught:
        load_config(["--recipe", recipe(tmp_path, text)])
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_a_column_that_is_not_there_is_a_bad_row(place) -> None:
    given = SourceConfig(path=str(place / "bare.jsonl"), columns={"anchor": "question"})
    with pytest.raises(UserError, match="line 1: column question of data.sources is missing"):
        read_training([given], negatives=1)


def test_flags_win_and_json_is_understood(tmp_path) -> None:
    path = recipe(tmp_path, "    - path: a\n")
    config = load_config(["--recipe", path, "--data.train", "b.csv"])
    assert config.data.sources == [] and config.training == ["b.csv"]
    assert any("yield to --data.train" in note for note in config.notes)
    given = json.dumps([{"path": "x, y.jsonl", "weight": 2}])
    config = load_config(["--data.sources", given])
    assert config.training_files == ["x, y.jsonl"] and config.data.train == []


def test_a_run_goes_on_where_its_files_were_moved_but_not_with_another_prompt(tmp_path) -> None:
    def config(text: str):
        return load_config(["--recipe", recipe(tmp_path, text)])

    old = config('    - path: a\n      query_prompt: "q: "\n')
    moved = config('    - path: b\n      query_prompt: "q: "\n')
    other = config('    - path: a\n      query_prompt: "p: "\n')
    assert compare(old, moved, {"rows": True, "base": True, "teacher": None}) == []
    with pytest.raises(UserError, match="data.sources"):
        compare(old, other, {"rows": True, "base": True, "teacher": None})
    with pytest.raises(UserError, match="data.sources"):
        compare(old, moved, {"rows": None, "base": True, "teacher": None})
    alone = config('    - path: a\n      query_prompt: "q: "\n      in_batch: false\n')
    with pytest.raises(UserError, match="data.sources"):
        compare(old, alone, {"rows": True, "base": True, "teacher": None})
    one, two = (load_config(["--data.train", name]) for name in ("a.csv", "b.csv"))
    (change,) = compare(one, two, {"rows": True, "base": True, "teacher": None})
    assert str(change) == "data.train ['a.csv'] -> ['b.csv']"
    for rows, words in ((None, r"data.train \['a.csv'\] -> \['b.csv'\]"), (False, "other rows")):
        with pytest.raises(UserError, match=words):
            compare(one, two, {"rows": rows, "base": True, "teacher": None})


STAGES = """\
stages:
  - {{steps: 2, train: [{0}/bare.jsonl]}}
  - steps: 2
    sources: [{{path: {0}/asked.jsonl, name: asked, query_prompt: "a ", document_prompt: "the ",
               columns: {{anchor: ask, positive: answer}}}}]
"""


def test_prompts_of_a_stages_sources_are_exported(place, tmp_path) -> None:
    (tmp_path / "stages.yaml").write_text("data: {validation: []}\n" + STAGES.format(place))
    arguments = ["--recipe", str(tmp_path / "stages.yaml"), "--output_dir", str(tmp_path / "out"),
                 "--train.batch_size", "4", "--model.name", str(place / "bert"),
                 "--data.max_length", "20", "--tracking.mlflow", "off"]  # fmt: skip
    assert train(load_config(arguments)) == 0
    about = json.loads((tmp_path / "out" / "adapter" / PROMPTS).read_text())["prompts"]
    assert about == {"query": "", "document": "", "asked": "a ", "asked-document": "the "}


def test_prompts_that_export_and_validation_would_miss_are_told(place, tmp_path) -> None:
    def notes(sources: str, *flags: str) -> list[str]:
        config = load_config(["--recipe", recipe(tmp_path, sources), *flags,
                              "--model.name", str(place / "bert")])  # fmt: skip
        return prompt_notes(config, open_source(config.model))

    both = '    - {path: a, name: a, query_prompt: "q: "}\n    - {path: b, name: b'
    lost = notes('    - {path: a, query_prompt: "q: "}\n    - {path: b, name: query, '
                 'document_prompt: "d: "}\n')  # fmt: skip
    assert [line.split(":")[0] for line in lost] == ["a", "b"] and "by no name" in lost[0]
    assert notes(both + "}\n") == []  # b is trained with the prompt that validation has
    (one,) = notes(both + ', query_prompt: "Q: "}\n')
    assert one.startswith("query texts are trained with 'Q: ', 'q: ' alone") and "have ''" in one
    assert notes(both + ', query_prompt: "Q: "}\n', "--data.query_prompt", "Q: ") == []
