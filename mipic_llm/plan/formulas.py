"""FLOPs and activations per token, bytes of the states, bytes on the wire.

Symbols: N matrix weights without embeddings, a FLOPs of attention per token in the forward pass,
P parameters, P_t trainable ones, R ranks, f = (R - 1) / R, m passes (chunks) of a step, b bytes of
a weight or activation (2 in bf16, 4 in fp32), D width, L layers. With a base in 4 bits P counts
elements of b bytes: of the N matrix weights as many as hold half a byte each.
benchmarks/plan_check.py compares the formulas with measurements.
"""

from __future__ import annotations

from typing import NamedTuple

from mipic_llm.plan.shapes import Shape

FUSED = "fused"  # flash, varlen, sdpa: keep nothing of size T x T, compute it again in backward
EAGER = "eager"


class Work(NamedTuple):
    """How a model is trained, as far as memory and FLOPs follow from it.

    lora: rank, 0 = full. lora_linears: (inputs, outputs) of the linear layers under LoRA in one
    transformer layer. heads: parameters of the trainable heads. cached: GradCache, one more forward
    pass. bytes: b. kernel: FUSED or EAGER attention. causal_half: the kernel skips what a causal
    mask hides. tokens_layers: layers whose tokens SIA or MIC read; mic_layers: those that MIC does.
    inner_norm: inner layers pass through the final norm (decoders only). nodes: layers run in the
    two nodes of model/blocks. four_bits: the base's matrices are in NF4, with scales in 8 bits.
    """

    shape: Shape
    lora: int
    lora_linears: tuple[tuple[int, int], ...]
    heads: int
    checkpointing: bool
    cached: bool
    bytes: int
    kernel: str = FUSED
    causal_half: bool = True
    tokens_layers: int = 0
    dims: tuple[int, ...] = ()
    inner_norm: bool = False
    dora: bool = False
    mic_layers: int = 0
    nodes: bool = False
    four_bits: bool = False

    @property
    def lora_parameters(self) -> int:
        """Of the adapter over all layers (A, B and DoRA's magnitudes)."""
        sizes = (self.lora * (a + b) + b * self.dora for a, b in self.lora_linears)
        return self.shape.layers * sum(sizes)

    @property
    def parameters(self) -> int:
        """P: backbone, adapter and heads."""
        return self.shape.parameters + self.lora_parameters + self.heads

    @property
    def stored(self) -> int:
        """P in elements of b bytes."""
        return self.parameters - self._packed(self.shape.weights)

    @property
    def stored_layer(self) -> int:
        """One layer of the base in elements of b bytes."""
        return self.shape.layer_parameters - self._packed(self.shape.layer_weights)

    def _packed(self, weights: int) -> int:
        """Elements of b bytes that 4 bits a weight save."""
        return weights - weights // (2 * self.bytes) if self.four_bits else 0

    @property
    def scales(self) -> float:
        """Bytes of NF4's scales, which every rank holds: one for 64 weights, and 4 for 256 of
        those."""
        return self.four_bits * self.shape.weights / 64 * (1 + 4 / 256)

    @property
    def trainable(self) -> int:
        """P_t."""
        return (self.lora_parameters if self.lora else self.shape.parameters) + self.heads


def token_flops(w: Work, tokens: float) -> float:
    """Forward FLOPs per token of the terms that read tokens. SIA: scores of all prefixes, and Grams
    of the chosen tokens (folded and nested, METHOD.md 6; at most 0.7 of the tokens are chosen).
    MIC: correlations of all channels, which are made again in the backward pass."""
    sia = w.tokens_layers - w.mic_layers if w.dims else 0
    scores = 2 * w.shape.width + 2 * sum(w.dims)
    mic = w.mic_layers * 4 / 3 * 2 * w.shape.width**2
    return sia * (scores + 2 * 0.7**2 * tokens * w.shape.width) + mic


def flops_per_token(w: Work, tokens: float) -> float:
    """Full 6N + 3.5a, LoRA 4N + 3.5a; checkpointing and GradCache each one forward, 2N + a, more.

    a: both products of attention over all layers. Eager attention: 3a (its backward computes
    nothing again). LoRA's own products are added. tokens: of one text.
    """
    half = 0.5 if w.shape.decoder and w.kernel == FUSED and w.causal_half else 1.0
    n, a = w.shape.weights, half * 4 * tokens * w.shape.q * w.shape.layers
    lora = w.lora_parameters if w.lora else 0
    forwards = 1 + w.checkpointing + w.cached
    backward = (2 if w.lora else 4) * n + (2.5 if w.kernel == FUSED else 2.0) * a + 4 * lora
    return forwards * (2 * n + a + 2 * lora) + backward


def activation_bytes(w: Work) -> float:
    """Kept for the backward pass, per token: one layer's parts times the layers, and the norm
    before (encoder) or after (decoder) them.

    With checkpointing only each layer's input stays, L * D * b, and the layer that is being
    recomputed (`layer_bytes`) comes on top.
    """
    s, full = w.shape, 0 if w.lora else 1
    ends = s.width * (4 + full * w.bytes) + 4 if s.decoder else full * w.bytes * (s.width + 2)
    return ends + s.layers * (s.width * w.bytes if w.checkpointing else layer_bytes(w))


def layer_bytes(w: Work) -> float:
    """What autograd keeps of one layer, per token (dropout off, fused attention).

    Decoder: RMSNorm keeps its input in fp32, and the normed input where its own weight is
    trained; linear layers keep their input; attention keeps q, k, v and its output; SwiGLU four
    times the inner width. Encoder: LayerNorm keeps its input, linear layers theirs, attention q, k,
    v and its output, GELU its input and output. Both: a few numbers of norms and softmax. In nodes:
    both norms' inputs and outputs, q, k, v before and after they are normed and rotated (v once),
    attention's output, gate and up.
    """
    s, b, full = w.shape, w.bytes, 0 if w.lora else 1
    low_rank = w.lora * len(w.lora_linears) * b
    if w.nodes:
        return b * (4 * s.width + 3 * (s.q + s.kv) + 2 * s.inner) + 8 + low_rank
    if not s.decoder:
        return b * (4 * s.width + 4 * s.q + 2 * s.inner + 4) + 4 * s.heads + low_rank
    upcast = 4  # bytes: norms run in fp32
    norms = 2 * (s.width * (upcast + full * b + b) + upcast)
    if s.qk_norm:
        norms += (s.q + s.kv) * (upcast + full * b) + upcast * (s.q + s.kv) / s.qk_norm
    return norms + b * (2 * s.q + 2 * s.kv) + 4 * s.heads + b * 4 * s.inner + low_rank


def captured_bytes(w: Work) -> float:
    """SIA, per token: the gradients of its layers' tokens wait for the backbone's backward; the
    inner layers of a decoder also pass through the final norm, which keeps an fp32 copy."""
    s = w.shape
    norm = (4 + w.bytes) * s.width if w.inner_norm and s.decoder else 0
    return w.tokens_layers * (w.bytes * s.width + norm + 4 * len(w.dims))


class States(NamedTuple):
    """Bytes per rank of everything that lives between steps, and the buffers of ZeRO."""

    weights: float
    gradients: float
    optimizer: float
    buckets: float
    gathered: float


class Zero(NamedTuple):
    """A ZeRO stage with the sizes (in elements) that cost memory.

    all_reduce: ZeRO-1 and 2 reduce gradients by an all-reduce of whole buckets (DeepSpeed's
    use_multi_rank_bucket_allreduce, its default): twice what a reduce to the owner sends.
    """

    stage: int
    bucket: int = 50_000_000
    prefetch: int = 0
    live: int = 1_000_000_000
    reuse: int = 1_000_000_000
    offload_optimizer: bool = False
    offload_param: bool = False
    all_reduce: bool = True


def kept_parameters(w: Work, zero: Zero) -> int:
    """ZeRO-3: gathered parameters (elements) that stay where forward turns into backward.

    DeepSpeed keeps what is used again within max_reuse_distance: there and back, so half of it.
    """
    return min(w.stored, zero.live, zero.reuse // 2)


def states(w: Work, zero: Zero, ranks: int) -> States:
    """16 B per trainable parameter, b per frozen one, split as the stage says.

    bf16: weight 2, gradient 2, fp32 master and two moments 12. fp32: weight 4, gradient 4, moments
    8, and ZeRO-1 to 3 keep a master copy of 4. Gradients are split from ZeRO-1 on (DeepSpeed drops
    those of others as they are reduced, in one pass; GradCache keeps all until its last chunk at
    ZeRO-1). buckets: gradients under way, twice with overlap_comm; gathered: see `kept_parameters`,
    and one layer with what is prefetched.
    """
    p, t, b, stage = w.stored, w.trainable, w.bytes, zero.stage
    share = 1 / ranks if stage >= 1 else 1.0
    master = 4 if b == 2 or stage >= 1 else 0
    optimizer = (master + 8) * t * share
    gradients = b * t * (1.0 if stage == 1 and w.cached else share)
    weights = b * p * (1 / ranks if stage == 3 else 1.0)
    buckets = b * min(zero.bucket, t) * (2 if stage >= 1 else 1) if ranks > 1 else 0
    gathered = 0.0
    if stage == 3 and (ranks > 1 or zero.offload_param):
        gathered = b * min(p, kept_parameters(w, zero) + w.stored_layer + zero.prefetch)
    if zero.offload_param:
        weights = 0.0
    if zero.offload_optimizer:
        optimizer, gradients = 0.0, (0.0 if stage == 3 else gradients)
    return States(weights + w.scales, gradients, optimizer, float(buckets), gathered)


class Wire(NamedTuple):
    """Bytes that a rank sends per step: weights and gradients, and readouts."""

    weights: float
    readouts: float


def wire(
    w: Work, zero: Zero, ranks: int, passes: int, pairs: int, columns: int, links: int,
    gathered: int = 0, taught: int = 0,
) -> Wire:  # fmt: skip
    """ZeRO-0: an all-reduce, 2 b P_t f. ZeRO-1 and 2: that and a gather of what was updated,
    3 b P_t f (2 without all_reduce: 4 P_t f in bf16). ZeRO-3: a gather of all weights before each
    forward and backward of each pass, b (2 or with GradCache 3) m P f, and b P_t f to reduce; a
    single pass gathers again only what was not kept (chunks: measured at 1.2 times this).

    Readouts in fp32: all are gathered once, 4 B per channel and other rank, and their gradients
    come back by a reduce-scatter, 4 B; a chain link's deeper side is gathered without (links: those
    whose deeper side is not the last layer's, which is there already). gathered: further layers
    whose readouts are; taught: channels of a teacher's vectors, which are gathered too.
    """
    f, b = (ranks - 1) / ranks, w.bytes
    if zero.stage == 3:
        gathers = (3 if w.cached else 2) * passes * w.stored
        if passes == 1:
            gathers = max(w.stored, gathers - kept_parameters(w, zero))
        weights = b * (gathers + w.trainable) * f
    else:
        weights = b * w.trainable * f * (2 if zero.stage == 0 else 2 + zero.all_reduce)
    channels = w.shape.width * (8 * (1 + gathered) + 4 * links) + 4 * taught
    return Wire(weights, pairs * columns * (ranks - 1) * channels)
