"""Layers in two nodes equal transformers' own, gradients too, in Triton's interpreter."""

from __future__ import annotations

import json
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from ranks import run_command
from safetensors.torch import load_file
from test_short_attention import ASIDE, HERE, python
from tiny_models import few, tiny_bert, tiny_qwen3, tiny_xlmr
from transformers import AutoModel, LlamaConfig

from mipic_llm.config import load_config
from mipic_llm.errors import UserError
from mipic_llm.model import blocks
from mipic_llm.training.setup import fuse_layers

needs_triton = pytest.mark.skipif(
    not (ASIDE / "triton").is_dir() and find_spec("triton") is None,
    reason="no package triton; make install brings one",
)


@pytest.fixture(scope="module")
def found() -> dict[str, float]:
    return json.loads(python(str(HERE / "blocks_worker.py")).splitlines()[-1])


@needs_triton
def test_layers_equal_transformers_with_gradients(found) -> None:
    assert found.pop("qwen3 right") is True and found.pop("bert right") is True
    assert len(found) == 14
    for case, difference in found.items():
        assert difference < 1e-5, case


def layers(tmp_path, monkeypatch, make, *flags: str, why: str | None = "", stage: int = 1) -> str:
    """How the layers of a tiny model run with these flags, where the nodes say `why` not."""
    model = AutoModel.from_pretrained(make(tmp_path / "m"), attn_implementation="varlen")
    config = load_config(["--lora.rank", "0", *flags])
    if why != "":
        monkeypatch.setattr(blocks, "obstacle", lambda model, stage: why)
    monkeypatch.setattr(blocks, "apply", lambda model: None)
    return fuse_layers(config, model, stage)


def tiny_llama(folder: Path) -> Path:
    sizes = {"vocab_size": 9, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    AutoModel.from_config(LlamaConfig(**sizes, num_attention_heads=2)).save_pretrained(folder)
    return folder


def test_how_layers_run(tmp_path, monkeypatch) -> None:
    run = partial(layers, tmp_path, monkeypatch)
    assert run(tiny_qwen3) == "plain"  # no GPU
    with pytest.raises(UserError, match="model.fused needs a CUDA device; use --model.fused auto"):
        run(tiny_qwen3, "--model.fused", "true")
    with pytest.raises(UserError, match=r"needs layers without dropout \(--model.dropout 0\); use"):
        run(tiny_bert, "--model.fused", "true")
    with pytest.raises(UserError, match="is for qwen3, bert, roberta, xlm-roberta only, and"):
        run(tiny_llama, "--model.fused", "true")
    with pytest.raises(UserError, match="model.fused cannot follow ZeRO-3"):
        run(tiny_qwen3, "--model.fused", "true", stage=3)
    with pytest.raises(UserError, match="model.fused and train.compile are on"):
        run(tiny_qwen3, "--model.fused", "true", "--train.compile", "true")
    assert run(tiny_qwen3, why=None) == "fused"
    assert run(tiny_bert, why=None) == "plain"  # not seen to be faster: only where it is asked for
    assert run(tiny_bert, "--model.fused", "true", why=None) == "fused"
    assert run(tiny_qwen3, "--model.fused", "false", why=None) == "plain"
    assert "no ptxas" in run(tiny_qwen3, why="fails here: no ptxas")  # a fault is said


@pytest.mark.parametrize(
    "options", [{"lora_dropout": 0.1}, {"use_dora": True}, {"exclude": "k_proj"}]
)
def test_other_linear_layers_are_left_to_transformers(tmp_path, monkeypatch, options) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    model = AutoModel.from_pretrained(tiny_qwen3(tmp_path / "m"), attn_implementation="varlen")
    if "exclude" in options:  # trained beside LoRA
        model = get_peft_model(model, LoraConfig(target_modules=["q_proj"]))
        model.base_model.layers[0].self_attn.k_proj.weight.requires_grad_(True)
    else:
        model = get_peft_model(model, LoraConfig(target_modules="all-linear", **options))
    assert blocks.obstacle(model, 1).startswith("needs ")


@needs_triton
@pytest.mark.parametrize("make", [tiny_qwen3, tiny_xlmr])
def test_a_run_with_nodes_trains_what_a_run_without_does(tmp_path, make) -> None:
    """By the command line, LoRA at ZeRO-2 in chunks, to an adapter that was read again."""
    flags = [
        "--model.name", str(make(tmp_path / "m", layers=2)), "--data.train",
        str(few(tmp_path, rows=12)), "--data.validation", "none", "--data.max_length", "5",
        "--train.batch_size", "2", "--train.chunk_size", "3", "--train.max_steps", "2",
        "--train.log_every", "1", "--objective.name", "mrl", "--objective.dims", "8", "32",
        "--model.attn", "varlen", "--ds_config", "zero2", "--export.rehearse", "false",
        "--tracking.mlflow", "off", "--train.precision", "fp32",
    ]  # fmt: skip
    command = [str(HERE.parent / "launch" / "train.py"), *flags, "--output_dir"]
    code, plain = run_command([*command, str(tmp_path / "false")], tmp_path, tmp_path / "log")
    assert code == 0, plain
    told = python(str(HERE / "interpreter.py"), *command, str(tmp_path / "true"),
                  "--model.fused", "true")  # fmt: skip
    assert "layers: fused" in told and "layers: fused" not in plain
    rows, adapters = {}, {}
    for fused in ("true", "false"):
        out = tmp_path / fused
        rows[fused] = [json.loads(row) for row in (out / "metrics.jsonl").read_text().splitlines()]
        adapters[fused] = load_file(out / "adapter" / "adapter_model.safetensors")
    losses = {k: [row["loss"] for row in found if "loss" in row] for k, found in rows.items()}
    assert losses["true"] == pytest.approx(losses["false"], rel=1e-5) and len(losses["true"]) == 2
    for name, value in adapters["false"].items():
        assert (adapters["true"][name] - value).norm() < 1e-3 * value.norm(), name
