"""What a configuration makes of a step: its heads, its texts, the layers that are gathered."""

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
from mipic_llm.plan.formulas import Work
from mipic_llm.plan.shapes import Shape


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


def works_of(config: Config, shape: Shape) -> list[tuple[Config, Work]]:
    """Of each stage of a run (one without stages): its resolved configuration, and what that means
    for memory and FLOPs. Heads of all stages are there from the start."""
    size = {"width": shape.width, "n_layers": shape.layers}
    whole = resolve(config, **size, max_positions=512, bf16=True)
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
            bool(t.chunk_size or t.chunk_tokens), 2 if t.precision == "bf16" else 4,
            tokens_layers=(sia and (c.sia.layers_per_step or sia)) + mic,
            dims=tuple(trained_dims(c)), inner_norm=c.model.inner_norm == "final",
            dora=c.lora.use_dora, mic_layers=mic, nodes=_in_nodes(c, shape),
            four_bits=c.model.quantization != "none",
        ))  # fmt: skip
    return list(zip(configs, works, strict=True))


def _in_nodes(config: Config, shape: Shape) -> bool:
    """Whether layers will run in the nodes of model/blocks, on a GPU, below ZeRO-3: what its
    `obstacle` asks of a model, here of shapes and options."""
    m, lora = config.model, config.lora
    off = m.fused == "false" or m.liger == "true" or m.quantization != "none" or lora.use_dora
    qwen3 = shape.decoder and shape.qk_norm > 0 and not shape.qkv_bias
    fits = config.train.precision == "bf16" and not config.train.compile and not lora.dropout
    return qwen3 and fits and not off


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


def load_of(config: Config, tokens: float, width: int, depth: int) -> Load:
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
    return Load(
        texts, tokens, longest=config.data.max_length, chunk=chunk, pairs=t.batch_size,
        columns=columns, links=links, relation=relation,
        memory=config.sia.memory or 0 if relation else 0,
        gathered=len(inner_layers(config, depth)), taught=width if taught else 0,
        maps=len(mapped(config, width)), square="mic_texts" in terms_of(config),
    )  # fmt: skip
