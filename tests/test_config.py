"""Rules of the configuration: what follows from the backbone, what is refused, the recipes."""

from __future__ import annotations

import copy

import pytest

from mipic_llm.config import (
    OBJECTIVES,
    PRESETS,
    Config,
    derive_dims,
    dump,
    flatten,
    from_settings,
    idle_flags,
    load_config,
    parse_ladder,
    parse_point,
    resolve,
    trained_dims,
    validate,
)
from mipic_llm.config.points import figure_name
from mipic_llm.config.schema import OPTIONS
from mipic_llm.config.sizes import chain_hidden, derive_ladder, derive_ratios, narrow_of
from mipic_llm.errors import UserError
from mipic_llm.types import Point


def changed(**values) -> Config:
    """Config with dotted keys (double underscore for the dot) set."""
    return Config().replace(**{key.replace("__", "."): value for key, value in values.items()})


def words(points) -> str:
    return " ".join(map(str, points))


# ------------------------------------------------------------------------------------------ derive


def test_dims_double_below_the_width_and_end_at_it():
    assert derive_dims(384) == [16, 32, 64, 128, 256, 384]
    assert derive_dims(768) == [16, 32, 64, 128, 256, 512, 768]
    assert derive_dims(1024) == [16, 32, 64, 128, 256, 512, 1024]  # a power of two, once
    assert derive_dims(16) == [16]
    assert derive_dims(17) == [16, 17]
    assert derive_dims(8) == [8]


def test_ladder_is_evenly_spaced():
    # 6 dims, 6 layers: one each
    assert words(derive_ladder(derive_dims(384), 6)) == "16@1 32@2 64@3 128@4 256@5 384@6"
    # 7 dims, 28 layers: 28 * i / 7 = 4, 8, ...
    assert words(derive_ladder(derive_dims(1024), 28)) == (
        "16@4 32@8 64@12 128@16 256@20 512@24 1024@28"
    )
    # 2 dims, 5 layers: 2.5 rounds up to 3
    assert words(derive_ladder([16, 32], 5)) == "16@3 32@5"


def test_ladder_with_fewer_layers_than_dims_spreads_the_dims():
    # six layers, seven dims: indices 0 1.2 2.4 3.6 4.8 6 -> 0 1 2 4 5 6, METHOD.md's TinyBERT row
    assert words(derive_ladder(derive_dims(768), 6)) == "16@1 32@2 64@3 256@4 512@5 768@6"
    assert words(derive_ladder(derive_dims(768), 2)) == "16@1 768@2"
    assert words(derive_ladder(derive_dims(768), 1)) == "768@1"


@pytest.mark.parametrize("width", [8, 16, 32, 100, 384, 768, 4096])
@pytest.mark.parametrize("n_layers", [1, 2, 3, 5, 6, 12, 28, 36])
def test_any_derived_ladder_rises_and_ends_at_the_top(width, n_layers):
    dims = derive_dims(width)
    points = derive_ladder(dims, n_layers)
    assert points[-1] == Point(n_layers, width)
    assert len(points) == min(len(dims), n_layers)
    assert all(
        a.layer < b.layer and a.dim < b.dim for a, b in zip(points, points[1:], strict=False)
    )
    assert points[0].layer >= 1
    assert parse_ladder([str(p) for p in points]) == points


def test_so_many_checkpoints_whatever_the_model():
    for width, n_layers, ladder in ((384, 6, "16@3 384@6"), (576, 30, "16@15 576@30"),
                                    (16, 12, "16@12"), (768, 1, "768@1")):  # fmt: skip
        assert words(derive_ladder(derive_dims(width), n_layers, 2)) == ladder
    assert words(derive_ladder(derive_dims(768), 12, 3)) == "16@4 128@8 768@12"


def test_the_recipe_anchored_is_for_any_model():
    config = load_config(["--recipe", "anchored", "--model.name", "some/decoder"])
    out = resolve(config, width=576, n_layers=30)
    assert out.pic.ladder == ["16@15", "576@30"] and out.sia.layers == [15, 30]
    assert out.teacher.relation_dims == "narrow" and out.data.max_length == 64 and not out.notes


def test_widths_of_heads_and_narrow_prefixes():
    assert [chain_hidden(16, 384, form) for form in ("mlp", "residual")] == [192, 48]
    assert chain_hidden(64, 32, "mlp") == 32 and chain_hidden(2, 4, "residual") == 1
    assert narrow_of([16, 76, 77, 80, 384], 384) == [16, 76]  # at most a fifth of the width
    assert narrow_of([16, 77, 385], 385) == [16, 77]


def test_ratios():
    assert derive_ratios(6) == [0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert derive_ratios(1) == [0.7]
    assert derive_ratios(2) == [0.2, 0.7]
    assert derive_ratios(0) == []


# ------------------------------------------------------------------------------------------ ladder


def test_parse_ladder():
    assert parse_ladder(["16@1", "32@2"]) == (Point(1, 16), Point(2, 32))
    assert parse_ladder(["16@1 32@2"]) == (Point(1, 16), Point(2, 32))
    assert parse_ladder(["16@1", "16@2"])  # dims may stay, layers may not


@pytest.mark.parametrize(
    "item", ["16", "16@", "@1", "a@1", "16@b", "16@-1", "0@1", "16@0", "1@2@3"]
)
def test_ladder_syntax(item):
    with pytest.raises(UserError, match="is not dim@layer"):
        parse_ladder([item])


@pytest.mark.parametrize("text", ["64@6", "6x64"])
def test_one_point_two_spellings(text):
    assert parse_point(text) == Point(layer=6, dim=64)
    assert figure_name(f"demo/spearman@{text}") == "demo/spearman@64@6"
    assert figure_name(f"a@b/f1@{text}") == "a@b/f1@64@6"
    assert load_config(["--eval.best", f"d/m@{text}", "--eval.every", "1"]).eval.best == "d/m@64@6"


@pytest.mark.parametrize("text", ["64x6", "64@", "x", "6x", "64@6 ", "0@1", "1@0", "1@6@1", "+1@1"])
def test_no_point(text):
    with pytest.raises(UserError, match="is not dim@layer, such as 64@3"):
        parse_point(text)


def test_other_names_of_figures_stay():
    for name in ("demo/spearman", "demo/spearman@64@6", "x", "@6x64"):
        assert figure_name(name) == name


@pytest.mark.parametrize("ladder", [["32@1", "16@2"], ["16@2", "32@2"], ["16@3", "32@1"]])
def test_ladder_must_rise(ladder):
    with pytest.raises(UserError, match="pic.ladder must rise"):
        parse_ladder(ladder)


# ---------------------------------------------------------------------------------------- validate


def test_the_defaults_are_legal():
    validate(Config())


BAD = {
    "model__attn": "flash",
    "model__view_noise": 1.0,
    "model__dropout": -0.1,
    "model__name": "",
    "model__quantization": "int3",
    "lora__rank": -1,
    "lora__alpha": 0.0,
    "lora__dropout": 1.0,
    "lora__target_modules": [],
    "data__train": [],
    "data__max_length": 3,
    "data__negatives": -1,
    "data__on_bad_rows": "ignore",
    "objective__name": "mrll",
    "objective__preset": "letter",
    "objective__alpha": 1.01,
    "objective__tau": 0.0,
    "objective__reduction": "max",
    "objective__dims": [32, 16],
    "objective__dim_weights": [-1.0],
    "sia__layers": [2, 2],
    "sia__ratios": [0.5, 0.4],
    "sia__temperature": -1.0,
    "sia__layers_per_step": -1,
    "sia__min_k": 1,
    "sia__kl": "forward",
    "pic__ladder": ["16@1"],
    "pic__links_per_step": -2,
    "train__batch_size": 0,
    "train__chunk_size": -1,
    "train__epochs": 0,
    "train__max_steps": -1,
    "train__learning_rate": 0.0,
    "train__head_learning_rate": 0.0,
    "train__min_learning_rate_ratio": 1.5,
    "train__warmup_ratio": -0.1,
    "train__weight_decay": -0.1,
    "train__max_grad_norm": -1.0,
    "train__precision": "fp16",
    "train__save_every": -1,
    "train__keep_checkpoints": -1,
    "train__log_every": 0,
    "eval__batch_size": 0,
    "export__tolerance": 0.0,
    "output_dir": "",
    "seed": -1,
}


@pytest.mark.parametrize("key", BAD)
def test_a_bad_value_is_named_in_one_line(key):
    with pytest.raises(UserError) as error:
        validate(changed(**{key: BAD[key]}))
    assert key.replace("__", ".") in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [-1e-9, 1.0001])
def test_alpha_outside(value):
    with pytest.raises(UserError, match=r"objective.alpha is .*; it must be in \[0, 1\]"):
        validate(changed(objective__alpha=value))


@pytest.mark.parametrize("dims", [[], [0, 16], [-4, 16], [16, 16], [64, 32, 384]])
def test_dims_not_ascending(dims):
    with pytest.raises(UserError, match="objective.dims is .*ascending"):
        validate(changed(objective__dims=dims))


@pytest.mark.parametrize("ratios", [[0.0, 0.5], [0.5, 1.1], [0.7, 0.2]])
def test_ratio_values(ratios):
    with pytest.raises(UserError, match=r"sia.ratios is .*\(0, 1\]"):
        validate(changed(sia__ratios=ratios))


def test_batch_of_one_needs_a_second_rank(monkeypatch):
    config = changed(train__batch_size=1)
    with pytest.raises(UserError, match="no negatives; give --train.batch_size 2"):
        validate(config)
    validate(config, world_size=2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    validate(config)
    with pytest.raises(UserError, match="no negatives"):
        validate(config, world_size=1)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"sia__ratios": [0.2, 0.3], "objective__dims": [16, 32]}, "has 2 values.*1 truncated"),
        ({"objective__dims": [384]}, "mipic needs a narrower prefix"),
        ({"objective__dims": [16, 32], "objective__dim_weights": [1.0]}, "1 values.*has 2"),
        ({"sia__layers": [1, 2], "sia__layers_per_step": 3}, "layers_per_step is 3.*has 2"),
        ({"pic__ladder": ["16@1", "32@2"], "pic__links_per_step": 2}, "the ladder has 1 links"),
        ({"pic__ladder": ["8@1", "32@2"], "objective__dims": [16, 32]}, "8@1, not among"),
        ({"lora__rank": 0, "model__quantization": "nf4"}, "4-bit weights cannot be trained"),
        ({"lora__rank": 0, "lora__use_dora": True}, "use_dora"),
        ({"model__attn": "flash_attention_2", "train__precision": "fp32"}, "no fp32 form"),
        ({"sia__relation": False, "sia__geometry": False, "pic__enabled": False}, "that is mrl"),
        ({"objective__dim_weights": [0.0, 0.0]}, "one above 0"),
        ({"objective__directions": ["doc_to_query"]}, "give query_to_doc and any of"),
        ({"objective__directions": ["query_to_doc", "doc_to_doc"]}, "add doc_to_query"),
        ({"objective__directions": ["query_to_doc", "up"]}, "give query_to_doc and any of"),
        ({"objective__name": "2dmse", "objective__tau_learnable": True}, "2dmse has no mrl term"),
        ({"teacher__name": "base", "teacher__dims": [16, 64], "objective__dims": [16, 32]},
         "teacher.dims has 64, above the full width"),
        ({"mic__layers": [2, 2]}, "mic.layers is .*ascending"),
        ({"model__fused": "true", "train__compile": True}, "model.fused and train.compile are on"),
        ({"eval__every": 5, "data__validation": []}, "eval.every is 5 and data.validation is emp"),
    ],
)  # fmt: skip
def test_contradictions(values, message):
    with pytest.raises(UserError, match=message):
        validate(changed(**values))


def test_what_is_just_within_the_rules_is_accepted():
    for values in (
        {"objective__dim_weights": [0.0, 1.0], "objective__dims": [16, 32]},
        {"objective__directions": ["query_to_doc", "doc_to_query", "doc_to_doc"]},
        {"teacher__name": "base", "teacher__dims": [16, 32], "objective__dims": [16, 32]},
        {"sia__layers": [1, 2], "sia__layers_per_step": 2},
        {"pic__ladder": ["16@1", "32@2", "64@3"], "pic__links_per_step": 2},
        {"data__validation_split": 0.1, "data__validation": [], "eval__every": 5},
        {"data__validation_split": 20.0},
        {"model__fused": "true", "model__liger": "false"},
        {"sia__ratios": [0.5, 0.5, 1.0]},
    ):
        validate(changed(**values))


def test_what_mipic_refuses_mrl_and_simcse_accept():
    for name in ("mrl", "simcse"):
        validate(changed(objective__name=name, objective__dims=[384]))
        validate(changed(objective__name=name, pic__ladder=["8@1"], objective__dims=[16, 384]))
    validate(changed(pic__enabled=False, pic__ladder=["384@6"]))


# ----------------------------------------------------------------------------------------- resolve


def test_resolve_fills_everything_and_leaves_its_argument_alone():
    config = Config()
    before = copy.deepcopy(config)
    out = resolve(config, width=384, n_layers=6)
    assert config == before
    assert out.objective.dims == [16, 32, 64, 128, 256, 384]
    assert out.pic.ladder == ["16@1", "32@2", "64@3", "128@4", "256@5", "384@6"]
    assert out.sia.layers == [1, 2, 3, 4, 5, 6]
    assert out.sia.ratios == [0.2, 0.325, 0.45, 0.575, 0.7]
    assert (out.train.learning_rate, out.train.head_learning_rate) == (2e-4, 4e-4)
    assert out.train.precision is out.data.max_length is out.export.tolerance is None
    assert resolve(out, width=384, n_layers=6) == out  # twice changes nothing
    assert out.notes == ()


@pytest.mark.parametrize("preset", ["paper", "balanced"])
def test_a_preset_fills_only_what_is_unset(preset):
    out = resolve(changed(objective__preset=preset), width=384, n_layers=6)
    for section, values in PRESETS[preset].items():
        for name, value in values.items():
            assert getattr(getattr(out, section), name) == value
    kept = changed(objective__preset=preset, sia__temperature=0.3, sia__detach_teacher=False)
    kept = resolve(kept, width=384, n_layers=6)
    assert kept.sia.temperature == 0.3 and kept.sia.detach_teacher is False
    assert kept.sia.kl == "student_teacher"


def test_the_objectives_are_those_of_the_table():
    assert OPTIONS["objective.name"].kind.choices == tuple(OBJECTIVES)


def test_presets_leave_no_optional_choice_unset():
    """Every option whose help says "by preset" is in both presets, and the letter is the letter."""
    by_preset = {key for key, o in OPTIONS.items() if "by preset" in (o.field.description or "")}
    for preset in PRESETS.values():
        assert {f"{s}.{n}" for s, values in preset.items() for n in values} == by_preset
    assert PRESETS["paper"]["sia"]["temperature"] == 0.05
    assert PRESETS["paper"]["objective"]["reduction"] == "sum"
    assert PRESETS["balanced"]["objective"]["reduction"] == "mean"


@pytest.mark.parametrize(
    "values, message",
    [
        ({"objective__dims": [16, 512]}, r"\[512\], above the model's full width 384"),
        ({"objective__dims": [16, 32]}, "dims must end at the full width 384"),
        ({"sia__layers": [1, 7]}, "sia.layers has 7, the model has 6 layers"),
        ({"pic__ladder": ["16@1", "384@7"]}, "384@7, the model has 6 layers"),
        ({"pic__ladder": ["16@1", "384@5"]}, "must end at 384@6"),
        ({"pic__ladder": ["16@1", "256@6"]}, "must end at 384@6"),
        ({"pic__ladder": ["17@1", "384@6"]}, "17@1, not among objective.dims"),
        ({"sia__ratios": [0.5]}, "1 values, objective.dims has 5 truncated"),
        ({"sia__layers_per_step": 7}, "layers_per_step is 7, sia.layers has 6"),
        ({"pic__links_per_step": 6}, "the ladder has 5 links"),
    ],
)
def test_resolve_refuses(values, message):
    with pytest.raises(UserError, match=message):
        resolve(changed(**values), width=384, n_layers=6)


def test_sia_layers_default_to_the_given_ladder():
    out = resolve(changed(pic__ladder=["16@2", "384@6"]), width=384, n_layers=6)
    assert out.sia.layers == [2, 6]


def test_a_model_too_small_for_mipic_says_what_to_do():
    with pytest.raises(UserError, match="give --objective.dims 4,8 or --objective.name simcse"):
        resolve(Config(), width=8, n_layers=2)
    with pytest.raises(UserError, match="--pic.enabled false"):
        resolve(Config(), width=32, n_layers=1)
    out = resolve(changed(pic__enabled=False), width=32, n_layers=1)
    assert out.pic.ladder == ["32@1"] and out.sia.layers == [1]


def test_simcse_trains_the_full_width_and_keeps_the_dims_for_evaluation():
    out = resolve(changed(objective__name="simcse"), width=384, n_layers=6)
    assert trained_dims(out) == [384]
    assert out.objective.dims == [16, 32, 64, 128, 256, 384]
    for name in ("mrl", "mipic"):
        out = resolve(changed(objective__name=name), width=384, n_layers=6)
        assert trained_dims(out) == out.objective.dims


# ----------------------------------------------------------------------------- flags over a recipe

QWEN = ["--recipe", "qwen3-0.6b"]


def test_new_dims_by_flag_drop_what_only_the_recipe_said():
    config = load_config([*QWEN, "--objective.dims", "8,16,32"])
    assert config.sia.ratios is None and config.pic.ladder is None
    out = resolve(config, width=32, n_layers=2)
    assert out.objective.dims == [8, 16, 32]
    assert out.pic.ladder == ["8@1", "32@2"]
    assert out.sia.layers == [1, 2]
    assert out.sia.ratios == [0.2, 0.7]
    notes = " | ".join(out.notes)
    for key in ("sia.ratios", "sia.layers", "pic.ladder"):
        assert notes.count(key) == 1, notes


def test_the_issues_example():
    out = resolve(
        load_config(
            [*QWEN, "--model.name", "tiny", "--objective.dims", "8,16,32", "--sia.layers", "1,2",
             "--pic.ladder", "8@1,32@2"]
        ),
        width=32,
        n_layers=2,
    )  # fmt: skip
    assert out.sia.layers == [1, 2] and out.pic.ladder == ["8@1", "32@2"]
    assert out.sia.ratios == [0.2, 0.7]
    assert len(out.notes) == 1 and "sia.ratios" in out.notes[0]


def test_dims_none_derives_all_from_the_model():
    out = resolve(load_config(["--objective.dims", "none"]), width=768, n_layers=12)
    assert out.objective.dims == derive_dims(768)
    assert out.pic.ladder is not None and out.pic.ladder[-1] == "768@12"
    assert any("pic.ladder" in note for note in out.notes)
    # sia.layers of the recipe (1 to 6) fit and stay
    assert out.sia.layers == [1, 2, 3, 4, 5, 6]


def test_what_a_flag_said_is_never_dropped():
    with pytest.raises(UserError, match="give as many, or --sia.ratios none"):
        load_config([*QWEN, "--objective.dims", "8,16,32", "--sia.ratios", ".2,.3,.4"])
    with pytest.raises(UserError, match="8@1, not among.*--pic.ladder none"):
        load_config([*QWEN, "--objective.dims", "16,1024", "--pic.ladder", "8@1,1024@28"])
    config = load_config([*QWEN, "--objective.dims", "16,32", "--sia.layers", "1,5"])
    with pytest.raises(UserError, match="sia.layers has 5, the model has 2 layers"):
        resolve(config, width=32, n_layers=2)


def test_without_new_dims_a_recipe_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match="full width 384.*--objective.dims none"):
        resolve(load_config(QWEN), width=384, n_layers=6)
    with pytest.raises(UserError, match="pic.ladder has 128@16, the model has 12 layers"):
        resolve(load_config(QWEN), width=1024, n_layers=12)


def test_a_recipe_for_another_model_gives_none_of_its_shapes():
    config = load_config([*QWEN, "--model.name", "other", "--model.view_noise", "0.2"])
    (note,) = config.notes
    assert note.startswith("recipe qwen3-0.6b is for Qwen/Qwen3-Embedding-0.6B; for other ")
    for key in ("objective.dims", "sia.layers", "sia.ratios", "pic.ladder", "model.pooling",
                "model.append_eos", "model.padding_side", "data.max_length"):  # fmt: skip
        assert key in note and key not in config.origins
        assert flatten(config)[key] == OPTIONS[key].field.default
    assert config.model.view_noise == 0.2 and "view_noise" not in note  # a flag's
    assert config.train.batch_size == 16 and config.train.precision == "bf16"  # for any model
    out = resolve(config, width=384, n_layers=6, max_positions=256)
    assert out.objective.dims == derive_dims(384) and out.pic.ladder is not None
    assert out.pic.ladder[-1] == "384@6" and out.data.max_length == 256


def test_a_recipe_keeps_its_shapes_for_its_own_model(tmp_path):
    same = load_config([*QWEN, "--model.name", "Qwen/Qwen3-Embedding-0.6B"])
    assert same == load_config(QWEN) and same.notes == ()
    moved = load_config([*QWEN, "--model.name", "elsewhere"], keep_recipe=True)
    assert moved == load_config(QWEN).replace(**{"model.name": "elsewhere"}) and moved.notes == ()
    path = tmp_path / "any.yaml"  # for whatever model is given
    path.write_text("objective: {dims: [8, 32]}\n")
    config = load_config(["--recipe", str(path), "--model.name", "other"])
    assert config.objective.dims == [8, 32] and config.notes == ()


def test_defaults_follow_the_case(tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text("")

    def case(*flags: str, **known):
        config = load_config(["--recipe", str(path), *flags])
        return resolve(config, width=384, n_layers=6, **known)

    assert case().train.learning_rate == 2e-4 and case().train.head_learning_rate == 4e-4
    assert case("--lora.rank", "0").train.learning_rate == 2e-5
    gpu, cpu = case(bf16=True), case(bf16=False)
    assert (gpu.train.precision, gpu.export.tolerance) == ("bf16", 2e-2)
    assert (cpu.train.precision, cpu.export.tolerance) == ("fp32", 1e-5)
    assert case("--train.precision", "bf16", bf16=False).train.precision == "bf16"
    assert [case(max_positions=n).data.max_length for n in (128, 8192)] == [128, 512]
    assert case("--data.max_length", "700", max_positions=8192).data.max_length == 700
    for key in ("train.learning_rate", "train.precision", "data.max_length", "sia.ratios"):
        assert case(bf16=True, max_positions=9).origins[key] == "derived"


@pytest.mark.parametrize(
    "key, kept, lost",
    [
        ("sia.k_from", "real", "padded"),
        ("sia.detach_query", "false", "true"),
        ("sia.similarity", "dot", "cosine"),
        ("objective.decorrelation", "0.0", "0.1"),
        ("objective.neighbourhood", "0", "1"),
    ],
)
def test_options_that_are_gone(tmp_path, key, kept, lost):
    section, name = key.split(".")
    path = tmp_path / "old.yaml"
    for value in (kept, "null"):
        path.write_text(f"{section}:\n  {name}: {value}\n")
        assert load_config(["--recipe", str(path)]) == Config()
    assert load_config([f"--{key}", kept]) == load_config([f"--{key}=none"]) == load_config([])
    path.write_text(f"seed: 1\n{section}:\n  {name}: {lost}\n")
    with pytest.raises(UserError, match=rf"old.yaml:3: the option {key} is gone.*{lost}"):
        load_config(["--recipe", str(path)])
    with pytest.raises(UserError, match=f"--{key}: the option {key} is gone.*{lost}"):
        load_config([f"--{key}", lost])


@pytest.mark.parametrize("word, value", [("true", "true"), ("false", "false"), ("auto", "auto")])
def test_yaml_booleans_among_words(tmp_path, word, value):
    """YAML reads true as a boolean; older runs wrote `liger: false`."""
    path = tmp_path / "r.yaml"
    path.write_text(f"model:\n  liger: {word}\ntrain:\n  selfcheck: {word}\n")
    config = load_config(["--recipe", str(path)])
    assert (config.model.liger, config.train.selfcheck) == (value, value)
    assert dump(config).count(f"liger: '{word}'" if word != "auto" else "liger: auto") == 1


def test_a_configuration_is_frozen():
    config = load_config(["--sia.memory", "5"])
    for section, name in ((config, "seed"), (config.sia, "memory")):
        with pytest.raises(ValueError, match="frozen"):
            setattr(section, name, 3)
    new = config.replace(**{"sia.memory": 3, "seed": 7})
    assert (new.sia.memory, new.seed, config.sia.memory, config.seed) == (3, 7, 5, 42)
    assert new.origins["sia.memory"] == new.origins["seed"] == "derived"
    assert config.origins["sia.memory"] == "flag" and new.origins["model.name"] == "recipe"
    with pytest.raises(UserError, match="unknown option sia.memry; did you mean sia.memory"):
        config.replace(**{"sia.memry": 3})
    with pytest.raises(UserError, match="sia.memory is -1; it must be 0 or more"):
        config.replace(**{"sia.memory": -1})


def test_settings_of_a_notebook_count_as_flags(tmp_path):
    values = {"train.batch_size": 8, "lora_r": 4, "objective.dims": (16, 384), "bf16": True,
              "output_dir": tmp_path, "report_to": "none"}  # fmt: skip
    flags = ["--train.batch_size", "8", "--lora_r", "4", "--objective.dims", "16,384", "--bf16",
             "--output_dir", str(tmp_path), "--report_to", "none"]  # fmt: skip
    config = from_settings(values, recipe="qwen3-0.6b")
    assert config == load_config([*QWEN, *flags])
    assert config.origins["lora.rank"] == "flag"
    for values, message in (
        ({"train.batchsize": 8}, "unknown setting train.batchsize; did you mean train.batch_size"),
        ({"seed": "x"}, "seed must be a whole number, got 'x'"),
        ({"seed": 2**70}, "seed must be a whole number"),
    ):
        with pytest.raises(UserError, match=message):
            from_settings(values)


def test_dims_of_a_flag_that_agree_with_the_recipe_change_nothing():
    config = load_config([*QWEN, "--objective.dims", "16,32,64,128,256,512,1024"])
    assert resolve(config, width=1024, n_layers=28).notes == ()


# ----------------------------------------------------------------------------------------- recipes

# METHOD.md 4, literally: backbone, true width and layers, alpha, SIA layers, ladder.
PAPER = {
    "tinybert": (
        "huawei-noah/TinyBERT_General_6L_768D", 768, 6, 0.4,
        "1 2 3 4 5 6", "16@1 32@2 64@3 256@4 512@5 768@6",
    ),
    "bert": (
        "google-bert/bert-base-uncased", 768, 12, 0.4,
        "2 4 6 8 9 10 12", "16@2 32@4 64@6 128@8 256@9 512@10 768@12",
    ),
    "bge-m3": (
        "BAAI/bge-m3", 1024, 24, 0.5,
        "1 4 7 11 15 19 24", "16@1 32@4 64@7 128@11 256@15 512@19 1024@24",
    ),
    "qwen3-0.6b": (
        "Qwen/Qwen3-Embedding-0.6B", 1024, 28, 0.5,
        "2 6 12 16 20 24 28", "16@2 32@6 64@12 128@16 256@20 512@24 1024@28",
    ),
}  # fmt: skip


@pytest.mark.parametrize("recipe", PAPER)
def test_the_papers_recipes(recipe):
    name, width, n_layers, alpha, layers, ladder = PAPER[recipe]
    config = load_config(["--recipe", recipe])
    out = resolve(config, width=width, n_layers=n_layers)
    assert out.notes == ()
    assert out.model.name == name and out.model.revision is None
    assert out.objective.alpha == alpha
    assert out.objective.dims == [16, 32, 64, 128, 256, 512, width]
    assert out.sia.layers == [int(layer) for layer in layers.split()]
    assert out.sia.ratios == [0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert out.pic.ladder == ladder.split()
    assert out.objective.tau == 0.05 and out.objective.name == "mipic"
    t = out.train
    assert (t.epochs, t.batch_size, t.learning_rate, t.head_learning_rate) == (5, 16, 2e-5, 4e-5)
    assert (t.weight_decay, t.warmup_ratio, t.max_grad_norm) == (0.01, 0.1, 1.0)
    assert t.min_learning_rate_ratio * t.learning_rate == pytest.approx(2e-6)
    assert out.data.max_length == 256 and t.precision == "bf16"
    assert out.objective.preset == "balanced" and out.objective.reduction == "mean"


@pytest.mark.parametrize("recipe, width", [("qwen3-4b", 2560), ("qwen3-8b", 4096)])
def test_larger_qwen_recipes_hold_what_the_rule_gives(recipe, width):
    config = load_config(["--recipe", recipe])
    out = resolve(config, width=width, n_layers=36)
    shaped = ("objective.dims", "sia.layers", "sia.ratios", "pic.ladder")
    free = config.replace(**dict.fromkeys(shaped))
    assert resolve(free, width=width, n_layers=36) == out
    assert out.model.name == f"Qwen/Qwen3-Embedding-{recipe[-2:].upper()}"
    assert out.train.gradient_checkpointing and out.train.precision == "bf16"
    assert out.pic.ladder is not None and out.pic.ladder[-2:] == ["2048@32", f"{width}@36"]


def test_readouts_and_lora_of_the_recipes():
    for recipe in ("qwen3-0.6b", "qwen3-4b", "qwen3-8b"):
        c = load_config(["--recipe", recipe])
        assert (c.model.pooling, c.model.append_eos) == ("last", "<|endoftext|>")
        assert (c.model.padding_side, c.model.view_noise) == ("left", 0.1)
        assert c.data.query_prompt is None and c.lora.rank == 16
    ranks = {"tinybert": 0, "bert": 0, "bge-m3": 16}
    for recipe, rank in ranks.items():
        c = load_config(["--recipe", recipe])
        assert c.model.pooling == "cls" and c.lora.rank == rank


def test_quickstart():
    out = resolve(load_config([]), width=384, n_layers=6)
    assert out.model.name == "quickstart" and out.recipe == "quickstart"
    assert out.objective.dims == [16, 32, 64, 128, 256, 384]
    assert out.sia.layers == [1, 2, 3, 4, 5, 6]
    assert out.pic.ladder == ["16@1", "32@2", "64@3", "128@4", "256@5", "384@6"]
    assert out.objective.preset == "balanced" and out.train.precision == "fp32"
    assert out.data.train == ["demo"] and out.output_dir == "outputs/quickstart"
    assert out.lora.rank > 0 and out.lora.target_modules == ["all-linear"]
    assert out.notes == ()


def test_every_option_is_documented():
    for key, option in OPTIONS.items():
        assert len(option.field.description or "") > 10, key


def test_flags_that_change_nothing_are_told(tmp_path) -> None:
    def lines(*flags: str) -> list[str]:
        return idle_flags(load_config(["--data.train", "demo", *flags]))

    mrl = ("--objective.name", "mrl")
    asked = ("--sia.sentences", "2", "--pic.ladder", "64@3", "--teacher.relation", "5")
    assert lines(*mrl, *asked) == [
        "--sia.sentences changes nothing here: it is an option which objective.name mrl does not "
        "read",
        "--teacher.relation changes nothing here, for there is no teacher (--teacher.name)",
    ]
    assert not lines("--sia.sentences", "2", "--pic.weight", "2", "--ds_config", "zero2")
    assert not lines(*mrl, "--teacher.name", "base", "--teacher.relation", "5", "--sia.memory", "9")
    assert lines("--mic.layers", "2") and lines(*mrl, "--sia.memory", "9")
    base = ("--teacher.name", "base")
    for idle, why, read in (  # one that nothing in this run reads, and what makes it count
        (["--objective.false_negative_rule", "relative"], "objective.false_negative_margin is none",
         ["--objective.false_negative_margin", "0.1"]),
        ([*base, "--teacher.vector_loss", "l2"], "teacher.vector is 0.0",
         ["--teacher.vector", "1"]),
        (["--eval.points", "64@3"], "eval.every is 0", ["--eval.every", "9"]),
        (["--pic.head", "mlp", "--pic.enabled", "false"], "pic.enabled is false",
         ["--pic.enabled", "true"]),
        (["--objective.name", "starbucks", "--pic.weight", "9"], "starbucks does not read",
         ["--objective.name", "mipic"]),
        ([*mrl, *base, "--teacher.layers", "ladder", "--pic.weight", "9"], "mrl does not read",
         ["--objective.name", "mipic"]),
        (["--objective.name", "2dmse", "--ese.k", "9"], "2dmse does not read",
         ["--objective.name", "ese"]),
        (["--objective.name", "simcse", "--objective.dims", "32,384", "--objective.dim_weights",
          "1,2"], "simcse does not read", [*mrl]),
    ):  # fmt: skip
        (line,) = lines(*idle)
        assert line.endswith(why), line
        assert not lines(*idle, *read), read
    assert not lines("--recipe", "anchored", *mrl)  # what a recipe says for others is no flag
    stages = tmp_path / "stages.yaml"
    stage = "{train: [demo], steps: 2, options: {objective.name: %s}}"
    stages.write_text(f"stages: [{stage % 'mrl'}, {stage % 'mipic'}]\n")
    run = ("--recipe", str(stages), *mrl)
    assert not idle_flags(load_config([*run, "--sia.sentences", "2"]))  # the second stage reads it
    assert len(idle_flags(load_config([*run, "--mic.layers", "2"]))) == 1
