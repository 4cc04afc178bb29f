"""Training goes on from an adapter; schedules of the rate; optimisers beside AdamW."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from ranks import ROOT, train_cases
from safetensors.torch import load_file
from test_distributed import arguments
from tiny_models import few, tiny_bert, tiny_qwen3
from transformers import AutoTokenizer

from mipic_llm.commands.export import main as export
from mipic_llm.config import load_config, read_record
from mipic_llm.config.sizes import dims_given_up
from mipic_llm.errors import UserError
from mipic_llm.training.loop import train
from mipic_llm.training.schedule import schedule_of

FLAGS = [  # the second training of a decoder's adapter rehearses its export, the others do not
    "--recipe", "quickstart", "--train.batch_size", "4", "--data.max_length", "24",
    "--data.validation", "none", "--tracking.mlflow", "off", "--train.warmup_ratio", "0",
]  # fmt: skip


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    """A run that ended with an adapter of rank 4."""
    place = tmp_path_factory.mktemp("first")
    base = tiny_bert(place / "bert")
    more = ["--model.name", str(base), "--lora.rank", "4", "--lora.alpha", "6", "--output_dir",
            str(place / "a"), "--train.max_steps", "4"]  # fmt: skip
    assert train(load_config([*FLAGS, *quick(place), *more])) == 0
    return place


def quick(place: Path) -> list[str]:
    """Few rows and no rehearsal of the export."""
    return ["--data.train", str(few(place)), "--export.rehearse", "false"]


def adapter(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "adapter" / "adapter_model.safetensors")


def test_an_adapter_is_trained_further_on_its_base(first, tmp_path) -> None:
    """At a rate of next to nothing it comes out as it went in; at a real one it moves."""
    given, before = ["--model.adapter", str(first / "a" / "adapter")], adapter(first / "a")
    given += quick(tmp_path)
    for rate, least, most in ((1e-12, 0.0, 1e-6), (1e-2, 1e-4, 1.0)):
        out = tmp_path / str(rate)
        more = ["--train.max_steps", "3", "--train.learning_rate", str(rate), "--output_dir"]
        assert train(load_config([*FLAGS, *given, *more, str(out), "--train.save_every", "2"])) == 0
        after = adapter(out)
        assert before.keys() == after.keys()
        moved = max(float((after[k] - before[k]).abs().max()) for k in before)
        assert least <= moved <= most, rate
    config = read_record(out / "config.yaml")
    assert (config.lora.rank, config.lora.alpha) == (4, 6)
    # its checkpoint, exported apart, is put on the same base and LoRA
    step = out / "checkpoints" / "step-00000002"
    assert export(["--output_dir", str(out), "--checkpoint", str(step), "--to", str(tmp_path)]) == 0


def test_an_adapter_of_a_decoder_keeps_the_end_token_of_its_own_tokenizer(tmp_path) -> None:
    """The first training gave the tokenizer one, which that of the base does not have."""
    base = str(tiny_qwen3(tmp_path / "qwen3", appends_eos=False))
    out = [tmp_path / "a", tmp_path / "b"]
    more = ["--data.max_length", "12", "--train.max_steps", "1", "--data.train",
            str(few(tmp_path)), "--output_dir"]  # fmt: skip
    first = ["--export.rehearse", "false", "--model.name", base]
    assert train(load_config([*FLAGS, *first, *more, str(out[0])])) == 0
    given = ["--model.adapter", str(out[0] / "adapter")]
    assert train(load_config([*FLAGS, *given, *more, str(out[1])])) == 0
    own, bare = (AutoTokenizer.from_pretrained(where) for where in (out[1] / "adapter", base))
    (end,) = own("a boat")["input_ids"][len(bare("a boat")["input_ids"]) :]
    assert own.convert_ids_to_tokens(end).startswith("<|")


def test_another_base_may_be_given(first, tmp_path) -> None:
    given = ["--model.adapter", str(first / "a" / "adapter"), "--model.name", str(first / "bert")]
    more = ["--train.max_steps", "1", "--output_dir", str(tmp_path / "out"), *quick(tmp_path)]
    assert train(load_config([*FLAGS, *given, *more])) == 0
    record = read_record(tmp_path / "out" / "config.yaml").model
    assert (record.name, record.adapter) == (given[3], given[1])


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (
            ["--model.adapter", "{0}/a/adapter", "--lora.rank", "8"],
            "lora.rank is 8, and the adapter",
        ),
        (["--model.adapter", "{0}/bert"], "it is no adapter; give it as --model.name"),
        (["--model.name", "{0}/a/adapter"], "--model.adapter trains it further"),
    ],
)
def test_what_does_not_fit_is_said(first, tmp_path, more: list[str], told: str) -> None:
    more = [word.format(first) for word in more]
    with pytest.raises(UserError, match="adapter") as caught:
        train(load_config([*FLAGS, *more, "--output_dir", str(tmp_path / "out")]))
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_schedules_are_what_their_names_say() -> None:
    def factors(*flags: str) -> list[float]:
        options = load_config(["--train.warmup_ratio", "0.1", *flags]).train
        factor = schedule_of(options, 20)
        return [factor(n) for n in range(21)]

    floor = ("--train.min_learning_rate_ratio", "0.2")
    for kind in ("cosine", "linear", "constant", "wsd"):
        found = factors("--train.schedule", kind, *floor)
        assert found[:2] == [0.5, 1.0] and found[-1] == pytest.approx(
            1 if kind == "constant" else 0.2
        )
    cosine, linear = factors(*floor), factors("--train.schedule", "linear", *floor)
    assert cosine[11] == pytest.approx(0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi * 0.5)))
    assert linear[11] == pytest.approx(0.6)
    wsd = factors("--train.schedule", "wsd", "--train.decay_ratio", "0.25", *floor)
    assert wsd[2:16] == [1.0] * 14
    assert wsd[16:] == pytest.approx([1 - 0.8 * i / 5 for i in range(1, 6)])
    longer = ("--train.decay_ratio", "0.8", "--train.warmup_ratio", "0.5")  # than what is left
    short = factors("--train.schedule", "wsd", *longer)
    assert short[9:] == pytest.approx([1.0] + [1 - 0.09 * i for i in range(11)])


@pytest.fixture(scope="module")
def optimised(tmp_path_factory) -> dict[int, dict[str, dict]]:
    """[ranks][optimiser and stage], trained in one start of the ranks."""
    place = tmp_path_factory.mktemp("optimised")
    few(place)
    model, patch = tiny_bert(place / "bert", layers=3), pytest.MonkeyPatch()
    patch.setenv("TORCHDYNAMO_DISABLE", "1")  # Muon compiles itself, which takes a minute
    found = {}
    for world in (1, 2):
        cases = [
            {"name": f"{kind}/{stage}", "steps": 3,
             "args": [*arguments(model, world, stage, 4, "fp32"), "--train.optimizer", kind]}
            for kind, stages in STAGES.items() for stage in stages
        ]  # fmt: skip
        found[world] = train_cases(world, cases, place / str(world))
    patch.undo()
    return found


STAGES = {"adamw": (1,), "adamw_8bit": (0, 1, 2), "muon": (1, 2, 3)}


@pytest.mark.parametrize("kind", ["adamw_8bit", "muon"])
def test_an_optimiser_gives_the_same_training_at_every_stage(optimised, kind: str) -> None:
    def losses(world: int, name: str) -> list[float]:
        return [row["loss"] for row in optimised[world][name]["rows"]]

    reference, adamw = losses(1, f"{kind}/1"), losses(1, "adamw/1")
    for world in (1, 2):
        for stage in STAGES[kind]:
            assert losses(world, f"{kind}/{stage}") == pytest.approx(reference, rel=2e-4)
    assert reference[0] == pytest.approx(adamw[0], rel=1e-6)
    assert reference[-1] != pytest.approx(adamw[-1], rel=1e-6)
    if kind == "adamw_8bit":
        assert reference == pytest.approx(adamw, rel=1e-2)


def test_a_stage_that_cannot_carry_an_optimiser_is_refused(first, tmp_path) -> None:
    more = ["--model.name", str(first / "bert"), "--output_dir", str(tmp_path / "out")]
    with pytest.raises(UserError, match="train.optimizer muon works at ZeRO-1 to 3"):
        train(load_config([*FLAGS, *more, "--train.optimizer", "muon"]))
    zero3 = ["--ds_config", str(ROOT / "ds_configs" / "zero3.json")]
    with pytest.raises(UserError, match="adamw_8bit works at ZeRO-0 to 2"):
        train(load_config([*FLAGS, *more, *zero3, "--train.optimizer", "adamw_8bit"]))


def test_dims_of_the_base_that_a_run_leaves_are_told(first, tmp_path, capsys) -> None:
    at = ["--model.name", str(first / "bert"), "--objective.dims", "8,32", "--train.max_steps", "1",
          *quick(tmp_path)]  # fmt: skip
    assert train(load_config([*FLAGS, *at, "--output_dir", str(tmp_path / "a")])) == 0
    given = ["--model.adapter", str(tmp_path / "a" / "adapter"), "--train.max_steps", "1",
             *quick(tmp_path)]  # fmt: skip
    capsys.readouterr()
    assert train(load_config([*FLAGS, *given, "--output_dir", str(tmp_path / "b")])) == 0
    output = capsys.readouterr().out
    assert "was trained at 8 dims too" in output and "--objective.dims 8,16,32 trains" in output
    kept = ["--objective.dims", "8,16,32", "--output_dir", str(tmp_path / "c")]
    assert train(load_config([*FLAGS, *given, *kept])) == 0
    assert "dims too" not in capsys.readouterr().out
    assert dims_given_up([32], [8, 16, 32], 32) == []
