"""A step's sequences and their order, chunks, padding share, and the thread that runs ahead."""

from __future__ import annotations

import itertools
import math
import random
import threading
import time
from contextlib import closing

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mipic_llm.data.batch import StepBatch, build_step
from mipic_llm.data.chunks import _groupings, prepare
from mipic_llm.data.prefetch import prefetch
from mipic_llm.data.read.rows import Example, key_of
from mipic_llm.data.tokenise import TextEncoder

VOCAB = {word: i for i, word in enumerate(["[U]", "[P]", *"abcdefgh", "q:", "d:"])}


def encoder(side="right"):
    tok = Tokenizer(models.WordLevel(VOCAB, "[U]"))
    tok.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tok, unk_token="[U]", pad_token="[P]")
    prompts = {"query": "q: ", "document": "d: "}
    return TextEncoder(fast, 8, append_eos_id=None, prompts=prompts, padding_side=side)


def ids(text):
    return [VOCAB[word] for word in text.split()]


ROWS = [
    Example("a", "b b b", ("c", "d d"), 0),
    Example("a a", "e", (), 1),
    Example("a a a", "f f", ("g g g g g",), 2),
]


def test_order_of_a_labelled_step():
    step = build_step(ROWS, encoder())
    texts = ["q: a", "q: a a", "q: a a a", "d: b b b", "d: e", "d: f f", "d: c", "d: d d"]
    assert [row.tolist() for row in step.ids] == [ids(text) for text in [*texts, "d: g g g g g"]]
    assert (step.n_anchors, step.n_negatives) == (3, 3)
    assert step.source.kind == "pairs" and step.scores is None


def test_equal_texts_have_equal_keys_whatever_their_prompt():
    rows = [Example("a", "b", ("c", " a\n"), 0), Example("d", "c", (), 1)]
    keys = build_step(rows, encoder()).keys
    texts = ["a", "d", "b", "c", "c", "a"]
    assert keys == [key_of(text.encode()) for text in texts] and len(set(keys)) == 4
    assert prepare(build_step(rows, encoder()), 2).known.key_S.tolist() == keys
    signs = {key_of(bytes([i])) < 0 for i in range(9)}  # of 64 bits, signed
    assert signs == {True, False}
    keys = build_step([Example("a", None, (), 0), Example("b b", None, (), 1)], encoder()).keys
    assert keys[:2] == keys[2:] and keys[0] != keys[1]


def test_scores_stand_at_the_texts_that_they_are_of():
    rows = [Example("a", "b", ("c", "d"), 0, (0.9, 0.2, 0.1)), Example("e", "f", ("g",), 1)]
    found = prepare(build_step(rows, encoder()), 2).known.score_S
    assert found is not None and found.dtype == torch.float32
    wanted = [math.nan, math.nan, 0.9, math.nan, 0.2, 0.1, math.nan]
    torch.testing.assert_close(found, torch.tensor(wanted), equal_nan=True)


def test_unlabelled_rows_stand_twice_with_the_same_prompt():
    step = build_step([Example("a", None, (), 0), Example("b b", None, (), 1)], encoder())
    assert step.source.kind == "texts"
    assert [row.tolist() for row in step.ids] == [ids("q: a"), ids("q: b b")] * 2
    assert (step.n_anchors, step.n_negatives) == (2, 0)
    with pytest.raises(AssertionError, match="mixed"):
        build_step([Example("a", None, (), 0), ROWS[0]], encoder())


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("size", [0, 1, 2, 4, 100])
def test_chunks_are_undone_by_their_index(side, size):
    step = build_step(ROWS, encoder(side))
    made = prepare(step, size).chunks
    assert len(made) == (1 if size in (0, 100) else -(-9 // size))
    back: list = [None] * len(step.ids)
    for chunk in made:
        assert chunk.weight == 1 and chunk.index_S.dtype == torch.int64
        assert chunk.ids_ST.shape == chunk.mask_ST.shape
        assert chunk.mask_ST.any(0).all(), "padded beyond the longest sequence of the chunk"
        for s, row, mask in zip(chunk.index_S.tolist(), chunk.ids_ST, chunk.mask_ST, strict=True):
            back[s] = row[mask.bool()].tolist()
            assert (row[mask == 0] == VOCAB["[P]"]).all()
            assert mask[-1 if side == "left" else 0] == 1
    assert back == [row.tolist() for row in step.ids]
    lengths = [len(step.ids[s]) for chunk in made for s in chunk.index_S.tolist()]
    assert lengths == sorted(lengths, reverse=True)


def test_weight_zero_chunks_fill_the_count():
    step = build_step(ROWS, encoder())
    made = prepare(step, 4).passes(5)
    assert [chunk.weight for chunk in made] == [1, 1, 1, 0, 0]
    for dummy in made[3:]:
        assert dummy.index_S.shape == (0,) and dummy.index_S.dtype == torch.int64
        assert dummy.ids_ST.shape[0] == 1 and dummy.mask_ST.all()
        out = torch.zeros(9)
        out[dummy.index_S] = torch.ones(0)  # an empty index writes nothing
        assert not out.any()
    assert len(prepare(step, 4).passes(3)) == 3
    with pytest.raises(AssertionError, match="3 chunks do not fit"):
        prepare(step, 4).passes(2)


def test_padding_share():
    step = build_step(ROWS, encoder())
    useful = sum(map(len, step.ids))
    # Lengths 6 4 4 3 3 3 2 2 2: one chunk pads all to 6; threes pad to 6, 3 and 2.
    assert useful == 29
    assert prepare(step, 0).tokens(1) == (useful, 9 * 6 - useful)
    assert prepare(step, 3).tokens(3) == (useful, 3 * (6 + 3 + 2) - useful)
    assert prepare(step, 1).tokens(9).padded == 0
    with_dummy = prepare(step, 3).tokens(4)
    assert with_dummy == (useful, 3 * (6 + 3 + 2) - useful + 2)  # the dummy is all padding


def alive():
    return [t for t in threading.enumerate() if t.name.startswith("prefetch") and t.is_alive()]


def test_prefetcher_keeps_order_and_ends():
    with closing(prefetch(lambda i: i * i, range(20))) as made:
        assert list(made) == [i * i for i in range(20)]
        with pytest.raises(StopIteration):
            next(made)
    assert not alive()


def test_prefetcher_runs_ahead_but_not_far():
    started: list[int] = []
    with closing(prefetch(started.append, range(100), depth=2)) as made:
        next(made)
        time.sleep(0.3)
        # One taken, two queued, one waiting for room.
        assert started == [0, 1, 2, 3]


def test_prefetcher_stops_in_the_middle():
    made = prefetch(lambda i: i, iter(int, 1))  # endless
    assert next(made) == 0
    assert alive()
    made.close()
    made.close()
    assert not alive()
    with pytest.raises(StopIteration):
        next(made)


def test_prefetcher_raises_at_the_step_it_belongs_to():
    def make(i):
        if i == 3:
            raise KeyError("row 3")
        return i

    with closing(prefetch(make, range(10))) as made:
        assert [next(made) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(KeyError, match="row 3"):
            next(made)
    assert not alive()

    def items():
        yield 1
        raise OSError("gone")

    with closing(prefetch(lambda i: i, items())) as made:
        assert next(made) == 1
        with pytest.raises(OSError, match="gone"):
            next(made)

    # A stray StopIteration must not pass for the end of the data.
    with closing(prefetch(lambda i: next(iter(())), range(3))) as made:
        with pytest.raises(RuntimeError, match="StopIteration"):
            next(made)


def test_length_groups_have_the_least_padding_there_is():
    """Against every way of cutting the sorted rows, for ragged lengths of all kinds."""
    rng = random.Random(0)
    for _ in range(40):
        lengths = sorted((rng.randint(3, 9) for _ in range(rng.randint(1, 8))), reverse=True)
        for k, (tokens, starts) in enumerate(_groupings(lengths, 4), start=1):
            ways = itertools.combinations(range(1, len(lengths)), k - 1)
            least = min(
                sum((b - a) * lengths[a] for a, b in itertools.pairwise((0, *cut, len(lengths))))
                for cut in ways
            )
            cut = [*starts, len(lengths)]
            assert tokens == least == sum((b - a) * lengths[a] for a, b in itertools.pairwise(cut))


def test_one_pass_is_cut_into_groups_only_where_that_pays():
    lengths = [40, 40, 5, 5, 5, 5, 4, 4]
    batch = StepBatch([[7] * n for n in lengths], [0] * len(lengths), 4, 0, 0, "right")
    assert len(prepare(batch, 0).chunks) == 1
    assert len(prepare(batch, 0, pass_cost=1000).chunks) == 1
    made = prepare(batch, 0, pass_cost=64).chunks
    assert [tuple(c.ids_ST.shape) for c in made] == [(2, 40), (6, 5)]
    assert sorted(torch.cat([c.index_S for c in made]).tolist()) == list(range(8))
    # another rank wants more groups than there are lengths: dummies make up the count
    assert [c.weight for c in prepare(batch, 0, pass_cost=1).passes(5)] == [1, 1, 1, 0, 0]


def test_token_budget_cuts_chunks():
    lengths = [9, 4, 4, 4, 3]
    batch = StepBatch([[7] * n for n in lengths], [0] * len(lengths), 2, 1, 0, "right")
    made = prepare(batch, 0, chunk_tokens=8).chunks
    assert [tuple(c.ids_ST.shape) for c in made] == [(1, 9), (2, 4), (2, 4)]
    assert len(prepare(batch, 1, chunk_tokens=8).chunks) == 5


def test_packed_chunks_hold_every_token_once():
    ids = [[5] * n for n in (2, 9, 4, 4, 1)]
    batch = StepBatch(ids, [0] * len(ids), 2, 1, 0, "right")
    found = prepare(batch, 0, pass_cost=1, packed=True)  # groups of lengths are for pads alone
    (made,) = found.chunks
    assert made.ids_ST.shape == (1, 20) and made.mask_ST.lengths == (9, 4, 4, 2, 1)
    assert made.index_S.tolist() == [1, 2, 3, 0, 4]
    assert found.tokens(1) == (20, 0)


def test_packed_chunk_tokens_are_real_tokens():
    ids = [[5] * n for n in (2, 9, 4, 4, 1)]
    batch = StepBatch(ids, [0] * len(ids), 2, 1, 0, "right")
    found = prepare(batch, 0, chunk_tokens=10, packed=True)
    assert len(found.chunks) == 3
    made = found.passes(4)
    assert [c.mask_ST.lengths for c in made] == [(9,), (4, 4, 2), (1,), (1,)]
    assert [c.weight for c in made] == [1, 1, 1, 0]
    assert [len(c.mask_ST.lengths) for c in prepare(batch, 2, packed=True).chunks] == [2, 2, 1]
    assert found.tokens(4) == (20, 1)


def test_index_sets_are_made_on_the_host() -> None:
    batch = build_step(ROWS, encoder())
    for piece in prepare(batch, 4).passes(4):
        for n in (len(batch.ids), 2 * batch.n_anchors, 0):
            mask_S = piece.index_S < n
            here, there = piece.rows_within(n)
            assert here.tolist() == torch.arange(len(mask_S))[mask_S].tolist()
            assert there.tolist() == piece.index_S[mask_S].tolist()
            assert here.dtype == there.dtype == torch.int64


@pytest.mark.parametrize("packed", [False, True])
def test_pinned_and_moved_chunks_are_equal(packed, monkeypatch) -> None:
    pinned = []  # pinning needs a GPU
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda t: pinned.append(t) or t.clone())
    batch = build_step(ROWS, encoder())
    plain = prepare(batch, 4, packed=packed, pin=False)
    assert not pinned
    found = prepare(batch, 4, packed=packed, pin=True)
    assert len(pinned) == 2 + len(found.passes(4)) * (3 if packed else 2)  # keys, whose
    assert str(found) == str(plain)
    moved = [piece.to(torch.device("cpu")) for piece in plain.passes(4)]
    assert str(moved) == str(list(plain.passes(4)))
