"""A finished model, opened for inference at any ZeRO stage, as an encoder of texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mipic_llm.config.schema import PRESETS, Config, derive_dims
from mipic_llm.data.tokenise import TextEncoder, resolve_eos
from mipic_llm.errors import UserError
from mipic_llm.evaluation.encode import encode
from mipic_llm.evaluation.tasks.base import DOCUMENT, QUERY, SYMMETRIC
from mipic_llm.model.attention import choose
from mipic_llm.model.backbone import Backbone
from mipic_llm.model.finished import Finished, read_finished
from mipic_llm.model.load import Source, dtype_of, load_model, open_source, resolve_name
from mipic_llm.objective.module import EmbeddingModule
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.ds_config import load_ds_config
from mipic_llm.runtime.engine import Engine, loading
from mipic_llm.runtime.packing import check_packing


class Opened(NamedTuple):
    """A model ready to encode. encoders: one per kind of text, each with its prompt."""

    name: str
    engine: Engine
    encoders: dict[str, TextEncoder]
    n_layers: int
    width: int
    dims: list[int]
    about: str


def open_finished(config: Config, name: str) -> Opened:
    """Load `name` (directory, hub id or quickstart) under config.ds_config; all ranks call.

    Settings come from the model's own files; a flag (not a recipe) for model.pooling,
    model.append_eos, model.padding_side, model.inner_norm, data.max_length, data.*_prompt or
    train.precision overrules them. The weights' precision is the one they are stored in.
    Raises UserError for what is no model, or cannot be reproduced.
    """

    def flag(key: str, value: Any, otherwise: Any) -> Any:
        return value if config.origins.get(key) == "flag" else otherwise

    m = config.model
    base = flag("model.name", m.name, None) if name != m.name else None
    found = read_finished(resolve_name(name), base=base, revision=m.revision)
    m = dataclasses.replace(
        m, name=found.backbone, append_eos=flag("model.append_eos", m.append_eos, "auto"),
        pooling=flag("model.pooling", m.pooling, found.pooling or "auto"),
        padding_side=flag("model.padding_side", m.padding_side, "auto"),
    )  # fmt: skip
    source = open_source(m)
    if found.tokenizer != found.backbone:
        source = source._replace(tokenizer=_tokenizer(found.tokenizer, m, source))
    source = source._replace(pooling=m.pooling if m.pooling != "auto" else source.pooling)
    own = str(getattr(source.config, "dtype", None) or "")
    own_precision = "bf16" if own.endswith("bfloat16") else "fp32"
    precision = flag("train.precision", config.train.precision, own_precision)
    preset = PRESETS[config.objective.preset]["model"]["inner_norm"]
    inner_norm = flag("model.inner_norm", m.inner_norm, found.inner_norm) or preset
    length = flag("data.max_length", config.data.max_length, _length(found, source))
    engine = _engine(config, source, found, m, precision, inner_norm)
    shape = source.config
    about = (
        f"{name}: {shape.num_hidden_layers} layers, width {shape.hidden_size}, pooling "
        f"{source.pooling}, inner layers {inner_norm}, {length} tokens at most, {precision}, "
        f"attention {choose(m.attn, precision, shape).about}; "
        f"ZeRO-{engine.stage}, {dist.world_size()} rank(s)"
    )
    encoders = _encoders(config, source, found, m, length)
    return Opened(
        name, engine, encoders, shape.num_hidden_layers, shape.hidden_size,
        found.dims or derive_dims(shape.hidden_size), about,
    )  # fmt: skip


def vectors_of(
    opened: Opened, texts: Sequence[str], kind: str, layers: Sequence[int], batch_size: int
) -> Tensor:
    """(N, L, D) float32 readouts on CPU, on every rank; all ranks must call."""
    encoder = opened.encoders[kind]
    return encode(opened.engine, encoder, texts, layers, batch_size=batch_size)


def _tokenizer(name: str, model: Any, source: Source) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(
        name, revision=model.revision, trust_remote_code=model.trust_remote_code
    )
    if model.padding_side != "auto":
        tokenizer.padding_side = model.padding_side
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _length(found: Finished, source: Source) -> int:
    """As sentence-transformers: its own setting, else what tokenizer and positions allow."""
    if found.max_length:
        return found.max_length
    positions = getattr(source.config, "max_position_embeddings", None) or 0
    return min(source.tokenizer.model_max_length, positions if positions > 0 else 1 << 30)


def _encoders(
    config: Config, source: Source, found: Finished, model: Any, length: int
) -> dict[str, TextEncoder]:
    """Every kind with its prompt, as a query of its own encoder."""
    tokenizer = source.tokenizer
    if found.lower_case:
        _lower(tokenizer)
    # A portable directory's own tokenizer ends texts as its author wants; we add nothing to it.
    untold = found.portable and model.append_eos == "auto"
    option = "none" if untold else model.append_eos
    eos = resolve_eos(tokenizer, option, source.is_decoder)
    d, own = config.data, found.prompts
    query = own.get("query", "") if d.query_prompt is None else d.query_prompt
    document = own.get("document", "") if d.document_prompt is None else d.document_prompt
    both = {"default": found.default_prompt, "query": query, "none": ""}
    prompts = {SYMMETRIC: both[config.eval.symmetric_prompt], QUERY: query, DOCUMENT: document}
    return {
        kind: TextEncoder(tokenizer, length, append_eos_id=eos, prompts={"query": prompt})
        for kind, prompt in prompts.items()
    }


def _lower(tokenizer: Any) -> None:
    from tokenizers import normalizers

    backend = tokenizer.backend_tokenizer
    rest = [backend.normalizer] if backend.normalizer is not None else []
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *rest])


def _engine(
    config: Config, source: Source, found: Finished, model: Any, precision: str, inner_norm: str
) -> Engine:
    config = dataclasses.replace(
        config, train=dataclasses.replace(config.train, precision=precision)
    )
    ds_config = load_ds_config(
        config.ds_config, config, world_size=dist.world_size(),
        hidden_size=source.config.hidden_size,
    )  # fmt: skip
    zero = ds_config["zero_optimization"]
    if zero["stage"] in (1, 2):
        zero["stage"] = 0  # they split gradients and optimizer state, of which there are none
    zero.pop("offload_optimizer", None)
    with loading(ds_config):
        backbone = load_model(source, model, precision=precision, dropout=0.0)
        if found.adapter is not None:
            backbone = _with_adapter(backbone, found.adapter, dtype_of(precision))
    backbone.requires_grad_(False)
    module = EmbeddingModule(Backbone(backbone, pooling=source.pooling, inner_norm=inner_norm))
    engine = Engine(module, ds_config, None, None)
    engine.train(False)
    check_packing(engine, source.config)
    return engine


def _with_adapter(backbone: nn.Module, adapter: str, dtype: torch.dtype) -> nn.Module:
    """The backbone with its adapter beside it (not merged: under ZeRO-3 the base is in parts)."""
    from peft import PeftModel

    try:
        model = PeftModel.from_pretrained(backbone, adapter, autocast_adapter_dtype=False)
    except (ValueError, RuntimeError, OSError) as error:
        raise UserError(
            f"--model {adapter}: the adapter does not fit its base: {str(error).splitlines()[0]}"
        ) from error
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(dtype)
    return model
