"""ranks x ZeRO x {full, LoRA} x precision x checkpointing x chunks: one and the same training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ranks import ROOT, train_cases
from tiny_models import few, tiny_bert

STEPS = 2  # the second follows an update, and what the first left behind would show in it
BATCH = 8  # anchors over all ranks


# Objectives and options beside the default one, each of which must be the same training everywhere.
OBJECTIVES = {
    "simcse": ["--objective.name", "simcse"],
    "mrl": ["--objective.name", "mrl", "--objective.dim_weights", "2,1,1"],
    "ese": ["--objective.name", "ese", "--ese.pca", "covariance"],
    "2dmse": ["--objective.name", "2dmse"],
    "mic": ["--objective.name", "mic", "--mic.weight", "1"],
    "tau": ["--objective.name", "mrl", "--objective.tau_learnable", "true",
            "--train.head_learning_rate", "0.1"],
    "paper": ["--objective.preset", "paper"],
    "memory": ["--sia.memory", "20"],  # of a step's 24 texts
    "pair": ["--pic.head", "residual", "--pic.positive", "pair", "--pic.widths", "nested",
             "--pic.target", "last", "--sia.sentences", "3", "--objective.dims", "4,8,32",
             "--pic.ladder", "4@1,8@2,32@3", "--pic.weight", "2", "--sia.relation_weight", "0.5",
             "--sia.geometry_weight", "3"],
}  # fmt: skip


# The limits of bf16 are for these rows and four layers.
DEEPER = ("--data.train", "demo", "--sia.layers", "1,2,4", "--pic.ladder", "4@1,16@2,32@4")


def arguments(model: Path, world: int, stage: int, lora: int, precision: str, *extra: str):
    return [
        "--recipe", "quickstart", "--model.name", str(model), "--ds_config",
        str(ROOT / "ds_configs" / f"zero{stage}.json"), "--objective.dims", "4,16,32",
        "--data.train", str(model.parent / "train" / "demo.jsonl"),
        "--sia.layers", "1,2,3", "--pic.ladder", "4@1,16@2,32@3", "--data.validation", "none",
        "--train.batch_size", str(BATCH // world), "--lora.rank", str(lora),
        "--train.precision", precision, "--train.learning_rate", "2e-4",
        "--data.token_cache", str(model.parent / "tokens"), *extra,  # the same for all cases
    ]  # fmt: skip


def cases_of(group: str, model: Path, world: int) -> list[dict]:
    """The trainings that a group's tests compare, named by stage and kind."""
    found = []

    def add(name: str, stage: int, *extra: str, precision: str = "fp32", steps: int = STEPS):
        own = DEEPER if "bf16" in group else ()
        args = arguments(model, world, stage, lora, precision, *own, *extra)
        found.append({"name": f"{group}/{name}", "args": args, "steps": steps})

    lora = 0 if group.startswith("full") else 4
    again = ("--train.gradient_checkpointing", "true")
    if group in ("full-fp32", "lora-fp32"):
        for stage in (0, 1, 2, 3):
            add(f"zero{stage}-plain", stage)
            if world > 1 or stage in (0, 3):  # 1 to 3 go one way, and 3 is the hardest
                add(f"zero{stage}-chunk", stage, "--train.chunk_size", "7")
        for stage in (0, 3) if world > 1 else ():  # checkpointing meets the stage at its ends
            add(f"zero{stage}-ckpt", stage, *again)
    elif group in ("full-bf16", "lora-bf16"):
        if world == 1:
            add("fp32", 1, steps=3)
        for stage in (0, 1, 2, 3):
            add(f"zero{stage}-plain", stage, precision="bf16", steps=3)
        for stage in (0, 3) if world > 1 else ():
            add(f"zero{stage}-ckpt", stage, *again, precision="bf16", steps=3)
    elif group == "sampled":
        for stage in (0, 3):
            add(f"zero{stage}", stage, "--sia.layers_per_step", "1", "--pic.links_per_step", "1",
                steps=3)  # fmt: skip
    else:
        more = OBJECTIVES[group]
        if world == 1:  # its stages and chunks are those above, whatever the objective
            add("zero0-plain", 0, *more)
        else:
            add("zero2-chunk", 2, *more, "--train.chunk_tokens", "90")
            add("zero3-plain", 3, *more)
            if group in ("paper", "pair"):  # one pass for all lengths: the objective is not asked
                add("zero1-one", 1, *more, "--train.length_groups", "false")
    return found


@pytest.fixture(scope="module")
def answers(request, tmp_path_factory) -> dict[int, dict[str, dict[str, dict]]]:
    """[ranks][group][case]. One start of the ranks trains all that the chosen tests need, so that
    `-k` with one case does not wait for the others."""
    groups = {
        item.callspec.params["group"]: None
        for item in request.session.items
        if item.path == request.path
    }
    folder = tmp_path_factory.mktemp("ranks")
    few(folder)
    model, deeper = tiny_bert(folder / "bert", layers=3), tiny_bert(folder / "deeper")
    found: dict[int, dict[str, dict[str, dict]]] = {}
    for world in (1, 2):
        models = {group: deeper if "bf16" in group else model for group in groups}
        cases = [case for group in groups for case in cases_of(group, models[group], world)]
        table: dict[str, dict[str, dict]] = {}
        for name, answer in train_cases(world, cases, folder / str(world)).items():
            group, case = name.split("/")
            table.setdefault(group, {})[case] = answer
        found[world] = table
    return found


def relative(a: dict, b: dict) -> float:
    """Largest difference of any figure but grad_norm; 2dmse logs another dim in each step."""
    assert [x.keys() for x in a["rows"]] == [y.keys() for y in b["rows"]]
    return max(
        abs(x[k] - y[k]) / max(1e-3, abs(y[k]))
        for x, y in zip(a["rows"], b["rows"], strict=True)
        for k in x.keys() - {"grad_norm"}
    )


def everywhere(answers: dict, group: str) -> Iterator[tuple[tuple[int, str], dict]]:
    """((ranks, case), its training) of a group."""
    for world in (1, 2):
        for case, found in answers[world][group].items():
            yield (world, case), found


@pytest.mark.parametrize("group", ["full-fp32", "lora-fp32"])
def test_fp32_is_the_same_everywhere(answers, group: str) -> None:
    reference = answers[1][group]["zero0-plain"]
    assert reference["rows"][0]["loss"] != reference["rows"][-1]["loss"]
    for case, found in everywhere(answers, group):
        assert relative(found, reference) < 2e-4, case
        for key, norm in reference["norms"].items():
            if "key.bias" in key:  # its gradient is 0 (softmax): Adam magnifies rounding
                continue
            assert found["norms"][key] == pytest.approx(norm, rel=2e-4, abs=1e-5), (case, key)


@pytest.mark.parametrize("group", ["full-fp32", "lora-fp32"])
def test_gradient_norms_agree(answers, group: str) -> None:
    """Adam hides the scale of a gradient: its norm does not (1/world mistakes show here)."""
    want = [row["grad_norm"] for row in answers[1][group]["zero1-plain"]["rows"]]
    assert min(want) > 0
    for case, found in everywhere(answers, group):
        norms = [row["grad_norm"] for row in found["rows"]]
        assert norms == pytest.approx(want, rel=1e-3), case


@pytest.mark.parametrize("group", ["full-bf16", "lora-bf16"])
def test_bf16_agrees_to_its_precision(answers, group: str) -> None:
    """Every stage trains alike. ZeRO-3 and checkpointing have linear layers that round otherwise,
    by 3e-3 of the first loss, before any update. An update that is .744 of what it should be, as
    those of ZeRO-0 once were, shows in what is trained from zero: LoRA's B."""
    reference, fp32 = (answers[1][group][name] for name in ("zero1-plain", "fp32"))
    for case, found in everywhere(answers, group):
        for got, want, full in zip(found["rows"], reference["rows"], fp32["rows"], strict=True):
            assert got["loss"] == pytest.approx(full["loss"], rel=1e-2), case
            if case[1] != "fp32":
                near = case in [(1, f"zero{stage}-plain") for stage in (0, 1, 2)]
                assert got["loss"] == pytest.approx(want["loss"], rel=1e-4 if near else 6e-3), case
        for key, norm in reference["norms"].items():
            if "lora_B" in key:
                assert found["norms"][key] == pytest.approx(norm, rel=2e-2), (case, key)


@pytest.mark.parametrize("group", OBJECTIVES)
def test_every_objective_is_the_same_everywhere(answers, group: str) -> None:
    reference = answers[1][group]["zero0-plain"]
    assert reference["rows"][0]["loss"] != reference["rows"][-1]["loss"]
    want = reference["rows"][0]["grad_norm"]
    for case, found in everywhere(answers, group):
        assert relative(found, reference) < 5e-4, case
        assert found["rows"][0]["grad_norm"] == pytest.approx(want, rel=1e-3), case


@pytest.mark.parametrize("group", ["sampled"])
def test_sampling_makes_the_same_choice_on_every_rank_and_stage(answers, group: str) -> None:
    reference = answers[1][group]["zero0"]
    for case, found in everywhere(answers, group):
        assert relative(found, reference) < 2e-4, case
