"""Packed batches: texts one after another in one row, without padding, and their positions.

Shape legend: N tokens of all sequences, S sequences.
"""

from __future__ import annotations

import copy
from contextlib import suppress
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from mipic_llm.model.attention import model_class
from mipic_llm.types import Packing

_TABLES = ("position_embeddings", "embed_positions", "wpe")  # of positions, by the module's name


def unpad(ids_ST: Tensor, mask_ST: Tensor) -> tuple[Tensor, Packing]:
    """A padded batch as a packed one. It reads the mask on the host: not for a training step."""
    real_ST = mask_ST.bool()
    lengths = tuple(real_ST.sum(1).tolist())
    cu_S1 = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    position_N = torch.cat([torch.arange(n) for n in lengths])
    skip_S = (mask_ST == 2).sum(1) if int(mask_ST.max()) == 2 else None
    return ids_ST[real_ST][None], Packing(cu_S1, position_N, lengths, skip_S).to(ids_ST.device)


def _table(model: nn.Module) -> nn.Embedding | None:
    """The table of absolute positions, where the model has one."""
    for name, module in model.named_modules():
        if name.rsplit(".", 1)[-1] in _TABLES and isinstance(module, nn.Embedding):
            return module
    return None


def first_position(model: nn.Module) -> int:
    """Position of a text's first token: 0, or after the pad's place in tables that reserve one
    (RoBERTa, XLM-R and BGE-M3 count from padding_idx + 1)."""
    table = _table(model)
    return 0 if table is None or table.padding_idx is None else table.padding_idx + 1


def longest_text(config: Any) -> int | None:
    """Tokens for which the model of this config has places; None without a table of positions (and
    where the class cannot be asked). The model is built without memory for weights."""
    kind, model = model_class(config), nn.Module()
    if kind is not None:
        with suppress(Exception), torch.device("meta"):
            model = kind(copy.deepcopy(config))
    table, first = _table(model), first_position(model)
    return None if table is None else table.num_embeddings - getattr(table, "offset", first)
