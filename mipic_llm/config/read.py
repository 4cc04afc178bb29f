"""The command line, and the settings of a notebook: defaults < recipe YAML < flags, strictly."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from mipic_llm import launched
from mipic_llm.config.check import validate
from mipic_llm.config.derive import SHAPED, reconcile
from mipic_llm.config.elsewhere import ELSEWHERE
from mipic_llm.config.fields import Option, Row, Section, nearest, options, plain
from mipic_llm.config.files import find_file, not_found
from mipic_llm.config.help import help_text, shown
from mipic_llm.config.recipe import DEFAULT_RECIPE, read_rows
from mipic_llm.config.schema import OPTIONS, SECTIONS, Config
from mipic_llm.errors import EXIT_DONE, UserError

TRUST = "model.trust_remote_code"  # only a flag turns it on: recipes may be a stranger's
# Names that people type already, where they mean exactly one of ours.
ALIASES = {
    "deepspeed": "ds_config", "model_name_or_path": "model.name",
    "attn_implementation": "model.attn", "lora_r": "lora.rank", "lora_alpha": "lora.alpha",
    "target_modules": "lora.target_modules", "matryoshka_dims": "objective.dims",
    "temperature": "objective.tau", "num_train_epochs": "train.epochs",
    "per_device_train_batch_size": "train.batch_size", "learning_rate": "train.learning_rate",
    "warmup_ratio": "train.warmup_ratio", "max_grad_norm": "train.max_grad_norm",
    "gradient_checkpointing": "train.gradient_checkpointing", "bf16": "train.precision",
    "fp32": "train.precision", "resume_from_checkpoint": "train.resume",
    "report_to": "tracking.mlflow",
}  # fmt: skip
# The values of some of them need translation too: alias -> what was typed -> ours.
_VALUES = {
    "bf16": {"": "bf16", "true": "bf16", "false": "fp32"},
    "fp32": {"": "fp32", "true": "fp32", "false": "bf16"},
    "report_to": {"mlflow": "auto", "none": "off"},
    "resume_from_checkpoint": {"true": "auto", "false": "never"},
}
_CLOSED = ("bf16", "fp32", "report_to")  # no other value has a meaning
# Options that are gone, at the only value that is left of them: old recipes and runs name them.
RETIRED = {"sia.k_from": "real", "sia.detach_query": False, "sia.similarity": "dot",
           "objective.decorrelation": 0, "objective.neighbourhood": 0}  # fmt: skip


def read_flags(argv: list[str]) -> list[Row]:
    """Split an argument list into flags, each with the list of words that follow it. Raises
    UserError for words that belong to none."""
    flags: list[Row] = []
    for word in argv:
        if word in ("-h", "--help"):
            flags.append(Row("help", []))
        elif word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            name = name.replace("-", "_")
            flags.append(Row(name, [value] if equals else [], f"--{name}"))
        elif flags and flags[-1].key not in ("help", "print_config"):
            flags[-1].value.append(word)
        else:
            raise UserError(f"{word!r} belongs to no flag; values follow --section.field")
    return flags


def load_config(
    argv: list[str], *, extra: type[Section] | None = None, about: str = "",
    uses: Collection[str] | None = None, world_size: int | None = None, keep_recipe: bool = False,
    defaults: Mapping[str, str] | None = None,
) -> Config:  # fmt: skip
    """Read the command line `argv` (without the program's name) into a validated Config.

    extra: a Section with the command's own flags; its instance comes back as `config.extra`.
    about: first line of --help; uses: sections and keys that --help then names (None = all), though
    every flag of a training is accepted, and a line names those that are not read. world_size: see
    `validate`. keep_recipe: the recipe holds for the model of a --model.name flag too. defaults:
    by key, those that --help shows in place of a training's. --help and --print_config print
    (rank 0) and raise SystemExit(0). Raises UserError for everything else that is not a legal
    command line.
    """
    own = {o.key: o for o in options(extra)} if extra else {}
    flags = read_flags(argv)
    names = [flag.key for flag in flags]
    if "help" in names:
        _show(help_text(own.values(), ALIASES, about, uses, defaults or {}))
    given = [
        _row(flag, {**OPTIONS, **own})
        for flag in flags
        # --local_rank is the launchers' own; ranks come from the environment
        if flag.key != "print_config" and (flag.key != "local_rank" or len(flag.value) != 1)
    ]
    mine = extra.of(row for row in given if row.key in own) if extra else None
    given = [row for row in given if row.key not in own]
    config = _build(given, mine, world_size, keep_recipe)
    if "print_config" in names:
        _show(shown(config))
    if uses is not None and (idle := _unread(config, [*uses, "recipe"])):
        _say(f"note: {idle}: this command does not read it\n")
    return config


def _unread(config: Config, uses: Collection[str]) -> str:
    """Flags that were given and are in none of these sections and keys."""
    told = [key for key, origin in config.origins.items() if origin == "flag"]
    return ", ".join(f"--{key}" for key in told
                     if key not in uses and key.rpartition(".")[0] not in uses)  # fmt: skip


def from_settings(settings: Mapping[str, Any], *, recipe: str | None = None) -> Config:
    """A Config from {"train.batch_size": 8, ...}, by the flags' names, over a recipe (quickstart).

    The values count as flags. Raises UserError as `load_config` does.
    """
    rows = [Row("recipe", recipe)] if recipe else []
    for name, value in settings.items():
        key = ALIASES.get(name, name)
        if key not in OPTIONS and key not in RETIRED:
            near = nearest([str(name)], [*OPTIONS, *ALIASES])
            near = f"; here: {ELSEWHERE[name]}" if name in ELSEWHERE else near
            raise UserError(f"unknown setting {name}{near}")
        if name in _VALUES:
            (value,) = _translated(name, [str(value)])
        rows.append(Row(key, os.fspath(value) if isinstance(value, os.PathLike) else value))
    return _build(rows)


def read_record(path: Path) -> Config:
    """A run's config.yaml, as a record of what it did, on any number of ranks: what it says of
    trust is not refused, and must not be acted on. Raises UserError where it is no such file."""
    row = Row("recipe", str(path))
    return _build([row], world_size=2, keep_recipe=True, record=True)


def _build(
    given: Sequence[Row], extra: Section | None = None, world_size: int | None = None,
    keep_recipe: bool = False, record: bool = False,
) -> Config:  # fmt: skip
    """The recipe that `given` names (else quickstart), `given` over it, checked."""
    given = [row for row in given if not _is_retired(row)]
    recipe = Config.of(given).recipe or DEFAULT_RECIPE  # each value is legal by itself
    path, note = find_file("recipes", recipe), None
    if path is None:
        raise not_found("recipe", "recipes", recipe)
    rows = read_rows(path, SECTIONS)
    for row in rows:
        if row.key == "recipe":
            raise row.error("a recipe cannot name another recipe; remove the line")
        if row.key not in OPTIONS and row.key not in RETIRED:
            raise row.error(f"unknown key {row.key}{nearest([row.key], OPTIONS)}")
    rows = [row for row in rows if not _is_retired(row)]
    theirs = Config.of(rows).model
    if theirs.trust_remote_code and not record and all(row.key != TRUST for row in given):
        raise UserError(f"recipe {path}: {TRUST} is true, but only you can ask for the code that "
                        f"comes with a model: read it, then add --{TRUST} true")  # fmt: skip
    ours = theirs.name
    given = _with_base(rows, given)
    model = Config.of([*rows, *given]).model.name
    if model != ours and not keep_recipe and any(row.key == "model.name" for row in rows):
        told = [row.key for row in given]
        gone = [r.key for r in rows if r.key in SHAPED and r.value is not None]
        rows = [row for row in rows if row.key not in gone]
        names = ", ".join(key for key in gone if key not in told)
        note = names and f"recipe {recipe} is for {ours}; for {model} these are derived: {names}"
    given = [row for row in given if row.key != "recipe"]
    config = Config.of([*rows, *given, Row("recipe", recipe)])
    origins = {r.key: "recipe" for r in rows} | {r.key: "flag" for r in given}
    config = reconcile(config.told(config, origins=origins, note=note, extra=extra))
    validate(config, world_size)
    return config


def _with_base(rows: Sequence[Row], given: Sequence[Row]) -> list[Row]:
    """Where an adapter is asked for and no base beside it, the adapter itself names the base. rows:
    of the recipe, whose model is not the base of an adapter that a flag names."""
    adapter = Config.of([*rows, *given]).model.adapter
    beside = given if any(row.key == "model.adapter" for row in given) else [*rows, *given]
    if adapter is None or any(row.key == "model.name" for row in beside):
        return [*given]
    return [*given, Row("model.name", adapter)]


def _is_retired(row: Row) -> bool:
    """Whether the option is gone, and nothing lost. Raises UserError where something would be."""
    if row.key not in RETIRED:
        return False
    value = plain(row.value) if isinstance(row.value, str) else row.value
    if value not in (None, "none", RETIRED[row.key]):
        shown = str(value).lower()
        raise row.error(f"the option {row.key} is gone, and with it the value {shown}; remove it")
    return True


def _row(flag: Row, known: dict[str, Option]) -> Row:
    """The option that a flag means, and its value."""
    name, words, where = flag
    key = name if name in known else ALIASES.get(name, name)
    if key in RETIRED:
        return Row(key, " ".join(words), where)
    if key not in known:
        if name in ELSEWHERE:  # what another trainer calls it
            raise UserError(f"unknown flag --{name}; here: {ELSEWHERE[name]}")
        hint = nearest([name], [*known, *ALIASES]).replace("did you mean ", "did you mean --")
        hint = hint.replace(" or ", " or --")
        raise UserError(f"unknown flag {where[:80]}{hint} (--help lists all)")
    kind = known[key].kind
    if key != name and name in _VALUES:
        words = _translated(name, words, where)
    words = words or (["true"] if kind.scalar is bool else [])
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


def _say(text: str) -> None:
    if launched.first():
        print(text, end="", flush=True)


def _show(text: str) -> NoReturn:
    _say(text)
    raise SystemExit(EXIT_DONE)
