"""tokenizer.json, changed where a run made its tokens in another way than the file says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mipic_llm.errors import UserError
from mipic_llm.model.directory import lower_all


def change_tokenizer(path: Path, token: str | None, lower_case: bool) -> None:
    """Make tokenizer.json end every text with `token`, so that any loader pools the same place, and
    lower the case first."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    if lower_case:
        lower_all(tokenizer)
    if token:
        at = tokenizer.token_to_id(token)
        if at is None:
            raise UserError(f"model.append_eos: {path.name} has no token {token!r}")
        state = json.loads(tokenizer.to_str())
        state["post_processor"] = ending_in(token, at, state.get("post_processor"))
        tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.save(str(path))


def cut_at(path: Path, length: int) -> None:
    """A tokenizer.json that cuts texts by itself does so at this many tokens."""
    if not path.is_file():
        return
    state = json.loads(path.read_text(encoding="utf-8"))
    cut = state.get("truncation")
    if cut and cut["max_length"] != length:
        cut["max_length"] = length
        path.write_text(json.dumps(state, ensure_ascii=False, indent=2), encoding="utf-8")


# Where the rules of a class and those of a file part: blanks, line breaks, digits, other scripts,
# letters of several code points.
ODD = ("  two  blanks ", "one\ntwo\n\n three", "a\ttab", "don't 12345 3.5%", "na\u00efve e\u0301",
       "\ufb01ne \u2460", "\u65e5\u672c\u8a9e text \U0001f642")  # fmt: skip


def as_read(path: Path, tokenizer: Any, texts: Sequence[str], length: int) -> None:
    """Make tokenizer.json at path give the tokens of `tokenizer`, which transformers read from it.

    For many a class transformers 5 takes the vocabulary alone from the file, and the class' own
    rules of how a text is split and normalised. Programs that read the file as it stands (other
    versions of transformers, fastembed, transformers.js, text-embeddings-inference) would give
    other vectors than those that were trained. texts are compared at this length.
    """
    from tokenizers import Tokenizer

    if not (path.is_file() and tokenizer.is_fast):
        return
    wanted = tokenizer(list(texts), truncation=True, max_length=length)["input_ids"]
    alone = Tokenizer.from_file(str(path))
    own = json.loads(alone.to_str())
    alone.no_padding()
    alone.enable_truncation(length)
    if [one.ids for one in alone.encode_batch(list(texts))] == wanted:
        return
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state |= {key: own[key] for key in ("truncation", "padding")}
    Tokenizer.from_str(json.dumps(state)).save(str(path))


def for_older_tokenizers(settings: Mapping[str, Any], input_names: Sequence[str]) -> dict[str, Any]:
    """A tokenizer_config.json that transformers 5 wrote, as transformers 4 reads it too: the name
    of its plain class, which gives token types unless told what the model takes, and the list of
    more special tokens."""
    found = dict(settings)
    if found.get("tokenizer_class") == "TokenizersBackend":
        found["tokenizer_class"] = "PreTrainedTokenizerFast"
        found.setdefault("model_input_names", list(input_names))
    if isinstance(found.get("extra_special_tokens"), list):
        found["additional_special_tokens"] = found.pop("extra_special_tokens")
    return found


def ending_in(token: str, at: int, own: dict[str, Any] | None) -> dict[str, Any]:
    """A post-processor of the tokenizers library that does what `own` does, then ends each text
    with this token.

    A template takes one piece and gives several (`<bos> $A` gives two), of which a template after
    it would see the first alone: so the own one is made longer.
    """
    kind = own["type"] if own else None
    if kind == "Sequence":
        parts = own["processors"]  # type: ignore[index]
        kinds = [part["type"] for part in parts]
        if "TemplateProcessing" not in kinds:
            return own | {"processors": [*parts, ending_in(token, at, None)]}  # type: ignore
        last = max(i for i, name in enumerate(kinds) if name == "TemplateProcessing")
        changed = [*parts[:last], ending_in(token, at, parts[last]), *parts[last + 1 :]]
        return own | {"processors": changed}  # type: ignore[operator]
    if own and kind != "TemplateProcessing":
        return {"type": "Sequence", "processors": [own, ending_in(token, at, None)]}
    texts = [{"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB")]
    plain = {"type": "TemplateProcessing", "single": texts[:1], "pair": texts, "special_tokens": {}}
    found: dict[str, Any] = plain | (own or {})
    ends = [{"SpecialToken": {"id": token, "type_id": i}} for i in (0, 1)]

    def ended(template: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """With the token at the end, and before the second text of a pair."""
        kinds = [piece["type_id"] for pieces in template for piece in pieces.values()]
        cut = kinds.index(1) if 1 in kinds else len(template)
        second = [*template[cut:], ends[1]] if template[cut:] else []
        return [*template[:cut], ends[0], *second]

    made = {token: {"id": token, "ids": [at], "tokens": [token]}}
    return found | {
        "single": ended(found["single"]), "pair": ended(found["pair"]),
        "special_tokens": found["special_tokens"] | made,
    }  # fmt: skip
