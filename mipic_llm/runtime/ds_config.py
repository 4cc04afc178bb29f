"""A DeepSpeed JSON and our configuration made into one dictionary, or a refusal.

"auto" in the file is filled here. A number in the file that says something else than our
configuration is an error, never a silent winner. The contract: one DeepSpeed micro-step per
optimizer step (chunks of GradCache are inside it), the mean over ranks, our optimizer and schedule.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mipic_llm.config import Config, nearest
from mipic_llm.config.files import find_file, shipped
from mipic_llm.errors import UserError, one_line
from mipic_llm.runtime.ds_ours import Refused, refuse_ours, section_of

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
_MONITORS = {"tensorboard": "tensorboard", "wandb": "wandb", "comet": "comet_ml"}  # their packages
_NEVER = 1_000_000_000  # steps between DeepSpeed's own progress lines: we print ours


def load_ds_config(
    path: str | Path | None, config: Config, *, world_size: int, hidden_size: int
) -> dict[str, Any]:
    """The dictionary for `deepspeed.initialize`, complete and in agreement with `config`.

    path: a DeepSpeed JSON, the name of a shipped one, or None for ZeRO-0. world_size: ranks.
    hidden_size: width of the backbone, for the bucket sizes left to "auto". Raises UserError naming
    the file, the key, both values and what to do.
    """
    try:
        ds = {"zero_optimization": {"stage": 0}} if path is None else _read(Path(path))
        _known(ds, KNOWN_KEYS)
        refuse_ours(ds, config)
        _agree(ds, config, world_size)
        _zero(section_of(ds, "zero_optimization"), hidden_size, config.lora.rank)
        for key, value in {
            "steps_per_print": _NEVER, "wall_clock_breakdown": False,
            "zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False,
            "torch_autocast": {"enabled": False},
        }.items():  # fmt: skip
            ds.setdefault(key, value)
        _no_auto_left(ds)
        _judge(ds)
    except Refused as error:
        raise UserError(f"ds_config {path}: {error}") from None
    return ds


def _read(path: Path) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [key for key, _ in pairs]
        for key in names:
            if names.count(key) > 1:
                raise Refused(f"{key} is given twice; keep one")
        return dict(pairs)

    try:
        text = (find_file("ds_configs", str(path)) or path).read_text(encoding="utf-8-sig")
        ds = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise Refused(f"not valid JSON at line {error.lineno}: {error.msg}") from None
    except UnicodeDecodeError:
        raise Refused("not UTF-8 text; give a DeepSpeed JSON file") from None
    except (ValueError, RecursionError):
        raise Refused("a number of too many digits, or brackets too deep; mend the file") from None
    except OSError as error:
        ready = " ".join(sorted(p.stem for p in shipped("ds_configs").glob("*.json")))
        what = f"cannot be read: {error.strerror}; shipped ones, in ds_configs/: {ready}"
        raise Refused(what) from None
    if not isinstance(ds, dict):
        raise Refused('must be a JSON object {"zero_optimization": ...}')
    return ds


def _known(section: dict[str, Any], keys: Collection[str], prefix: str = "") -> None:
    for key in section:
        if key not in keys:
            hint = nearest([key], keys) or "; remove it"
            raise Refused(f"DeepSpeed knows no key {prefix}{key}{hint}")


def _agree(ds: dict[str, Any], config: Config, world_size: int) -> None:
    """Fill the keys that our configuration decides; raise where the file says something else."""
    t, bf16 = config.train, config.train.precision == "bf16"
    step = f"one micro-step of train.batch_size {t.batch_size} on each of {world_size} rank(s)"
    ours = {  # key -> our value, why, the flag that changes it
        "train_micro_batch_size_per_gpu":
            (t.batch_size, f"train.batch_size is {t.batch_size}", "--train.batch_size"),
        "gradient_accumulation_steps":
            (1, "our steps are one micro-step (chunks: train.chunk_size)", ""),
        "train_batch_size": (t.batch_size * world_size, f"our step is {step}", ""),
        "gradient_clipping":
            (float(t.max_grad_norm), f"train.max_grad_norm is {t.max_grad_norm}",
             "--train.max_grad_norm"),
        "bf16.enabled": (bf16, f"train.precision is {t.precision}", "--train.precision"),
    }  # fmt: skip
    for name, (value, because, flag) in ours.items():
        key = name.removeprefix("bf16.")
        section = ds if key == name else section_of(ds, "bf16")
        theirs = section.get(key, "auto")
        number = isinstance(theirs, (bool, int, float))
        right_type = number and isinstance(theirs, bool) == isinstance(value, bool)
        if theirs not in (None, "auto") and not (right_type and theirs == value):
            wanted = ("fp32" if bf16 else "bf16") if section is not ds else theirs
            advice = f" or pass {flag} {wanted}" if flag and right_type else ""
            shown = f"{name} is {json.dumps(theirs)}"
            raise Refused(f'{shown} but {because}; put "auto" there{advice}')
        section[key] = value


def _zero(zero: dict[str, Any], hidden_size: int, lora_rank: int) -> None:
    """Check zero_optimization and fill the sizes left to "auto" (the usual rules of thumb)."""
    stage = zero.setdefault("stage", 0)
    if isinstance(stage, bool) or stage not in (0, 1, 2, 3):
        raise Refused(f"zero_optimization.stage is {json.dumps(stage)}; give 0, 1, 2 or 3")
    _known(zero, _zero_keys(), "zero_optimization.")
    square = hidden_size * hidden_size
    for key, value in {
        "reduce_bucket_size": square, "allgather_bucket_size": square,
        "stage3_prefetch_bucket_size": int(0.9 * square),
        "stage3_param_persistence_threshold": persistence_threshold(hidden_size, lora_rank),
        "overlap_comm": stage == 3, "contiguous_gradients": True,
    }.items():  # fmt: skip
        if zero.get(key) == "auto":
            zero[key] = value
    offload = zero.get("offload_param")
    if stage < 3 and isinstance(offload, dict) and offload.get("device", "none") != "none":
        raise Refused(
            f"zero_optimization.offload_param works with stage 3 only, stage is {stage}; remove it "
            "or use --ds_config zero3_offload"
        )


def _zero_keys() -> set[str]:
    """The fields of DeepSpeed's own class, under the names a file uses, without its old ones."""
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    fields = DeepSpeedZeroConfig.model_fields.items()
    return {
        f.alias or name for name, f in fields if "deprecated" not in (f.json_schema_extra or ())
    }


def persistence_threshold(hidden_size: int, lora_rank: int) -> int:
    """Largest parameter (elements) that ZeRO-3 leaves whole on every rank.

    Norms and biases (at most 4 D, an inner layer's), and LoRA's A and B (at most 4 D r): gathering
    each alone would cost a collective for next to nothing, and checkpointing under LoRA trips over
    frozen norms that are gone when it recomputes (transformers issue 47254). Kept under D^2 / 5:
    the smallest matrices of the backbones (grouped keys, D^2 / 4 and more) are to be split.
    """
    return max(10 * hidden_size, min(4 * hidden_size * lora_rank, hidden_size**2 // 5))


def _no_auto_left(node: Any, key: str = "") -> None:
    """Raise for an "auto" that we have no rule for (DeepSpeed itself knows one place for it)."""
    if isinstance(node, dict):
        for name, value in node.items():
            _no_auto_left(value, f"{key}.{name}" if key else name)
    elif node == "auto" and key != "data_types.keep_in_fp32_modules":
        raise Refused(f'no rule fills "auto" at {key}; give a value or remove it')


def _judge(ds: dict[str, Any]) -> None:
    """Raise for what DeepSpeed's own reader refuses, with its reason."""
    from deepspeed.runtime.config import DeepSpeedConfig

    # Without our product: it makes its own from the ranks of the running process group.
    read = {k: v for k, v in copy.deepcopy(ds).items() if k != "train_batch_size"}
    try:
        DeepSpeedConfig(read)
    except ValidationError as error:
        first = error.errors()[0]
        key, value = ".".join(map(str, first["loc"])), json.dumps(first["input"], default=str)
        raise Refused(f"{key} is {value}: {first['msg']} ({error.title}); mend it") from None
    except Exception as error:  # it asserts, looks up keys, adds what it gets: it is about the file
        raise Refused(f"DeepSpeed refuses it: {one_line(error)}; mend the file") from None
    for key, package in _MONITORS.items():
        if (ds.get(key) or {}).get("enabled") and not find_spec(package):
            raise Refused(f"{key} is enabled, but {package} is not installed; remove it")
