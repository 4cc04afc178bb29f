"""The layers that have nodes: which linear layers they are made of, what stands against the nodes,
and their forward by them. transformers' own forward remains for padded batches, for a CPU, and for
other dtypes.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from mipic_llm.model.lora_layer import parts


class Family(NamedTuple):
    """kinds: `model_type` of transformers' configs. faster: nodes were measured to be faster than
    transformers' layers, and are used unasked. linears: of a layer, by their places in it. act:
    `hidden_act`. biased: whether the linear layers have biases. sample: a config class of
    transformers, and what it is given for a tiny model. norms: classes of norms, by their names,
    that get `norm`, beside the layers."""

    kinds: tuple[str, ...]
    faster: bool
    linears: tuple[str, ...]
    act: str
    biased: bool
    sample: tuple[str, dict[str, Any]]
    layer: Any
    norms: tuple[str, ...] = ()
    norm: Any = None


def ours(x: Tensor, w: Tensor) -> bool:
    """Whether the kernels take this input of a module with this weight."""
    here = x.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"
    return here and x.dtype == w.dtype


def _packed(attention_mask: Tensor | None, kwargs: dict[str, Any]) -> bool:
    return kwargs.get("cu_seq_lens_q") is not None and attention_mask is None


def _attended(attention: Any, heads: list[Tensor], **kwargs: Any) -> Tensor:
    """The output of the attention kernel (N, E) for query, key and value (N, heads, c)."""
    kernel = ALL_ATTENTION_FUNCTIONS[attention.config._attn_implementation]
    a, _ = kernel(
        attention, *(x.transpose(0, 1).unsqueeze(0) for x in heads), None, dropout=0.0,
        scaling=attention.scaling, **kwargs,
    )  # fmt: skip
    return a.squeeze(0).flatten(1)


def _qwen3_norm(self: Any, hidden_states: Tensor) -> Tensor:
    from mipic_llm.model.blocks.qwen3 import NormFunction

    if not ours(hidden_states, self.weight):
        return type(self).forward(self, hidden_states)
    return NormFunction.apply(self.variance_epsilon, hidden_states, self.weight)


def _qwen3_layer(
    self: Any, hidden_states: Tensor, attention_mask: Tensor | None = None,
    position_ids: Tensor | None = None, past_key_values: Any = None, use_cache: bool | None = False,
    position_embeddings: tuple[Tensor, Tensor] | None = None, **kwargs: Any,
) -> Tensor:  # fmt: skip
    """transformers' Qwen3DecoderLayer.forward: hidden_states (1, N, D) -> the same shape."""
    if not _packed(attention_mask, kwargs) or past_key_values is not None or not ours(
        hidden_states, self.input_layernorm.weight
    ):  # fmt: skip
        return type(self).forward(
            self, hidden_states, attention_mask=attention_mask, position_ids=position_ids,
            past_key_values=past_key_values, use_cache=use_cache,
            position_embeddings=position_embeddings, **kwargs,
        )  # fmt: skip
    from mipic_llm.model.blocks import qwen3

    assert position_embeddings is not None
    attention = self.self_attn
    c, eps = attention.head_dim, self.input_layernorm.variance_epsilon
    q, k, v, o, gate, up, down = (parts(self.get_submodule(name)) for name in QWEN3.linears)
    project = qwen3.Project(len(q.W) // c, len(k.W) // c, c, eps, (q.scale, k.scale, v.scale))
    cos_Nc, sin_Nc = (x[0] for x in position_embeddings)
    h_ND, *heads = qwen3.ProjectFunction.apply(
        project, hidden_states.squeeze(0), cos_Nc, sin_Nc, self.input_layernorm.weight,
        attention.q_norm.weight, attention.k_norm.weight, *q[:3], *k[:3], *v[:3],
    )  # fmt: skip
    a_NE = _attended(attention, heads, sliding_window=attention.sliding_window,
                     position_ids=position_ids, **kwargs)  # fmt: skip
    finish = qwen3.Finish(
        self.post_attention_layernorm.variance_epsilon,
        (o.scale, gate.scale, up.scale, down.scale),
    )
    return qwen3.FinishFunction.apply(
        finish, h_ND, a_NE, self.post_attention_layernorm.weight,
        *o[:3], *gate[:3], *up[:3], *down[:3],
    ).unsqueeze(0)  # fmt: skip


def _bert_layer(
    self: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, *others: Any,
    **kwargs: Any,
) -> Tensor:  # fmt: skip
    """transformers' BertLayer.forward and its like: hidden_states (1, N, D) -> the same shape."""
    attention, norm = self.attention, self.attention.output.LayerNorm
    if not _packed(attention_mask, kwargs) or any(x is not None for x in others) or not ours(
        hidden_states, norm.weight
    ):  # fmt: skip
        return type(self).forward(self, hidden_states, attention_mask, *others, **kwargs)
    from mipic_llm.model.blocks import bert

    q, k, v, o, up, down = (parts(self.get_submodule(name)) for name in BERT.linears)
    project = bert.Project(attention.self.num_attention_heads, (q.scale, k.scale, v.scale))
    h_ND, *heads = bert.ProjectFunction.apply(
        project, hidden_states.squeeze(0), *q[:4], *k[:4], *v[:4]
    )
    passed = {k: v for k, v in kwargs.items() if not k.startswith("encoder_")}
    passed.pop("past_key_values", None)
    a_NE = _attended(attention.self, heads, **passed)
    last = self.output.LayerNorm
    finish = bert.Finish((norm.eps, last.eps), (o.scale, up.scale, down.scale))
    return bert.FinishFunction.apply(
        finish, h_ND, a_NE, norm.weight, norm.bias, last.weight, last.bias,
        *o[:4], *up[:4], *down[:4],
    ).unsqueeze(0)  # fmt: skip


QWEN3 = Family(
    ("qwen3",), True,
    (*(f"self_attn.{x}_proj" for x in "qkvo"), "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    "silu", False, ("Qwen3Config", {"head_dim": 32, "num_key_value_heads": 2}),
    _qwen3_layer, ("Qwen3RMSNorm",), _qwen3_norm,
)  # fmt: skip
BERT = Family(
    ("bert", "roberta", "xlm-roberta"), False,
    (*(f"attention.self.{x}" for x in ("query", "key", "value")), "attention.output.dense",
     "intermediate.dense", "output.dense"),
    "gelu", True,
    ("XLMRobertaConfig", {"hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0}),
    _bert_layer,
)  # fmt: skip
FAMILIES = (QWEN3, BERT)
