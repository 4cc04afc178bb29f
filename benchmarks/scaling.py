"""Suite `scaling`: how a MIPIC step grows with length, batch, dims, SIA layers and ranks.

One thing varies at a time around a base; `ratio` is ms per step over the base's. Ranks are real
DeepSpeed processes over gloo (nccl on GPUs) under ZeRO-1, the batch per rank fixed.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks import data, flops, harness, models, results
from benchmarks.harness import Options
from benchmarks.results import Row
from mipic_llm.config import derive_dims
from mipic_llm.runtime import ranks as distributed


class Point(NamedTuple):
    """One measured configuration; dims and layers 0 = all."""

    shape: str = "6x384"
    B: int = 8
    T: int = 32
    dims: int = 0
    layers: int = 0


def axes(base: Point, quick: bool) -> dict[str, list[Point]]:
    few = 2 if quick else 9

    def vary(name: str, values: tuple[int, ...]) -> list[Point]:
        return [base._replace(**{name: v}) for v in values[:few]]

    shape = flops.SHAPES[base.shape]
    depth, dims = shape.layers, len(derive_dims(shape.width))
    return {
        "L": vary("T", (base.T // 2, 2 * base.T, 4 * base.T)),
        "B": vary("B", (base.B // 2, 2 * base.B, 4 * base.B)),
        "dims": vary("dims", tuple(n for n in (2, 4) if n < dims)),
        "layers": vary("layers", (1, depth // 2)),
    }


def measure(
    point: list[Any], runs: int, precision: str = "fp32", ds_config: str | None = None,
    lora_rank: int = 0, join: bool = True,
) -> dict[str, float]:  # fmt: skip
    """Time of a step of this point, of rank 0's process."""
    from mipic_llm.runtime.start import start

    if join:
        start()
    p = Point(*point)
    shape = flops.SHAPES[p.shape]
    more: list[str] = []
    if p.dims:
        dims = derive_dims(shape.width)
        more += ["--objective.dims", *map(str, [*dims[: p.dims - 1], dims[-1]])]
    layers = list(range(1, shape.layers + 1))
    more += ["--sia.layers", *map(str, layers[-p.layers :])]
    arguments = models.flags(terms="mipic", precision=precision, B=p.B, lora_rank=lora_rank)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(distributed.from_first(folder))  # transformers saves on the first rank only
        if distributed.rank() == 0:
            models.write_model(shape, path, precision)
        distributed.barrier()
        made = models.trainee(str(path), [*arguments, *more], ds_config)
        distributed.barrier()  # the folder goes
    if harness.on_gpu():
        torch.cuda.reset_peak_memory_stats()
    tokenizer = made.source.tokenizer
    batch = data.step_batch(data.full(p.B, p.T), shape.vocab, side=tokenizer.padding_side,
                            pad=tokenizer.pad_token_id)  # fmt: skip
    step = models.Stepper(made, [batch])
    timing = harness.summary(harness.paired({"": step}, 2 if runs > 2 else 1, runs)[""])
    return {"ms": timing.median, "p10": timing.p10, "p90": timing.p90, "wall": timing.wall,
            "peak": harness.peak_mib()}  # fmt: skip


def _row(axis: str, p: Point, got: dict[str, float], base_ms: float, suite: str, **more) -> Row:
    timing = harness.Timing(got["ms"], got["p10"], got["p90"], got["wall"])
    fields = {"ranks": 1, "zero_stage": 0, "mode": "full"} | more
    value = {"L": p.T, "B": p.B, "dims": p.dims or "all", "layers": p.layers or "all",
             "ranks": fields["ranks"], "base": ""}[axis]  # fmt: skip
    tokens = 2 * p.B * p.T * int(fields["ranks"])
    return results.row(
        suite, axis, f"{axis}={value}".rstrip("="), timing, model=p.shape, B=p.B,
        lengths=str(p.T), terms="mipic", tokens_per_s=1e3 * tokens / got["wall"]
        if fields["ranks"] != 1 else 1e3 * tokens / got["ms"],
        peak_mib=got["peak"], ratio=got["ms"] / base_ms, padding_share=0.0, **fields,
    )  # fmt: skip


def run(o: Options, suite: str = "scaling", base: Point | None = None, **more: Any) -> list[Row]:
    from mipic_llm.runtime.start import start

    start()
    base = base or (Point("tiny-bert", 4, 12) if o.quick else Point())
    runs = o.runs or (2 if o.quick else 10)
    how = {"mode": "lora" if more.get("lora_rank") else "full",
           "zero_stage": 1 if more.get("ds_config") else 0}  # fmt: skip
    first = measure(list(base), runs, join=False, **more)
    rows = [_row("base", base, first, first["ms"], suite, **how)]
    for axis, points in axes(base, o.quick).items():
        if o.case not in (None, axis):
            continue
        for p in points:
            got = measure(list(p), runs, join=False, **more)
            rows.append(_row(axis, p, got, first["ms"], suite, **how))
    if o.case in (None, "ranks") and not o.quick and not more:
        rows += _ranks(base, runs, o, suite)
    return rows


def _ranks(base: Point, runs: int, o: Options, suite: str) -> list[Row]:
    """1 and 2 processes through the deepspeed launcher, ZeRO-1."""
    launcher = shutil.which("deepspeed") or str(Path(sys.executable).with_name("deepspeed"))
    rows, one = [], 0.0
    for ranks in (1, 2):
        command = [sys.executable, launcher, "--num_accelerators", str(ranks)]
        got = harness.in_child("benchmarks.scaling:measure", command, point=list(base), runs=runs,
                               ds_config=str(harness.ROOT / "ds_configs" / "zero1.json"),
                               threads=o.threads)  # fmt: skip
        one = one or got["ms"]
        rows.append(_row("ranks", base, got, one, suite, ranks=ranks, zero_stage=1))
    return rows
