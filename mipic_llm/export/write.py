"""Adapter and merged model directories: written aside, proved, then renamed into place."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import save_file
from torch import Tensor

from mipic_llm.errors import UserError
from mipic_llm.export.portable import EmbeddingSpec, write_json, write_portable
from mipic_llm.quiet import import_bitsandbytes

MERGED = 1e-3  # what a merge in float32 may change of a text's tokens, as a share of their length

Check = Callable[[Path], None]  # of the files, before they take their place; raises


class ExportError(RuntimeError):
    """What was written is not what was trained. Never ignored."""


def check_weights(state: dict[str, Tensor]) -> None:
    """ExportError on an empty or non-finite tensor, or when every LoRA B is zero after training."""
    if not state:
        raise ExportError("export: there are no weights to save")
    for name, value in state.items():
        if value.numel() == 0:
            raise ExportError(f"export: {name} is empty (a partitioned ZeRO-3 weight)")
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ExportError(f"export: {name} holds values that are not finite")
    lora_b = [v for k, v in state.items() if "lora_B" in k]
    if lora_b and not any(v.any() for v in lora_b):
        raise ExportError("export: every LoRA B is zero after training: the adapter learnt nothing")


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A fresh sibling directory that takes the place of `folder` when all went well; until then the
    old one is whole, here or as .NAME.old. Who may open it may read its files: safetensors writes
    them for their owner alone, and a server mostly runs as somebody else."""
    fresh, old = (folder.with_name(f".{folder.name}.{kind}") for kind in ("new", "old"))
    if old.exists() and not folder.exists():
        old.rename(folder)  # a kill came between the two moves below
    for rest in (fresh, old):
        shutil.rmtree(rest, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        yield fresh
        read = fresh.stat().st_mode & 0o666  # the umask is in it
        for path in (path for path in fresh.rglob("*") if path.is_file()):
            path.chmod(path.stat().st_mode | read)
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def write_adapter(
    folder: Path, state: dict[str, Tensor], peft_config: Any, spec: EmbeddingSpec,
    check: Check = lambda _: None,
) -> None:  # fmt: skip
    """A peft adapter that sentence-transformers and AutoModel load too.

    state: LoRA weights by name as peft names them in the live model (`...lora_A.default.weight`).
    """
    check_weights(state)
    tensors = {}
    for name in sorted(state):
        key = "base_model." + name.split("base_model.", 1)[1].replace(".default", "")
        tensors[key] = state[name].contiguous()
    settings = peft_config.to_dict()
    settings.update(
        inference_mode=True, base_model_name_or_path=spec.base_model,
        revision=spec.revision or (spec.commit if spec.base_model == spec.base_name else None),
        task_type="FEATURE_EXTRACTION",
    )  # fmt: skip
    if any(".encoder.layer." in key for key in tensors):
        # BERT-like: we train without the pooler; a loader's AutoModel has one, not to be adapted.
        settings["exclude_modules"] = ".*pooler.*"
    settings = {k: sorted(v) if isinstance(v, set) else v for k, v in settings.items()}
    if spec.quantization == "nf4":
        spec = spec._replace(notes=(
            *spec.notes, "Trained on the base in 4 bits, where it has its own vectors: load with "
            '`model_kwargs={"quantization_config": BitsAndBytesConfig(load_in_4bit=True, '
            'bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)}`. On the whole base they '
            "differ a little. A merged model (`mipic export --merged`) has the trained ones.",
        ))  # fmt: skip
    if spec.base_model != spec.base_name:  # other libraries open a path as it stands, from anywhere
        spec = spec._replace(
            notes=(*spec.notes, _elsewhere(spec)), beside=os.path.relpath(spec.base_model, folder)
        )
    if spec.revision:
        spec = spec._replace(notes=(
            *spec.notes, f"The base is {spec.base_model} at revision {spec.revision}: give it to "
            f"`AutoModel.from_pretrained(PATH, revision={spec.revision!r})`. sentence-transformers "
            "reads an adapter's base at its main branch: give it the merged model instead.",
        ))  # fmt: skip
    with replacing(folder) as fresh:
        save_file(tensors, fresh / "adapter_model.safetensors", metadata={"format": "pt"})
        text = json.dumps(settings, indent=2, sort_keys=True, default=str)
        (fresh / "adapter_config.json").write_text(text + "\n", encoding="utf-8")
        write_portable(fresh, spec)
        check(fresh)


def _elsewhere(spec: EmbeddingSpec) -> str:
    """The note of an adapter whose base is a directory of this machine."""
    base = spec.base_name or "BASE"
    return (
        "This is an adapter. `adapter_config.json` names its base by a path on the machine of its "
        f"training. Elsewhere, {f'the base is {base} on the hub' if spec.base_name else ''}"
        f"{': ' if spec.base_name else 'give a copy of the base: '}"
        f'`PeftModel.from_pretrained(AutoModel.from_pretrained("{base}"), "PATH")`, or '
        f"`mipic evaluate --model PATH --model.name {base}`. A merged model "
        "(`mipic export --merged`) needs no base."
    )


def write_merged(
    folder: Path, model: Any, spec: EmbeddingSpec, check: Check = lambda _: None
) -> None:
    """A whole model (a plain transformers model on CPU), adapter already merged in."""
    check_weights(dict(model.state_dict()))
    with replacing(folder) as fresh:
        try:
            model.save_pretrained(fresh, max_shard_size="5GB")
        except StrictDataclassError as error:  # a cut that the class cannot express
            why = " ".join(str(error).split())
            raise UserError(f"export: {type(model).__name__} cannot be written: {why}") from error
        path = fresh / "config.json"
        settings = json.loads(path.read_text(encoding="utf-8"))
        settings.update(is_matryoshka=True, matryoshka_dimensions=list(spec.dims))
        settings = for_older_loaders(settings) | settings
        write_json(path, settings)
        write_portable(fresh, spec)
        check(fresh)


def for_older_loaders(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What transformers 4 reads of a config.json in place of keys of transformers 5: the dtype, and
    the base and scaling of rotary positions, without which it takes a default and gives other
    vectors."""
    found = {"torch_dtype": settings["dtype"]} if settings.get("dtype") else {}
    rope = settings.get("rope_parameters") or {}
    local = rope.get("sliding_attention")
    rope = rope.get("full_attention", rope)
    if "rope_theta" not in rope:
        return found
    kind, theta = settings.get("model_type"), rope["rope_theta"]
    names = {"modernbert": "global_rope_theta", "gpt_neox": "rotary_emb_base"}
    found[names.get(kind, "rope_theta")] = theta
    if local:
        name = "local_rope_theta" if kind == "modernbert" else "rope_local_base_freq"
        found[name] = local["rope_theta"]
    if "partial_rotary_factor" in rope:
        name = "rotary_pct" if kind == "gpt_neox" else "partial_rotary_factor"
        found[name] = rope["partial_rotary_factor"]
    if rope.get("rope_type", "default") != "default":
        own = ("rope_theta", "partial_rotary_factor")
        found["rope_scaling"] = {k: v for k, v in rope.items() if k not in own}
    return found


def merge_adapter(spec: EmbeddingSpec, adapter: Path, dtype: torch.dtype) -> Any:
    """The base loaded afresh on CPU with the adapter merged in fp32, cast to dtype. Of a base in 4
    bits these values are taken, not the original ones: the adapter was trained on them. UserError
    where merging changes what the model gives, as of Zamba2, whose layers share weights."""
    import_bitsandbytes()
    from peft import PeftModel
    from transformers import AutoModel

    if spec.quantization == "none":
        base = AutoModel.from_pretrained(spec.base_model, dtype=torch.float32, **spec.hub)
    else:
        base = AutoModel.from_pretrained(spec.base_model, **spec.loading(dtype))
        base = base.dequantize(torch.float32).float()
    model = PeftModel.from_pretrained(base, str(adapter)).eval()
    ids_1T = torch.arange(5, 17)[None] % base.config.vocab_size
    with torch.no_grad():
        before_TD = model(input_ids=ids_1T).last_hidden_state[0].double()
        model = model.merge_and_unload()
        after_TD = model(input_ids=ids_1T).last_hidden_state[0].double()
    apart = float((after_TD - before_TD).norm() / before_TD.norm())
    if not apart < MERGED:
        raise UserError(
            f"merged: LoRA cannot be merged into {type(base).__name__}: the merged weights give "
            f"other vectors (by {apart:.1e}); use the adapter"
        )
    return model.to(dtype)
