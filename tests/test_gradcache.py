"""Chunked and plain training are one and the same, and a broken GradCache is caught at start-up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from ranks import ROOT, run_ranks
from tiny_models import few, tiny_bert

from mipic_llm.training import selfcheck

STEPS = {1: 6, 2: 20, 3: 6}  # of each ZeRO stage
PAPER = ["--objective.preset", "paper"]
BF16 = ["--train.precision", "bf16"]


def arguments(model: Path, stage: int, *extra: str) -> list[str]:
    return [
        "--recipe", "quickstart", "--model.name", str(model), "--ds_config",
        str(ROOT / "ds_configs" / f"zero{stage}.json"), "--objective.dims", "4,16,32",
        "--data.train", str(model.parent / "train" / "demo.jsonl"),
        "--sia.layers", "none", "--lora.rank", "4", "--data.max_length", "24",
        "--train.batch_size", "8", "--train.precision", "fp32", "--data.validation", "none", *extra,
    ]  # fmt: skip


def cases_for(model: Path) -> list[dict]:
    found = []
    for stage in (1, 2, 3):
        for chunk in (0, 8):
            args = arguments(model, stage, "--train.chunk_size", str(chunk))
            found.append({"name": f"long-zero{stage}-chunk{chunk}", "args": args,
                          "steps": STEPS[stage]})  # fmt: skip
    dropout = ["--model.dropout", "0.1", "--train.chunk_size", "8"]
    for stage, lora, more, faults in (
        (0, "4", [], ["chunk"]), (1, "4", PAPER, ["rng", "nan"]), (2, "4", BF16, ["chunk"]),
        (3, "4", [], ["rng", "chunk"]), (3, "0", [], []),
    ):  # fmt: skip
        args = arguments(model, stage, *dropout, "--lora.rank", lora, *more)
        name = f"zero{stage}-lora{lora}{'-bf16' if more is BF16 else ''}"
        for check in (False, True):
            found.append({"name": f"{name}-check{check}", "args": args, "steps": 2, "check": check})
        for fault in faults:
            found.append({"name": f"{name}-{fault}", "args": args, "steps": 0, "check": True,
                          "fault": fault})  # fmt: skip
    for name, more in (
        ("plain", ["--data.balance_tokens", "false", "--data.token_cache", "off"]),
        ("dealt", ["--data.token_cache", str(model.parent / "tokens")]),
    ):
        found.append({"name": name, "args": arguments(model, 2, *more), "steps": 3})
    return found


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gradcache")
    few(folder)
    (folder / "cases.json").write_text(json.dumps(cases_for(tiny_bert(folder / "bert", layers=2))))
    script, paths = ROOT / "tests" / "cache_worker.py", ("cases.json", "answers.json")
    code, output = run_ranks(2, script, [str(folder / p) for p in paths], timeout=900)
    assert code == 0, output[-6000:]
    return json.loads((folder / "answers.json").read_text())


@pytest.mark.parametrize("stage", STEPS)
def test_steps_in_chunks_are_those_of_one_pass(answers, stage: int) -> None:
    plain, chunked = (answers[f"long-zero{stage}-chunk{c}"] for c in (0, 8))
    losses = [row["loss"] for row in plain["rows"]]
    assert len(losses) == STEPS[stage] and losses[-1] < losses[0]
    assert [row["loss"] for row in chunked["rows"]] == pytest.approx(losses, rel=1e-5)
    for name, values in plain["weights"].items():
        want, got = torch.tensor(values), torch.tensor(chunked["weights"][name])
        assert (got - want).norm() <= 1e-5 * want.norm(), name


def test_the_self_check_leaves_no_trace(answers) -> None:
    checked = [name for name in answers if name.endswith("checkTrue")]
    assert len(checked) == 5
    for name in checked:
        without = answers[name.replace("checkTrue", "checkFalse")]
        assert answers[name] == without, name
        assert without["rows"][0]["loss"] != without["rows"][-1]["loss"]


def test_a_broken_cache_is_refused(answers) -> None:
    broken = [name for name in answers if name.endswith(("-rng", "-chunk", "-nan"))]
    assert len(broken) == 6
    for name in broken:
        said = answers[name].get("error", "")
        assert "train.selfcheck: a step in chunks differs" in said, (name, said)
        assert "\n" not in said


def test_rows_dealt_by_length_and_read_from_the_cache_train_the_same(answers) -> None:
    plain, dealt = (
        [{k: v for k, v in row.items() if k.startswith("loss")} for row in answers[name]["rows"]]
        for name in ("plain", "dealt")
    )
    assert plain != dealt, "nobody holds other rows: nothing was tested"
    for want, got in zip(plain, dealt, strict=True):
        assert got["loss"] == pytest.approx(want["loss"], rel=1e-6)
        assert got == pytest.approx(want, rel=1e-5)


def test_which_rows_are_checked() -> None:
    assert selfcheck.shortest([5, 1, 9, 2, 2, 7], 3) == [1, 3, 4]
    assert selfcheck.shortest([5, 1]) == [0, 1]


def test_projections_of_a_gradient_have_its_size_and_see_one_element():
    """Their mean square is the squared norm, whatever the shape; one changed element shows."""
    grad = torch.randn(3, 50_001)
    found = torch.stack([selfcheck.signature(grad, seed) for seed in range(40)])
    assert found.shape == (40, 9) and torch.allclose(found[:, 0], grad.double().norm(), rtol=1e-6)
    assert abs(found[:, 1:].square().mean() / grad.double().square().sum() - 1) < 0.3
    other = grad.clone()
    other[2, 50_000] += 5
    change = selfcheck.signature(other, 7) - selfcheck.signature(grad, 7)
    assert torch.allclose(change[1:].abs(), torch.full((8,), 5.0).double(), atol=1e-2)
