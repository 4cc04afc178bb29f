"""What is quickened in DeepSpeed's ZeRO-1 and 2 is DeepSpeed's own: one norm over all gradients,
clipping, what is refused, without waiting for the device; gradients moved together."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mipic_llm.config import load_config, resolve
from mipic_llm.errors import UserError
from mipic_llm.runtime import optimizer as quickened
from mipic_llm.runtime.ds_config import load_ds_config
from mipic_llm.runtime.engine import Engine
from mipic_llm.runtime.start import start


@pytest.mark.parametrize("stage", ["zero1", "zero2"])
def test_one_norm_is_deepspeeds_own(stage: str) -> None:
    start()
    config = load_config(["--train.precision", "bf16", "--train.batch_size", "4"])
    config = resolve(config, width=384, n_layers=6)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3)).bfloat16()
    ds = load_ds_config(stage, config, world_size=1, hidden_size=6)
    engine = Engine(module, ds, config, lambda n: 1.0)
    optimizer, x = engine.ds.optimizer, torch.randn(4, 6, dtype=torch.bfloat16)

    def norms() -> list[list[torch.Tensor]]:
        engine.backward(iter([engine.forward(x).float().square().sum()]), 1)
        own = type(optimizer).get_grad_norm_direct
        given = [(optimizer.averaged_gradients[i], optimizer.params_in_partition[i])
                 for i in range(len(optimizer.bit16_groups))]  # fmt: skip
        return [[optimizer.get_grad_norm_direct(*g), own(optimizer, *g)] for g in given]

    class Waits(TorchDispatchMode):
        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            assert "local_scalar" not in str(op), "an update waits for the device"
            return op(*args, **(kwargs or {}))

    found = norms()
    assert len(found) == 2  # weights and biases
    for ours, theirs in found:
        assert ours > 0.1
        torch.testing.assert_close(ours, theirs)
    before = [p.detach().clone() for p in module.parameters()]
    total = optimizer.scaled_global_norm()
    flat = torch.randn(9)
    ours, theirs = [flat.clone()], [flat.clone()]
    optimizer.unscale_and_clip_grads(ours, total)
    type(optimizer).unscale_and_clip_grads(optimizer, theirs, total)
    assert total > 2 and not torch.equal(ours[0], flat)  # it was clipped
    torch.testing.assert_close(ours, theirs)
    with Waits():
        engine.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))

    before = [p.detach().clone() for p in module.parameters()]
    x[0, 0] = float("nan")
    assert all(float(norm) == -1 for pair in norms() for norm in pair)  # as DeepSpeed marks it
    assert not torch.isfinite(torch.as_tensor(engine.step()))
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    engine.close()


@pytest.mark.parametrize("chunks", [1, 3])
@pytest.mark.parametrize("bucket", [1000, 20, 7])  # all gradients fit; some; the largest does not
@pytest.mark.parametrize("stage", ["zero1", "zero2"])
def test_gradients_together_are_those_one_by_one(stage, bucket, chunks, monkeypatch) -> None:
    start()
    config = load_config(["--train.precision", "bf16", "--train.batch_size", "4"])
    config = resolve(config, width=384, n_layers=6)

    def trained() -> tuple[list[torch.Tensor], bool, int]:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3), nn.Linear(3, 2)).bfloat16()
        ds = load_ds_config(stage, config, world_size=1, hidden_size=6)
        ds["zero_optimization"]["reduce_bucket_size"] = bucket
        engine = Engine(module, ds, config, lambda n: 1.0)
        waits, copies = engine.ds.optimizer.overlap_comm, []
        one = torch.Tensor.copy_
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "copy_", lambda *a, **k: copies.append(a) or one(*a, **k))
            for step in range(3):
                x = torch.randn(chunks, 4, 6, dtype=torch.bfloat16)
                losses = (engine.forward(part).float().square().sum() for part in x)
                engine.backward(losses, chunks)
                if step == 1:
                    engine.forget_gradients()
                else:
                    engine.step()
        return [p.detach().clone() for p in module.parameters()], waits, len(copies)

    ours, waits, copies = trained()
    monkeypatch.setattr(quickened, "simplify", lambda optimizer: None)
    theirs, theirs_wait, theirs_copies = trained()
    assert not waits and theirs_wait
    assert (copies < theirs_copies) is (bucket == 1000)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)


def test_an_unknown_deepspeed_is_left_as_it_is(monkeypatch, capsys) -> None:
    """Its next version may give the methods that are replaced other arguments."""

    class Strange:
        dtype = torch.bfloat16

    own = Strange()
    monkeypatch.setattr(quickened.deepspeed, "__version__", "0.19.9+local")
    quickened.quicken(own, "adamw")
    assert not vars(own)
    assert "note: DeepSpeed 0.19.9+local does its own" in capsys.readouterr().out
    monkeypatch.setattr(quickened.deepspeed, "__version__", "0.19.8+local")
    with pytest.raises(AttributeError):  # it looks at the optimizer
        quickened.quicken(own, "adamw")


def trained_as(kind: str) -> dict[str, dict]:
    """What each weight of a small model is trained with."""
    module = nn.Module()
    module.backbone = nn.ModuleDict({
        "embeddings": nn.Embedding(7, 4), "dense": nn.Linear(4, 4), "norm": nn.LayerNorm(4),
    })  # fmt: skip
    module.backbone.dense.bias.requires_grad_(False)
    module.phis = nn.ModuleList([nn.Linear(4, 4)])
    flags = ["--train.learning_rate", "1e-3", "--train.weight_decay", "0.1"]
    config = resolve(load_config(flags), width=384, n_layers=6)
    names = {p: name for name, p in module.named_parameters()}
    groups = quickened.parameter_groups(module, config)
    optimizer = quickened.make_optimizer(groups, names, kind, 1)
    return {names[p]: group for group in optimizer.param_groups for p in group["params"]}


def test_matrices_decay_and_heads_have_their_own_rate() -> None:
    found = {k: (g["lr"], g["weight_decay"]) for k, g in trained_as("adamw").items()}
    assert found == {
        "backbone.embeddings.weight": (1e-3, 0.1), "backbone.dense.weight": (1e-3, 0.1),
        "backbone.norm.weight": (1e-3, 0.0), "backbone.norm.bias": (1e-3, 0.0),
        "phis.0.weight": (2e-3, 0.1), "phis.0.bias": (2e-3, 0.0),
    }  # fmt: skip


def test_muon_has_the_matrices_but_for_embeddings() -> None:
    found, adam = trained_as("muon"), trained_as("adamw")
    assert {k for k, g in found.items() if g["use_muon"]} == {
        "backbone.dense.weight", "phis.0.weight"
    }  # fmt: skip
    for name, group in found.items():
        same = ("lr", "weight_decay") + (() if group["use_muon"] else ("betas", "eps"))
        assert [group[k] for k in same] == [adam[name][k] for k in same], name


def _with_file(path, section: dict) -> Engine:
    start()
    path.write_text(json.dumps(section))
    config = load_config(["--train.batch_size", "4", "--ds_config", str(path)])
    config = resolve(config, width=384, n_layers=6)
    torch.manual_seed(0)
    ds = load_ds_config(config.ds_config, config, world_size=1, hidden_size=6)
    return Engine(nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3)), ds, config, lambda n: 1.0)


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_deepspeeds_timers_stand_several_passes_before_a_backward(stage, tmp_path) -> None:
    def gradients(**extra) -> dict[str, torch.Tensor]:
        section = {"zero_optimization": {"stage": stage}, **extra}
        engine, x = _with_file(tmp_path / "ds.json", section), torch.ones(4, 6)
        for _ in range(2):
            loss = engine.forward(x).square().sum() + engine.forward(2 * x).sum()
            engine.backward(iter([loss]), 1)
            found = {name: grad.clone() for name, grad in engine.gradients()}
            engine.step()
        engine.close()
        return found

    plain, timed = gradients(), gradients(wall_clock_breakdown=True)
    assert plain.keys() == timed.keys()
    for name, grad in plain.items():
        assert grad.abs().max() > 0
        torch.testing.assert_close(timed[name], grad)


def test_what_deepspeed_asserts_about_a_file_is_one_line(tmp_path) -> None:
    path = tmp_path / "mine.json"
    with pytest.raises(UserError, match=r"mine.json: DeepSpeed refuses it: gradient_predivide.*;"):
        _with_file(path, {"zero_optimization": {"stage": 2}, "gradient_predivide_factor": 2.0})
