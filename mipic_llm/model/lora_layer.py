"""What a linear layer computes with, LoRA on it or not."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn


class Parts(NamedTuple):
    """x W^T + bias + scale (x A^T) B^T; A and B None without LoRA."""

    W: Tensor
    A: Tensor | None
    B: Tensor | None
    bias: Tensor | None
    scale: float


def plain(layer: nn.Module) -> bool:
    """Whether `parts` says all of it: a linear layer, or peft's LoRA of one, without dropout, DoRA,
    a quantised base or a bias of its own."""
    return type(layer) is nn.Linear or plain_lora(layer)


def plain_lora(layer: Any) -> bool:
    """peft's LoRA of one adapter on a frozen nn.Linear, and nothing more."""
    from peft.tuners.lora.layer import Linear

    if type(layer) is not Linear or type(layer.base_layer) is not nn.Linear:
        return False
    frozen = not any(p.requires_grad for p in layer.base_layer.parameters())
    dropout = any(getattr(m, "p", 0) for m in layer.lora_dropout.values())
    biased = any(m.bias is not None for m in layer.lora_B.values())
    return frozen and len(layer.lora_A) == 1 and not (layer.lora_variant or dropout or biased)


def parts(layer: Any) -> Parts:
    """Of a layer that is `plain`, as it stands: without its LoRA where that is off or merged."""
    if type(layer) is nn.Linear:
        return Parts(layer.weight, None, None, layer.bias, 1.0)
    W, bias, (name,) = layer.base_layer.weight, layer.base_layer.bias, layer.lora_A
    if layer.disable_adapters or layer.merged or layer.active_adapters != [name]:
        return Parts(W, None, None, bias, 1.0)
    A, B = layer.lora_A[name].weight, layer.lora_B[name].weight
    return Parts(W, A, B, bias, layer.scaling[name])
