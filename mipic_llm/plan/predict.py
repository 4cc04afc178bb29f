"""A prediction per ZeRO stage: memory of a rank by part, time of a step and what bounds it."""

from __future__ import annotations

from typing import NamedTuple

from mipic_llm.plan import formulas
from mipic_llm.plan.formulas import States, Wire, Work, Zero
from mipic_llm.plan.loads import Load

GIB = 2**30
WORKSPACE = 1.0 * GIB  # of a CUDA context, NCCL and libraries, beside what tensors take
RELATION_TILE = 512 * 2**20  # of the relation between texts, at most (losses/relation.py)
# Host time of one pass over one layer with its share of the update, s, on an H200's host, ZeRO-1:
# compiled layers of Qwen3-0.6B under LoRA took 224 ms a step, those in two nodes each 181 (on a
# slower host 294; docs/notes/log.md, 2026-11-27). Operations a layer: LoRA 210, full 163.
HOST_LORA, HOST_NODES = 0.224 / 28, 0.181 / 28
FULL_OVER_LORA = 163 / 210


class Machine(NamedTuple):
    """One accelerator. flops: reachable peak per second; memory: bytes; bandwidth: bytes/s."""

    name: str
    flops: float
    memory: float
    bandwidth: float


class Row(NamedTuple):
    """What one stage needs and gives. Memory in bytes per rank, times in s per step, wire in bytes
    that a rank sends per step; speed in useful tokens/s over all ranks."""

    stage: int
    ranks: int
    chunk: int
    checkpointing: bool
    states: States
    activations: float
    readouts: float
    wire: Wire
    compute: float
    optimizer: float
    launches: float
    fabric: float
    step: float
    speed: float
    bound: str
    memory: float

    @property
    def total(self) -> float:
        """Bytes of a rank, with the workspace of the libraries."""
        return sum(self.states) + self.activations + self.readouts + WORKSPACE

    @property
    def fits(self) -> bool:
        """Whether that is within the machine's memory."""
        return self.total <= self.memory


def predict(
    work: Work, load: Load, zero: Zero, ranks: int, machine: Machine, fabric: float, mfu: float
) -> Row:
    """One stage. fabric: bytes/s of a rank; mfu: the share of peak that the model's FLOPs reach.

    Compute and the weights' traffic overlap (overlap_comm), so the longer counts; readouts, and
    what ZeRO-1 and 2 gather after the update, do not. Latency of collectives is not modelled.
    """
    work = work._replace(cached=load.passes > 1, nodes=work.nodes and zero.stage < 3)
    per_token = formulas.flops_per_token(work, load.tokens)
    per_token += (3 + work.cached) * formulas.token_flops(work, load.tokens)
    sent = formulas.wire(work, zero, ranks, load.passes, load.pairs, load.columns, load.links,
                         load.gathered, load.taught)  # fmt: skip
    host = (HOST_NODES if work.nodes else HOST_LORA) * (1 if work.lora else FULL_OVER_LORA)
    host *= work.shape.layers * load.passes
    share = 1 / ranks if zero.stage else 1
    gathered = sent.weights / (2 + zero.all_reduce)
    late = sent.readouts + (gathered if zero.stage in (1, 2) else 0)
    times = {
        "compute": load.texts * load.tokens * per_token / (mfu * machine.flops),
        "launches": host * (1 + (work.checkpointing + work.cached) / 3),
        "fabric": sum(sent) / fabric,
        "optimizer": 28 * work.trainable * share / machine.bandwidth,  # read, write 12 + gradient
    }
    busy = max(times["compute"], times["launches"], (sum(sent) - late) / fabric)
    step = busy + times["optimizer"] + late / fabric
    return Row(
        zero.stage, ranks, load.chunk, work.checkpointing,
        states=formulas.states(work, zero, ranks), activations=activations(work, load),
        readouts=readouts(work, load, ranks), wire=sent, **times, step=step,
        speed=ranks * load.texts * load.tokens / step,
        bound=max(times, key=lambda name: times[name]), memory=machine.memory,
    )  # fmt: skip


def activations(work: Work, load: Load) -> float:
    """Of the largest pass, SIA's included."""
    again = formulas.layer_bytes(work) if work.checkpointing else 0.0
    kept = formulas.activation_bytes(work) + formulas.captured_bytes(work)
    return load.peak_tokens * (kept + again)


def readouts(work: Work, load: Load, ranks: int) -> float:
    """Readouts of all layers that are read, in fp32 with their gradients; candidates of all ranks
    and the similarities with them (rows tiled from 16,384 candidates on); those of the relation
    between texts (4 matrices of a tile of rows), and what it keeps, twice; a teacher's vectors and
    the prefixes in their space; MIC's comparison of all texts (3 matrices)."""
    width, layers = work.shape.width, max(1, work.tokens_layers, 1 + load.gathered)
    own = 8 * load.texts * width * layers
    candidates = ranks * load.pairs * (load.columns - 1)
    gathered = 8 * ranks * load.texts * width * (1 + load.links + load.gathered)
    taught = 4 * load.taught * (ranks * load.texts + load.memory + 2 * load.maps * load.texts)
    square = 3 * 4 * (ranks * load.texts) ** 2 if load.square else 0
    rows = load.pairs if candidates < 16384 else min(load.pairs, max(1, 2**24 // candidates))
    seen = ranks * load.texts + load.memory
    relation = min(RELATION_TILE, 4 * 4 * load.texts * seen) if load.relation else 0
    matrices = 3 * 4 * rows * candidates + relation + square
    return own + gathered + taught + matrices + 8 * load.memory * width
