"""Dense modules after the pooling of a sentence-transformers model: part of the readout.

EmbeddingGemma, LaBSE, LEAF and stella have them. They are trained with the backbone (whole, beside
LoRA too), act on the readout of every layer and on the tokens that a term reads, and are exported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mipic_llm.model.files import bad, read_json

_ACTIVATIONS = {kind.__name__: kind for kind in (
    nn.Identity, nn.Tanh, nn.ReLU, nn.GELU, nn.SiLU, nn.Sigmoid)}  # fmt: skip


class Dense(NamedTuple):
    """One linear layer and what follows it: weight (out, in), bias (out,), a class of torch.nn."""

    weight: Tensor
    bias: Tensor | None
    activation: str

    @property
    def settings(self) -> dict[str, object]:
        """Its config.json for sentence-transformers."""
        kind, (out, width) = _ACTIVATIONS[self.activation], self.weight.shape
        return {"in_features": width, "out_features": out, "bias": self.bias is not None,
                "activation_function": f"{kind.__module__}.{self.activation}"}  # fmt: skip

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Its weights for sentence-transformers."""
        bias = {} if self.bias is None else {"linear.bias": self.bias}
        return {"linear.weight": self.weight, **bias}

    def linear(self, z_ND: Tensor) -> Tensor:
        """(N, out) float32: vectors after the linear layer alone, in float64."""
        made_ND = z_ND.double() @ self.weight.double().T
        return (made_ND if self.bias is None else made_ND + self.bias).float()


def read_dense(folder: Path, name: str) -> Dense:
    """A Dense module's directory. UserError about model `name` for one that we do not reproduce."""
    settings = read_json(folder / "config.json")
    kind = str(settings.get("activation_function", "torch.nn.modules.activation.Tanh"))
    of = settings.get("module_input_name", "sentence_embedding")
    to = settings.get("module_output_name") or of
    activation = kind.rpartition(".")[2]
    if (of, to) != ("sentence_embedding",) * 2 or settings.get("use_residual"):
        raise bad(name, f"its {folder.name} reads {of}, writes {to}, or adds what it read; only a "
                  "linear layer on the sentence's vector is understood")  # fmt: skip
    if not kind.startswith("torch.nn.") or activation not in _ACTIVATIONS:
        raise bad(name, f"its {folder.name} has the activation {kind}; known are "
                  f"{', '.join(_ACTIVATIONS)} of torch.nn")  # fmt: skip
    safe, old = folder / "model.safetensors", folder / "pytorch_model.bin"
    try:
        found = load_file(safe) if safe.is_file() else torch.load(old, weights_only=True)
        weight, bias = found["linear.weight"], found.get("linear.bias")
    except Exception as error:  # of a file, a pickle, a header
        raise bad(name, f"the weights of its {folder.name} cannot be read: {error!r}") from error
    made = Dense(weight, bias, activation)
    own = {key: settings.get(key) for key in ("in_features", "out_features")}
    if not own.items() <= made.settings.items():
        raise bad(name, f"its {folder.name} says {own}, and its weight is {tuple(weight.shape)}")
    return made


def dense_in(folder: Path) -> tuple[Dense, ...]:
    """All Dense modules of an export, in their order."""
    return tuple(read_dense(path, str(folder)) for path in sorted(folder.glob("*_Dense")))


def write_dense(folder: Path, dense: Dense) -> None:
    """Its directory, as `read_dense` and sentence-transformers read it."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = json.dumps(dense.settings, indent=2, sort_keys=True)
    (folder / "config.json").write_text(settings + "\n", encoding="utf-8")
    tensors = {k: v.contiguous() for k, v in dense.tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def make_dense(layers: Sequence[Dense], dtype: torch.dtype) -> nn.Sequential | None:
    """The layers as one module that trains: linear layers at 0, 2, .. and activations between them.
    None where there are none."""
    parts: list[nn.Module] = []
    for layer in layers:
        linear = nn.Linear(*layer.weight.shape[::-1], bias=layer.bias is not None, dtype=dtype)
        with torch.no_grad():
            linear.weight.copy_(layer.weight)
            if layer.bias is not None:
                linear.bias.copy_(layer.bias)
        parts += [linear, _ACTIVATIONS[layer.activation]()]
    return nn.Sequential(*parts) if parts else None


def trained(layers: Sequence[Dense], state: Mapping[str, Tensor]) -> tuple[Dense, ...]:
    """The same layers with the weights of `make_dense` in a state dict of it."""
    return tuple(
        layer._replace(weight=state[f"{2 * i}.weight"], bias=state.get(f"{2 * i}.bias"))
        for i, layer in enumerate(layers)
    )


def cut(layers: Sequence[Dense], width: int, dim: int) -> tuple[Dense, ...]:
    """The readout of `layers` (`width` channels) with its first `dim` channels alone: their rows of
    the last layer, or a layer [I 0]. All activations act channel by channel, so that it is exact.
    """
    if dim == width:
        return tuple(layers)
    if not layers:
        return (Dense(torch.eye(dim, width), None, "Identity"),)
    *rest, last = layers
    bias = None if last.bias is None else last.bias[:dim]
    return (*rest, last._replace(weight=last.weight[:dim], bias=bias))
