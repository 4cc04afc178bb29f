"""The task loss at many (layer, prefix) points of one pass.

3D-ML (ML-Embed, arXiv 2605.15081): exits {1, 2, 4, .., L}, each at every prefix.
    sum over exits l, widths d of  w_d InfoNCE(z_l[:, :d]),   w_d = 1 / (n_d sqrt(D / d))
    n_d: 1 for the full width, 2 for the next ..
Starbucks (arXiv 2410.13230): the diagonal of `pic.ladder`, and each point's scores of an anchor's
candidates distilled from the whole model's.
    sum over points (d, l) of  InfoNCE(z_l[:, :d]) + mean_b KL(softmax(s_b / tau) || softmax(s^dl_b
    / tau)),   s: cosines of the last layer at full width, a constant
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mipic_llm import losses
from mipic_llm.config import Config, parse_ladder
from mipic_llm.objective.mrl import Contrast
from mipic_llm.objective.seen import Seen
from mipic_llm.objective.term import Needs, Term, Value, per_dim


class _Level(NamedTuple):
    layer: int
    dims: Sequence[int]
    weights: Sequence[float] | None


class Grid(Term):
    """levels: what is trained at each layer."""

    def __init__(self, config: Config, depth: int, weight: float, levels: Sequence[_Level]) -> None:
        super().__init__(weight)
        self.task, self.levels, self.last = Contrast(config), levels, depth

    def needs(self, drawn: tuple[int, ...]) -> Needs:
        return Needs(gathered=tuple(lv.layer for lv in self.levels if lv.layer != self.last))

    def across(self, seen: Seen, drawn: tuple[int, ...]) -> Iterator[Value]:
        for lv in self.levels:
            value_P = self.task(seen, seen.everyone(lv.layer), lv.dims)
            yield per_dim("mrl", value_P, self.keys(lv), lv.weights)

    def keys(self, lv: _Level) -> list[str]:
        return [f"{d}" if lv.layer == self.last else f"{d}@{lv.layer}" for d in lv.dims]


class ThreeD(Grid):
    def __init__(self, config: Config, width: int, depth: int, weight: float) -> None:
        dims, n = config.objective.dims or [width], len(config.objective.dims or [width])
        weights = config.objective.dim_weights or [
            (d / width) ** 0.5 / (n - i) for i, d in enumerate(dims)
        ]
        exits = [*(2**k for k in range(depth.bit_length()) if 2**k < depth), depth]
        super().__init__(config, depth, weight, [_Level(k, dims, weights) for k in exits])


class Starbucks(Grid):
    def __init__(self, config: Config, width: int, depth: int, weight: float) -> None:
        dims_of: dict[int, list[int]] = {}
        for point in parse_ladder(config.pic.ladder or []):
            dims_of.setdefault(point.layer, []).append(point.dim)
        levels = [_Level(layer, dims, None) for layer, dims in dims_of.items()]
        super().__init__(config, depth, weight, levels)
        self.tau, self.width = config.objective.tau, width

    def across(self, seen: Seen, drawn: tuple[int, ...]) -> Iterator[Value]:
        yield from super().across(seen, drawn)
        whole = seen.sides(seen.everyone())
        out = losses.FalseNegatives(seen.target(), seen.sides(seen.same_N), seen.near())
        teacher = losses.Teacher(*whole, whole[1][:0])
        for lv in self.levels:
            dims = [d for d in lv.dims if (lv.layer, d) != (self.last, self.width)]
            if dims:
                kl_P = losses.neighbourhood_kl(
                    *seen.sides(seen.everyone(lv.layer)), dims=dims, tau=self.tau, left_out=out,
                    teacher=teacher, per_dim=True,
                )  # fmt: skip
                yield per_dim("align", kl_P, self.keys(lv._replace(dims=dims)))
