"""Commands whose tensors lie on a device that is not the host, without a GPU (stand_in.py): nothing
mixes the two, and between forward and update the host never waits for the device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ranks import run_ranks
from tiny_models import few, tiny_bert, tiny_qwen3

WORKER = Path(__file__).with_name("stand_in_worker.py")
# Not ours: transformers looks whether a padded batch has pads. Ours, for CPUs alone: the reference
# that takes the place of a kernel for packed texts, which exists on GPUs; and ESE's SVD.
KNOWN = ("model/backbone.py", "model/varlen.py", "losses/ese.py")
RUN = ["train", "--train.precision", "fp32", "--train.batch_size", "4", "--train.max_steps", "2",
       "--data.max_length", "16", "--tracking.mlflow", "off", "--overwrite", "--eval.pca", "0",
       "--data.validation", "none", "--export.rehearse", "false", "--data.train"]  # fmt: skip
OBJECTIVES = {
    "mipic in chunks": ["--train.chunk_size", "3", "--objective.tau_learnable", "true"],
    "paper": ["--objective.preset", "paper", "--lora.rank", "0"],
    "simcse": ["--objective.name", "simcse"],
    "gor": ["--objective.name", "mrl", "--objective.gor", "0.1"],
    "ese": ["--objective.name", "ese"],
    "2dmse": ["--objective.name", "2dmse"],
    "mic": ["--objective.name", "mic"],
    "starbucks": ["--objective.name", "starbucks"],
    "3dml": ["--objective.name", "3dml"],
}  # fmt: skip


def rows(path: Path, *made: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in made), "utf-8")
    return str(path)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("stand_in")
    bert, qwen3 = str(tiny_bert(folder / "bert")), str(tiny_qwen3(folder / "qwen3"))
    demo = str(few(folder))
    scored = rows(folder / "scored.jsonl", *(
        {"sentence1": f"word {i}", "sentence2": f"the word {i % 7}", "score": i % 5}
        for i in range(12)))  # fmt: skip
    mined = rows(folder / "mined.jsonl", *(
        {"query": f"where is {i}", "pos": [f"here is {i}"], "neg": [f"not {i}", f"nor {i}"],
         "pos_scores": [0.9], "neg_scores": [0.3, 0.2]} for i in range(12)))  # fmt: skip
    text = rows(folder / "text.jsonl", *({"text": f"text of number {i}"} for i in range(48)))

    def run(name: str, model: str, *more: str) -> list[str]:
        return [*RUN, demo, "--model.name", model, "--output_dir", str(folder / name), *more]

    jobs = {name: run(name, qwen3, *more) for name, more in OBJECTIVES.items()}
    jobs["packed"] = run("packed", bert, "--model.attn", "varlen", "--train.precision", "bf16")
    jobs["taught"] = run(
        "taught", bert, "--data.train", scored, mined, text, "--model.dropout", "0.1",
        "--model.rotate", "centred", "--train.max_steps", "6", "--teacher.name", "base",
        "--teacher.layers", "ladder", "--teacher.vector", "10", "--teacher.scores", "1",
        "--teacher.margin", "1", "--objective.false_negative_margin", "0.1",
        "--data.validation", scored, "--eval.pca", "8", "--export.rehearse", "true",
    )  # fmt: skip
    jobs["evaluate"] = [
        "evaluate", "--model", str(folder / "taught" / "adapter"), "--data", scored,
        "--layers", "2", "4", "--lens_text", text, "--pca_text", text, "--bits", "8", "1",
        "--output_dir", str(folder / "scores"), "--tracking.mlflow", "off",
    ]  # fmt: skip
    jobs["mine"] = [
        "mine", "--model", bert, "--data.train", mined, "--mine.output", str(folder / "more.jsonl"),
        "--mine.relative", "none",
    ]  # fmt: skip
    files = [rows(folder / "jobs.json", jobs), str(folder / "found.json")]
    code, said = run_ranks(1, WORKER, files)
    assert code == 0, said[-6000:]
    return json.loads((folder / "found.json").read_text("utf-8"))


@pytest.mark.parametrize("name", [*OBJECTIVES, "packed", "taught", "evaluate", "mine"])
def test_nothing_meets_tensors_of_the_host(found: dict[str, Any], name: str) -> None:
    assert found[name]["code"] == 0, found[name]["code"]


@pytest.mark.parametrize("name", [*OBJECTIVES, "packed", "taught"])
def test_no_wait_between_forward_and_update(found: dict[str, Any], name: str) -> None:
    assert len(found[name]["steps"]) > 1
    last = found[name]["steps"][-1]  # constants are copied once, in the first step of a kind
    own = [wait for wait in last if not wait[1].startswith(KNOWN)]
    assert not own, own


def test_the_stand_in_sees(found: dict[str, Any]) -> None:
    """Two devices in one operation; reading the figures of a step, the copies of an evaluation."""
    assert "tensors of two devices" in found["mixed"]
    for name, place in (("paper", "training/step.py"), ("evaluate", "evaluation/encode.py")):
        assert any(at.startswith(place) for _, at in found[name]["waits"])
