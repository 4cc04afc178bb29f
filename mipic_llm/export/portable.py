"""The directory that loads everywhere: sentence-transformers, transformers, peft, vLLM, TEI.

Written by hand, not re-saved through a library, because re-saving drops the legacy keys that older
loaders need. Nothing here depends on the time or the machine: same weights, same bytes.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mipic_llm.config import Config
from mipic_llm.config.files import model_folder
from mipic_llm.data.tokenise import TextEncoder
from mipic_llm.errors import UserError
from mipic_llm.export.card import Facts, model_card
from mipic_llm.export.tokenizer_file import (
    change_tokenizer,
    cut_at,
    for_older_tokenizers,
)
from mipic_llm.model.dense import Dense, write_dense
from mipic_llm.model.files import QUICKSTART_HUB_ID, own_tokenizer
from mipic_llm.model.load import nf4
from mipic_llm.model.prompts import prompts_of_sources
from mipic_llm.model.source import Source, prompts_by_kind

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt",
    "vocab.json", "merges.txt", "added_tokens.json", "chat_template.jinja",
)  # fmt: skip
_MODES = {"cls": "cls_token", "mean": "mean_tokens", "last": "lasttoken"}
_OTHER_MODES = ("max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens")


class EmbeddingSpec(NamedTuple):
    """How vectors are made from the model: all that a loader must know beside the weights."""

    base_model: str
    pooling: str
    width: int
    n_layers: int
    dims: tuple[int, ...]
    max_seq_length: int
    prompts: dict[str, str]
    padding_side: str = "right"
    append_eos: str | None = None
    objective: str = "mipic"
    inner_norm: str = "raw"
    notes: tuple[str, ...] = ()  # lines for the model card
    revision: str | None = None  # of base_model on the hub
    trust_remote_code: bool = False
    default_prompt: str | None = None  # its name
    lower_case: bool = False
    tokenizer_files: tuple[str, ...] = ()  # what its class reads beside TOKENIZER_FILES
    dense: tuple[Dense, ...] = ()
    quantization: str = "none"  # of the base that an adapter was trained on
    base_name: str | None = None  # the base's id on the hub, where it has one
    commit: str | None = None  # of the base on the hub, where it is known
    facts: Facts | None = None  # what the run recorded, for the model card
    beside: str | None = None  # path from an adapter to a base that is a directory
    include_prompt: bool = True  # whether the pooling reads a prompt's tokens
    ends_in_eos: bool = False  # append_eos is the tokenizer's own end token
    input_names: tuple[str, ...] = ()  # what the tokenizer gives a model
    tokenizer_at: str | None = None  # directory of the tokenizer, where it is not the base's

    @property
    def hub(self) -> dict[str, Any]:
        """Keywords for loading base_model, or an adapter on it."""
        return {"revision": self.revision, "trust_remote_code": self.trust_remote_code}

    def loading(self, dtype: torch.dtype) -> dict[str, Any]:
        """The same with the precision of its weights, on CPU."""
        quantized = {"quantization_config": nf4(dtype), "device_map": {"": "cpu"}}
        return {**self.hub, "dtype": dtype, **(quantized if self.quantization == "nf4" else {})}


def make_spec(config: Config, source: Source, encoder: TextEncoder) -> EmbeddingSpec:
    """Of a run: its resolved config, its base and its tokenisation."""
    eos, base = encoder.append_eos_id, Path(source.backbone)
    name, commit = hub_name(source)
    prompts, hub = prompts_by_kind(source, config.data), source.hub
    model = str(base.resolve()) if base.is_dir() else source.backbone
    if base.is_dir() and name and commit and (main := _cached(name, commit)):
        model, hub = name, hub | {"revision": None if main == commit else commit}
    return EmbeddingSpec(
        base_model=model,
        pooling=source.pooling,
        width=source.width,
        n_layers=source.n_layers,
        dims=tuple(config.objective.dims or (source.width,)),
        max_seq_length=config.data.max_length,
        prompts=source.prompts
        | prompts_of_sources(config)
        | {kind: prompts[kind] for kind in ("query", "document")},
        padding_side=encoder.padding_side,
        append_eos=None if eos is None else source.tokenizer.convert_ids_to_tokens(eos),
        objective=config.objective.name,
        inner_norm=config.model.inner_norm or "raw",
        **hub,
        default_prompt=source.default_prompt,
        lower_case=source.lower_case,
        tokenizer_files=tuple(getattr(source.tokenizer, "vocab_files_names", {}).values()),
        dense=source.dense,
        quantization=config.model.quantization,
        base_name=name,
        commit=commit,
        include_prompt=source.include_prompt,
        ends_in_eos=eos is not None and eos == source.tokenizer.eos_token_id,
        input_names=tuple(source.tokenizer.model_input_names),
        tokenizer_at=own_tokenizer(source.adapter),
    )


def hub_name(source: Source) -> tuple[str | None, str | None]:
    """Id on the hub and commit of a run's base: as it was named, of a snapshot in a cache of the
    hub, of quickstart's package. (None, None) for any other directory."""
    folder = Path(source.backbone)
    if not folder.is_dir():
        return source.backbone, source.commit
    packaged = model_folder("quickstart")
    if packaged is not None and packaged.resolve() == folder.resolve():
        return QUICKSTART_HUB_ID, None
    repository = folder.parents[1].name if folder.parent.name == "snapshots" else ""
    kind, _, name = repository.partition("--")
    return (name.replace("--", "/"), folder.name) if kind == "models" else (None, None)


def _cached(name: str, commit: str) -> str | None:
    """The commit that `main` of a hub id is here, where the hub's own cache has the asked one."""
    from huggingface_hub import constants, try_to_load_from_cache

    if not isinstance(try_to_load_from_cache(name, "config.json", revision=commit), str):
        return None
    ref = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "refs" / "main"
    return ref.read_text("utf-8").strip() if ref.is_file() else "none"


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_portable(folder: Path, spec: EmbeddingSpec) -> None:
    """Tokenizer files and the sentence-transformers files (not the weights)."""
    copy_tokenizer(folder, spec)
    kinds = ["Transformer", "Pooling", *["Dense"] * len(spec.dense), "Normalize"]
    paths = ["", *(f"{i}_{kind}" for i, kind in enumerate(kinds) if i)]
    write_json(folder / "modules.json", [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ])  # fmt: skip
    write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": spec.max_seq_length, "do_lower_case": spec.lower_case},
    )
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "model_type": "SentenceTransformer",
            "prompts": {"query": "", "document": "", **spec.prompts},
            "default_prompt_name": spec.default_prompt,
            "similarity_fn_name": "cosine",
            "inner_norm": spec.inner_norm,  # this and the next two: for ours
            "matryoshka_dimensions": list(spec.dims),
            **({"quantization": spec.quantization} if spec.quantization != "none" else {}),
            **({"base_beside": spec.beside} if spec.beside else {}),
        },  # fmt: skip
    )
    modes = {f"pooling_mode_{n}": n == _MODES[spec.pooling]
             for n in (*_MODES.values(), *_OTHER_MODES)}  # fmt: skip
    # A model of fewer channels ends in a Dense and has no truncate_dim: sentence-transformers would
    # cut after Normalize, which gives shorter vectors, and TEI and vLLM do not know that key.
    pooled = spec.dense[0].weight.shape[1] if spec.dense else spec.width
    # No embedding_dimension, its name since sentence-transformers 6: version 5 refuses the file.
    own = {"word_embedding_dimension": pooled, "include_prompt": spec.include_prompt,
           "pooling_mode": "lasttoken" if spec.pooling == "last" else spec.pooling}  # fmt: skip
    write_json(folder / "1_Pooling" / "config.json", modes | own)
    for path, dense in zip(paths[2:], spec.dense, strict=False):
        write_dense(folder / path, dense)
    write_json(folder / paths[-1] / "config.json", {})
    (folder / "README.md").write_text(model_card(spec), encoding="utf-8")


def _base_directory(spec: EmbeddingSpec) -> Path:
    """The base model's own files on disk."""
    if Path(spec.base_model).is_dir():
        return Path(spec.base_model)
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.txt", "*.model", "*.codes", "*.py", "*.jinja", *spec.tokenizer_files]
    try:
        return Path(snapshot_download(spec.base_model, revision=spec.revision,
                                      allow_patterns=patterns))  # fmt: skip
    except Exception as error:  # the hub raises many kinds; the user can only do one thing
        raise UserError(f"export: cannot read the files of {spec.base_model!r}: {error}") from error


def copy_tokenizer(folder: Path, spec: EmbeddingSpec) -> None:
    """Byte for byte from the base, or from the adapter that is trained further, but for an EOS, a
    lower case or a padding side that its files lack, and for the length: programs that read these
    files alone are to cut a text where the model does."""
    base = Path(spec.tokenizer_at) if spec.tokenizer_at else _base_directory(spec)
    names = {*TOKENIZER_FILES, *spec.tokenizer_files}
    kinds = ("*.model", "*.codes", *(["*.py"] if spec.trust_remote_code else []))
    names |= {path.name for kind in kinds for path in base.glob(kind)}
    for name in sorted(names):
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    changed = dict(settings)
    if settings.get("padding_side", "right") != spec.padding_side:
        changed["padding_side"] = spec.padding_side
    if spec.lower_case:  # classes that make their normaliser anew look here, the others below
        changed["do_lower_case"] = True
    changed["model_max_length"] = spec.max_seq_length
    changed = for_older_tokenizers(changed, spec.input_names)
    if spec.ends_in_eos:  # Llama's and Gemma's class in transformers 4 asks here alone
        changed["add_eos_token"] = True
    if changed != settings:
        write_json(path, changed)
    if spec.append_eos or spec.lower_case:
        change_tokenizer(folder / "tokenizer.json", spec.append_eos, spec.lower_case)
    cut_at(folder / "tokenizer.json", spec.max_seq_length)
