"""A prediction per ZeRO stage: memory of a rank by part, time of a step and what bounds it."""

from __future__ import annotations

from typing import NamedTuple

from mipic_llm.config import (
    OBJECTIVES,
    Config,
    chain_hidden,
    narrow_dims,
    parse_ladder,
    resolve,
    trained_dims,
)
from mipic_llm.plan import formulas
from mipic_llm.plan.formulas import States, Wire, Work, Zero
from mipic_llm.plan.shapes import Shape

GIB = 2**30
WORKSPACE = 1.0 * GIB  # of a CUDA context, NCCL and libraries, beside what tensors take
RELATION_TILE = 512 * 2**20  # of the relation between texts, at most (losses/relation.py)
# Host time of one pass over one layer with its share of the update, s: 282 ms a step of the 28
# layers of Qwen3-0.6B under LoRA, measured on an H200's host (docs/notes/log.md, 2026-11-26;
# ZeRO-1, before the norms of gradients became one). Operations a layer: LoRA 210, full 163.
HOST_LORA = 0.282 / 28
HOST_FULL = HOST_LORA * 163 / 210


class Machine(NamedTuple):
    """One accelerator. flops: reachable peak per second; memory: bytes; bandwidth: bytes/s."""

    name: str
    flops: float
    memory: float
    bandwidth: float


class Load(NamedTuple):
    """One step of one rank, in texts and tokens.

    texts: of the step; tokens: mean per text; longest: most tokens of a text (the largest chunk
    may hold such texts only); chunk: texts per pass (0 = one pass); pairs, columns: anchors, and
    texts per anchor; links: chain links whose deeper side is gathered on its own. relation:
    whether there is a relation between texts, SIA's or a teacher's; memory: the readouts it keeps.
    gathered: layers beside the last one whose readouts are gathered with gradients; taught:
    channels of the teacher's vectors, and maps: heads onto them; square: whether all texts of all
    ranks are compared at once (MIC).
    """

    texts: int
    tokens: float
    longest: int
    chunk: int
    pairs: int
    columns: int
    links: int
    relation: bool = False
    memory: int = 0
    gathered: int = 0
    taught: int = 0
    maps: int = 0
    square: bool = False

    @property
    def passes(self) -> int:
        """m: passes of a step."""
        return -(-self.texts // self.chunk) if self.chunk else 1

    @property
    def peak_tokens(self) -> float:
        """Tokens of the largest pass: of a chunk all may be of full length."""
        return self.texts * self.tokens if self.passes == 1 else self.chunk * self.longest


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


def work_of(config: Config, shape: Shape, *, kernel: str = formulas.FUSED) -> tuple[Config, Work]:
    """-> (resolved config, what it means for memory and FLOPs)."""
    return works_of(config, shape, kernel=kernel)[0]


def works_of(
    config: Config, shape: Shape, *, kernel: str = formulas.FUSED
) -> list[tuple[Config, Work]]:
    """The same of each stage of a run. Heads of all of them are there from the start."""
    size = {"width": shape.width, "n_layers": shape.layers}
    whole = resolve(config, **size, max_positions=512, cuda=True)
    configs = [resolve(one, **size) for one in whole.of_stages()]
    heads = sum(n for _, n in {head for one in configs for head in heads_of(one, shape.width)})
    linears = shape.lora_linears(whole.lora.target_modules) if whole.lora.rank else {}
    works = []
    for c in configs:
        t, terms = c.train, terms_of(c)
        sia = len(c.sia.layers or []) if "sia" in terms else 0
        mic = len(c.mic.layers or []) if "mic_tokens" in terms else 0
        works.append(Work(
            shape, c.lora.rank, tuple(linears.values()), heads, t.gradient_checkpointing,
            bool(t.chunk_size or t.chunk_tokens), 2 if t.precision == "bf16" else 4, kernel=kernel,
            tokens_layers=(sia and (c.sia.layers_per_step or sia)) + mic,
            dims=tuple(trained_dims(c)), inner_norm=c.model.inner_norm == "final",
            dora=c.lora.use_dora, mic_layers=mic,
        ))  # fmt: skip
    return list(zip(configs, works, strict=True))


def terms_of(config: Config) -> set[str]:
    """The objective's terms that a resolved configuration leaves on."""
    sia, terms = config.sia, set(OBJECTIVES[config.objective.name].terms)
    off = {"sia": not (sia.relation or sia.geometry), "pic": not config.pic.enabled}
    return terms - {term for term, is_off in off.items() if is_off}


def heads_of(config: Config, width: int) -> list[tuple[tuple, int]]:
    """What tells heads apart, and their parameters: of P (per SIA layer and truncated prefix, if
    trained), phi (per link), and the maps onto a teacher's vectors; config resolved."""
    terms, found = terms_of(config), []
    if "sia" in terms and config.sia.lift_init != "fixed":
        layers, dims = len(config.sia.layers or []), tuple(trained_dims(config)[:-1])
        found.append((("lifts", layers, dims), layers * sum(dims) * width))
    if "pic" in terms:
        ladder = parse_ladder(config.pic.ladder or [])
        if config.pic.widths == "nested":
            ladder = tuple(point._replace(dim=width) for point in ladder)
        links = [(low.dim, chain_hidden(low.dim, high.dim, config.pic.head or "mlp"), high.dim)
                 for low, high in zip(ladder, ladder[1:], strict=False)]  # fmt: skip
        size = sum(a * hidden + hidden + hidden * b + b for a, hidden, b in links)
        found.append((("phis", *links), size))
    if maps := mapped(config, width):
        found.append((("maps", *maps), sum(maps) * width))
    return found


def head_parameters(config: Config, width: int) -> int:
    """Of all heads."""
    return sum(n for _, n in heads_of(config, width))


def mapped(config: Config, width: int) -> list[int]:
    """Prefixes under `teacher.vector` that have a map; a teacher is taken to be as wide as the
    student."""
    if config.teacher.name == "none" or not config.teacher.vector:
        return []
    return [d for d in config.teacher.dims or config.objective.dims or [] if d != width]


def inner_layers(config: Config, depth: int) -> set[int]:
    """Layers below the last whose readouts all ranks gather with gradients; config resolved."""
    terms, t = terms_of(config), config.teacher
    ladder = {point.layer for point in parse_ladder(config.pic.ladder or [])}
    found = set[int]()
    if "ese" in terms:
        found |= {*range(1, depth)}
    if "2dmse" in terms:  # a random one in each step
        found |= {1}
    if "3dml" in terms:
        found |= {2**k for k in range(depth.bit_length()) if 2**k < depth}
    if "starbucks" in terms or (t.name != "none" and t.relation and t.layers == "ladder"):
        found |= ladder
    if "mic_texts" in terms:
        found |= {*(config.mic.layers or [])}
    return found - {depth}


def load_of(config: Config, tokens: float, width: int = 0, depth: int = 0) -> Load:
    """The step that a resolved configuration makes of texts of so many tokens in the mean, for a
    backbone of so many channels and layers."""
    t, given = config.train, config.own_sources
    columns = 2 + max((config.data.negatives, *(s.negatives or 0 for s in given)))
    texts = t.batch_size * columns
    chunk = min(t.chunk_size, texts)
    if t.chunk_tokens:
        chunk = min(texts, max(1, t.chunk_tokens // config.data.max_length))
    links = 0
    if "pic" in terms_of(config) and config.pic.target != "last":
        links = config.pic.links_per_step or max(0, len(config.pic.ladder or []) - 1)
    taught = config.teacher.name != "none"
    relation = bool(narrow_dims(config)) or (taught and config.teacher.relation > 0)
    return Load(texts, tokens, config.data.max_length, chunk, t.batch_size, columns, links,
                relation, config.sia.memory or 0 if relation else 0,
                len(inner_layers(config, depth)), width if taught else 0,
                len(mapped(config, width)), "mic_texts" in terms_of(config))  # fmt: skip


def predict(
    work: Work, load: Load, zero: Zero, ranks: int, machine: Machine, fabric: float, mfu: float
) -> Row:
    """One stage. fabric: bytes/s of a rank; mfu: the share of peak that the model's FLOPs reach.

    Compute and the weights' traffic overlap (overlap_comm), so the longer counts; readouts, and
    what ZeRO-1 and 2 gather after the update, do not. Latency of collectives is not modelled.
    """
    work = work._replace(cached=load.passes > 1)
    per_token = formulas.flops_per_token(work, load.tokens)
    per_token += (3 + work.cached) * formulas.token_flops(work, load.tokens)
    sent = formulas.wire(work, zero, ranks, load.passes, load.pairs, load.columns, load.links,
                         load.gathered, load.taught)  # fmt: skip
    host = (HOST_LORA if work.lora else HOST_FULL) * work.shape.layers * load.passes
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
        zero.stage, ranks, load.chunk, work.checkpointing, formulas.states(work, zero, ranks),
        activations(work, load), readouts(work, load, ranks), sent, times["compute"],
        times["optimizer"], times["launches"], times["fabric"], step,
        ranks * load.texts * load.tokens / step, max(times, key=lambda name: times[name]),
        machine.memory,
    )  # fmt: skip


def activations(work: Work, load: Load) -> float:
    """Of the largest pass, SIA's included."""
    again = formulas.layer_bytes(work) if work.checkpointing else 0.0
    kept = formulas.activation_bytes(work) + formulas.captured_bytes(work)
    return load.peak_tokens * (kept + again)


def readouts(work: Work, load: Load, ranks: int) -> float:
    """Readouts of all layers that are read, in fp32 with their gradients; candidates of all ranks
    and the similarities with them (rows tiled from 16,384 candidates on); those of the relation
    between texts (5 matrices of a tile of rows), and what it keeps; a teacher's vectors and the
    prefixes in their space; MIC's comparison of all texts (3 matrices)."""
    width, layers = work.shape.width, max(1, work.tokens_layers, 1 + load.gathered)
    own = 8 * load.texts * width * layers
    candidates = ranks * load.pairs * (load.columns - 1)
    gathered = 8 * ranks * load.texts * width * (1 + load.links + load.gathered)
    taught = 4 * load.taught * (ranks * load.texts + load.memory + 2 * load.maps * load.texts)
    square = 3 * 4 * (ranks * load.texts) ** 2 if load.square else 0
    rows = load.pairs if candidates < 16384 else min(load.pairs, max(1, 2**24 // candidates))
    seen = ranks * load.texts + load.memory
    relation = min(RELATION_TILE, 5 * 4 * load.texts * seen) if load.relation else 0
    matrices = 3 * 4 * rows * candidates + relation + square
    return own + gathered + taught + matrices + 4 * load.memory * width
