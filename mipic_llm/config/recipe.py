"""Recipes: YAML text to (key, value, place) rows and back, strictly.

YAML as people expect it (the 1.2 core rules): only true and false are booleans, so `mlflow: off`
is text; 2e-5 is a number; a key given twice is an error. Reader and writer share the rules, so
what is written is read back unchanged.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mipic_llm.errors import UserError

_RULES = (
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", "~nN\0"),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[Any, Any] = {}


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: dict[Any, Any] = {}

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _tag, _pattern, _first in _RULES:
    for _cls in (_Loader, _Dumper):
        _regex = re.compile(rf"^(?:{_pattern})$")
        _cls.add_implicit_resolver(_tag, _regex, ["" if c == "\0" else c for c in _first])
# The standard constructor would read 010 as octal; these are the plain decimal numbers above.
_Loader.add_constructor(
    "tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node))
)
_Dumper.add_representer(
    list,  # lists of plain values on one line, as in the recipes
    lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True),
)


class Row(NamedTuple):
    """One value of a recipe: its dotted key, the value and where it stands (file:line)."""

    key: str
    value: Any
    where: str


def read_rows(path: Path, sections: tuple[str, ...]) -> list[Row]:
    """The values of a recipe file in order. Raises UserError naming file and line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UserError(f"recipe {path} cannot be read: {reason}") from None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        return [] if root is None else list(_walk(loader, root, "", path, sections))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
        place = f"{path}:{mark.line + 1}" if mark else f"{path}"
        raise UserError(f"{place}: not valid YAML: {' '.join(str(what).split())}") from None


def _walk(loader: Any, node: Any, prefix: str, path: Path, sections: tuple[str, ...]) -> Any:
    where = f"{path}:{node.start_mark.line + 1}"
    if not isinstance(node, yaml.MappingNode):
        what = f"section {prefix[:-1]}" if prefix else "a recipe"
        raise UserError(f"{where}: {what} must be key: value lines, such as seed: 1")
    seen: dict[Any, int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        name = key_node.value if isinstance(key_node, yaml.ScalarNode) else "?"
        if name in seen:
            first = f"first on line {seen[name]}"
            raise UserError(f"{path}:{line}: {prefix}{name} is given twice ({first}); keep one")
        seen[name] = line
        if not prefix and name in sections:
            if not (isinstance(value_node, yaml.ScalarNode) and value_node.tag.endswith(":null")):
                yield from _walk(loader, value_node, f"{name}.", path, sections)
            continue
        value = loader.construct_object(value_node, deep=True)
        yield Row(f"{prefix}{name}", value, f"{path}:{line}")


def to_yaml(tree: dict[str, Any]) -> str:
    """YAML text of nested dictionaries, keys in the given order, lists on one line."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, width=98, allow_unicode=True)
