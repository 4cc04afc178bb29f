"""The shipped demo text: shape, variety and split hygiene."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter, defaultdict

import pytest

from mipic_llm.data.demo import demo_path

TRAIN_KEYS = ("anchor", "positive", "negative", "domain")
PAIR_KEYS = ("sentence1", "sentence2", "score", "domain")


def _rows(split: str) -> list[dict]:
    text = demo_path(split).read_text(encoding="ascii")
    return [json.loads(line) for line in text.splitlines()]


def _normal(sentence: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", sentence.lower()))


@pytest.fixture(scope="module")
def train() -> list[dict]:
    return _rows("train")


@pytest.fixture(scope="module")
def validation() -> list[dict]:
    return _rows("validation")


def test_unknown_split_is_refused():
    with pytest.raises(ValueError, match="unknown demo split"):
        demo_path("test")


def test_counts_keys_and_domains(train, validation):
    assert len(train) >= 1600
    assert len(validation) == 400
    assert all(tuple(row) == TRAIN_KEYS for row in train)
    assert all(tuple(row) == PAIR_KEYS for row in validation)
    for rows in (train, validation):
        per_domain = Counter(row["domain"] for row in rows)
        assert len(per_domain) >= 14
        assert min(per_domain.values()) >= 10


def test_no_empty_or_duplicate_rows(train, validation):
    for rows, keys in ((train, TRAIN_KEYS[:3]), (validation, PAIR_KEYS[:2])):
        for row in rows:
            for key in keys:
                text = row[key]
                assert text == " ".join(text.split()) and text
                assert not re.search(r"[{}/]|\s[.,;:?!]|,,|\.\.", text), text
                assert 3 <= len(text.split()) <= 40, text
            assert len({_normal(row[key]) for key in keys}) == len(keys), row
        assert len({tuple(row[key] for key in keys) for row in rows}) == len(rows)
    anchors = [_normal(row["anchor"]) for row in train]
    assert len(set(anchors)) == len(anchors)
    pairs = {frozenset((row["sentence1"], row["sentence2"])) for row in validation}
    assert len(pairs) == len(validation)


def test_splits_share_no_sentence(train, validation):
    seen = {_normal(row[key]) for row in train for key in TRAIN_KEYS[:3]}
    held = {_normal(row[key]) for row in validation for key in PAIR_KEYS[:2]}
    assert not seen & held


def _near_copy_share(sentences: list[str], pool: list[str], limit: float) -> float:
    """Share of ``sentences`` with a token Jaccard above ``limit`` to another one in ``pool``."""
    sets = [frozenset(_normal(text).split()) for text in pool]
    index = defaultdict(list)
    for number, tokens in enumerate(sets):
        for token in tokens:
            index[token].append(number)
    hits = 0
    for text in sentences:
        tokens = frozenset(_normal(text).split())
        shared = Counter(number for token in tokens for number in index[token])
        hits += any(
            count / (len(tokens) + len(sets[number]) - count) > limit and pool[number] != text
            for number, count in shared.items()
        )
    return hits / len(sentences)


def test_few_near_copies(train, validation):
    anchors = [row["anchor"] for row in train]
    assert _near_copy_share(anchors, anchors, 0.8) < 0.10
    everything = [row[key] for row in train for key in TRAIN_KEYS[:3]]
    held = [row[key] for row in validation for key in PAIR_KEYS[:2]]
    assert _near_copy_share(held, everything, 0.6) < 0.01


def test_scores_cover_the_scale(validation):
    scores = [row["score"] for row in validation]
    assert all(isinstance(score, float) and 0.0 <= score <= 5.0 for score in scores)
    assert all(score * 2 == int(score * 2) for score in scores)
    for rounded in (
        Counter(round(score) for score in scores),
        Counter(math.floor(score + 0.5) for score in scores),
    ):
        assert all(rounded[grade] >= 30 for grade in range(6)), rounded


@pytest.mark.parametrize(
    ("split", "digest"), [("train", "bea25bb96d5fa636"), ("validation", "96b2f77e1d718f31")]
)
def test_the_text_is_the_one_that_published_figures_were_measured_on(split, digest):
    assert hashlib.sha256(demo_path(split).read_bytes()).hexdigest().startswith(digest)
