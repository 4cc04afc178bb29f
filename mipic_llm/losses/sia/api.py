"""Self-distilled intra-relational alignment, SIA (Eq 4-14 of arXiv 2604.24374).

Shape legend: L layers, S sentences, T tokens, D full width; P truncated prefixes
(d_1 < ... < d_P < D), K = sum of the d_i. Formulas: relation.py and geometry.py; their analytic
gradient: function.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mipic_llm.losses.numerics import check_tau
from mipic_llm.losses.sia.choice import short_kernels
from mipic_llm.losses.sia.function import SiaFunction, SiaOptions
from mipic_llm.losses.sia.layout import Layout


def sia_per_example(
    tokens_LSTD: Sequence[Tensor] | Tensor,
    query_LSD: Tensor,
    mask_ST: Tensor | None,
    *,
    lifted_LSK: Tensor,
    dims: Sequence[int],
    ratios: Sequence[float],
    tau: float,
    min_k: int = 8,
    detach_teacher: bool = True,
    kl: str = "student_teacher",
    relation: bool = True,
    geometry: bool = True,
    lengths: Sequence[int] | None = None,
    kernels: bool = True,
) -> tuple[Tensor, Tensor]:
    """SIA of several layers: (relation_LS, geometry_LS), each summed over prefixes (Eq 4-12).

    tokens_LSTD: hidden states, L tensors (S, T, D). Packed, with `lengths`: L tensors (N, D), the
        sentences one after another without pads, N the sum of the lengths.
    query_LSD: the readout h_q of each layer. mask_ST: bool, True at real tokens, pads anywhere;
        None with packed tokens.
    lifted_LSK: the vectors P_i h_q of all prefixes side by side; their gradient trains P.
    dims: truncated prefixes, ascending and below D.
    ratios: gamma_i, one per prefix, in (0, 1].
    tau: temperature of the relation's softmax over the real tokens.
    min_k: smallest set of chosen tokens: k_i = min(m, max(min_k, ceil(gamma_i m))), m the number of
        real tokens (Eq 7).
    detach_teacher: no gradient through the teacher's scores and the full-width Gram.
    kl: "student_teacher" is KL(student || teacher) (Eq 6); "teacher_student" the other order.
    relation, geometry: False skips that term, which is then zero.
    lengths: tokens of each of the S packed sentences. Sorted lengths need the fewest blocks.
    kernels: short texts by Triton kernels where a GPU has been seen to run them right.

    Tokens are ranked once by the teacher's score, ties in reading order; the sets are nested. CKA
    is 1 (loss 0, gradient 0) where fewer than two tokens are chosen or all chosen tokens are equal.
    Computed in float32, or in float64 if an input is float64. Differentiable once. Raises
    ValueError on wrong shapes or options.
    """
    if kl not in ("student_teacher", "teacher_student"):
        raise ValueError(f"kl must be student_teacher or teacher_student, got {kl!r}")
    tokens = list(tokens_LSTD)
    options = SiaOptions(
        dims=tuple(map(int, dims)), ratios=tuple(map(float, ratios)), tau=float(tau),
        min_k=int(min_k), detach_teacher=detach_teacher, student_first=kl == "student_teacher",
        relation=relation, geometry=geometry,
    )  # fmt: skip
    _check(tokens, query_LSD, mask_ST, lengths, lifted_LSK, options)
    mask_ST = None if mask_ST is None else mask_ST.bool()
    flat = [t.reshape(-1, t.shape[-1]) for t in tokens]
    if kernels and (short := short_kernels(query_LSD.device, flat[0].dtype)):
        long = short.long_texts(lengths, mask_ST)
        if short.takes(options, query_LSD, lifted_LSK, flat, long):
            return short.ShortSia.apply(
                options, lengths, mask_ST, long, query_LSD, lifted_LSK, *flat
            )
    layout = Layout(mask_ST, lengths, query_LSD)
    return SiaFunction.apply(options, layout, query_LSD, lifted_LSK, *flat)


def _check(
    tokens: list[Tensor],
    query_LSD: Tensor,
    mask_ST: Tensor | None,
    lengths: Sequence[int] | None,
    lifted_LSK: Tensor,
    o: SiaOptions,
) -> None:
    n = 3 if lengths is None else 2
    if not tokens or tokens[0].dim() != n or any(t.shape != tokens[0].shape for t in tokens):
        raise ValueError(
            f"tokens must be L tensors of one shape {'(S, T, D)' if n == 3 else '(N, D)'}, got "
            f"{[tuple(t.shape) for t in tokens]}"
        )
    rows, D = tokens[0].shape[:-1], tokens[0].shape[-1]
    L, S = len(tokens), rows[0] if lengths is None else len(lengths)
    if query_LSD.shape != (L, S, D):
        raise ValueError(f"query_LSD must be {(L, S, D)}, got {tuple(query_LSD.shape)}")
    if lengths is None and (mask_ST is None or mask_ST.shape != rows):
        got = None if mask_ST is None else tuple(mask_ST.shape)
        raise ValueError(f"mask_ST must be {tuple(rows)}, got {got}")
    if lengths is not None and (mask_ST is not None or min(lengths) < 1 or sum(lengths) != rows[0]):
        raise ValueError(
            f"packed tokens need mask_ST None and lengths of 1 or more that add up to {rows[0]}"
        )
    check_tau(o.tau)
    if not o.dims or any(a >= b for a, b in zip((0, *o.dims), (*o.dims, D), strict=True)):
        raise ValueError(f"SIA prefixes must ascend and stay below D = {D}, got {list(o.dims)}")
    if lifted_LSK.shape != (L, S, sum(o.dims)):
        raise ValueError(f"lifted_LSK must be {(L, S, sum(o.dims))}, got {tuple(lifted_LSK.shape)}")
    if len(o.ratios) != len(o.dims) or not all(0 < r <= 1 for r in o.ratios):
        raise ValueError(f"{len(o.dims)} prefixes need as many ratios in (0, 1], got {o.ratios}")
    if o.min_k < 1:
        raise ValueError(f"min_k must be at least 1, got {o.min_k}")
