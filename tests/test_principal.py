"""Principal components of the untrained model, which a training is held against."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from api_worker import settings
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from sklearn.decomposition import PCA
from tiny_models import SENTENCES, tiny_bert

import mipic_llm
from mipic_llm.data.read.training import read_training
from mipic_llm.report import principal_line, read_scores
from mipic_llm.report.scores import read_families, write_scores
from mipic_llm.training.distinct import some_texts
from mipic_llm.types import Point

WORDS = sorted({word for text in SENTENCES for word in text.split()})
TEXTS = [f"{a} {b} {a}" for a, b in combinations(WORDS, 2)][:300]
ROWS = [{"anchor": a, "positive": b} for a, b in zip(TEXTS[::2], TEXTS[1::2], strict=True)]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("principal") / "base")


@pytest.fixture(scope="module")
def pairs(base) -> list[dict]:
    """Scored by the base itself, so that training can but lose."""
    z_ND = unit(encode(base, TEXTS))
    z_ND = z_ND - z_ND.mean(0)
    chosen = [(i, 7 * i % 299 + 1) for i in range(0, 298, 2)]
    return [{"sentence1": TEXTS[i], "sentence2": TEXTS[j],
             "score": float(unit(z_ND)[i] @ unit(z_ND)[j])} for i, j in chosen]  # fmt: skip


def encode(model: Path, texts: list[str]) -> np.ndarray:
    return SentenceTransformer(str(model), device="cpu").encode(texts).astype(np.float64)


def train(base: Path, pairs: list[dict], out: Path, **more) -> Path:
    own = settings(str(base)) | {"validation": pairs}
    own["train"] = own["train"] | {"learning_rate": 0.5, "max_steps": 6}  # which ruins the model
    return mipic_llm.train(ROWS, output_dir=out, **own | more).path


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_a_ruined_model_is_told_to_be_worse_than_principal_components(
    base, pairs, tmp_path
) -> None:
    out = train(base, pairs, tmp_path / "run")
    found = {s.point: s.value for family, s in read_families(out / "scores.jsonl", "before")
             if family == "pca"}  # fmt: skip
    scored = {text for row in pairs for text in (row["sentence1"], row["sentence2"])}
    sources, _ = read_training(ROWS, negatives=0)
    texts = some_texts(sources, min(256, len(scored)))
    pca = PCA(32).fit(unit(encode(base, texts)))
    one, two = ([row[side] for row in pairs] for side in ("sentence1", "sentence2"))
    for dim in (8, 16, 32):
        a, b = (unit(pca.transform(unit(encode(base, x)))[:, :dim]) for x in (one, two))
        expected = spearmanr((a * b).sum(1), [row["score"] for row in pairs]).statistic
        assert found[Point(4, dim)] == pytest.approx(expected, abs=2e-3)
    line = principal_line(out)
    assert "worse than principal components of the untrained one, most at rows-0/sp" in line
    assert "--model.rotate centred" in line and ", -" in line and " [-" in line
    for page in (out / "table.txt", out / "adapter" / "README.md"):
        assert line in page.read_text()
    assert {s.point for s in read_scores(out / "scores.jsonl", "before")} >= set(found)


def test_no_word_without_them_or_where_training_is_better(base, pairs, tmp_path) -> None:
    out = train(base, pairs, tmp_path / "run", eval={"pca": 0})
    assert principal_line(out) == "" and '"pca"' not in (out / "scores.jsonl").read_text()
    before = read_scores(out / "scores.jsonl", "before")
    worse = [s._replace(value=s.value - 1) for s in read_scores(out / "scores.jsonl", "after")]
    write_scores(out / "scores.jsonl", before, stage="before")
    write_scores(out / "scores.jsonl", worse, stage="before", readout="pca", append=True)
    write_scores(out / "scores.jsonl", before, stage="after", append=True)
    assert principal_line(out) == ""


def test_the_texts_are_distinct_and_from_all_sources() -> None:
    ((source,), _) = read_training(["demo"], negatives=0)
    for most in (1, 7, 300, 10_000):
        texts = some_texts([source], most)
        assert len(texts) == len(set(texts)) <= most and len(texts) > min(most, 3000) / 4
    rows = source.examples
    anchors = {e.anchor for e in rows}
    assert 20 < sum(text in anchors for text in some_texts([source], 100)) < 80
    for cut in (900, 901, 911):  # however the rows lie in sources
        two = [source._replace(examples=some) for some in (rows[:cut], rows[cut:])]
        assert some_texts(two, 100) == some_texts([source], 100)
