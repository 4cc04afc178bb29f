"""The start-up hint at ZeRO-3, and the persistence threshold that "auto" becomes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from transformers import BertConfig, Qwen3Config, T5Config

from mipic_llm.config.read import load_config
from mipic_llm.config.schema import resolve
from mipic_llm.plan.predict import GIB
from mipic_llm.plan.shapes import SHAPES
from mipic_llm.runtime.ds_config import load_ds_config, persistence_threshold
from mipic_llm.training import hint

BERT = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12,
                  intermediate_size=1536)  # fmt: skip
QWEN_8B = Qwen3Config(hidden_size=4096, num_hidden_layers=36, num_attention_heads=32,
                      num_key_value_heads=8, head_dim=128, intermediate_size=12288)  # fmt: skip


def resolved(shape, *argv: str):
    c = load_config(["--objective.dims", "none", "--sia.layers", "none", *argv])
    return resolve(c, width=shape.hidden_size, n_layers=shape.num_hidden_layers)


@pytest.fixture
def memory(monkeypatch):
    return lambda gib: monkeypatch.setattr(hint, "device_memory", lambda: (gib * GIB, "GPU"))


def test_a_small_model_gets_the_hint_at_zero3_only(memory) -> None:
    memory(79)
    line = hint.zero3_hint(resolved(BERT), BERT, 3, 2)
    assert line and line.startswith("hint: at ZeRO-2") and "zero2.json" in line
    assert "\n" not in line and "79.0 GiB" in line
    assert hint.zero3_hint(resolved(BERT), BERT, 2, 2) is None


def test_no_hint_when_the_lower_stage_would_not_fit(memory) -> None:
    config = resolved(QWEN_8B, "--lora.rank", "0", "--train.precision", "bf16",
                      "--train.batch_size", "4")  # fmt: skip
    memory(60)  # 14 GiB of weights, and 7.6 G parameters x 14 B over 2 ranks: 64
    assert hint.zero3_hint(config, QWEN_8B, 3, 2) is None
    assert hint.zero3_hint(config, QWEN_8B, 3, 64) is not None


def test_no_hint_without_formulas_or_in_four_bits(memory) -> None:
    memory(79)
    assert hint.zero3_hint(resolved(BERT), T5Config(), 3, 2) is None
    quantised = resolved(BERT, "--model.quantization", "nf4", "--lora.rank", "4")
    assert hint.zero3_hint(quantised, BERT, 3, 2) is None


def test_memory_of_this_machine(monkeypatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    whole, what = hint.device_memory()
    if what == "GPU":
        return
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert hint.device_memory() == (whole / 4, "RAM per rank")
    assert whole > GIB / 4


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
