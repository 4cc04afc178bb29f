"""What is a legal configuration, without looking at any model. Each refusal is one line: what,
where, what to do."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from mipic_llm.errors import UserError
from mipic_llm.types import Point

if TYPE_CHECKING:
    from mipic_llm.config.schema import Config


def need(ok: bool, message: str) -> None:
    """Raise UserError(message) unless ok."""
    if not ok:
        raise UserError(message)


def parse_ladder(ladder: Sequence[str]) -> tuple[Point, ...]:
    """["16@1", "32@2"] -> (Point(layer=1, dim=16), Point(layer=2, dim=32)).

    Raises UserError where an item is not dim@layer or the ladder does not rise: layers strictly,
    dims never fall.
    """
    points: list[Point] = []
    for item in " ".join(ladder).replace(",", " ").split():
        dim, at, layer = item.partition("@")
        if not (at and dim.isdecimal() and layer.isdecimal() and int(dim) and int(layer)):
            raise UserError(f"pic.ladder: {item!r} is not dim@layer, such as 64@3")
        points.append(Point(int(layer), int(dim)))
    for low, high in pairwise(points):
        if high.layer <= low.layer or high.dim < low.dim:
            raise UserError(
                f"pic.ladder must rise: {high} follows {low}; order it from narrow and shallow "
                "to wide and deep, each layer once"
            )
    return tuple(points)


def _choices(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, tuple[str, ...]]]:
    for f in fields(config):
        value = getattr(config, f.name)
        if f.metadata.get("internal"):
            continue
        if is_dataclass(value):
            yield from _choices(value, f"{f.name}.")
        elif f.metadata.get("choices") and value is not None:
            yield prefix + f.name, value, f.metadata["choices"]


def validate(config: Config, world_size: int | None = None) -> None:
    """Refuse everything that can be refused without the model. Raises UserError.

    world_size: ranks of the run; None reads WORLD_SIZE (the launchers set it), else 1.
    """
    for key, value, choices in _choices(config):
        need(value in choices, f"{key} is {value!r}; give one of: {', '.join(choices)}")
    _validate_numbers(config)
    validate_sizes(config)
    c, m, t = config, config.model, config.train
    world = int(os.environ.get("WORLD_SIZE") or 1) if world_size is None else world_size
    need(
        t.batch_size * world >= 2,
        f"train.batch_size is {t.batch_size} on {world} rank: no other sentence in the batch, so "
        "no negatives; give --train.batch_size 2 or more",
    )
    need(bool(c.output_dir), "output_dir is empty; give --output_dir DIRECTORY")
    need(bool(m.name), "model.name is empty; give a directory or a Hugging Face id")
    e = c.eval
    need(not e.best or e.every > 0, "eval.best needs evaluations; give --eval.every STEPS too")
    need(
        not e.patience or bool(e.best),
        "eval.patience needs a figure to watch; give --eval.best TASK/METRIC@LAYERxDIM",
    )
    need(
        not e.every or bool(c.data.validation),
        f"eval.every is {e.every} and data.validation is empty; give files, or --eval.every 0",
    )
    need(
        bool(c.data.token_cache),
        "data.token_cache is empty; give a directory, auto or off",
    )
    need(bool(c.data.train), "data.train is empty; give files, or demo for the built-in text")
    need(
        not c.lora.rank or bool(c.lora.target_modules),
        "lora.target_modules is empty; give all-linear, or --lora.rank 0 to train everything",
    )
    need(
        m.quantization == "none" or c.lora.rank > 0,
        f"model.quantization is {m.quantization} and lora.rank is 0: 4-bit weights cannot be "
        "trained; give --lora.rank 16",
    )
    need(
        not c.lora.use_dora or c.lora.rank > 0,
        "lora.use_dora is true and lora.rank is 0; give --lora.rank 16",
    )
    need(
        not (m.attn.startswith("flash") and t.precision == "fp32"),
        f"model.attn is {m.attn}, which has no fp32 form; give --train.precision bf16 or "
        "--model.attn sdpa",
    )


def _validate_numbers(c: Config) -> None:
    """Ranges of single numbers, one row each: key, value, whether legal, what is legal."""
    d, o, s, t = c.data, c.objective, c.sia, c.train
    rows: list[tuple[str, Any, Any, str]] = [
        ("seed", c.seed, c.seed >= 0, "0 or more"),
        ("model.view_noise", c.model.view_noise, 0 <= c.model.view_noise < 1, "in [0, 1)"),
        ("model.dropout", c.model.dropout, 0 <= (c.model.dropout or 0) < 1, "in [0, 1)"),
        ("lora.rank", c.lora.rank, c.lora.rank >= 0, "0 (full fine-tuning) or more"),
        ("lora.alpha", c.lora.alpha, c.lora.alpha > 0, "above 0"),
        ("lora.dropout", c.lora.dropout, 0 <= c.lora.dropout < 1, "in [0, 1)"),
        ("data.max_length", d.max_length, d.max_length >= 4, "4 tokens or more"),
        ("data.negatives", d.negatives, d.negatives >= 0, "0 or more"),
        ("objective.alpha", o.alpha, 0 <= o.alpha <= 1, "in [0, 1]"),
        ("objective.tau", o.tau, o.tau > 0, "above 0"),
        ("sia.temperature", s.temperature, s.temperature is None or s.temperature > 0, "above 0"),
        ("sia.min_k", s.min_k, s.min_k >= 2, "2 or more (one token has no geometry)"),
        ("sia.layers_per_step", s.layers_per_step, s.layers_per_step >= 0, "0 (all) or more"),
        ("pic.links_per_step", c.pic.links_per_step, c.pic.links_per_step >= 0, "0 (all) or more"),
        ("train.batch_size", t.batch_size, t.batch_size >= 1, "1 or more"),
        ("train.chunk_size", t.chunk_size, t.chunk_size >= 0, "0 (one pass) or more"),
        ("train.chunk_tokens", t.chunk_tokens, t.chunk_tokens >= 0, "0 (one pass) or more"),
        ("objective.gor", o.gor, o.gor >= 0, "0 (off) or more"),
        ("objective.neighbourhood", o.neighbourhood, o.neighbourhood >= 0, "0 (off) or more"),
        ("objective.decorrelation", o.decorrelation, o.decorrelation >= 0, "0 (off) or more"),
        ("sia.relation_weight", s.relation_weight, s.relation_weight >= 0, "0 or more"),
        ("sia.geometry_weight", s.geometry_weight, s.geometry_weight >= 0, "0 or more"),
        ("objective.wide_weight", o.wide_weight, (o.wide_weight or 0) >= 0, "0 or more"),
        ("sia.sentences", s.sentences, (s.sentences or 0) >= 0, "0 or more"),
        ("sia.memory", s.memory, (s.memory or 0) >= 0, "0 or more"),
        ("pic.weight", c.pic.weight, (c.pic.weight or 0) >= 0, "0 or more"),
        ("ese.temperature", c.ese.temperature, c.ese.temperature > 0, "above 0"),
        ("train.epochs", t.epochs, t.epochs >= 1, "1 or more"),
        ("train.max_steps", t.max_steps, t.max_steps >= 0, "0 (by epochs) or more"),
        ("train.learning_rate", t.learning_rate, t.learning_rate > 0, "above 0"),
        ("train.head_learning_rate", t.head_learning_rate,
         t.head_learning_rate is None or t.head_learning_rate > 0, "above 0"),
        ("train.min_learning_rate_ratio", t.min_learning_rate_ratio,
         0 <= t.min_learning_rate_ratio <= 1, "in [0, 1]"),
        ("train.warmup_ratio", t.warmup_ratio, 0 <= t.warmup_ratio <= 1, "in [0, 1]"),
        ("train.weight_decay", t.weight_decay, t.weight_decay >= 0, "0 or more"),
        ("train.max_grad_norm", t.max_grad_norm, t.max_grad_norm >= 0, "0 (off) or more"),
        ("train.save_every", t.save_every, t.save_every >= 0, "0 (none) or more"),
        ("train.keep_checkpoints", t.keep_checkpoints, t.keep_checkpoints >= 0, "0 (all) or more"),
        ("train.log_every", t.log_every, t.log_every >= 1, "1 or more"),
        ("eval.every", c.eval.every, c.eval.every >= 0, "0 (off) or more"),
        ("eval.patience", c.eval.patience, c.eval.patience >= 0, "0 (never) or more"),
        ("eval.batch_size", c.eval.batch_size, c.eval.batch_size >= 1, "1 or more"),
        ("export.tolerance", c.export.tolerance,
         c.export.tolerance is None or c.export.tolerance > 0, "above 0"),
    ]  # fmt: skip
    for key, value, ok, legal in rows:
        need(bool(ok), f"{key} is {value}; it must be {legal}")


def validate_sizes(c: Config) -> None:
    """Check dims, layers, ratios and ladder against one another, as far as they are set."""
    o, s, mipic = c.objective, c.sia, c.objective.name == "mipic"
    dims, layers = o.dims, s.layers
    if dims is not None:
        _rising("objective.dims", dims)
        need(
            o.name != "2dmse" or len(dims) > 1,
            f"objective.dims is {dims}: 2dmse needs a narrower prefix too; give --objective.dims "
            f"{max(1, dims[-1] // 2)},{dims[-1]} or --objective.name simcse",
        )
        need(
            not mipic or len(dims) > 1,
            f"objective.dims is {dims}: mipic needs a narrower prefix too; give --objective.dims "
            f"{max(1, dims[-1] // 2)},{dims[-1]} or --objective.name simcse",
        )
    if o.dim_weights is not None:
        need(
            all(w >= 0 for w in o.dim_weights) and sum(o.dim_weights) > 0,
            f"objective.dim_weights is {o.dim_weights}; weights are 0 or more, one above 0",
        )
        need(
            dims is None or len(dims) == len(o.dim_weights),
            f"objective.dim_weights has {len(o.dim_weights)} values, objective.dims has "
            f"{len(dims or [])}; give as many, or --objective.dim_weights none for equal weights",
        )
    if layers is not None:
        _rising("sia.layers", layers)
        need(
            s.layers_per_step <= len(layers),
            f"sia.layers_per_step is {s.layers_per_step}, sia.layers has {len(layers)}; give 0 "
            "for all",
        )
    if s.ratios is not None:
        need(
            all(0 < r <= 1 for r in s.ratios) and sorted(s.ratios) == s.ratios,
            f"sia.ratios is {s.ratios}; they must be in (0, 1] and never fall",
        )
        need(
            dims is None or len(s.ratios) == len(dims) - 1,
            f"sia.ratios has {len(s.ratios)} values, objective.dims has {len(dims or [0]) - 1} "
            "truncated prefixes; give as many, or --sia.ratios none to derive them",
        )
    if c.pic.ladder is not None:
        _validate_ladder(c, parse_ladder(c.pic.ladder))
    need(
        not mipic or s.relation or s.geometry or c.pic.enabled,
        "sia.relation, sia.geometry and pic.enabled are all false: that is mrl; give "
        "--objective.name mrl",
    )


def _rising(key: str, values: list[int]) -> None:
    ok = bool(values) and values[0] > 0 and all(a < b for a, b in pairwise(values))
    need(ok, f"{key} is {values}; give positive numbers in ascending order, each once")


def _validate_ladder(c: Config, points: tuple[Point, ...]) -> None:
    if c.objective.name != "mipic" or not c.pic.enabled:
        return
    need(
        len(points) > 1,
        "pic.ladder needs two points or more; give --pic.ladder none to derive it or "
        "--pic.enabled false",
    )
    strangers = [str(p) for p in points if c.objective.dims and p.dim not in c.objective.dims]
    need(
        not strangers,
        f"pic.ladder has {' '.join(strangers)}, not among objective.dims {c.objective.dims}; give "
        "--pic.ladder none to derive it",
    )
    need(
        c.pic.links_per_step < len(points),
        f"pic.links_per_step is {c.pic.links_per_step}, the ladder has {len(points) - 1} links; "
        "give 0 for all",
    )
