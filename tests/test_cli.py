"""The command line: precedence, strictness, aliases, help, dump, exit codes."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import yaml

from mipic_llm.commands import compare, evaluate, export, train
from mipic_llm.commands.run import dispatch, run_main
from mipic_llm.config import Config, Section, dump, files, flatten, load_config, opt, resolve
from mipic_llm.config.elsewhere import ELSEWHERE
from mipic_llm.config.read import ALIASES, from_settings
from mipic_llm.config.schema import OPTIONS
from mipic_llm.errors import UserError


@pytest.fixture
def recipe(tmp_path):
    """Write text as a recipe and return the flags that name it."""

    def write(text: str) -> list[str]:
        path = tmp_path / "my.yaml"
        path.write_text(text, encoding="utf-8")
        return ["--recipe", str(path)]

    return write


def refused(argv: list[str]) -> str:
    with pytest.raises(UserError) as error:
        load_config(argv)
    assert "\n" not in str(error.value)
    return str(error.value)


# -------------------------------------------------------------------------------------- precedence


def test_defaults_then_recipe_then_flags(recipe):
    text = "seed: 1\ntrain:\n  epochs: 3\n  learning_rate: 2e-5\nlora:\n  rank: 4\n"
    flags = recipe(text)
    config = load_config([*flags, "--seed", "7", "--lora.rank=8"])
    assert (config.seed, config.train.epochs, config.lora.rank) == (7, 3, 8)
    assert config.train.batch_size == Config().train.batch_size  # untouched by both
    assert config.train.learning_rate == 2e-5 and isinstance(config.train.learning_rate, float)
    assert config.origins == {
        "seed": "flag",
        "train.epochs": "recipe",
        "train.learning_rate": "recipe",
        "lora.rank": "flag",
    }
    assert config.recipe == flags[1]


def test_a_flag_may_stand_before_the_recipe(recipe):
    assert load_config(["--seed", "7", *recipe("seed: 1")]).seed == 7


def test_no_recipe_means_quickstart():
    assert load_config([]) == load_config(["--recipe", "quickstart"])
    assert load_config([]).recipe == "quickstart"


def test_bare_names_find_the_recipes_from_anywhere(monkeypatch, tmp_path):
    by_path = load_config(["--recipe", str(files.shipped("recipes") / "qwen3-0.6b.yaml")])
    monkeypatch.chdir(tmp_path)
    for name in ("qwen3-0.6b", "qwen3-0.6b.yaml"):
        config = load_config(["--recipe", name])
        assert config == by_path and config.recipe == name


def test_unknown_recipe():
    message = refused(["--recipe", "qwen3-0.6"])
    assert "recipe qwen3-0.6 not found" in message and "did you mean qwen3-0.6b" in message
    assert "tinybert" in message
    assert "not found" in refused(["--recipe", "somewhere/bert.yaml"])


def test_a_wheel_has_the_recipes_inside(monkeypatch, tmp_path):
    (tmp_path / "mipic_llm" / "recipes").mkdir(parents=True)
    (tmp_path / "mipic_llm" / "recipes" / "quickstart.yaml").write_text("seed: 3")
    monkeypatch.setattr(files, "PACKAGE", tmp_path / "mipic_llm")
    assert load_config([]).seed == 3
    assert "one of: quickstart" in refused(["--recipe", "bert"])


# ------------------------------------------------------------------------------------------- flags


@pytest.mark.parametrize(
    "words", [["16", "32", "384"], ["16,32,384"], ["16,32", "384"], ["16 32 384"]]
)
def test_lists(words):
    config = load_config(["--objective.name", "mrl", "--objective.dims", *words])
    assert config.objective.dims == [16, 32, 384]


def test_lists_of_text():
    config = load_config(["--data.train", "a.jsonl=2", "my text.jsonl", "--data.validation=none"])
    assert config.data.train == ["a.jsonl=2", "my text.jsonl"] and config.data.validation == []
    assert load_config(["--lora.target_modules=query,value"]).lora.target_modules == [
        "query",
        "value",
    ]
    for words in (["8@1", "384@6"], ["8@1,384@6"], ["8@1 384@6"]):
        argv = ["--objective.dims", "8,384", "--pic.ladder", *words]
        out = resolve(load_config(argv), width=384, n_layers=6)
        assert out.pic.ladder == ["8@1", "384@6"]


@pytest.mark.parametrize(
    "words, value", [([], True), (["true"], True), (["False"], False), (["=false"], False)]
)
def test_bools(words, value):
    flag = "--export.merged"
    argv = [flag + words[0]] if words and words[0].startswith("=") else [flag, *words]
    assert load_config([*argv, "--seed", "1"]).export.merged is value


def test_none_numbers_and_texts():
    config = load_config(
        ["--sia.ratios", "none", "--train.head_learning_rate=None", "--model.append_eos", "none",
         "--train.learning_rate", "1", "--tracking.mlflow", "off", "--data.query_prompt=a=b, c: "]
    )  # fmt: skip
    assert config.sia.ratios is None and config.train.head_learning_rate is None
    assert config.model.append_eos == "none"  # a word of that option, which cannot be unset
    assert config.train.learning_rate == 1.0 and isinstance(config.train.learning_rate, float)
    assert config.tracking.mlflow == "off"
    assert config.data.query_prompt == "a=b, c: "


def test_hyphens_and_the_last_of_two():
    assert load_config(["--train.batch-size", "8"]).train.batch_size == 8
    assert load_config(["--seed", "1", "--seed", "2"]).seed == 2


@pytest.mark.parametrize("word", [["--local_rank", "1"], ["--local_rank=1"], ["--local-rank=1"]])
def test_local_rank_is_ignored(word):
    assert load_config([*word, "--seed", "3"]) == load_config(["--seed", "3", *word])
    assert "local_rank" not in load_config(word).origins


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--objective.alfa", "1"], "did you mean --objective.alpha"),
        (["--alpha", "1"], "did you mean --lora.alpha or --objective.alpha"),
        (["--batch_size", "1"], "--train.batch_size"),
        (["--train.lerning_rate", "1"], "--train.learning_rate"),
        (["--recipes", "bert"], "did you mean --recipe"),
        (["--deepsped", "x"], "did you mean --deepspeed"),
        (["--zzz"], "unknown flag --zzz (--help lists all)"),
        (["bert"], "'bert' belongs to no flag"),
        (
            ["--train.epochs", "two"],
            "--train.epochs: train.epochs must be a whole number, got 'two'",
        ),
        (["--train.epochs", "1.5"], "a whole number, got '1.5'"),
        (["--train.epochs", "true"], "a whole number, got 'true'"),
        (["--train.epochs"], "--train.epochs needs a value: a whole number"),
        (["--train.epochs", "1", "2"], "takes one value, got 2: 1 2"),
        (["--train.epochs", "none"], "a whole number, got 'none'"),
        (["--train.learning_rate", "fast"], "a number (or none), got 'fast'"),
        (["--train.learning_rate", "nan"], "a number (or none), got 'nan'"),
        (["--train.learning_rate", "-1"], "train.learning_rate is -1.0; it must be above 0"),
        (["--export.merged", "yes"], "true or false, got 'yes'"),
        (["--objective.dims", "16,x"], "a list of whole numbers (or none), got 'x'"),
        (["--objective.dims"], "needs a value"),
        (["--sia.ratios", "0.2,x"], "a list of numbers (or none), got 'x'"),
        (
            ["--objective.name", "mipc"],
            "one of: simcse, mrl, ese, 2dmse, 3dml, starbucks, mic, mipic, got 'mipc'; did you "
            "mean mipic",
        ),
        (["--sia.kl", "forward"], "one of: student_teacher, teacher_student (or none)"),
        (["--local_rank", "0", "stray"], "unknown flag --local_rank"),
        (["--print_config", "stray"], "'stray' belongs to no flag"),
        (["--objective.alpha", "1.5"], "objective.alpha is 1.5; it must be in [0, 1]"),
        (["--train.batch_size", "1"], "no negatives"),
    ],
)
def test_bad_flags(argv, message):
    assert message in refused(argv)


# ----------------------------------------------------------------------------------------- aliases


def test_aliases_point_to_options():
    assert set(ALIASES.values()) <= set(OPTIONS)
    assert not set(ALIASES) & set(OPTIONS)


@pytest.mark.parametrize(
    "argv, key, value",
    [
        (["--deepspeed", "a.json"], "ds_config", "a.json"),
        (["--model_name_or_path", "bert"], "model.name", "bert"),
        (["--output_dir", "out"], "output_dir", "out"),
        (["--num_train_epochs", "3"], "train.epochs", 3),
        (["--per_device_train_batch_size", "8"], "train.batch_size", 8),
        (["--learning_rate", "1e-4"], "train.learning_rate", 1e-4),
        (["--warmup_ratio", "0.2"], "train.warmup_ratio", 0.2),
        (["--max_grad_norm", "0"], "train.max_grad_norm", 0.0),
        (["--gradient_checkpointing"], "train.gradient_checkpointing", True),
        (["--gradient_checkpointing", "false"], "train.gradient_checkpointing", False),
        (["--lora_r", "4"], "lora.rank", 4),
        (["--lora_alpha", "8"], "lora.alpha", 8.0),
        (["--target_modules", "query", "value"], "lora.target_modules", ["query", "value"]),
        (["--matryoshka_dims", "8", "384"], "objective.dims", [8, 384]),
        (["--temperature", "0.1"], "objective.tau", 0.1),
        (["--attn_implementation", "eager"], "model.attn", "eager"),
        (["--report_to", "mlflow"], "tracking.mlflow", "auto"),
        (["--report_to", "none"], "tracking.mlflow", "off"),
        (["--resume_from_checkpoint", "out/step-5"], "train.resume", "out/step-5"),
        (["--resume_from_checkpoint", "True"], "train.resume", "auto"),
        (["--bf16"], "train.precision", "bf16"),
        (["--bf16", "False"], "train.precision", "fp32"),
        (["--fp32"], "train.precision", "fp32"),
    ],
)
def test_aliases(argv, key, value):
    config = load_config(argv)
    assert flatten(config)[key] == value
    assert config.origins[key] == "flag"


def test_alias_values_without_a_meaning():
    assert "--report_to must be one of: mlflow, none, got 'wandb'" in refused(
        ["--report_to", "wandb"]
    )
    assert "--bf16 must be one of: true, false" in refused(["--bf16", "yes"])
    assert "--resume_from_checkpoint needs a value" in refused(["--resume_from_checkpoint"])


# -------------------------------------------------------------------------------------------- YAML


def test_yaml_as_people_expect_it(recipe):
    config = load_config(
        recipe(
            "# a comment\ntracking:\n  mlflow: off\n  run_name: '2024'\nmodel:\n  revision: v1.0\n"
            "train:\n  learning_rate: 2e-5\n  weight_decay: 0\n  head_learning_rate: none\n"
            "export:\nsia: {ratios: .2 .7, layers: [1, 2]}\n"
            "objective:\n  dims: 16 32 384\ndata:\n  train: mine.jsonl\n  validation: []\n"
        )
    )
    assert config.tracking.mlflow == "off" and config.tracking.run_name == "2024"
    assert config.model.revision == "v1.0"
    assert config.train.learning_rate == 2e-5
    assert config.train.weight_decay == 0.0 and isinstance(config.train.weight_decay, float)
    assert config.train.head_learning_rate is None
    assert config.sia.ratios == [0.2, 0.7] and config.sia.layers == [1, 2]
    assert config.objective.dims == [16, 32, 384]
    assert config.data.train == ["mine.jsonl"] and config.data.validation == []


def test_an_empty_recipe_is_the_defaults(recipe):
    assert load_config(recipe("")) == Config()
    assert load_config(recipe("# nothing\n")) == Config()


@pytest.mark.parametrize(
    "text, line, message",
    [
        (
            "seed: 1\nobjective:\n  alfa: 1\n",
            3,
            "unknown key objective.alfa; did you mean objective.alpha",
        ),
        ("seeds: 1", 1, "unknown key seeds; did you mean seed"),
        ("trian:\n  epochs: 1", 1, "unknown key trian"),
        ("epochs: 1", 1, "unknown key epochs; did you mean train.epochs"),
        ("recipe: bert", 1, "a recipe cannot name another recipe"),
        ("train:\n  epochs: two", 2, "train.epochs must be a whole number, got 'two'"),
        ("train:\n  epochs: 1.0", 2, "a whole number, got 1.0"),
        ("train:\n  epochs: true", 2, "a whole number, got True"),
        ("train:\n  epochs: null", 2, "a whole number, got none"),
        ("train:\n  learning_rate: true", 2, "a number (or none), got True"),
        ("train:\n  learning_rate: .inf", 2, "a number (or none), got inf"),
        ("train:\n  epochs: [1]", 2, "a whole number, got [1]"),
        ("export:\n  merged: yes", 2, "true or false, got 'yes'"),
        ("export:\n  merged: 1", 2, "true or false, got 1"),
        ("tracking:\n  run_name: 2024", 2, "text (or none), got 2024"),
        ("data:\n  validation: null", 2, "a list of texts, got none"),
        ("objective:\n  dims: [16, true]", 2, "got True"),
        ("objective:\n  dims: {a: 1}", 2, "a list of whole numbers"),
        ("objective:\n  name: foo", 2, "one of: simcse, mrl, ese, 2dmse, 3dml, starbucks, mic"),
        ("seed: 1\nseed: 2", 2, "seed is given twice (first on line 1); keep one"),
        ("train:\n  epochs: 1\n  epochs: 2", 3, "train.epochs is given twice"),
        ("train:\n  epochs: 1\nsia:\n  min_k: 4\ntrain:\n  epochs: 2", 5, "train is given twice"),
        ("train: 3", 1, "section train must be key: value lines"),
        ("- 1\n- 2", 1, "a recipe must be key: value lines"),
        ("seed: 1\nsia: [1, 2\nlora:\n", 3, "not valid YAML"),
        ("seed: 1\n\tlora: 1", 2, "not valid YAML"),
        ("seed: !!python/object:os.system 1", 1, "not valid YAML"),
        ("seed: 1\n---\nseed: 2", 2, "not valid YAML"),
        ("seed: !!int 1", 1, "the tag tag:yaml.org,2002:int is not allowed"),
        ("a: &a [x]\nb: [*a, *a]", 2, "an alias (*name) is not allowed"),
        ('seed: 1\ndata:\n  train: [a, "\\ud800.csv"]', 3, "half a unicode character"),
        ("seed: " + "9" * 5000, 1, "seed must be a whole number"),
        ("seed: 18446744073709551616", 1, "seed must be a whole number"),
        ("train:\n  learning_rate: 1" + "0" * 400, 2, "a number (or none), got inf"),
        ("train:\n  learning_rate: 1e400", 2, "a number (or none), got inf"),
    ],
)
def test_bad_yaml_names_file_and_line(recipe, text, line, message):
    flags = recipe(text)
    found = refused(flags)
    assert message in found
    assert found.startswith(f"{flags[1]}:{line}: ")


def test_unreadable_recipes(tmp_path):
    path = tmp_path / "b.yaml"
    path.write_text("a: " + "[" * 5000 + "]" * 5000)
    assert "nested too deeply" in refused(["--recipe", str(path)])
    path.write_text("#" + "x" * (1 << 20))
    assert "more than 1 MB" in refused(["--recipe", str(path)])
    for name in ("x" * 300, "a\0b", str(tmp_path), "/dev/zero"):
        assert "not found" in refused(["--recipe", name])
    path.write_bytes(b"\xff\xfe")
    assert "not UTF-8" in refused(["--recipe", str(path)])
    path.write_bytes(b"seed: \x01")
    assert "not valid YAML" in refused(["--recipe", str(path)])
    for text in ('train: ["\\U010010000"]', 'data: {train: ["\\UFFFFFFFF"]}'):
        path.write_text(text)
        assert "not valid YAML" in refused(["--recipe", str(path)])


# -------------------------------------------------------------------------------- dump and flatten


def everything_odd() -> Config:
    return Config(output_dir="out: #1", ds_config="off", seed=3).replace(**{
        "model.revision": "1e5",
        "model.append_eos": "<|endoftext|>",
        "data.train": ["true", "010", "~", "a, b", "x: y", "", "gl*b", "[1]", "=", "<<"],
        "data.query_prompt": "Instruct: find\nQuery:",
        "data.document_prompt": "caf\u00e9 \u4e2d ",
        "objective.dims": [16, 384],
        "objective.dim_weights": [0.1, 1e-7],
        "sia.ratios": [1 / 3],
        "sia.detach_teacher": False,
        "tracking.run_name": "2024-01-01",
        "tracking.mlflow": "off",
        "train.learning_rate": 2e-5,
    })  # fmt: skip


@pytest.mark.parametrize("make", [Config, everything_odd, lambda: load_config([])])
@pytest.mark.parametrize("resolved", [False, True])
def test_dump_reads_back_as_the_same(recipe, make, resolved):
    config = make()
    config = resolve(config, width=384, n_layers=6) if resolved else config
    back = load_config(recipe(dump(config)))
    assert flatten(back) | {"recipe": None} == flatten(config) | {"recipe": None}
    assert back == config
    assert dump(back).splitlines()[1:] == dump(config).splitlines()[1:]


@pytest.mark.parametrize(
    "path", sorted(files.shipped("recipes").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_recipe_survives_a_dump(recipe, path):
    config = load_config(["--recipe", str(path)])
    assert load_config(recipe(dump(config))) == config
    assert all(len(line) <= 100 and line.isascii() for line in path.read_text().splitlines())


def test_dump_is_plain_yaml_too():
    tree = yaml.safe_load(dump(load_config([])))
    assert tree["objective"]["dims"] == [16, 32, 64, 128, 256, 384]
    assert "notes" not in tree and "origins" not in tree and "recipe" not in tree


def test_flatten_has_every_option():
    flat = flatten(Config())
    assert list(flat) == list(OPTIONS)
    assert flat["train.log_every"] == 1 and flat["sia.layers"] is None
    assert not {"notes", "origins", "extra"} & set(flat)
    changed = Config().replace(**{"sia.layers": [1]})
    assert {k for k, v in flatten(changed).items() if v != flat[k]} == {"sia.layers"}


# ----------------------------------------------------------------------------------- help and print


class Extra(Section):
    tasks: list[str] = opt(["demo"], "task files to score")
    adapter: str | None = opt(None, "adapter directory")
    force: bool = opt(False, "write over what is there")


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as stop:
        load_config(["--train.epochs", "x", "--help"], extra=Extra, about="Score a model.")
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert all(len(line) <= 100 for line in out.splitlines())
    assert "Score a model." in out
    for key, option in OPTIONS.items():
        assert f"--{key} " in out
        for choice in option.kind.choices:
            assert choice in out
    for alias in ALIASES:
        assert f"--{alias} = " in out
    for text in (
        "--tasks TEXT ...",
        "[demo]",
        "[0.05]",
        "anchors per rank per optimizer step [32]",
    ):
        assert text in out


def test_help_of_a_command_shows_what_it_reads(capsys):
    with pytest.raises(SystemExit):
        load_config(["-h"], extra=Extra, uses=("model.name", "eval"))
    out = capsys.readouterr().out
    shown = {line.split()[0] for line in out.splitlines() if line.startswith("  --")}
    own = {"--tasks", "--adapter", "--force", "--model.name"}
    assert shown == own | {f"--{key}" for key in OPTIONS if key.startswith("eval.")}
    # A training's other flags are no error: old command lines hold them.
    config = load_config(["--train.epochs", "3"], extra=Extra, uses=("model.name",))
    assert config.train.epochs == 3


@pytest.mark.parametrize("command, place", [(evaluate, "evaluation"), (compare, "comparison")])
def test_help_shows_where_a_command_writes(capsys, command, place):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    assert f"everything the run leaves behind [outputs/{place}]" in capsys.readouterr().out


@pytest.mark.parametrize("command, argv, words", [
    (export, "--pca_text x.txt", "pca_text: it goes with --rotate or --lens"),
    (export, "--bytes 16 --pca_text x.txt", "pca_text: it goes with"),
    (export, "--public", "public: it goes with --push"),
    (evaluate, "--data demo --bits_text demo", "--bits_text: it goes with --bits 8 or 1"),
    (evaluate, "--data demo --bits 8 --centre", "--centre: it goes with --bits 1"),
])  # fmt: skip
def test_an_idle_flag_of_a_command_is_refused(command, argv, words):
    with pytest.raises(UserError, match=words):
        command.main(argv.split())


def test_help_imports_nothing_slow():
    code = (
        "import sys\n"
        "from mipic_llm.config import load_config\n"
        "try:\n    load_config(['--help'])\n"
        "except SystemExit:\n    print(sorted({'torch', 'numpy', 'transformers'} & {*sys.modules}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"


def test_help_and_print_config_only_from_the_first_rank(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for flag in ("-h", "--help", "--print_config"):
        with pytest.raises(SystemExit) as stop:
            load_config([flag])
        assert stop.value.code == 0
    assert capsys.readouterr().out == ""


def test_print_config_prints_what_reads_back(capsys, recipe):
    argv = ["--recipe", "qwen3-0.6b", "--seed", "5", "--objective.dims", "8,16,1024"]
    out = printed(capsys, argv)
    shape = {"width": 1024, "n_layers": 28}
    assert resolve(load_config(recipe(out)), **shape) == resolve(load_config(argv), **shape)
    assert "# note: sia.ratios" in out


def printed(capsys, argv: list[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        load_config([*argv, "--print_config"])
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_print_config_says_where_each_value_is_from(capsys):
    lines = printed(capsys, ["--train.epochs", "2", "--lora.rank", "0"]).splitlines()
    told = {line.split(":")[0].strip(): line for line in reversed(lines)}  # the first of a name
    for name, text in {
        "epochs": "epochs: 2  # flag",
        "dims": "dims: [16, 32, 64, 128, 256, 384]  # recipe quickstart",
        "ratios": "ratios: [0.2, 0.325, 0.45, 0.575, 0.7]  # derived",
        "lift_init": "lift_init: fixed  # preset balanced",
        "weight_decay": "weight_decay: 0.01  # default",
        "learning_rate": "learning_rate: 2.0e-05  # derived",
        "tolerance": "tolerance: 1.0e-05  # derived",
    }.items():
        assert told[name].strip() == text
    assert all("  # " in line for line in lines if not line.endswith(":") and line[0] != "#")


def test_print_config_reads_a_models_own_files(capsys, tmp_path):
    def derived(*more: str) -> list[str]:
        out = printed(capsys, ["--model.name", str(tmp_path), *more])
        return [x.strip() for x in out.splitlines() if "# derived" in x or "# note" in x]

    (tmp_path / "config.json").write_text(
        '{"hidden_size": 32, "num_hidden_layers": 4, "max_position_embeddings": 130}'
    )
    lines = derived()
    assert "dims: [16, 32]  # derived" in lines and "ladder: [16@2, 32@4]  # derived" in lines
    assert "max_length: 130  # derived" in lines
    assert lines[-1].startswith("# note: recipe quickstart is for quickstart; for ")
    assert "max_length: 64" not in " ".join(derived("--data.max_length", "64"))
    for text in ("{", "[]", '{"hidden_size": "x"}'):
        (tmp_path / "config.json").write_text(text)
        lines = derived()
        assert "dims: null  # derived from the model at the start" in lines
        assert "ladder: null  # derived from the model at the start" in lines


def test_extra_flags():
    config = load_config(["--tasks", "a", "b", "--force", "--seed", "1"], extra=Extra)
    assert config.extra == Extra(tasks=["a", "b"], adapter=None, force=True)
    assert load_config([], extra=Extra).extra == Extra()
    assert load_config([]).extra is None
    with pytest.raises(UserError, match="did you mean --tasks"):
        load_config(["--task", "a"], extra=Extra)
    assert "unknown flag --tasks" in refused(["--tasks", "a"])


# --------------------------------------------------------------------------------------- exit codes


@pytest.mark.parametrize("code, expected", [(None, 0), (0, 0), (75, 75)])
def test_run_main_passes_the_code_on(code, expected):
    with pytest.raises(SystemExit) as stop:
        run_main(lambda argv: code, [])
    assert stop.value.code == expected


@pytest.mark.parametrize(
    "rank, local, said",
    [(None, None, "error:"), ("0", "0", "error:"), ("1", "1", ""), ("8", "0", "error (rank 8):")],
)
def test_run_main_turns_a_user_error_into_one_line(rank, local, said, capsys, monkeypatch):
    """Before ranks are joined the first one of each machine speaks: files may differ there."""
    world = None if rank is None else "16"
    for name, value in (("RANK", rank), ("LOCAL_RANK", local), ("WORLD_SIZE", world)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)

    def main(argv):
        raise UserError(f"no\nsuch {argv[0]}")

    with pytest.raises(SystemExit) as stop:
        run_main(main, ["thing"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == (f"{said} no such thing\n" if said else "")


def test_a_place_that_cannot_be_written_is_one_line(capsys):
    for kind, place, what in (
        (OSError(28, "No space left on device"), "", "free some room"),
        (PermissionError(13, "Permission denied", "/x"), "/x: ", "check the path and its perm"),
    ):

        def main(argv, kind=kind):
            raise kind

        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            run_main(main, [])
        assert stopped.value.code == 2
        told = capsys.readouterr().err
        assert told.startswith(f"error: {place}{kind.strerror}; {what}")
        assert told.endswith(", or name another place (such as --output_dir)\n")
        assert told.count("\n") == 1
    with pytest.raises(FileNotFoundError):  # a bug of ours keeps its traceback
        run_main(lambda argv: open("/nowhere/at/all"), [])


def test_run_main_interrupt_and_bugs():
    def interrupt(argv):
        raise KeyboardInterrupt

    def bug(argv):
        raise ZeroDivisionError

    with pytest.raises(SystemExit) as stop:
        run_main(interrupt, [])
    assert stop.value.code == 130
    with pytest.raises(ZeroDivisionError):
        run_main(bug, [])


def test_the_first_word_names_the_command(monkeypatch, capsys):
    """Launchers put --local_rank in front; what comes after the name is the command's."""
    seen = []
    monkeypatch.setattr(train, "main", lambda argv: seen.append(argv))
    assert dispatch(["--local_rank=1", "train", "--seed", "3"]) is None
    assert seen == [["--seed", "3"]]
    assert dispatch([]) == 0
    assert "  train " in capsys.readouterr().out
    for argv, words in (
        (["trian"], "did you mean train?"),
        (["--seed", "3"], "give one of: train"),
    ):
        with pytest.raises(UserError, match=words):
            dispatch(argv)


def test_a_name_that_the_locale_cannot_read_is_refused_at_the_start(tmp_path):
    """Under LANG=C without Python's own help a run to such a directory ended in its export."""
    plain = {k: v for k, v in os.environ.items() if k not in ("LANG", "LC_ALL", "LC_CTYPE")}
    plain |= {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    for more, code, words in ((plain, 2, "'out/\\udcc3\\udcbc' has letters"), (
            plain | {"PYTHONUTF8": "1"}, 0, "output_dir: out/\u00fc")):  # fmt: skip
        run = subprocess.run(
            [sys.executable, "-m", "mipic_llm", "train", "--print_config", "--output_dir",
             "out/\u00fc"],
            capture_output=True, env=more, cwd=tmp_path,
        )  # fmt: skip
        assert run.returncode == code, run.stderr
        assert words in (run.stdout + run.stderr).decode()


@pytest.mark.parametrize("argv, found", [
    (["--point", "64@3"], (3, 64)), (["--point", "3x64"], (3, 64)),
    (["--layers", "3"], (3, None)), ([], (None, None)),
])  # fmt: skip
def test_a_point_of_an_export_is_a_layer_and_a_dim(argv, found):
    config = load_config(argv, extra=export.Flags)
    export.read_point(config)
    assert (config.extra.layers, config.extra.dim) == found


@pytest.mark.parametrize("argv, words", [
    (["--point", "64x3"], "is not dim@layer, such as 64@3"),
    (["--point", "64@3 64@4"], "is not dim@layer"),
    (["--point", "64@3", "--layers", "3"], "give --point, or --layers and --dim"),
])  # fmt: skip
def test_a_point_that_is_none(argv, words):
    with pytest.raises(UserError, match=words):
        export.read_point(load_config(argv, extra=export.Flags))


def test_as_a_process():
    code = (
        "from mipic_llm.commands.run import run_main\n"
        "from mipic_llm.config.read import load_config\n"
        "run_main(lambda a: print(load_config(a)))"
    )
    env = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")}
    run = subprocess.run(
        [sys.executable, "-c", code, "--objective.alfa", "1"],
        capture_output=True,
        text=True,
        env=env,
        cwd=files.PACKAGE,
    )
    assert run.returncode == 2 and run.stdout == ""
    assert run.stderr.count("\n") == 1 and run.stderr.startswith("error: unknown flag --objective")


def test_a_reader_that_goes_away_is_no_traceback():
    """`mipic plan | head -1`: the rest of the output has nowhere to go."""
    command = [sys.executable, "-m", "mipic_llm", "plan", "--sweep"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    run.stdout.close()
    _, complaints = run.communicate(timeout=60)
    assert (run.returncode, complaints) == (141, "")


def test_flags_of_other_trainers_are_told_what_they_are_here():
    """Every advice names options that there are; none hides an option or an alias of ours."""
    for name, advice in ELSEWHERE.items():
        assert name not in OPTIONS and name not in ALIASES
        flags = re.findall(r"--([a-z_.]+)", advice)
        assert set(flags) <= {*OPTIONS, "push"}, advice
        assert flags or "leave it out" in advice or "join them" in advice
        with pytest.raises(UserError) as caught:
            load_config([f"--{name}", "1"])
        assert str(caught.value) == f"unknown flag --{name}; here: {advice}"
    with pytest.raises(UserError, match="unknown setting warmup_steps; here: give --train.sched"):
        from_settings({"warmup_steps": 10})
