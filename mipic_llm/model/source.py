"""A model as its files describe it, and the prompts of its kinds of text."""

from __future__ import annotations

from typing import Any, NamedTuple

from mipic_llm.model.dense import Dense
from mipic_llm.model.files import content_of

# The prompt of a kind of text is the first of these that the model has (sentence-transformers).
_NAMES = {"query": ("query",), "document": ("document", "passage", "corpus")}


class Source(NamedTuple):
    """A model as its files describe it, without its weights.

    name: as asked for. backbone: directory or hub id (at `revision`) of the transformer's weights;
    adapter: directory of the LoRA on it. config, tokenizer: transformers' own. pooling: cls, mean
    or last. prompts: by name, the empty ones too; default_prompt: the name of the one that
    sentence-transformers uses when asked for none. max_length: tokens of a text by default;
    positions: at most, None where no table limits them. lower_case: the tokenizer was made to lower
    texts because the model's settings ask for it. portable: it has a modules.json. inner_norm, dims
    (trained prefixes): None where the files do not say. notes: lines for the user.
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
    positions: int | None
    dense: tuple[Dense, ...] = ()  # after the pooling
    quantization: str = "none"  # of the base that the adapter was trained on
    include_prompt: bool = True  # whether the pooling reads a prompt's tokens
    notes: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Channels of the vector."""
        return len(self.dense[-1].weight) if self.dense else self.config.hidden_size

    @property
    def n_layers(self) -> int:
        return self.config.num_hidden_layers

    @property
    def commit(self) -> str | None:
        """Of the hub, where it is known; else the revision that was asked for."""
        return getattr(self.config, "_commit_hash", None) or self.revision

    @property
    def precision(self) -> str:
        """Of the weights as they are stored, as train.precision says it; fp32 where not known."""
        dtype = str(getattr(self.config, "dtype", None))
        return "bf16" if dtype.endswith("bfloat16") else "fp32"

    def reading(self, inner_norm: str, encoder: Any) -> str:
        """How its vectors are made, in a line. encoder: a TextEncoder for it."""
        prompts, eos = [name for name, text in self.prompts.items() if text], encoder.append_eos_id
        end = None if eos is None else self.tokenizer.convert_ids_to_tokens(eos)
        parts = [
            f"{self.n_layers} layers, width {self.width}",
            f"attends {'left to right' if self.is_decoder else 'both ways'}",
            f"pooling {self.pooling}" + ", prompts left out" * bool(encoder.skips),
            f"inner layers {inner_norm}",
            f"{encoder.max_length} tokens at most",
            *([f"{end} ends each text"] if end else []),
            *([f"Dense to {' '.join(str(len(d.weight)) for d in self.dense)}"] * bool(self.dense)),
            *([f"prompts {' '.join(prompts)}"] * bool(prompts)),
        ]
        return ", ".join(parts)

    def turned(self, axes: Dense) -> Source:
        """The same with one more module after the others."""
        return self._replace(dense=(*self.dense, axes))

    @property
    def hub(self) -> dict[str, Any]:
        """Keywords for `from_pretrained(source.backbone, ...)`."""
        return {"revision": self.revision, "trust_remote_code": self.trust_remote_code}

    @property
    def content(self) -> str:
        """A name for the content of the files, or of the hub's commit."""
        return content_of(self.backbone, self.commit, self.adapter)


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
