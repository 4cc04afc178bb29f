"""The table of model classes is what happens with them; what they cannot do is said early."""

from __future__ import annotations

import pytest
from api_worker import ROWS, settings
from model_classes import BEGIN, CLASSES, END, PAGE, build, row

import mipic_llm
from mipic_llm import UserError

TABLE = PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].splitlines()


@pytest.mark.parametrize("name", CLASSES)
def test_the_table_is_current(name, tmp_path):
    assert row(name, tmp_path) in TABLE


def test_the_table_has_no_other_rows():
    assert len(TABLE) == len(CLASSES) + 3


def train(base, tmp_path, rows=ROWS, **more):
    own = settings(str(base)) | {"objective": {}, "sia.layers": None, "pic": {}} | more
    return mipic_llm.train(rows, output_dir=tmp_path / "run", **own)


@pytest.mark.parametrize("name, more, words", [
    ("MPNet", {"train.gradient_checkpointing": True}, "MPNetModel .*gradient_checkpointing false"),
    ("Roberta", {"data.max_length": 513}, "places for 512 tokens; give --data.max_length 512"),
    ("DebertaV2", {"model.attn": "sdpa"}, "sdpa does not run in DebertaV2Model.*attn eager"),
])  # fmt: skip
def test_what_a_class_cannot_do_is_refused_at_the_start(tmp_path, name, more, words):
    with pytest.raises(UserError, match=words):
        train(build(name, tmp_path / "base"), tmp_path, **more)


def test_tokens_beyond_the_table_are_named(tmp_path):
    from transformers import AutoTokenizer

    base = build("Bert", tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens([f"<new{i}>" for i in range(20)])
    tokenizer.save_pretrained(base)
    rows = [row | {"anchor": f"{row['anchor']} <new19>"} for row in ROWS]
    with pytest.raises(UserError, match="has the token '<new19>'.*not to its weights"):
        train(base, tmp_path, rows=rows)


def test_eager_attention_is_explained(tmp_path, capsys):
    train(build("MPNet", tmp_path / "base"), tmp_path)
    assert "attention: eager, padded (MPNetModel has no other)" in capsys.readouterr().out
