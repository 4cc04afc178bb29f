"""ranks x ZeRO x {full, LoRA} x precision x checkpointing x chunks: one and the same training."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from ranks import ROOT, train_cases
from tiny_models import tiny_bert

STEPS = 3
BATCH = 8  # anchors over all ranks


# Objectives and options beside the default one, each of which must be the same training everywhere.
OBJECTIVES = {
    "simcse": ["--objective.name", "simcse"],
    "mrl": ["--objective.name", "mrl", "--objective.dim_weights", "2,1,1"],
    "ese": ["--objective.name", "ese", "--ese.pca", "covariance"],
    "2dmse": ["--objective.name", "2dmse"],
    "paper": ["--objective.preset", "paper"],
    "pair": ["--pic.head", "residual", "--pic.positive", "pair", "--pic.widths", "nested",
             "--pic.target", "last", "--sia.sentences", "3", "--objective.dims", "4,8,32",
             "--pic.ladder", "4@1,8@2,32@4", "--pic.weight", "2", "--sia.relation_weight", "0.5",
             "--sia.geometry_weight", "3"],
    "extras": ["--objective.neighbourhood", "0.7", "--objective.decorrelation", "0.3"],
}  # fmt: skip


def arguments(model: Path, world: int, stage: int, lora: int, precision: str, *extra: str):
    return [
        "--recipe", "quickstart", "--model.name", str(model), "--ds_config",
        str(ROOT / "ds_configs" / f"zero{stage}.json"), "--objective.dims", "4,16,32",
        "--sia.layers", "1,2,4", "--pic.ladder", "4@1,16@2,32@4", "--data.validation", "demo",
        "--train.batch_size", str(BATCH // world), "--lora.rank", str(lora),
        "--train.precision", precision, "--train.learning_rate", "2e-4", *extra,
    ]  # fmt: skip


def cases_for(model: Path, world: int) -> list[dict]:
    found = []
    for stage, lora, precision, again in itertools.product(
        (0, 1, 2, 3), (0, 4), ("fp32", "bf16"), (False, True)
    ):
        if again and stage in (1, 2):  # checkpointing meets the stage only at its ends
            continue
        extra = ["--train.gradient_checkpointing", "true"] if again else []
        name = f"zero{stage}-lora{lora}-{precision}-{'ckpt' if again else 'plain'}"
        args = arguments(model, world, stage, lora, precision, *extra)
        found.append({"name": name, "args": args, "steps": STEPS})
    for stage, lora, chunk in itertools.product((0, 1, 2, 3), (0, 4), (5,)):
        args = arguments(model, world, stage, lora, "fp32", "--train.chunk_size", str(chunk))
        found.append({"name": f"zero{stage}-lora{lora}-fp32-chunk", "args": args, "steps": STEPS})
    for name, more in OBJECTIVES.items():
        for stage in (0, 3):
            args = arguments(model, world, stage, 4, "fp32", *more)
            found.append({"name": f"{name}-zero{stage}-plain", "args": args, "steps": STEPS})
        args = arguments(model, world, 2, 4, "fp32", *more, "--train.chunk_tokens", "60")
        found.append({"name": f"{name}-zero2-chunk", "args": args, "steps": STEPS})
        args = arguments(model, world, 1, 4, "fp32", *more, "--train.length_groups", "false")
        found.append({"name": f"{name}-zero1-one", "args": args, "steps": STEPS})
    sampled = ["--sia.layers_per_step", "1", "--pic.links_per_step", "1"]
    for stage in (0, 3):
        args = arguments(model, world, stage, 4, "fp32", *sampled)
        found.append({"name": f"zero{stage}-lora4-fp32-sampled", "args": args, "steps": STEPS})
    return found


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    model = tiny_bert(folder / "bert")
    return {w: train_cases(w, cases_for(model, w), folder / str(w)) for w in (1, 2)}


def relative(a: dict, b: dict) -> float:
    """Largest difference of any figure but grad_norm; 2dmse logs another dim in each step."""
    assert [x.keys() for x in a["rows"]] == [y.keys() for y in b["rows"]]
    return max(
        abs(x[k] - y[k]) / max(1e-3, abs(y[k]))
        for x, y in zip(a["rows"], b["rows"], strict=True)
        for k in x.keys() - {"grad_norm"}
    )


@pytest.mark.parametrize("lora", [0, 4])
def test_fp32_is_the_same_everywhere(answers, lora: int) -> None:
    reference = answers[1][f"zero0-lora{lora}-fp32-plain"]
    assert reference["rows"][0]["loss"] != reference["rows"][-1]["loss"]
    for world in (1, 2):
        for name, found in answers[world].items():
            if f"lora{lora}-fp32" in name and "sampled" not in name:
                assert relative(found, reference) < 2e-4, (world, name)
                for key, norm in reference["norms"].items():
                    if "key.bias" in key:  # its gradient is 0 (softmax): Adam magnifies rounding
                        continue
                    assert found["norms"][key] == pytest.approx(norm, rel=2e-4, abs=1e-5), (
                        name,
                        key,
                    )


@pytest.mark.parametrize("lora", [0, 4])
def test_gradient_norms_agree(answers, lora: int) -> None:
    """Adam hides the scale of a gradient: its norm does not (1/world mistakes show here)."""
    want = answers[1][f"zero1-lora{lora}-fp32-plain"]["rows"][0]["grad_norm"]
    assert want > 0
    for world in (1, 2):
        for name, found in answers[world].items():
            if f"lora{lora}-fp32" in name and "sampled" not in name:
                assert found["rows"][0]["grad_norm"] == pytest.approx(want, rel=1e-3), name


@pytest.mark.parametrize("lora", [0, 4])
def test_bf16_agrees_to_its_precision(answers, lora: int) -> None:
    reference = answers[1][f"zero0-lora{lora}-fp32-plain"]["rows"]
    for world in (1, 2):
        for name, found in answers[world].items():
            if f"lora{lora}-bf16" in name:
                for got, want in zip(found["rows"], reference, strict=True):
                    assert got["loss"] == pytest.approx(want["loss"], rel=3e-2), (world, name)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_is_the_same_everywhere(answers, name: str) -> None:
    reference = answers[1][f"{name}-zero0-plain"]
    assert reference["rows"][0]["loss"] != reference["rows"][-1]["loss"]
    want = answers[1][f"{name}-zero1-one"]["rows"][0]["grad_norm"]
    for world in (1, 2):
        for case, found in answers[world].items():
            if case.startswith(f"{name}-"):
                assert relative(found, reference) < 5e-4, (world, case)
                assert found["rows"][0]["grad_norm"] == pytest.approx(want, rel=1e-3), (world, case)


def test_sampling_makes_the_same_choice_on_every_rank_and_stage(answers) -> None:
    reference = answers[1]["zero0-lora4-fp32-sampled"]
    for world in (1, 2):
        for stage in (0, 3):
            found = answers[world][f"zero{stage}-lora4-fp32-sampled"]
            assert relative(found, reference) < 2e-4
