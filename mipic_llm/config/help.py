"""--help, --print_config, and the YAML of a configuration."""

from __future__ import annotations

import shlex
import sys
import textwrap
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from mipic_llm.config.derive import preview
from mipic_llm.config.fields import Option, spelled
from mipic_llm.config.recipe import DEFAULT_RECIPE, to_yaml
from mipic_llm.config.schema import OPTIONS, Config, flatten
from mipic_llm.errors import masked

_ABOUT = (
    "Values are taken from, lowest first: the defaults in [brackets], the recipe, the flags. "
    "Lists: 16 32 64 or 16,32,64 (a path that holds a comma goes into a recipe). Nothing: none. A "
    "bare boolean flag means true. Of a flag given twice the last counts. --print_config prints "
    "every value and where it is from, as a recipe, and stops."
)
# What an unset value waits for, where `preview` cannot know it.
_LATER = dict.fromkeys(("objective.dims", "sia.layers", "sia.ratios", "pic.ladder", "ese.k",
                        "data.max_length"), "model") | dict.fromkeys(
    ("train.precision", "export.tolerance"), "device")  # fmt: skip


def dump(config: Config, *, origins: bool = False) -> str:
    """YAML of every value; `load_config(["--recipe", FILE])` reads it back as an equal Config, but
    for passwords in URIs, which are masked.

    origins: each line ends with a comment that says where its value is from.
    """
    lines, section = [f"# recipe: {config.recipe}"], ""
    for key, value in flatten(config).items():
        inside, _, name = key.rpartition(".")
        if key == "recipe":
            continue
        if inside != section:
            section = inside
            lines.append(f"{section}:")
        line = masked(f"{'  ' if section else ''}{to_yaml(name, value)}")
        lines.append(f"{line}  # {_origin(config, key, value)}" if origins else line)
    return "\n".join(lines) + "\n"


def command_of(config: Config, ranks: int = 1) -> str:
    """The command of a run, as the flags that were given say it; passwords are masked."""
    words = ["mipic", "train"]
    if ranks > 1:
        words = ["deepspeed", "--num_accelerators", str(ranks), "--module", "mipic_llm", "train"]
    if config.recipe != DEFAULT_RECIPE:
        words += ["--recipe", str(config.recipe)]
    for key, value in flatten(config).items():
        items = (value or [None]) if isinstance(value, list) else [value]
        if config.origins.get(key) == "flag":
            words += [f"--{key}", *map(spelled, items)]
    return masked(shlex.join(words))


def _origin(config: Config, key: str, value: Any) -> str:
    if value is None and key in _LATER:
        return f"derived from the {_LATER[key]} at the start"
    origin = config.origins.get(key, "default")
    named = {"preset": config.objective.preset, "recipe": config.recipe}
    return " ".join(f"{origin} {named.get(origin, '')}".split())


def shown(config: Config) -> str:
    """What --print_config prints."""
    found = preview(config)
    return dump(found, origins=True) + "".join(f"# note: {note}\n" for note in found.notes)


def help_text(
    own: Iterable[Option], aliases: dict[str, str], about: str, uses: Collection[str] | None,
    defaults: Mapping[str, str],
) -> str:  # fmt: skip
    """Every option with type, default, meaning and choices, by section, within 100 columns.

    uses: sections and keys of the training options that the command reads; None = all. defaults:
    the command's own, by key.
    """
    lines = [f"usage: {Path(sys.argv[0]).name or 'train.py'} [--recipe FILE] [--flag VALUE ...]"]
    lines += ["", about, "", *textwrap.wrap(_ABOUT, 100)]
    groups = {"this command": list(own)}
    for key, option in OPTIONS.items():
        section = key.rpartition(".")[0]
        if uses is None or key in uses or section in uses:
            groups.setdefault(section or "run", []).append(option)
    for title, group in groups.items():
        lines += ["", f"{title}:"] if group else []
        for option in group:
            lines += _entry(option, defaults.get(option.key))
    if uses is None:
        lines += ["", "also understood:", *(f"  --{a} = --{key}" for a, key in aliases.items())]
    else:
        lines += ["", "The other flags of a training change nothing here, and a line says so."]
    return "\n".join(lines) + "\n"


def _entry(option: Option, own: str | None = None) -> list[str]:
    scalar, many, _, choices = option.kind
    words = {str: "TEXT", int: "INT", float: "NUM", bool: "true|false"}
    kind = "|".join(choices) or words.get(scalar, "JSON")
    default = option.field.get_default(call_default_factory=True)
    shown = ",".join(map(str, default)) or "empty" if isinstance(default, list) else str(default)
    shown = shown.lower() if default is None or isinstance(default, bool) else shown
    text = f"{option.field.description} [{own or shown}]"
    if len(kind) > 24:
        kind, text = "CHOICE", f"{text} ({', '.join(choices)})"
    wrapped = textwrap.wrap(text, 92, break_on_hyphens=False)
    name = f"  --{option.key} {kind}{' ...' if many else ''}"
    return [name, *(f"        {line}" for line in wrapped)]
