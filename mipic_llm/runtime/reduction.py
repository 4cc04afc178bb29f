"""How DeepSpeed's ZeRO-1 and 2 bring gradients together, where there is little or nothing to send.

With `overlap_comm` they send gradients beside the backward, in buckets, by a stream of their own;
for that the host waits for the whole device at the end of each backward, and each gradient is
copied twice by some forty lines of Python. One rank sends nothing, and what fits one bucket (LoRA)
is sent at the end in any case: there the waits go, and all gradients are copied in two calls. What
is sent and what the update reads stay the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mipic_llm.runtime import ranks


def simplify(optimizer: Any) -> None:
    """DeepSpeed's optimizer of ZeRO-1 or 2, without offload, in place; after it was made."""
    if not optimizer.contiguous_gradients or optimizer.zenflow:
        return
    trained = [p for group in optimizer.bit16_groups for p in group]
    dtypes = {optimizer.get_param_comm_dtype(p) for p in trained}
    small = len(dtypes) == 1 and sum(p.numel() for p in trained) <= optimizer.reduce_bucket_size
    if not small and ranks.world_size() > 1:
        return
    overlapped, optimizer.overlap_comm = optimizer.overlap_comm, False
    if small:
        _at_once(optimizer, *dtypes)
    elif overlapped and not optimizer.partition_gradients:
        _as_they_come(optimizer)


def _as_they_come(optimizer: Any) -> None:
    """ZeRO-1 without overlap keeps all gradients until the backward ends; here, as with overlap,
    each goes into its bucket as it comes, so that the most memory stays what it was."""

    def process(param: Any, group: int) -> None:
        if not optimizer._coalesce_grad_reduction:
            optimizer.setup_buckets()
            if optimizer.use_grad_accum_attribute:
                optimizer._fill_param_grad_accum_attribute(param)
            optimizer.reduce_ready_partitions_and_remove_grads(param, group)

    def reduce(pipeline_parallel: bool = False) -> None:
        assert not pipeline_parallel
        optimizer.overlapping_partition_gradients_reduce_epilogue()

    optimizer.process_gradients = process
    optimizer.reduce_gradients = reduce


def _at_once(optimizer: Any, dtype: torch.dtype) -> None:
    """All gradients fit one bucket, that of this dtype: they are noted as they come, copied into it
    in one call, sent, and copied out of it in one call."""
    single_out, send = optimizer.copy_grads_in_partition, optimizer.reduce_ipg_grads
    came: list[tuple[Any, int]] = []
    leaving: list[tuple[Any, int]] = []

    def note(param: Any, group: int) -> None:
        if param.numel():
            came.append((param, group))

    def into_bucket() -> None:
        bucket = optimizer.ipg_buckets[dtype]
        assert not bucket.elements, "gradients of a step went into the bucket before its end"
        grads = [optimizer.get_gradient_for_reduction(param) for param, _ in came]
        _move(grads, bucket.buffer[bucket.index])
        bucket.elements = sum(grad.numel() for grad in grads)
        bucket.grads.extend(grads)
        bucket.params.extend(
            (group, param.param_idx_in_group, optimizer.get_param_id(param))
            for param, group in came
        )
        came.clear()

    def out_of_bucket() -> None:
        first, *rest = leaving
        leaving.clear()
        single_out(*first)  # makes room for all
        grads = [optimizer.get_gradient_for_reduction(param) for param, _ in rest]
        if grads:
            room = optimizer.grads_in_partition.view(-1)
            _move(grads, room[optimizer.grads_in_partition_offset :])
        optimizer.grads_in_partition_offset += sum(grad.numel() for grad in grads)

    def reduce(comm_dtype: Any = None) -> None:
        if came:
            into_bucket()
        send(comm_dtype)
        if leaving:
            out_of_bucket()

    optimizer.reduce_independent_p_g_buckets_and_remove_grads = note
    optimizer.copy_grads_in_partition = lambda param, group=None: leaving.append((param, group))
    optimizer.reduce_ipg_grads = reduce


def _move(grads: Sequence[Tensor], flat_N: Tensor) -> None:
    """These gradients into the first elements of `flat_N`, one after another, in one call; they
    live there from now on."""
    sizes = [grad.numel() for grad in grads]
    parts = flat_N[: sum(sizes)].split(sizes)
    places = [part.view(grad.shape) for part, grad in zip(parts, grads, strict=True)]
    torch._foreach_copy_(places, [grad.detach() for grad in grads])
    for grad, place in zip(grads, places, strict=True):
        grad.data = place
