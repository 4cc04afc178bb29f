"""The one reader of model directories and hub ids: what their files say about their vectors.

Understood: a transformers directory, a sentence-transformers directory of Transformer and Pooling
(and Normalize), our exports, a peft adapter; each as a path (a snapshot in the hub's cache too) or
as a Hugging Face id; and `quickstart`. What we cannot reproduce exactly is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mipic_llm.errors import UserError
from mipic_llm.model.dense import read_dense
from mipic_llm.model.files import (
    bad,
    locate,
    own_tokenizer,
    pooling_of,
    read_json,
    refuse_links,
    resolve_name,
    run_of,
)
from mipic_llm.model.packed import longest_text
from mipic_llm.model.source import Source
from mipic_llm.types import TURNED


def open_source(model: Any, run_dir: Path | None = None) -> Source:
    """What a training run begins with, for config.model: a whole model, or the adapter of
    `model.adapter` on its base. run_dir: of a run that began; turned as it was (`model.rotate`).
    UserError also for an adapter as `model.name`."""
    name, base = model.adapter or model.name, None
    if model.adapter and model.name != model.adapter:
        base = resolve_name(model.name)
    found = read_model(
        name, revision=model.revision, trust_remote_code=model.trust_remote_code, base=base,
        pooling=model.pooling, padding_side=model.padding_side,
    )  # fmt: skip
    if found.adapter is None and model.adapter:
        raise bad(name, "it is no adapter; give it as --model.name")
    if found.adapter is not None and not model.adapter:
        raise bad(name, "it is an adapter: --model.adapter trains it further; for a new one give "
                  f"its base {found.backbone}, or a merged export (export --merged)")  # fmt: skip
    refuse_links(Path(found.backbone), model.name)  # of a hub id there is no such folder
    if run_dir is not None and model.rotate != "none":
        found = found.turned(read_dense(run_dir / TURNED, str(run_dir)))
    return found


def read_model(
    name: str, *, revision: str | None = None, trust_remote_code: bool = False,
    base: str | None = None, pooling: str = "auto", padding_side: str = "auto",
) -> Source:  # fmt: skip
    """Read `name`: a directory, a Hugging Face id (at `revision`) or quickstart.

    base: backbone to use in place of the one that an adapter names; `revision` is then its own.
    pooling, padding_side: overrule the model's files unless auto; a pooling reads prompts too.
    Raises UserError for what is no model, or does what we do not.
    """
    name = resolve_name(name)
    try:
        return _read(name, revision, trust_remote_code, base, pooling, padding_side)
    except UserError:
        raise
    except Exception as error:  # settings of a form nobody writes
        why = " ".join(repr(error).split())[:300]
        raise bad(name, f"its settings cannot be understood: {why}") from error


def read_config(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """transformers' config of what `read_model` reads, without a tokenizer. UserError likewise."""
    place = locate(resolve_name(name), revision, None)
    hub = {"revision": place.revision, "trust_remote_code": trust_remote_code}
    return _load("AutoConfig", place.backbone, hub)


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


def _read(
    name: str, revision: str | None, trust: bool, base: str | None, pooling: str, side: str
) -> Source:
    folder, modules, root, backbone, revision, adapter, notes = locate(name, revision, base)
    dense = tuple(read_dense(folder / path, name) for path in modules.get("Dense", []))
    hub = {"revision": revision, "trust_remote_code": trust}
    with_tokenizer = own_tokenizer(adapter) or backbone
    if adapter and not modules:  # an adapter of others: its base says the rest
        found = read_model(backbone, **hub, pooling=pooling, padding_side=side)
        tokenizer = found.tokenizer
        if with_tokenizer != backbone:
            tokenizer = _tokenizer(with_tokenizer, hub, side)
        if found.lower_case:
            lower_all(tokenizer.backend_tokenizer)
        return found._replace(name=name, adapter=adapter, tokenizer=tokenizer)
    weights = ("*.safetensors", "pytorch_model*.bin")
    place = Path(backbone)
    if place.is_dir() and not any(path for kind in weights for path in place.glob(kind)):
        raise bad(name, f"{backbone} has no weights (model.safetensors)")
    tokenizer = _tokenizer(with_tokenizer, hub, side)
    config, st = _load("AutoConfig", backbone, hub), read_json(root / "sentence_bert_config.json")
    both = getattr(config, "is_encoder_decoder", False)
    if both or not hasattr(config, "hidden_size"):
        why = "is an encoder-decoder; give an encoder or a decoder"
        if not both:
            why = ("reads more than text; write its text model once, by AutoModel.from_pretrained("
                   "...).get_decoder().save_pretrained(DIR), and its tokenizer beside it, and give "
                   "DIR")  # fmt: skip
        raise bad(name, f"{config.model_type} {why}")
    task, output = st.get("transformer_task"), st.get("module_output_name")
    if task not in (None, "feature-extraction") or output not in (None, "token_embeddings"):
        raise bad(name, f"its sentence_bert_config.json asks for {task} giving {output}; only "
                  "feature-extraction giving token_embeddings is understood")  # fmt: skip
    lower = bool(st.get("do_lower_case")) and lower_all(tokenizer.backend_tokenizer)
    own = read_json(folder / "config_sentence_transformers.json")
    prompts = {k: v or "" for k, v in (own.get("prompts") or {}).items()}
    default = own.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise bad(name, f"its default prompt {default!r} is not among its prompts")
    causal = is_causal(config)
    whole = True
    if pooling == "auto" and modules:
        pooling, whole = pooling_of(read_json(folder / modules["Pooling"][0] / "config.json"), name)
    elif pooling == "auto":
        pooling = "last" if causal else "cls" if config.model_type == "xlm-roberta" else "mean"
    positions = longest_text(config)
    usual = positions or getattr(config, "max_position_embeddings", None) or 0  # -1: any number
    longest = min(tokenizer.model_max_length, usual if usual > 0 else 1 << 30)
    told = read_json(root / "config.json") | own  # an export's own record; of older ones the run's
    return Source(
        name, backbone, revision, trust, adapter, config, tokenizer, causal, pooling, prompts,
        default, int(st.get("max_seq_length") or longest), lower, bool(modules),
        told.get("inner_norm") or run_of(folder, "model", "inner_norm"),
        told.get("matryoshka_dimensions") or run_of(folder, "objective", "dims"),
        positions, dense, told.get("quantization", "none"), whole, notes,
    )  # fmt: skip


def _tokenizer(where: str, hub: dict[str, Any], side: str) -> Any:
    tokenizer = _load("AutoTokenizer", where, hub)
    if side != "auto":
        tokenizer.padding_side = side
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _load(kind: str, where: str, hub: dict[str, Any]) -> Any:
    import transformers

    try:
        return getattr(transformers, kind).from_pretrained(where, **hub)
    except Exception as error:  # of the hub, of a file, of the class that the file names
        if "custom code" in str(error):
            raise bad(where, "it comes with code of its own; read that, and run it with "
                      "--model.trust_remote_code true") from None  # fmt: skip
        why = (str(error).strip() or repr(error)).splitlines()[0]
        raise bad(where, f"cannot be read: {why}; give a model directory or a Hugging Face id that "
                  "this machine can reach") from error  # fmt: skip
