"""Faster layers: LoRA without passes over wide tensors; optional: liger-kernel's fused parts of
Qwen3, and torch.compile layer by layer.

All are put on the layers of one model, never on transformers' classes: a model that is loaded
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
from torch.autograd.function import once_differentiable

from mipic_llm.errors import UserError
from mipic_llm.model.backbone import base_of, layers_of
from mipic_llm.model.lora_layer import plain_lora

LIGER_TYPES = ("qwen3",)


def can_liger(model: nn.Module) -> bool:
    """Whether `apply_liger` would take this model here."""
    installed = importlib.util.find_spec("liger_kernel") is not None
    kind = base_of(model).config.model_type
    return kind in LIGER_TYPES and installed and torch.cuda.is_available()


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


class _LoraLinear(torch.autograd.Function):
    """x W^T + bias + scale (x A^T) B^T for a frozen W. The low-rank part is added inside matrix
    products, forward and backward: in eager code its scaling, its addition and that of the two
    gradients at x are passes over (N, width) tensors of their own.

    Shape legend: N rows of x (N, i); W (o, i), bias (o,) or None, A (r, i), B (o, r).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, bias: Tensor | None, A: Tensor, B: Tensor,
                scale: float) -> Tensor:  # fmt: skip
        x_Ni = x.reshape(-1, x.shape[-1])
        low_Nr = x_Ni @ A.T
        out_No = nn.functional.linear(x_Ni, W, bias).addmm_(low_Nr, B.T, alpha=scale)
        ctx.save_for_backward(x_Ni, low_Nr, W, A, B)
        ctx.scale, ctx.shape = scale, x.shape
        # as torch's own matmul does: a view could not be changed in place (DeBERTa, Longformer)
        return torch.ops.aten._unsafe_view(out_No, [*x.shape[:-1], len(W)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x_Ni, low_Nr, W, A, B = ctx.saved_tensors
        grad_No = grad.reshape(-1, grad.shape[-1])
        slope_Nr = (grad_No @ B).mul_(ctx.scale)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = (grad_No @ W).addmm_(slope_Nr, A).view(ctx.shape)
        dB = (grad_No.T @ low_Nr).mul_(ctx.scale)
        return dx, None, None, slope_Nr.T @ x_Ni, dB, None


def fuse_lora(model: nn.Module) -> int:
    """Give peft's plain LoRA layers of this model the forward above, in place. -> how many.

    A layer with dropout, DoRA, a quantised base or a bias of its own keeps peft's. Not for ZeRO-3,
    whose hooks on the layers inside gather the weights.
    """

    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        (name,) = self.lora_A
        W, A = self.base_layer.weight, self.lora_A[name].weight
        plain = not (args or kwargs or self.disable_adapters or self.merged)
        if not plain or self.active_adapters != [name] or x.dtype != A.dtype or W.dtype != A.dtype:
            return type(self).forward(self, x, *args, **kwargs)
        B, scale = self.lora_B[name].weight, self.scaling[name]
        return _LoraLinear.apply(x, W, self.base_layer.bias, A, B, scale)

    found = 0
    for layer in model.modules():
        if plain_lora(layer):
            layer.forward = types.MethodType(forward, layer)
            found += 1
    return found


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
