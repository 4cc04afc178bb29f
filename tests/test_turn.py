"""`model.rotate`: training that begins turned onto the principal axes of its own texts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from api_worker import settings
from safetensors.torch import load_file
from tiny_models import SENTENCES, TEXTS, few, tiny_bert
from torch.nn.functional import normalize

import mipic_llm
from mipic_llm.commands import export, merge
from mipic_llm.errors import UserError

ROWS = [{"anchor": f"{a} {b.split()[-1]}", "positive": f"{b} {a.split()[0]}"}
        for i, a in enumerate(SENTENCES) for b in SENTENCES[i + 1 :: 3]]  # fmt: skip
TEXT = sorted({text for row in ROWS for text in row.values()})


def train(base: Path, out: Path, **more) -> Path:
    own = settings(str(base)) | {"validation": str(few(base.parent, "validation", 40))}
    own["model"] = {"name": str(base), "rotate": "centred"}
    own["train"] = own["train"] | {"precision": "fp32"} | more.pop("train", {})
    return mipic_llm.train(ROWS, output_dir=out, **own | more).path


def vectors(folder: Path, texts: list[str] = TEXTS) -> torch.Tensor:
    from sentence_transformers import SentenceTransformer

    return torch.as_tensor(SentenceTransformer(str(folder), device="cpu").encode(texts)).double()


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("turn") / "base")


@pytest.fixture(scope="module")
def run(base, tmp_path_factory) -> Path:
    """Eight steps, saved at the fourth; base as the teacher."""
    teacher = {"name": "base", "relation": 2.0, "vector": 1.0}
    return train(base, tmp_path_factory.mktemp("turn") / "run", teacher=teacher,
                 train={"max_steps": 8, "save_every": 4, "keep_checkpoints": 9})  # fmt: skip


def test_it_begins_at_the_principal_axes_of_its_texts(base, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("mipic_llm.evaluation.pca.MOSTLY_MEAN", 1)  # of a random model it is most
    still = train(base, tmp_path / "still", train={"learning_rate": 1e-12, "max_steps": 1})
    unit_ND = normalize(vectors(base, TEXT), dim=1)
    mean_D = normalize(unit_ND.mean(0), dim=0)
    rest_ND = unit_ND - (unit_ND @ mean_D)[:, None] * mean_D
    values, axes_DD = torch.linalg.eigh(rest_ND.T @ rest_ND)
    turned = normalize(vectors(still / "adapter"), dim=1)
    was = normalize(vectors(base), dim=1)
    assert torch.allclose(turned @ turned.T, was @ was.T, atol=1e-5)  # whole: every cosine
    for i in range(4):  # an axis has two directions
        gap = values[-1 - i] - values[-2 - i]
        expected = (was @ axes_DD[:, -1 - i]).abs()
        assert gap > 1e-3
        assert torch.allclose(turned[:, i].abs(), expected, atol=1e-4 / float(gap))
    assert torch.allclose(turned[:, -1].abs(), (was @ mean_D).abs(), atol=1e-4)


def test_the_axes_are_kept_and_the_base_is_the_models_own(base, run) -> None:
    axes_DD = load_file(run / "turned" / "model.safetensors")["linear.weight"]
    assert torch.allclose(axes_DD @ axes_DD.T, torch.eye(32), atol=1e-5)
    after_DD = load_file(next(run.glob("adapter/*_Dense")) / "model.safetensors")["linear.weight"]
    assert 1e-4 < (after_DD - axes_DD).abs().max() < 0.5  # trained from there
    settings = (run / "adapter" / "adapter_config.json").read_text()
    assert str(base.resolve()) in settings or "base" in settings


def test_a_resumed_run_goes_on_from_the_same_axes(run, base, tmp_path) -> None:
    """Elsewhere too, and whatever the axes would be there: they are read, not fitted again."""
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)  # with a checkpoint of step 4 alone
    shutil.rmtree(copy / "adapter")
    teacher = {"name": "base", "relation": 2.0, "vector": 1.0}
    again = train(base, copy, teacher=teacher, train={
        "max_steps": 8, "save_every": 4, "keep_checkpoints": 9, "resume": "auto"})  # fmt: skip
    for name in ("adapter_model.safetensors", "2_Dense/model.safetensors"):
        whole = (run / "adapter" / name).read_bytes()
        assert (again / "adapter" / name).read_bytes() == whole, name
    shutil.rmtree(copy / "turned")
    with pytest.raises(UserError, match="turned"):
        train(base, copy, teacher=teacher, train={
            "max_steps": 12, "save_every": 4, "keep_checkpoints": 9, "resume": "auto"})  # fmt: skip


def test_export_and_merge_know_the_axes(run, tmp_path) -> None:
    four = run / "checkpoints" / "step-00000004"
    assert export.main(["--output_dir", str(run), "--checkpoint", str(four), "--merged",
                        "--to", str(tmp_path / "four")]) == 0  # fmt: skip
    gap = (vectors(tmp_path / "four" / "merged") - vectors(run / "adapter")).abs().max()
    assert 1e-5 < gap < 0.5
    assert merge.main(["--runs", str(run), "--scale", "0.5", "--to", str(tmp_path / "half")]) == 0
    begun, ended, half = (
        load_file(folder / "model.safetensors")["linear.weight"]
        for folder in (run / "turned", next(run.glob("adapter/*_Dense")),
                       next((tmp_path / "half").glob("adapter/*_Dense")))
    )  # fmt: skip
    assert (ended - begun).abs().max() > 1e-4
    assert torch.allclose(half, (begun + ended) / 2, atol=1e-6)


def test_too_few_texts_are_one_line(base, tmp_path) -> None:
    own = settings(str(base)) | {"model": {"name": str(base), "rotate": "pca"}}
    with pytest.raises(UserError, match="model.rotate: the training data have [0-9]+ distinct"):
        mipic_llm.train(ROWS[:5], output_dir=tmp_path / "few", **own)


def test_a_directory_of_this_name_that_others_made_is_left_alone(base, tmp_path) -> None:
    own = tmp_path / "out" / "turned" / "model.safetensors"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    with pytest.raises(UserError, match="holds another run"):
        train(base, tmp_path / "out")
    assert own.read_text() == "mine"
