"""How unset values follow from the preset, from other options and from the backbone.

Nothing that a recipe or a flag gave is changed silently: each change is a line of `config.notes`.
"""

from __future__ import annotations

from collections.abc import Sequence

from mipic_llm.config.check import need, parse_ladder, validate_sizes
from mipic_llm.config.presets import OBJECTIVES, PRESETS
from mipic_llm.config.schema import Config, flatten
from mipic_llm.types import Point

# ---------------------------------------------------------------- what follows from the backbone


def derive_dims(width: int) -> list[int]:
    """16, 32, 64 ... doubling below `width`, then `width`."""
    return [2**i for i in range(4, width.bit_length()) if 2**i < width] + [width]


def derive_ladder(dims: Sequence[int], n_layers: int) -> tuple[Point, ...]:
    """One checkpoint per dim, layers evenly spaced: layer i of n is round(n_layers * i / n).

    With fewer layers than dims, as many dims as there are layers, spread as widely as possible
    and ending at the full width (six layers, seven dims: METHOD.md's TinyBERT row).
    """
    n = min(len(dims), n_layers)
    last = len(dims) - 1
    chosen = [dims[_round(i * last, n - 1)] for i in range(n)] if n > 1 else [dims[-1]]
    return tuple(Point(_round(n_layers * (i + 1), n), dim) for i, dim in enumerate(chosen))


def _round(numerator: int, denominator: int) -> int:
    """Nearest integer, halves upwards (Python's round() would send 2.5 to 2 and 3.5 to 4)."""
    assert denominator > 0
    return (2 * numerator + denominator) // (2 * denominator)


def derive_ratios(n_prefixes: int) -> list[float]:
    """gamma_i rising evenly from 0.2 to 0.7 (six prefixes: the paper's values); one: 0.7."""
    if n_prefixes == 1:
        return [0.7]
    return [round(0.2 + 0.5 * i / (n_prefixes - 1), 4) for i in range(n_prefixes)]


def chain_hidden(dim_in: int, dim_out: int, form: str) -> int:
    """Hidden width of a link's head: half of its wider end (the paper's mlp), or an eighth."""
    return max(1, max(dim_in, dim_out) // (8 if form == "residual" else 2))


# ------------------------------------------------------------------- for a resolved configuration


def trained_dims(config: Config) -> list[int]:
    """The widths under the contrastive loss (after `resolve`), by the table of objectives.

    objective.dims stays the list that evaluation and export use, whatever was trained.
    """
    dims, widths = config.objective.dims, OBJECTIVES[config.objective.name].widths
    assert dims, "call resolve() first"
    if widths == "ese":
        return [config.ese.k or dims[0], dims[-1]]
    return dims[-1:] if widths == "full" else dims


def narrow_dims(config: Config) -> list[int]:
    """The prefixes under the distillation between texts (after `resolve`), none where it is off:
    at most a fifth of the full width, where a published negative result says that Matryoshka
    training pays at all."""
    terms = OBJECTIVES[config.objective.name].terms
    if "sentences" not in terms or not config.sia.sentences:
        return []
    dims = trained_dims(config)
    return [d for d in dims if 5 * d <= dims[-1]]


# ------------------------------------------------------------------------------- flags over recipe


def flagged(config: Config) -> bool:
    """Whether a flag gave objective.dims (none included), so that the recipe's shapes yield."""
    return config.origins.get("objective.dims") == "flag"


def reconcile(config: Config) -> Config:
    """Drop what a recipe says for other dims when a flag changed objective.dims; note it."""
    dims = config.objective.dims
    if not dims or not flagged(config):
        return config
    if config.sia.ratios is not None and len(config.sia.ratios) != len(dims) - 1:
        config = _drop(config, "sia.ratios", f"{len(dims) - 1} truncated prefixes now")
    if config.objective.dim_weights and len(config.objective.dim_weights) != len(dims):
        config = _drop(config, "objective.dim_weights", f"{len(dims)} dims now")
    if config.pic.ladder is not None:
        points = parse_ladder(config.pic.ladder)
        if not {p.dim for p in points} <= set(dims) or (points and points[-1].dim != dims[-1]):
            config = _drop(config, "pic.ladder", "its dims are not among objective.dims")
    return config


def _drop(config: Config, key: str, why: str) -> Config:
    """Unset a value that only the recipe gave, so that `resolve` derives it, and say so."""
    if config.origins.get(key) != "recipe":
        return config
    note = f"{key} of the recipe is derived anew, since --objective.dims changed dims: {why}"
    new = config.replace(**{key: None})
    return new.told(new, note=note)


# ----------------------------------------------------------------------------------------- resolve


def resolve(config: Config, *, width: int, n_layers: int) -> Config:
    """A copy with the preset and everything that follows from the backbone filled in.

    width: channels of the full embedding; n_layers: layers of the backbone. Raises UserError
    where dims, layers, ratios or ladder do not fit it. Resolving twice changes nothing.
    """
    c, free = by_preset(config), config.objective.dims is None
    if free:  # none by a flag counts as a flag's dims until the end
        origin = c.origins.get("objective.dims", "derived")
        c = c.replace(origin, **{"objective.dims": derive_dims(width)})
    c = reconcile(c)
    _check_dims(c, width)
    validate_sizes(c)
    c = _resolve_depth(c, width, n_layers)
    dims, name, terms = c.objective.dims or [], c.objective.name, OBJECTIVES[c.objective.name].terms
    narrow = [d for d in dims if 3 * d <= width]
    c = _fill(c, {
        "ese.k": narrow[-1] if narrow else max(1, width // 3),
        "sia.ratios": derive_ratios(len(dims) - 1),
        "train.head_learning_rate": 2 * c.train.learning_rate,
        "export.tolerance": 1e-5 if c.train.precision == "fp32" else 2e-2,
    })  # fmt: skip
    need(
        "ese" not in terms or 1 <= (c.ese.k or 0) < width,
        f"ese.k is {c.ese.k}; it must be in 1 .. {width - 1}, below the full width",
    )
    need(
        not {"ese", "2dmse"} & set(terms) or n_layers > 1,
        f"objective.name {name} reads layers below the last, and the model has one",
    )
    validate_sizes(c)
    return c.told(c, origins={"objective.dims": "derived"}) if free else c


def by_preset(config: Config) -> Config:
    """A copy with what objective.preset says for unset options."""
    preset = PRESETS[config.objective.preset]
    flat = {f"{section}.{name}": v for section, values in preset.items()
            for name, v in values.items()}  # fmt: skip
    return _fill(config, flat, "preset")


def _fill(config: Config, values: dict[str, object], origin: str = "derived") -> Config:
    """A copy with these values where none is set."""
    now = flatten(config)
    unset = {key: value for key, value in values.items() if now[key] is None}
    return config.replace(origin, **unset) if unset else config


def _check_dims(c: Config, width: int) -> None:
    dims = c.objective.dims or []
    hint = "; give --objective.dims none to derive them"
    above = [d for d in dims if d > width]
    need(not above, f"objective.dims has {above}, above the model's full width {width}{hint}")
    need(dims[-1:] == [width], f"objective.dims must end at the full width {width}{hint}")


def _resolve_depth(c: Config, width: int, n_layers: int) -> Config:
    """Fill and check pic.ladder and sia.layers; a recipe's yield to a flag's new dims."""
    top, anew = Point(n_layers, width), flagged(c)
    if anew and c.pic.ladder is not None and parse_ladder(c.pic.ladder)[-1:] != (top,):
        c = _drop(c, "pic.ladder", f"the model ends at {top}")
    if anew and c.sia.layers is not None and c.sia.layers[-1] > n_layers:
        c = _drop(c, "sia.layers", f"the model has {n_layers} layers")
    ladder = derive_ladder(c.objective.dims or [], n_layers)
    c = _fill(c, {"pic.ladder": [str(p) for p in ladder]})
    points = parse_ladder(c.pic.ladder or [])
    origin, texts = c.origins.get("pic.ladder", "derived"), [str(p) for p in points]
    c = c.replace(origin, **{"pic.ladder": texts})
    c = _fill(c, {"sia.layers": [p.layer for p in points]})
    deep = [p for p in points if p.layer > n_layers]
    hint = "; give --pic.ladder none to derive it"
    need(not deep, f"pic.ladder has {deep and deep[0]}, the model has {n_layers} layers{hint}")
    need(points[-1:] == (top,), f"pic.ladder must end at {top}, the model's width and depth{hint}")
    last = (c.sia.layers or [0])[-1]
    need(
        last <= n_layers,
        f"sia.layers has {last}, the model has {n_layers} layers; give --sia.layers none to use "
        "the ladder's",
    )
    return c
