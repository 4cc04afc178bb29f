"""Which layers run by the nodes of qwen3.py, and the layers themselves.

The forward of one model's layers is replaced, never transformers' classes: a model that is loaded
again in the same process, to verify an export, must stay what transformers makes it. transformers'
own forward remains for padded batches, for a CPU, and for other dtypes.
"""

from __future__ import annotations

import os
import types
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from mipic_llm.model.attention import PACKED
from mipic_llm.model.backbone import base_of, layers_of
from mipic_llm.model.lora_layer import parts, plain

KINDS = ("qwen3",)
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
BROKEN = ("fails here", "differs here")  # how an obstacle begins that is a fault, not a choice


def obstacle(model: nn.Module, stage: int) -> str | None:
    """Why the layers of this model, LoRA on it or not, cannot run by our nodes here, as the end of
    a sentence; None where they can. stage: of ZeRO."""
    base = base_of(model)
    config, layers = base.config, layers_of(model)
    if config.model_type not in KINDS:
        return f"is for {', '.join(KINDS)} only, and the model is {config.model_type}"
    if config._attn_implementation not in PACKED:
        return "needs packed batches (--model.attn varlen, bf16, a CUDA device)"
    if stage == 3:
        return "cannot follow ZeRO-3, which takes weights in and out around each module"
    if config.hidden_act != "silu":
        return f"is for silu, and this model has {config.hidden_act}"
    linears = [getattr(part, name) for layer in layers
               for part, names in ((layer.self_attn, ATTENTION), (layer.mlp, MLP))
               for name in names]  # fmt: skip
    if not all(map(plain, linears)):
        return "needs linear layers without bias, dropout, DoRA or 4 bits"
    weights = [parts(linear).W for linear in linears]
    if len({w.requires_grad for w in weights}) > 1 or len({w.dtype for w in weights}) > 1:
        return "needs all linear layers trained or none, in one dtype"
    if not (torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"):
        return "needs a CUDA device"
    return fault("cuda" if torch.cuda.is_available() else "cpu")


def apply(model: nn.Module) -> None:
    """Give all layers, and the final norm, the forwards below, in place; after LoRA."""
    for layer in layers_of(model):
        layer.forward = types.MethodType(_layer, layer)
    for module in base_of(model).children():
        if type(module).__name__ == "Qwen3RMSNorm":
            module.forward = types.MethodType(_norm, module)


def _ours(x: Tensor, w: Tensor) -> bool:
    here = x.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"
    return here and x.dtype == w.dtype


def _norm(self: Any, hidden_states: Tensor) -> Tensor:
    from mipic_llm.model.blocks.qwen3 import NormFunction

    if not _ours(hidden_states, self.weight):
        return type(self).forward(self, hidden_states)
    return NormFunction.apply(self.variance_epsilon, hidden_states, self.weight)


def _layer(
    self: Any, hidden_states: Tensor, attention_mask: Tensor | None = None,
    position_ids: Tensor | None = None, past_key_values: Any = None, use_cache: bool | None = False,
    position_embeddings: tuple[Tensor, Tensor] | None = None, **kwargs: Any,
) -> Tensor:  # fmt: skip
    """transformers' Qwen3DecoderLayer.forward: hidden_states (1, N, D) -> the same shape."""
    packed = kwargs.get("cu_seq_lens_q") is not None and attention_mask is None
    if not packed or past_key_values is not None or not _ours(
        hidden_states, self.input_layernorm.weight
    ):  # fmt: skip
        return type(self).forward(
            self, hidden_states, attention_mask=attention_mask, position_ids=position_ids,
            past_key_values=past_key_values, use_cache=use_cache,
            position_embeddings=position_embeddings, **kwargs,
        )  # fmt: skip
    from mipic_llm.model.blocks import qwen3

    assert position_embeddings is not None
    attention, mlp = self.self_attn, self.mlp
    c, eps = attention.head_dim, self.input_layernorm.variance_epsilon
    q, k, v, o = (parts(getattr(attention, name)) for name in ATTENTION)
    gate, up, down = (parts(getattr(mlp, name)) for name in MLP)
    project = qwen3.Project(len(q.W) // c, len(k.W) // c, c, eps, (q.scale, k.scale, v.scale))
    cos_Nc, sin_Nc = (x[0] for x in position_embeddings)
    h_ND, *heads = qwen3.ProjectFunction.apply(
        project, hidden_states.squeeze(0), cos_Nc, sin_Nc, self.input_layernorm.weight,
        attention.q_norm.weight, attention.k_norm.weight, *q[:3], *k[:3], *v[:3],
    )  # fmt: skip
    kernel = ALL_ATTENTION_FUNCTIONS[attention.config._attn_implementation]
    a, _ = kernel(
        attention, *(x.transpose(0, 1).unsqueeze(0) for x in heads), None, dropout=0.0,
        scaling=attention.scaling, sliding_window=attention.sliding_window,
        position_ids=position_ids, **kwargs,
    )  # fmt: skip
    finish = qwen3.Finish(
        self.post_attention_layernorm.variance_epsilon,
        (o.scale, gate.scale, up.scale, down.scale),
    )
    h3_ND = qwen3.FinishFunction.apply(
        finish, h_ND, a.squeeze(0).flatten(1), self.post_attention_layernorm.weight,
        *o[:3], *gate[:3], *up[:3], *down[:3],
    )  # fmt: skip
    return h3_ND.unsqueeze(0)


@lru_cache(maxsize=1)
def fault(device: str) -> str | None:
    """Why the nodes cannot be used on this device, as the end of a sentence: what a compiler or
    driver said, or that a layer differs from transformers' own, LoRA on it or not, gradients too.
    None where they are right."""
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen3Config, Qwen3Model

    config = Qwen3Config(
        vocab_size=32, hidden_size=64, num_hidden_layers=1, num_attention_heads=4, head_dim=32,
        num_key_value_heads=2, intermediate_size=96, attn_implementation="varlen",
    )  # fmt: skip
    lora = LoraConfig(r=8, target_modules="all-linear", task_type="FEATURE_EXTRACTION")
    state = torch.random.get_rng_state()
    try:
        with torch.inference_mode(False), torch.enable_grad():
            torch.manual_seed(0)
            models: list[nn.Module] = [Qwen3Model(config) for _ in range(2)]
            models[1] = get_peft_model(models[1], lora)
            if all(_right(model.to(device), device) for model in models):
                return None
    except Exception as error:  # whatever is wrong there: the run goes on without, and says so
        return f"{BROKEN[0]}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
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
