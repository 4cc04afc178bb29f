"""The encoder: any Hugging Face encoder or decoder, its layers read through our own hooks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mipic_llm.errors import UserError
from mipic_llm.model.attention import PACKED
from mipic_llm.model.gpu_kernels import channels_of
from mipic_llm.model.packed import first_position, unpad
from mipic_llm.model.pooling import packed_readout, readout
from mipic_llm.model.varlen import keywords
from mipic_llm.types import Encoded, Packing

NORM_NAMES = ("norm", "final_layer_norm", "final_layernorm", "final_norm", "ln_f", "norm_f",
              "layer_norm", "ln")  # fmt: skip


def base_of(model: nn.Module) -> nn.Module:
    """The transformers model under a peft wrapper, if there is one."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def layers_of(model: nn.Module) -> nn.ModuleList:
    """The list of transformer layers. UserError when the architecture hides it."""
    n_layers = base_of(model).config.num_hidden_layers
    for _, module in base_of(model).named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == n_layers:
            return module
    name = type(base_of(model)).__name__
    raise UserError(f"model.name: {name} has no list of {n_layers} layers to read from")


def final_norm_of(model: nn.Module) -> nn.Module | None:
    """The norm after the last layer, at the top of the model or beside its layers: by its usual
    names, or else a module of vectors as wide as the model that was made after the layers. None
    where layers end normed (BERT). `Backbone` finds out whether it is the right one."""
    base, stack = base_of(model), layers_of(model)
    beside = next(m for m in base.modules() if any(child is stack for child in m.children()))
    found = [getattr(place, name, None) for place in (base, beside) for name in NORM_NAMES]
    for place in (base, beside):
        children = list(place.children())
        holds = [any(m is stack for m in child.modules()) for child in children]
        found += filter(_is_norm, children[holds.index(True) + 1 :])
    return next((norm for norm in found if norm is not None), None)


def _is_norm(module: nn.Module) -> bool:
    """Nothing but a scale, and perhaps a bias, in one module."""
    shapes = [getattr(p, "ds_shape", p.shape) for p in module.parameters()]
    return not list(module.children()) and 1 <= len(shapes) <= 2 and all(
        len(shape) == 1 for shape in shapes
    )  # fmt: skip


def cut_layers(model: nn.Module, n_layers: int) -> None:
    """Remove all layers after the first n_layers, in place, and say so in the model's config."""
    base, stack = base_of(model), layers_of(model)
    config, whole = base.config, len(stack)
    del stack[n_layers:]
    config.num_hidden_layers = n_layers
    for key, value in config.to_dict().items():  # layer_types and others: one entry a layer
        if isinstance(value, list) and len(value) == whole != n_layers:
            setattr(config, key, value[:n_layers])
    if getattr(config, "use_cache", False):  # there may be no layer left whose cache has a length
        config.use_cache = False


class Backbone(nn.Module):
    """Runs the model once and gives tokens and readouts of the asked layers (1-based).

    The last layer is `last_hidden_state` (after the final norm); inner layers come from hooks
    that are open only during our forward, so recomputation in backward does not refill them.
    packed: its attention kernel takes sequences without pads.
    """

    def __init__(
        self, model: nn.Module, *, pooling: str, inner_norm: str = "raw", view_noise: float = 0.0,
        dense: nn.Sequential | None = None,
    ) -> None:  # fmt: skip
        """dense: what follows the pooling (`model.dense`)."""
        super().__init__()
        self.model = model
        self.dense = dense
        self.pooling = pooling
        self.inner_norm = inner_norm
        self.view_noise = view_noise
        self.n_layers = base_of(model).config.num_hidden_layers
        self.width = base_of(model).config.hidden_size if dense is None else dense[-2].out_features
        self.kernel = base_of(model).config._attn_implementation
        self.packed = self.kernel in PACKED
        self.channels = channels_of(base_of(model).config) if self.packed else 0
        self.first_position = first_position(base_of(model))
        self.norm_known = (
            inner_norm == "raw"
        )  # else compared in the first forward with inner layers
        self.about_layers = "plain"  # how they run, for the user
        self.own_positions = False  # True: leave positions to the model (one packed sequence only)

    def forward(
        self, ids_ST: Tensor, mask_ST: Tensor | Packing, layers: Sequence[int],
        token_layers: Sequence[int],
    ) -> Encoded:  # fmt: skip
        """layers: whose readouts are wanted, ascending; token_layers: a subset with tokens.

        mask_ST: see `tokenise.pad`. A packed batch is ids (1, N) with a Packing for a mask, and its
        tokens come back as (N, D); a packed backbone strips the pads of a padded one.
        """
        if self.packed and isinstance(mask_ST, Tensor):
            ids_ST, mask_ST = unpad(ids_ST, mask_ST)
        assert self.packed == isinstance(mask_ST, Packing), "a packed batch, a padded kernel"
        inner = [layer for layer in layers if layer != self.n_layers]
        if isinstance(mask_ST, Packing):
            first = None if self.own_positions else self.first_position
            options = keywords(mask_ST, first, self.kernel, self.channels)
        else:
            options = {"attention_mask": (mask_ST != 0).to(mask_ST.dtype)}
        compare = bool(inner) and not self.norm_known
        with self._capture([*inner, *[self.n_layers] * compare]) as caught, self._noise():
            out = self.model(input_ids=ids_ST, use_cache=False, **options)
        states = {self.n_layers: out.last_hidden_state}
        last = out.last_hidden_state
        strange = [k for k, state in caught.items() if getattr(state, "shape", 0) != last.shape]
        if strange or len(caught) < len(set(inner)):
            name = type(base_of(self.model)).__name__
            raise UserError(f"model.name: the layers of {name} do not give one vector per token as "
                            "the model itself does, so that they cannot be read")  # fmt: skip
        norm = final_norm_of(self.model) if self.inner_norm == "final" else None
        if compare:
            self._compare(norm, caught[self.n_layers], out.last_hidden_state)
        for layer in inner:
            states[layer] = caught[layer] if norm is None else norm(caught[layer])
        if isinstance(mask_ST, Packing):
            states = {layer: state[0] for layer, state in states.items()}
            readouts = [packed_readout(states[layer], mask_ST, self.pooling) for layer in layers]
        else:
            readouts = [readout(states[layer], mask_ST, self.pooling) for layer in layers]
            mask_ST = mask_ST.bool()
        tokens = tuple(states[layer] for layer in token_layers)
        readout_LSD = torch.stack(readouts)
        if self.dense is not None:
            tokens, readout_LSD = tuple(map(self.dense, tokens)), self.dense(readout_LSD)
        return Encoded(tokens, mask_ST, readout_LSD)

    @torch.no_grad()
    def _compare(self, norm: nn.Module | None, layer: Tensor, last: Tensor) -> None:
        """The last layer's output through the norm must be the model's own output."""
        found = layer if norm is None else norm(layer)
        if not torch.allclose(found.float(), last.float(), rtol=1e-2, atol=1e-2):
            name = type(base_of(self.model)).__name__
            raise UserError(
                f"model.inner_norm: the norm that {name} applies after its last layer was not "
                "found, so that inner layers cannot pass through it; use --model.inner_norm raw"
            )
        self.norm_known = True

    @contextmanager
    def _capture(self, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
        caught: dict[int, Tensor] = {}

        def hook(layer: int):
            def keep(_module, _args, output):
                caught[layer] = output[0] if isinstance(output, tuple) else output

            return keep

        stack = layers_of(self.model)
        handles = [stack[layer - 1].register_forward_hook(hook(layer)) for layer in layers]
        try:
            yield caught
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def _noise(self) -> Iterator[None]:
        """Dropout on the input embeddings while training: the two views of unlabelled text."""
        if not self.view_noise or not self.training:
            yield
            return

        def drop(_module, _args, output):
            return nn.functional.dropout(output, self.view_noise, training=True)

        handle = base_of(self.model).get_input_embeddings().register_forward_hook(drop)
        try:
            yield
        finally:
            handle.remove()
