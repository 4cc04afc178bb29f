"""Which layers run by the nodes of qwen3.py and bert.py, and that these are right.

The forward of one model's layers is replaced, never transformers' classes: a model that is loaded
again in the same process, to verify an export, must stay what transformers makes it.
"""

from __future__ import annotations

import os
import types
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from mipic_llm.errors import kernel_fault
from mipic_llm.model.attention import PACKED
from mipic_llm.model.backbone import base_of, layers_of
from mipic_llm.model.blocks.families import FAMILIES, Family
from mipic_llm.model.lora_layer import parts, plain

KINDS = tuple(kind for family in FAMILIES for kind in family.kinds)
BROKEN = ("fails here", "differs here")  # how an obstacle begins that is a fault, not a choice


def family_of(model: nn.Module) -> Family | None:
    return _family(base_of(model).config.model_type)


def _family(kind: str) -> Family | None:
    return next((family for family in FAMILIES if kind in family.kinds), None)


def worth_it(model: nn.Module) -> bool:
    """Whether `--model.fused auto` asks for nodes (whether they can run is `obstacle`'s answer)."""
    family = family_of(model)
    return family is None or family.faster


def obstacle(model: nn.Module, stage: int) -> str | None:
    """Why the layers of this model, LoRA on it or not, cannot run by our nodes here, as the end of
    a sentence; None where they can. stage: of ZeRO."""
    family, config = family_of(model), base_of(model).config
    if family is None:
        return f"is for {', '.join(KINDS)} only, and the model is {config.model_type}"
    if config._attn_implementation not in PACKED:
        return "needs packed batches (--model.attn varlen, bf16, a CUDA device)"
    if stage == 3:
        return "cannot follow ZeRO-3, which takes weights in and out around each module"
    if why := _misfit(model, family):
        return why
    if not (torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"):
        return "needs a CUDA device"
    return fault("cuda" if torch.cuda.is_available() else "cpu", family.kinds[0])


def _misfit(model: nn.Module, family: Family) -> str | None:
    """What of this model's layers the nodes do not know."""
    config, layers = base_of(model).config, layers_of(model)
    if config.hidden_act != family.act:
        return f"is for {family.act}, and this model has {config.hidden_act}"
    odd = ("is_decoder", "add_cross_attention", "chunk_size_feed_forward")
    if on := [name for name in odd if getattr(config, name, None)]:
        return f"does not know {on[0]}, which is on in this model"
    linears = [layer.get_submodule(name) for layer in layers for name in family.linears]
    if not all(plain(x) and (parts(x).bias is not None) is family.biased for x in linears):
        bias = "biases" if family.biased else "bias"
        return (f"needs linear layers {'with' if family.biased else 'without'} {bias}, without "
                "dropout, DoRA or 4 bits")  # fmt: skip
    within = {m for x in linears for m in x.modules()}
    others = [m for m in layers.modules() if m not in within]
    if any(m.p > 0 for m in others if isinstance(m, nn.Dropout)):
        return "needs layers without dropout (--model.dropout 0)"
    weights = [w for x in linears for w in (parts(x).W, parts(x).bias) if w is not None]
    weights += [p for m in others for p in m.parameters(recurse=False)]
    if len({w.requires_grad for w in weights}) > 1 or len({w.dtype for w in weights}) > 1:
        return "needs all of a layer's weights trained or none, in one dtype"
    return None


def apply(model: nn.Module) -> None:
    """Give all layers, and norms beside them, their family's forwards, in place; after LoRA."""
    family = family_of(model)
    assert family is not None
    for layer in layers_of(model):
        layer.forward = types.MethodType(family.layer, layer)
    for module in base_of(model).children():
        if type(module).__name__ in family.norms:
            module.forward = types.MethodType(family.norm, module)


def _sample(kind: str) -> nn.Module:
    """A tiny model of one layer of this kind."""
    import transformers

    family = _family(kind)
    assert family is not None
    name, own = family.sample
    sizes: dict[str, Any] = {"vocab_size": 32, "hidden_size": 64, "num_hidden_layers": 1,
                             "num_attention_heads": 4, "intermediate_size": 96}  # fmt: skip
    config = getattr(transformers, name)(**sizes, **own)
    return transformers.AutoModel.from_config(config, attn_implementation="varlen")


@lru_cache(maxsize=4)
def fault(device: str, kind: str) -> str | None:
    """Why the nodes for this kind of model cannot be used on this device, as the end of a sentence:
    what a compiler or driver said, or that a layer differs from transformers' own, LoRA on it or
    not, gradients too. None where they are right."""
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(r=8, target_modules="all-linear", task_type="FEATURE_EXTRACTION")
    state = torch.random.get_rng_state()
    try:
        with torch.inference_mode(False), torch.enable_grad():
            torch.manual_seed(0)
            models: list[nn.Module] = [_sample(kind) for _ in range(2)]
            models[1] = get_peft_model(models[1], lora)
            if all(_right(model.to(device), device) for model in models):
                return None
    except Exception as error:  # whatever is wrong there: the run goes on without, and says so
        return f"{BROKEN[0]}: {kernel_fault(error, '--model.fused false')}"
    finally:
        torch.random.set_rng_state(state)
    return f"{BROKEN[1]} from transformers' own layer"


def _right(model: nn.Module, device: str) -> bool:
    """Whether our nodes do what this model of one layer does by itself."""
    from mipic_llm.model.varlen import keywords
    from mipic_llm.types import Packing

    for p in model.parameters():
        p.data += 0.1 * torch.randn(p.shape).to(device)
    cu, lengths = torch.tensor([0, 9, 14, 15], dtype=torch.int32), (9, 5, 1)
    place = torch.cat([torch.arange(n) for n in lengths])
    options = keywords(Packing(cu, place, lengths, None).to(torch.device(device)), 0, "sdpa")
    ids, found = torch.randint(0, 32, (1, 15)).to(device), []
    for ours in (False, True):
        if ours:
            apply(model)
        model.zero_grad()
        out = model(input_ids=ids, use_cache=False, **options).last_hidden_state
        out.sin().sum().backward()
        found.append([out.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    return all(torch.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in zip(*found, strict=True))
