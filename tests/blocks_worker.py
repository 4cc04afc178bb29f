"""Layers by our nodes against transformers' own, in Triton's interpreter (no GPU).

Run by test_blocks.py with TRITON_INTERPRET=1; prints the largest difference of each case.
"""

from __future__ import annotations

import json
import sys
from itertools import accumulate

import interpreter  # noqa: F401
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModel, BertConfig, Qwen3Config, XLMRobertaConfig

from mipic_llm.model import blocks
from mipic_llm.model.backbone import layers_of
from mipic_llm.model.blocks.apply import fault
from mipic_llm.model.varlen import keywords
from mipic_llm.types import Packing

LENGTHS = (6, 4, 4, 1)


def packing(lengths: tuple[int, ...]) -> Packing:
    cu = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    return Packing(cu, torch.cat([torch.arange(n) for n in lengths]), lengths, None)


def build(kind: str, heads: int, width: int, ffn: int, **lora: object) -> torch.nn.Module:
    """Two layers. heads: half as many keys in Qwen3."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": width, "num_hidden_layers": 2,
             "num_attention_heads": heads, "intermediate_size": ffn}  # fmt: skip
    if kind == "qwen3":
        config = Qwen3Config(**sizes, head_dim=16 if heads % 2 == 0 else 10,
                             num_key_value_heads=max(1, heads // 2))  # fmt: skip
    else:
        made = {"bert": BertConfig, "xlm-roberta": XLMRobertaConfig}[kind]
        config = made(**sizes, hidden_dropout_prob=0, attention_probs_dropout_prob=0)
    model = AutoModel.from_config(config, attn_implementation="varlen")
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
    handle = layers_of(base)[0].register_forward_hook(lambda _m, _a, out: inner.append(out))
    torch.manual_seed(1)
    ids = torch.randint(0, 50, (1, sum(LENGTHS)))
    out = model(input_ids=ids, use_cache=False, **keywords(packing(LENGTHS), 0, "sdpa"))
    handle.remove()
    norm = getattr(base, "norm", torch.nn.Identity())
    (out.last_hidden_state.sin().sum() + norm(inner[0]).cos().sum()).backward()
    found = {"out": out.last_hidden_state, "inner": inner[0]}
    return found | {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def apart(model: torch.nn.Module, checkpointing: bool = False) -> float:
    """Largest difference against the largest value of a tensor. Softmax knows nothing of a bias of
    all keys: its gradient is zero but for rounding."""
    want = run(model, checkpointing)
    assert blocks.obstacle(model, 1) is None, blocks.obstacle(model, 1)
    blocks.apply(model)
    got = run(model, checkpointing)
    assert got.keys() == want.keys(), got.keys() ^ want.keys()
    for none in [n for n in want if n.endswith("key.bias")]:
        assert max(x.pop(none).abs().max() for x in (got, want)) < 1e-5
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
    cases: dict[str, float] = {}
    for kind, odd, some in (
        ("qwen3", (3, 40, 72), ["q_proj", "v_proj", "up_proj"]),
        ("xlm-roberta", (3, 30, 72), ["query", "value", "intermediate.dense"]),
    ):
        cases[f"{kind} full"] = apart(build(kind, 4, 64, 96))
        cases[f"{kind} full, odd sizes"] = apart(build(kind, *odd))
        cases[f"{kind} LoRA"] = apart(build(kind, 4, 64, 96, **all_linear))
        cases[f"{kind} LoRA of 20, checkpointing"] = apart(
            build(kind, 4, 64, 96, **{**all_linear, "r": 20}), checkpointing=True
        )
        unlike = build(kind, 4, 64, 96, r=4, target_modules=some)
        for name, module in unlike.named_modules():
            if name.endswith(some[1]):
                module.scaling["default"] = 3.0
        cases[f"{kind} LoRA of some, not alike"] = apart(unlike)
    cases["bert full"] = apart(build("bert", 2, 32, 64))
    cases |= switched(build("qwen3", 4, 64, 96, **all_linear))
    for kind in ("qwen3", "bert"):
        cases[f"{kind} right"] = fault("cpu", kind) is None
    json.dump(cases, sys.stdout)
