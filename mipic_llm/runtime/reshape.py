"""The trained state of a checkpoint in an engine of another ZeRO stage or number of ranks.

DeepSpeed's own reader of shards (zero_to_fp32) puts the fp32 weights together. Adam's two averages
lie in shards of the same order, so it puts them together as well.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import deepspeed
import torch
from deepspeed.utils import (
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)  # fmt: skip
from deepspeed.utils import zero_to_fp32 as shards
from torch import Tensor

from mipic_llm.errors import UserError
from mipic_llm.runtime import ranks as dist

if TYPE_CHECKING:
    from mipic_llm.runtime.engine import Engine

AVERAGES = ("exp_avg", "exp_avg_sq")
COUNTERS = ("global_steps", "global_samples", "skipped_steps", "lr_scheduler")
# Where a shard keeps the weights and the optimizer: stages 1 and 2, stage 3.
PLACES = (
    ("single_partition_of_fp32_groups", "base_optimizer_state"),
    ("fp32_flat_groups", "optimizer_state_dict"),
)


def put(engine: Engine, checkpoint: Path) -> None:
    """Weights, Adam's state, DeepSpeed's counters and the place in the schedule; all ranks call,
    inside `pickles.numbers_only`.

    Rank 0 reads, in host memory for three fp32 numbers per trained weight, and sends one parameter
    at a time. Raises UserError where the optimizer's state is to lie on NVMe, or is not AdamW's.
    """
    ds, optimizer = engine.ds, engine.ds.optimizer
    if getattr(optimizer, "swap_optimizer", False):
        raise UserError("train.resume: another ZeRO stage or number of ranks is not possible with "
                        "the optimizer's state on NVMe; resume with it in memory")  # fmt: skip
    if not isinstance(getattr(optimizer, "optimizer", optimizer), torch.optim.AdamW):
        raise UserError("train.resume: another ZeRO stage or number of ranks is possible with "
                        "train.optimizer adamw only; resume with those of the run")  # fmt: skip
    found = _read(checkpoint, engine.trained) if dist.rank() == 0 else None
    step, counters = dist.from_first(found and found[1:])
    base, stage = getattr(optimizer, "optimizer", optimizer), engine.stage
    own = {0: [p for group in base.param_groups for p in group["params"]],
           3: getattr(optimizer, "fp32_partitioned_groups_flat", [])}.get(
               stage, getattr(optimizer, "single_partition_of_fp32_groups", []))  # fmt: skip
    for flat in own:
        if not base.state[flat]:  # made in the first step
            base.state[flat] |= {k: torch.zeros_like(flat, requires_grad=False) for k in AVERAGES}
        base.state[flat]["step"] = torch.tensor(float(step), device=flat.device)
    if stage in (1, 2):
        optimizer._lazy_init_hp_params_optimizer_state()
    parameters = dict(engine.module.named_parameters())
    for i, name in enumerate(engine.trained):
        # Cloned: a view would be sent with all that it is a view of.
        own_copy = found and [x.contiguous().clone() for x in found[0][name]]
        master, *averages = dist.from_first(own_copy)
        p = parameters[name]
        with torch.no_grad(), deepspeed.zero.GatheredParameters([p], 0, enabled=stage == 3):
            p.data.copy_(master)
        if stage == 0:
            own[i].data.copy_(master)
            for key, value in zip(AVERAGES, averages, strict=True):
                base.state[own[i]][key].copy_(value)
        elif stage == 3:
            safe_set_local_fp32_param(p, _share(p, master))
            for key, value in zip(AVERAGES, averages, strict=True):
                safe_set_local_optimizer_state(p, _share(p, value), key)
        else:
            safe_set_full_fp32_param(p, master)
            for key, value in zip(AVERAGES, averages, strict=True):
                safe_set_full_optimizer_state(p, value, key)
    ds.lr_scheduler.load_state_dict(counters.pop("lr_scheduler"))
    vars(ds).update(counters)


def _share(p: Any, value: Tensor) -> Tensor:
    """This rank's part of a whole value at ZeRO-3, padded as DeepSpeed pads it."""
    n, rank = p.ds_tensor.numel(), torch.distributed.get_rank(p.ds_process_group)
    own = value.flatten()[rank * n : (rank + 1) * n]
    return torch.cat([own, own.new_zeros(n - len(own))])


def _read(checkpoint: Path, trained: list[str]) -> tuple[dict[str, list], float, dict[str, Any]]:
    """-> ([weight, exp_avg, exp_avg_sq] by name, whole, fp32; Adam's steps; counters)."""
    folder = checkpoint / "deepspeed"
    how = {"map_location": "cpu", "mmap": True, "weights_only": True}
    head = torch.load(min(folder.glob("*model_states.pt")), **how)
    counters = {key: head[key] for key in COUNTERS}
    if not list(folder.glob("*_optim_states.pt")):  # ZeRO-0: nothing was split
        saved, weights = head["optimizer"], [head["module"][name] for name in trained]
        if "fp32_groups" in saved:  # bf16
            weights = [w for group in saved["fp32_groups"] for w in group]
            saved = saved["optimizer_state_dict"]
        state, values = saved["state"], {}
        for i, (name, weight) in enumerate(zip(trained, weights, strict=True)):
            none = dict.fromkeys(AVERAGES, torch.zeros_like(weight))  # it never had a gradient
            values[name] = [weight.detach(), *(state.get(i, none)[key] for key in AVERAGES)]
        return values, float(next(iter(state.values()))["step"]), counters
    nowhere = io.StringIO()  # it prints, and draws bars
    with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        models = shards.parse_model_states(shards.get_model_state_files(str(folder)))
        files = shards.get_optim_files(str(folder))
        read = [torch.load(f, **how)["optimizer_state_dict"] for f in files]
        split = read[0]["zero_stage"] == 3
        where, adam = PLACES[split]

        def whole(pieces: list[list[Tensor]]) -> dict[str, Any]:
            if split:
                return shards._get_fp32_state_dict_from_zero3_checkpoint(
                    len(read), pieces, models, True
                )
            padding = read[0].get(shards.PARAM_ALIGNMENT_PADDINGS)
            return shards._get_fp32_state_dict_from_zero2_checkpoint(
                len(read), pieces, models, True, padding
            )

        # In memory Adam's averages have the padding at the end that the saved weights have not.
        parts = [whole([one[where] for one in read])] + [
            whole([[one[adam]["state"][i][key][: len(w)] for i, w in enumerate(one[where])]
                   for one in read]) for key in AVERAGES]  # fmt: skip
    step = next(iter(read[0][adam]["state"].values()))["step"]
    return {name: [part[name] for part in parts] for name in trained}, float(step), counters
