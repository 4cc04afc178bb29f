"""The tile kernels of short texts against plain attention, in Triton's interpreter (no GPU).

Run by test_short_attention.py with TRITON_INTERPRET=1; prints the largest difference of each case.
"""

from __future__ import annotations

import json
import sys
from functools import partial

import interpreter  # noqa: F401
import torch

from mipic_llm.model import short_attention as short
from mipic_llm.model.mixed_attention import MixedAttention, fault
from mipic_llm.model.tiles import tiles
from mipic_llm.model.varlen import reference_varlen

LENGTHS = (200, 90, 64, 64, 33, 32, 20, 20, 17, 9, 9, 9, 5, 3, 1, 1)


def apart(H: int, G: int, c: int, causal: bool, lengths: tuple[int, ...]) -> float:
    """Largest difference of output and gradients; longer texts by the reference on both sides."""
    cut = tiles(lengths, torch.device("cpu"))
    assert cut is not None
    at, window = cut.long_rows, (-1, 0 if causal else -1)
    torch.manual_seed(0)
    # as transformers hands them: heads before tokens, so rows are strided
    sides = [torch.randn(h, sum(lengths), c).transpose(0, 1) for h in (H, G, G)]
    position_N = torch.cat([torch.arange(n) for n in lengths])

    def ours(*sides: torch.Tensor) -> torch.Tensor:
        own = [x[at:] for x in sides]
        out = short.short_attention(*own, cut.start_t1, position_N[at:], c**-0.5, causal)
        if not at:
            return out
        before = reference_varlen(
            *(x[:at] for x in sides), lengths[: cut.long_texts], window=window
        )
        return torch.cat([before, out])

    def mixed(wide: bool, *sides: torch.Tensor) -> torch.Tensor:
        cut = tiles(lengths, torch.device("cpu"), wide)
        assert cut is not None

        def far(*few: torch.Tensor) -> torch.Tensor:
            return reference_varlen(*few, lengths[: cut.far[1]], window=window)

        return MixedAttention.apply(*sides, position_N, cut, far, c**-0.5, causal)

    def reference(*sides: torch.Tensor) -> torch.Tensor:
        return reference_varlen(*sides, lengths, window=window)

    found = []
    for attention in (ours, partial(mixed, False), partial(mixed, True), reference):
        leaves = [x.clone().requires_grad_() for x in sides]
        out = attention(*leaves)
        out.sin().sum().backward()
        found.append([out.detach(), *(x.grad for x in leaves)])
    *got, want = found
    return max(float((a - b).abs().max()) for one in got for a, b in zip(one, want, strict=True))


if __name__ == "__main__":
    cases = {
        "grouped causal": (4, 2, 32, True, LENGTHS),
        "both sides": (4, 4, 64, False, LENGTHS),
        "one key head": (8, 1, 128, True, LENGTHS),
        "short only, unsorted": (2, 1, 32, True, (3, 60, 1, 17, 64, 2, 40)),
    }
    torch.library.opcheck(
        torch.ops.mipic_llm.short_attention.default,
        (*(torch.randn(9, h, 32, requires_grad=True) for h in (4, 2, 2)),
         torch.tensor([0, 9], dtype=torch.int32), torch.arange(9), 0.2, True),
        test_utils=("test_schema", "test_faketensor"),
    )  # fmt: skip
    found = {name: apart(*case) for name, case in cases.items()}
    kinds = ((torch.float32, 64, False), (torch.float16, 64, False), (torch.float32, 32, True))
    found["right"] = [fault("cpu", t, c, wide) is None for t, c, wide in kinds]
    json.dump(found, sys.stdout)
