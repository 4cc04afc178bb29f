"""mipic plan --recipe qwen3-0.6b --ranks 8 --gpu h200: will it fit, and how fast will it be?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from mipic_llm.config.check import need
from mipic_llm.config.read import load_config
from mipic_llm.config.schema import Config, opt
from mipic_llm.plan.advise import Setting, advise, lowest_that_fits
from mipic_llm.plan.formulas import flops_per_token
from mipic_llm.plan.predict import GIB, Machine, load_of, work_of
from mipic_llm.plan.shapes import find_shape
from mipic_llm.plan.show import record, table
from mipic_llm.plan.zero import stages

# Reachable bf16 TFLOP/s, GiB, TB/s. The H200 was measured (PERFORMANCE.md: 790 of 989); the others
# are the vendors' dense figures times the same 0.8, and the memory that is left to programs.
GPUS = {
    "h200": (790, 139.0, 4.3), "h100": (790, 79.0, 3.0), "b200": (1800, 178.0, 7.2),
    "a100": (250, 79.0, 1.8), "a100-40": (250, 39.0, 1.4), "l40s": (290, 44.0, 0.78),
    "l4": (97, 22.0, 0.27), "a10": (100, 22.0, 0.54), "4090": (132, 23.5, 0.9),
}  # fmt: skip
RANKS = [2**i for i in range(11)]
ABOUT = (
    "Predict memory, tokens/s and traffic of a training run, on paper, for every ZeRO stage: the "
    "flags of training, and these."
)


@dataclass
class Flags:
    ranks: int = opt(8, "GPUs, 1 to 1024")
    gpu: str = opt("h200", "kind of GPU", tuple(GPUS))
    fabric_gbps: float = opt(400.0, "what one GPU sends to the others, GB/s: NVLink about 400, "
                             "one 400 Gbit/s card per GPU 40")  # fmt: skip
    mean_tokens: float | None = opt(None, "mean tokens of a text, without padding; None = half of "
                                    "data.max_length, 64 at most")  # fmt: skip
    mfu: float = opt(0.55, "share of the GPU's reachable peak that compute-bound steps reach")
    tflops: float | None = opt(None, "reachable TFLOP/s of one GPU; None = by --gpu")
    memory_gib: float | None = opt(None, "memory of one GPU, GiB; None = by --gpu")
    sweep: bool = opt(False, "1, 2, 4 .. 1024 ranks, each at its lowest stage that fits (with "
                      "--ds_config: at that stage)")  # fmt: skip
    json: bool = opt(False, "print one JSON object instead of tables")


def check(flags: Flags, config: Config) -> None:
    """Refuse numbers that mean nothing. Raises UserError."""
    need(1 <= flags.ranks <= 1024, f"--ranks is {flags.ranks}; give 1 to 1024")
    need(flags.gpu in GPUS, f"--gpu is {flags.gpu}; give one of: {', '.join(GPUS)}")
    need(flags.fabric_gbps > 0, f"--fabric_gbps is {flags.fabric_gbps}; give GB/s above 0")
    need(0 < flags.mfu <= 1, f"--mfu is {flags.mfu}; it must be in (0, 1]")
    for name in ("tflops", "memory_gib"):
        value = getattr(flags, name)
        need(value is None or value > 0, f"--{name} is {value}; it must be above 0")
    longest = config.data.max_length
    tokens = flags.mean_tokens
    need(
        tokens is None or 1 <= tokens <= longest,
        f"--mean_tokens is {tokens}; it must be in 1 .. data.max_length {longest}",
    )


def setting_of(config: Config, flags: Flags) -> tuple[Config, Setting, str]:
    """-> (resolved config, what is predicted, where the shape is from)."""
    shape, origin = find_shape(
        config.model.name, config.model.revision, config.model.trust_remote_code
    )
    config, work = work_of(config, shape)
    tokens = flags.mean_tokens or min(64.0, config.data.max_length / 2)
    tflops, memory, bandwidth = GPUS[flags.gpu]
    machine = Machine(
        flags.gpu, 1e12 * (flags.tflops or tflops), GIB * (flags.memory_gib or memory),
        1e12 * bandwidth,
    )  # fmt: skip
    load = load_of(config, tokens)
    work = work._replace(cached=load.passes > 1)
    return config, Setting(work, load, machine, 1e9 * flags.fabric_gbps, flags.mfu), origin


def heading(config: Config, flags: Flags, setting: Setting, origin: str) -> list[str]:
    """What the tables are about, and what they assume."""
    w, load, machine = setting.work, setting.load, setting.machine
    mode = f"LoRA {w.lora}" if w.lora else "full fine-tuning"
    passes = f"{load.passes} passes of {load.chunk}" if load.passes > 1 else "one pass"
    return [
        f"{config.model.name} (shape: {origin}): {w.parameters / 1e6:,.1f} M parameters with "
        f"heads, {w.trainable / 1e6:,.2f} M trained, {mode}, {config.train.precision}"
        f"{', checkpointing' if w.checkpointing else ''}; "
        f"{flops_per_token(w, load.tokens) / 1e9:.2f} GFLOP per token",
        f"per rank and step: {load.pairs} anchors x {load.columns} texts of {load.tokens:g} tokens "
        f"(at most {load.longest}) in {passes}; {machine.name}: {machine.flops / 1e12:g} TFLOP/s x "
        f"{flags.mfu:g}, {machine.memory / GIB:g} GiB; fabric {flags.fabric_gbps:g} GB/s per rank",
    ]


def sweep(config: Config, setting: Setting) -> list[Any]:
    """One row per number of ranks: the file's stage, else the lowest that fits (else ZeRO-3)."""
    zeros, chosen = stages(config.ds_config, setting.work.shape.width)
    rows = []
    for ranks in RANKS:
        row = None
        if chosen is None:
            row = lowest_that_fits(setting, zeros, ranks)
        rows.append(row or setting.row(zeros[3 if chosen is None else chosen], ranks))
    return rows


def main(argv: list[str]) -> int:
    config = load_config(argv, extra=Flags, about=ABOUT)
    flags = config.extra
    check(flags, config)
    config, setting, origin = setting_of(config, flags)
    zeros, chosen = stages(config.ds_config, setting.work.shape.width)
    rows = sweep(config, setting) if flags.sweep else [setting.row(z, flags.ranks) for z in zeros]
    lines, best = advise(setting, zeros, flags.ranks)
    if flags.json:
        print(json.dumps({
            "model": config.model.name, "shape": setting.work.shape._asdict(), "source": origin,
            "parameters": setting.work.parameters, "trainable": setting.work.trainable,
            "flops_per_token": flops_per_token(setting.work, setting.load.tokens),
            "load": setting.load._asdict(), "machine": setting.machine._asdict(),
            "rows": [record(row) for row in rows], "advice": lines,
            "recommended": None if best is None else record(best),
        }, indent=2))  # fmt: skip
        return 0
    print("\n".join([*heading(config, flags, setting, origin), "", table(rows, chosen), ""]))
    if flags.sweep:
        print("per GPU: " + "  ".join(f"{r.ranks}: {r.speed / r.ranks:,.0f}" for r in rows))
    else:
        print("\n".join(lines))
    print(
        "GiB per rank, 1 GiB for libraries included; MB sent by a rank per step; not modelled: "
        "latency of collectives, padding, data loading (NOTES.md has the measured errors)"
    )
    return 0
