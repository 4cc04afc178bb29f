"""What makes a configuration legal, and how unset values follow from the backbone.

`reconcile` (when the command line is read) and `resolve` (when the backbone is known) never
change a value silently: each change appends one line to `config.config_notes`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mipic_llm.config.check import need, parse_ladder, validate_sizes
from mipic_llm.config.presets import OBJECTIVES, PRESETS
from mipic_llm.types import Point

if TYPE_CHECKING:
    from mipic_llm.config.schema import Config

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


def chain_hidden(dim_in: int, dim_out: int, form: str) -> int:
    """Hidden width of a link's head: half of its wider end (the paper's mlp), or an eighth."""
    return max(1, max(dim_in, dim_out) // (8 if form == "residual" else 2))


def derive_ratios(n_prefixes: int) -> list[float]:
    """gamma_i rising evenly from 0.2 to 0.7 (six prefixes: the paper's values); one: 0.7."""
    if n_prefixes == 1:
        return [0.7]
    return [round(0.2 + 0.5 * i / (n_prefixes - 1), 4) for i in range(n_prefixes)]


def trained_dims(config: Config) -> list[int]:
    """The widths under the contrastive loss (after `resolve`): simcse trains only the full one,
    ese its k and the full one.

    objective.dims stays the list that evaluation and export use, whatever was trained.
    """
    dims = config.objective.dims
    assert dims, "call resolve() first"
    return {
        "all": dims, "full": dims[-1:], "ese": [config.ese.k or dims[0], dims[-1]],
    }[OBJECTIVES[config.objective.name].widths]  # fmt: skip


def narrow_dims(config: Config) -> list[int]:
    """The prefixes under SIA's relation between texts (after `resolve`), none where it is off: at
    most a fifth of the full width, where a published negative result says that Matryoshka
    training pays at all."""
    if "sentences" not in OBJECTIVES[config.objective.name].terms or not config.sia.sentences:
        return []
    dims = trained_dims(config)
    return [d for d in dims if 5 * d <= dims[-1]]


# ------------------------------------------------------------------------------- flags over recipe


def reconcile(config: Config) -> None:
    """Drop what a recipe says for other dims when a flag changed objective.dims; note it."""
    if config.origins.get("objective.dims") != "flag":
        return
    dims = config.objective.dims
    if dims and config.sia.ratios is not None and len(config.sia.ratios) != len(dims) - 1:
        _rederive(config, "sia", "ratios", f"{len(dims) - 1} truncated prefixes now")
    if dims and config.objective.dim_weights and len(config.objective.dim_weights) != len(dims):
        _rederive(config, "objective", "dim_weights", f"{len(dims)} dims now")
    if dims and config.pic.ladder is not None:
        points = parse_ladder(config.pic.ladder)
        if not {p.dim for p in points} <= set(dims) or (points and points[-1].dim != dims[-1]):
            _rederive(config, "pic", "ladder", "its dims are not among objective.dims")


def _rederive(config: Config, section: str, name: str, why: str) -> None:
    """Unset a value that only the recipe gave (so `resolve` derives it) and say so."""
    key = f"{section}.{name}"
    if config.origins.get(key) == "recipe":
        setattr(getattr(config, section), name, None)
        config.origins.pop(key)
        config.config_notes.append(
            f"{key} of the recipe is derived anew, since --objective.dims changed dims: {why}"
        )


# ----------------------------------------------------------------------------------------- resolve


def resolve(config: Config, *, width: int, n_layers: int) -> Config:
    """A copy with the preset and everything that follows from the backbone filled in.

    width: channels of the full embedding; n_layers: layers of the backbone. Raises UserError
    where dims, layers, ratios or ladder do not fit it. Resolving twice changes nothing.
    """
    c = copy.deepcopy(config)
    for section, values in PRESETS[c.objective.preset].items():
        for name, value in values.items():
            if getattr(getattr(c, section), name) is None:
                setattr(getattr(c, section), name, value)
    _resolve_dims(c, width)
    reconcile(c)
    validate_sizes(c)
    _resolve_depth(c, width, n_layers)
    if c.ese.k is None:
        narrow = [d for d in c.objective.dims or [] if 3 * d <= width]
        c.ese.k = narrow[-1] if narrow else max(1, width // 3)
    need(
        c.objective.name != "ese" or 1 <= c.ese.k < width,
        f"ese.k is {c.ese.k}; it must be in 1 .. {width - 1}, below the full width",
    )
    needed = ("ese", "2dmse")
    need(
        c.objective.name not in needed or n_layers > 1,
        f"objective.name {c.objective.name} reads layers below the last, and the model has one",
    )
    n_prefixes = len(c.objective.dims or []) - 1
    if c.sia.ratios is None:
        c.sia.ratios = derive_ratios(n_prefixes)
    if c.train.head_learning_rate is None:
        c.train.head_learning_rate = 2 * c.train.learning_rate
    if c.export.tolerance is None:
        c.export.tolerance = 1e-5 if c.train.precision == "fp32" else 2e-2
    validate_sizes(c)
    return c


def _resolve_dims(c: Config, width: int) -> None:
    if c.objective.dims is None:
        c.objective.dims = derive_dims(width)
    dims = c.objective.dims
    hint = "; give --objective.dims none to derive them"
    above = [d for d in dims if d > width]
    need(not above, f"objective.dims has {above}, above the model's full width {width}{hint}")
    need(dims[-1:] == [width], f"objective.dims must end at the full width {width}{hint}")


def _resolve_depth(c: Config, width: int, n_layers: int) -> None:
    """Fill and check pic.ladder and sia.layers; a recipe's yield to a flag's new dims."""
    flagged = c.origins.get("objective.dims") == "flag"
    top = Point(n_layers, width)
    points = None if c.pic.ladder is None else parse_ladder(c.pic.ladder)
    if points is not None and points[-1:] != (top,) and flagged:
        _rederive(c, "pic", "ladder", f"the model ends at {top}")
        points = None if c.pic.ladder is None else points
    if points is None:
        points = derive_ladder(c.objective.dims or [], n_layers)
    deep = [p for p in points if p.layer > n_layers]
    hint = "; give --pic.ladder none to derive it"
    need(not deep, f"pic.ladder has {deep and deep[0]}, the model has {n_layers} layers{hint}")
    need(points[-1:] == (top,), f"pic.ladder must end at {top}, the model's width and depth{hint}")
    c.pic.ladder = [str(p) for p in points]

    layers = c.sia.layers
    if layers is not None and layers[-1] > n_layers and flagged:
        _rederive(c, "sia", "layers", f"the model has {n_layers} layers")
    if c.sia.layers is None:
        c.sia.layers = [p.layer for p in points]
    need(
        c.sia.layers[-1] <= n_layers,
        f"sia.layers has {c.sia.layers[-1]}, the model has {n_layers} layers; give --sia.layers "
        "none to use the ladder's",
    )


def _round(numerator: int, denominator: int) -> int:
    """Nearest integer, halves upwards (Python's round() would send 2.5 to 2 and 3.5 to 4)."""
    assert denominator > 0
    return (2 * numerator + denominator) // (2 * denominator)
