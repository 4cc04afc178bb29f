"""Recipes: YAML text to rows of values with their place, and back, strictly.

YAML as people expect it (the 1.2 core rules): only true and false are booleans, so `mlflow: off`
is text; 2e-5 is a number; a key given twice is an error. A recipe may be a stranger's: no tags, no
aliases, 1 MB at most.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml

from mipic_llm.config.fields import Row, Section, plain
from mipic_llm.errors import UserError, one_line

MOST_BYTES = 1 << 20
DEFAULT_RECIPE = "quickstart"
_TAGS = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map"))


class _Strict:
    """A loader without aliases, with which a short file can grow without end, and without text that
    no file can hold."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="an alias (*name) is not allowed", problem_mark=mark)
        node = super().compose_node(parent, index)  # type: ignore[misc]
        if isinstance(node, yaml.ScalarNode):
            try:
                node.value.encode()
            except UnicodeEncodeError:
                raise yaml.MarkedYAMLError(
                    problem="half a unicode character", problem_mark=node.start_mark
                ) from None
        return node


class _Loader(_Strict, yaml.BaseLoader):
    """Every scalar stays text, so that `_value` decides."""


class _Tree(_Strict, yaml.SafeLoader):
    """Scalars as YAML 1.1 reads them."""


def read_yaml(path: Path, what: str) -> Any:
    """The tree of a YAML file that may be a stranger's; `what` begins the line of a UserError."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{what} has more than 1 MB; give a smaller one")
        return yaml.load(path.read_text(encoding="utf-8-sig"), _Tree)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{what} cannot be read: {error.strerror}") from None
    except Exception as error:  # of the parser, of a number or a date, of nesting too deep
        raise UserError(f"{what} is not valid YAML: {one_line(error)}") from None


class _Dumper(yaml.SafeDumper):
    """Texts quoted where they would be read as something else; every value on one line."""

    def text(self, data: str) -> yaml.ScalarNode:
        style = '"' if "\n" in data else None if plain(data) == data else "'"
        return self.represent_scalar(_TAGS[0], data, style=style)

    def items(self, data: list) -> yaml.SequenceNode:
        return self.represent_sequence(_TAGS[1], data, flow_style=True)


_Dumper.add_representer(str, _Dumper.text)
_Dumper.add_representer(list, _Dumper.items)
_Dumper.add_multi_representer(
    Section, lambda dumper, one: dumper.represent_dict(one.model_dump(exclude_defaults=True))
)


def to_yaml(name: str, value: Any) -> str:
    """`name: value` on one line, which `read_rows` reads back unchanged."""
    return yaml.dump({name: value}, Dumper=_Dumper, width=1 << 30, allow_unicode=True).rstrip("\n")


def read_rows(path: Path, sections: Collection[str]) -> list[Row]:
    """The values of a recipe in order, `where` as file:line. Raises UserError, one line."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"recipe {path} has more than 1 MB, so it is no recipe")
        root = _Loader(path.read_text(encoding="utf-8-sig")).get_single_node()
        return [] if root is None else list(_walk(root, "", path, sections))
    except UserError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UserError(f"recipe {path} cannot be read: {reason}") from None
    except (ValueError, OverflowError) as error:  # \U and a number that no character has
        raise UserError(f"recipe {path}: not valid YAML: {error}") from None
    except RecursionError:
        raise UserError(f"recipe {path} is nested too deeply; write section: key: value") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
        place = f"{path}:{mark.line + 1}" if mark else f"{path}"
        raise UserError(f"{place}: not valid YAML: {' '.join(str(what).split())}") from None


def _walk(node: Any, prefix: str, path: Path, sections: Collection[str]) -> Iterator[Row]:
    if not isinstance(node, yaml.MappingNode):
        what = f"section {prefix[:-1]}" if prefix else "a recipe"
        where = f"{path}:{node.start_mark.line + 1}"
        raise UserError(f"{where}: {what} must be key: value lines, such as seed: 1")
    seen: dict[Any, int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        name = key_node.value if isinstance(key_node, yaml.ScalarNode) else "?"
        if name in seen:
            first = f"first on line {seen[name]}"
            raise UserError(f"{path}:{line}: {prefix}{name} is given twice ({first}); keep one")
        seen[name] = line
        if prefix or name not in sections:
            yield Row(f"{prefix}{name}", _value(value_node), f"{path}:{line}")
        elif not (isinstance(value_node, yaml.ScalarNode) and _value(value_node) is None):
            yield from _walk(value_node, f"{name}.", path, sections)


def _value(node: Any) -> Any:
    if node.tag not in _TAGS:
        what = f"the tag {node.tag} is not allowed"
        raise yaml.MarkedYAMLError(problem=what, problem_mark=node.start_mark)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        return {str(_value(key)): _value(value) for key, value in node.value}
    if node.style is not None:  # quoted
        return node.value
    return None if node.value in ("", "~", "null", "Null", "NULL") else plain(node.value)
