"""Scored pairs as a source: CoSENT and AnglE against sentence-transformers, and whole runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from ranks import ROOT, run_ranks
from test_data_formats import write_jsonl
from tiny_models import SENTENCES, tiny_bert

from mipic_llm import losses
from mipic_llm.data.read.rows import Example
from mipic_llm.data.token_cache import LazyTokens, StoredTokens, build
from mipic_llm.data.tokenise import TextEncoder
from mipic_llm.report import read_scores
from mipic_llm.report.plots import loss_parts


@pytest.mark.parametrize("scores", ["fractions", "grades", "binary", "equal"])
@pytest.mark.parametrize("angle", [False, True])
def test_equal_to_sentence_transformers(angle: bool, scores: str) -> None:
    """On the same vectors, at each width (an odd one too), with gradients."""
    from sentence_transformers.sentence_transformer import losses as theirs

    other = (theirs.AnglELoss if angle else theirs.CoSENTLoss)(None, scale=20.0)
    torch.manual_seed(1)
    x, y = (torch.randn(50, 24).requires_grad_() for _ in range(2))
    n = {"fractions": 0, "grades": 5, "binary": 2, "equal": 1}[scores]
    score = torch.randint(0, n, (50,)).float() if n else torch.rand(50)
    dims = (1, 8, 13, 24)
    found = losses.cosent_per_dim(x, y, score, dims=dims, tau=0.05, angle=angle)
    for d, value in zip(dims, found, strict=True):
        wanted = other.compute_loss_from_embeddings([x[:, :d], y[:, :d]], score)
        torch.testing.assert_close(value, wanted, rtol=1e-5, atol=1e-6)
        assert (value == 0) == (scores == "equal")
        ours, want = (torch.autograd.grad(v, [x, y], retain_graph=True) for v in (value, wanted))
        torch.testing.assert_close(ours, want, rtol=1e-4, atol=1e-5)


def test_bf16_and_bad_shapes() -> None:
    x, y, score = torch.randn(9, 4), torch.randn(9, 4), torch.arange(9.0)
    with torch.autocast("cpu", torch.bfloat16):
        full = losses.cosent_per_dim(x, y, score, dims=[4], tau=1)
    low = losses.cosent_per_dim(x.bfloat16(), y.bfloat16(), score, dims=[4], tau=1)
    assert full.dtype == low.dtype == torch.float32 and abs(full - low) < 0.05
    torch.testing.assert_close(full, losses.cosent_per_dim(x, y, score, dims=[4], tau=1))
    for wrong in ((x, y[:8], score), (x, y, score[:8])):
        with pytest.raises(ValueError, match="pairs must be of shapes"):
            losses.cosent_per_dim(*wrong, dims=[4], tau=1)


def test_both_texts_take_the_prompt_of_sts(tmp_path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_bert(tmp_path / "bert"))
    prompts = {"query": "a ", "document": "the ", "symmetric": "one "}
    encoder = TextEncoder(tokenizer, 12, append_eos_id=None, prompts=prompts)
    rows = [Example("man", "dog", (), 0, (1.0,)), Example("dog", "man", (), 1, (2.0,))]
    build(tmp_path / "cache", rows, encoder, scored=True)
    for tokens in (LazyTokens(rows, encoder, scored=True), StoredTokens(tmp_path / "cache")):
        (first,) = tokens.rows([0])
        assert [ids.tolist() for ids in first] == [
            tokenizer(f"one {word}")["input_ids"] for word in ("man", "dog")
        ]


# --- runs ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scored")
    tiny_bert(folder / "bert")
    words = [w for w in dict.fromkeys(" ".join(SENTENCES).split()) if len(w) > 3][:8]
    scored = [
        {"sentence1": f"a {a}", "sentence2": f"the {b}", "score": float(-abs(i - j))}
        for i, a in enumerate(words)
        for j, b in enumerate(words)
    ]
    write_jsonl(folder / "scored.jsonl", scored)
    pairs = [{"anchor": SENTENCES[i], "positive": f"so {SENTENCES[i]}"} for i in range(8)]
    write_jsonl(folder / "pairs.jsonl", pairs)
    return folder


def train(base: Path, out: Path, sources: str, *more: str, world: int = 1) -> list[dict]:
    code, text = run_ranks(world, ROOT / "launch" / "train.py", [
        "--recipe", "none", "--model.name", str(base / "bert"), "--objective.dims", "4,16,32",
        "--data.max_length", "16", "--data.validation", str(base / "scored.jsonl"),
        "--train.learning_rate", "5e-3", "--tracking.mlflow", "off", "--sia.layers", "2,4",
        "--export.rehearse", "false",
        "--pic.ladder", "4@2,32@4", "--output_dir", str(out), "--data.train",
        *(str(base / name) for name in sources.split(",")), *more,
    ])  # fmt: skip
    assert code == 0, text[-4000:]
    (out / "said.txt").write_text(text)
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_run_on_scored_pairs_alone(base, tmp_path) -> None:
    """In chunks that equal plain steps; killed in the middle, it goes on bit for bit."""
    options = ["--train.batch_size", "16", "--train.chunk_size", "8", "--scored.loss", "both",
               "--train.epochs", "4", "--train.save_every", "8"]  # fmt: skip
    out = tmp_path / "run"
    rows = [row for row in train(base, out, "scored.jsonl", *options) if "loss" in row]
    assert len(rows) == 16
    for row in rows:
        assert {f"loss/{n}@{d}" for n in ("cosent", "angle") for d in (4, 16, 32)} <= set(row)
        assert (
            "loss/mrl" not in row
            and "loss/chain" not in row
            and not any(key.startswith("loss_source") for key in row)
            and row["false_negatives"] == 0
        )
        parts = {k[5:]: v for k, v in row.items() if k.startswith("loss/") and "@" not in k}
        task = 0.5 * (parts["cosent"] + parts["angle"])
        inner = 0.5 * (parts["relation"] + parts["geometry"] + 3 * parts["sentences"])
        assert row["loss"] == pytest.approx(task + inner, rel=1e-5)
        each = [row[f"loss/cosent@{d}"] for d in (4, 16, 32)]
        assert parts["cosent"] == pytest.approx(each[0] + each[1] + 8 * each[2], rel=1e-5)
    said = (out / "said.txt").read_text()
    assert (
        "a step in chunks equals a plain one" in said and "sentence1/sentence2/score (-7 to" in said
    )
    assert "cosent" in said and (out / "loss.png").exists() and (out / "adapter").is_dir()
    found = [read_scores(out / "scores.jsonl", stage=when) for when in ("before", "after")]
    before, after = (
        {s.point.dim: s.value for s in scores if s.point.layer == 4} for scores in found
    )
    assert all(after[d] > before[d] + 0.03 for d in (4, 16, 32)), (before, after)
    half = out / "checkpoints" / "step-00000008"
    again = train(base, tmp_path / "again", "scored.jsonl", *options, "--train.resume", str(half))
    assert [r["loss"] for r in again if "loss" in r] == [r["loss"] for r in rows[8:]]
    plain = train(base, tmp_path / "two", "scored.jsonl", *options[4:], "--train.batch_size", "8",
                  world=2)  # fmt: skip
    for one, two in zip(rows, plain, strict=False):  # another number of ranks, no chunks
        assert one["loss"] == pytest.approx(two["loss"], rel=2e-3), (one, two)


def test_labelled_text_beside_pairs(base, tmp_path) -> None:
    """Its texts find another of their label; two ranks, in chunks; stopped, it goes on."""
    rows = [{"text": s, "label": n % 4} for n, s in enumerate(SENTENCES[:12])]
    write_jsonl(base / "labels.jsonl", rows)
    options = ["--train.batch_size", "2", "--objective.name", "mrl", "--train.max_steps", "12",
               "--data.label_column", "label", "--train.chunk_size", "3", "--train.save_every", "6",
               "--train.learning_rate", "1e-2"]  # fmt: skip
    out = tmp_path / "run"
    whole = [
        r for r in train(base, out, "labels.jsonl,pairs.jsonl", *options, world=2) if "loss" in r
    ]
    assert len(whole) == 12
    named = [row for row in whole if "loss_source/labels" in row]
    assert named and any(row["false_negatives"] for row in named)
    half = out / "checkpoints" / "step-00000006"
    again = train(base, tmp_path / "again", "labels.jsonl,pairs.jsonl", *options,
                  "--train.resume", str(half), world=2)  # fmt: skip
    assert [r["loss"] for r in again if "loss" in r] == [r["loss"] for r in whole[6:]]


def test_kinds_of_sources_alternate(base, tmp_path) -> None:
    out = tmp_path / "run"
    rows = train(base, out, "scored.jsonl,pairs.jsonl", "--train.batch_size", "4",
                 "--objective.name", "mrl", "--train.max_steps", "40", "--train.log_every", "2",
                 "--tracking.mlflow", f"sqlite:///{tmp_path}/m.db", world=2)  # fmt: skip
    rows = [row for row in rows if "loss" in row]
    kinds = [("loss/mrl" in row, "loss/cosent" in row) for row in rows]
    assert set(kinds) == {(True, False), (False, True)} and len(rows) == 20
    for row, (pairs, _) in zip(rows, kinds, strict=True):  # each source has a loss of its own
        named = {key: value for key, value in row.items() if key.startswith("loss_source/")}
        assert named == {f"loss_source/{'pairs' if pairs else 'scored'}": row["loss"]}
    panels = loss_parts(out / "metrics.jsonl")
    assert len(panels["MRL"][""]) + len(panels["CoSENT"][""]) == len(panels["total"][""]) == 20
    assert panels["total per source"].keys() == {"pairs", "scored"}
    assert len(panels["total per source"]["pairs"]) == len(panels["MRL"][""])
    assert panels["CoSENT per dim"].keys() == {"4", "16", "32"} and (out / "loss.png").exists()
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/m.db")
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert {
        "loss_source/pairs",
        "loss_source/scored",
        "loss/mrl",
        "loss/cosent",
        "loss/cosent_at_4",
    } <= run.data.metrics.keys()
