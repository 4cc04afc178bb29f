"""A finished embedding model: what its directory says about how vectors are made.

Understood: our exports (a peft adapter directory or a merged one), any sentence-transformers
directory of Transformer + Pooling (+ Normalize), a bare transformers directory, and the same as a
Hugging Face id. What we cannot reproduce exactly is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mipic_llm.errors import UserError

_HARMLESS = ("Normalize", "Dropout")  # length does not change a cosine, dropout is off
_POOLINGS = {"cls": "cls", "mean": "mean", "lasttoken": "last"}
_LEGACY = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


class Finished(NamedTuple):
    """What the files say; None where they say nothing.

    backbone: directory or hub id of the transformer's weights; adapter: of the LoRA on it;
    tokenizer: where its files are. prompts: by name, the empty ones too; default_prompt: what
    sentence-transformers puts before a text when asked for no prompt. portable: it has a
    modules.json. dims: trained prefixes.
    """

    backbone: str
    adapter: str | None
    tokenizer: str
    pooling: str | None
    prompts: dict[str, str]
    default_prompt: str
    max_length: int | None
    lower_case: bool
    portable: bool
    inner_norm: str | None
    dims: list[int] | None


def read_finished(name: str, *, base: str | None = None, revision: str | None = None) -> Finished:
    """Read the settings of `name`, a directory or a Hugging Face id; no weights.

    base: backbone to use in place of the one that an adapter names.
    Raises UserError for a directory that is no model, or one that does what we do not.
    """
    folder = _settings_folder(name, revision)
    inside = _modules(folder, name)
    root = folder / inside.get("Transformer", "")
    if inside.get("Transformer"):
        name = str(root) if Path(name).is_dir() else _whole(name, inside["Transformer"], revision)
    adapter = None
    backbone = name
    if (root / "adapter_config.json").is_file():
        adapter, backbone = name, _base_of(root, name, base)
    elif Path(name).is_dir() and not (root / "config.json").is_file():
        raise UserError(
            f"--model {name}: it holds neither config.json nor adapter_config.json, so it is no "
            "model directory"
        )
    st = _json(root / "sentence_bert_config.json")
    _refuse_tasks(st, name)
    own = _json(folder / "config_sentence_transformers.json")
    prompts = {k: v or "" for k, v in (own.get("prompts") or {}).items()}
    default = own.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise UserError(f"--model {name}: its default prompt {default!r} is not among its prompts")
    pooling = _pooling(folder / inside["Pooling"], name, prompts) if "Pooling" in inside else None
    config, run = _json(root / "config.json"), _run_of(folder)
    return Finished(
        backbone, adapter, name if (root / "tokenizer_config.json").is_file() else backbone,
        pooling, prompts, prompts.get(default, "") if default else "", st.get("max_seq_length"),
        bool(st.get("do_lower_case")), bool(inside),
        own.get("inner_norm") or config.get("inner_norm") or run.get("inner_norm"),
        own.get("matryoshka_dimensions") or config.get("matryoshka_dimensions") or run.get("dims"),
    )  # fmt: skip


def _settings_folder(name: str, revision: str | None) -> Path:
    """The directory itself, or the small files of a hub id."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or path.exists():
        raise UserError(f"--model {name}: no such directory")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=["*.json"]))
    except Exception as error:  # the hub raises many kinds; the user can only do one thing
        raise UserError(
            f"--model {name}: no such directory, and as a Hugging Face id it cannot be read "
            f"({str(error).splitlines()[0]}); check the name, or the network"
        ) from error


def _whole(name: str, sub: str, revision: str | None) -> str:
    from huggingface_hub import snapshot_download

    return str(Path(snapshot_download(name, revision=revision, allow_patterns=[f"{sub}/*"])) / sub)


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--model: {path} cannot be read as JSON: {error}") from None
    return found if isinstance(found, dict) else {"modules": found}


def _modules(folder: Path, name: str) -> dict[str, str]:
    """Class name -> path of the modules that we reproduce; empty without modules.json."""
    listed = _json(folder / "modules.json").get("modules", [])
    found: dict[str, str] = {}
    for entry in listed:
        kind = str(entry["type"]).rsplit(".", 1)[-1]
        if kind in _HARMLESS:
            continue
        if kind not in ("Transformer", "Pooling") or kind in found:
            raise UserError(
                f"--model {name}: its modules.json has a {kind} module (path "
                f"{entry.get('path') or '.'}), which is not part of our readout: only Transformer, "
                "Pooling and Normalize can be evaluated"
            )
        found[kind] = entry.get("path") or ""
    if listed and list(found) != ["Transformer", "Pooling"]:
        raise UserError(
            f"--model {name}: its modules.json must hold a Transformer and then a Pooling module, "
            f"it holds {', '.join(found) or 'neither'}"
        )
    return found


def _pooling(folder: Path, name: str, prompts: Mapping[str, str]) -> str:
    config = _json(folder / "config.json")
    modes = config.get("pooling_mode") or [m for k, m in _LEGACY.items() if config.get(k)]
    modes = [modes] if isinstance(modes, str) else list(modes) or ["mean"]
    if len(modes) > 1 or modes[0] not in _POOLINGS:
        raise UserError(
            f"--model {name}: it pools by {' + '.join(modes)}; only cls, mean and lasttoken can be "
            "evaluated"
        )
    if config.get("include_prompt") is False and any(prompts.values()):
        raise UserError(
            f"--model {name}: its pooling leaves the prompt's tokens out (include_prompt false), "
            "which cannot be evaluated"
        )
    return _POOLINGS[modes[0]]


def _refuse_tasks(st: Mapping[str, Any], name: str) -> None:
    task = st.get("transformer_task", "feature-extraction")
    output = st.get("module_output_name", "token_embeddings")
    if task != "feature-extraction" or output not in (None, "token_embeddings"):
        raise UserError(
            f"--model {name}: its sentence_bert_config.json asks for {task} giving {output}; only "
            "feature-extraction giving token_embeddings can be evaluated"
        )


def _base_of(folder: Path, name: str, base: str | None) -> str:
    """The backbone of an adapter: as told, as recorded, or beside the adapter."""
    recorded = base or _json(folder / "adapter_config.json").get("base_model_name_or_path")
    if not recorded:
        raise UserError(f"--model {name}: its adapter names no base; give --model.name BASE")
    for path in (Path(recorded), folder / recorded):
        if path.is_dir():
            return str(path)
    if Path(recorded).is_absolute() or recorded.startswith("."):
        raise UserError(
            f"--model {name}: its base {recorded} is not on this machine; give --model.name BASE"
        )
    return recorded


def _run_of(folder: Path) -> dict[str, Any]:
    """What the run beside an export (<output_dir>/adapter) says about its readouts."""
    path = folder.resolve().parent / "config.yaml"
    if folder.resolve().name not in ("adapter", "merged") or not path.is_file():
        return {}
    tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    found = {
        "inner_norm": (tree.get("model") or {}).get("inner_norm"),
        "dims": (tree.get("objective") or {}).get("dims"),
    }
    return {k: v for k, v in found.items() if v}
