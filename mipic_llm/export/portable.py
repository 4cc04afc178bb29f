"""The directory that loads everywhere: sentence-transformers, transformers, peft, vLLM, TEI.

Written by hand, not re-saved through a library, because re-saving drops the legacy keys that older
loaders need. Nothing here depends on the time or the machine: same weights, same bytes.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from mipic_llm.errors import UserError

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt",
    "vocab.json", "merges.txt", "added_tokens.json", "sentencepiece.bpe.model",
    "tokenizer.model", "spiece.model", "chat_template.jinja",
)  # fmt: skip


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
    truncate_dim: int | None = None  # written only into models cut to one width
    notes: tuple[str, ...] = ()  # lines for the model card


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_portable(folder: Path, spec: EmbeddingSpec) -> None:
    """Tokenizer files and the sentence-transformers files (not the weights)."""
    copy_tokenizer(folder, spec)
    kinds = ("Transformer", "Pooling", "Normalize")
    paths = ("", "1_Pooling", "2_Normalize")
    write_json(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": p, "type": f"sentence_transformers.models.{k}"}
            for i, (k, p) in enumerate(zip(kinds, paths, strict=True))
        ],
    )
    write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": spec.max_seq_length, "do_lower_case": False},
    )
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "model_type": "SentenceTransformer",
            "prompts": {"query": "", "document": "", **spec.prompts},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
            **({"truncate_dim": spec.truncate_dim} if spec.truncate_dim else {}),
        },
    )
    modes = {"cls": "cls_token", "mean": "mean_tokens", "last": "lasttoken"}
    names = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens",
             "weightedmean_tokens", "lasttoken")  # fmt: skip
    pooling: dict[str, Any] = {
        f"pooling_mode_{name}": name == modes[spec.pooling] for name in names
    }
    pooling.update(
        embedding_dimension=spec.width,
        word_embedding_dimension=spec.width,
        pooling_mode={"cls": "cls", "mean": "mean", "last": "lasttoken"}[spec.pooling],
        include_prompt=True,
    )
    write_json(folder / "1_Pooling" / "config.json", pooling)
    write_json(folder / "2_Normalize" / "config.json", {})
    (folder / "README.md").write_text(model_card(spec), encoding="utf-8")


def base_directory(base_model: str) -> Path:
    """The base model's own files on disk."""
    if Path(base_model).is_dir():
        return Path(base_model)
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(base_model, allow_patterns=["*.json", "*.txt", "*.model"])
    except Exception as error:  # the hub raises many kinds; the user can only do one thing
        raise UserError(f"export: cannot read the files of {base_model!r}: {error}") from error
    return Path(found)


def copy_tokenizer(folder: Path, spec: EmbeddingSpec) -> None:
    """Byte for byte from the base, but for an EOS or padding side that its files lack."""
    base = base_directory(spec.base_model)
    for name in TOKENIZER_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if settings.get("padding_side", "right") != spec.padding_side:
        write_json(path, {**settings, "padding_side": spec.padding_side})
    if spec.append_eos:
        append_token(folder / "tokenizer.json", spec.append_eos)


def append_token(path: Path, token: str) -> None:
    """Make tokenizer.json end every text with `token`, so that any loader pools the same place."""
    from tokenizers import Tokenizer, processors

    tokenizer = Tokenizer.from_file(str(path))
    at = tokenizer.token_to_id(token)
    if at is None:
        raise UserError(f"model.append_eos: {path.name} has no token {token!r}")
    ends = processors.TemplateProcessing(
        single=f"$A:0 {token}:0", pair=f"$A:0 {token}:0 $B:1 {token}:1",
        special_tokens=[(token, at)],
    )  # fmt: skip
    own = tokenizer.post_processor
    keep = own is None or type(own).__name__ == "ByteLevel"  # only trims offsets: safe to chain
    tokenizer.post_processor = (
        ends if own is None else processors.Sequence([own, ends]) if keep else ends
    )
    tokenizer.save(str(path))


def model_card(spec: EmbeddingSpec) -> str:
    dims = ", ".join(map(str, spec.dims))
    base = Path(spec.base_model).name if Path(spec.base_model).exists() else spec.base_model
    notes = "".join(f"\n{note}\n" for note in spec.notes)
    return f"""---
tags: [sentence-transformers, feature-extraction, matryoshka]
library_name: sentence-transformers
base_model: {base}
---
# Matryoshka text embeddings

Trained with mipic_llm ({spec.objective}). Each of these prefixes of the vector is usable: {dims}.

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("PATH", truncate_dim={spec.dims[0]})
vectors = model.encode(["a text"], normalize_embeddings=True)
```

`truncate_dim` cuts after the model's own normalisation: without `normalize_embeddings=True` the cut
vectors are not of unit length. Pooling: {spec.pooling}. Tokens read: {spec.max_seq_length} at most.
{notes}"""
