"""Readouts and layer capture against transformers' own hidden states."""

import pytest
import torch
import transformers
from transformers import BertConfig, BertModel, Qwen3Config, Qwen3Model

from mipic_llm.errors import UserError
from mipic_llm.model.backbone import Backbone, cut_layers, final_norm_of
from mipic_llm.model.pooling import readout
from mipic_llm.objective.heads import ChainHead, FixedLift, LiftHead, Temperature, VectorMap

SIZES = dict(vocab_size=60, hidden_size=16, num_hidden_layers=3, intermediate_size=24)


def bert() -> BertModel:
    torch.manual_seed(0)
    return BertModel(BertConfig(**SIZES, num_attention_heads=2), add_pooling_layer=False)


def qwen3() -> Qwen3Model:
    torch.manual_seed(0)
    return Qwen3Model(
        Qwen3Config(**SIZES, num_attention_heads=2, num_key_value_heads=1, head_dim=8)
    )


def batch(side: str) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.arange(1, 13).view(2, 6)
    mask = torch.ones_like(ids)
    mask[1, slice(0, 2) if side == "left" else slice(4, 6)] = 0
    return ids, mask


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
def test_readout_equals_a_loop_over_real_tokens(pooling: str, side: str) -> None:
    _, mask = batch(side)
    tokens = torch.randn(2, 6, 4)
    for row, (h, m) in enumerate(zip(tokens, mask.bool(), strict=True)):
        real = h[m]
        want = {"cls": real[0], "mean": real.mean(0), "last": real[-1]}[pooling]
        torch.testing.assert_close(readout(tokens, mask, pooling)[row], want)


@pytest.mark.parametrize("build", [bert, qwen3])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_captured_layers_and_gradients_equal_hidden_states(build, checkpointing: bool) -> None:
    ids, mask = batch("right")
    ours, plain = build(), build()
    for module in (*ours.modules(), *plain.modules()):
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for model in (ours, plain):
        model.config._attn_implementation = "eager"
        model.train()
    ours.config.attention_probs_dropout_prob = plain.config.attention_probs_dropout_prob = 0.0
    if checkpointing:
        ours.gradient_checkpointing_enable({"use_reentrant": False})
    got = Backbone(ours, pooling="mean")(ids, mask, [1, 2, 3], [2])
    states = plain(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
    real = mask.bool()
    torch.testing.assert_close(got.tokens_STD[0][real], states[2][real])
    want = torch.stack([readout(states[k], mask, "mean") for k in (1, 2, 3)])
    torch.testing.assert_close(got.readout_LSD, want)
    weight = torch.randn_like(want)
    (got.readout_LSD * weight).sum().backward()
    (want * weight).sum().backward()
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        if b.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in ours.parameters())


def test_inner_layers_may_pass_the_final_norm() -> None:
    ids, mask = batch("left")
    model = qwen3().eval()
    raw = Backbone(model, pooling="last")(ids, mask, [2], [2]).tokens_STD[0]
    normed = Backbone(model, pooling="last", inner_norm="final")(ids, mask, [2], [2])
    torch.testing.assert_close(normed.tokens_STD[0], model.norm(raw))
    assert not torch.allclose(raw, normed.tokens_STD[0])


def test_view_noise_makes_two_views_differ_only_while_training() -> None:
    ids, mask = batch("right")
    net = Backbone(qwen3(), pooling="last", view_noise=0.2)
    net.train()
    assert not torch.equal(*(net(ids, mask, [3], []).readout_LSD for _ in range(2)))
    net.eval()
    assert torch.equal(*(net(ids, mask, [3], []).readout_LSD for _ in range(2)))


def test_heads() -> None:
    h = torch.randn(5, 8)
    lifted = LiftHead(8, [2, 4], "prefix")(h)
    torch.testing.assert_close(lifted, torch.cat([h[:, :2], h[:, :4]], 1))
    fixed = FixedLift([2, 4], 8)
    assert torch.equal(fixed(h), torch.cat([h[:, :2], h[:, :4]], 1))
    assert torch.equal(fixed(h[None])[0], fixed(h)) and not list(fixed.parameters())
    assert ChainHead(4, 8)(h[:, :4]).shape == (5, 8)
    residual = ChainHead(4, 8, "residual")  # starts as z padded with zeros; an eighth as wide
    torch.testing.assert_close(residual(h[:, :4])[:, :4], h[:, :4])
    assert not residual(h[:, :4])[:, 4:].any() and residual.down.out_features == 1
    torch.testing.assert_close(VectorMap(8, 4, "prefix")(h), h[:, :4])
    assert torch.equal(VectorMap(4, 8, "prefix")(h[:, :4])[:, 4:], torch.zeros(5, 4))
    tau = Temperature(0.05)
    torch.testing.assert_close(tau(h), torch.full((5, 1), 0.05))
    tau.change.data.fill_(9.0)
    torch.testing.assert_close(tau(h), torch.full((5, 1), 0.01))


SMALL = dict(vocab_size=90, hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
             intermediate_size=32, pad_token_id=0, bos_token_id=1, eos_token_id=2)  # fmt: skip
NORMS = {
    "Bert": None, "ModernBert": "final_norm", "OPT": "decoder.final_layer_norm", "Llama": "norm",
    "GPTNeoX": "final_layer_norm", "GPT2": "ln_f", "Bloom": "ln_f", "MegatronBert": "encoder.ln",
    "Falcon": "ln_f", "Phi": "final_layernorm", "Mpt": "norm_f", "Gemma3Text": "norm",
    "XLMRoberta": None, "Electra": None, "RobertaPreLayerNorm": "LayerNorm",
    "Lfm2": "embedding_norm", "Esm": "encoder.emb_layer_norm_after",
}  # fmt: skip


@pytest.mark.parametrize("name", NORMS)
def test_final_norm_is_what_the_model_applies(name):
    own = {"Mpt": {"d_model": 16, "n_heads": 2, "n_layers": 3, "expansion_ratio": 2},
           "Lfm2": {"layer_types": ["conv", "full_attention", "conv"], "num_key_value_heads": 2,
                    "pad_token_id": None},
           "Esm": {"pad_token_id": 1, "mask_token_id": 4, "position_embedding_type": "rotary"},
           "OPT": {"ffn_dim": 32, "word_embed_proj_dim": 16, "dropout": 0.0},
           "Gemma3Text": {"head_dim": 8, "num_key_value_heads": 1}}.get(name, {})  # fmt: skip
    torch.manual_seed(0)
    kind = getattr(transformers, f"{name}Config")
    model = getattr(transformers, f"{name}Model")(kind(**SMALL | own)).eval()
    for parameter in model.parameters():  # norms start as the identity would
        parameter.data += 0.3 * torch.randn_like(parameter)
    found = final_norm_of(model)
    assert found is (None if NORMS[name] is None else model.get_submodule(NORMS[name]))
    backbone = Backbone(model, pooling="mean", inner_norm="final").eval()
    ids = torch.randint(3, 90, (2, 5))
    with torch.no_grad():
        backbone(ids, torch.ones_like(ids), [2, 3], [])
    assert backbone.norm_known


def test_a_norm_that_was_not_found_is_told(monkeypatch):
    monkeypatch.setattr("mipic_llm.model.backbone.final_norm_of", lambda _: None)
    model = transformers.LlamaModel(transformers.LlamaConfig(**SMALL)).eval()
    ids = torch.randint(3, 90, (2, 5))
    with pytest.raises(UserError, match="use --model.inner_norm raw"):
        Backbone(model, pooling="mean", inner_norm="final")(ids, torch.ones_like(ids), [2, 3], [])
    Backbone(model, pooling="mean", inner_norm="raw")(ids, torch.ones_like(ids), [2, 3], [])


def test_layers_that_give_no_token_vectors_are_told():
    """SqueezeBERT's give a table of several, with the channels before the tokens."""
    config = transformers.SqueezeBertConfig(**SMALL, embedding_size=16, q_groups=1, k_groups=1)
    ids = torch.randint(3, 90, (2, 5))
    backbone = Backbone(transformers.SqueezeBertModel(config).eval(), pooling="mean")
    with pytest.raises(UserError, match="layers of SqueezeBertModel do not give one vector per"):
        backbone(ids, torch.ones_like(ids), [2, 3], [])


def test_a_cut_shortens_every_list_of_layers():
    """GPT-Neo counts its layers twice, transformers refuses a config that contradicts itself."""
    own = {"num_layers": 3, "num_heads": 2, "hidden_size": 16, "vocab_size": 90,
           "attention_types": [[["global", "local", "global"], 1]]}  # fmt: skip
    model = transformers.GPTNeoModel(transformers.GPTNeoConfig(**own))
    cut_layers(model, 2)
    assert model.config.attention_layers == ["global", "local"] and len(model.h) == 2
