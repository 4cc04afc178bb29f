"""Tiny random model directories of the true classes, with their real tokenizer conventions.

tiny_bert, tiny_xlmr and tiny_qwen3 write config.json, model.safetensors and tokenizer files as
they lie on the hub (tokenizer.json beside a tokenizer_config.json that names the class), and on
request the sentence-transformers files. Same arguments, same bytes. Width 32, 4 layers.
"""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    BertConfig,
    BertModel,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3Config,
    Qwen3Model,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from mipic_llm.data.demo import demo_path

WIDTH, LAYERS, VOCAB, MAX_TOKENS = 32, 4, 300, 512
ENDOFTEXT, IM_END = "<|endoftext|>", "<|im_end|>"
QUERY_PROMPT = (
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
)

SENTENCES = [
    "The train to the coast leaves at seven in the morning.",
    "A boy is playing the guitar on a bench in the park.",
    "Heavy rain closed the road between the two villages.",
    "She bakes bread with rye flour every Sunday.",
    "The committee will vote on the new budget tomorrow.",
    "How do I reset the password of my account?",
    "Two dogs run across a field of snow.",
    "The patient was given antibiotics for a lung infection.",
    "Our team lost the final match by a single goal.",
    "Prices of copper fell sharply after the announcement.",
    "Water the tomatoes early, before the sun is high.",
    "The museum shows paintings from the nineteenth century.",
    "He repaired the bicycle chain with a small hammer.",
    "Scientists measured the temperature of the deep ocean.",
    "What is the capital city of the northern province?",
    "The old bridge was rebuilt with stone from the quarry.",
    "Please send the invoice to our office by Friday.",
    "A woman reads a newspaper while waiting for the bus.",
    "The software update fixes an error in the calendar.",
    "Children learn to swim in the lake during summer.",
    "The court rejected the appeal of the company.",
    "Fresh fish is sold at the harbour from dawn.",
    "An engine that runs too hot needs more oil.",
    "They walked through the forest until it was dark.",
]
TEXTS = [  # for encoding: short and long, so that batches are ragged
    "a dog runs",
    "The patient was given new antibiotics because the first infection did not heal in summer.",
    "How do I send the invoice?",
    "Copper",
    "Two children walked to the museum before the heavy rain, then read a newspaper in the park.",
    "the old train",
]


def _words(lower: bool) -> list[str]:
    """Words of SENTENCES, the frequent first. Counted here: the trainers of the tokenizers
    library give other vocabularies from run to run."""
    text = " ".join(SENTENCES)
    counts = Counter(re.findall(r"[A-Za-z]+", text.lower() if lower else text))
    return sorted(counts, key=lambda word: (-counts[word], word))


@functools.cache
def _wordpiece() -> str:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = sorted(set(" ".join(SENTENCES).lower()) - {" "})
    ends = ["##ing", "##ed", "##er", "##es", "##ly", "##ion", "##al"]
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters), *ends]
    vocab = list(dict.fromkeys([*pieces, *_words(lower=True)]))[:VOCAB]
    ids = {piece: i for i, piece in enumerate(vocab)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(t, special.index(t)) for t in ("[CLS]", "[SEP]")],
    )
    return tokenizer.to_str(pretty=True)


@functools.cache
def _unigram() -> str:
    special = ["<s>", "<pad>", "</s>", "<unk>"]  # ids 0 to 3 as in XLM-R; <mask> is the last
    space = "\u2581"
    letters = [space, *sorted(set("".join(SENTENCES)) - {" "})]
    ends = ["ing", "ed", "er", "es", "ly", "ion", "al"]
    pieces = [*(space + word for word in _words(lower=False)), *ends]
    pieces = [p for p in dict.fromkeys(pieces) if p not in letters]
    pieces = pieces[: VOCAB - len(special) - len(letters) - 1]
    vocab = [(token, 0.0) for token in special]
    vocab += [(piece, -3.0 - 0.01 * i) for i, piece in enumerate(pieces)]
    vocab += [(letter, -8.0) for letter in letters] + [("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFKC()
    metaspace = pre_tokenizers.Metaspace(replacement=space, prepend_scheme="always")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])
    tokenizer.decoder = decoders.Metaspace(replacement=space, prepend_scheme="always")
    tokenizer.add_special_tokens([*special, "<mask>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return tokenizer.to_str(pretty=True)


@functools.cache
def _byte_bpe(appends_eos: bool) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(split, behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB + 100,  # 256 of them are the bytes
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.add_special_tokens(
        [ENDOFTEXT, "<|im_start|>", IM_END]
    )  # after the merges, as in Qwen
    byte_level = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.post_processor = byte_level
    if appends_eos:
        end = (ENDOFTEXT, tokenizer.token_to_id(ENDOFTEXT))
        template = processors.TemplateProcessing(
            single=f"$A {ENDOFTEXT}", pair=f"$A {ENDOFTEXT} $B {ENDOFTEXT}", special_tokens=[end]
        )
        tokenizer.post_processor = processors.Sequence([byte_level, template])
    return tokenizer.to_str(pretty=True)


def few(folder: Path, split: str = "train", rows: int = 64) -> Path:
    """folder/SPLIT/demo.jsonl: so many rows of the demo text, triplets (train) or graded pairs
    (validation). All 1,770 take each run .4 s to read and tokenise, and 400 pairs a second."""
    path = folder / split / "demo.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = demo_path(split).read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:rows]), encoding="utf-8")
    return path


def tiny_bert(directory: str | Path, **options: Any) -> Path:
    """BertModel: CLS and SEP, absolute positions, dropout 0.1. Options: see _write."""

    def build(width: int, layers: int, tokens: int) -> tuple[type[PreTrainedModel], Any]:
        return BertModel, BertConfig(
            vocab_size=tokens,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            intermediate_size=2 * width,
            max_position_embeddings=MAX_TOKENS,
            initializer_range=0.2,
        )

    special = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
    settings = {f"{name}_token": token for name, token in special.items()}
    settings |= {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    return _write(Path(directory), build, _wordpiece(), settings, "mean", {}, **options)


def tiny_xlmr(directory: str | Path, **options: Any) -> Path:
    """XLMRobertaModel as in BGE-M3: pad id 1, positions from 2, dropout 0.1, CLS pooling."""

    def build(width: int, layers: int, tokens: int) -> tuple[type[PreTrainedModel], Any]:
        return XLMRobertaModel, XLMRobertaConfig(
            vocab_size=tokens,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            intermediate_size=2 * width,
            max_position_embeddings=MAX_TOKENS + 2,
            type_vocab_size=1,
            initializer_range=0.2,
            pad_token_id=1,
            bos_token_id=0,
            eos_token_id=2,
        )

    special = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "pad": "<pad>"}
    special |= {"unk": "<unk>", "mask": "<mask>"}
    settings: dict[str, Any] = {f"{name}_token": token for name, token in special.items()}
    settings |= {"tokenizer_class": "XLMRobertaTokenizer"}
    return _write(Path(directory), build, _unigram(), settings, "cls", {}, **options)


def tiny_qwen3(
    directory: str | Path,
    *,
    appends_eos: bool = True,
    padding_side: str | None = "left",
    **options: Any,
) -> Path:
    """Qwen3Model (RoPE, two of four heads for keys, RMSNorm, no dropout), last-token pooling.

    eos <|im_end|>, pad and terminator <|endoftext|>. appends_eos: tokenizer.json appends the
    terminator, as Qwen3-Embedding does and Qwen3 does not. padding_side None: names no side.
    """

    def build(width: int, layers: int, tokens: int) -> tuple[type[PreTrainedModel], Any]:
        return Qwen3Model, Qwen3Config(
            vocab_size=tokens,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            intermediate_size=2 * width,
            max_position_embeddings=MAX_TOKENS,
            layer_types=["full_attention"] * layers,
            initializer_range=0.2,
            eos_token_id=tokens - 1,
            bos_token_id=tokens - 3,
        )

    settings: dict[str, Any] = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": IM_END}
    settings |= {"pad_token": ENDOFTEXT, "unk_token": None, "bos_token": None}
    if padding_side is not None:
        settings["padding_side"] = padding_side
    prompts = {"query": QUERY_PROMPT, "document": ""}
    return _write(
        Path(directory), build, _byte_bpe(appends_eos), settings, "last", prompts, **options
    )


def _write(
    directory: Path,
    build: Callable[[int, int, int], tuple[type[PreTrainedModel], PretrainedConfig]],
    tokenizer: str,
    settings: dict[str, Any],
    pooling: str,
    prompts: dict[str, str],
    *,
    width: int = WIDTH,
    layers: int = LAYERS,
    seed: int = 0,
    sentence_transformers: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Writes the directory and returns it. sentence_transformers: its module files as well."""
    directory.mkdir(parents=True, exist_ok=True)
    # Embedding tables of real checkpoints are larger than the vocabulary is; a round size too.
    tokens = -(-Tokenizer.from_str(tokenizer).get_vocab_size() // 8) * 8
    model_class, config = build(width, layers, tokens)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config).to(dtype)
        # Biases and norms start at 0 and 1, where mistakes with them do not show.
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                noise = 0.1 * torch.randn(parameter.shape)
                parameter.data += noise.to(dtype) if "bias" in name or "norm" in name.lower() else 0
    model.save_pretrained(directory)
    (directory / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    _json(directory / "tokenizer_config.json", settings | {"model_max_length": MAX_TOKENS})
    if sentence_transformers:
        _sentence_transformers(directory, pooling, prompts, width)
    return directory


def _sentence_transformers(
    directory: Path, pooling: str, prompts: dict[str, str], width: int
) -> None:
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    _json(directory / "modules.json", [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(modules)
    ])  # fmt: skip
    modes = {"cls": "cls_token", "mean": "mean_tokens", "last": "lasttoken"}
    flags = {f"pooling_mode_{name}": mode == pooling for mode, name in modes.items()}
    (directory / "1_Pooling").mkdir(exist_ok=True)
    _json(directory / "1_Pooling" / "config.json", {"word_embedding_dimension": width} | flags)
    _json(directory / "sentence_bert_config.json",
          {"max_seq_length": MAX_TOKENS, "do_lower_case": False})  # fmt: skip
    _json(directory / "config_sentence_transformers.json",
          {"prompts": prompts, "default_prompt_name": None,
           "similarity_fn_name": "cosine"})  # fmt: skip


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
