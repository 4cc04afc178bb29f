"""The readout: which token(s) stand for the sentence. One rule for every layer and for export."""

from __future__ import annotations

import torch
from torch import Tensor

POOLINGS = ("cls", "mean", "last")


def readout(tokens_STD: Tensor, mask_ST: Tensor, pooling: str) -> Tensor:
    """(S, D) readouts of (S, T, D) tokens; pads (mask False) may be on either side.

    cls: the first real token. mean: over real tokens. last: the last real token (causal decoders:
    position 0 sees only itself, so nothing else is right there).
    """
    mask_ST = mask_ST.bool()
    if pooling == "mean":
        weight_ST1 = mask_ST.unsqueeze(-1).to(tokens_STD.dtype)
        return (tokens_STD * weight_ST1).sum(1) / weight_ST1.sum(1).clamp(min=1)
    if pooling == "cls":
        at_S = mask_ST.int().argmax(1)
    elif pooling == "last":
        at_S = mask_ST.shape[1] - 1 - mask_ST.flip(1).int().argmax(1)
    else:
        raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}")
    return tokens_STD[torch.arange(len(at_S), device=at_S.device), at_S]
