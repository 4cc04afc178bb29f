"""The sizes of an architecture, from which memory and time follow; exact parameter counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from mipic_llm.errors import UserError

ENCODERS = ("bert", "roberta", "xlm-roberta", "camembert")
DECODERS = ("qwen3", "qwen2", "llama", "mistral")
BUILT_IN = "built-in table"
# Names of linear layers in lora.target_modules -> ours.
_DECODER_NAMES = {f"{name}_proj": name for name in ("q", "k", "v", "o", "up", "down", "gate")}
_ENCODER_NAMES = {"query": "q", "key": "k", "value": "v", "attention.output.dense": "o",
                  "intermediate.dense": "up"}  # fmt: skip


class Shape(NamedTuple):
    """An encoder (BERT and its kin) or decoder (Qwen3, Llama and their kin), without a head.

    q, kv: channels of all query heads and of all key (or value) heads. embeddings: rows of all
    embedding tables (tokens, positions, types). *_bias: which linear layers have biases. qk_norm:
    channels per head of the norms on q and k (0 = none).
    """

    decoder: bool
    layers: int
    width: int
    heads: int
    q: int
    kv: int
    inner: int
    embeddings: int
    vocab: int
    qkv_bias: bool = True
    o_bias: bool = True
    mlp_bias: bool = True
    qk_norm: int = 0

    def linears(self) -> dict[str, tuple[int, int]]:
        """Linear layers of one transformer layer: name -> (inputs, outputs)."""
        d, up = self.width, (self.width, self.inner)
        found = {"q": (d, self.q), "k": (d, self.kv), "v": (d, self.kv), "o": (self.q, d), "up": up,
                 "down": (self.inner, d)}  # fmt: skip
        return found | ({"gate": up} if self.decoder else {})

    @property
    def layer_weights(self) -> int:
        """Matrix weights of one layer."""
        return sum(a * b for a, b in self.linears().values())

    @property
    def layer_parameters(self) -> int:
        """Of one layer: matrices, biases and norms."""
        norms = 2 * self.width * (1 if self.decoder else 2) + 2 * self.qk_norm
        biases = (self.q + 2 * self.kv) * self.qkv_bias + self.width * self.o_bias
        biases += (self.width + self.inner * (2 if self.decoder else 1)) * self.mlp_bias
        return self.layer_weights + norms + biases

    @property
    def weights(self) -> int:
        """N: all matrix weights without the embedding tables."""
        return self.layers * self.layer_weights

    @property
    def parameters(self) -> int:
        """Of the whole backbone, exactly."""
        ends = self.width if self.decoder else 2 * self.width  # final norm, or embedding norm
        return self.embeddings * self.width + ends + self.layers * self.layer_parameters

    def lora_linears(self, targets: list[str]) -> dict[str, tuple[int, int]]:
        """The linear layers of one layer under LoRA. UserError for names unknown here."""
        if list(targets) == ["all-linear"]:
            return self.linears()
        names = _DECODER_NAMES if self.decoder else _ENCODER_NAMES
        unknown = [t for t in targets if t not in names]
        if unknown:
            raise UserError(
                f"lora.target_modules: plan does not know {unknown[0]}; it knows all-linear and "
                f"{', '.join(names)}"
            )
        return {names[t]: self.linears()[names[t]] for t in targets}


def encoder(
    layers: int, width: int, inner: int, heads: int, vocab: int, positions: int, types: int
) -> Shape:
    """BERT's shape: as many key as query heads, biases everywhere, learnt positions."""
    rows = vocab + positions + types
    return Shape(False, layers, width, heads, width, width, inner, rows, vocab)


def _qwen3(layers: int, width: int, inner: int, heads: int, vocab: int) -> Shape:
    return Shape(True, layers, width, heads, 128 * heads, 1024, inner, vocab, vocab,
                 False, False, False, 128)  # fmt: skip


# Published config.json of the models that recipes name: the hub may be out of reach.
SHAPES = {
    "quickstart": encoder(6, 384, 1536, 12, 30522, 512, 2),
    "sentence-transformers/all-MiniLM-L6-v2": encoder(6, 384, 1536, 12, 30522, 512, 2),
    "huawei-noah/TinyBERT_General_6L_768D": encoder(6, 768, 3072, 12, 30522, 512, 2),
    "google-bert/bert-base-uncased": encoder(12, 768, 3072, 12, 30522, 512, 2),
    "BAAI/bge-m3": encoder(24, 1024, 4096, 16, 250002, 8194, 1),
    "Qwen/Qwen3-Embedding-0.6B": _qwen3(28, 1024, 3072, 16, 151669),
    "Qwen/Qwen3-Embedding-4B": _qwen3(36, 2560, 9728, 32, 151665),
    "Qwen/Qwen3-Embedding-8B": _qwen3(36, 4096, 12288, 32, 151665),
}


def from_config(c: Any) -> Shape:
    """The shape that a transformers config describes. UserError for an unknown architecture."""
    kind, width = c.model_type, getattr(c, "hidden_size", 0)
    if kind in ENCODERS:
        return encoder(c.num_hidden_layers, width, c.intermediate_size, c.num_attention_heads,
                       c.vocab_size, c.max_position_embeddings, c.type_vocab_size)  # fmt: skip
    if kind not in DECODERS:
        raise UserError(f"model.name: plan has no formulas for the architecture {kind}, only for "
                        f"{', '.join(ENCODERS + DECODERS)}")  # fmt: skip
    head = getattr(c, "head_dim", None) or width // c.num_attention_heads
    bias = bool(getattr(c, "attention_bias", False))
    return Shape(
        True, c.num_hidden_layers, width, c.num_attention_heads, head * c.num_attention_heads,
        head * c.num_key_value_heads, c.intermediate_size, c.vocab_size, c.vocab_size,
        bias or kind == "qwen2", bias and kind != "qwen2", bool(getattr(c, "mlp_bias", False)),
        head if kind == "qwen3" else 0,
    )  # fmt: skip


def find_shape(name: str, revision: str | None = None, trust: bool = False) -> tuple[Shape, str]:
    """-> (shape, where it is from): a directory's config.json, the built-in table, or the hub.

    Raises UserError where none of them has the model.
    """
    local = Path(name).expanduser().is_dir()
    if name in SHAPES and not local:
        return SHAPES[name], BUILT_IN
    try:
        from mipic_llm.model.directory import read_config  # torch, which known shapes do without

        config = read_config(name, revision=revision, trust_remote_code=trust)
    except UserError as error:
        raise UserError(
            f"{error}; or plan for one of the built-in table: {', '.join(SHAPES)}"
        ) from error
    return from_config(config), f"{name}/config.json" if local else "the hub's config.json"
