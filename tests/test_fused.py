"""--model.liger and --train.compile: the same numbers as without, with our hooks, or a refusal.

liger's kernels need CUDA: here their functional interface is played by plain torch, which leaves
what is ours (what is replaced, where, with which arguments) under test.
"""

from __future__ import annotations

import shutil
import sys
import types

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import tiny_bert, tiny_qwen3
from torch import nn
from transformers import AutoModel
from transformers.models.qwen3 import modeling_qwen3

from mipic_llm.config.schema import LoraSettings
from mipic_llm.errors import UserError
from mipic_llm.model import fused
from mipic_llm.model.backbone import Backbone
from mipic_llm.model.load import add_lora

IDS = torch.randint(5, 200, (3, 9), generator=torch.Generator().manual_seed(0))
MASK = torch.ones_like(IDS)
MASK[0, 5:] = 0


def rms_norm(x, weight, eps, offset, casting, in_place):
    assert (offset, casting, in_place) == (0.0, "llama", False)
    fake.calls.append("norm")
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)


def swiglu(gate, up):
    fake.calls.append("swiglu")
    return nn.functional.silu(gate) * up


def liger_rope(q, k, cos, sin, position_ids=None, unsqueeze_dim=1):
    fake.calls.append("rope")
    return fake.plain_rope(q, k, cos, sin, unsqueeze_dim)


fake = types.SimpleNamespace(calls=[], plain_rope=None)


@pytest.fixture
def liger(monkeypatch):
    """Call it to get a stand-in for the package, and a machine that claims CUDA."""
    functional = types.ModuleType("liger_kernel.transformers.functional")
    functional.liger_rms_norm, functional.liger_swiglu = rms_norm, swiglu
    functional.liger_rope = liger_rope
    above = types.ModuleType("liger_kernel.transformers")
    above.functional = functional
    package = types.ModuleType("liger_kernel")
    package.__spec__ = types.SimpleNamespace(name="liger_kernel")
    for module in (package, above, functional):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    fake.calls.clear()
    fake.plain_rope = modeling_qwen3.apply_rotary_pos_emb
    monkeypatch.setattr(modeling_qwen3, "apply_rotary_pos_emb", fake.plain_rope)  # put back after
    return lambda: monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def with_lora(model: nn.Module) -> nn.Module:
    """LoRA that does something: B is not zero."""
    torch.manual_seed(0)
    model = add_lora(model, LoraSettings(rank=3))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    return model


def run(model: nn.Module, again: bool = False):
    """Readouts of an inner and the last layer, and every gradient."""
    if again:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    model.zero_grad()
    backbone = Backbone(model, pooling="mean", inner_norm="final")
    backbone.train()
    out = backbone(IDS, MASK, [2, 4], [2]).readout_LSD
    (out * torch.linspace(-1, 2, out.numel()).view_as(out)).sum().backward()
    grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return out.detach(), grads


def same(one, two, tolerance: float) -> None:
    assert one[0].std() > 1e-3 and len(one[1]) == len(two[1]) > 4
    torch.testing.assert_close(one[0], two[0], rtol=tolerance, atol=tolerance)
    for a, b in zip(one[1], two[1], strict=True):
        scale = max(1e-3, float(a.abs().max()))
        torch.testing.assert_close(a / scale, b / scale, rtol=tolerance, atol=tolerance)


class Twice(nn.Module):
    """A linear layer with a bias and one without."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 5, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.tanh(self.a(x)))


def lora_twice(**options) -> nn.Module:
    torch.manual_seed(0)
    settings = LoraConfig(r=2, lora_alpha=3, target_modules=["a", "b"], **options)
    model = get_peft_model(Twice(), settings, autocast_adapter_dtype=False).double()
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter)
    return model


def test_fused_lora_is_pefts_lora(monkeypatch) -> None:
    """Output and every gradient; without its adapter, and merged, the layer is peft's again."""
    model = lora_twice()
    x = torch.randn(3, 4, 6, dtype=torch.float64, requires_grad=True)

    def all_of() -> list[torch.Tensor]:
        model.zero_grad()
        x.grad = None
        out = model(x)
        out.sin().sum().backward()
        trained = [p.grad for p in model.parameters() if p.requires_grad]
        assert len(trained) == 4
        return [out.detach(), x.grad, *trained]

    want = all_of()
    with model.disable_adapter():
        base = model(x)
    assert fused.fuse_lora(model) == 2
    calls = []
    with monkeypatch.context() as patch:
        plain = fused._LoraLinear.apply
        patch.setattr(fused._LoraLinear, "apply", lambda *a: calls.append(1) or plain(*a))
        got = all_of()
    assert len(calls) == 2
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    with model.disable_adapter():
        torch.testing.assert_close(model(x), base, rtol=0, atol=0)
    model.merge_adapter()
    torch.testing.assert_close(model(x), want[0])
    model.unmerge_adapter()
    torch.testing.assert_close(model.merge_and_unload()(x), want[0])


@pytest.mark.parametrize(
    "options", [{"lora_dropout": 0.1}, {"use_dora": True}, {"lora_bias": True}]
)
def test_other_lora_layers_stay_pefts(options) -> None:
    assert fused.fuse_lora(lora_twice(**options)) == 0


@pytest.mark.parametrize("lora", [False, True])
def test_liger_replaces_norms_and_mlp_and_nothing_changes(tmp_path, liger, lora) -> None:
    model = AutoModel.from_pretrained(tiny_qwen3(tmp_path / "m"), attn_implementation="eager")
    if lora:
        model = with_lora(model)
    want = run(model)
    liger()
    fused.apply_liger(model)
    same(want, run(model), 1e-5)
    # Two norms and two head norms a layer; the last norm three times: its own place, layer 2, and
    # the first forward's comparison of the last layer with the model's own output.
    assert fake.calls.count("norm") == 4 * 4 + 3
    assert fake.calls.count("swiglu") == 4
    assert "rope" not in fake.calls  # no CUDA tensors here


def test_liger_leaves_other_models_alone(tmp_path, liger) -> None:
    path = tiny_qwen3(tmp_path / "m")
    liger()
    fused.apply_liger(AutoModel.from_pretrained(path))
    fake.calls.clear()
    run(AutoModel.from_pretrained(path))
    assert fake.calls == []


def test_rope_goes_to_the_kernel_on_cuda_only() -> None:
    q = types.SimpleNamespace(is_cuda=True)
    apply = fused.rope(lambda *a: ("plain", a), lambda *a: ("fused", a))
    assert apply(q, 1, 2, 3) == ("fused", (q, 1, 2, 3, None, 1))
    q.is_cuda = False
    assert apply(q, 1, 2, 3, unsqueeze_dim=2) == ("plain", (q, 1, 2, 3, 2))


def test_liger_refusals(tmp_path, monkeypatch) -> None:
    qwen = AutoModel.from_pretrained(tiny_qwen3(tmp_path / "q"))
    with pytest.raises(UserError, match="model.liger.*qwen3 only.*bert"):
        fused.apply_liger(AutoModel.from_pretrained(tiny_bert(tmp_path / "b")))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="CUDA"):
        fused.apply_liger(qwen)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="not installed"):
        fused.apply_liger(qwen)


def test_compile_refusals(tmp_path, monkeypatch) -> None:
    model = AutoModel.from_pretrained(tiny_bert(tmp_path / "b"))
    with pytest.raises(UserError, match="ZeRO-3"):
        fused.compile_layers(model, stage=3)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="compiler"):
        fused.compile_layers(model, stage=2)


@pytest.mark.parametrize(
    "lora, again", [(False, False), (True, True)], ids=["full", "lora checkpointing"]
)
def test_compiled_layers_with_hooks(tmp_path, monkeypatch, lora, again) -> None:
    """Hooks opened after compiling must fire; numbers as in eager mode (aot_eager: the tracing,
    guards and autograd of torch.compile without its code generator)."""
    torch._dynamo.reset()
    real = torch.compile
    graphs = []

    def traced(function, **options):
        graphs.append(function)
        return real(function, backend="aot_eager", **options)

    monkeypatch.setattr(torch, "compile", traced)
    model = AutoModel.from_pretrained(tiny_bert(tmp_path / "b"))
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if lora:
        model = with_lora(model)
        if again:
            model.enable_input_require_grads()
    want = run(model, again)
    fused.compile_layers(model, stage=2)
    # Libraries that are first imported here compile functions of their own.
    assert sum(isinstance(getattr(f, "__self__", None), nn.Module) for f in graphs) == 4
    same(want, run(model, again), 1e-4)


def test_what_a_lora_layer_gives_may_be_changed_in_place() -> None:
    """DeBERTa divides its queries in place, which a view out of a function of ours would forbid."""
    model = nn.Sequential(nn.Linear(6, 5))
    model.config = types.SimpleNamespace(model_type="any")
    lora = add_lora(model, LoraSettings(rank=2, dropout=0.0))
    nn.init.normal_(next(p for n, p in lora.named_parameters() if "lora_B" in n))
    x_STi, grads = torch.randn(2, 3, 6), []
    for fuse in (lambda: 0, lambda: fused.fuse_lora(lora)):
        n, out = fuse(), lora.get_base_model()(x_STi)
        out /= 2
        lora.zero_grad()
        out.square().sum().backward()
        grads.append([p.grad.clone() for p in lora.parameters() if p.requires_grad])
    assert n == 1
    torch.testing.assert_close(*grads)
