"""The one spelling of a usable size: dim@layer, such as 64@3."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from mipic_llm.errors import UserError
from mipic_llm.types import Point

_FORM = re.compile(r"([1-9][0-9]{0,8})([@x])([1-9][0-9]{0,8})")


def parse_point(text: str, where: str = "") -> Point:
    """ "64@3" -> Point(layer=3, dim=64). where: begins the UserError's line for anything else.

    3x64, layer x dim in the names of older figures, is understood too, unless the first number is
    the larger one, so that it may well be meant as the dim.
    """
    if found := _FORM.fullmatch(text):
        first, second = int(found[1]), int(found[3])
        if found[2] == "@":
            return Point(layer=second, dim=first)
        if first <= second:
            return Point(layer=first, dim=second)
    raise UserError(f"{where}{text[:80]!r} is not dim@layer, such as 64@3")


def parse_ladder(ladder: Sequence[str]) -> tuple[Point, ...]:
    """["16@1", "32@2"] -> (Point(layer=1, dim=16), Point(layer=2, dim=32)).

    Raises UserError where an item is no point or the ladder does not rise: layers strictly, dims
    never fall.
    """
    points = [parse_point(t, "pic.ladder: ") for t in " ".join(ladder).replace(",", " ").split()]
    for low, high in pairwise(points):
        if high.layer <= low.layer or high.dim < low.dim:
            raise UserError(f"pic.ladder must rise: {high} follows {low}; order it from narrow and "
                            "shallow to wide and deep, each layer once")  # fmt: skip
    return tuple(points)


def figure_name(text: str) -> str:
    """A figure's name, task/metric@point, with its point in the one spelling; others as given."""
    name, _, point = text.rpartition("@")
    old = name and (found := _FORM.fullmatch(point)) and found[2] == "x"
    return f"{name}@{parse_point(point)}" if old else text
