"""The DeepSpeed file and our configuration: filled, agreed or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mipic_llm.config import Config
from mipic_llm.errors import UserError
from mipic_llm.runtime import ds_config
from mipic_llm.runtime.ds_config import load_ds_config

FILES = sorted((Path(__file__).resolve().parents[1] / "ds_configs").glob("*.json"))


def config_with(**train) -> Config:
    train = {"precision": "bf16"} | train
    return Config().replace(**{f"train.{name}": value for name, value in train.items()})


@pytest.fixture
def load(tmp_path):
    """Write a dictionary (or text) as a file and load it."""

    def inner(content, config=None, world_size=2):
        path = tmp_path / "ds.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return load_ds_config(path, config or config_with(), world_size=world_size, hidden_size=384)

    return inner


def autos(node) -> list[str]:
    if isinstance(node, dict):
        return [key for value in node.values() for key in autos(value)]
    return ["auto"] if node == "auto" else []


def test_the_files_are_the_ones_promised():
    assert [p.stem for p in FILES] == [
        "zero0", "zero1", "zero2", "zero3", "zero3_offload", "zero3_qlora",
    ]  # fmt: skip


@pytest.mark.parametrize("path", [None, *FILES], ids=lambda p: p.stem if p else "none")
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_every_file_is_filled(path, precision):
    config = config_with(precision=precision, batch_size=8, max_grad_norm=0.5)
    ds = load_ds_config(path, config, world_size=4, hidden_size=384)
    assert not autos(ds)
    assert ds["train_micro_batch_size_per_gpu"] == 8
    assert ds["gradient_accumulation_steps"] == 1
    assert ds["train_batch_size"] == 32
    assert ds["gradient_clipping"] == 0.5
    assert ds["bf16"] == {"enabled": precision == "bf16"}
    assert ds["zero_allow_untested_optimizer"] is True
    assert ds["zero_force_ds_cpu_optimizer"] is False
    assert ds["wall_clock_breakdown"] is False
    assert ds["torch_autocast"] == {"enabled": False}
    assert ds["steps_per_print"] > 10**6
    assert "fp16" not in ds and "optimizer" not in ds and "scheduler" not in ds
    stage = 0 if path is None else int(path.stem[4])
    assert ds["zero_optimization"]["stage"] == stage
    json.dumps(ds)


def test_sizes_of_zero_3():
    path = next(p for p in FILES if p.stem == "zero3_offload")
    zero = load_ds_config(path, config_with(), world_size=1, hidden_size=100)["zero_optimization"]
    assert zero["reduce_bucket_size"] == 10_000
    assert zero["stage3_prefetch_bucket_size"] == 9_000
    assert zero["stage3_param_persistence_threshold"] == 2_000  # width ** 2 / 5: LoRA 16
    assert zero["stage3_gather_16bit_weights_on_model_save"] is True
    for key in ("offload_optimizer", "offload_param"):
        assert zero[key] == {"device": "cpu", "pin_memory": True}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_deepspeed_itself_reads_the_result(path):
    config = pytest.importorskip("deepspeed.runtime.config")
    ds = load_ds_config(path, config_with(max_grad_norm=0.0), world_size=1, hidden_size=384)
    parsed = config.DeepSpeedConfig(ds)
    assert parsed.gradient_clipping == 0.0
    assert parsed.zero_optimization_stage == int(path.stem[4])
    assert parsed.bfloat16_config.enabled


def test_the_zero_keys_are_deepspeeds_without_its_old_names():
    found = ds_config._zero_keys()
    assert {"stage", "overlap_comm", "stage3_prefetch_bucket_size"} <= found
    assert not {"cpu_offload", "cpu_offload_param", "prefetch_bucket_size"} & found


def test_no_clipping_is_written_out_since_deepspeed_clips_at_one_when_it_is_absent(load):
    assert load({}, config_with(max_grad_norm=0.0))["gradient_clipping"] == 0.0


def test_numbers_that_agree_are_fine(load):
    ds = load(
        {
            "train_batch_size": 64,
            "train_micro_batch_size_per_gpu": 32,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": 1,
            "bf16": {"enabled": True, "check_grad_overflow": False},
            "fp16": {"enabled": False},
            "optimizer": None,
            "scheduler": {"type": "WarmupCosineLR", "params": {"warmup_num_steps": "auto"}},
            "steps_per_print": 10,
            "wall_clock_breakdown": True,
            "data_types": {"keep_in_fp32_modules": "auto"},
        }
    )
    assert ds["gradient_clipping"] == 1.0 and ds["steps_per_print"] == 10
    assert ds["bf16"] == {"enabled": True, "check_grad_overflow": False}
    assert ds["data_types"] == {"keep_in_fp32_modules": "auto"}
    assert not {"fp16", "optimizer", "scheduler"} & set(ds)


@pytest.mark.parametrize(
    "content, message",
    [
        (
            {"gradient_clipping": 0.5},
            r'gradient_clipping is 0.5 but train.max_grad_norm is 1.0; put "auto" there or pass '
            r"--train.max_grad_norm 0.5",
        ),
        ({"gradient_clipping": "1.0"}, 'gradient_clipping is "1.0" but .*put "auto" there$'),
        (
            {"train_micro_batch_size_per_gpu": 4},
            "is 4 but train.batch_size is 32.*--train.batch_size 4",
        ),
        ({"train_batch_size": 32}, "train_batch_size is 32 but .*32 on each of 2 rank"),
        ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps is 2 but.*chunk_size"),
        ({"gradient_accumulation_steps": True}, "gradient_accumulation_steps is true"),
        ({"bf16": {"enabled": False}}, "bf16.enabled is false but .*--train.precision fp32"),
        ({"bf16": True}, "bf16 must be an object"),
        ({"bfloat16": {"enabled": True}}, "write bf16"),
        ({"fp16": {"enabled": True}}, "fp16 is enabled"),
        ({"torch_autocast": {"enabled": True}}, "torch_autocast is enabled"),
        ({"optimizer": {"type": "AdamW"}}, "optimizer is ours.*--train.learning_rate"),
        ({"scheduler": {"type": "WarmupLR"}}, "scheduler is ours.*--train.warmup_ratio"),
        (
            {"optimizer": {"type": "AdamW", "params": {"lr": 1e-4, "eps": "auto"}}},
            'remove it, or put "auto" for each of its params, and use --train.optimizer',
        ),
        (
            {"optimizer": {"type": "Lion", "params": {"lr": "auto"}}},
            'optimizer.type is "Lion" but train.optimizer is adamw; remove it',
        ),
        (
            {"scheduler": {"type": "WarmupDecayLR", "params": {"warmup_max_lr": "auto"}}},
            '"WarmupDecayLR" but train.schedule is cosine; pass --train.schedule linear, or remove',
        ),
        ({"gradient_allreduce_op": "sum"}, "mean over ranks"),
        ({"sequence_parallel_size": 2}, "sequence_parallel_size is not supported"),
        ({"zero_optimisation": {}}, "no key zero_optimisation; did you mean zero_optimization"),
        ({"elasticity": {}}, "no key elasticity"),
        ({"zero_optimization": {"stage": 4}}, "stage is 4; give 0, 1, 2 or 3"),
        ({"zero_optimization": {"stage": "auto"}}, 'stage is "auto"; give 0'),
        ({"zero_optimization": True}, "zero_optimization must be an object"),
        ({"zero_optimization": {"overlap_com": True}}, "did you mean overlap_comm"),
        (
            {"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}},
            "works with stage 3 only",
        ),
        (
            {"zero_optimization": {"stage": 3, "sub_group_size": "auto"}},
            'no rule fills "auto" at zero_optimization.sub_group_size',
        ),
        (
            {"zero_optimization": {"reduce_bucket_size": "large"}},
            'reduce_bucket_size is "large": Input should be a valid int',
        ),
        (
            {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "disk"}}},
            'offload_optimizer.device is "disk": Input should be',
        ),
        (
            {"zero_optimization": {"stage": 2, "offload_optimizer": {"devise": "cpu"}}},
            'devise is "cpu": Extra inputs are not permitted',
        ),
        ({"zero_optimization": {"stage": 3, "offload_param": 1}}, "offload_param is 1: Input"),
        ({"bf16": {"enabled": "auto", "precision": 1}}, "precision is 1: Extra inputs"),
        ({"communication_data_type": "fp12"}, "DeepSpeed refuses it: Invalid commun"),
        ({"checkpoint": {"tag_validation": "maybe"}}, "DeepSpeed refuses it: .*tag_validation"),
        ({"flops_profiler": {"enabled": "so"}}, "DeepSpeed refuses it: unsupported operand"),
        ({"wandb": {"enabled": True}}, "wandb is enabled, but wandb is not installed"),
        ({"aio": 3}, "DeepSpeed refuses it: "),
        ({"tensorboard": {"enabled": 2}}, "enabled is 2: Input should be a valid boolean"),
        ("[1]", "must be a JSON object"),
        ('{"bf16": ', "not valid JSON at line 1"),
        ('{\n"a": 1,\n}', "not valid JSON at line"),
        ('{"bf16": {}, "bf16": {}}', "bf16 is given twice"),
        ("", "not valid JSON at line 1"),
    ],
)
def test_refusals(load, content, message):
    with pytest.raises(UserError, match=message) as error:
        load(content)
    assert "ds_config " in str(error.value) and "ds.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_precision_fp32_against_bf16_true(load):
    with pytest.raises(UserError, match="bf16.enabled is true but train.precision is fp32.*bf16$"):
        load({"bf16": {"enabled": True}}, config_with(precision="fp32"))


def test_missing_directory_and_binary(tmp_path):
    for path, message in (
        (tmp_path / "none.json", "cannot be read: No such file.*ds_configs/"),
        (tmp_path, "cannot be read: Is a directory"),
    ):
        with pytest.raises(UserError, match=message):
            load_ds_config(path, config_with(), world_size=1, hidden_size=8)
    for data, message in (
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"[" * 99_999, "brackets too deep"),
        (b'{"train_batch_size": ' + b"1" * 5_000 + b"}", "too many digits"),
    ):
        (tmp_path / "b.json").write_bytes(data)
        with pytest.raises(UserError, match=message):
            load_ds_config(tmp_path / "b.json", config_with(), world_size=1, hidden_size=8)


def test_a_byte_order_mark_is_fine(tmp_path):
    path = tmp_path / "bom.json"
    path.write_text('{"zero_optimization": {"stage": 1}}', encoding="utf-8-sig")
    ds = load_ds_config(path, config_with(), world_size=1, hidden_size=8)
    assert ds["zero_optimization"] == {"stage": 1}
