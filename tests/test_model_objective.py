"""The wrapped module: gradients reach every head, and sampling is unbiased."""

import torch
from transformers import BertConfig, BertModel

from mipic_llm.model.backbone import Backbone
from mipic_llm.objective.module import EmbeddingModule, Sampled, sample
from mipic_llm.types import Point


def module(**options) -> EmbeddingModule:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=3, intermediate_size=24,
        num_attention_heads=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return EmbeddingModule(
        Backbone(BertModel(config, add_pooling_layer=False), pooling="mean"),
        sia_layers=[1, 2, 3],
        ladder=[Point(1, 4), Point(2, 8), Point(3, 16)],
        sia_options={"dims": [4, 8], "ratios": [0.3, 0.6], "tau": 1.0, "min_k": 2},
        **options,
    )


IDS = torch.arange(1, 25).view(4, 6)
MASK = torch.ones_like(IDS)


def test_every_parameter_of_every_head_gets_a_gradient_when_unsampled() -> None:
    net = module()
    out = net(IDS, MASK, Sampled((1,), (0,)), 0.1)
    (out.local + sum(c.square().sum() for c in out.chain_S)).backward()
    heads = [*net.lifts.parameters(), *net.phis.parameters()]
    assert all(p.grad is not None for p in heads)
    assert net.lifts[1].weight.grad.abs().sum() > 0
    assert net.lifts[0].weight.grad.abs().sum() == 0


def test_a_link_looks_for_the_next_checkpoint_or_for_the_last_layer() -> None:
    for target in ("next", "last"):
        net = module(target=target)
        out = net(IDS, MASK, Sampled((), (0, 1)), 1.0)
        readouts = net(IDS, MASK, layers=(1, 2, 3))
        assert len(out.target_S) == (2 if target == "next" else 0)  # the last layer's is z_SD
        torch.testing.assert_close(out.z_SD, readouts[2])
        for i, (layer, dim) in enumerate(((2, 8), (3, 16))):
            if target == "next":
                torch.testing.assert_close(out.target_S[i], readouts[layer - 1][:, :dim].detach())
                assert not out.target_S[i].requires_grad
            torch.testing.assert_close(out.chain_S[i], net.phis[i](readouts[i][:, : (4, 8)[i]]))


def test_sampled_layers_average_to_all_layers() -> None:
    net = module()
    full = net(IDS, MASK, Sampled((0, 1, 2), (0, 1)), 1.0).local
    one = torch.stack([3 * net(IDS, MASK, Sampled((k,), (0,)), 1.0).local for k in range(3)])
    torch.testing.assert_close(one.mean(), full)


def test_sample_is_a_function_of_seed_and_step_and_uniform() -> None:
    assert sample(5, 4, 2, 1, seed=1, step=7) == sample(5, 4, 2, 1, seed=1, step=7)
    assert sample(3, 2, 0, 0, seed=1, step=1) == Sampled((0, 1, 2), (0, 1))
    hits = torch.zeros(5)
    for step in range(2000):
        for layer in sample(5, 4, 2, 1, seed=0, step=step)[0]:
            hits[layer] += 1
    assert (hits / 2000 - 0.4).abs().max() < 0.05
