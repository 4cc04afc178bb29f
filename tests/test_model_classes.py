"""The table of model classes is what happens with them; what they cannot do is said early."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from api_worker import ROWS, settings
from model_classes import BEGIN, CLASSES, END, PAGE, SHAPE, build, row
from sentence_transformers import SentenceTransformer
from torch import nn
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    Gemma4TextConfig,
    IBertConfig,
    IBertModel,
    Qwen3_5Config,
    Qwen3_5Model,
)
from transformers.models.bert.modeling_bert import BertEncoder

import mipic_llm
from mipic_llm import UserError
from mipic_llm.config.schema import LoraSettings
from mipic_llm.export import forms
from mipic_llm.model import load
from mipic_llm.model.attention import choose
from mipic_llm.model.directory import read_model
from mipic_llm.model.load import add_lora

TABLE = PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].splitlines()


@pytest.fixture(autouse=True)
def timed_once(monkeypatch):
    monkeypatch.setattr(forms, "TIMED_RUNS", 1)


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
    ("Mamba", {"lora.target_modules": ["dt_proj"]}, "weights of dt_proj past .*name other layers"),
    ("Mamba", {"lora.target_modules": ["in_proj", "dt_proj"]}, "use --lora.target_modules in_proj"),
    ("Mamba", {"model.quantization": "nf4"}, "state-space layers .*quantization none"),
])  # fmt: skip
def test_what_a_class_cannot_do_is_refused_at_the_start(tmp_path, name, more, words):
    with pytest.raises(UserError, match=words):
        train(build(name, tmp_path / "base"), tmp_path, **more)


def test_parts_that_do_nothing_are_told(tmp_path, monkeypatch, steps_alone, capsys):
    """Of an adapter of others, and of all linear layers, some of which a class may not use."""
    base = build("Mamba", tmp_path / "base")
    settings = LoraSettings(target_modules=["in_proj", "dt_proj"])
    add_lora(AutoModel.from_pretrained(base), settings).save_pretrained(tmp_path / "theirs")
    more = {"model.adapter": str(tmp_path / "theirs"), "export.rehearse": False}
    train(base, tmp_path, **more)
    assert "weights of dt_proj past their LoRA, or not at all; this" in capsys.readouterr().out
    monkeypatch.setattr(load, "TAKEN", ("conv1d", "out_proj"))
    train(base, tmp_path, overwrite=True, **{"export.rehearse": False})
    assert "weights of dt_proj past their LoRA, or not at all; this" in capsys.readouterr().out


def test_tokens_beyond_the_table_are_named(tmp_path):
    from transformers import AutoTokenizer

    base = build("Bert", tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens([f"<new{i}>" for i in range(20)])
    tokenizer.save_pretrained(base)
    rows = [row | {"anchor": f"{row['anchor']} <new19>"} for row in ROWS]
    with pytest.raises(UserError, match="has the token '<new19>'.*not to its weights"):
        train(base, tmp_path, rows=rows)


def test_heads_of_several_sizes_are_not_packed():
    config = Gemma4TextConfig(hidden_size=64, num_hidden_layers=2,
                              layer_types=["sliding_attention", "full_attention"])  # fmt: skip
    with pytest.raises(UserError, match="heads of one size, .* Gemma4TextModel differ by layer"):
        choose("varlen", "fp32", config)


def test_a_class_without_layers_for_lora_says_so(tmp_path):
    with pytest.raises(UserError, match="IBertModel has no linear layers .*--lora.rank 0"):
        add_lora(IBertModel(IBertConfig(vocab_size=9, **SHAPE)), LoraSettings())


def test_routers_and_their_like_get_no_lora():
    """Llama 4's router is a Linear that gives two tensors; its neighbours keep their LoRA."""
    model = BertModel(BertConfig(vocab_size=9, **SHAPE))
    kind = type("Router", (nn.Linear,), {"forward": lambda self, x: (x, x)})
    kind.__module__ = "transformers.models.llama4.modeling_llama4"
    model.encoder.layer[1].intermediate.router = kind(32, 64)
    model.encoder.layer[1].intermediate.router_norm = nn.Linear(32, 64)
    del model.encoder.layer[1].intermediate.dense
    names = [n for n, m in add_lora(model, LoraSettings()).named_modules() if hasattr(m, "lora_A")]
    assert [n for n in names if "router" in n] == [
        "base_model.model.encoder.layer.1.intermediate.router_norm"
    ]
    assert len(names) == 3 * 6 and not [n for n in names if "pooler" in n]


def test_what_a_cut_class_cannot_run_is_a_line(tmp_path, monkeypatch):
    """Gemma 4 holds inputs of all layers in one table, so that it ends in an error of its own."""
    run = train(build("Bert", tmp_path / "base"), tmp_path)
    whole = BertEncoder.forward
    monkeypatch.setattr(BertEncoder, "forward", lambda self, x, *args, **options: whole(
        self, x if len(self.layer) > 2 else x.reshape(7, 11, 13), *args, **options))  # fmt: skip
    with pytest.raises(UserError, match="BertModel cut after layer 2 cannot be run or loaded: sh"):
        mipic_llm.export(run, point="8@2", to=tmp_path / "cut")


def test_the_text_model_of_one_that_sees_is_written_once(tmp_path):
    """The Python of docs/use/models.md, on a small Qwen3.5 with eyes."""
    text = {"vocab_size": 320, "layer_types": ["linear_attention", "full_attention"],
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1],
                                "rope_theta": 1e4, "partial_rotary_factor": 1.0}}  # fmt: skip
    text |= CLASSES["Qwen3_5Text"][1] | SHAPE | {"num_hidden_layers": 2} | text
    seeing = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2,
              "out_hidden_size": 32, "num_position_embeddings": 16}  # fmt: skip
    whole = Qwen3_5Model(Qwen3_5Config(text_config=text, vision_config=seeing)).eval()
    name, base = build("Qwen3", tmp_path / "whole"), tmp_path / "text"
    (name / "model.safetensors").unlink()
    whole.save_pretrained(name)
    with pytest.raises(UserError, match=r"qwen3_5 reads more than text; .*get_decoder\(\)"):
        read_model(str(name))
    block = PAGE.read_text(encoding="utf-8").split("## Models that see and hear")[1]
    lines = block.split("```python")[1].split("```")[0].splitlines()
    assert lines[3].startswith("name, base = ")
    lines[3] = f"name, base = {str(name)!r}, {str(base)!r}"
    exec("\n".join(lines), {})
    assert read_model(str(base)).config.model_type == "qwen3_5_text"
    ids = torch.arange(5, 14)[None]
    with torch.no_grad():
        ours, theirs = (m(input_ids=ids).last_hidden_state for m in
                        (AutoModel.from_pretrained(base), whole))  # fmt: skip
    assert torch.equal(ours, theirs)


def test_eager_attention_is_explained(tmp_path, capsys):
    train(build("MPNet", tmp_path / "base"), tmp_path)
    assert "attention: eager, padded (MPNetModel has no other)" in capsys.readouterr().out


def attending_both_ways(base):
    path = base / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"is_causal": False}), "utf-8")
    return base


@pytest.mark.parametrize("attn", ["sdpa", "varlen"])
def test_a_decoder_attends_both_ways_in_training_and_in_every_export(tmp_path, capsys, attn):
    base = attending_both_ways(build("Qwen3", tmp_path / "base"))
    run = train(base, tmp_path, **{"model.attn": attn, "export.merged": True})
    assert "attends both ways, pooling mean" in capsys.readouterr().out
    whole = SentenceTransformer(str(run.path / "merged"), device="cpu")
    one, two = (whole.encode(text, output_value="token_embeddings") for text in
                ("a small boat sails", "a small boat sinks"))  # fmt: skip
    assert abs(one[0] - two[0]).max() > 1e-3
    ours = run.encode(["a small boat sails"])
    assert np.abs(whole.encode(["a small boat sails"]) - ours).max() < 1e-5
    again = mipic_llm.load(run.path / "adapter").encode(["a small boat sails"])
    assert np.abs(again - ours).max() < 1e-5


DECODERS = [  # Mamba has no attention that could look ahead
    name for name in CLASSES
    if name != "Mamba" and f"`{name}Model` | left to right" in "".join(TABLE)
]  # fmt: skip


@pytest.mark.parametrize("name", DECODERS)
def test_every_decoder_of_the_table_heeds_is_causal(name, tmp_path):
    base = attending_both_ways(build(name, tmp_path))
    model = AutoModel.from_pretrained(base)
    ids = torch.tensor([[7, 8, 9, 10], [7, 8, 9, 11]])
    one, two = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[:, 0]
    assert (one - two).norm() > 1e-2 * one.norm()


def test_a_class_that_does_not_heed_is_causal_is_refused(tmp_path, monkeypatch):
    from transformers.models.qwen3 import modeling_qwen3

    own = modeling_qwen3.Qwen3Model.forward

    def deaf(self, *args, **kwargs):
        self.config.is_causal = True
        return own(self, *args, **kwargs | {"is_causal": True})

    monkeypatch.setattr(modeling_qwen3.Qwen3Model, "forward", deaf)
    base = attending_both_ways(build("Qwen3", tmp_path / "base"))
    with pytest.raises(UserError, match="is_causal false, but its class attends from left to"):
        train(base, tmp_path)


def test_the_first_token_of_a_decoder_is_no_vector(tmp_path, steps_alone):
    base, more = build("Qwen3", tmp_path / "base"), {"export.rehearse": False}
    with pytest.raises(UserError, match="first token of .*base sees none after it"):
        train(base, tmp_path, **{"model.pooling": "cls"} | more)
    train(attending_both_ways(base), tmp_path, **{"model.pooling": "cls"} | more)


def test_a_decoder_that_sees_more_than_it_says_is_told(tmp_path, monkeypatch, capsys):
    from transformers.models.qwen3 import modeling_qwen3

    own = modeling_qwen3.Qwen3Model.forward
    monkeypatch.setattr(
        modeling_qwen3.Qwen3Model,
        "forward",
        lambda self, *args, **kwargs: own(self, *args, is_causal=False, **kwargs),
    )
    train(build("Qwen3", tmp_path / "base"), tmp_path, **{"export.rehearse": False})
    assert "sees the whole text at every token, though" in capsys.readouterr().out
