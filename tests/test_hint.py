"""The start-up hint at ZeRO-3, and the persistence threshold that "auto" becomes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel, Qwen3Config, Qwen3Model

from mipic_llm.config import load_config
from mipic_llm.plan.shapes import SHAPES
from mipic_llm.runtime import hint
from mipic_llm.runtime.ds_config import load_ds_config, persistence_threshold

BERT = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12,
                  intermediate_size=1536)  # fmt: skip
QWEN_8B = Qwen3Config(hidden_size=4096, num_hidden_layers=36, num_attention_heads=32,
                      num_key_value_heads=8, head_dim=128, intermediate_size=12288)  # fmt: skip


@pytest.fixture
def hint_of(monkeypatch):
    """The hint for a module on so many ranks whose device has so many GiB."""

    def find(module: nn.Module, gib: float, ranks: int) -> str | None:
        monkeypatch.setattr(hint, "device_memory", lambda: (gib * hint.GIB, "GPU"))
        monkeypatch.setattr(hint.dist, "world_size", lambda: ranks)
        return hint.zero3_hint(module)

    return find


def built(cls, config) -> nn.Module:
    with torch.device("meta"):
        return cls(config).bfloat16()


def test_a_small_model_gets_the_hint(hint_of) -> None:
    line = hint_of(built(BertModel, BERT), 79, 2)
    assert line and line.startswith("hint: at ZeRO-2 weights, gradients and optimizer need 0.2 of")
    assert "\n" not in line and "79.0 GiB" in line and "--ds_config zero2 " in line
    assert "activations not counted" in line


def test_no_hint_when_the_lower_stage_leaves_no_room(hint_of) -> None:
    model = built(Qwen3Model, QWEN_8B)  # 7.6 G parameters
    assert hint_of(model, 141, 2) is not None  # 63.4
    assert hint_of(model, 126, 2) is None
    assert hint_of(model, 60, 2) is None and hint_of(model, 60, 64) is not None


def test_partitioned_and_frozen_parameters_are_counted_as_what_they_are(hint_of) -> None:
    model = nn.Linear(1, 1, bias=False)
    model.weight.ds_numel = 2**30  # type: ignore[assignment]  # ZeRO-3's, whose own shape is 0
    assert "need 12.0 of" in (hint_of(model, 79, 2) or "")  # 4 + (4 + 12) / 2
    model.weight.requires_grad_(False)
    assert "need 4.0 of" in (hint_of(model, 79, 2) or "")


def test_memory_of_this_machine(monkeypatch) -> None:
    whole, what = hint.device_memory()
    if what == "GPU":
        return
    monkeypatch.setattr(hint.dist, "ranks_here", lambda: 4)
    assert hint.device_memory() == (whole / 4, "RAM per rank")
    assert whole > hint.GIB / 4


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("rank", [0, 8, 16])
def test_norms_and_lora_stay_whole_and_matrices_do_not(name: str, rank: int) -> None:
    s = SHAPES[name]
    threshold = persistence_threshold(s.width, rank)
    norms_and_biases = max(s.width, s.inner if not s.decoder else 0)
    assert threshold >= norms_and_biases
    assert threshold >= rank * max(max(pair) for pair in s.linears().values())
    assert threshold < min(a * b for a, b in s.linears().values())


def test_auto_is_filled_with_it(tmp_path) -> None:
    path = tmp_path / "ds.json"
    path.write_text(
        '{"zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": "auto"}}'
    )
    config = SimpleNamespace(**vars(load_config(["--lora.rank", "16"])))
    ds = load_ds_config(path, config, world_size=1, hidden_size=1024)  # type: ignore[arg-type]
    # 4 * 1024 * 16 elements: the largest of LoRA's tensors at an inner width of 4 D
    assert ds["zero_optimization"]["stage3_param_persistence_threshold"] == 65536


def test_a_container_has_the_memory_of_its_limit(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(hint.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(hint, "LIMIT", tmp_path / "max")
    whole, _ = hint.device_memory()
    for said, memory in (("max", whole), (str(2**28), 2**28), (str(2**62), whole)):
        (tmp_path / "max").write_text(said + "\n")
        assert hint.device_memory() == (memory, "RAM per rank")
