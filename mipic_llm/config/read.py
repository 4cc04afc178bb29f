"""The command line: defaults < recipe YAML < --section.field flags, read strictly.

`load_config` is all that a command needs.
"""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from mipic_llm.config.derive import reconcile
from mipic_llm.config.fields import Option, convert, nearest, options, split_list
from mipic_llm.config.files import find_file, not_found
from mipic_llm.config.recipe import read_rows, to_yaml
from mipic_llm.config.schema import SECTIONS, Config, validate
from mipic_llm.errors import EXIT_DONE, UserError

DEFAULT_RECIPE = "quickstart"
OPTIONS = {option.key: option for option in options(Config)}

# Names that people type already, where they mean exactly one of ours.
ALIASES = {
    "deepspeed": "ds_config",
    "model_name_or_path": "model.name",
    "attn_implementation": "model.attn",
    "lora_r": "lora.rank",
    "lora_alpha": "lora.alpha",
    "target_modules": "lora.target_modules",
    "matryoshka_dims": "objective.dims",
    "temperature": "objective.tau",
    "num_train_epochs": "train.epochs",
    "per_device_train_batch_size": "train.batch_size",
    "learning_rate": "train.learning_rate",
    "warmup_ratio": "train.warmup_ratio",
    "max_grad_norm": "train.max_grad_norm",
    "gradient_checkpointing": "train.gradient_checkpointing",
    "bf16": "train.precision",
    "fp32": "train.precision",
    "resume_from_checkpoint": "train.resume",
    "report_to": "tracking.mlflow",
}
# The values of some of them need translation too: alias -> what was typed -> ours.
_VALUES = {
    "bf16": {"": "bf16", "true": "bf16", "false": "fp32"},
    "fp32": {"": "fp32", "true": "fp32", "false": "bf16"},
    "report_to": {"mlflow": "auto", "none": "off"},
    "resume_from_checkpoint": {"true": "auto", "false": "never"},
}
_CLOSED = ("bf16", "fp32", "report_to")  # no other value has a meaning


class Flag(NamedTuple):
    """One --name with the words that follow it."""

    name: str
    words: list[str]


def read_flags(argv: list[str]) -> list[Flag]:
    """Split an argument list into flags. Raises UserError for words that belong to none."""
    flags: list[Flag] = []
    for word in argv:
        if word in ("-h", "--help"):
            flags.append(Flag("help", []))
        elif word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            flags.append(Flag(name.replace("-", "_"), [value] if equals else []))
        elif flags and flags[-1].name not in ("help", "print_config"):
            flags[-1].words.append(word)
        else:
            raise UserError(f"{word!r} belongs to no flag; values follow --section.field")
    return flags


def find_recipe(text: str) -> Path:
    """The file of --recipe: a path, or the bare name of a shipped recipe. Raises UserError."""
    path = find_file("recipes", text)
    if path is None:
        raise not_found("recipe", "recipes", text)
    return path


def load_config(
    argv: list[str], *, extra: type | None = None, about: str = "", world_size: int | None = None
) -> Config:
    """Read the command line `argv` (without the program's name) into a validated Config.

    extra: a dataclass of `opt` fields with the command's own flags; its instance comes back as
    `config.extra`. about: first line of --help. world_size: see `validate`. --help and
    --print_config print (rank 0) and raise SystemExit(0). Raises UserError for everything else that
    is not a legal command line.
    """
    own = {o.key: o for o in options(extra)} if extra else {}
    known = {**OPTIONS, **own}
    flags = read_flags(argv)
    if any(flag.name == "help" for flag in flags):
        _show(help_text(own, about))
    given: list[tuple[Option, Any]] = []
    for flag in flags:
        if flag.name == "local_rank" and len(flag.words) == 1:
            continue  # the launchers' own; ranks come from the environment
        if flag.name != "print_config":
            given.append(_flag_value(flag, known))

    config = Config()
    config.extra = extra() if extra else None
    config.recipe = DEFAULT_RECIPE
    for option, value in given:
        if option.key == "recipe":
            config.recipe = value or DEFAULT_RECIPE
    for row in read_rows(find_recipe(config.recipe), SECTIONS):
        if row.key == "recipe":
            raise UserError(f"{row.where}: a recipe cannot name another recipe; remove the line")
        if row.key not in OPTIONS:
            hint = nearest([row.key], OPTIONS)
            raise UserError(f"{row.where}: unknown key {row.key}{hint}")
        _set(config, row.key, convert(OPTIONS[row.key], row.value, row.where))
        config.origins[row.key] = "recipe"
    for option, value in given:
        if option.key in own:
            setattr(config.extra, option.key, value)
        elif option.key != "recipe":
            _set(config, option.key, value)
            config.origins[option.key] = "flag"
    reconcile(config)
    validate(config, world_size)
    if any(flag.name == "print_config" for flag in flags):
        _show(dump(config) + "".join(f"# note: {note}\n" for note in config.config_notes))
    return config


def _flag_value(flag: Flag, known: dict[str, Option]) -> tuple[Option, Any]:
    """The option that a flag means, and its value."""
    name, words, where = flag.name, flag.words, f"--{flag.name}"
    key = name if name in known else ALIASES.get(name, name)
    if key not in known:
        hint = nearest([name], [*known, *ALIASES]).replace("did you mean ", "did you mean --")
        raise UserError(f"unknown flag {where}{hint.replace(' or ', ' or --')} (--help lists all)")
    option = known[key]
    if key != name and name in _VALUES:
        table, word = _VALUES[name], " ".join(words)
        if name in _CLOSED and word.lower() not in table:
            legal = ", ".join(w for w in table if w)
            raise UserError(f"{where} must be one of: {legal}, got {word!r}")
        words = [table[word.lower()]] if word.lower() in table else words
    if option.kind is bool and not option.is_list and not words:
        words = ["true"]
    if not words:
        raise UserError(f"{where} needs a value: {option.expected}")
    if not option.is_list and len(words) > 1:
        raise UserError(f"{where} takes one value, got {len(words)}: {' '.join(words)}")
    if not option.is_list or len(words) == 1:
        return option, convert(option, words[0], where)
    items = [item for word in words for item in split_list(word, option)]
    return option, convert(option, items, where)


def _set(config: Config, key: str, value: Any) -> None:
    section, _, name = key.rpartition(".")
    setattr(getattr(config, section) if section else config, name, value)


def flatten(config: Config) -> dict[str, Any]:
    """Every option's value under its dotted key, in the order of --help."""
    out: dict[str, Any] = {}
    for key in OPTIONS:
        section, _, name = key.rpartition(".")
        out[key] = getattr(getattr(config, section) if section else config, name)
    return out


def dump(config: Config) -> str:
    """YAML of every value; `load_config(["--recipe", FILE])` reads it back as an equal Config."""
    tree: dict[str, Any] = {}
    for key, value in flatten(config).items():
        section, _, name = key.rpartition(".")
        if key != "recipe":
            (tree.setdefault(section, {}) if section else tree)[name] = value
    return f"# recipe: {config.recipe}\n{to_yaml(tree)}"


def help_text(own: dict[str, Option], about: str = "") -> str:
    """Every option with type, default, meaning and choices, by section, within 100 columns."""
    program = Path(sys.argv[0]).name or "train.py"
    lines = [f"usage: {program} [--recipe FILE] [--section.field VALUE ...]", ""]
    lines += [about, ""] if about else []
    text = (
        "Values are taken from, lowest first: the defaults in [brackets], the recipe, the flags. "
        "Lists: 16 32 64 or 16,32,64 (a path that holds a comma goes into a recipe). Nothing: "
        "none. A bare boolean flag means true. Of a flag given twice the last counts. "
        "--print_config prints the merged YAML and stops."
    )
    lines += textwrap.wrap(text, 100)
    groups: dict[str, list[Option]] = {"this command": list(own.values()), "run": []}
    for option in OPTIONS.values():
        groups.setdefault(option.key.rpartition(".")[0] or "run", []).append(option)
    for title, group in groups.items():
        lines += ["", f"{title}:"] if group else []
        for option in group:
            lines += _help_entry(option)
    names = [f"--{alias} = --{key}" for alias, key in ALIASES.items()]
    lines += ["", "also understood:", *(f"  {name}" for name in names)]
    return "\n".join(lines) + "\n"


def _help_entry(option: Option) -> list[str]:
    kind = {str: "TEXT", int: "INT", float: "NUM", bool: "true|false"}[option.kind]
    if option.choices:
        kind = "|".join(option.choices)
        kind = kind if len(kind) <= 24 else "CHOICE"
    kind += " ..." if option.is_list else ""
    default = option.default
    if default is None:
        shown = "none"
    elif isinstance(default, list):
        shown = ",".join(map(str, default)) or "empty"
    else:
        shown = str(default).lower() if isinstance(default, bool) else str(default)
    text = f"{option.help} [{shown}]"
    if kind == "CHOICE":
        text += f" ({', '.join(option.choices or ())})"
    wrapped = textwrap.wrap(text, 92, break_on_hyphens=False)
    return [f"  --{option.key} {kind}", *(f"        {line}" for line in wrapped)]


def _is_first_rank() -> bool:
    return os.environ.get("RANK", "0") in ("", "0")


def _show(text: str) -> NoReturn:
    if _is_first_rank():
        print(text, end="", flush=True)
    raise SystemExit(EXIT_DONE)
