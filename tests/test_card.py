"""The model card of an export: what stands in it is what the run recorded, and its Python runs."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shlex
import shutil
from importlib.metadata import version
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from api_worker import ROWS, settings
from huggingface_hub import EvalResult, ModelCard
from scipy.stats import norm
from tiny_models import TEXTS, tiny_bert

import mipic_llm
from mipic_llm.config import command_of, from_settings, load_config
from mipic_llm.export import card, portable, verify
from mipic_llm.export.card import Facts
from mipic_llm.export.portable import EmbeddingSpec
from mipic_llm.export.write import ExportError
from mipic_llm.model.source import Source
from mipic_llm.types import Point, Score


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> mipic_llm.Run:
    base = tiny_bert(tmp_path_factory.mktemp("base") / "bert")
    (base / "README.md").write_text("---\nlicense: other\nlicense_name: mine\n---\n# A base\n")
    out = tmp_path_factory.mktemp("run") / "mine"
    return mipic_llm.train(ROWS, output_dir=out, **settings(str(base)))


def test_the_card_of_a_run_holds_what_it_recorded(run):
    found = ModelCard.load(run.path / "adapter" / "README.md")  # checks the head
    told = {(r.dataset_name, r.metric_type, r.metric_args["layer"], r.metric_args["dim"]): r
            for r in found.data.eval_results}  # fmt: skip
    assert len(told) == len(run.scores) == 5
    for score in run.scores:
        one = told[score.task, score.metric, *score.point.place]
        assert isinstance(one, EvalResult) and one.task_type == "sentence-similarity"
        assert one.metric_value == pytest.approx(score.value, abs=1e-6)
        low, high = one.metric_args["interval_95"]
        assert low < score.value < high and one.metric_args["n"] == score.n
    assert (found.data.library_name, found.data.model_name) == ("sentence-transformers", "mine")
    assert (found.data.license, found.data.license_name) == ("other", "mine")
    assert "base_model" not in found.data.to_dict(), "a directory is no id of the hub"
    old = {s[:3]: s.value for s in run.scores.before}
    for score in run.scores:
        shown = f"{100 * score.value:.2f} ({100 * (score.value - old[score[:3]]):+.2f})"
        assert shown in found.text, shown
    (judged,) = json.loads((run.path / "comparison.json").read_text())
    assert "## Before and after" in found.text and f"- {judged['verdict'][0]}\n" in found.text
    digest = hashlib.blake2b(digest_size=16)
    for text in (text for row in ROWS for text in (row["anchor"], row["positive"])):
        digest.update(hashlib.blake2b(text.encode(), digest_size=8).digest())
    digest.update((2).to_bytes(8, "little") * len(ROWS))  # texts of each row
    (data,) = json.loads((run.path / "environment.json").read_text())["data"]
    assert (data["rows"], data["digest"]) == (len(ROWS), digest.hexdigest())
    assert f"| rows[0] | {len(ROWS)} | `{data['digest']}` |" in found.text
    assert "mipic train --output_dir" in found.text and "--train.max_steps 3" in found.text
    assert "  # data.train and data.validation: objects of a program\n" in found.text
    assert f"torch {version('torch')}" in found.text
    assert "Run when this was written (sentence-transformers" in found.text
    assert card.NOT_RUN not in found.text


def test_the_snippet_is_run_and_must_keep_its_word(run, tmp_path):
    folder = tmp_path / "adapter"
    shutil.copytree(run.path / "adapter", folder)
    spec = SimpleNamespace(width=32, dims=(8, 16, 32), trust_remote_code=False)
    verify.run_snippet(folder, spec)
    text = (folder / "README.md").read_text()
    for change, words in (
        (("normalize_embeddings=True", "normalize_embeddings=False"), "`small` .* off unit length"),
        (("truncate_dim=8", "truncate_dim=16"), "`small` .* has 16 channels"),
        (("model.encode", "model.encod"), "card fails: .*encod"),
    ):
        (folder / "README.md").write_text(text.replace(*change))
        with pytest.raises(ExportError, match=words):
            verify.run_snippet(folder, spec)


def test_an_adapter_and_its_base_may_move_together(run, tmp_path):
    base = json.loads((run.path / "adapter" / "adapter_config.json").read_text())
    base = base["base_model_name_or_path"]
    beside = os.path.relpath(base, run.path / "adapter")
    told = json.loads((run.path / "adapter" / "config_sentence_transformers.json").read_text())
    assert told["base_beside"] == beside and "MERGED" in (
        run.path / "adapter" / "README.md").read_text().upper()  # fmt: skip
    wanted = run.encode(TEXTS)
    moved = tmp_path / "other" / run.path.parent.name / run.path.name / "adapter"
    shutil.copytree(run.path / "adapter", moved)
    settings_of = moved / "adapter_config.json"
    settings_of.write_text(settings_of.read_text().replace(base, "/nowhere/bert"))
    with pytest.raises(mipic_llm.UserError, match="not on this machine; give --model.name"):
        mipic_llm.load(moved)
    shutil.copytree(base, moved / beside)
    assert np.abs(mipic_llm.load(moved).encode(TEXTS) - wanted).max() < 1e-6


def test_the_base_is_named_by_its_id_where_it_has_one(tmp_path):
    told = SimpleNamespace(config=SimpleNamespace(_commit_hash="c0ffee"), revision=None)
    plain = SimpleNamespace(backbone="org/name", commit=Source.commit.fget(told))
    assert portable.hub_name(plain) == ("org/name", "c0ffee")
    snapshot = tmp_path / "models--org--name" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    assert portable.hub_name(SimpleNamespace(backbone=str(snapshot))) == ("org/name", "abc")
    assert portable.hub_name(SimpleNamespace(backbone=str(tmp_path))) == (None, None)
    packaged = portable.model_folder("quickstart")
    if packaged:
        found = portable.hub_name(SimpleNamespace(backbone=str(packaged)))
        assert found == ("sentence-transformers/all-MiniLM-L6-v2", None)


def test_intervals_are_those_of_fishers_z():
    found = card.interval(Score("t", "spearman", Point(1, 8), 0.8, 103))
    z, se = math.atanh(0.8), math.sqrt(1.32 / 100)
    assert found == pytest.approx([math.tanh(z + norm.ppf(p) * se) for p in (0.025, 0.975)], 1e-4)
    for score in (("t", "accuracy", Point(1, 8), 0.8, 103), ("t", "spearman", Point(1, 8), 1.0, 99),
                  ("t", "spearman", Point(1, 8), float("nan"), 99)):  # fmt: skip
        assert card.interval(Score(*score)) is None


def test_figures_are_of_the_kind_of_their_task():
    """accuracy@1 is a search's."""
    metrics = {"search": ("ndcg@10", "accuracy@1"), "topics": ("macro_f1", "accuracy"),
               "same": ("accuracy", "average_precision"), "sts": ("spearman",)}  # fmt: skip
    scores = [Score(task, metric, Point(1, 8), 0.5, 99)
              for task, many in metrics.items() for metric in many]  # fmt: skip
    spec = EmbeddingSpec("org/base", "mean", 8, 1, (8,), 16, {}, facts=Facts(scores=tuple(scores)))
    head = yaml.safe_load(card.model_card(spec).split("---")[1])
    kinds = {r["dataset"]["name"]: r["task"]["type"] for r in head["model-index"][0]["results"]}
    assert kinds == {"search": "text-retrieval", "topics": "text-classification",
                     "same": "text-classification", "sts": "sentence-similarity"}  # fmt: skip


def test_the_command_is_what_was_typed():
    given = {"data.train": ["a b.jsonl", "c.csv"], "overwrite": True, "model.name": "org/x",
             "tracking.mlflow": "http://user:word@host", "data.validation": ["none"]}  # fmt: skip
    shown = command_of(from_settings(given))
    assert "--data.train 'a b.jsonl' c.csv" in shown and "--overwrite true" in shown
    assert "word" not in shown and shown.startswith("mipic train --")
    assert command_of(from_settings(given), 4).startswith(
        "deepspeed --num_accelerators 4 --module mipic_llm train ")  # fmt: skip
    assert "lora.rank" not in shown and "--data.validation none" in shown
    assert "--recipe" not in shown


def test_the_command_gives_the_run_again():
    """Its recipe too, and lists that were emptied."""
    given = ["--recipe", "bge-m3", "--data.validation", "none", "--seed", "3",
             "--data.ignore_columns", "none", "--objective.dims", "64", "1024"]  # fmt: skip
    config = load_config(given)
    again = load_config(shlex.split(command_of(config))[2:])
    assert config.data.validation == [] and again == config and again.recipe == "bge-m3"
    settings = from_settings({"data.validation": []}, recipe="anchored")
    again = load_config(shlex.split(command_of(settings))[2:])
    assert again == settings and again.recipe == "anchored"
