"""The Triton kernels of SIA against function.py in float64, in Triton's interpreter (no GPU).

Run by test_sia_short.py with TRITON_INTERPRET=1; prints of each case the largest relative
difference among both values and all gradients.
"""

from __future__ import annotations

import json
import sys
from itertools import product
from typing import Any

import interpreter  # noqa: F401
import torch
from torch import Tensor

from mipic_llm.losses import sia_per_example
from mipic_llm.losses.sia import api, launches, short

DIMS, D, L = (5, 16, 30), 70, 2
BASE: dict[str, Any] = {"dims": DIMS, "ratios": (0.2, 0.5, 0.7), "tau": 0.5, "min_k": 3}
PACKED, FEW = (18, 5, 3, 2, 1), (17, 9, 4)


def inputs(lengths: tuple[int, ...], padded: bool, dtype: torch.dtype, change: str) -> list[Any]:
    """Tokens of L layers, query, lifted, mask, and factors of both values."""
    torch.manual_seed(0)
    S, T = len(lengths), max(lengths)
    tokens = [torch.randn(S, T, D) for _ in range(L)]
    if change == "equal":
        tokens[0][:] = tokens[0][:, :1]
    if change == "offset":  # a channel far from the others
        tokens[0][:, :, 4] += 100.0
    mask_ST = torch.zeros(S, T, dtype=torch.bool)
    for s, n in enumerate(lengths):
        mask_ST[s, torch.randperm(T)[:n] if padded else torch.arange(n)] = True
    tokens = [(x if padded else x[mask_ST]).to(dtype) for x in tokens]
    query, lifted = torch.randn(L, S, D), torch.randn(L, S, sum(DIMS))
    if change == "ties":
        query.zero_()
    return [tokens, query, lifted, mask_ST if padded else None, torch.randn(2, L, S)]


def run(made: list[Any], lengths: tuple[int, ...], options: dict[str, Any], exact: bool) -> Any:
    tokens, query, lifted, mask_ST, factor = made
    leaves = [x.double() if exact else x for x in (query, lifted, *tokens)]
    leaves = [x.clone().requires_grad_() for x in leaves]
    out = sia_per_example(
        leaves[2:], leaves[0], mask_ST, lifted_LSK=leaves[1],
        lengths=None if mask_ST is not None else lengths, **options,
    )  # fmt: skip
    sum((f * x).sum() for f, x in zip(factor, out, strict=True)).backward()
    return [x.detach() for x in out], [x.grad for x in leaves]


def apart(
    lengths: tuple[int, ...] = PACKED, padded: bool = False, dtype: torch.dtype = torch.float32,
    change: str = "", slopes: int = 2**29, **more: Any,
) -> float:  # fmt: skip
    options, launches._SLOPE_BYTES = BASE | more, slopes
    made = inputs(lengths, padded, dtype, change)
    taken = []
    api.short_kernels = lambda device, dtype: None if dtype == torch.float64 else short
    whole = short.ShortSia.apply
    short.ShortSia.apply = lambda *a: (taken.append(1), whole(*a))[1]
    (values, grads), (values0, grads0) = (run(made, lengths, options, e) for e in (False, True))
    short.ShortSia.apply = whole
    assert len(taken) == 1, "the kernels had no part"
    assert all(g.dtype == x.dtype for g, x in zip(grads[2:], made[0], strict=True))

    def gap(a: Tensor, b: Tensor) -> float:
        assert a.isfinite().all(), "not finite"
        # equal tokens have a gradient of 0: processors differ in what rounding makes of it
        return float((a.double() - b).norm() / b.norm().clamp_min(0.1))

    own = [gap(g, g0) for g, g0 in zip(grads, grads0, strict=True)]
    return max(*own, *(gap(v, v0) for v, v0 in zip(values, values0, strict=True)))


CASES: dict[str, dict[str, Any]] = {
    **{f"{kl}, detached {detach}": {"kl": kl, "detach_teacher": detach}
       for kl, detach in product(("student_teacher", "teacher_student"), (True, False))},
    "every tile": {"lengths": (64, 33, 20), "detach_teacher": False},
    "unsorted": {"lengths": (2, 9, 40, 18)},
    "padded": {"padded": True, "lengths": (14, 5, 0, 1), "detach_teacher": False},
    "longer than a tile": {"lengths": (70, 66, 12, 2), "detach_teacher": False},
    "a long one between": {"lengths": (9, 65, 12, 2)},
    "equal": {"change": "equal", "lengths": FEW, "detach_teacher": False},
    "ties": {"change": "ties", "lengths": FEW},
    "offset": {"change": "offset", "lengths": FEW, "detach_teacher": False},
    "relation": {"geometry": False},
    "geometry": {"relation": False, "lengths": FEW, "detach_teacher": False},
    "workspace": {"lengths": (12, 5, 4, 3), "slopes": 2**14, "detach_teacher": False},
    "bf16": {"dtype": torch.bfloat16, "lengths": (66, 17, 9)},
}  # fmt: skip


if __name__ == "__main__":
    found: dict[str, Any] = {name: apart(**case) for name, case in CASES.items()}
    here = torch.device("cpu")
    found["right"] = [short.fault(here, t) for t in (torch.float32, torch.bfloat16)]
    launches.Call.pieces = lambda self: iter(())  # no gradient is written
    found["wrong"] = short.fault(here, torch.float32)
    json.dump(found, sys.stdout)
