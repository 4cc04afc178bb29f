"""Dims, ladder, ratios and widths of heads that follow from a model's width and depth."""

from __future__ import annotations

from collections.abc import Sequence

from mipic_llm.config.presets import OBJECTIVES
from mipic_llm.config.schema import Config
from mipic_llm.types import Point


def derive_dims(width: int) -> list[int]:
    """16, 32, 64 ... doubling below `width`, then `width`."""
    return [2**i for i in range(4, width.bit_length()) if 2**i < width] + [width]


def derive_ladder(
    dims: Sequence[int], n_layers: int, checkpoints: int | None = None
) -> tuple[Point, ...]:
    """So many checkpoints, None = one per dim; layers evenly spaced: layer i of n is
    round(n_layers * i / n).

    With fewer of them, or fewer layers, than dims, the dims are spread as widely as possible and
    end at the full width (six layers, seven dims: METHOD.md's TinyBERT row).
    """
    n = min(len(dims), n_layers, checkpoints or len(dims))
    last = len(dims) - 1
    chosen = [dims[_round(i * last, n - 1)] for i in range(n)] if n > 1 else [dims[-1]]
    return tuple(Point(_round(n_layers * (i + 1), n), dim) for i, dim in enumerate(chosen))


def _round(numerator: int, denominator: int) -> int:
    """Nearest integer, halves upwards (Python's round() would send 2.5 to 2 and 3.5 to 4)."""
    return (2 * numerator + denominator) // (2 * denominator)


def derive_ratios(n_prefixes: int) -> list[float]:
    """gamma_i rising evenly from 0.2 to 0.7 (six prefixes: the paper's values); one: 0.7."""
    if n_prefixes == 1:
        return [0.7]
    return [round(0.2 + 0.5 * i / (n_prefixes - 1), 4) for i in range(n_prefixes)]


def chain_hidden(dim_in: int, dim_out: int, form: str) -> int:
    """Hidden width of a link's head: half of its wider end (the paper's mlp), or an eighth."""
    return max(1, max(dim_in, dim_out) // (8 if form == "residual" else 2))


def trained_dims(config: Config) -> list[int]:
    """The widths under the contrastive loss (after `resolve`), by the table of objectives.

    objective.dims stays the list that evaluation and export use, whatever was trained.
    """
    dims = config.objective.dims
    assert dims, "call resolve() first"
    return {
        "all": dims, "full": dims[-1:], "ese": [config.ese.k or dims[0], dims[-1]],
    }[OBJECTIVES[config.objective.name].widths]  # fmt: skip


def narrow_dims(config: Config) -> list[int]:
    """The prefixes under the distillation between texts (after `resolve`), none where it is off."""
    if "sentences" not in OBJECTIVES[config.objective.name].terms or not config.sia.sentences:
        return []
    dims = trained_dims(config)
    return narrow_of(dims, dims[-1])


def narrow_of(dims: Sequence[int], width: int) -> list[int]:
    """Those of at most a fifth of the full width, where a published negative result says that
    Matryoshka training pays at all (arXiv 2605.16608)."""
    return [d for d in dims if 5 * d <= width]


def dims_given_up(now: list[int], before: list[int], width: int) -> list[str]:
    """A line where a base was trained at dims that a run on it does not train; none for an
    objective that trains whole vectors alone (one dim)."""
    gone = [dim for dim in before if dim not in now and dim < width]
    if not gone or len(now) < 2:
        return []
    kept = ",".join(map(str, sorted({*now, *gone})))
    return [f"was trained at {', '.join(map(str, gone))} dims too, which this run leaves; "
            f"--objective.dims {kept} trains them further"]  # fmt: skip
