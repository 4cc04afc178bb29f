"""mipic plan --recipe qwen3-0.6b --ranks 8 --gpu h200: will it fit, and how fast will it be?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

from mipic_llm.config import Config, Section, load_config, need, opt
from mipic_llm.plan.advise import Setting, advise, stages, sweep
from mipic_llm.plan.formulas import Zero, flops_per_token
from mipic_llm.plan.loads import load_of, works_of
from mipic_llm.plan.predict import GIB, Machine, Row
from mipic_llm.plan.shapes import find_shape
from mipic_llm.plan.show import heading, record, table

# Reachable bf16 TFLOP/s, GiB, TB/s. The H200 was measured (790 of 989); the others are the vendors'
# dense figures times the same 0.8, and the memory that is left to programs.
GPUS = {
    "h200": (790, 139.0, 4.3), "h100": (790, 79.0, 3.0), "b200": (1800, 178.0, 7.2),
    "a100": (250, 79.0, 1.8), "a100-40": (250, 39.0, 1.4), "l40s": (290, 44.0, 0.78),
    "l4": (97, 22.0, 0.27), "a10": (100, 22.0, 0.54), "4090": (132, 23.5, 0.9),
}  # fmt: skip
NOT_MODELLED = (
    "GiB per rank, 1 GiB for libraries included; MB sent by a rank per step; not modelled: latency "
    "of collectives, padding, data loading (measured errors: docs/notes/decisions.md)"
)
ABOUT = """Predict memory, speed and traffic of a training at every ZeRO stage, without running it.

  mipic plan --recipe qwen3-0.6b --ranks 8 --gpu h200 [flags of a training]
  mipic plan --recipe qwen3-8b --sweep                        1 to 1,024 GPUs"""


USES = ("recipe", "ds_config", "stages", "model", "lora", "objective", "sia", "pic", "ese", "mic",
        "teacher", "data.max_length",
        "data.negatives", "train.batch_size", "train.chunk_size", "train.chunk_tokens",
        "train.precision", "train.gradient_checkpointing", "train.optimizer")  # fmt: skip


class Flags(Section):
    ranks: int = opt(8, "GPUs, 1 to 1024")
    gpu: Literal[*GPUS] = opt("h200", "kind of GPU")  # type: ignore[valid-type]
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
    need(flags.fabric_gbps > 0, f"--fabric_gbps is {flags.fabric_gbps}; give GB/s above 0")
    need(0 < flags.mfu <= 1, f"--mfu is {flags.mfu}; it must be in (0, 1]")
    for name in ("tflops", "memory_gib"):
        value = getattr(flags, name)
        need(value is None or value > 0, f"--{name} is {value}; it must be above 0")
    longest, tokens = config.data.max_length, flags.mean_tokens
    need(
        tokens is None or 1 <= tokens <= longest,
        f"--mean_tokens is {tokens}; it must be in 1 .. data.max_length {longest}",
    )


def stages_of(
    config: Config, settings: list[Setting], zeros: list[Zero], ranks: int, best: Row | None
) -> list[dict[str, float]]:
    """Steps, seconds of a step and GiB of each stage of a run, at the recommended ZeRO stage."""
    found = []
    for i, (stage, setting) in enumerate(zip(config.stages, settings, strict=True)):
        if best is not None and best.chunk:
            setting = setting.chunked(min(best.chunk, setting.load.texts))
        if best is not None and best.checkpointing:
            setting = setting.recomputing()
        row = setting.row(zeros[best.stage if best is not None else 3], ranks)
        found.append({"stage": i + 1, "steps": stage.steps, "seconds": row.step,
                      "gib": row.total / GIB})  # fmt: skip
    return found


def main(argv: list[str]) -> int:
    config = load_config(argv, extra=Flags, about=ABOUT, uses=USES)
    flags: Flags = config.extra
    m = config.model
    shape, origin = find_shape(m.name, m.revision, m.trust_remote_code)
    works = works_of(config, shape)
    check(flags, works[0][0])
    tflops, memory, bandwidth = GPUS[flags.gpu]
    machine = Machine(flags.gpu, 1e12 * (flags.tflops or tflops),
                      GIB * (flags.memory_gib or memory), 1e12 * bandwidth)  # fmt: skip
    zeros, chosen = stages(config.ds_config, shape.width)
    settings = []
    for c, work in works:
        tokens = min(flags.mean_tokens or 64.0, c.data.max_length / (1 if flags.mean_tokens else 2))
        load = load_of(c, tokens, shape.width, shape.layers)
        work = work._replace(cached=load.passes > 1)
        settings.append(Setting(work, load, machine, 1e9 * flags.fabric_gbps, flags.mfu))
    # What needs most decides; at one stage of ZeRO all stages of a run are alike in this.
    hardest = max(range(len(settings)), key=lambda i: settings[i].row(zeros[3], flags.ranks).total)
    (config, work), setting = works[hardest], settings[hardest]
    load = setting.load
    advice, best = advise(setting, zeros, flags.ranks)
    if flags.sweep:
        rows = sweep(setting, zeros, chosen)
        lines = ["per GPU: " + "  ".join(f"{r.ranks}: {r.speed / r.ranks:,.0f}" for r in rows)]
    else:
        rows, lines = [setting.row(zero, flags.ranks) for zero in zeros], advice
    timed = stages_of(config, settings, zeros, flags.ranks, best) if config.stages else []
    if flags.json:
        print(json.dumps({
            "model": m.name, "shape": shape._asdict(), "source": origin,
            "parameters": work.parameters, "trainable": work.trainable,
            "flops_per_token": flops_per_token(work, load.tokens),
            "load": load._asdict(), "machine": machine._asdict(),
            "rows": [record(row) for row in rows], "advice": advice, "stages": timed,
            "recommended": None if best is None else record(best),
        }, indent=2))  # fmt: skip
        return 0
    told = [*heading(config, setting, origin), "", table(rows, chosen), ""]
    told += [*stage_lines(timed, hardest + 1), *lines, NOT_MODELLED]
    print("\n".join([*told, *notes(config, any(c.objective.plugins for c, _ in works))]))
    return 0


def stage_lines(timed: Sequence[dict[str, float]], hardest: int) -> list[str]:
    """The steps of each stage of a run, and of all. hardest: the stage that needs most."""
    if not timed:
        return []
    hours = sum(s["steps"] * s["seconds"] for s in timed) / 3600
    each = [
        f"stage {s['stage']} of {len(timed)}: {s['steps']:,} steps of {1e3 * s['seconds']:.1f} ms, "
        f"{s['gib']:.2f} GiB" for s in timed
    ]  # fmt: skip
    return [f"the tables are of stage {hardest}, which needs most", *each,
            f"the steps of all stages: {hours:.2f} h", ""]  # fmt: skip


def notes(config: Config, plugins: bool) -> list[str]:
    """What is counted otherwise than it is, or not at all."""
    found = []
    if config.teacher.name != "none":
        found.append("note: a teacher is counted as wide as the student; its vectors are made "
                     "before the first step, which is not counted, and it is gone by then"
                     )  # fmt: skip
    if plugins:
        found.append("note: what terms of plug-ins need is not counted")
    if config.train.optimizer != "adamw":
        found.append(f"note: the optimizer is counted as adamw; the state of "
                     f"{config.train.optimizer} is smaller")  # fmt: skip
    return found
