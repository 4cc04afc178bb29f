"""Several positives of one anchor in one row (`data.positives averaged`): read, kept apart, run."""

from __future__ import annotations

import json
import math

import pytest
import torch
from api_worker import settings
from tiny_models import SENTENCES, few, tiny_bert

import mipic_llm
from mipic_llm.config import load_config
from mipic_llm.data.batch import join_rows
from mipic_llm.data.chunks import prepare
from mipic_llm.data.read.training import read_training
from mipic_llm.data.token_cache import LazyTokens
from mipic_llm.errors import UserError

ROWS = [
    {"query": "a", "pos": ["p", "q", "p "], "neg": ["x", "y"], "pos_scores": [3, 2, 3],
     "neg_scores": [1, 0]},
    {"query": "b", "pos": ["r"], "neg": ["x"]},
    {"query": "a", "pos": ["s"], "neg": ["z", "p"]},
]  # fmt: skip


def read(rows: list[dict], negatives: int = 2):
    (source,), _ = read_training([rows], negatives=negatives, together=True)
    return source


def test_rows_of_one_anchor_are_one() -> None:
    """Each positive once, no positive among the negatives, scores beside their texts."""
    one, two = read(ROWS).examples
    assert one[:3] == ("a", "p", ("q", "s", "x", "y")) and one.also == 2 and one.id == 0
    assert one.scores[:2] == (3, 2) and math.isnan(one.scores[2]) and one.scores[3:] == (1, 0)
    assert two[:3] == ("b", "r", ("x",)) and (two.also, two.scores) == (0, ())
    assert read(ROWS).traits.several and not read(ROWS[1:2]).traits.several
    bare = read(ROWS, negatives=0).examples
    assert bare[0].negatives == ("q", "s") and bare[1].negatives == ()


def test_what_a_step_knows_of_them(monkeypatch) -> None:
    source = read(ROWS)

    class Encoder:
        pad_id, padding_side, skips = 0, "right", {}

        def arrays(self, texts, kind):
            import numpy as np

            return [np.array([ord(t[0])], np.int32) for t in texts]

    tokens = LazyTokens(source.examples, Encoder())
    batch = join_rows(source.examples, tokens.rows([0, 1]), Encoder(), source.traits)
    known = prepare(batch, 0).known
    assert known.also_S.tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 0]
    assert known.whose_S.tolist() == [0, 1, 0, 1, 0, 0, 0, 0, 1]
    assert known.also_S.dtype == torch.int64


def test_a_run(tmp_path) -> None:
    """In chunks too, which the self-check compares with a plain step."""
    rows = [{"query": a, "pos": [f"{a} {n}" for n in range(1 + i % 3)]}
            for i, a in enumerate(SENTENCES)]  # fmt: skip
    pairs = few(tmp_path, "validation", 40)
    own = settings(str(tiny_bert(tmp_path / "base"))) | {"validation": str(pairs)}
    own["train"] = own["train"] | {"chunk_size": 5, "selfcheck": "true"}
    runs = [mipic_llm.train(rows, output_dir=tmp_path / how, **own | {"data.positives": how})
            for how in ("averaged", "each")]  # fmt: skip
    first = [json.loads((r.path / "metrics.jsonl").read_text().splitlines()[0]) for r in runs]
    assert all(math.isfinite(row["loss"]) for row in first)
    assert first[0]["loss"] != first[1]["loss"]


@pytest.mark.parametrize("flags, words", [
    (["--data.negatives_draw", "random"], "negatives_draw first"),
    (["--data.validation_split", "0.1"], "validation_split set"),
])  # fmt: skip
def test_what_is_refused(flags, words) -> None:
    with pytest.raises(UserError, match=words):
        load_config(["--data.positives", "averaged", *flags])
