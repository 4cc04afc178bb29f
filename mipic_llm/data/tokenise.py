"""Text to token ids, once per text; padding and packing."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mipic_llm.errors import UserError
from mipic_llm.quiet import all_cores
from mipic_llm.types import Packing

KINDS = ("query", "document", "symmetric")  # anchors; the rest of a row; both sides of STS
ENDOFTEXT = "<|endoftext|>"  # ends the texts of Qwen3-Embedding, and is not its eos token; in
# SmolLM2 it is the token for what is unknown, which attracts all attention

# A fast tokenizer keeps truncation as state and raises "Already borrowed" when two threads use it
# (collation runs ahead of training in a thread while evaluation may tokenise too).
_LOCK = threading.Lock()
MANY = 1000  # texts from which on all cores tokenise: mostly those before the first step


class TextEncoder:
    """Tokenises with special tokens, prompts and truncation, and remembers the result.

    Every distinct (kind, text) is tokenised once per run. Memory: 4 bytes per token and about 200
    bytes per text, so 1M texts of 30 tokens cost about 0.3 GiB per rank.
    prompts: text put before texts of a kind (KINDS), verbatim; a kind may be absent.
    append_eos_id: exactly one such id ends every sequence, truncated ones too; None = as the
    tokenizer does it (see resolve_eos).
    padding_side: left, right, or auto = the tokenizer's own; used by the batches made from here.
    vocabulary: rows of the model's table of tokens, None = any; a text beyond it is a UserError.
    include_prompt: whether the pooling reads a prompt's tokens. skips: where not, how many those of
    each kind are, counted as in sentence-transformers: what the tokenizer makes of the prompt
    alone, without a special token at its end.
    made, cut: how many texts were tokenised so far, and how many of them lost their end.
    Raises UserError when max_length leaves no room for a token of text, beside a prompt too.
    """

    def __init__(
        self,
        tokenizer: Any,
        max_length: int,
        *,
        append_eos_id: int | None,
        prompts: dict[str, str],
        padding_side: str = "auto",
        vocabulary: int | None = None,
        include_prompt: bool = True,
    ) -> None:
        room = max_length - tokenizer.num_special_tokens_to_add() - (append_eos_id is not None)
        if room < 1:
            raise UserError(
                f"data.max_length {max_length} leaves no room for text beside the special tokens; "
                f"give at least {max_length - room + 1}"
            )
        unknown, skips = set(prompts) - set(KINDS), dict[str, int]()
        assert not unknown, f"prompts for {unknown}"
        for kind, prompt in prompts.items():
            with _LOCK:
                taken = len(tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"])
                ids = tokenizer(prompt, verbose=False)["input_ids"]
            if prompt and not include_prompt:
                ends = bool(ids) and ids[-1] in tokenizer.all_special_ids
                skips[kind] = len(ids) - ends
            if taken >= room:
                raise UserError(
                    f"data.max_length {max_length}: the prompt of {kind} texts alone has {taken} "
                    f"tokens, so that all of them would be the same; give more than "
                    f"{max_length - room + taken}, or a shorter prompt ({prompt[:30]!r} ..)"
                )
        self.tokenizer, self.max_length = tokenizer, max_length
        self.append_eos_id, self.prompts, self.skips = append_eos_id, prompts, skips
        self.direct = _is_direct(tokenizer)
        self.vocabulary = vocabulary or 1 << 31
        self.padding_side = tokenizer.padding_side if padding_side == "auto" else padding_side
        # Pads are masked, so any id will do where the tokenizer names none.
        ids = (tokenizer.pad_token_id, append_eos_id, tokenizer.eos_token_id, 0)
        self.pad_id: int = next(i for i in ids if i is not None)
        self._known: dict[str, dict[str, np.ndarray]] = {kind: {} for kind in KINDS}
        self.made = self.cut = 0

    def bare(self) -> TextEncoder:
        """The same without prompts."""
        return TextEncoder(self.tokenizer, self.max_length, append_eos_id=self.append_eos_id,
                           prompts={}, padding_side=self.padding_side,
                           vocabulary=self.vocabulary)  # fmt: skip

    def ids(self, texts: Sequence[str], kind: str = "query") -> list[list[int]]:
        """Token ids of each text, at most max_length; kind: of KINDS (the prompt)."""
        return [row.tolist() for row in self.arrays(texts, kind)]

    def arrays(self, texts: Sequence[str], kind: str = "query") -> list[np.ndarray]:
        """The same as int32 arrays, to be read only: a text's array is made once and shared."""
        known = self._known[kind]
        with _LOCK:
            new = [text for text in dict.fromkeys(texts) if text not in known]
            if new:
                known.update(zip(new, self._tokenise(new, kind), strict=True))
        return [known[text] for text in texts]

    def forget(self) -> None:
        """Drop what is remembered of texts."""
        with _LOCK:
            self._known = {kind: {} for kind in KINDS}

    def fresh(self, texts: Sequence[str], kind: str = "query") -> list[np.ndarray]:
        """As `arrays`, but nothing is remembered."""
        with _LOCK:
            return self._tokenise(list(texts), kind) if texts else []

    def _tokenise(self, texts: list[str], kind: str) -> list[np.ndarray]:
        prompt, eos = self.prompts.get(kind, ""), self.append_eos_id
        with all_cores() if len(texts) >= MANY else nullcontext():
            rows, cut = self._encode([prompt + text for text in texts])
        self.made += len(rows)
        self.cut += cut
        for row, text in zip(rows, texts, strict=True):
            if eos is not None:
                while row and row[-1] == eos:  # by the tokenizer, or literally in the text
                    row.pop()
                row.append(eos)
            if not row:
                raise UserError(f"the text {text[:40]!r} has no tokens; leave it out of the data")
            if max(row) >= self.vocabulary:
                token = self.tokenizer.convert_ids_to_tokens(max(row))
                raise UserError(
                    f"the text {text[:40]!r} has the token {token!r}, number {max(row)}, and the "
                    f"model's table ends at {self.vocabulary}: tokens were added to its tokenizer "
                    "and not to its weights; give the tokenizer that it was trained with"
                )
        return [np.array(row, dtype=np.int32) for row in rows]

    def _encode(self, texts: list[str]) -> tuple[list[list[int]], int]:
        """-> (ids with special tokens, how many texts lost their end)."""
        most = self.max_length - (self.append_eos_id is not None)
        options: dict[str, Any] = {
            "truncation": True, "max_length": most, "padding": False, "verbose": False,
            "return_attention_mask": False, "return_token_type_ids": False,
        }  # fmt: skip
        if not self.direct:
            encoded = self.tokenizer(texts, **options)
            rows, found = encoded["input_ids"], encoded.encodings
        else:  # a third less work; one text by transformers leaves its settings with the library
            self.tokenizer(texts[:1], **options)
            found = self.tokenizer.backend_tokenizer.encode_batch_fast(texts)
            rows = [one.ids for one in found]
        if found:
            return rows, sum(bool(one.overflowing) for one in found)
        return rows, sum(len(row) >= most for row in rows)  # a tokenizer in Python does not say


def _is_direct(tokenizer: Any) -> bool:
    """Whether transformers hands texts to the tokenizers library as they are."""
    from transformers import PreTrainedTokenizerFast

    kind, steps = type(tokenizer), ("__call__", "_encode_plus", "set_truncation_and_padding")
    return issubclass(kind, PreTrainedTokenizerFast) and all(
        getattr(kind, step, None) is getattr(PreTrainedTokenizerFast, step, None) for step in steps
    )


def pad(
    ids: Sequence[Sequence[int]], pad_id: int, padding_side: str, skips: Sequence[int] | None = None
) -> tuple[Tensor, Tensor]:
    """(ids_ST, mask_ST), int64, padded to the longest; mask 1 at real tokens, 2 at those of prompts
    that the pooling leaves out (skips: how many at each begin). Side: left, right."""
    assert padding_side in ("left", "right"), padding_side
    lengths = np.array([len(row) for row in ids])
    place_T = np.arange(lengths.max())
    if padding_side == "left":
        place_T = place_T[::-1]
    real_ST = place_T < lengths[:, None]
    ids_ST = np.full(real_ST.shape, pad_id, dtype=np.int64)
    ids_ST[real_ST] = np.concatenate(ids)
    mask_ST = real_ST.astype(np.int64)
    if skips is not None:
        place_ST = lengths[:, None] - 1 - place_T if padding_side == "left" else place_T[None]
        mask_ST[real_ST & (place_ST < np.array(skips)[:, None])] = 2
    return torch.from_numpy(ids_ST), torch.from_numpy(mask_ST)


def pack(
    ids: Sequence[Sequence[int]], skips: Sequence[int] | None = None
) -> tuple[Tensor, Packing]:
    """(ids_1N int64, packing): the sequences in one row, in their order, without a pad. skips: see
    `pad`."""
    lengths = np.array([len(row) for row in ids])
    ends = lengths.cumsum()
    position_N = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
    ids_1N = np.concatenate(ids)[None].astype(np.int64)
    cu_S1 = np.concatenate([[0], ends]).astype(np.int32)
    packing = Packing(
        torch.from_numpy(cu_S1), torch.from_numpy(position_N), tuple(lengths.tolist()),
        None if skips is None else torch.tensor(skips).clamp(max=torch.from_numpy(lengths)),
    )  # fmt: skip
    return torch.from_numpy(ids_1N), packing


def resolve_eos(tokenizer: Any, option: str, is_decoder: bool) -> int | None:
    """The id that TextEncoder must append for `model.append_eos`, or None.

    auto: nothing for encoders, nor where the tokenizer ends texts itself with its eos, its pad or
    <|endoftext|> (Qwen3-Embedding); else the tokenizer's eos.
    none: nothing. Any other option is the token itself; UserError if it is not in the vocabulary.
    """
    vocabulary = tokenizer.get_vocab()
    if option == "none" or (option == "auto" and not is_decoder):
        return None
    if option != "auto":
        if option not in vocabulary:
            raise UserError(
                f"model.append_eos: the tokenizer has no token {option!r}; its eos token is "
                f"{tokenizer.eos_token!r} (auto and none are legal too)"
            )
        return vocabulary[option]
    ends = {tokenizer.eos_token_id, tokenizer.pad_token_id, vocabulary.get(ENDOFTEXT)} - {None}
    with _LOCK:
        ids = tokenizer("a")["input_ids"]
    if ids and ids[-1] in ends:
        return None
    eos = tokenizer.eos_token_id
    if eos is None:
        raise UserError(
            "the tokenizer names no end token; set --model.append_eos to a token of its vocabulary"
        )
    return eos
