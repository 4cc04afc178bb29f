"""A finished model, opened for inference at any ZeRO stage, as an encoder of texts."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mipic_llm.config import PRESETS, Config, derive_dims
from mipic_llm.data.tokenise import TextEncoder
from mipic_llm.evaluation.encode import encode, make_encoder
from mipic_llm.model.attention import choose
from mipic_llm.model.backbone import Backbone
from mipic_llm.model.dense import make_dense
from mipic_llm.model.directory import read_model
from mipic_llm.model.load import (
    about_weights,
    check_precision,
    dtype_of,
    lacks_bf16,
    load_model,
    read_adapter,
)
from mipic_llm.model.source import Source
from mipic_llm.objective.module import EmbeddingModule
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.batches import check_batches
from mipic_llm.runtime.ds_config import load_ds_config
from mipic_llm.runtime.engine import Engine, loading
from mipic_llm.runtime.ranks import say


class Opened(NamedTuple):
    """A model ready to encode."""

    name: str
    engine: Engine
    encoder: TextEncoder
    n_layers: int
    width: int
    dims: list[int]
    about: str
    source: Source

    def encode(
        self, texts: Sequence[str], layers: Sequence[int], *, batch_size: int, kind: str,
        show: bool = True,
    ) -> Tensor:  # fmt: skip
        """(N, L, D) float32 readouts, see `evaluation.encode.encode`; all ranks call."""
        return encode(self.engine, self.encoder, texts, layers, batch_size=batch_size, kind=kind,
                      show=show)  # fmt: skip


def open_finished(config: Config, name: str, source: Source | None = None) -> Opened:
    """Load `name` (directory, hub id or quickstart) under config.ds_config; all ranks call.
    source: what `name` was read as, where that is done.

    Settings come from the model's own files; a flag (not a recipe) for model.pooling,
    model.append_eos, model.padding_side, model.inner_norm, model.quantization, data.max_length or
    train.precision overrules them, and so does any data.*_prompt. The weights' precision is the
    one they are stored in. Raises UserError for what is no model, or cannot be reproduced.
    """

    def flag(key: str, otherwise: Any) -> Any:
        section, _, field = key.partition(".")
        told = config.origins.get(key) == "flag"
        return getattr(getattr(config, section), field) if told else otherwise

    m = config.model
    side = flag("model.padding_side", "auto")
    source = source or read_model(
        name, revision=m.revision, trust_remote_code=m.trust_remote_code,
        base=flag("model.name", None) if name != m.name else None,
        pooling=flag("model.pooling", "auto"), padding_side=side,
    )  # fmt: skip
    for note in source.notes:
        say(f"note: {note}")
    precision = flag("train.precision", "fp32" if lacks_bf16() else source.precision)
    check_precision(precision)
    inner_norm = flag("model.inner_norm", source.inner_norm)
    inner_norm = inner_norm or PRESETS[config.objective.preset]["model"]["inner_norm"]
    length = flag("data.max_length", source.max_length)
    config = config.replace(**{
        "data.max_length": length, "model.append_eos": flag("model.append_eos", "auto"),
        "model.padding_side": side, "train.precision": precision,
        "model.quantization": flag("model.quantization", source.quantization),
    })  # fmt: skip
    engine = for_inference(config, source, inner_norm, partial(load_frozen, config))
    encoder = make_encoder(config, source)
    about = (
        f"{name}: {source.reading(inner_norm, encoder)}, {precision}"
        f"{'' if config.model.quantization == 'none' else ' on a base in 4 bits'}, "
        f"attention {choose(m.attn, precision, source.config).about}; "
        f"ZeRO-{engine.stage}, {dist.world_size()} rank(s)"
    )
    return Opened(
        name, engine, encoder, source.n_layers, source.width,
        source.dims or derive_dims(source.width), about, source,
    )  # fmt: skip


def free() -> None:
    """Give back the memory of models that were closed and that nobody holds, the GPU's too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def load_frozen(config: Config, source: Source) -> nn.Module:
    """The transformer of a source, with its adapter, in config's precision."""
    precision = config.train.precision
    if line := about_weights(source):
        say(line)
    found = load_model(source, config.model, precision=precision, dropout=0.0)
    if source.adapter is not None:
        found = read_adapter(found, source.adapter, dtype_of(precision))
    return found


def for_inference(
    config: Config, source: Source, inner_norm: str, load: Callable[[Source], nn.Module]
) -> Engine:
    """A model as an engine that encodes, under config.ds_config. load: gives its transformer."""
    precision = config.train.precision
    ds_config = load_ds_config(
        config.ds_config, config, world_size=dist.world_size(),
        hidden_size=source.config.hidden_size,
    )  # fmt: skip
    zero = ds_config["zero_optimization"]
    if zero["stage"] in (1, 2):
        zero["stage"] = 0  # they split gradients and optimizer state, of which there are none
    zero.pop("offload_optimizer", None)
    with loading(ds_config):
        backbone = load(source)
    dense = make_dense(source.dense, dtype_of(precision))
    backbone = Backbone(backbone, pooling=source.pooling, inner_norm=inner_norm, dense=dense)
    module = EmbeddingModule(backbone.requires_grad_(False))
    engine = Engine(module, ds_config, None, None)
    engine.train(False)
    check_batches(engine, source.config)
    return engine
