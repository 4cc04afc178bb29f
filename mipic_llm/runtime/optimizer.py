"""What trains under DeepSpeed: groups of parameters, optimizers, and some of its habits mended."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mipic_llm.config import Config
from mipic_llm.errors import UserError
from mipic_llm.quiet import import_uncompiled
from mipic_llm.runtime.ranks import say
from mipic_llm.runtime.reduction import simplify
from mipic_llm.runtime.start import deepspeed

QUICKENED = ("0.19.8",)  # DeepSpeed's versions whose insides `quicken` was written for


def parameter_groups(module: nn.Module, config: Config) -> list[dict[str, Any]]:
    """AdamW groups: backbone and heads at their own rates, no decay on biases and norms."""
    t = config.train
    groups: dict[tuple[bool, bool], list] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            head = not name.startswith("backbone.")
            numel_shape = getattr(parameter, "ds_shape", parameter.shape)  # ZeRO-3 hides shapes
            groups.setdefault((head, len(numel_shape) > 1), []).append(parameter)
    rates = {False: t.learning_rate, True: t.head_learning_rate}
    return [
        {"params": p, "lr": rates[head], "weight_decay": t.weight_decay if decays else 0.0}
        for (head, decays), p in sorted(groups.items(), key=lambda item: item[0])
    ]


def make_optimizer(
    groups: list[dict[str, Any]], names: dict[Any, str], kind: str, stage: int
) -> torch.optim.Optimizer:
    """For `train.optimizer`; the groups have rates and weight decays of their own. UserError where
    the ZeRO stage cannot carry its state."""
    adam = {"betas": (0.9, 0.999), "eps": 1e-8}
    if kind != "muon":  # DeepSpeed will ask whether this optimizer is one
        import_uncompiled("deepspeed.runtime.zero.muon.muon_optimizer")
    if kind == "adamw":
        return torch.optim.AdamW(groups, **adam, fused=True)
    stages = {"adamw_8bit": (0, 1, 2), "muon": (1, 2, 3)}[kind]
    if stage not in stages:
        raise UserError(f"train.optimizer {kind} works at ZeRO-{stages[0]} to {stages[-1]}, and "
                        f"this is ZeRO-{stage}; use adamw, or another --ds_config")  # fmt: skip
    if kind == "adamw_8bit":
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(groups, **adam)
    from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam

    parts = []
    for group in groups:
        for p in group["params"]:
            matrix = len(getattr(p, "ds_shape", p.shape)) > 1
            p.use_muon, p.muon_num_heads = matrix and "embed" not in names[p].lower(), None
        for own in (True, False):
            chosen = [p for p in group["params"] if p.use_muon is own]
            how = {"momentum": 0.95} if own else adam
            parts += [group | {"params": chosen, "use_muon": own} | how] if chosen else []
    return MuonWithAuxAdam(parts)


def undo_first_step(optimizer: Any) -> None:
    """ZeRO-0 in bf16: DeepSpeed makes Adam's state by a step on gradients of zero. That counts as
    the first step (so the next updates would be .744 of what they should) and decays the weights.
    """
    if hasattr(optimizer, "fp32_groups"):
        optimizer.optimizer.state.clear()
        for low, full in zip(optimizer.fp16_groups, optimizer.fp32_groups, strict=True):
            torch._foreach_copy_([p.data for p in full], [p.data for p in low])


def quicken(optimizer: Any, kind: str) -> None:
    """DeepSpeed's optimizer of ZeRO-1 or 2, for `train.optimizer`, without what costs it many
    kernels or waits; with offload, without a norm or of another version it stays as it is."""
    if deepspeed.__version__.partition("+")[0] not in QUICKENED:
        say(f"note: DeepSpeed {deepspeed.__version__} does its own ZeRO-1 and 2; steps of "
            f"{' or '.join(QUICKENED)} are quicker here, with the same results")  # fmt: skip
        return
    if optimizer.compute_grad_norm and not optimizer.cpu_offload:
        simplify(optimizer)
        _one_norm(optimizer)
        if optimizer.dtype == torch.bfloat16 and kind == "adamw":
            _no_wait(optimizer)


def _one_norm(optimizer: Any) -> None:
    """ZeRO-1 and 2 ask each gradient for inf and nan, and then for its norm: some 20 kernels a
    tensor and a wait for the device, and LoRA has hundreds of small tensors. The norm of all of
    them, of which DeepSpeed refuses inf and nan as well, says the same in a few kernels."""
    from deepspeed import comm

    def norm(gradients: Any, _params: Any, norm_type: float = 2) -> Tensor:
        assert norm_type == 2, norm_type
        real = [g.detach() for g in gradients if not getattr(g, "_zero_padding", False)]
        if real:
            total = torch.stack(torch._foreach_norm(real, 2, dtype=torch.float32)).square().sum()
        else:
            total = torch.zeros((), device=optimizer.device)
        comm.all_reduce(total, group=optimizer.dp_process_group)
        return torch.where(torch.isfinite(total), total.sqrt(), -1.0)  # as its own marks it

    optimizer.check_overflow = lambda *_, **__: None
    optimizer.get_grad_norm_direct = norm


def _no_wait(optimizer: Any) -> None:
    """ZeRO-1 and 2 in bf16 look at the norm on the host, once and then for each group of weights,
    to skip an update that is not finite. A GPU has nothing to do meanwhile, nor until the next step
    has been launched. Here clipping stays on the device, and so does the refusal: fused AdamW
    leaves weights and state alone where its `found_inf` is 1."""

    def clip(gradients: list[Tensor], norm: Tensor) -> None:
        scale = optimizer.loss_scale
        norm = torch.as_tensor(norm, device=gradients[0].device)  # infinite where one was refused
        optimizer.optimizer.found_inf = (~torch.isfinite(norm)).float()
        if optimizer.clip_grad > 0:
            over = (norm / scale + 1e-6) / optimizer.clip_grad
            torch._foreach_mul_(gradients, 1 / (over.clamp(min=1) * scale))
        elif scale != 1:
            torch._foreach_mul_(gradients, 1 / scale)

    optimizer.check_grad_overflow = False
    optimizer.unscale_and_clip_grads = clip
