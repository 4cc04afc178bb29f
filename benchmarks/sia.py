"""Suite `sia`: the SIA loss alone, as built, against two naive forms (forward and backward).

One layer and several, random inputs at real shapes.
  fast           mipic_llm.losses.sia_per_example
  naive float64  one sentence and one prefix at a time, tokens projected up to D (the equations)
  naive batched  fp32, all sentences at once, autograd, tokens projected up to D: the fair rival

Shape legend: L layers, S sentences, T tokens, D full width, K sum of the prefix widths.
"""

from __future__ import annotations

if __name__ == "__main__":  # `python benchmarks/sia.py` is `python benchmarks/run.py sia`
    import sys

    import run

    raise SystemExit(run.main(["sia", *sys.argv[1:]]))

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks import harness, results
from benchmarks.harness import Options
from benchmarks.results import Row
from mipic_llm.losses import sia_per_example

TAU, MIN_K = 0.5, 8
TARGET = 40.0  # times faster than naive float64


class Case(NamedTuple):
    name: str
    L: int
    S: int
    T: int
    D: int
    dims: tuple[int, ...]
    ratios: tuple[float, ...]
    rivals: bool  # also time the naive forms


CASES = (
    Case(
        "1x256x64x1024",
        1, 256, 64, 1024,
        (16, 32, 64, 128, 256, 512), (0.2, 0.3, 0.4, 0.5, 0.6, 0.7), True,
    ),
    Case("6x96x64x384", 6, 96, 64, 384, (16, 32, 64, 128, 256), (0.2, 0.3, 0.4, 0.5, 0.6), False),
    Case(
        "7x48x64x768",
        7, 48, 64, 768,
        (16, 32, 64, 128, 256, 512), (0.2, 0.3, 0.4, 0.5, 0.6, 0.7), False,
    ),
)  # fmt: skip

QUICK = [Case("tiny 1x6x12x32", 1, 6, 12, 32, (4, 8), (0.5, 0.7), True)]
WARM = Case("warm", 1, 2, 16, 32, (4, 8), (0.5, 0.7), False)


class Inputs(NamedTuple):
    tokens: list[Tensor]
    query_LSD: Tensor
    mask_ST: Tensor
    lifts: list[Tensor]

    def leaves(self) -> list[Tensor]:
        return [*self.tokens, self.query_LSD, *self.lifts]


def make_inputs(case: Case) -> Inputs:
    g = torch.Generator().manual_seed(0)
    device = "cuda" if harness.on_gpu() else "cpu"

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(*shape, generator=g) * scale).to(device).requires_grad_()

    tokens = [normal(case.S, case.T, case.D) for _ in range(case.L)]
    query_LSD = normal(case.L, case.S, case.D)
    lifts = [normal(d, case.D, scale=1 / math.sqrt(d)) for d in case.dims]
    mask_ST = torch.ones(case.S, case.T, dtype=torch.bool, device=device)
    return Inputs(tokens, query_LSD, mask_ST, lifts)


def fast(case: Case, x: Inputs) -> tuple[Tensor, Tensor]:
    lifted_LSK = x.query_LSD @ torch.cat(x.lifts).T
    relation_LS, geometry_LS = sia_per_example(
        x.tokens,
        x.query_LSD,
        x.mask_ST,
        lifted_LSK=lifted_LSK,
        dims=case.dims,
        ratios=case.ratios,
        tau=TAU,
        min_k=MIN_K,
    )
    return relation_LS.mean(), geometry_LS.mean()


def _size(ratio: float, m: int) -> int:
    return min(m, max(MIN_K, math.ceil(ratio * m - 1e-9)))


def _naive_sentence(case: Case, h_mD: Tensor, q_D: Tensor, lifts: list[Tensor]):
    m, D = h_mD.shape
    teacher_m = h_mD @ q_D / math.sqrt(D)
    order_m = torch.sort(teacher_m, descending=True, stable=True).indices
    log_t_m = torch.log_softmax(teacher_m / TAU, 0).detach()
    relation = geometry = h_mD.new_zeros(())
    for P_dD, d, ratio in zip(lifts, case.dims, case.ratios, strict=True):
        log_p_m = torch.log_softmax(h_mD[:, :d] @ P_dD @ q_D / math.sqrt(D) / TAU, 0)
        relation = relation + (log_p_m.exp() * (log_p_m - log_t_m)).sum()
        x_kD = h_mD[order_m[: _size(ratio, m)]]
        k = len(x_kD)
        H_kk = torch.eye(k, dtype=h_mD.dtype, device=h_mD.device) - 1 / k
        K_kk = H_kk @ (x_kD[:, :d] @ x_kD[:, :d].T) @ H_kk
        L_kk = H_kk @ (x_kD.detach() @ x_kD.detach().T) @ H_kk
        geometry = geometry + 1 - (K_kk * L_kk).sum() / (K_kk.norm() * L_kk.norm())
    return relation, geometry


def naive_float64(case: Case, x: Inputs) -> tuple[Tensor, Tensor]:
    relation, geometry = [], []
    lifts = [p.double() for p in x.lifts]
    for layer, tok_STD in enumerate(x.tokens):
        for s in range(case.S):
            h_mD = tok_STD[s][x.mask_ST[s]].double()
            r, g = _naive_sentence(case, h_mD, x.query_LSD[layer, s].double(), lifts)
            relation.append(r)
            geometry.append(g)
    return torch.stack(relation).mean(), torch.stack(geometry).mean()


def naive_batched(case: Case, x: Inputs) -> tuple[Tensor, Tensor]:
    """fp32 over the whole batch; equal lengths (the cases here have no pads)."""
    relation = geometry = torch.zeros(())
    for layer, tok_STD in enumerate(x.tokens):
        q_SD1, scale = x.query_LSD[layer][:, :, None], math.sqrt(case.D) * TAU
        teacher_ST = (tok_STD @ q_SD1)[:, :, 0] / scale
        order_ST = torch.sort(teacher_ST, dim=1, descending=True, stable=True).indices
        log_t_ST = torch.log_softmax(teacher_ST, 1).detach()
        for P_dD, d, ratio in zip(x.lifts, case.dims, case.ratios, strict=True):
            student_ST = ((tok_STD[:, :, :d] @ P_dD) @ q_SD1)[:, :, 0] / scale
            log_p_ST = torch.log_softmax(student_ST, 1)
            relation = relation + (log_p_ST.exp() * (log_p_ST - log_t_ST)).sum(1).mean()
            k = _size(ratio, case.T)
            top_SkD = order_ST[:, :k, None].expand(-1, -1, case.D)
            x_SkD = tok_STD.gather(1, top_SkD)
            x_SkD = x_SkD - x_SkD.mean(1, keepdim=True)
            K_Skk = x_SkD[:, :, :d] @ x_SkD[:, :, :d].transpose(1, 2)
            L_Skk = (x_SkD @ x_SkD.transpose(1, 2)).detach()
            dot_S = (K_Skk * L_Skk).sum((1, 2))
            geometry = (
                geometry + (1 - dot_S / K_Skk.norm(dim=(1, 2)) / L_Skk.norm(dim=(1, 2))).mean()
            )
    return relation / case.L, geometry / case.L


VARIANTS: dict[str, Callable[[Case, Inputs], tuple[Tensor, Tensor]]] = {
    "fast": fast,
    "naive batched": naive_batched,
    "naive float64": naive_float64,
}


def step(case: Case, x: Inputs, variant: str) -> tuple[Tensor, list[Tensor]]:
    """Forward and backward: both values, gradients of tokens, query and lifts."""
    relation, geometry = VARIANTS[variant](case, x)
    grads = torch.autograd.grad(relation + geometry, x.leaves())
    return torch.stack([relation.detach(), geometry.detach()]), list(grads)


def disagreement(case: Case, x: Inputs, variant: str) -> tuple[float, float]:
    """Largest relative errors of `variant` against naive float64: values, gradients (norm)."""
    value, grads = step(case, x, variant)
    exact_value, exact_grads = step(case, x, "naive float64")
    of_value = ((value.double() - exact_value).abs() / exact_value.abs()).max().item()
    pairs = zip(grads, exact_grads, strict=True)
    of_grad = max(((a - b).double().norm() / b.double().norm()).item() for a, b in pairs)
    return of_value, of_grad


def peak(case: str, variant: str) -> float:
    """MiB that one forward and backward adds, in this (fresh) process."""
    chosen = {c.name: c for c in (*CASES, *QUICK)}[case]
    x = make_inputs(chosen)
    step(WARM, make_inputs(WARM), variant)  # code and thread pools, not workspace
    before = harness.peak_mib()
    step(chosen, x, variant)
    return harness.peak_mib() - before


def bench(case: Case, o: Options) -> list[Row]:
    x = make_inputs(case)
    names = list(VARIANTS) if case.rivals else ["fast"]
    for name in ("fast", "naive batched"):
        of_value, of_grad = disagreement(case, x, name)
        print(f"{case.name} {name}: relative error {of_value:.1e} loss, {of_grad:.1e} gradient")
        if max(of_value, of_grad) >= 1e-5:
            raise SystemExit(f"{case.name}: {name} disagrees with naive float64, nothing timed")
    peaks = {} if o.quick else {
        name: harness.in_child("benchmarks.sia:peak", case=case.name, variant=name,
                               threads=o.threads)
        for name in names
    }  # fmt: skip
    rows = []
    for _ in range(2):  # each version twice, in turn
        timings = {}
        for name in names:
            slow = name == "naive float64"
            warmup, runs = (1, 2) if slow or o.quick else (5, o.runs or 30)
            samples = harness.paired({name: lambda n=name: step(case, x, n)}, warmup, runs)
            timings[name] = harness.summary(samples[name])
        for name, t in timings.items():
            judged: dict[str, object] = {}
            if name != "fast":
                judged["ratio"] = t.median / timings["fast"].median
            if name == "naive float64" and not o.quick and not harness.on_gpu():
                judged = results.verdict(judged["ratio"], TARGET, at_least=True)
            rows.append(results.row(
                "sia", case.name, name, t, peak_mib=peaks.get(name), lengths=str(case.T),
                B=case.S, terms="relation+geometry", note=f"{o.threads} threads", **judged,
            ))  # fmt: skip
    return rows


def run(o: Options) -> list[Row]:
    cases = [c for c in (QUICK if o.quick else CASES) if o.case in (None, c.name)]
    return [row for case in cases for row in bench(case, o)]
