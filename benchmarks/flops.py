"""Model FLOPs and the share of a GPU's peak they are (PERFORMANCE figures of the README).

Shape legend: N weights of the layers (no embeddings, no heads); a forward FLOPs of attention per
token, 4 * length * heads * head_dim per layer, half of it under a causal mask.

    full fine-tuning   6 N + 3.5 a      checkpointing 8 N + 4.5 a
    LoRA               4 N + 3.5 a      checkpointing 6 N + 4.5 a      (+ 6 N of the adapters)

3.5: forward once, backward twice, and the fused kernels' own recomputation, half a forward. Only
real tokens count, and nothing of the heads, the losses or the optimizer: MFU is what the model
itself needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

PEAK = {"H200": 790e12}  # bf16 FLOP/s, measured; MFU stays empty on a device that is not here


class Shape(NamedTuple):
    """A backbone. kind: bert, xlm-roberta or qwen3."""

    name: str
    kind: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int

    @property
    def causal(self) -> bool:
        return self.kind == "qwen3"

    @property
    def weights(self) -> int:
        """Matrix weights of the layers."""
        attention = 2 * self.width * self.head_dim * (self.heads + self.kv_heads)
        return self.layers * (attention + (3 if self.causal else 2) * self.width * self.ffn)

    def adapter_weights(self, rank: int) -> int:
        """LoRA on every linear of a layer: rank * (inputs + outputs)."""
        w, f = self.width, self.ffn
        q, kv = self.head_dim * self.heads, self.head_dim * self.kv_heads
        ends = 2 * (w + q) + 2 * (w + kv) + (3 if self.causal else 2) * (w + f)
        return self.layers * rank * ends

    def attention(self, lengths: Sequence[int]) -> float:
        """Forward FLOPs of attention over these sequences together."""
        square = sum(n * n for n in lengths)
        whole = 4.0 * square * self.heads * self.head_dim * self.layers
        return whole / 2 if self.causal else whole


def step_flops(
    shape: Shape, lengths: Sequence[int], *, lora_rank: int = 0, checkpointing: bool = False
) -> float:
    """Model FLOPs of one training step on sequences of these real lengths."""
    tokens, again = sum(lengths), 1 if checkpointing else 0
    per_token = (6 + 2 * again) * shape.weights
    if lora_rank:
        per_token = (4 + 2 * again) * shape.weights + 6 * shape.adapter_weights(lora_rank)
    return tokens * per_token + (3.5 + again) * shape.attention(lengths)


def peak_of(device_name: str) -> float | None:
    """bf16 FLOP/s of a device, None when it is not in the list."""
    return next((v for k, v in PEAK.items() if k in device_name), None)


MINILM = Shape("6x384", "bert", 6, 384, 12, 12, 32, 1536, 1000)
BERT = Shape("12x768", "bert", 12, 768, 12, 12, 64, 3072, 1000)
QWEN3_06B = Shape("qwen3-0.6b", "qwen3", 28, 1024, 16, 8, 128, 3072, 151669)
BGE_M3 = Shape("bge-m3", "xlm-roberta", 24, 1024, 16, 16, 64, 4096, 250002)
TINY_QWEN3 = Shape("tiny-qwen3", "qwen3", 4, 32, 4, 2, 8, 64, 400)
TINY_XLMR = Shape("tiny-xlmr", "xlm-roberta", 4, 32, 4, 4, 8, 64, 400)
TINY_BERT = Shape("tiny-bert", "bert", 3, 48, 4, 4, 12, 96, 400)
SHAPES = {s.name: s for s in (MINILM, BERT, QWEN3_06B, BGE_M3, TINY_QWEN3, TINY_XLMR, TINY_BERT)}
