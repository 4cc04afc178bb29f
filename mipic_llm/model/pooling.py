"""The readout: which token(s) stand for the sentence. One rule for every layer and for export."""

from __future__ import annotations

import torch
from torch import Tensor

from mipic_llm.types import Packing

POOLINGS = ("cls", "mean", "last")


def readout(tokens_STD: Tensor, mask_ST: Tensor, pooling: str) -> Tensor:
    """(S, D) readouts of (S, T, D) tokens; pads (mask 0) may be on either side.

    Where the mask is 2, a prompt's tokens stand, which are left out by mean, and by cls, which is
    then the first token behind them (sentence-transformers' `include_prompt` false).
    cls: the first real token. mean: over real tokens. last: the last real token (causal decoders:
    position 0 sees only itself, so nothing else is right there).
    """
    mask_ST = mask_ST == 1 if pooling != "last" else mask_ST.bool()
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


def packed_readout(tokens_ND: Tensor, packing: Packing, pooling: str) -> Tensor:
    """(S, D) readouts of (N, D) packed tokens: the same rule."""
    skip_S = packing.skip_S
    if pooling == "mean":
        length_S = packing.cu_S1.diff().long()
        return _SegmentMean.apply(tokens_ND, length_S, skip_S, packing.position_N)
    if pooling == "cls":
        at_S = packing.cu_S1[:-1]
        if skip_S is not None:
            at_S = at_S + torch.where(packing.cu_S1.diff() > skip_S, skip_S, 0).int()
        # not by indexing, whose backward sorts the rows on a GPU: no row is there twice
        return tokens_ND.index_select(0, at_S)
    if pooling == "last":
        return tokens_ND.index_select(0, packing.cu_S1[1:] - 1)
    raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}")


class _SegmentMean(torch.autograd.Function):
    """Mean over each run of rows but its first skip_S, (N, D) and length_S -> (S, D). torch's own
    reduction would keep a float32 copy of the tokens for its backward; this keeps the lengths."""

    @staticmethod
    def forward(
        ctx, tokens_ND: Tensor, length_S: Tensor, skip_S: Tensor | None, position_N: Tensor
    ) -> Tensor:
        ctx.n, count_S, out_N1 = len(tokens_ND), length_S, None
        if skip_S is not None:
            skip_N = skip_S.repeat_interleave(length_S, output_size=ctx.n)
            out_N1 = (position_N < skip_N)[:, None]
            tokens_ND = tokens_ND.masked_fill(out_N1, 0)
            count_S = (length_S - skip_S).clamp(min=1)
        ctx.save_for_backward(length_S, count_S, out_N1)
        wide = tokens_ND.dtype if tokens_ND.dtype == torch.float64 else torch.float32
        sum_SD = torch.segment_reduce(
            tokens_ND.to(wide), "sum", lengths=length_S, axis=0, unsafe=True
        )
        return (sum_SD / count_S[:, None]).to(tokens_ND.dtype)

    @staticmethod
    def backward(ctx, grad_SD: Tensor):
        length_S, count_S, out_N1 = ctx.saved_tensors
        share_SD = grad_SD / count_S[:, None]
        grad_ND = share_SD.repeat_interleave(length_S, 0, output_size=ctx.n)
        if out_N1 is not None:
            grad_ND = grad_ND.masked_fill(out_N1, 0)
        return grad_ND, None, None, None
