"""--help, --print_config, and the YAML of a configuration."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mipic_llm.config.fields import Option
from mipic_llm.config.recipe import to_yaml
from mipic_llm.config.schema import OPTIONS, Config, flatten

_ABOUT = (
    "Values are taken from, lowest first: the defaults in [brackets], the recipe, the flags. "
    "Lists: 16 32 64 or 16,32,64 (a path that holds a comma goes into a recipe). Nothing: none. A "
    "bare boolean flag means true. Of a flag given twice the last counts. --print_config prints "
    "the merged YAML and stops."
)


def dump(config: Config) -> str:
    """YAML of every value; `load_config(["--recipe", FILE])` reads it back as an equal Config."""
    tree: dict[str, Any] = {}
    for key, value in flatten(config).items():
        section, _, name = key.rpartition(".")
        if key != "recipe":
            (tree.setdefault(section, {}) if section else tree)[name] = value
    return "\n".join([f"# recipe: {config.recipe}", *to_yaml(tree)]) + "\n"


def help_text(own: Iterable[Option], aliases: dict[str, str], about: str = "") -> str:
    """Every option with type, default, meaning and choices, by section, within 100 columns."""
    program = Path(sys.argv[0]).name or "train.py"
    lines = [f"usage: {program} [--recipe FILE] [--section.field VALUE ...]", ""]
    lines += [about, ""] if about else []
    lines += textwrap.wrap(_ABOUT, 100)
    groups: dict[str, list[Option]] = {"this command": list(own), "run": []}
    for option in OPTIONS.values():
        groups.setdefault(option.key.rpartition(".")[0] or "run", []).append(option)
    for title, group in groups.items():
        lines += ["", f"{title}:"] if group else []
        for option in group:
            lines += _entry(option)
    lines += ["", "also understood:", *(f"  --{a} = --{key}" for a, key in aliases.items())]
    return "\n".join(lines) + "\n"


def _entry(option: Option) -> list[str]:
    scalar, many, _, choices = option.kind
    kind = "|".join(choices) or {str: "TEXT", int: "INT", float: "NUM", bool: "true|false"}[scalar]
    text = f"{option.field.description} [{_shown(option.default)}]"
    if len(kind) > 24:
        kind, text = "CHOICE", f"{text} ({', '.join(choices)})"
    wrapped = textwrap.wrap(text, 92, break_on_hyphens=False)
    name = f"  --{option.key} {kind}{' ...' if many else ''}"
    return [name, *(f"        {line}" for line in wrapped)]


def _shown(default: Any) -> str:
    if isinstance(default, list):
        return ",".join(map(str, default)) or "empty"
    return str(default).lower() if default is None or isinstance(default, bool) else str(default)
