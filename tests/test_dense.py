"""Dense modules after the pooling are part of the readout: trained, evaluated, exported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from api_worker import PAIRS, ROWS, settings
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense, Normalize
from tiny_models import TEXTS, tiny_bert, tiny_qwen3

import mipic_llm
from mipic_llm import UserError
from mipic_llm.config import load_config
from mipic_llm.config.derive import preview

OWN = {"objective": {"dims": [8, 16, 48]}, "pic": {"ladder": ["8@1", "16@2", "48@4"]}}


@pytest.fixture(scope="module", params=[tiny_bert, tiny_qwen3])
def base(request, tmp_path_factory) -> str:
    """32 channels -> 64 -> 48, as EmbeddingGemma and LaBSE have them, written by the library."""
    folder = tmp_path_factory.mktemp("dense")
    request.param(folder / "plain", sentence_transformers=True)
    model = SentenceTransformer(str(folder / "plain"), device="cpu")
    torch.manual_seed(0)
    layers = [Dense(32, 64, bias=False, activation_function=torch.nn.Identity()),
              Dense(64, 48, activation_function=torch.nn.Tanh())]  # fmt: skip
    SentenceTransformer(modules=[*list(model)[:2], *layers, Normalize()]).save(str(folder / "base"))
    return str(folder / "base")


def in_library(folder, dim=None) -> np.ndarray:
    model = SentenceTransformer(str(folder), device="cpu", truncate_dim=dim)
    return model.encode(TEXTS, prompt="", normalize_embeddings=True)


def train(base, out, **more):
    own = settings(base) | OWN | {"validation": [], "export.rehearse": True} | more
    return mipic_llm.train(ROWS, output_dir=out, **own)


def test_a_base_with_dense_modules_is_read_as_the_library_does(base):
    model = mipic_llm.load(base)
    assert (model.width, model.dims[-1]) == (48, 48)
    assert np.abs(model.encode(TEXTS, kind="document") - in_library(base)).max() < 1e-5
    shown = preview(load_config(["--model.name", base, "--recipe", "none"]))
    assert shown.objective.dims == [16, 32, 48]


@pytest.mark.parametrize("rank, stage", [(8, "zero0"), (0, "zero3")])
def test_they_are_trained_and_exported(base, tmp_path, capsys, rank, stage):
    more = {"lora.rank": rank, "train.learning_rate": 1e-2, "train.save_every": 2}
    run = train(base, tmp_path / "run", ds_config=stage, **more)
    vectors = json.loads((run.path / "environment.json").read_text())["vectors"]
    qwen = "Qwen3" in (Path(base) / "config.json").read_text()
    wanted = "left to right, pooling last" if qwen else "both ways, pooling mean"
    assert vectors == (f"4 layers, width 48, attends {wanted}, inner layers final, 512 tokens at "
                       "most, Dense to 64 48")  # fmt: skip
    assert f"vectors: {vectors}\n" in capsys.readouterr().out
    out = run.path / ("adapter" if rank else "merged")
    for dim in (8, 48):
        ours = run.encode(TEXTS, dim=dim, kind="document")
        assert np.abs(ours - in_library(out, dim)).max() < 1e-5
    for name in ("2_Dense", "3_Dense"):
        was, now = (load_file(f"{place}/{name}/model.safetensors") for place in (base, out))
        assert all((was[key] - now[key]).abs().max() > 1e-3 for key in was), "it was not trained"
    small = mipic_llm.export(run, point="8@4", to=tmp_path / "small")
    assert np.abs(in_library(small, 8) - in_library(out, 8)).max() < 1e-4
    (saved,) = (run.path / "checkpoints").iterdir()
    again = mipic_llm.export(run, checkpoint=saved, to=tmp_path / "again")
    assert np.abs(in_library(again) - in_library(out)).max() > 1e-4
    if rank:
        merged = mipic_llm.export(run, merged=True, to=tmp_path / "merged")
        assert np.abs(in_library(merged) - in_library(out)).max() < 1e-5
    scores = mipic_llm.evaluate(out, PAIRS, dims=[48], layers=[4])
    assert np.isfinite(scores[0].value)


@pytest.mark.parametrize("change, words", [
    ({"activation_function": "os.system"}, "has the activation os.system"),
    ({"use_residual": True}, "only a linear layer"),
    ({"out_features": 47}, "'out_features': 47"),
])  # fmt: skip
def test_what_is_not_understood_is_refused(base, tmp_path, change, words):
    import shutil

    shutil.copytree(base, tmp_path / "base")
    path = tmp_path / "base" / "2_Dense" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=words):
        train(str(tmp_path / "base"), tmp_path / "run")
