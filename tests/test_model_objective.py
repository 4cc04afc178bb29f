"""The wrapped module: gradients reach every head, and sampling is unbiased."""

import torch
from transformers import BertConfig, BertModel

from mipic_llm.config import load_config, resolve
from mipic_llm.model.backbone import Backbone
from mipic_llm.objective import EmbeddingModule, build_objective

FLAGS = ["--objective.dims", "4,8,16", "--sia.layers", "1,2,3", "--pic.ladder", "4@1,8@2,16@3",
         "--sia.ratios", "0.3,0.6", "--sia.min_k", "2", "--sia.lift_init", "prefix",
         "--pic.head", "mlp", "--pic.widths", "point", "--sia.sentences", "0"]  # fmt: skip
IDS = torch.arange(1, 25).view(4, 6)
MASK = torch.ones_like(IDS)
MRL, ALL = (), ((0, 1, 2), (0, 1))  # and of scored pairs, ()


def module(*flags: str) -> EmbeddingModule:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=3, intermediate_size=24,
        num_attention_heads=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    backbone = Backbone(BertModel(config, add_pooling_layer=False), pooling="mean")
    asked = resolve(load_config([*FLAGS, *flags]), width=16, n_layers=3)
    return EmbeddingModule(backbone, build_objective(asked, width=16, depth=3))


def test_every_parameter_of_every_head_gets_a_gradient_when_unsampled() -> None:
    net = module()
    out = net(IDS, MASK, (MRL, (1,), (0,), ()), 10.0)
    (out.local + sum(v.square().sum() for v in out.outputs)).backward()
    heads = [*net.lifts.parameters(), *net.phis.parameters()]
    assert all(p.grad is not None for p in heads)
    assert net.lifts[1].weight.grad.abs().sum() > 0
    assert net.lifts[0].weight.grad.abs().sum() == 0


def test_a_link_looks_for_the_next_checkpoint_or_for_the_last_layer() -> None:
    for target in ("next", "last"):
        net = module("--pic.target", target)
        out = net(IDS, MASK, (MRL, *ALL, ()), 1.0)
        readouts = net(IDS, MASK, layers=(1, 2, 3))
        torch.testing.assert_close(out.outputs[0], readouts[2])
        assert len(out.constants) == (1 if target == "next" else 0)  # the last layer's is there
        if target == "next":
            torch.testing.assert_close(out.constants[0], readouts[1])
            assert not out.constants[0].requires_grad
        for i, dim in enumerate((4, 8)):
            projected = net.phis[i](readouts[i][:, :dim])
            torch.testing.assert_close(out.outputs[1 + i], projected)


def test_sampled_layers_average_to_all_layers() -> None:
    net = module()
    full = net(IDS, MASK, (MRL, *ALL, ()), 1.0).local
    one = torch.stack([net(IDS, MASK, (MRL, (k,), (0,), ()), 1.0).local for k in range(3)])
    assert full > 0.01
    torch.testing.assert_close(one.mean(), full)


def test_a_dummy_chunk_counts_nothing() -> None:
    out = module()(IDS, MASK, (MRL, *ALL, ()), float("inf"))
    assert out.local == 0 and out.sums.abs().min() > 0
