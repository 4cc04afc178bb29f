"""A cut model that is mapped onto the last layer: `mipic export --point dim@layer --lens`."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from api_worker import ROWS, settings
from readers import served
from sentence_transformers import SentenceTransformer
from sklearn.linear_model import Ridge
from tiny_models import SENTENCES, tiny_bert
from torch.nn.functional import normalize

import mipic_llm
from mipic_llm import UserError
from mipic_llm.commands.evaluate import main as judge
from mipic_llm.commands.export import main
from mipic_llm.config import load_config
from mipic_llm.evaluation.lens import RIDGES, fit_lens
from mipic_llm.evaluation.read import load_tasks
from mipic_llm.evaluation.searches import by_query_layer
from mipic_llm.evaluation.suite import run_suite
from mipic_llm.evaluation.tasks.base import DOCUMENT
from mipic_llm.export import fitted
from mipic_llm.report.scores import read_families
from mipic_llm.types import Point

WORDS = sorted({word for sentence in SENTENCES for word in sentence.split()})
LINES = [" ".join(random.Random(i).sample(WORDS, 3 + i % 6)) for i in range(640)]
TEXTS = LINES[600:]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> mipic_llm.Run:
    folder = tmp_path_factory.mktemp("lens")
    kept = settings(str(tiny_bert(folder / "base"))) | {"validation": "demo"}
    return mipic_llm.train(ROWS, output_dir=folder / "run", **kept)


@pytest.fixture(scope="module")
def text(run) -> list[str]:
    path = run.path.parent / "text.jsonl"
    path.write_text("".join(json.dumps({"text": words}) + "\n" for words in LINES[:600]))
    return [str(path)]


def encode(folder: Path | str, dim: int | None = None) -> np.ndarray:
    model = SentenceTransformer(str(folder), device="cpu", truncate_dim=dim)
    return model.encode(TEXTS, prompt="", normalize_embeddings=True)


def test_it_is_the_ridge_regression_with_the_least_error_on_held_out_texts() -> None:
    torch.manual_seed(0)
    x = torch.randn(300, 12) * torch.linspace(0.2, 3, 12) + 4
    y = torch.tanh(x @ torch.randn(12, 12)) + 0.5 * torch.randn(300, 12)
    lens = fit_lens(x, y)
    held = np.arange(300) % 5 == 0
    a, b = x.double().numpy(), normalize(y.double(), dim=1).numpy()
    errors = {}
    for ridge in RIDGES:
        alpha = ridge * a[~held].var(0).mean() * (~held).sum()
        model = Ridge(alpha=alpha).fit(a[~held], b[~held])
        errors[ridge] = ((model.predict(a[held]) - b[held]) ** 2).sum()
        if ridge == lens.ridge:
            assert np.abs(model.coef_ - lens.dense.weight.numpy()).max() < 1e-6
            assert np.abs(model.predict(a) - lens.dense.linear(x).numpy()).max() < 1e-5
    assert lens.ridge == min(errors, key=errors.__getitem__) not in (RIDGES[0], RIDGES[-1])
    rest = ((b[held] - b[~held].mean(0)) ** 2).sum()
    assert lens.known == pytest.approx(1 - errors[lens.ridge] / rest)
    exact = fit_lens(x, normalize(x @ torch.eye(12) + 1, dim=1) * torch.rand(300, 1))
    assert exact.known > 0.9  # lengths of the last layer's vectors count for nothing
    with pytest.raises(UserError, match="11 distinct texts are too few for a map of 12 channels"):
        fit_lens(x[:11], y[:11])
    assert fit_lens(x[:12], y[:12]).dense.weight.shape == (12, 12)  # as many as it asks for


def test_a_cut_model_through_its_lens_is_nearer_to_the_whole_one(run, text, tmp_path) -> None:
    whole = encode(run.path / "adapter")
    plain = encode(mipic_llm.export(run, point="32@2", to=tmp_path))
    made = mipic_llm.export(run, point="32@2", lens=True, pca_text=text, to=tmp_path)
    assert made.name == "lens-2x32"
    found = encode(made)
    off = [np.abs(v @ v.T - whole @ whole.T).mean() for v in (plain, found)]
    assert off[1] < 0.65 * off[0]
    assert np.abs(served(made, TEXTS).numpy() - found).max() < 1e-6
    small = mipic_llm.export(run, point="8@2", lens=True, pca_text=text, to=tmp_path)
    assert np.abs(encode(small) - encode(made, 8)).max() < 1e-6
    card = (made / "README.md").read_text()
    assert "mapped onto what layer 4 gives, by least squares on" in card
    assert "before -> after: 8: " in card and "held out" in card
    again = mipic_llm.evaluate(made, "demo", dims=[8], layers=[2], output_dir=tmp_path / "scores")
    assert f"| 2 | {100 * again[0].value:.2f} [" in card
    turned = mipic_llm.export(run, point="32@2", lens=True, rotate="pca", pca_text=text,
                              to=tmp_path)  # fmt: skip
    both = encode(turned)
    assert turned.name == "rotated-2x32" and np.abs(both - found).max() > 0.1
    assert np.abs(both @ both.T - found @ found.T).max() < 1e-5


def test_evaluate_scores_a_lens_as_its_export_does(run, text, tmp_path) -> None:
    words = ["--data", "demo", "--dims", "8", "32", "--output_dir", str(tmp_path / "a"), "--model"]
    model = str(run.path / "adapter")
    assert judge([*words, model, "--layers", "2", "--lens_text", *text, "--bits", "32", "8"]) == 0
    found = [s for f, s in read_families(tmp_path / "a" / "scores.jsonl") if f == "lens"]
    assert {s.point for s in found} == {Point(2, d, b) for d in (8, 32) for b in (8, 32)}
    made = mipic_llm.export(run, point="32@2", lens=True, pca_text=text, to=tmp_path)
    again = mipic_llm.evaluate(made, "demo", dims=[8, 32], output_dir=tmp_path / "b")
    for s in found:
        (same,) = (a for a in again if a[:2] == s[:2] and a.point == s.point._replace(bits=32))
        assert s.value == pytest.approx(same.value, abs=2e-4 if s.point.bits == 32 else 3e-2)


def test_the_gains_are_of_validation_rows(tmp_path, monkeypatch) -> None:
    """Test rows of a folder are for a finished model alone; it may well have none."""
    for split, rows in (("train", 9), ("validation", 7)):
        lines = [
            {"sentence1": TEXTS[i], "sentence2": TEXTS[i + 9], "score": i} for i in range(rows)
        ]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    config = SimpleNamespace(data=SimpleNamespace(validation=[str(tmp_path)]))
    monkeypatch.setattr(fitted, "read_texts", lambda _, __, texts, *___: torch.randn(
        1, len(texts), 8))  # fmt: skip
    scores, notes = fitted.judged_with(config, None, None, 2, [8], lambda z: z)
    assert [s.n for s in scores] == [7] and notes


def test_training_data_is_read_as_the_training_read_it(tmp_path) -> None:
    path = tmp_path / "train.csv"
    path.write_text(
        "anchor,positive,label\n" + "".join(f"{x},{x} too,1\n" for x in LINES[:9]) + ",,\n"
    )
    argv = ["--data.train", str(path), "--data.ignore_columns", "label", "--data.on_bad_rows",
            "skip"]  # fmt: skip
    assert len(fitted.text_to_fit(load_config(argv), [], 99, "lens")) == 18
    with pytest.raises(UserError, match="train.csv"):
        fitted.text_to_fit(load_config(argv), [str(path)], 99, "lens")  # as any other text


def test_queries_of_a_cut_model_meet_documents_of_the_whole_one(run, text, tmp_path) -> None:
    pairs = [{"question": a, "answer": b} for a, b in zip(TEXTS[:20], TEXTS[20:], strict=True)]
    data = tmp_path / "faq.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in pairs))
    model, out = run.path / "adapter", tmp_path / "a"
    words = ["--model", str(model), "--data", str(data), "--dims", "8", "32", "--layers", "2", "4",
             "--asymmetric", "--lens_text", *text, "--output_dir", str(out)]  # fmt: skip
    assert judge(words) == 0
    rows = read_families(out / "scores.jsonl")
    matrix = by_query_layer({f: [s for g, s in rows if g == f] for f, _ in rows})
    cut = mipic_llm.export(run, point="32@2", lens=True, pca_text=text, to=tmp_path)
    (task,), _ = load_tasks([str(data)])
    known = {k: SentenceTransformer(str(m), device="cpu") for k, m in ((2, cut), (4, model))}
    for asks, answers in ((2, 2), (2, 4), (4, 2), (4, 4)):

        def read(texts: list[str], kind: str, asks: int = asks, answers: int = answers):
            made = known[answers if kind == DOCUMENT else asks].encode(texts, prompt="")
            return torch.as_tensor(made)[:, None]

        found = run_suite([task], read, layers=[1], points=[Point(1, 8), Point(1, 32)])["prefix"]
        for (_, metric, dim), cells in matrix.items():
            (same,) = (s for s in found if (s.metric, s.point.dim) == (metric, dim))
            assert cells[asks, answers] == pytest.approx(same.value, abs=1e-4)


def test_any_model_is_cut_through_a_lens(run, tmp_path, capsys) -> None:
    base = str(run.path.parent / "base")
    words = ["--model.name", base, "--pca_text", "demo", "--to", str(tmp_path), "--point", "16@2",
             "--lens", "--data.max_length", "9", "--train.epochs", "3"]  # fmt: skip
    assert main(words) == 0
    assert encode(tmp_path / "lens-2x16").shape[1] == 16
    settings = json.loads((tmp_path / "lens-2x16" / "sentence_bert_config.json").read_text())
    assert settings["max_seq_length"] == 9
    said = capsys.readouterr().out
    assert "note: --train.epochs: this command does not read it\n" in said


def test_a_flag_of_the_run_s_own_settings_is_told(run, tmp_path, capsys) -> None:
    words = ["--output_dir", str(run.path), "--to", str(tmp_path), "--point", "8@2"]
    assert main([*words, "--data.max_length", "9", "--train.epochs", "3"]) == 0
    said = capsys.readouterr().out
    assert "note: --data.max_length: vectors are made as the run made them\n" in said
    assert "note: --train.epochs: this command does not read it\n" in said
    assert said.count("--train.epochs") == said.count("--data.max_length") == 1


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"lens": True}, "lens: it maps an inner layer onto the last one; add --point"),
        ({"lens": True, "point": "8@4"}, "give a --point below layer 4"),
        ({"lens": True, "point": "8@2"}, "lens: the run's training data are not here"),
        ({"lens": True, "bytes": 16}, "bytes: it chooses the size by itself"),
    ],
)
def test_mistakes_are_one_line(run, tmp_path, options, complaint) -> None:
    with pytest.raises(UserError, match=complaint):
        mipic_llm.export(run, to=tmp_path, **options)


def test_a_model_without_a_run_is_not_cut_without_a_lens(run, tmp_path) -> None:
    base = str(run.path.parent / "base")
    words = ["--model.name", base, "--pca_text", "demo", "--to", str(tmp_path)]
    with pytest.raises(UserError, match="cut with --lens"):
        main([*words, "--point", "16@2", "--rotate", "pca"])
    with pytest.raises(UserError, match="rotates that model, or cuts it"):
        main([*words, "--point", "16@2"])
    with pytest.raises(UserError, match="a model without a run is whole"):
        main([*words, "--merged", "--rotate", "pca"])
