"""How the texts of a packed batch share the tiles of short_attention.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

ROWS, WIDE = 64, 128  # of a tile, and of one for longer texts


class Tiles(NamedTuple):
    """start_t1: row of each tile among those after the long texts, and the end; int32, on the
    device. long_rows, long_texts, longest: of the texts before, and the most tokens of one.
    wide_t1: the same for tiles of WIDE rows, which hold the last of the long texts; their rows are
    those of the whole batch. far: long_rows, long_texts and longest of the texts before these."""

    start_t1: Tensor
    long_rows: int
    long_texts: int
    longest: int
    wide_t1: Tensor | None
    far: tuple[int, int, int]


def cut(lengths: Sequence[int], rows: int, first: int, device: torch.device) -> Tensor:
    """Where tiles of so many rows begin, the first at row `first`, and where the last ends."""
    starts, row = [first], first
    for n in lengths:
        if row + n - starts[-1] > rows:
            starts.append(row)
        row += n
    start_t1 = torch.tensor([*starts, row], dtype=torch.int32)
    return (start_t1.pin_memory() if device.type == "cuda" else start_t1).to(
        device, non_blocking=True
    )


def tiles(lengths: Sequence[int], device: torch.device, wide: bool = False) -> Tiles | None:
    """The tiles of a packed batch; None where its last text is longer than one. Long are all texts
    up to the last that is longer than a tile. wide: tiles of WIDE rows can be used."""

    def before(rows: int) -> tuple[int, int, int]:
        texts = max((i + 1 for i, n in enumerate(lengths) if n > rows), default=0)
        return sum(lengths[:texts]), texts, max(lengths[:texts], default=0)

    long = before(ROWS)
    if long[1] == len(lengths):
        return None
    start_t1 = cut(lengths[long[1] :], ROWS, 0, device)
    far = before(WIDE) if wide else long
    wide_t1 = None
    if far[1] < long[1]:
        wide_t1 = cut(lengths[far[1] : long[1]], WIDE, far[0], device)
    return Tiles(start_t1, *long, wide_t1, far)
