"""The loss, its parts and every gradient of real steps against a naive float64 reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ranks import ROOT, run_ranks
from tiny_models import SENTENCES, tiny_qwen3, tiny_xlmr

WORLDS = (1, 2)
BATCH = 4  # anchors over all ranks

PAPER, CHUNK = ["--objective.preset", "paper"], ["--train.chunk_size", "3"]
ALPHA = "--objective.alpha"
FULL, LORA = ["--lora.rank", "0"], ["--lora.rank", "4"]
ONE_EACH = ["--sia.layers_per_step", "1", "--pic.links_per_step", "1"]
MEMORY = ["--sia.memory", "7"]  # fewer than a step has texts: only the newest are kept
WEIGHTS = ["--sia.relation_weight", "0.5", "--sia.geometry_weight", "3", "--pic.weight", "2",
           "--sia.sentences", "1.5"]  # fmt: skip

# name: (model, ZeRO stage, steps, flags)
CASES = {
    "paper": ("qwen3", 1, 1, [*PAPER, *FULL, ALPHA, "0.3"]),
    "paper-sampled": ("qwen3", 2, 3, [*PAPER, *FULL, *ONE_EACH, ALPHA, "0.4"]),
    "paper-mean-chunks": ("xlmr", 1, 1, [*PAPER, *LORA, *CHUNK, "--objective.reduction", "mean"]),
    "paper-sampled-mean": ("xlmr", 0, 2, [*PAPER, *FULL, "--sia.layers_per_step", "2",
                                          "--pic.links_per_step", "1", *CHUNK,
                                          "--objective.reduction", "mean", ALPHA, "0.3"]),
    "balanced": ("qwen3", 1, 3, [*FULL, *MEMORY]),
    "balanced-chunks": ("qwen3", 1, 2, [*FULL, *CHUNK, ALPHA, "0.3"]),
    "balanced-sampled": ("xlmr", 1, 3, [*LORA, *ONE_EACH, ALPHA, "0.3"]),
    "balanced-sum": ("xlmr", 2, 2, [*FULL, *CHUNK, "--objective.reduction", "sum", *WEIGHTS]),
    "weights": ("xlmr", 0, 1, [*LORA, *WEIGHTS, "--objective.dim_weights", "2,1,0.5,3,4"]),
    "packed": ("qwen3", 1, 2, [*LORA, *ONE_EACH, *WEIGHTS, "--model.attn", "varlen",
                               "--train.chunk_tokens", "60"]),
    "alpha-0": ("qwen3", 1, 1, [*FULL, *CHUNK, ALPHA, "0"]),
    "alpha-1": ("xlmr", 1, 1, [*FULL, *CHUNK, ALPHA, "1"]),
}  # fmt: skip


def write_rows(path: Path) -> Path:
    """One epoch of rows with none, one or two negatives, of unlike lengths. Every negative is
    another row's too, its anchor or its positive."""
    rows: list[dict[str, Any]] = []
    for i in range(0, len(SENTENCES), 2):
        a, b = SENTENCES[i].split(), SENTENCES[i + 1].split()
        cut = 2 + i % 5
        before, after = rows[-1]["positive"] if rows else "", SENTENCES[(i + 2) % len(SENTENCES)]
        negatives = [[SENTENCES[0][::-1]], [after, before], []][i // 2 % 3]
        rows.append({"anchor": " ".join(a), "positive": " ".join(a[cut:] + b[:3]),
                     "negative": negatives})  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def flags_of(name: str, world: int, folder: Path) -> list[str]:
    model, stage, _, more = CASES[name]
    return [
        "--recipe", "quickstart", "--model.name", str(folder / model), "--ds_config",
        str(ROOT / "ds_configs" / f"zero{stage}.json"), "--data.train", str(folder / "rows.jsonl"),
        "--data.validation", "none", "--data.token_cache", "off", "--data.negatives", "2",
        "--data.max_length", "48", "--objective.dims", "3,6,8,16,32", "--sia.layers", "1,2,4",
        "--sia.min_k", "3", "--pic.ladder", "3@1,6@2,16@3,32@4", "--train.precision", "fp32",
        "--train.batch_size", str(BATCH // world), "--train.learning_rate", "1e-2", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole_step")
    tiny_qwen3(folder / "qwen3")
    tiny_xlmr(folder / "xlmr")
    write_rows(folder / "rows.jsonl")
    found = {}
    for world in WORLDS:
        cases = {name: {"flags": flags_of(name, world, folder), "steps": CASES[name][2]}
                 for name in CASES}  # fmt: skip
        asked, answered = folder / f"cases{world}.json", folder / f"answers{world}.json"
        asked.write_text(json.dumps(cases))
        script = ROOT / "tests" / "whole_step.py"
        code, output = run_ranks(world, script, [str(asked), str(answered)])
        assert code == 0, output[-6000:]
        found[world] = json.loads(answered.read_text())
    return found


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", CASES)
def test_what_is_logged(answers, name: str, world: int) -> None:
    """The loss and each part of it."""
    for step in answers[world][name]:
        found, wanted = step["logged"], step["parts"]
        assert found.keys() == wanted.keys()
        if name == "alpha-1":  # what weighs nothing is not looked at
            found, wanted = (
                {k: v for k, v in parts.items() if k == "loss" or "mrl" in k}
                for parts in (found, wanted)
            )
        assert found == pytest.approx(wanted, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", CASES)
def test_what_is_descended(answers, name: str, world: int) -> None:
    """The gradient of every trained parameter."""
    for step in answers[world][name]:
        gradients = step["gradients"]
        whole = sum(norm**2 for _, norm in gradients.values()) ** 0.5
        assert len(gradients) > 15 and whole > 0.1
        far = {
            parameter: (gap, norm)
            for parameter, (gap, norm) in gradients.items()
            if not gap <= 1e-4 * norm + 1e-6 * whole
        }
        assert not far


def test_the_cases_are_what_they_say(answers) -> None:
    for world in WORLDS:
        for name, steps in answers[world].items():
            assert len(steps) == CASES[name][2]
            columns = [step["texts"] for step in steps]
            assert all(c.count(0) == c.count(1) == BATCH for c in columns)
            assert any(c.count(2) not in (0, BATCH, 2 * BATCH) for c in columns)
            sampled = [step["sampled"] for step in steps]
            if "sampled" in name:
                assert len({json.dumps(s) for s in sampled}) > 1 or len(steps) == 2
            elif name != "packed":
                assert sampled == [[[1, 2, 4], [0, 1, 2]]] * len(steps)
            assert steps[0]["false_negatives"] > 0 and max(steps[0]["copies"]) > 1
        assert answers[world]["balanced"][2]["remembered"] > 0
