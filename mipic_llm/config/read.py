"""The command line and the settings of a notebook: defaults < recipe YAML < flags, strictly.

`load_config` is all that a command needs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from mipic_llm.config.check import validate
from mipic_llm.config.derive import reconcile
from mipic_llm.config.fields import Option, Row, Section, nearest, options
from mipic_llm.config.files import find_file, not_found
from mipic_llm.config.help import dump, help_text
from mipic_llm.config.recipe import read_rows
from mipic_llm.config.schema import OPTIONS, SECTIONS, Config
from mipic_llm.errors import EXIT_DONE, UserError

DEFAULT_RECIPE = "quickstart"

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
    argv: list[str],
    *,
    extra: type[Section] | None = None,
    about: str = "",
    world_size: int | None = None,
) -> Config:
    """Read the command line `argv` (without the program's name) into a validated Config.

    extra: a Section with the command's own flags; its instance comes back as `config.extra`.
    about: first line of --help. world_size: see `validate`. --help and --print_config print
    (rank 0) and raise SystemExit(0). Raises UserError for everything else that is not a legal
    command line.
    """
    own = {o.key: o for o in options(extra)} if extra else {}
    flags = read_flags(argv)
    names = {flag.name for flag in flags}
    if "help" in names:
        _show(help_text(own.values(), ALIASES, about))
    given = []
    for flag in flags:
        if flag.name == "local_rank" and len(flag.words) == 1:
            continue  # the launchers' own; ranks come from the environment
        if flag.name != "print_config":
            given.append(_row(flag, {**OPTIONS, **own}))
    mine = extra.of(row for row in given if row.key in own) if extra else None
    config = _build([row for row in given if row.key not in own], mine, world_size)
    if "print_config" in names:
        _show(dump(config) + "".join(f"# note: {note}\n" for note in config.notes))
    return config


def from_settings(settings: Mapping[str, Any], *, recipe: str | None = None) -> Config:
    """A Config from {"train.batch_size": 8, ...}, by the flags' names, over a recipe (quickstart).

    The values count as flags. Raises UserError as `load_config` does.
    """
    rows = [Row("recipe", recipe)] if recipe else []
    for name, value in settings.items():
        key = ALIASES.get(name, name)
        if key not in OPTIONS:
            raise UserError(f"unknown setting {name}{nearest([str(name)], [*OPTIONS, *ALIASES])}")
        if name in _VALUES:
            (value,) = _translated(name, [str(value)])
        rows.append(Row(key, os.fspath(value) if isinstance(value, os.PathLike) else value))
    return _build(rows)


def _build(given: list[Row], extra: Section | None = None, world_size: int | None = None) -> Config:
    """The recipe that `given` names (else quickstart), `given` over it, checked."""
    flags = Config.of(given)  # each value is legal by itself
    recipe = flags.recipe or DEFAULT_RECIPE
    rows = []
    for row in read_rows(find_recipe(recipe), SECTIONS):
        if row.key == "recipe":
            raise UserError(f"{row.where}: a recipe cannot name another recipe; remove the line")
        if row.key not in OPTIONS:
            raise UserError(f"{row.where}: unknown key {row.key}{nearest([row.key], OPTIONS)}")
        rows.append(row)
    Config.of(rows)
    given = [row for row in given if row.key != "recipe"]
    config = Config.of([*rows, *given, Row("recipe", recipe)])
    origins = dict.fromkeys((r.key for r in rows), "recipe") | dict.fromkeys(
        (r.key for r in given), "flag"
    )
    config = reconcile(config.told(config, origins=origins, extra=extra))
    validate(config, world_size)
    return config


def _row(flag: Flag, known: dict[str, Option]) -> Row:
    """The option that a flag means, and its value."""
    name, words, where = flag.name, flag.words, f"--{flag.name}"
    key = name if name in known else ALIASES.get(name, name)
    if key not in known:
        hint = nearest([name[:80]], [*known, *ALIASES]).replace("did you mean ", "did you mean --")
        hint = hint.replace(" or ", " or --")
        raise UserError(f"unknown flag {where[:80]}{hint} (--help lists all)")
    kind = known[key].kind
    if key != name and name in _VALUES:
        words = _translated(name, words, where)
    if kind.scalar is bool and not words:
        words = ["true"]
    if not words:
        raise UserError(f"{where} needs a value: {kind.expected}")
    if not kind.many and len(words) > 1:
        raise UserError(f"{where} takes one value, got {len(words)}: {' '.join(words)}")
    one = len(words) == 1
    return Row(key, words[0] if one else [i for w in words for i in kind.split(w)], where)


def _translated(name: str, words: list[str], where: str = "") -> list[str]:
    """The words of an alias as those of its option. Raises UserError for one without a meaning."""
    table, word = _VALUES[name], " ".join(words)
    if name in _CLOSED and word.lower() not in table:
        legal = ", ".join(w for w in table if w)
        raise UserError(f"{where or name} must be one of: {legal}, got {word!r}")
    return [table[word.lower()]] if word.lower() in table else words


def _is_first_rank() -> bool:
    return os.environ.get("RANK", "0") in ("", "0")


def _show(text: str) -> NoReturn:
    if _is_first_rank():
        print(text, end="", flush=True)
    raise SystemExit(EXIT_DONE)
