"""The memory-mapped token cache, and how a global batch is dealt to ranks by length."""

from __future__ import annotations

import errno
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from tiny_models import tiny_bert
from transformers import AutoTokenizer

from mipic_llm.data import growing, token_cache
from mipic_llm.data.deal import deal_to_ranks
from mipic_llm.data.read.rows import Example, key_of
from mipic_llm.data.read.training import read_training
from mipic_llm.data.token_cache import LazyTokens, StoredTokens
from mipic_llm.data.tokenise import TextEncoder

LABELLED = [
    Example("a man", "a person walks", ("a dog", "nobody here at all"), 0),
    Example("two dogs run", "animals", (), 1),
    Example("a man", "he plays", ("they sleep",), 2),
] * 700  # more than one block of rows
PLAIN = [Example(e.anchor, None, (), i) for i, e in enumerate(LABELLED)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return AutoTokenizer.from_pretrained(tiny_bert(tmp_path_factory.mktemp("bert") / "bert"))


def encoder(tokenizer, max_length=12, eos=None, **prompts):
    return TextEncoder(tokenizer, max_length, append_eos_id=eos, prompts=prompts)


def as_lists(rows):
    return [[row[0] is row[1], *(ids.tolist() for ids in row)] for row in rows]


def names(folder: Path) -> list[str]:
    """What lies there beside locks."""
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".lock")


@pytest.mark.parametrize("examples", [LABELLED, PLAIN], ids=["labelled", "unlabelled"])
def test_what_is_stored_is_what_the_tokenizer_says(tokenizer, tmp_path, examples) -> None:
    enc = encoder(tokenizer, query="the ", document="one ")
    token_cache.build(tmp_path / "key", examples, enc)
    assert names(tmp_path) == ["key"], "the temporary directory stayed"
    stored, lazy = StoredTokens(tmp_path / "key"), LazyTokens(examples, enc)
    some = [0, 1, 2, 1023, 1024, 1025, len(examples) - 1, 4]
    assert as_lists(stored.rows(some)) == as_lists(lazy.rows(some))
    assert stored.lengths(some).tolist() == lazy.lengths(some).tolist()
    first = stored.rows([0])[0]
    assert first[0].dtype == np.int32 and not first[0].flags.owndata
    assert (first[0] is first[1]) == (examples is PLAIN)
    assert first[0].tolist() == tokenizer("the a man")["input_ids"]
    if examples is LABELLED:
        cut = tokenizer("one nobody here at all", truncation=True, max_length=12)["input_ids"]
        assert first[3].tolist() == cut
    assert stored.lengths([0])[0] == sum(map(len, first))


def test_chosen_negatives(tokenizer, tmp_path) -> None:
    """Their tokens, texts and scores, from the cache and without it."""
    hard = ("a dog", "the dog", "no dog at all")
    rows = [Example("a man", "one man", hard, 0, (9.0, 1.0, 2.0, 3.0)),
            Example("he plays", "a man", ("they sleep",), 1)]  # fmt: skip
    chosen, enc = [[2, 0], []], encoder(tokenizer)
    token_cache.build(tmp_path / "key", rows, enc)
    wanted = [["a man", "one man", "no dog at all", "a dog"], ["he plays", "a man"]]
    for tokens in (StoredTokens(tmp_path / "key"), LazyTokens(rows, enc)):
        found = tokens.rows([0, 1], chosen)
        assert [[ids.tolist() for ids in row] for row in found] == [
            [tokenizer(text)["input_ids"] for text in row] for row in wanted
        ]
        assert tokens.lengths([0, 1], chosen).tolist() == [sum(map(len, row)) for row in found]
    first, second = token_cache.only(rows, chosen)
    assert first.negatives == ("no dog at all", "a dog") and first.scores == (9.0, 3.0, 1.0)
    assert second.negatives == second.scores == ()


def test_whatever_changes_the_ids_changes_the_key(tokenizer, tmp_path) -> None:
    rows = LABELLED[:3]
    other = AutoTokenizer.from_pretrained(tiny_bert(tmp_path / "other"))
    other.add_tokens(["walks"])
    keys = [
        token_cache.key_of(rows, encoder(tokenizer)),
        token_cache.key_of(rows, encoder(tokenizer, 13)),
        token_cache.key_of(rows, encoder(tokenizer, eos=3)),
        token_cache.key_of(rows, encoder(tokenizer, query="a")),
        token_cache.key_of(rows, encoder(tokenizer, document="a")),
        token_cache.key_of(rows, encoder(other)),
        token_cache.key_of(rows[:2], encoder(tokenizer)),
        token_cache.key_of([rows[0]._replace(negatives=("a dog",)), *rows[1:]], encoder(tokenizer)),
        token_cache.key_of([rows[0]._replace(anchor="a men"), *rows[1:]], encoder(tokenizer)),
        token_cache.key_of([e._replace(positive=None, negatives=()) for e in rows],
                           encoder(tokenizer)),
        token_cache.key_of(rows, encoder(tokenizer), scored=True),
        token_cache.key_of(rows, TextEncoder(tokenizer, 12, append_eos_id=None, prompts={},
                                             vocabulary=900)),  # they must fit its table
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)
    scored = [e._replace(scores=(1.0,) * (1 + len(e.negatives))) for e in rows]
    assert token_cache.key_of(scored, encoder(tokenizer)) == keys[0]  # ids are the same
    tokenizer("a text", truncation=True, max_length=3)  # leaves its truncation behind
    assert token_cache.key_of(rows, encoder(tokenizer)) == keys[0]


def test_half_written_files_are_not_read_and_are_written_again(tokenizer, tmp_path) -> None:
    folder, enc = tmp_path / "key", encoder(tokenizer)
    assert not token_cache.is_whole(folder)
    for harm in ("ids.bin", token_cache.MANIFEST, "other ids"):
        token_cache.build(folder, LABELLED, enc)
        assert token_cache.is_whole(folder)
        before = as_lists(StoredTokens(folder).rows(range(3)))
        if harm == "other ids":  # of equal size
            ids = (folder / "ids.bin").read_bytes()
            (folder / "ids.bin").write_bytes(ids[4:] + ids[:4])
        else:
            (folder / harm).write_bytes((folder / harm).read_bytes()[:-8])
        assert not token_cache.is_whole(folder), harm
        token_cache.build(folder, LABELLED, enc)
        assert token_cache.is_whole(folder)
        assert as_lists(StoredTokens(folder).rows(range(3))) == before


def test_builders_at_the_same_time_leave_one_whole_cache(tokenizer, tmp_path) -> None:
    folder = tmp_path / "key"
    fork = multiprocessing.get_context("fork")
    builders = [
        fork.Process(target=token_cache.build, args=(folder, LABELLED, encoder(tokenizer)))
        for _ in range(4)
    ]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join(60)
    assert [builder.exitcode for builder in builders] == [0] * 4
    assert token_cache.is_whole(folder) and names(tmp_path) == ["key"]


def test_of_builders_on_a_disk_without_locks_the_first_stays(tmp_path, monkeypatch) -> None:
    """As the nodes of one run on Lustre; the others would take away what is read already."""

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(growing.fcntl, "flock", no_locks)
    folder, asides = tmp_path / "key", []
    for process in (1, 2):
        monkeypatch.setattr(growing.os, "getpid", lambda process=process: process)
        with growing.building(folder, lambda path: (path / "a").is_file()) as aside:
            (aside / "a").write_text("a")
            asides.append(aside)
    first = (asides[0] / "a").stat().st_ino
    for aside in asides:
        growing.settle(aside, folder, lambda path: (path / "a").is_file())
    assert (folder / "a").stat().st_ino == first and names(tmp_path) == ["key"]


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_a_deal_gives_every_rank_as_many_rows_and_nearly_as_many_tokens(world: int) -> None:
    lengths = np.random.default_rng(world).integers(4, 200, size=16 * world)
    hands = deal_to_ranks(lengths, world)
    assert [len(hand) for hand in hands] == [16] * world
    assert sorted(row for hand in hands for row in hand) == list(range(16 * world))
    assert all(hand == sorted(hand) for hand in hands)
    loads = [lengths[hand].sum() for hand in hands]
    plain = lengths.reshape(world, 16).sum(1)
    assert max(loads) / np.mean(loads) < 1.03
    assert world == 1 or max(loads) < max(plain)


def test_a_deal_fills_ranks_with_few_tokens_too() -> None:
    assert deal_to_ranks([100, 1, 1, 1], 2) == [[0, 3], [1, 2]]
    assert deal_to_ranks([1, 1, 1, 1], 2) == [[0, 2], [1, 3]]


def test_the_demo_text_is_dealt_evenly(tokenizer) -> None:
    (source,), _ = read_training(["demo"], negatives=1)
    tokens = LazyTokens(source.examples, encoder(tokenizer, 64))
    lengths = tokens.lengths(range(64))
    loads = [lengths[hand].sum() for hand in deal_to_ranks(lengths, 4)]
    assert max(loads) <= 1.01 * np.mean(loads)
    assert max(loads) < lengths.reshape(4, 16).sum(1).max()


@pytest.mark.parametrize("balance", [False, True])
def test_a_rank_tokenises_its_own_rows_unless_it_must_compare_lengths(
    tokenizer, monkeypatch, balance
) -> None:
    from mipic_llm.data.plan import BatchPlan
    from mipic_llm.data.read.rows import TextSource
    from mipic_llm.training import feed

    monkeypatch.setattr(feed.dist, "world_size", lambda: 2)
    monkeypatch.setattr(feed.dist, "rank", lambda: 1)
    rows = [Example(f"a{i}", f"p{i}", (), i) for i in range(16)]
    source, enc = TextSource("rows", rows, 1.0), encoder(tokenizer)
    plan = BatchPlan([source], 4, 2, seed=0)
    data = feed.Data([source], plan, enc, [], [source.traits], [LazyTokens(rows, enc)], balance,
                     encoders=[enc])  # fmt: skip
    found = data.step((0, 0))
    seen = [int(text[1:]) for text in enc._known["query"]]
    whole = [i for _, i in plan.batch(0, 0)]
    assert found.n_anchors == 4 and seen == (whole if balance else whole[4:])
    hard = tuple(f"n{i}" for i in range(5))
    source = source._replace(examples=[e._replace(negatives=hard) for e in rows], drawn=2)
    tokens = [LazyTokens(source.examples, enc)]
    data = data._replace(sources=[source], tokens=tokens)
    for epoch in range(3):
        found = data.step((epoch, 1))
        keys = {key_of(text.encode()): int(text[1:]) for text in hard}
        got = [keys[k] for k in found.keys[8:]]
        wanted = [n for own in plan.draw(epoch, 1, [5] * 8, 2)[0 if balance else 4 :] for n in own]
        assert len(got) == 8 and (balance or got == wanted)
