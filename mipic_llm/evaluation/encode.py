"""Texts to readouts with the live model, sharded over ranks, at any ZeRO stage."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mipic_llm.data.tokenise import TextEncoder, pad
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.engine import Engine


def encode(
    engine: Engine,
    encoder: TextEncoder,
    texts: Sequence[str],
    layers: Sequence[int],
    *,
    batch_size: int,
    kind: str = "query",
) -> Tensor:
    """(N, L, D) float32 readouts on CPU, on every rank; all ranks must call.

    Sorted by length; each rank runs the same number of batches (dummies where it has none), since
    under ZeRO-3 every forward is a collective.
    """
    ids = encoder.ids(list(texts), kind)
    order = sorted(range(len(ids)), key=lambda i: (-len(ids[i]), i))
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    world, rank = dist.world_size(), dist.rank()
    own: list[tuple[list[int], Tensor]] = []
    engine.train(False)
    with torch.no_grad():
        for first in range(0, len(batches), world):
            mine = batches[first + rank] if first + rank < len(batches) else []
            rows = [ids[i] for i in mine] or [ids[order[-1]]]
            ids_ST, mask_ST = pad(rows, encoder.pad_id, encoder.padding_side)
            out_LSD = engine.forward(
                ids_ST.to(engine.device), mask_ST.to(engine.device), layers=tuple(layers)
            )
            if mine:
                own.append((mine, out_LSD.float().cpu().transpose(0, 1).contiguous()))
    engine.train(True)
    width = engine.module.backbone.width
    readout_NLD = torch.zeros(len(ids), len(layers), width)
    for part in dist.gather_objects([(rows, values.numpy()) for rows, values in own]):
        for rows, values in part:
            readout_NLD[rows] = torch.from_numpy(values)
    return readout_NLD
