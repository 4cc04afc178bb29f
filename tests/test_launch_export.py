"""`mipic export`: checkpoints of any stage, merged models and shallow cuts, in one process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from ranks import ROOT, run_ranks
from readers import served
from safetensors.torch import load_file
from tiny_models import SENTENCES, few, tiny_bert, tiny_qwen3

from mipic_llm.commands import export as launcher
from mipic_llm.errors import UserError


def train(folder: Path, make, world: int, stage: int, *more: str) -> Path:
    make(folder / "base")
    out = folder / "run"
    arguments = [
        "--ds_config", str(ROOT / "ds_configs" / f"zero{stage}.json"), "--objective.dims", "8",
        "16", "32", "--model.name", str(folder / "base"), "--data.max_length", "24",
        "--data.train", str(few(folder)), "--data.validation", str(few(folder, "validation", 40)),
        "--train.batch_size", str(8 // world), "--train.max_steps",
        "3", "--train.save_every", "2", "--tracking.mlflow", "off", "--export.rehearse", "false",
        "--output_dir", str(out),
        "--train.learning_rate", "1e-3", *more,
    ]  # fmt: skip
    code, text = run_ranks(world, ROOT / "launch" / "train.py", arguments)
    assert code == 0, text[-4000:]
    return out


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[int, Path]:
    """The same training on one rank under ZeRO-0, and on two under ZeRO-3."""
    folder = tmp_path_factory.mktemp("runs")
    return {stage: train(folder / str(stage), tiny_bert, world, stage)
            for stage, world in ((0, 1), (3, 2))}  # fmt: skip


def test_checkpoints_of_all_stages_hold_the_same_model(runs, tmp_path):
    found = {}
    for stage, run in runs.items():
        step = str(run / "checkpoints" / "step-00000002")
        to = tmp_path / str(stage)
        launcher.main(["--output_dir", str(run), "--checkpoint", step, "--to", str(to), "--merged"])
        assert set(json.loads((to / "parity.json").read_text())) >= {
            "adapter in automodel", "adapter in peft", "adapter in sentence-transformers",
            "merged in automodel", "merged in sentence-transformers",
        }  # fmt: skip
        found[stage] = load_file(to / "adapter" / "adapter_model.safetensors")
        final = load_file(run / "adapter" / "adapter_model.safetensors")
        assert any((final[k] - v).abs().max() > 1e-5 for k, v in found[stage].items())
    assert found[0].keys() == found[3].keys()
    for name, value in found[0].items():
        # A tenth of one step at this rate: Adam turns the rounding of a gradient near zero into a
        # share of the rate.
        torch.testing.assert_close(value, found[3][name], rtol=1e-3, atol=1e-4)
        assert (value - found[3][name]).norm() < 1e-2 * value.norm(), name


def test_shallow_model_is_the_point_of_the_whole(runs, tmp_path, capsys):
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel

    run = runs[3]
    argv = ["--output_dir", str(run), "--point", "16@2", "--to", str(tmp_path)]
    launcher.main(argv)
    folder = tmp_path / "shallow-2x16"
    assert AutoModel.from_pretrained(folder).config.num_hidden_layers == 2
    assert not [k for k in load_file(folder / "model.safetensors") if ".layer.2." in k]
    # Unit vectors of 16 channels by default, from a directory that servers read as well.
    vectors = SentenceTransformer(str(folder), device="cpu").encode(SENTENCES[:3])
    assert vectors.shape == (3, 16)
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6
    assert np.abs(served(folder, SENTENCES[:3]).numpy() - vectors).max() < 1e-6
    assert (load_file(folder / "2_Dense" / "model.safetensors")["linear.weight"]
            == torch.eye(16, 32)).all()  # fmt: skip
    assert json.loads((folder / "config.json").read_text())["matryoshka_dimensions"] == [8, 16]
    parity = json.loads((folder / "parity.json").read_text())
    assert max(parity["sentence-transformers"].values()) < 1e-5
    card = (folder / "README.md").read_text()
    assert "after layer 2 of 4" in card and "times as fast" in card
    assert "times as fast" in capsys.readouterr().out


def test_a_point_of_a_full_run_holds_what_was_trained_alone(tmp_path):
    """The run's own files have no pooler; transformers makes one of random weights up."""
    run = train(tmp_path, tiny_bert, 1, 0, "--lora.rank", "0")
    for name in ("one", "two"):
        to = str(tmp_path / name)
        launcher.main(["--output_dir", str(run), "--point", "16@2", "--to", to])
    one, two = (tmp_path / name / "shallow-2x16" / "model.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert not [name for name in load_file(one) if "pooler" in name]


def test_shallow_decoder_keeps_its_final_norm_or_is_refused(tmp_path):
    """Two runs' settings on one model: inner layers through the norm, or raw."""
    run = train(tmp_path, tiny_qwen3, 1, 0, "--data.negatives", "0")
    argv = ["--output_dir", str(run), "--layers", "2", "--to", str(tmp_path / "cut")]
    launcher.main(argv)
    parity = json.loads((tmp_path / "cut" / "shallow-2x32" / "parity.json").read_text())
    assert max(parity["automodel"].values()) < 1e-5
    settings = run / "config.yaml"
    text = settings.read_text()
    assert "inner_norm: final" in text
    settings.write_text(text.replace("inner_norm: final", "inner_norm: raw"))
    with pytest.raises(UserError, match="inner_norm final"):
        launcher.main([*argv[:-1], str(tmp_path / "raw")])


def test_bad_input(runs, tmp_path):
    run = str(runs[0])
    for argv, words in (
        (["--output_dir", str(tmp_path / "none")], "neither a finished model nor"),
        (["--output_dir", run, "--checkpoint", str(tmp_path)], "no complete checkpoint"),
        (["--output_dir", run, "--layers", "9"], r"layers: 9 is not in 1\.\.4"),
        (["--output_dir", run, "--dim", "64"], r"dim: 64 is not in 1\.\.32"),
    ):
        with pytest.raises(UserError, match=words):
            launcher.main(argv)


def test_a_run_is_taken_as_it_was(runs, tmp_path):
    """float32 stays float32 at a wide tolerance; one anchor per rank is no mistake of this process,
    which is one rank and trains nothing."""
    run = tmp_path / "run"
    shutil.copytree(runs[3], run)
    for settings in (run / "config.yaml", *run.glob("checkpoints/*/config.yaml")):
        text = settings.read_text()
        changed = text.replace("batch_size: 4", "batch_size: 1", 1)
        changed = changed.replace("tolerance: 1.0e-05", "tolerance: 1.0e-03")
        assert changed.count("batch_size: 1") and changed.count("tolerance: 1.0e-03")
        settings.write_text(changed)
    launcher.main(["--output_dir", str(run), "--merged"])
    parity = json.loads((run / "merged" / "parity.json").read_text())
    assert (parity["dtype"], parity["tolerance"]) == ("float32", 1e-3)
    assert max(parity["sentence-transformers"].values()) < 1e-5
