"""Optional faster layers: liger-kernel's fused parts of Qwen3, and torch.compile layer by layer.

Both are put on the layers of one model, never on transformers' classes: a model that is loaded
again in the same process, on a CPU, to verify an export must stay what transformers makes it.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mipic_llm.errors import UserError
from mipic_llm.model.backbone import base_of, layers_of

LIGER_TYPES = ("qwen3",)


def apply_liger(model: nn.Module) -> None:
    """RMSNorm, SwiGLU and RoPE of a Qwen3 by liger's kernels, in place; before or after LoRA.

    Raises UserError without CUDA, without the package, or for another architecture.
    """
    kind = base_of(model).config.model_type
    if kind not in LIGER_TYPES:
        raise UserError(
            f"model.liger: there are fused kernels for {', '.join(LIGER_TYPES)} only, and the "
            f"model is {kind}; use --model.liger false"
        )
    if not torch.cuda.is_available():
        raise UserError("model.liger: its kernels need a CUDA device; use --model.liger false")
    if importlib.util.find_spec("liger_kernel") is None:
        raise UserError(
            "model.liger: liger-kernel is not installed; pip install 'mipic_llm[liger]' or use "
            "--model.liger false"
        )
    from liger_kernel.transformers import functional

    # In place would overwrite the incoming gradient, which our layer hooks may share.
    def norm(self: Any, hidden_states: Tensor) -> Tensor:
        return functional.liger_rms_norm(
            hidden_states, self.weight, self.variance_epsilon, 0.0, "llama", False
        )

    def mlp(self: Any, x: Tensor) -> Tensor:
        return self.down_proj(functional.liger_swiglu(self.gate_proj(x), self.up_proj(x)))

    for module in base_of(model).modules():
        name = type(module).__name__
        if name == "Qwen3RMSNorm":
            module.forward = types.MethodType(norm, module)
        elif name == "Qwen3MLP":
            module.forward = types.MethodType(mlp, module)
    from transformers.models.qwen3 import modeling_qwen3

    # Attention looks this function up in its file: no way to change it for one model.
    plain = getattr(modeling_qwen3.apply_rotary_pos_emb, "plain", None)
    modeling_qwen3.apply_rotary_pos_emb = rope(
        plain or modeling_qwen3.apply_rotary_pos_emb, functional.liger_rope
    )


def rope(plain: Callable[..., Any], fused: Callable[..., Any]) -> Callable[..., Any]:
    """Rotary embedding by `fused` on CUDA and by `plain` elsewhere; transformers' arguments."""

    def apply(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> Any:
        if q.is_cuda:
            return fused(q, k, cos, sin, None, unsqueeze_dim)
        return plain(q, k, cos, sin, unsqueeze_dim)

    apply.plain = plain  # type: ignore[attr-defined]
    return apply


def compile_layers(model: nn.Module, *, stage: int) -> None:
    """torch.compile every transformer layer's forward, in place; after LoRA. stage: of ZeRO.

    What is compiled is `forward`, not the call: hooks on a layer (ours, checkpointing's) run
    outside, so those opened later fire, which `layer.compile()` silently does not see. Raises
    UserError at ZeRO-3 and, on a CPU, without a C++ compiler.
    """
    if stage == 3:
        raise UserError(
            "train.compile: ZeRO-3 takes a layer's weights in and out around each call, which "
            "compiled code cannot follow; use --ds_config zero2 or --train.compile "
            "false"
        )
    compilers = (os.environ.get("CXX", ""), "g++", "clang++", "c++")
    if not torch.cuda.is_available() and not any(shutil.which(c) for c in compilers if c):
        raise UserError(
            "train.compile: on a CPU it needs a C++ compiler (g++), and there is none; install one "
            "or use --train.compile false"
        )
    for layer in layers_of(model):
        layer.forward = torch.compile(layer.forward, dynamic=True)
