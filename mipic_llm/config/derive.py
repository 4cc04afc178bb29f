"""How unset values follow from the preset, from other options and from the model.

Nothing that a recipe or a flag gave is changed silently: each change is a line of `config.notes`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mipic_llm.config.check import need, validate_sizes
from mipic_llm.config.files import model_folder
from mipic_llm.config.points import parse_ladder
from mipic_llm.config.presets import OBJECTIVES, PRESETS
from mipic_llm.config.schema import Config, flatten
from mipic_llm.config.sizes import derive_dims, derive_ladder, derive_ratios
from mipic_llm.config.sources import entry_of_stages
from mipic_llm.types import Point

# What was written for one model and says nothing of another.
SHAPED = (
    "objective.dims", "objective.dim_weights", "sia.layers", "sia.ratios", "pic.ladder",
    "model.pooling", "model.append_eos", "model.padding_side", "model.dropout", "model.view_noise",
    "data.max_length", "data.query_prompt",
)  # fmt: skip
LONGEST = 512  # tokens of a text, where neither a recipe nor a flag says
# Width, layers and tokens of the models that recipes name, for when the hub is out of reach.
KNOWN = {
    "sentence-transformers/all-MiniLM-L6-v2": (384, 6, 256),
    "huawei-noah/TinyBERT_General_6L_768D": (768, 6, 512),
    "google-bert/bert-base-uncased": (768, 12, 512), "BAAI/bge-m3": (1024, 24, 8192),
    "Qwen/Qwen3-Embedding-0.6B": (1024, 28, 32768), "Qwen/Qwen3-Embedding-4B": (2560, 36, 32768),
    "Qwen/Qwen3-Embedding-8B": (4096, 36, 32768),
}  # fmt: skip


def _asked_anew(config: Config) -> bool:
    """Whether a flag gave objective.dims (none included), so that the recipe's shapes yield."""
    return config.origins.get("objective.dims") == "flag"


def reconcile(c: Config) -> Config:
    """Drop what a recipe says for other dims when a flag changed objective.dims; note it."""
    c = _one_list_of_data(c)
    dims, weights, ratios = c.objective.dims, c.objective.dim_weights, c.sia.ratios
    if not dims or not _asked_anew(c):
        return c
    if ratios is not None and len(ratios) != len(dims) - 1:
        c = _drop(c, "sia.ratios", f"{len(dims) - 1} truncated prefixes now")
    if weights and len(weights) != len(dims):
        c = _drop(c, "objective.dim_weights", f"{len(dims)} dims now")
    points = parse_ladder(c.pic.ladder or [])
    if points and (points[-1].dim != dims[-1] or not {p.dim for p in points} <= set(dims)):
        c = _drop(c, "pic.ladder", "its dims are not among objective.dims")
    return c


def _one_list_of_data(c: Config) -> Config:
    """data.train or data.sources: the one that a flag gave, else the one that the recipe gave."""
    if c.stages:
        told = [f"data.{k}" for k in ("train", "sources")
                if getattr(c.data, k) and f"data.{k}" in c.origins]  # fmt: skip
        need(not told, f"{told and told[0]} and stages are both given; name the data in stages")
        return c.replace(**{"data.train": []}) if c.data.train else c
    if not (c.data.train and c.data.sources):
        return c
    train, sources = (c.origins.get(f"data.{name}", "") for name in ("train", "sources"))
    need(train != sources, f"data.train and data.sources are both given (by a {train}); put all "
         "into data.sources")  # fmt: skip
    if train == "flag":
        new = c.replace("flag", **{"data.sources": []})
        return new.told(new, note="data.sources of the recipe yield to --data.train")
    return c.replace(sources, **{"data.train": []})


def _drop(c: Config, key: str, why: str) -> Config:
    """Unset a value that only the recipe gave, so that `resolve` derives it, and say so."""
    if c.origins.get(key) != "recipe":
        return c
    note = f"{key} of the recipe is derived anew, since --objective.dims changed dims: {why}"
    new = c.replace(**{key: None})
    return new.told(new, note=note)


def resolve(
    config: Config, *, width: int, n_layers: int, max_positions: int | None = None,
    bf16: bool | None = None,
) -> Config:  # fmt: skip
    """A copy with the preset and everything that follows from the model filled in.

    width: channels of the full embedding; n_layers: layers of the backbone; max_positions: tokens
    of a text that the model takes; bf16: whether the device computes in it by itself (a GPU, but
    not every one). What follows from the last two stays unset where they are None. Raises
    UserError where dims, layers, ratios or ladder do not fit the model. Resolving twice changes
    nothing.
    """
    c, free = _by_case(config, max_positions, bf16), config.objective.dims is None
    if free:  # none by a flag counts as a flag's dims until the end
        origin = c.origins.get("objective.dims", "derived")
        c = c.replace(origin, **{"objective.dims": derive_dims(width)})
    c = reconcile(c)
    dims, terms = c.objective.dims or [], OBJECTIVES[c.objective.name].terms
    above, hint = [d for d in dims if d > width], "; give --objective.dims none to derive them"
    need(not above, f"objective.dims has {above}, above the model's full width {width}{hint}")
    need(dims[-1:] == [width], f"objective.dims must end at the full width {width}{hint}")
    validate_sizes(c)
    c = _resolve_depth(c, width, n_layers)
    narrow = [d for d in dims if 3 * d <= width] or [max(1, width // 3)]
    middle = [*range(n_layers // 3 + 1, max(1, 2 * n_layers // 3) + 1)]
    c = _fill(c, {"ese.k": narrow[-1], "sia.ratios": derive_ratios(len(dims) - 1),
                  "mic.layers": middle if "mic_texts" in terms else None})  # fmt: skip
    deepest = max(c.mic.layers or [0])
    need("mic_texts" not in terms or deepest <= n_layers,
         f"mic.layers has {deepest}, the model has {n_layers} layers")  # fmt: skip
    need("ese" not in terms or 1 <= (c.ese.k or 0) < width,
         f"ese.k is {c.ese.k}; it must be in 1 .. {width - 1}, below the full width")  # fmt: skip
    need(n_layers > 1 or not {"ese", "2dmse"} & set(terms), f"objective.name {c.objective.name} "
         "reads layers below the last, and the model has one")  # fmt: skip
    validate_sizes(c)
    return c.told(c, origins={"objective.dims": "derived"}) if free else c


def resolve_stages(config: Config, *, width: int, n_layers: int) -> list[Config]:
    """A resolved configuration as it is in each stage; one where their objectives are the same.

    Raises UserError where a stage's options do not fit the model."""
    if not any(stage.options for stage in config.stages):
        return [config]
    found = []
    for i, own in enumerate(config.of_stages()):
        with entry_of_stages(i):
            found.append(resolve(own, width=width, n_layers=n_layers))
    return found


def _by_case(config: Config, max_positions: int | None, bf16: bool | None) -> Config:
    """What the preset says for unset options, and what follows without the model's shape."""
    preset = PRESETS[config.objective.preset]
    flat = {f"{s}.{name}": v for s, values in preset.items() for name, v in values.items()}
    c = _fill(config, {"train.learning_rate": 2e-4 if config.lora.rank else 2e-5})
    c = _fill(_fill(c, flat, "preset"), {
        "train.head_learning_rate": 2 * (c.train.learning_rate or 0),
        "data.max_length": max_positions and min(max_positions, LONGEST),
        "train.precision": bf16 if bf16 is None else "bf16" if bf16 else "fp32",
    })  # fmt: skip
    if c.lora.rank and (c.tracking.log_model or c.tracking.register) and not c.export.merged:
        c = c.replace(**{"export.merged": True})  # a model in MLflow is whole
    return _fill(c, {"export.tolerance": {"fp32": 1e-5, "bf16": 2e-2}.get(c.train.precision or "")})


def _fill(config: Config, values: dict[str, Any], origin: str = "derived") -> Config:
    """A copy with these values, where they are known, in place of unset ones."""
    now = flatten(config)
    unset = {key: v for key, v in values.items() if now[key] is None and v is not None}
    return config.replace(origin, **unset) if unset else config


def _resolve_depth(c: Config, width: int, n_layers: int) -> Config:
    """Fill and check pic.ladder and sia.layers; a recipe's yield to a flag's new dims."""
    top = Point(n_layers, width)
    if _asked_anew(c):
        if c.pic.ladder is not None and parse_ladder(c.pic.ladder)[-1:] != (top,):
            c = _drop(c, "pic.ladder", f"the model ends at {top}")
        if c.sia.layers is not None and c.sia.layers[-1] > n_layers:
            c = _drop(c, "sia.layers", f"the model has {n_layers} layers")
    given, hint = c.pic.ladder, "; give --pic.ladder none to derive it"
    points = parse_ladder(given or [])
    if given is None:
        points = derive_ladder(c.objective.dims or [], n_layers, c.pic.checkpoints)
    deep = [p for p in points if p.layer > n_layers]
    need(not deep, f"pic.ladder has {deep and deep[0]}, the model has {n_layers} layers{hint}")
    need(points[-1:] == (top,), f"pic.ladder must end at {top}, the model's width and depth{hint}")
    origin = "derived" if given is None else c.origins.get("pic.ladder", "derived")
    c = c.replace(origin, **{"pic.ladder": [str(p) for p in points]})
    c = _fill(c, {"sia.layers": [p.layer for p in points]})
    last = (c.sia.layers or [0])[-1]
    need(last <= n_layers, f"sia.layers has {last}, the model has {n_layers} layers; give "
         "--sia.layers none to use the ladder's")  # fmt: skip
    return c


def preview(config: Config) -> Config:
    """Resolved as far as this machine's files tell, without torch or transformers: for a directory,
    quickstart, or a model of KNOWN. What follows from the device stays unset."""
    folder, width, n_layers, longest = model_folder(config.model.name), 0, 0, None
    if folder is None:
        width, n_layers, longest = KNOWN.get(config.model.name, (0, 0, None))
    else:
        shape, words, own = (_json(folder / name) for name in (
            "config.json", "tokenizer_config.json", "sentence_bert_config.json"))  # fmt: skip
        width, n_layers = (
            _last_dense(folder) or shape.get("hidden_size"),
            shape.get("num_hidden_layers"),
        )
        limits = (shape.get("max_position_embeddings"), words.get("model_max_length"))
        longest = own.get("max_seq_length") or min((n for n in limits if n), default=None)
    if not (width and n_layers):
        return _by_case(config, longest, None)
    return resolve(config, width=width, n_layers=n_layers, max_positions=longest)


def _last_dense(folder: Path) -> int | None:
    """Width of the vectors of a model with Dense modules after its pooling."""
    try:
        listed = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        paths = [entry["path"] for entry in listed if entry["type"].endswith(".Dense")]
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None
    return _json(folder / paths[-1] / "config.json").get("out_features") if paths else None


def _json(path: Path) -> dict[str, int]:
    """The whole numbers of a JSON object in a file; none where there is no such thing."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return {k: v for k, v in found.items() if type(v) is int} if isinstance(found, dict) else {}
