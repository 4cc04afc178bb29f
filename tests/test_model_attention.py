"""The varlen kernel against attention written out per sequence; the choice of a kernel; packing."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import BertConfig, MPNetConfig, Qwen3Config, XLMRobertaConfig

from mipic_llm.errors import UserError
from mipic_llm.model import attention
from mipic_llm.model.attention import choose, padded
from mipic_llm.model.packed import unpad
from mipic_llm.model.varlen import reference_varlen, varlen

LENGTHS = (5, 3, 3, 1, 4)
WINDOWS = {"full": (-1, -1), "causal": (-1, 0), "local": (2, 0), "both": (1, 1), "left": (2, -1)}


def naive(q, k, v, lengths, window, scale):
    """One sequence, one head, one query at a time."""
    out, start = torch.zeros_like(q), 0
    repeat = q.shape[1] // k.shape[1]
    for n in lengths:
        for h in range(q.shape[1]):
            for i in range(n):
                low = 0 if window[0] < 0 else max(0, i - window[0])
                high = n if window[1] < 0 else min(n, i + window[1] + 1)
                seen = slice(start + low, start + high)
                score = k[seen, h // repeat] @ q[start + i, h] * scale
                out[start + i, h] = score.softmax(0) @ v[seen, h // repeat]
        start += n
    return out


def inputs(heads: int, kv: int, dtype=torch.float64, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    n = sum(LENGTHS)
    shapes = [(n, heads, 8), (n, kv, 8), (n, kv, 8), (n, heads, 8)]
    q, k, v, up = (torch.randn(s, generator=g, dtype=torch.float64).to(dtype) for s in shapes)
    return [x.requires_grad_() for x in (q, k, v)], up


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("heads, kv", [(4, 4), (4, 2), (3, 1)])
def test_reference_equals_one_sequence_at_a_time(heads, kv, window):
    leaves, up = inputs(heads, kv)
    want = naive(*leaves, LENGTHS, WINDOWS[window], 0.3)
    want_grads = torch.autograd.grad((want * up).sum(), leaves)
    got = reference_varlen(*leaves, LENGTHS, scale=0.3, window=WINDOWS[window])
    torch.testing.assert_close(got, want)
    grads = torch.autograd.grad((got * up).sum(), leaves)
    for grad, want_grad in zip(grads, want_grads, strict=True):
        assert want_grad.abs().max() > 0.01
        torch.testing.assert_close(grad, want_grad)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("dtype, share", [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_low_precision_is_near_float64(dtype, share, window):
    leaves, up = inputs(4, 2, dtype)
    wide = [x.detach().double().requires_grad_() for x in leaves]
    want = naive(*wide, LENGTHS, WINDOWS[window], 8**-0.5)
    got = reference_varlen(*leaves, LENGTHS, window=WINDOWS[window])
    assert got.dtype == dtype
    grads = torch.autograd.grad((got * up).sum(), leaves)
    wanted = torch.autograd.grad((want * up.double()).sum(), wide)
    for a, b in zip((got, *grads), (want, *wanted), strict=True):
        assert (a.double() - b).norm() < share * b.norm()


@pytest.mark.parametrize("causal, sliding, window", [
    (True, None, (-1, 0)), (False, None, (-1, -1)), (True, 3, (2, 0)), (False, 2, (1, 1)),
])  # fmt: skip
def test_transformers_interface(causal, sliding, window):
    (q, k, v), _ = inputs(4, 2, torch.float32)
    cu = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0)], dtype=torch.int32)
    heads_first = [x.transpose(0, 1)[None] for x in (q, k, v)]
    options = dict(scaling=0.3, cu_seq_lens_q=cu, max_length_q=5, sliding_window=sliding)
    module = SimpleNamespace(is_causal=causal)
    out, weights = varlen(module, *heads_first, None, cu_seq_lens_k=cu, **options)
    assert weights is None and out.shape == (1, sum(LENGTHS), 4, 8)
    torch.testing.assert_close(out[0], naive(q, k, v, LENGTHS, window, 0.3))
    for missing in ({"cu_seq_lens_q": None}, {"softcap": 30.0}, {"s_aux": torch.ones(4)}):
        with pytest.raises(UserError, match="model.attn: SimpleNamespace"):
            varlen(module, *heads_first, None, **(options | missing))


def test_the_cuda_branch_calls_torch_with_its_own_signature():
    """No GPU here: at least the keywords that we pass exist, and the shapes are its shapes."""
    import inspect

    from torch.nn.attention.varlen import varlen_attn

    bound = inspect.signature(varlen_attn).bind(
        *[None] * 7, scale=1.0, window_size=(-1, 0), enable_gqa=True
    )
    assert list(bound.arguments)[:7] == [
        "query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k",
    ]  # fmt: skip


@pytest.mark.parametrize("side", ["left", "right"])
def test_unpad_keeps_the_real_tokens_in_order(side):
    ids = torch.arange(12).view(3, 4)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])
    mask = mask.flip(1) if side == "left" else mask
    ids_1N, packing = unpad(ids, mask)
    assert ids_1N[0].tolist() == [i for r, m in zip(ids, mask.bool(), strict=True) for i in r[m]]
    assert packing.lengths == (4, 2, 1) and packing.cu_S1.tolist() == [0, 4, 6, 7]
    assert packing.position_N.tolist() == [0, 1, 2, 3, 0, 1, 0]


# ------------------------------------------------------------------------------------- the choice


def machine(monkeypatch, capability=(9, 0), packages=()):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(attention, "find_spec", lambda name: name in packages or None)
    monkeypatch.setattr(attention, "tiles_about", lambda _: "")  # no kernel runs on it


QWEN3, XLMR, BERT = Qwen3Config(), XLMRobertaConfig(), BertConfig(attention_probs_dropout_prob=0.0)


def test_auto_on_a_cpu_stays_padded(monkeypatch):
    machine(monkeypatch, None)
    assert choose("auto", "fp32", QWEN3) == ("sdpa", "sdpa, padded")
    assert choose("auto", "bf16", QWEN3) == ("eager", "eager, padded")
    assert choose("varlen", "fp32", QWEN3) == ("varlen", "varlen (reference kernel), packed")


def test_auto_on_cuda_packs_where_it_can(monkeypatch):
    machine(monkeypatch)
    torchs = ("varlen", "varlen (torch.nn.attention.varlen), packed")
    assert choose("auto", "bf16", QWEN3) == choose("auto", "bf16", BERT) == torchs
    name, about = choose("auto", "bf16", XLMR)  # its own dropout is 0.1
    assert name == "sdpa" and "padded" in about and "attention_probs_dropout_prob is 0.1" in about
    assert choose("auto", "bf16", MPNetConfig()).name == "eager"  # it has no sdpa
    assert choose("auto", "fp32", QWEN3).name == "sdpa"
    assert choose("varlen", "fp32", QWEN3).about == "varlen (reference kernel), packed"
    machine(monkeypatch, packages=("flash_attn",))
    assert choose("auto", "bf16", XLMR) == ("flash_attention_2", "flash_attention_2, packed")
    machine(monkeypatch, (7, 5), packages=("flash_attn",))
    assert choose("auto", "bf16", QWEN3).name == "sdpa"


@pytest.mark.parametrize("option, config, capability, word", [
    ("flash_attention_2", QWEN3, None, "mipic_llm"),
    ("flash_attention_3", QWEN3, (9, 0), "not installed"),
    ("varlen", MPNetConfig(), None, "MPNetModel"),
    ("varlen", XLMR, (9, 0), "--model.dropout 0"),
    ("varlen", QWEN3, (7, 5), "capability"),
    ("varlen", Qwen3Config(head_dim=20), (9, 0), "multiple of 8"),
])  # fmt: skip
def test_a_kernel_that_cannot_run_is_refused_by_name(monkeypatch, option, config, capability, word):
    machine(monkeypatch, capability)
    with pytest.raises(
        UserError, match=f"model.attn: {option} .*{word}.*--model.attn {padded(config)}"
    ):
        choose(option, "bf16", config)


def test_a_class_without_sdpa_runs_eager():
    assert choose("auto", "fp32", MPNetConfig()).name == "eager"
    with pytest.raises(UserError, match="sdpa does not run in MPNetModel; use --model.attn eager"):
        choose("sdpa", "fp32", MPNetConfig())
