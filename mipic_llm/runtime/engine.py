"""The module under DeepSpeed, which only this room knows: wrapping, backward, state in and out."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mipic_llm.config import Config
from mipic_llm.runtime import pickles
from mipic_llm.runtime.initialize import initialize
from mipic_llm.runtime.optimizer import make_optimizer, parameter_groups, quicken, undo_first_step
from mipic_llm.runtime.start import deepspeed


@contextmanager
def loading(ds_config: dict[str, Any]) -> Iterator[None]:
    """Inside, `from_pretrained` partitions weights as it reads them (ZeRO-3), else nothing.

    Closed before anything is reloaded for verification, which must see whole tensors.
    """
    if ds_config["zero_optimization"]["stage"] != 3:
        yield
        return
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    keep = HfDeepSpeedConfig(ds_config)
    try:
        yield
    finally:
        unset_hf_deepspeed_config()
        del keep


def consolidated(checkpoint: Path, *, trainable_only: bool) -> dict[str, Tensor]:
    """Whole weights of a checkpoint of any stage and world size, in this one process; float32, but
    of ZeRO-0 in bf16."""
    folder = checkpoint / "deepspeed"
    pickles.check(checkpoint, alone=True)
    if not list(folder.glob("*_optim_states.pt")):  # ZeRO-0: nothing was split
        (path,) = folder.glob("*model_states.pt")
        return pickles.read(path, map_location="cpu")["module"]
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    nowhere = io.StringIO()  # it prints, and draws bars
    quiet = contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere)
    with quiet[0], quiet[1], pickles.numbers_only():
        found = get_fp32_state_dict_from_zero_checkpoint(
            str(checkpoint), tag="deepspeed", exclude_frozen_parameters=trainable_only
        )
    return {k: v.contiguous() for k, v in found.items()}


class Engine:
    """The wrapped module. `forward` is one chunk; `backward` may be called several times a step."""

    def __init__(
        self, module: nn.Module, ds_config: dict[str, Any], config: Config | None, schedule: Any
    ) -> None:
        """config None: for inference only (no optimizer), at any ZeRO stage."""
        self.stage = ds_config["zero_optimization"]["stage"]
        optimizer = scheduler = None
        if config is not None:
            groups = parameter_groups(module, config)
            names = {p: name for name, p in module.named_parameters()}
            optimizer = make_optimizer(groups, names, config.train.optimizer, self.stage)
            if config.train.optimizer == "muon":  # it needs whole gradients of its matrices
                ds_config["zero_optimization"]["reduce_scatter"] = False
            self.trained = [names[p] for group in optimizer.param_groups for p in group["params"]]
            scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
        file = config and config.ds_config
        self.ds = initialize(module, optimizer, scheduler, ds_config, file)
        self.module = self.ds.module
        self.device = self.ds.device
        if self.stage == 0 and config is not None:
            undo_first_step(self.ds.optimizer)
        if self.stage in (1, 2) and config is not None:
            quicken(self.ds.optimizer, config.train.optimizer)

    def close(self) -> None:
        """Free the memory of the module and the optimizer, for another engine in this process."""
        self.ds.destroy()
        if self.stage == 3:  # DeepSpeed keeps the module, which keeps its engine: empty both
            for parameter in self.module.parameters():
                parameter.ds_tensor.data = parameter.data = torch.empty(0)
            vars(self.ds.optimizer).clear()
            vars(self.ds).clear()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.ds(*args, **kwargs)

    def backward(self, losses: Iterator[Tensor], n: int) -> None:
        """Backward of n losses whose gradients add up, with one reduction over ranks."""
        if n == 1:
            self.ds.backward(next(losses))
        elif self.stage in (1, 2, 3):
            with self.ds.coalesce_grad_reduction():
                for loss in losses:
                    self.ds.backward(loss, scale_wrt_gas=False)
        else:  # ZeRO-0 has no coalescing: only the last backward is a reduction boundary
            for i, loss in enumerate(losses):
                self.ds.set_gradient_accumulation_boundary(i == n - 1)
                self.ds.backward(loss, scale_wrt_gas=False)

    def gradients(self) -> Iterator[tuple[str, Tensor]]:
        """The whole gradient of each trained parameter in turn, fp32, on every rank; all ranks
        call, between backward and step."""
        for name, parameter in self.module.named_parameters():
            if parameter.requires_grad:
                grad = deepspeed.utils.safe_get_full_grad(parameter)
                assert grad is not None, f"{name} has no gradient"
                yield name, grad.detach().float()

    def forget_gradients(self) -> None:
        """As if no backward had run since the last step (what DeepSpeed does on an overflow)."""
        optimizer = self.ds.optimizer
        optimizer.zero_grad()
        if self.stage in (1, 2):
            optimizer._release_preflattened_grad_buffers()
            for kept in (optimizer.averaged_gradients, optimizer.all_grad_tensors):
                kept.update(dict.fromkeys(kept))
            optimizer.micro_step_id = -1
        elif self.stage == 3:
            optimizer.averaged_gradients = {}
        offloads = ("cpu_offload", "offload_optimizer")  # names of stages 1 and 2, and of 3
        if any(getattr(optimizer, name, False) for name in offloads):
            optimizer.reset_cpu_buffers()
            optimizer._offload_accumulated_param_ids = set()

    def step(self) -> float | Tensor | None:
        """Clip, update, advance the schedule. -> the gradient norm before clipping, perhaps still
        on the device; not finite where a gradient was not (most stages then skip the update); None
        where DeepSpeed was told to compute none."""
        plain = None
        if self.stage == 0:  # DeepSpeed keeps no norm there; gradients are already averaged
            grads = [p.grad for p in self.module.parameters() if p.grad is not None]
            plain = torch.nn.utils.get_total_norm(grads) if grads else None
        self.ds.step()
        norm = self.ds.get_global_grad_norm()
        return plain if norm is None else norm

    def finite(self) -> bool:
        """Whether this rank's part of every trained parameter is finite; waits for the device."""
        own = [getattr(p, "ds_tensor", p) for p in self.module.parameters() if p.requires_grad]
        return bool(torch.stack([torch.isfinite(p).all() for p in own]).all()) if own else True

    @property
    def learning_rate(self) -> float:
        return float(self.ds.get_lr()[0])

    def train(self, mode: bool = True) -> None:
        self.ds.train(mode)

    def state(self, trainable_only: bool) -> dict[str, Tensor] | None:
        """Whole parameters by name on CPU, on rank 0 (None elsewhere); all ranks must call."""
        if self.stage == 3:
            self.ds.empty_partition_cache()  # what a prefetch left in flight cannot be gathered
        gathered: dict[str, Tensor] = {}
        first = torch.distributed.get_rank() == 0
        for name, parameter in self.module.named_parameters():
            if trainable_only and not parameter.requires_grad:
                continue
            with deepspeed.zero.GatheredParameters([parameter], enabled=self.stage == 3):
                if first:
                    gathered[name] = parameter.detach().cpu().clone()
        return gathered if first else None

    @contextmanager
    def nudged(self, part: str) -> Iterator[None]:
        """Inside, trained weights with `part` in their names are random (std 0.02, the same on all
        ranks); afterwards they are what they were. All ranks must call."""
        chosen = [p for n, p in self.module.named_parameters() if part in n and p.requires_grad]
        random = torch.Generator().manual_seed(0)

        def put(values: Callable[[Tensor], Tensor]) -> list[Tensor]:
            before = []
            for p in chosen:
                with deepspeed.zero.GatheredParameters([p], 0, enabled=self.stage == 3):
                    before.append(p.detach().clone())
                    p.data.copy_(values(p))
            return before

        before = put(lambda p: 0.02 * torch.randn(p.shape, generator=random))
        try:
            yield
        finally:
            kept = iter(before)
            put(lambda _: next(kept))

    def save(
        self, folder: Path, write: Callable[[Any, Path], None], *, trainable_only: bool
    ) -> None:
        """Have folder/deepspeed made, and `write(content, path)` called for each file of this rank,
        whose tensors are those of the training; all ranks call. What a disk refused is raised when
        DeepSpeed's own collectives are over: other ranks would wait in them."""
        ds, failed = self.ds, []

        def careful(work: Callable[..., Any]) -> Callable[..., None]:
            def call(*args: Any, **named: Any) -> None:
                try:
                    work(*args, **named)
                except (OSError, RuntimeError) as error:
                    failed.append(error)

            return call

        writer = ds.checkpoint_engine
        writer.save = careful(lambda state_dict, path: write(state_dict, Path(path)))
        ds._copy_recovery_script = careful(ds._copy_recovery_script)
        try:
            ds.save_checkpoint(
                str(folder), tag="deepspeed", save_latest=False,
                exclude_frozen_parameters=trainable_only,
            )  # fmt: skip
        finally:
            del writer.save, ds._copy_recovery_script
        if failed:
            raise failed[0]

    def load(self, folder: Path, *, trainable_only: bool, reshaped: bool = False) -> None:
        """Weights, optimizer and place in the schedule; rates, decay and clipping are those of
        this run's configuration, not the checkpoint's. reshaped: it is of another ZeRO stage or
        number of ranks."""
        schedule, optimizer = self.ds.lr_scheduler, self.ds.optimizer
        decays = [group["weight_decay"] for group in optimizer.param_groups]
        rates, clip = list(schedule.base_lrs), getattr(optimizer, "clip_grad", None)
        if reshaped:
            from mipic_llm.runtime.reshape import put

            put(self, folder)
        else:
            path, _ = self.ds.load_checkpoint(
                str(folder), tag="deepspeed", load_module_strict=not trainable_only
            )
            assert path is not None, f"DeepSpeed found nothing in {folder}"
        schedule.base_lrs = rates
        factors = [factor(schedule.last_epoch) for factor in schedule.lr_lambdas]
        groups = zip(optimizer.param_groups, rates, decays, factors, strict=True)
        for group, rate, decay, factor in groups:
            group.update(initial_lr=rate, lr=rate * factor, weight_decay=decay)
        if clip is not None:
            optimizer.clip_grad = clip
