"""Rules that tie several options together, without looking at any model. Ranges of single options
are at the fields. Each refusal is one line: what, where, what to do."""

from __future__ import annotations

import os
from itertools import pairwise

from mipic_llm.config.points import parse_ladder
from mipic_llm.config.presets import OBJECTIVES
from mipic_llm.config.schema import Config
from mipic_llm.errors import UserError
from mipic_llm.types import Point


def need(ok: bool, message: str) -> None:
    """Raise UserError(message) unless ok."""
    if not ok:
        raise UserError(message)


def validate(config: Config, world_size: int | None = None) -> None:
    """Refuse everything that can be refused without the model. Raises UserError.

    world_size: ranks of the run; None reads WORLD_SIZE (the launchers set it), else 1.
    """
    validate_sizes(config)
    c, m, t, e = config, config.model, config.train, config.eval
    world = int(os.environ.get("WORLD_SIZE") or 1) if world_size is None else world_size
    for ok, message in (
        (t.batch_size * world >= 2,
         f"train.batch_size is {t.batch_size} on {world} rank: no other sentence in the batch, so "
         "no negatives; give --train.batch_size 2 or more"),
        (bool(c.output_dir), "output_dir is empty; give --output_dir DIRECTORY"),
        (bool(m.name), "model.name is empty; give a directory or a Hugging Face id"),
        (not e.best or e.every > 0, "eval.best needs evaluations; give --eval.every STEPS too"),
        (not e.patience or bool(e.best),
         "eval.patience needs a figure to watch; give --eval.best TASK/METRIC@DIM@LAYER"),
        (not e.every or bool(c.data.validation),
         f"eval.every is {e.every} and data.validation is empty; give files, or --eval.every 0"),
        (bool(c.data.token_cache), "data.token_cache is empty; give a directory, auto or off"),
        (bool(c.data.train), "data.train is empty; give files, or demo for the built-in text"),
        (not c.lora.rank or bool(c.lora.target_modules),
         "lora.target_modules is empty; give all-linear, or --lora.rank 0 to train everything"),
        (m.quantization == "none" or c.lora.rank > 0,
         f"model.quantization is {m.quantization} and lora.rank is 0: 4-bit weights cannot be "
         "trained; give --lora.rank 16"),
        (not c.lora.use_dora or c.lora.rank > 0,
         "lora.use_dora is true and lora.rank is 0; give --lora.rank 16"),
        (not (m.attn.startswith("flash") and t.precision == "fp32"),
         f"model.attn is {m.attn}, which has no fp32 form; give --train.precision bf16 or "
         "--model.attn sdpa"),
    ):  # fmt: skip
        need(ok, message)


def validate_sizes(c: Config) -> None:
    """Check dims, layers, ratios and ladder against one another, as far as they are set."""
    o, s, terms = c.objective, c.sia, OBJECTIVES[c.objective.name].terms
    dims, layers = o.dims, s.layers
    if dims is not None:
        _rising("objective.dims", dims)
        need(
            len(dims) > 1 or not {"sia", "pic", "2dmse"} & set(terms),
            f"objective.dims is {dims}: {o.name} needs a narrower prefix too; give "
            f"--objective.dims {max(1, dims[-1] // 2)},{dims[-1]} or --objective.name simcse",
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
        "pic" not in terms or s.relation or s.geometry or c.pic.enabled,
        "sia.relation, sia.geometry and pic.enabled are all false: that is mrl; give "
        "--objective.name mrl",
    )


def _rising(key: str, values: list[int]) -> None:
    ok = bool(values) and values[0] > 0 and all(a < b for a, b in pairwise(values))
    need(ok, f"{key} is {values}; give positive numbers in ascending order, each once")


def _validate_ladder(c: Config, points: tuple[Point, ...]) -> None:
    if "pic" not in OBJECTIVES[c.objective.name].terms or not c.pic.enabled:
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
