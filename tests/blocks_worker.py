"""Qwen3's layers by our nodes against transformers' own, in Triton's interpreter (no GPU).

Run by test_blocks.py with TRITON_INTERPRET=1; prints the largest difference of each case.
"""

from __future__ import annotations

import json
import sys
from itertools import accumulate

import torch
from peft import LoraConfig, get_peft_model
from transformers import Qwen3Config, Qwen3Model

from mipic_llm.model import blocks
from mipic_llm.model.blocks.apply import fault
from mipic_llm.model.varlen import keywords
from mipic_llm.types import Packing

LENGTHS = (6, 4, 4, 1)


def packing(lengths: tuple[int, ...]) -> Packing:
    cu = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    return Packing(cu, torch.cat([torch.arange(n) for n in lengths]), lengths, None)


def build(heads: tuple[int, int, int], width: int, ffn: int, **lora: object) -> torch.nn.Module:
    H, G, c = heads
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=50, hidden_size=width, num_hidden_layers=2, num_attention_heads=H, head_dim=c,
        num_key_value_heads=G, intermediate_size=ffn, attn_implementation="varlen",
    )  # fmt: skip
    model = Qwen3Model(config)
    if lora:
        model = get_peft_model(model, LoraConfig(task_type="FEATURE_EXTRACTION", **lora))
    for p in model.parameters():
        p.data += 0.1 * torch.randn(p.shape)
    return model


def run(model: torch.nn.Module, checkpointing: bool) -> dict[str, torch.Tensor]:
    """Output, an inner layer and every gradient; the inner layer read by a hook, as ours are."""
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    if checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
        base.enable_input_require_grads()
    model.train()
    model.zero_grad()
    inner = []
    handle = base.layers[0].register_forward_hook(lambda _m, _a, out: inner.append(out))
    torch.manual_seed(1)
    ids = torch.randint(0, 50, (1, sum(LENGTHS)))
    out = model(input_ids=ids, use_cache=False, **keywords(packing(LENGTHS), 0, "sdpa"))
    handle.remove()
    (out.last_hidden_state.sin().sum() + base.norm(inner[0]).cos().sum()).backward()
    found = {"out": out.last_hidden_state, "inner": inner[0]}
    return found | {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def apart(model: torch.nn.Module, checkpointing: bool = False) -> float:
    """Largest difference against the largest value of a tensor."""
    want = run(model, checkpointing)
    assert blocks.obstacle(model, 1) is None, blocks.obstacle(model, 1)
    blocks.apply(model)
    got = run(model, checkpointing)
    assert got.keys() == want.keys(), got.keys() ^ want.keys()
    return max(float((got[n] - want[n]).abs().max() / want[n].abs().max()) for n in want)


@torch.no_grad()
def switched(model: torch.nn.Module) -> dict[str, float]:
    """LoRA off, and merged, as transformers' layers have it."""

    def out() -> torch.Tensor:
        ids = torch.arange(sum(LENGTHS))[None]
        return model(input_ids=ids, **keywords(packing(LENGTHS), 0, "sdpa")).last_hidden_state

    want = out()
    with model.disable_adapter():
        without = out()
    blocks.apply(model)
    with model.disable_adapter():
        found = {"LoRA off": float((out() - without).abs().max())}
    model.merge_adapter()
    found["LoRA merged"] = float((out() - want).abs().max())
    model.unmerge_adapter()
    return found | {"LoRA on again": float((out() - want).abs().max())}


if __name__ == "__main__":
    all_linear = {"r": 8, "lora_alpha": 12, "target_modules": "all-linear"}
    cases = {
        "full": apart(build((4, 2, 16), 64, 96)),
        "full, odd sizes": apart(build((3, 1, 10), 40, 72)),
        "LoRA": apart(build((4, 2, 16), 64, 96, **all_linear)),
        "LoRA of 20, checkpointing": apart(
            build((6, 2, 16), 64, 96, **{**all_linear, "r": 20}), checkpointing=True
        ),
    }  # fmt: skip
    some = build((4, 2, 16), 64, 96, r=4, target_modules=["q_proj", "v_proj", "up_proj"])
    for name, module in some.named_modules():
        if name.endswith("v_proj"):
            module.scaling["default"] = 3.0
    cases["LoRA of some, not alike"] = apart(some)
    cases |= switched(build((4, 2, 16), 64, 96, **all_linear))
    cases["right"] = fault("cpu") is None
    json.dump(cases, sys.stdout)
