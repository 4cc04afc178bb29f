"""Backbones with random weights, loaded and trained through the product's own path.

A model directory is written first, so that loading, the attention kernel (`model.attn auto`), LoRA
and heads are those of a training run; its tokenizer knows words w5, w6 .. and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    XLMRobertaConfig,
)
from transformers import BertConfig as Bert

from benchmarks.flops import SHAPES, Shape
from mipic_llm.config import Config, load_config
from mipic_llm.data.batch import StepBatch
from mipic_llm.model.directory import open_source
from mipic_llm.model.source import Source
from mipic_llm.training.setup import build_module, resolve_for

POSITIONS = 2048  # longest sequence of a random model


class Trainee(NamedTuple):
    """A runner ready to step; `source` and `config` as a training run would have them."""

    runner: object
    config: Config
    source: Source


def hf_config(shape: Shape) -> AutoConfig:
    common = dict(vocab_size=shape.vocab, hidden_size=shape.width, num_hidden_layers=shape.layers,
                  num_attention_heads=shape.heads, intermediate_size=shape.ffn)  # fmt: skip
    if shape.kind == "qwen3":
        return Qwen3Config(**common, num_key_value_heads=shape.kv_heads, head_dim=shape.head_dim,
                           max_position_embeddings=POSITIONS, pad_token_id=0, eos_token_id=1,
                           bos_token_id=2)  # fmt: skip
    if shape.kind == "xlm-roberta":
        return XLMRobertaConfig(**common, max_position_embeddings=POSITIONS + 2,
                                type_vocab_size=1, pad_token_id=1)  # fmt: skip
    return Bert(**common, max_position_embeddings=POSITIONS)


def write_model(shape: Shape, folder: Path, precision: str = "fp32") -> Path:
    """Random weights of this shape as a model directory (kept when it is there already)."""
    if (folder / "tokenizer.json").exists():
        return folder
    torch.manual_seed(0)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            model = AutoModel.from_config(hf_config(shape))
    finally:
        torch.set_default_dtype(before)
    model.save_pretrained(folder)
    names = ["[PAD]", "[EOS]", "[UNK]"]
    if shape.kind == "xlm-roberta":
        names = ["[EOS]", "[PAD]", "[UNK]"]  # its pads have id 1
    words = {**{n: i for i, n in enumerate(names)}, **{f"w{i}": i for i in range(5, shape.vocab)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", eos_token="[EOS]", unk_token="[UNK]",
        model_max_length=POSITIONS, padding_side="left" if shape.causal else "right",
    ).save_pretrained(folder)  # fmt: skip
    return folder


def flags(
    *, terms: str, precision: str, B: int, lora_rank: int = 0, more: Sequence[str] = ()
) -> list[str]:
    """The command line of a training run with the defaults of this objective."""
    return ["--objective.name", terms,
            "--lora.rank", str(lora_rank), "--pic.ladder", "none",
            "--objective.dims", "none", "--sia.layers", "none", "--sia.ratios", "none",
            "--train.precision", precision, "--train.batch_size", str(B), *more]  # fmt: skip


def trainee(name: str, arguments: Sequence[str], ds_config: str | None = None) -> Trainee:
    """A StepRunner on the model directory (or quickstart), built as `launch/train.py` builds it."""
    from mipic_llm.runtime import ranks as dist
    from mipic_llm.runtime.ds_config import load_ds_config
    from mipic_llm.runtime.engine import Engine
    from mipic_llm.training.step import StepRunner

    config = load_config([*arguments, "--model.name", name])
    source = open_source(config.model)
    config = resolve_for(config, source)
    ds = load_ds_config(ds_config, config, world_size=dist.world_size(),
                        hidden_size=source.config.hidden_size)  # fmt: skip
    module = build_module(config, source, ds, False)
    engine = Engine(module, ds, config, lambda n: 1.0)
    engine.train(True)
    return Trainee(StepRunner(engine, config), config, source)


class Stepper:
    """Runs step after step on given batches in turn; counts tokens."""

    def __init__(self, made: Trainee, batches: Sequence[StepBatch]) -> None:
        self.made, self.batches, self.count = made, batches, 0
        self.useful = self.padded = 0.0
        self.parts: dict[str, float] = {}
        self._fill_memory()

    def _fill_memory(self) -> None:
        """As it is in the middle of a run: full (objective/memory.py)."""
        memory, engine = self.made.runner.objective.memory, self.made.runner.engine
        width = engine.module.backbone.width
        kept = torch.randn(memory.size, width), 0, torch.zeros(memory.size, dtype=torch.int64)

        memory.restore(kept, engine.device)

    def __call__(self) -> dict[str, float]:
        batch = self.batches[self.count % len(self.batches)]
        self.parts = self.made.runner.run(batch, self.count)
        self.count += 1
        self.useful, self.padded = self.parts.pop("useful"), self.parts.pop("padded")
        return self.parts

    @property
    def share(self) -> float:
        return self.padded / (self.useful + self.padded)


def shape_of(name: str) -> Shape:
    return SHAPES[name]
