"""Parts of gpu_check.py on our kernels: each against plain PyTorch, over more shapes than a run
asks of it; layers that run by them; losses against float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks import flops, harness, models
from benchmarks.gpu_parts import (
    SMALL_QWEN3,
    SMALL_XLMR,
    Gradients,
    Rows,
    Run,
    apart,
    built,
    device,
    one_step,
)


def kernels(run: Run) -> Rows:
    """What a run asks of each kernel before it uses it, for more heads and channels."""
    here = device()
    if here.type != "cuda":
        yield "all", {"ok": True, "note": "no device for them"}
        return
    from mipic_llm.losses.sia import short
    from mipic_llm.model import mixed_attention, short_attention
    from mipic_llm.model.blocks.apply import fault

    asked: dict[str, Any] = {}
    for dtype in (torch.bfloat16, torch.float32):
        asked[f"SIA {dtype}"] = lambda d=dtype: short.fault(here, d)
    for kind in ("qwen3", "bert"):
        asked[f"nodes {kind}"] = lambda k=kind: fault("cuda", k)
    for c in short_attention.CHANNELS:
        for heads in ((2, 2), (4, 2), (8, 1)):
            asked[f"tiles, {c} channels, heads {heads}"] = lambda c=c, h=heads: (
                mixed_attention.fault("cuda", torch.bfloat16, c, True, h)
            )
    for name, ask in asked.items():
        why = ask()
        torch.cuda.synchronize()  # an illegal access is told here, not in the next case
        yield name, {"ok": why is None, "note": why or ""}


def fused(run: Run) -> Rows:
    """Our nodes, liger and torch.compile, full and LoRA: as far from float32 as without them."""
    device()
    off = ["--model.fused", "false", "--model.liger", "false"]
    options = {"fused": ["--model.fused", "true"], "liger": ["--model.liger", "true"],
               "compile": ["--train.compile", "true"]}  # fmt: skip
    B = 6 if run.dry else 48
    for shape in [flops.TINY_QWEN3] if run.dry else [SMALL_XLMR, SMALL_QWEN3]:
        path = models.write_model(shape, run.folder / shape.name, "bf16")
        for mode in (["--lora.rank", "0"], ["--lora.rank", "16"]):
            more = ["--objective.name", "mipic", *mode]
            _, truth = one_step(built(path, [*more, "--model.attn", "sdpa"], "fp32", B))
            base = apart(one_step(built(path, [*more, *off], run.half, B))[1], truth)
            yield (" ".join([shape.name, "plain", *mode]), {"ok": base < 6e-2, "gradient": base})
            for name, own in [] if run.dry else options.items():
                if name != "fused" and shape is SMALL_XLMR or (name == "compile" and "16" in mode):
                    continue  # liger has nothing for it; compiling takes long
                gap = apart(one_step(built(path, [*more, *own], run.half, B))[1], truth)
                yield (
                    " ".join([shape.name, name, *mode]),
                    {"ok": gap < 1.5 * base + 1e-3, "gradient": gap, "without": base},
                )


def losses(run: Run) -> Rows:
    """InfoNCE over more candidates than a tile holds, SIA at Qwen3's width, against float64."""
    from benchmarks import sia
    from mipic_llm.losses.infonce import mrl_per_dim

    here = device()
    B, N, D, dims = (8, 40, 32, (4, 32)) if run.dry else (512, 40_000, 1024, (16, 256, 1024))
    torch.manual_seed(0)
    target_B = torch.randint(0, N, (B,), device=here)
    q_BD, c_ND = torch.randn(B, D, device=here), torch.randn(N, D, device=here)

    def naive(q_BD: Tensor, c_ND: Tensor) -> Tensor:
        cosines = [torch.nn.functional.normalize(q_BD[:, :d], dim=1)
                   @ torch.nn.functional.normalize(c_ND[:, :d], dim=1).T for d in dims]  # fmt: skip
        return torch.stack([torch.nn.functional.cross_entropy(z / 0.05, target_B) for z in cosines])

    def ours(q_BD: Tensor, c_ND: Tensor) -> Tensor:
        return mrl_per_dim(q_BD, c_ND, target_B=target_B, dims=dims, tau=0.05)

    def gradients(loss: Any, dtype: torch.dtype) -> tuple[Tensor, Gradients]:
        leaves = [x.to(dtype).requires_grad_() for x in (q_BD, c_ND)]
        value = loss(*leaves)
        value.sum().backward()
        return value.detach().double(), {n: x.grad for n, x in zip("qc", leaves, strict=True)}

    (want, slope), (got, mine) = gradients(naive, torch.float64), gradients(ours, torch.float32)
    gap = float(((got - want) / want).abs().max())
    yield f"InfoNCE {B} x {N}", {"ok": gap < 1e-4 and apart(mine, slope) < 1e-4, "loss": gap,
                                 "gradient": apart(mine, slope)}  # fmt: skip
    for row in sia.run(harness.Options(quick=run.dry, runs=4)):
        yield (
            f"sia {row['case']} {row['variant']}",
            {k: row[k] for k in ("median_ms", "ratio", "peak_mib") if k in row},
        )
