"""Before a run: does it change a text's vector which texts are encoded beside it?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mipic_llm.errors import UserError
from mipic_llm.model.backbone import base_of
from mipic_llm.runtime.engine import Engine
from mipic_llm.runtime.ranks import say

LENGTHS = (11, 7, 7, 3)
# Largest difference allowed between a text's vector alone and packed, as a share of its length.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}


def check_batches(engine: Engine, config: Any) -> None:
    """Four short sequences in one batch, and each alone with the positions that the model itself
    gives it: the same vectors, or UserError where they are packed, a note where they are padded
    (FNet and ConvBERT mix pads into their tokens, in every library). All ranks call.

    A class that mixes packed sequences, or counts its positions in its own way, is found here.
    """
    backbone = engine.module.backbone
    generator = torch.Generator().manual_seed(0)
    pad = config.pad_token_id
    # ids of ordinary tokens: a pad's id would stand for a hole in XLM-R's own positions
    rows = [torch.randint(5, config.vocab_size, (n,), generator=generator) for n in LENGTHS]
    rows = [torch.where(row == pad, row - 1, row) if pad is not None else row for row in rows]
    longest = max(LENGTHS)
    ids_ST, mask_ST = torch.zeros(2, len(rows), longest, dtype=torch.int64)
    for s, row in enumerate(rows):
        ids_ST[s, : len(row)], mask_ST[s, : len(row)] = row, 1
    layers = (backbone.n_layers,)
    training = engine.module.training
    engine.train(False)

    def vectors(ids: Tensor, mask: Tensor) -> Tensor:
        return engine.forward(ids.to(engine.device), mask.to(engine.device), layers=layers)[0]

    name = type(base_of(backbone.model)).__name__
    with torch.no_grad():
        try:
            beside_SD = vectors(ids_ST, mask_ST)
        except (TypeError, AttributeError, LookupError) as error:  # it wants a mask
            if not backbone.packed:
                raise
            raise UserError(f"model.attn: {name} does not run packed ({error}); use --model.attn "
                            "sdpa") from error  # fmt: skip
        backbone.own_positions = True
        alone_SD = torch.cat([vectors(r[None], torch.ones_like(r)[None]) for r in rows])
    backbone.own_positions = False
    engine.train(training)
    apart = (beside_SD - alone_SD).double().norm(dim=1) / alone_SD.double().norm(dim=1)
    worst = float(apart.max())
    if worst <= TOLERANCE.get(beside_SD.dtype, 5e-2):
        return
    if not backbone.packed:
        say(f"note: the pads of a batch change the vectors of {name} (by {worst:.1e} of their "
            "length), here and in every library: a text's vector depends on the longest text that "
            "is encoded with it")  # fmt: skip
        return
    raise UserError(
        f"model.attn: packing changes the vectors of {name} (by {worst:.1e} of their length), so "
        "it cannot run without padding; use --model.attn sdpa"
    )
