"""tokenizer.json made to end each text with a token, after whatever it does by itself."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mipic_llm.errors import UserError
from mipic_llm.export.tokenizer_file import change_tokenizer, for_older_tokenizers

WORDS = ["<bos>", "<eos>", "[CLS]", "[SEP]", "<unk>", "a", "b", "c", "d"]
AT = {word: i for i, word in enumerate(WORDS)}
BOS = processors.TemplateProcessing(single="<bos> $A", pair="<bos> $A <bos>:1 $B:1",
                                    special_tokens=[("<bos>", 0)])  # fmt: skip
OWN = {
    "none": (None, []),
    "a template": (BOS, ["<bos>"]),
    "a template without tokens": (processors.TemplateProcessing(single="$A", pair="$A $B:1"), []),
    "bytes": (processors.ByteLevel(), []),
    "bytes, then a template": (processors.Sequence([processors.ByteLevel(), BOS]), ["<bos>"]),
    "a template, then bytes": (processors.Sequence([BOS, processors.ByteLevel()]), ["<bos>"]),
    "two without a template": (processors.Sequence([processors.ByteLevel()] * 2), []),
}


@pytest.mark.parametrize("name", OWN)
def test_a_text_ends_in_the_token_whatever_comes_before(tmp_path, name):
    post, before = OWN[name]
    tokenizer = Tokenizer(models.WordLevel(AT, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(WORDS[:4])
    if post is not None:
        tokenizer.post_processor = post
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    change_tokenizer(path, "<eos>", lower_case=True)
    fresh = PreTrainedTokenizerFast(tokenizer_file=str(path))
    for text, words in (("A b c", ["a", "b", "c"]), ("", []), ("a", ["a"])):
        assert fresh.convert_ids_to_tokens(fresh(text)["input_ids"]) == [*before, *words, "<eos>"]
    short = fresh("a b c d", truncation=True, max_length=3)["input_ids"]
    assert fresh.convert_ids_to_tokens(short) == [*before, *"abcd"[: 2 - len(before)], "<eos>"]
    two = fresh.convert_ids_to_tokens(fresh("a b", "c")["input_ids"])
    assert two == [*before, "a", "b", "<eos>", *before, "c", "<eos>"]


def test_settings_of_transformers_5_are_read_by_4_and_mean_the_same(tmp_path):
    """Version 4 knows no TokenizersBackend, and wants extra_special_tokens to be a dict."""
    own = Tokenizer(models.WordLevel(AT, unk_token="<unk>"))
    own.pre_tokenizer = pre_tokenizers.Whitespace()
    written = PreTrainedTokenizerFast(
        tokenizer_object=own, unk_token="<unk>", eos_token="<eos>",
        extra_special_tokens=["[SEP]"], model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    written.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    assert settings["tokenizer_class"] == "TokenizersBackend", "nothing is tested"
    assert settings["extra_special_tokens"] == ["[SEP]"]
    settings.pop("model_input_names", None)
    found = for_older_tokenizers(settings, written.model_input_names)
    assert found["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "extra_special_tokens" not in found
    same = {k for k in settings if k not in ("tokenizer_class", "extra_special_tokens")}
    assert {k: found[k] for k in same} == {k: settings[k] for k in same}
    path.write_text(json.dumps(found))
    fresh = AutoTokenizer.from_pretrained(tmp_path)
    assert dict(fresh("a b [SEP]")) == dict(written("a b [SEP]"))
    assert fresh.all_special_tokens == written.all_special_tokens
    mine = {"tokenizer_class": "BertTokenizer", "extra_special_tokens": {"image": "<i>"}}
    assert for_older_tokenizers(mine, ["input_ids"]) == mine


def test_a_token_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "tokenizer.json"
    Tokenizer(models.WordLevel(AT, unk_token="<unk>")).save(str(path))
    with pytest.raises(UserError, match="tokenizer.json has no token '<end>'"):
        change_tokenizer(path, "<end>", lower_case=False)
