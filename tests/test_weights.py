"""What is loaded is what the files hold; what will be written is tried before the first step."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers
from api_worker import ROWS, settings
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_models import TEXTS, tiny_bert, tiny_qwen3
from transformers import AutoModelForCausalLM, AutoTokenizer

import mipic_llm
from mipic_llm import UserError
from mipic_llm.export import write
from mipic_llm.training import finish


def train(base, out, **more):
    own = settings(str(base)) | {"validation": [], "export.rehearse": True} | more
    return mipic_llm.train(ROWS, output_dir=out, **own)


LOSSES = {
    "a prefix": lambda key: f"module.{key}",
    "a lost layer": lambda key: None if "layer.2." in key else key,
    "one tensor": lambda key: None if key.endswith("layer.0.output.dense.bias") else key,
}


@pytest.mark.parametrize("change", LOSSES)
def test_missing_weights_are_refused(tmp_path, change):
    path = tiny_bert(tmp_path / "base") / "model.safetensors"
    weights = {LOSSES[change](k): v for k, v in load_file(path).items()}
    weights.pop(None, None)
    save_file(weights, path, metadata={"format": "pt"})
    words = r"lack \d+ weights of BertModel, such as .*random.*give a whole checkpoint"
    with pytest.raises(UserError, match=words):
        train(tmp_path / "base", tmp_path / "run")
    with pytest.raises(UserError, match=words):
        mipic_llm.load(tmp_path / "base")


def causal_adapter(tmp_path, targets):
    """An adapter as others save it, from a causal language model."""
    base = tiny_qwen3(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(target_modules=targets, task_type="CAUSAL_LM"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(tmp_path / "adapter")
    return base, model.eval()


@pytest.mark.parametrize("targets", [["q_proj", "down_proj"], ["v_proj", "lm_head"]])
def test_an_adapter_of_a_causal_model_finds_its_places(tmp_path, targets):
    base, model = causal_adapter(tmp_path, targets)
    inner, tokenizer = model.get_base_model().model, AutoTokenizer.from_pretrained(base)
    rows = []
    for text in TEXTS:
        with torch.no_grad():
            rows.append(inner(**tokenizer([text], return_tensors="pt")).last_hidden_state[0, -1])
    wanted = torch.nn.functional.normalize(torch.stack(rows), dim=1).numpy()
    found = mipic_llm.load(tmp_path / "adapter").encode(TEXTS)
    assert np.abs(found - wanted).max() < 1e-5
    assert np.abs(mipic_llm.load(base).encode(TEXTS) - wanted).max() > 1e-2


def test_an_adapter_that_finds_no_place_is_refused(tmp_path):
    causal_adapter(tmp_path, ["q_proj"])
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({k.replace("layers", "blocks"): v for k, v in load_file(path).items()}, path)
    with pytest.raises(UserError, match="does not fit its base.*find no place"):
        mipic_llm.load(tmp_path / "adapter")
    settings = tmp_path / "adapter" / "adapter_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"peft_type": "IA3"}))
    with pytest.raises(UserError, match="only LoRA is understood"):
        mipic_llm.load(tmp_path / "adapter")


def test_an_export_that_would_fail_at_the_end_fails_at_the_start(tmp_path, monkeypatch, capsys):
    """Of a small model its vectors are compared, of a large one its tokens."""
    whole = write.write_portable

    def other_pooling(folder, spec):
        whole(folder, spec._replace(pooling="cls"))

    monkeypatch.setattr(write, "write_portable", other_pooling)
    with pytest.raises(UserError, match="other vectors .*before the first step; nothing was"):
        train(tiny_bert(tmp_path / "base"), tmp_path / "run")
    assert not list((tmp_path / "run").glob("*.rehearsal"))
    losses = tmp_path / "run" / "metrics.jsonl"
    assert not losses.exists() or not losses.read_text()
    monkeypatch.setattr(finish, "LARGE", 0)
    monkeypatch.setattr(write, "write_portable", whole)
    said = "writing the model and loading it again ("
    assert said not in capsys.readouterr().out
    train(tmp_path / "base", tmp_path / "large")
    assert capsys.readouterr().out.count(said) == 1  # not in the rehearsal

    def without_ends(folder, spec):
        whole(folder, spec)
        for name, change in (("tokenizer.json", {"post_processor": None}),
                             ("tokenizer_config.json", {"tokenizer_class": None})):  # fmt: skip
            path = folder / name
            path.write_text(json.dumps(json.loads(path.read_text()) | change))

    monkeypatch.setattr(finish, "write_portable", without_ends)
    with pytest.raises(UserError, match="makes other tokens of .*in place of .CLS. .*nothing was"):
        train(tmp_path / "base", tmp_path / "other")


@pytest.mark.parametrize("stage, precision", [("zero1", "bf16"), ("zero3", "fp32")])
def test_a_rehearsal_leaves_no_trace(tmp_path, stage, precision):
    base, found = tiny_bert(tmp_path / "base"), []
    for rehearse in (False, True):
        run = train(base, tmp_path / str(rehearse), ds_config=stage,
                    **{"export.rehearse": rehearse, "train.precision": precision})  # fmt: skip
        found.append((run.path / "adapter" / "adapter_model.safetensors").read_bytes())
        assert not (run.path / ".rehearsal").exists()
    assert found[0] == found[1]


ROPE = {
    "Qwen3": ({"rope_theta": 5e6}, {"rope_theta": 5e6}),
    "Llama": ({"rope_theta": 3e5, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
              {"rope_theta": 3e5, "rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    "GPTNeoX": ({"rotary_emb_base": 2e4, "rotary_pct": 0.5},
                {"rotary_emb_base": 2e4, "rotary_pct": 0.5}),
    "Gemma3Text": ({"rope_theta": 2e6, "rope_local_base_freq": 3e4},
                   {"rope_theta": 2e6, "rope_local_base_freq": 3e4}),
    "ModernBert": ({"global_rope_theta": 2e5, "local_rope_theta": 3e4},
                   {"global_rope_theta": 2e5, "local_rope_theta": 3e4}),
}  # fmt: skip


@pytest.mark.parametrize("name", ROPE)
def test_a_merged_config_is_for_both_generations_of_transformers(tmp_path, name):
    """The keys as transformers 4 wrote them, which 5 reads as the same model."""
    given, wanted = ROPE[name]
    config = getattr(transformers, f"{name}Config")(**given, dtype="bfloat16")
    settings = json.loads(config.to_json_string())
    assert not wanted.items() <= settings.items()
    both = write.for_older_loaders(settings) | settings
    assert (wanted | {"torch_dtype": "bfloat16"}).items() <= both.items()
    (tmp_path / "config.json").write_text(json.dumps(both))
    again = transformers.AutoConfig.from_pretrained(tmp_path)
    assert again.rope_parameters == config.rope_parameters and again.dtype == config.dtype


def test_every_tokenizer_file_is_copied(tmp_path):
    base = tiny_bert(tmp_path / "base")
    names = ["sentencepiece.model", "spm.model", "bpe.codes", "sentencepiece.bpe.model"]
    for name in names:
        (base / name).write_text(name)
    run = train(base, tmp_path / "run", **{"export.rehearse": False})
    assert [(run.path / "adapter" / name).read_text() for name in names] == names
