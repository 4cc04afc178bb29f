"""The weights of a backbone, and LoRA on them. User mistakes become UserErrors."""

from __future__ import annotations

import inspect
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, try_to_load_from_cache
from torch import Tensor, nn
from transformers import AutoModel, BitsAndBytesConfig
from transformers.utils import (
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
)
from transformers.utils.logging import disable_progress_bar

from mipic_llm.errors import UserError
from mipic_llm.hub import download_bars
from mipic_llm.model.attention import choose, model_class
from mipic_llm.model.files import bad
from mipic_llm.model.source import Source
from mipic_llm.quiet import import_bitsandbytes

# Classes with state-space layers, whose code or kernels take the weights of some modules as they
# are: past LoRA, which would learn nothing there, and never unpacked from 4 bits. peft refuses the
# first two of those modules in some of the classes.
STATE_SPACE = ("bamba", "falcon_h1", "falcon_mamba", "granitemoehybrid", "jamba", "mamba", "mamba2",
               "nemotron_h", "zamba2")  # fmt: skip
TAKEN = ("out_proj", "conv1d", "dt_proj", "x_proj")

LARGE = 2 << 30  # bytes of weights that take a while to read

disable_progress_bar()  # the bar of a run is its steps; downloads of weights have one


def dtype_of(precision: str) -> torch.dtype:
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]


def lacks_bf16() -> bool:
    """Whether there is a GPU that only emulates bf16 (V100, T4), many times slower than fp32."""
    cuda = torch.cuda.is_available()
    return cuda and not torch.cuda.is_bf16_supported(including_emulation=False)


def check_precision(precision: str) -> None:
    """UserError for bf16 on a GPU without it."""
    if precision == "bf16" and lacks_bf16():
        raise UserError("train.precision: this GPU has no bf16; use --train.precision fp32")


def about_weights(source: Source) -> str | None:
    """What to say before the weights of a base are read: that they are downloaded, or that there
    are many; None for small ones that are here."""
    folder = Path(source.backbone)
    if not folder.is_dir():
        kept = [try_to_load_from_cache(source.backbone, name, revision=source.commit)
                for name in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME,
                             WEIGHTS_INDEX_NAME)]  # fmt: skip
        here = [Path(path).parent for path in kept if isinstance(path, str)]
        if not here:
            return None if constants.HF_HUB_OFFLINE else f"downloading {source.backbone}"
        folder = here[0]
    size = sum(path.stat().st_size for path in folder.glob("*")
               if path.suffix in (".safetensors", ".bin"))  # fmt: skip
    return f"reading {size / 2**30:.1f} GiB of weights" if size > LARGE else None


def load_model(source: Source, model: Any, *, precision: str, dropout: float | None) -> nn.Module:
    """The backbone with its weights, no head and no pooler; an adapter stays aside.

    model: a ModelConfig, for attn and quantization. dropout: replaces every dropout probability of
    the config; None leaves them. Under ZeRO-3 call inside `runtime.engine.loading`, where each rank
    keeps only its part.
    """
    import_bitsandbytes()
    config = deepcopy(source.config)  # of others who load it too
    if dropout is not None:
        for key, value in config.to_dict().items():
            if "drop" in key and isinstance(value, (int, float)) and not isinstance(value, bool):
                setattr(config, key, dropout)
    options: dict[str, Any] = {
        "config": config, "dtype": dtype_of(precision), **source.hub,
        "attn_implementation": choose(model.attn, precision, config).name,
    }  # fmt: skip
    kind = model_class(config)
    if kind is not None and "add_pooling_layer" in inspect.signature(kind.__init__).parameters:
        options["add_pooling_layer"] = False
    if model.quantization == "nf4":
        if config.model_type in STATE_SPACE:
            raise UserError(
                f"model.quantization: the state-space layers of {source.name} cannot read weights "
                "in 4 bits; use --model.quantization none"
            )
        options["quantization_config"] = nf4(dtype_of(precision))
    with download_bars():
        found, report = AutoModel.from_pretrained(
            source.backbone, output_loading_info=True, **options
        )
    lost = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
    if lost := [key for key in lost if not key.startswith("pooler.")]:
        stray = sorted(report["unexpected_keys"])
        other = f", and have {len(stray)} of other names, such as {stray[0]}" if stray else ""
        raise bad(
            source.name, f"its files lack {len(lost)} weights of {type(found).__name__}, such as "
            f"{lost[0]}, which would be random{other}; give a whole checkpoint of this class",
        )  # fmt: skip
    return plain_layout(found)


def nf4(dtype: torch.dtype) -> BitsAndBytesConfig:
    """Weights of linear layers in 4 bits (QLoRA, arXiv 2305.14314); computes in dtype."""
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype, bnb_4bit_quant_storage=dtype,
    )  # fmt: skip


def plain_layout(model: nn.Module) -> nn.Module:
    """The same model, whose 4-bit layers never pack their weights anew for inference on a CPU, as
    bitsandbytes does in place: training cannot read them afterwards, and they compute in bf16."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def add_lora(model: nn.Module, lora: Any) -> nn.Module:
    """Wrap with peft (task FEATURE_EXTRACTION); only adapter weights are trained."""
    from peft import LoraConfig, get_peft_model

    targets: Any = lora.target_modules
    left_out = ["pooler"] if getattr(model, "pooler", None) else []
    if list(targets) == ["all-linear"]:
        targets = "all-linear"
        if model.config.model_type in STATE_SPACE:
            left_out += TAKEN
        unlike = [name for name, m in model.named_modules() if _unlike_linear(m)]
        left_out += sorted({name.rpartition(".")[2] for name in unlike})
    settings = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets,
        use_dora=lora.use_dora, bias="none", task_type="FEATURE_EXTRACTION",
        exclude_modules=rf"(.*\.)?({'|'.join(left_out)})(\..*)?" if left_out else None,
    )  # fmt: skip
    try:
        return get_peft_model(model, settings, autocast_adapter_dtype=False)
    except ValueError as error:
        why = str(error).splitlines()[0]
        if targets == "all-linear" and why.startswith(("No `target_modules`", "No modules")):
            why = f"{type(model).__name__} has no linear layers that peft knows; use --lora.rank 0"
        raise UserError(f"lora.target_modules: {why}") from error


def _unlike_linear(module: nn.Module) -> bool:
    """A layer that a model's own code made of torch's, with another product: routers of experts
    that give several tensors (Llama 4, PhiMoE), products in groups (DeepSeek V4)."""
    kind, own = type(module), ("transformers.models.", "transformers_modules.")
    changed = isinstance(module, nn.Linear) and kind.forward is not nn.Linear.forward
    return changed and kind.__module__.startswith(own)


def _without_head(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """An adapter's weights by the names that they have on the model without its head."""
    top, own = "base_model.model.", {name for name, _ in model.named_modules()}
    found = {}
    for key, value in weights.items():
        inner = key.removeprefix(top)
        first, _, rest = inner.partition(".")
        if first in ("lm_head", "cls", "embed_out") and first not in own:
            continue
        deeper = first not in own and rest.partition(".")[0] in own
        found[top + (rest if deeper else inner)] = value
    return found


def lora_settings(adapter: str) -> dict[str, Any]:
    """Options of a run that the adapter of a directory decides. UserError for what is no LoRA, or
    trains more than LoRA's weights."""
    import_bitsandbytes()
    from peft import PeftConfig

    try:
        found = PeftConfig.from_pretrained(adapter)
    except (ValueError, OSError, TypeError, KeyError) as error:
        raise UserError(f"model.adapter {adapter}: {str(error).splitlines()[0]}") from None
    kind = str(getattr(found.peft_type, "value", found.peft_type))
    if kind != "LORA" or found.modules_to_save or found.bias != "none":
        more = "one that trains more than LoRA's weights"
        raise UserError(
            f"model.adapter {adapter} is {more if kind == 'LORA' else f'of the kind {kind}'}, and "
            "only plain LoRA is trained further; train a new one on a merged model"
        )
    targets = found.target_modules
    targets = [targets] if isinstance(targets, str) else sorted(targets or ())
    return {"lora.rank": found.r, "lora.alpha": float(found.lora_alpha),
            "lora.use_dora": found.use_dora, "lora.target_modules": targets}  # fmt: skip


def with_lora(model: nn.Module, config: Any, source: Source) -> nn.Module:
    """The model with the LoRA that a run trains: a new one, or the adapter that it began with."""
    if source.adapter is None:
        return add_lora(model, config.lora)
    dtype = dtype_of(config.train.precision)
    return read_adapter(model, source.adapter, dtype, config.lora.dropout)


def read_adapter(
    model: nn.Module, adapter: str, dtype: torch.dtype, dropout: float | None = None
) -> nn.Module:
    """The model with the LoRA of a directory beside it (not merged: under ZeRO-3 the base is in
    parts), in dtype. One saved from a model with a head fits too: what it adds to the head is left
    out. dropout: of LoRA, where it is to be trained; None = for inference. UserError where a weight
    finds no place, or a place no weight."""
    from peft import PeftConfig, get_peft_model, set_peft_model_state_dict
    from peft.utils import load_peft_weights

    try:
        settings = PeftConfig.from_pretrained(adapter)
        if str(settings.peft_type) not in ("LORA", "PeftType.LORA"):
            raise ValueError(f"it is of the kind {settings.peft_type}, and only LoRA is understood")
        settings.task_type, settings.inference_mode = "FEATURE_EXTRACTION", dropout is None
        if dropout is not None:
            settings.lora_dropout = dropout
        found = get_peft_model(model, settings, autocast_adapter_dtype=False)
        weights = _without_head(load_peft_weights(adapter, device="cpu"), model)
        report = set_peft_model_state_dict(found, weights)
        lost = [k for k in report.missing_keys if "lora_" in k] + list(report.unexpected_keys)
        if lost or not weights:
            raise ValueError(f"{len(lost)} of its weights find no place, such as {lost[:1]}")
    except (ValueError, RuntimeError, OSError, TypeError, KeyError) as error:
        raise UserError(
            f"model {adapter}: the adapter does not fit its base: {str(error).splitlines()[0]}"
        ) from error
    for name, parameter in found.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(dtype)
    return found
