"""Self-distilled intra-relational alignment, SIA (Eq 4-14 of arXiv 2604.24374).

Shape legend:
    L captured layers, S sequences, T tokens, D full width
    P truncated prefixes (d_1 < ... < d_P < D), K = sum of the d_i

    relation = sum_i KL(softmax(s^i / tau) || softmax(s^0 / tau))      see sia_relation.py
    geometry = sum_i 1 - CKA(h[top_i, :d_i], h[top_i, :])              see sia_geometry.py
The gradient is analytic, see sia_function.py. This file is what callers use.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mipic_llm.losses.numerics import check_tau, compute_dtype, full_precision
from mipic_llm.losses.sia.function import SiaFunction, SiaOptions
from mipic_llm.losses.sia.layout import Layout


def sia(
    tokens_STD: Tensor,
    query_SD: Tensor,
    mask_ST: Tensor,
    *,
    lifts: Sequence[Tensor],
    dims: Sequence[int],
    ratios: Sequence[float],
    tau: float,
    min_k: int = 8,
    detach_teacher: bool = True,
    similarity: str = "dot",
    kl: str = "student_teacher",
    k_from: str = "real",
    detach_query: bool = False,
    relation: bool = True,
    geometry: bool = True,
) -> tuple[Tensor, Tensor]:
    """SIA of one layer: (relation, geometry), each the sum over prefixes of the batch mean.

    lifts[i] is P_i, (d_i, D). The rest is documented at `sia_per_example`, which does the work.
    """
    if len(lifts) != len(dims) or any(
        p.shape != (d, query_SD.shape[-1]) for p, d in zip(lifts, dims, strict=False)
    ):
        raise ValueError(
            f"lifts must have shapes (d, {query_SD.shape[-1]}) for d in {list(dims)}, got "
            f"{[tuple(p.shape) for p in lifts]}"
        )
    dtype = compute_dtype(tokens_STD, query_SD, *lifts)
    with full_precision(query_SD.device):
        source_SD = query_SD.detach() if detach_query else query_SD
        lifted_SK = source_SD.to(dtype) @ torch.cat([p.to(dtype) for p in lifts]).T
    relation_1S, geometry_1S = sia_per_example(
        [tokens_STD],
        query_SD[None],
        mask_ST,
        lifted_LSK=lifted_SK[None],
        dims=dims,
        ratios=ratios,
        tau=tau,
        min_k=min_k,
        detach_teacher=detach_teacher,
        similarity=similarity,
        kl=kl,
        k_from=k_from,
        detach_query=detach_query,
        relation=relation,
        geometry=geometry,
    )
    return relation_1S.mean(), geometry_1S.mean()


def sia_per_example(
    tokens_LSTD: Tensor | Sequence[Tensor],
    query_LSD: Tensor,
    mask_ST: Tensor | None,
    *,
    lifted_LSK: Tensor,
    dims: Sequence[int],
    ratios: Sequence[float],
    tau: float,
    min_k: int = 8,
    detach_teacher: bool = True,
    similarity: str = "dot",
    kl: str = "student_teacher",
    k_from: str = "real",
    detach_query: bool = False,
    relation: bool = True,
    geometry: bool = True,
    lengths: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """SIA of several layers at once: (relation_LS, geometry_LS), summed over prefixes (Eq 4-12).

    tokens_LSTD: (L, S, T, D), or a sequence of L tensors (S, T, D): cheaper, since nothing is
        copied to stack them.
    query_LSD: the readout h_q of each layer. mask_ST: bool, True at real tokens, pads anywhere.
    lifted_LSK: folded queries P_i h_q of all prefixes side by side on the last axis; their
        gradient trains P.
    dims: truncated prefixes only, ascending and below D.
    ratios: gamma_i, one per prefix, in (0, 1].
    tau: temperature of the relation's softmax over real tokens.
    min_k: smallest set: k_i = min(m, max(min_k, ceil(gamma_i m))), m = real tokens (Eq 7).
    detach_teacher: no gradient through the teacher row nor through the full-width Gram.
    similarity: "dot" (Eq 4-5), scores are inner products over sqrt(D); "cosine": each inner
        product over the norms of its two vectors, <P_i h_q, h_j[:d_i]> / (|P_i h_q| |h_j[:d_i]|)
        and <h_q, h_j> / (|h_q| |h_j|), norms clamped at 1e-12.
    kl: "student_teacher" is KL(student || teacher) (Eq 6); "teacher_student" the other order.
    k_from: "real" or "padded": whether the ceil takes m or T. Pads are never chosen.
    detach_query: no gradient of the relation into query_LSD (only a trained teacher has one: the
        student's goes through lifted_LSK, where the caller detaches the query before lifting).
    lengths: packed tokens. S numbers, and each layer's tokens are (N, D), the sentences one after
        another without pads, N the sum of the lengths; mask_ST is None. Best sorted.
    relation, geometry: False skips that term, which is then zero.

    Tokens are ranked once by the teacher score, in the dtype of the computation (float32, or
    float64 for float64 inputs), ties in reading order; the sets are nested. CKA counts as 1 (loss
    0, gradient 0) where fewer than two tokens are chosen or all chosen tokens are equal.
    Differentiable once. Raises ValueError on wrong shapes or options.
    """
    tokens = list(tokens_LSTD.unbind(0)) if isinstance(tokens_LSTD, Tensor) else list(tokens_LSTD)
    options = SiaOptions(
        dims=tuple(int(d) for d in dims),
        ratios=tuple(float(r) for r in ratios),
        tau=float(tau),
        min_k=int(min_k),
        detach_teacher=detach_teacher,
        cosine=_one_of("similarity", similarity, ("dot", "cosine")) == "cosine",
        student_first=_one_of("kl", kl, ("student_teacher", "teacher_student"))
        == "student_teacher",
        k_from_padded=_one_of("k_from", k_from, ("real", "padded")) == "padded",
        detach_query=detach_query,
        relation=relation,
        geometry=geometry,
    )
    _check_tokens(tokens, query_LSD, mask_ST, lengths)
    _check(len(tokens), query_LSD, lifted_LSK, options)
    mask = None if mask_ST is None else mask_ST.bool()
    layout = Layout(mask, lengths, query_LSD.shape[2], query_LSD.device)
    flat = [t.reshape(-1, t.shape[-1]) for t in tokens]
    return SiaFunction.apply(options, layout, query_LSD, lifted_LSK, *flat)


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return value


def _check_tokens(
    tokens: list[Tensor],
    query_LSD: Tensor,
    mask_ST: Tensor | None,
    lengths: Sequence[int] | None,
) -> None:
    n = 3 if lengths is None else 2
    if not tokens or tokens[0].dim() != n or any(t.shape != tokens[0].shape for t in tokens):
        raise ValueError(
            f"tokens must be L tensors of one shape {'(S, T, D)' if n == 3 else '(N, D)'}, got "
            f"{[tuple(t.shape) for t in tokens]}"
        )
    shape = tokens[0].shape
    S = shape[0] if lengths is None else len(lengths)
    if query_LSD.shape != (len(tokens), S, shape[-1]):
        raise ValueError(
            f"query_LSD must be {(len(tokens), S, shape[-1])}, got {tuple(query_LSD.shape)}"
        )
    if lengths is not None:
        if mask_ST is not None or not lengths or min(lengths) < 1 or sum(lengths) != shape[0]:
            raise ValueError(
                "packed tokens need mask_ST None and lengths of 1 or more that add up to "
                f"{shape[0]}"
            )
    elif mask_ST is None or mask_ST.shape != shape[:2]:
        got = None if mask_ST is None else tuple(mask_ST.shape)
        raise ValueError(f"mask_ST must be {tuple(shape[:2])}, got {got}")


def _check(L: int, query_LSD: Tensor, lifted_LSK: Tensor, o: SiaOptions) -> None:
    check_tau(o.tau)
    S, D = query_LSD.shape[1:]
    if not o.dims or any(a >= b for a, b in zip((0, *o.dims), (*o.dims, D), strict=True)):
        raise ValueError(f"SIA prefixes must ascend and stay below D = {D}, got {list(o.dims)}")
    if lifted_LSK.shape != (L, S, sum(o.dims)):
        raise ValueError(f"lifted_LSK must be {(L, S, sum(o.dims))}, got {tuple(lifted_LSK.shape)}")
    if len(o.ratios) != len(o.dims) or not all(0 < r <= 1 for r in o.ratios):
        raise ValueError(f"{len(o.dims)} prefixes need as many ratios in (0, 1], got {o.ratios}")
    if o.min_k < 1:
        raise ValueError(f"min_k must be at least 1, got {o.min_k}")
