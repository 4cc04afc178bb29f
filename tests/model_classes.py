"""Tiny random models of many transformers classes: each is trained, exported and loaded again.

`python tests/model_classes.py` prints the table of docs/use/models.md; `--write` puts it there.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from ranks import ROOT
from sentence_transformers import SentenceTransformer
from tiny_models import ENDOFTEXT, MAX_TOKENS, SENTENCES, TEXTS, _byte_bpe, _unigram, _wordpiece
from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerFast

import mipic_llm
from mipic_llm import UserError
from mipic_llm.model.attention import choose, model_class
from mipic_llm.model.directory import read_model

PAGE = ROOT / "docs" / "use" / "models.md"
BEGIN, END = "<!-- classes: python tests/model_classes.py --write -->", "<!-- end of classes -->"
BERT = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
ROBERTA = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "pad": "<pad>",
           "unk": "<unk>", "mask": "<mask>"}  # fmt: skip
SHAPE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
         "intermediate_size": 64, "max_position_embeddings": MAX_TOKENS}  # fmt: skip
OFFSET = {"max_position_embeddings": MAX_TOKENS + 2, "pad_token_id": 1, "bos_token_id": 0,
          "eos_token_id": 2}  # fmt: skip
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
# Class (without Model): kind of tokenizer, options of its config beside SHAPE.
CLASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "Bert": ("wordpiece", {}),
    "Roberta": ("unigram", OFFSET),
    "XLMRoberta": ("unigram", OFFSET),
    "MPNet": ("wordpiece", {"max_position_embeddings": MAX_TOKENS + 2}),
    "DebertaV2": ("wordpiece", {"relative_attention": True, "pos_att_type": ["c2p", "p2c"],
                                "position_buckets": 16}),
    "ModernBert": ("wordpiece", {"global_attn_every_n_layers": 2, "local_attention": 8,
                                 "pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3}),
    "Electra": ("wordpiece", {"embedding_size": 16}),
    "DistilBert": ("wordpiece", {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 64}),
    "Qwen2": ("bytes", {"num_key_value_heads": 2}),
    "Qwen3": ("bytes", GROUPED),
    "Llama": ("begun bytes", {"num_key_value_heads": 2}),
    "Mistral": ("bytes", {"num_key_value_heads": 2, "sliding_window": 8}),
    "Gemma3Text": ("begun", GROUPED | {"sliding_window": 8, "layer_types": [
        "sliding_attention", "sliding_attention", "full_attention"]}),
    "SmolLM3": ("bytes", {"num_key_value_heads": 2, "pad_token_id": None}),
    "Granite": ("bytes", {"num_key_value_heads": 2}),
    "GPTNeoX": ("bytes", {}),
    "Qwen3Moe": ("bytes", GROUPED | {"num_experts": 4, "num_experts_per_tok": 2,
                                     "moe_intermediate_size": 32}),
    # cut after its second layer, no layer with a cache of keys is left
    "Qwen3_5Text": ("bytes", GROUPED | {
        "layer_types": ["linear_attention", "linear_attention", "full_attention"],
        "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
        "linear_value_head_dim": 8, "pad_token_id": None}),
    "Mamba": ("bytes", {"state_size": 8}),
    "T5": ("unigram", {"d_model": 32, "num_layers": 3, "num_heads": 4, "d_kv": 8, "d_ff": 64}),
}  # fmt: skip


def begun(after_bytes: bool) -> str:
    """A tokenizer that puts a token before each text and none after it, as those of Llama 3 (a
    template after another step) and Gemma (a template alone) do."""
    tokenizer = Tokenizer.from_str(_byte_bpe(False))
    begin = ("<|im_start|>", tokenizer.token_to_id("<|im_start|>"))
    template = processors.TemplateProcessing(
        single=f"{begin[0]} $A", pair=f"{begin[0]} $A {begin[0]}:1 $B:1", special_tokens=[begin]
    )
    own = tokenizer.post_processor
    tokenizer.post_processor = processors.Sequence([own, template]) if after_bytes else template
    return tokenizer.to_str()


def build(name: str, folder: Path) -> Path:
    """A model directory of this class, with a tokenizer of its family."""
    kind, more = CLASSES[name]
    folder.mkdir(parents=True, exist_ok=True)
    state, special = {
        "wordpiece": (_wordpiece(), BERT), "unigram": (_unigram(), ROBERTA),
        "bytes": (_byte_bpe(False), {"eos": ENDOFTEXT, "pad": ENDOFTEXT}),
        "begun bytes": (begun(after_bytes=True), {"eos": ENDOFTEXT, "pad": ENDOFTEXT}),
        "begun": (begun(after_bytes=False), {"eos": ENDOFTEXT, "pad": ENDOFTEXT}),
    }[kind]  # fmt: skip
    (folder / "tokenizer.json").write_text(state, encoding="utf-8")
    settings = {f"{role}_token": token for role, token in special.items()}
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": MAX_TOKENS}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    size = -(-len(PreTrainedTokenizerFast.from_pretrained(folder)) // 8) * 8
    shape = {} if name in ("T5", "DistilBert") else SHAPE
    config = getattr(transformers, f"{name}Config")(vocab_size=size, **shape | more)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, f"{name}Model")(config)
        for parameter in model.parameters():  # far from its start, so that mistakes show
            parameter.data += 0.1 * torch.randn(parameter.shape)
    model.save_pretrained(folder)
    return folder


def row(name: str, folder: Path) -> str:
    """The row of this class: trained for two steps with LoRA, exported, loaded by
    sentence-transformers with the same vectors, and cut after its second layer; or the refusal."""
    base = build(name, folder / "base")
    try:
        source = read_model(str(base))
    except UserError as error:
        return f"| `{name}` | refused at the start: {str(error).split(': ', 1)[1]} | | |"
    kind = model_class(source.config)
    data = [{"anchor": a, "positive": b} for a, b in zip(SENTENCES, SENTENCES[1:], strict=False)]
    settings = {
        "tracking.mlflow": "off", "train.max_steps": 2, "train.batch_size": 4,
        "train.learning_rate": 1e-2, "objective.dims": [8, 16, 32], "validation": [],
        "train.gradient_checkpointing": kind.supports_gradient_checkpointing,
    }  # fmt: skip
    run = mipic_llm.train(data, output_dir=folder / "run", model=str(base), **settings)
    ours = run.encode(TEXTS)
    whole = SentenceTransformer(str(run.path / "adapter"), device="cpu")
    assert np.abs(whole.encode(TEXTS) - ours).max() < 1e-5
    assert np.abs(mipic_llm.load(base).encode(TEXTS) - ours).max() > 1e-3, "nothing was learnt"
    cut = mipic_llm.export(run, point="8@2", to=folder / "cut")
    short = SentenceTransformer(str(cut), device="cpu").encode(TEXTS, normalize_embeddings=True)
    assert np.abs(short - run.encode(TEXTS, dim=8, layer=2)).max() < 1e-4
    reads = "left to right" if source.is_decoder else "both ways"
    kernel = choose("auto", "fp32", source.config).name
    again = "yes" if kind.supports_gradient_checkpointing else "no"
    return f"| `{kind.__name__}` | {reads}, {source.pooling} | {kernel} | {again} |"


def table(rows: list[str]) -> str:
    head = "| class | attends, pooled by default | attention on a CPU | gradient checkpointing |"
    return "\n".join([BEGIN, head, "|---|---|---|---|", *rows, END])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        found = table([row(name, Path(place) / name) for name in CLASSES])
    page = PAGE
    text = page.read_text(encoding="utf-8")
    if "--write" in sys.argv:
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        page.write_text(before + found + after, encoding="utf-8")
    else:
        print(found)
