"""The small models that plan_check.py measures, and the plan's description of each."""

from __future__ import annotations

import torch

from mipic_llm.plan import formulas
from mipic_llm.plan.shapes import Shape

TEXTS, TOKENS, RANK = 2, 48, 4


def small_configs() -> dict:
    """A small encoder and decoder, and MiniLM's real shape."""
    from transformers import BertConfig, Qwen3Config

    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return {
        "bert 4x64": BertConfig(
            vocab_size=300, hidden_size=64, num_hidden_layers=4, num_attention_heads=4,
            intermediate_size=256, **off,
        ),
        "qwen3 4x64": Qwen3Config(
            vocab_size=300, hidden_size=64, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=2, head_dim=32, intermediate_size=192,
        ),
        "MiniLM 6x384": BertConfig(
            vocab_size=30522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12,
            intermediate_size=1536, **off,
        ),
    }  # fmt: skip


def build(config, lora: int, attention: str, dtype=torch.float32, again: bool = False):
    """-> (the real class, in training mode, perhaps under LoRA and checkpointing)."""
    from transformers import AutoModel

    options = {"add_pooling_layer": False} if config.model_type == "bert" else {}
    torch.manual_seed(0)
    model = AutoModel.from_config(config, attn_implementation=attention, **options).to(dtype)
    if again:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        if lora:
            model.enable_input_require_grads()
    if lora:
        from peft import LoraConfig, get_peft_model

        settings = LoraConfig(r=lora, target_modules="all-linear", task_type="FEATURE_EXTRACTION")
        model = get_peft_model(model, settings, autocast_adapter_dtype=False)
    return model.train()


def work_for(shape: Shape, lora: int, kernel: str, size: int, again: bool, cached: bool = False):
    """The plan's description of such a model."""
    linears = tuple(shape.lora_linears(["all-linear"]).values()) if lora else ()
    return formulas.Work(shape, lora, linears, 0, again, cached, size, kernel, causal_half=False)


def batch() -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 300, (TEXTS, TOKENS), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
