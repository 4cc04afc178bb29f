"""The fields of a typed configuration as a flat list, and text or YAML values made into theirs."""

from __future__ import annotations

import difflib
import math
import re
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, NamedTuple

from mipic_llm.errors import UserError

_KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


class Option(NamedTuple):
    """One field: dotted key, type of its value(s), and what `opt` says about it."""

    key: str
    kind: type  # str, int, float or bool; of the items when is_list
    is_list: bool
    optional: bool  # None is legal
    default: Any
    help: str
    choices: tuple[str, ...] | None

    @property
    def expected(self) -> str:
        """What a legal value looks like, in words."""
        if self.choices:
            text = f"one of: {', '.join(self.choices)}"
        elif self.is_list:
            text = {str: "a list of texts", int: "a list of whole numbers"}.get(
                self.kind, "a list of numbers"
            )
        else:
            text = _KINDS[self.kind]
        return f"{text} (or none)" if self.optional else text


def options(cls: type, prefix: str = "") -> Iterator[Option]:
    """Every option of a configuration class, sections included, in the order of the source."""
    hints = typing.get_type_hints(cls)
    for f in fields(cls):
        if f.metadata.get("internal"):
            continue
        hint = hints[f.name]
        if is_dataclass(hint):
            yield from options(typing.cast(type, hint), f"{prefix}{f.name}.")
            continue
        optional = typing.get_origin(hint) in (typing.Union, types.UnionType)
        if optional:
            (hint,) = (t for t in typing.get_args(hint) if t is not type(None))
        is_list = typing.get_origin(hint) is list
        kind = typing.get_args(hint)[0] if is_list else hint
        assert kind in _KINDS, (cls, f.name, hint)
        default = f.default if f.default_factory is MISSING else f.default_factory()
        help_, choices = f.metadata.get("help", ""), f.metadata.get("choices")
        yield Option(prefix + f.name, kind, is_list, optional, default, help_, choices)


def convert(option: Option, value: Any, where: str) -> Any:
    """`value` (text of a flag, or what YAML gave) as the option's type, or UserError at `where`.

    Text: none is None where legal (an empty list for plain lists); lists split at commas, number
    lists at blanks too. A bool is never a number, an int is a fine float.
    """
    if value is None or (isinstance(value, str) and value.lower() == "none"):
        if option.optional:
            return None
        if option.is_list:
            value = [] if value is not None else value
    if not option.is_list:
        return _scalar(option, value, where)
    if isinstance(value, str):
        value = [] if value.strip() in ("", "[]") else split_list(value, option)
    elif isinstance(value, bool | int | float):
        value = [value]
    if not isinstance(value, list):
        raise _wrong(option, value, where)
    return [_scalar(option, item, where) for item in value]


def split_list(text: str, option: Option) -> list[str]:
    """Items of a list given as one text."""
    parts = text.split(",") if option.kind is str else text.replace(",", " ").split()
    return [part.strip() for part in parts if part.strip()]


def _wrong(option: Option, value: Any, where: str) -> UserError:
    shown = "none" if value is None else repr(value)
    hint = nearest([value], option.choices) if isinstance(value, str) and option.choices else ""
    return UserError(f"{where}: {option.key} must be {option.expected}, got {shown}{hint}")


def _scalar(option: Option, value: Any, where: str) -> Any:
    kind, result = option.kind, None
    if isinstance(value, str) and kind is not str:
        text = value.strip()
        if kind is bool:
            result = {"true": True, "false": False}.get(text.lower())
        elif kind is int:
            result = int(text) if re.fullmatch(r"[-+]?[0-9]+", text) else None
        else:
            try:
                result = float(text)
            except ValueError:
                result = None
    elif type(value) is kind:
        result = value
    elif kind is float and type(value) is int:
        result = float(value)
    if isinstance(result, float) and not math.isfinite(result):
        result = None
    if result is None or (option.choices and result not in option.choices):
        raise _wrong(option, value, where)
    return result


def nearest(names: Iterable[str], known: Iterable[str] | None) -> str:
    """ "; did you mean a or b?" for the known names most like one of `names`, else ""."""
    known, close = list(known or ()), []
    for name in names:
        last = name.rsplit(".", 1)[-1]
        close += [k for k in known if k.rsplit(".", 1)[-1] == last]
        close += difflib.get_close_matches(name, known, n=2, cutoff=0.6)
        tails: dict[str, list[str]] = {}
        for k in known:
            tails.setdefault(k.rsplit(".", 1)[-1], []).append(k)
        for tail in difflib.get_close_matches(last, tails, n=1, cutoff=0.75):
            close += tails[tail]
    found = list(dict.fromkeys(close))[:3]
    return f"; did you mean {' or '.join(found)}?" if found else ""
