"""A DeepSpeed JSON and our configuration made into one dictionary, or a refusal.

"auto" in the file is filled here. A number in the file that says something else than our
configuration is an error, never a silent winner. The contract: one DeepSpeed micro-step per
optimizer step (chunks of GradCache are inside it), the mean over ranks, our optimizer and schedule.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mipic_llm.config.fields import nearest
from mipic_llm.config.files import find_file, shipped
from mipic_llm.config.schema import Config
from mipic_llm.errors import UserError

# Top-level keys that DeepSpeed 0.19 reads (runtime/config.py and what it calls); it ignores others
# silently, which is how a misspelt key trains the wrong thing.
KNOWN_KEYS = frozenset(
    """
    activation_checkpointing aio autotuning bf16 bfloat16 checkpoint comet comms_logger
    communication_data_type compile csv_monitor data_efficiency data_types dataloader_drop_last
    datastates_ckpt ddp_bf16 disable_allgather disable_python_gc dump_state expert_parallel
    flops_profiler fp16 gradient_accumulation_steps gradient_allreduce_op gradient_clipping
    gradient_predivide_factor hybrid_engine log_level managed_gradient_accumulation memory_breakdown
    optimizer pipeline prescale_gradients scheduler seq_parallel_communication_data_type
    sequence_parallel_size steps_per_print tensor_parallel tensorboard timers torch_autocast
    train_batch_size train_micro_batch_size_per_gpu use_data_before_expert_parallelism
    vocabulary_size wall_clock_breakdown wandb weight_quantization writer
    zero_allow_untested_optimizer zero_force_ds_cpu_optimizer zero_optimization
    """.split()
)
# The fields of DeepSpeedZeroConfig, under the names a file uses; others end in its traceback.
KNOWN_ZERO_KEYS = frozenset(
    """
    allgather_bucket_size allgather_partitions compute_grad_norm contiguous_gradients
    elastic_checkpoint enable_sanity_checks ignore_unused_parameters leaf_module legacy_stage1
    load_from_fp32_weights log_trace_cache_warnings memory_efficient_linear offload_optimizer
    offload_param overlap_comm override_module_apply parameter_alignment
    pipeline_loading_checkpoint reduce_bucket_size reduce_scatter round_robin_gradients
    save_muon_momentum_buffer_in_memory stage stage3_allgather_sequential
    stage3_gather_16bit_weights_on_model_save stage3_max_live_parameters stage3_max_reuse_distance
    stage3_model_persistence_threshold stage3_module_granularity_threshold
    stage3_param_persistence_threshold stage3_prefetch_bucket_size
    stage3_use_all_reduce_for_fetch_params sub_group_size use_multi_rank_bucket_allreduce zenflow
    zero_hpz_partition_size zero_quantized_gradients zero_quantized_nontrainable_weights
    zero_quantized_weights
    """.split()
)
_NEVER = 1_000_000_000  # steps between DeepSpeed's own progress lines: we print ours


def load_ds_config(
    path: str | Path | None, config: Config, *, world_size: int, hidden_size: int
) -> dict[str, Any]:
    """The dictionary for `deepspeed.initialize`, complete and in agreement with `config`.

    path: a DeepSpeed JSON, the name of a shipped one, or None for ZeRO-0. world_size: ranks.
    hidden_size: width of the backbone, for the bucket sizes left to "auto". Raises UserError naming
    the file, the key, both values and what to do.
    """
    where = f"ds_config {path}"
    ds = {"zero_optimization": {"stage": 0}} if path is None else _read(Path(path), where)
    unknown = [key for key in ds if key not in KNOWN_KEYS]
    if unknown:
        hint = nearest(unknown[:1], KNOWN_KEYS) or "; remove it"
        raise UserError(f"{where}: DeepSpeed knows no key {unknown[0]}{hint}")
    _refuse_ours(ds, where)
    t, bf16 = config.train, config.train.precision == "bf16"
    batch = f"one micro-step of train.batch_size {t.batch_size} on each of {world_size} rank(s)"
    _own(ds, "train_micro_batch_size_per_gpu", t.batch_size, where,
         f"train.batch_size is {t.batch_size}",
         f"--train.batch_size {ds.get('train_micro_batch_size_per_gpu')}")  # fmt: skip
    _own(ds, "gradient_accumulation_steps", 1, where,
         "our steps are one micro-step (chunks: train.chunk_size)", "")  # fmt: skip
    _own(ds, "train_batch_size", t.batch_size * world_size, where, f"our step is {batch}", "")
    _own(ds, "gradient_clipping", float(t.max_grad_norm), where,
         f"train.max_grad_norm is {t.max_grad_norm}",
         f"--train.max_grad_norm {ds.get('gradient_clipping')}")  # fmt: skip
    other = "fp32" if bf16 else "bf16"
    _own(_section(ds, "bf16", where), "enabled", bf16, where,
         f"train.precision is {t.precision}", f"--train.precision {other}", "bf16.")  # fmt: skip
    _zero(ds, where, hidden_size, config.lora.rank)
    ds.setdefault("steps_per_print", _NEVER)
    ds.setdefault("wall_clock_breakdown", False)
    ds.setdefault("zero_allow_untested_optimizer", True)
    ds.setdefault("zero_force_ds_cpu_optimizer", False)
    ds.setdefault("torch_autocast", {"enabled": False})
    _no_auto_left(ds, where)
    return ds


def _read(path: Path, where: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key, value in pairs:
            if key in out:
                raise UserError(f"{where}: {key} is given twice; keep one")
            out[key] = value
        return out

    try:
        text = (find_file("ds_configs", str(path)) or path).read_text(encoding="utf-8-sig")
        ds = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not valid JSON at line {error.lineno}: {error.msg}") from None
    except UnicodeDecodeError:
        raise UserError(f"{where}: not UTF-8 text; give a DeepSpeed JSON file") from None
    except OSError as error:
        ready = " ".join(sorted(p.stem for p in shipped("ds_configs").glob("*.json")))
        raise UserError(
            f"{where} cannot be read: {error.strerror}; shipped ones, in ds_configs/: {ready}"
        ) from None
    if not isinstance(ds, dict):
        raise UserError(f'{where}: must be a JSON object {{"zero_optimization": ...}}')
    return ds


def _section(ds: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    section = ds.setdefault(key, {})
    if not isinstance(section, dict):
        raise UserError(f"{where}: {key} must be an object {{...}}, got {json.dumps(section)}")
    return section


def _refuse_ours(ds: dict[str, Any], where: str) -> None:
    """Raise for whatever would take over a part of training that is ours."""
    for key, flags in (
        ("optimizer", "--train.learning_rate, --train.weight_decay"),
        ("scheduler", "--train.warmup_ratio, --train.min_learning_rate_ratio"),
    ):
        if ds.get(key) is not None:
            raise UserError(f"{where}: {key} is ours to make; remove it and use {flags}")
        ds.pop(key, None)
    if "bfloat16" in ds:
        raise UserError(f"{where}: bfloat16 is the old name; write bf16")
    for key in ("fp16", "torch_autocast"):
        if _section(ds, key, where).get("enabled") not in (None, False, "auto"):
            raise UserError(
                f"{where}: {key} is enabled, but precision is ours (bf16 or fp32); remove it and "
                "use --train.precision"
            )
        ds.pop(key)
    if ds.get("gradient_allreduce_op", "mean") != "mean":
        raise UserError(
            f"{where}: gradient_allreduce_op is {ds['gradient_allreduce_op']}, our gradients need "
            "the mean over ranks; remove it"
        )
    for key in ("sequence_parallel_size", "tensor_parallel", "data_efficiency"):
        value = ds.get(key)
        if value in (None, 1, {}) or (isinstance(value, dict) and value.get("enabled") is False):
            continue
        raise UserError(f"{where}: {key} is not supported by this trainer; remove it")


def _own(
    section: dict[str, Any],
    key: str,
    ours: Any,
    where: str,
    because: str,
    flag: str,
    prefix: str = "",
) -> None:
    """Fill section[key], which is ours; raise when the file holds another value."""
    theirs = section.get(key, "auto")
    if theirs is None or theirs == "auto":
        section[key] = ours
        return
    kinds = (bool,) if isinstance(ours, bool) else (int, float)
    right_type = isinstance(theirs, kinds) and isinstance(theirs, bool) == isinstance(ours, bool)
    if right_type and theirs == ours:
        section[key] = ours
        return
    advice = f" or pass {flag}" if flag and right_type else ""
    raise UserError(
        f'{where}: {prefix}{key} is {json.dumps(theirs)} but {because}; put "auto" there{advice}'
    )


def _zero(ds: dict[str, Any], where: str, hidden_size: int, lora_rank: int) -> None:
    """Check zero_optimization and fill the sizes left to "auto" (the usual rules of thumb)."""
    zero = _section(ds, "zero_optimization", where)
    stage = zero.setdefault("stage", 0)
    if isinstance(stage, bool) or stage not in (0, 1, 2, 3):
        raise UserError(
            f"{where}: zero_optimization.stage is {json.dumps(stage)}; give 0, 1, 2 or 3"
        )
    unknown = [key for key in zero if key not in KNOWN_ZERO_KEYS]
    if unknown:
        hint = nearest(unknown[:1], KNOWN_ZERO_KEYS) or "; remove it"
        raise UserError(f"{where}: DeepSpeed knows no key zero_optimization.{unknown[0]}{hint}")
    square = hidden_size * hidden_size
    auto = {
        "reduce_bucket_size": square,
        "allgather_bucket_size": square,
        "stage3_prefetch_bucket_size": int(0.9 * square),
        "stage3_param_persistence_threshold": persistence_threshold(hidden_size, lora_rank),
        "overlap_comm": stage == 3,
        "contiguous_gradients": True,
    }
    for key, value in auto.items():
        if zero.get(key) == "auto":
            zero[key] = value
    if stage < 3 and _offloads(zero, "offload_param"):
        raise UserError(
            f"{where}: zero_optimization.offload_param works with stage 3 only, stage is {stage}; "
            "remove it or use ds_configs/zero3_offload.json"
        )


def persistence_threshold(hidden_size: int, lora_rank: int) -> int:
    """Largest parameter (elements) that ZeRO-3 leaves whole on every rank.

    Norms and biases (at most 4 D, an inner layer's), and LoRA's A and B (at most 4 D r): gathering
    each alone would cost a collective for next to nothing, and checkpointing under LoRA trips over
    frozen norms that are gone when it recomputes (transformers issue 47254). Kept under D^2 / 5:
    the smallest matrices of the backbones (grouped keys, D^2 / 4 and more) are to be split.
    """
    return max(10 * hidden_size, min(4 * hidden_size * lora_rank, hidden_size**2 // 5))


def _offloads(zero: dict[str, Any], key: str) -> bool:
    section = zero.get(key)
    return isinstance(section, dict) and section.get("device", "none") != "none"


def _no_auto_left(node: Any, where: str, key: str = "") -> None:
    """Raise for an "auto" that we have no rule for (DeepSpeed itself knows one place for it)."""
    if isinstance(node, dict):
        for name, value in node.items():
            _no_auto_left(value, where, f"{key}.{name}" if key else name)
    elif node == "auto" and key != "data_types.keep_in_fp32_modules":
        raise UserError(f'{where}: no rule fills "auto" at {key}; give a value or remove it')
