"""From a configuration to everything a run needs, cheapest checks first."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mipic_llm.config import (
    Config,
    flatten,
    idle_flags,
    narrow_dims,
    need,
    resolve,
    resolve_stages,
)
from mipic_llm.config.sizes import dims_given_up
from mipic_llm.data.read.rows import TextSource
from mipic_llm.evaluation.agree import agree_on_settings
from mipic_llm.model import blocks
from mipic_llm.model.attention import model_class
from mipic_llm.model.backbone import Backbone
from mipic_llm.model.dense import make_dense
from mipic_llm.model.directory import open_source
from mipic_llm.model.fused import apply_liger, can_liger, compile_layers, fuse_lora
from mipic_llm.model.load import (
    about_weights,
    check_precision,
    dtype_of,
    lacks_bf16,
    load_model,
    lora_settings,
    with_lora,
)
from mipic_llm.model.prompts import prompt_notes
from mipic_llm.model.source import Source
from mipic_llm.objective import EmbeddingModule, build_objective
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.ds_config import load_ds_config
from mipic_llm.runtime.engine import Engine, loading
from mipic_llm.runtime.hint import zero3_hint
from mipic_llm.runtime.ranks import say
from mipic_llm.training.feed import Data, Plan, prepare_data
from mipic_llm.training.schedule import schedule_of, schedule_of_stages
from mipic_llm.training.teacher import open_teacher
from mipic_llm.training.turn import turn


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def resolve_for(config: Config, source: Source) -> Config:
    bf16 = torch.cuda.is_available() and not lacks_bf16()
    found = resolve(config, width=source.width, n_layers=source.n_layers,
                    max_positions=source.max_length, bf16=bf16)  # fmt: skip
    lost = dims_given_up(found.objective.dims or [], source.dims or [], source.width)
    for note in [*found.notes, *idle_flags(found), *(f"{source.name} {line}" for line in lost)]:
        say(f"note: {note}")
    resolve_stages(found, width=source.width, n_layers=source.n_layers)
    return found


def fuse_layers(config: Config, model: Any, stage: int) -> str:
    """Make the layers of a model fast, in place, after LoRA; stage: of ZeRO. -> how they run, for
    the user; "plain" as transformers runs them."""
    m = config.model
    if config.train.compile:
        compile_layers(model, stage=stage)
        return "compiled"
    if config.lora.rank and stage < 3:
        fuse_lora(model)
    off = m.fused == "false" or m.liger == "true" or (
        m.fused == "auto" and not blocks.worth_it(model)
    )  # fmt: skip
    why = "" if off else blocks.obstacle(model, stage)
    if why is None:
        blocks.apply(model)
        return "fused"
    need(m.fused != "true", f"model.fused {why}; use --model.fused auto")
    kind = "plain"
    if m.liger == "true" or (m.liger == "auto" and can_liger(model)):
        apply_liger(model)
        kind = "liger"
    return f"{kind} (model.fused {why})" if why.startswith(blocks.BROKEN) else kind


def build_module(
    config: Config, source: Source, ds_config: dict[str, Any], unlabelled: bool,
    teacher_width: int = 0,
) -> EmbeddingModule:  # fmt: skip
    """Backbone (whole or partitioned), LoRA and heads. Same seed, same new weights everywhere."""
    dropout = config.model.dropout
    if dropout is None and not unlabelled:
        dropout = 0.0
    if line := about_weights(source):
        say(line)
    with loading(ds_config):
        model = load_model(source, config.model, precision=config.train.precision, dropout=dropout)
        if config.train.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            if config.lora.rank:
                model.enable_input_require_grads()
        seed_everything(config.seed)
        if config.lora.rank:
            model = with_lora(model, config, source)
    stage = ds_config["zero_optimization"]["stage"]
    layers = fuse_layers(config, model, stage)
    backbone = Backbone(
        model, pooling=source.pooling, inner_norm=config.model.inner_norm or "raw",
        view_noise=config.model.view_noise,
        dense=make_dense(source.dense, dtype_of(config.train.precision)),
    )  # fmt: skip
    backbone.about_layers = layers
    width, depth = backbone.width, backbone.n_layers
    objectives = [build_objective(c, width=width, depth=depth, teacher_width=teacher_width)
                  for c in resolve_stages(config, width=width, n_layers=depth)]  # fmt: skip
    for heads in (h for objective in objectives for h in objective.heads().values()):
        heads.to(dtype_of(config.train.precision))
    return EmbeddingModule(backbone, *objectives)


def total_steps(config: Config, plan: Plan) -> int:
    return config.train.max_steps or plan.total(config.train.epochs)


def memory_size(config: Config, plan: Plan) -> int:
    """How many readouts the relation between texts remembers: `sia.memory`, but in a run of more
    than one epoch at most a quarter of an epoch's texts. A text that meets its own readout of the
    epoch before has a neighbour so near that it sees no other."""
    wanted = config.sia.memory or 0
    taught = config.teacher.name != "none"
    if not any(narrow_dims(c) or (taught and c.teacher.relation) for c in config.of_stages()):
        return 0
    if (epoch := plan.repeated(total_steps(config, plan))) is None:
        return wanted
    texts = 2 * epoch  # without negatives
    size = min(wanted, texts // 4)
    if size < wanted:
        say(f"note: sia.memory {wanted:,} -> {size:,}, a quarter of an epoch's texts")
    return size


def open_engine(config: Config, source: Source, data: Data, total: int) -> Engine:
    ds_config = load_ds_config(
        config.ds_config,
        config,
        world_size=dist.world_size(),
        hidden_size=source.config.hidden_size,
    )
    need(
        ds_config["zero_optimization"]["stage"] != 3 or config.model.quantization == "none"
        or not config.lora.use_dora, "lora.use_dora reads the weights of its base, which at ZeRO-3 "
        "are in parts that it cannot put together in 4 bits; use --ds_config zero2, or "
        "--model.quantization none",
    )  # fmt: skip
    width = data.teacher.width if data.teacher else 0
    module = build_module(config, source, ds_config, data.unlabelled, width)
    whole = config.model.quantization == "none"
    if ds_config["zero_optimization"]["stage"] == 3 and whole and (line := zero3_hint(module)):
        say(line)
    if whole and "qlora" in Path(config.ds_config or "").name:
        say(f"note: {config.ds_config} splits the weights and does not pack them; the base is in 4 "
            "bits with --model.quantization nf4")  # fmt: skip
    t = config.train
    schedule = schedule_of_stages(config) if config.stages else schedule_of(t, total)
    seed_everything(config.seed + 1_000_003 * (dist.rank() + 1))  # own dropout on every rank
    return Engine(module, ds_config, config, schedule)


def _as_adapter(config: Config, source: Source) -> Config:
    """With the options that the adapter to be trained further decides. UserError for a flag that
    says something else."""
    if not source.adapter:
        return config
    found, now = lora_settings(source.adapter), flatten(config)
    if source.quantization != "none" and config.origins.get("model.quantization") != "flag":
        found["model.quantization"] = source.quantization
    for key, value in found.items():
        need(
            config.origins.get(key) != "flag" or now[key] == value,
            f"{key} is {now[key]}, and the adapter that is trained further has {value}; leave "
            f"--{key} out",
        )
    return config.replace("adapter", **found)


def check_rows(config: Config, sources: Sequence[TextSource]) -> None:
    """Refuse what is asked of rows that a run, or one of its stages, does not have."""
    rest = iter(sources)
    for i, own in enumerate(config.of_stages()):
        stage = config.stages[i] if config.stages else None
        where = f"entry {i + 1} of stages: " if stage else ""
        here = [*islice(rest, len(stage.training))] if stage else sources
        t = own.teacher
        need(
            t.name != "none" or not t.scores + t.margin or any(s.traits.scores for s in here),
            f"{where}teacher.scores and teacher.margin: no row has scores, and there is no teacher;"
            " give rows with pos_scores and neg_scores, or "
            + ("0 for both in its options" if stage else "--teacher.name MODEL"),
        )
        key = next((key for key in (stage.options if stage else ()) if key[:7] == "scored."), None)
        need(
            key is None or any(s.scored for s in here),
            f"{where}options has {key}, and no rows here are scored pairs; leave it out",
        )


def open_run(
    config: Config, rows: Any = None, validation: list[Any] | None = None,
    past: Sequence[tuple[int, int]] = (), begun: Path | None = None,
) -> tuple[Config, Source, Data]:  # fmt: skip
    """rows, validation, past: see `prepare_data`; config.yaml records their names. begun: directory
    of the run that is resumed."""
    source = open_source(config.model)
    for note in source.notes:
        say(f"note: {note}")
    config = resolve_for(_as_adapter(config, source), source)
    agree_on_settings(config, source)
    kind = model_class(source.config)
    need(
        not config.train.gradient_checkpointing
        or getattr(kind, "supports_gradient_checkpointing", True),
        f"train.gradient_checkpointing: {getattr(kind, '__name__', '')} keeps all activations, it "
        "cannot recompute them; use --train.gradient_checkpointing false",
    )
    check_precision(config.train.precision or "")
    for note in prompt_notes(config, source) if rows is None else []:
        say(f"note: {note}")
    data = prepare_data(config, source, rows, validation, past)
    check_rows(config, data.sources)
    source = turn(config, source, data.sources, begun)
    data = data._replace(teacher=open_teacher(config, data.sources, source))
    found: dict[str, Any] = {"sia.memory": memory_size(config, data.plan)}
    if rows is not None:
        found |= {"data.train": [s.name for s in data.sources], "data.sources": []}
    if validation is not None:
        found["data.validation"] = [t.name for t in data.tasks]
    config = config.replace(**found)
    return config, source, data
