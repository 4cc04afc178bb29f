"""Typed sections of options on pydantic: frozen, strict, each mistake told in one line."""

from __future__ import annotations

import difflib
import json
import re
import types
import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Literal, NamedTuple, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from mipic_llm.errors import UserError

# A command may well have a flag --json; pydantic's old method of that name is of no use here.
warnings.filterwarnings("ignore", r'Field name "\w+" in .* shadows an attribute', UserWarning)
_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
_LISTS = {str: "a list of texts", int: "a list of whole numbers", float: "a list of numbers"}
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", re.I)
_HUGE = 2**63  # whole numbers from here on are refused: no tensor holds them


def opt(default: Any, help: str, **limits: Any) -> Any:
    """A field: its default, its meaning with unit (for --help) and its limits (ge, gt, le, lt)."""
    if isinstance(default, list | dict):
        return Field(default_factory=default.copy, description=help, **limits)
    return Field(default, description=help, **limits)


def plain(text: str) -> Any:
    """The number or boolean that an unquoted YAML 1.2 scalar stands for; else the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if re.fullmatch(r"[-+]?[0-9]{1,19}", text):
        return int(text)
    return float(re.sub(r"\.(?=[a-zA-Z])", "", text)) if _FLOAT.fullmatch(text) else text


def spelled(value: Any) -> str:
    """A value as a flag spells it."""
    words = {None: "none", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


class Kind(NamedTuple):
    """What a field holds: one `scalar` type or a list of them, perhaps None, perhaps few words; or
    a list of sections."""

    scalar: type
    many: bool
    optional: bool
    choices: tuple[str, ...]

    @property
    def expected(self) -> str:
        """What a legal value looks like, in words."""
        words = (_LISTS if self.many else _WORDS).get(
            self.scalar, "a list of key: value groups (in a flag, JSON)"
        )
        words = f"one of: {', '.join(self.choices)}" if self.choices else words
        return f"{words} (or none)" if self.optional else words

    def typed(self, value: Any) -> Any:
        """`value` with texts read as what they stand for; what does not fit is left as it is.

        none is None where legal and an empty list for plain lists. Lists split at commas, lists
        of numbers at blanks too; one number is a list of one.
        """
        if isinstance(value, str) and value.lower() == "none" and (self.optional or self.many):
            return None if self.optional else []
        if not self.many:
            return self._item(value)
        if self.sections:
            return _groups(value)
        value = self.split(value) if isinstance(value, str) else value
        value = [value] if isinstance(value, bool | int | float) else value
        return [self._item(v) for v in value] if isinstance(value, list | tuple) else value

    @property
    def sections(self) -> bool:
        """Whether it is a list of sections."""
        return issubclass(self.scalar, BaseModel)

    def split(self, text: str) -> list[str]:
        """Items of a list given as one text."""
        if self.sections:
            return [text]
        parts = text.split(",") if self.scalar is str else text.replace(",", " ").split()
        return [] if text.strip() == "[]" else [part.strip() for part in parts if part.strip()]

    def _item(self, value: Any) -> Any:
        if isinstance(value, str) and self.scalar is not str:
            value = plain(value.strip())
        if isinstance(value, bool) and str(value).lower() in self.choices:
            return str(value).lower()  # YAML's true where the choices are auto, true, false
        if type(value) is int and abs(value) >= _HUGE:
            return "a number beyond 2^63"
        return float(value) if type(value) is int and self.scalar is float else value


def _groups(value: Any) -> Any:
    """A list of sections, which a flag gives as JSON."""
    one = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(one, str):
        try:
            value = json.loads(one)
        except (ValueError, RecursionError):
            return value
    return [value] if isinstance(value, dict) else value


@cache
def kind_of(annotation: Any) -> Kind | None:
    """The kind of a field's annotation; None for a section."""
    optional = get_origin(annotation) in (Union, types.UnionType)
    inner = [a for a in get_args(annotation) if a is not types.NoneType]
    hint = inner[0] if optional else annotation
    many = get_origin(hint) is list
    item = get_args(hint)[0] if many else hint
    choices = get_args(item) if get_origin(item) is Literal else ()
    scalar = str if choices else item
    nested = many and isinstance(scalar, type) and issubclass(scalar, BaseModel)
    return Kind(scalar, many, optional, choices) if nested or scalar in _WORDS else None


class Row(NamedTuple):
    """A value for one option, and where it stands (file:line, a flag, or nothing)."""

    key: str
    value: Any
    where: str = ""

    def error(self, message: str) -> UserError:
        return UserError(f"{self.where}: {message}" if self.where else message)


class Section(BaseModel):
    """A frozen group of options, strictly typed; texts, such as those of flags, are read first."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=()
    )

    @field_validator("*", mode="before")
    @classmethod
    def _from_text(cls, value: Any, info: ValidationInfo) -> Any:
        kind = kind_of(cls.model_fields[info.field_name or ""].annotation)
        return kind.typed(value) if kind else value

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Self:
        """From rows of known keys, the last of a key counts. UserError names the first bad one."""
        last = {row.key: row for row in rows}
        tree: dict[str, Any] = {}
        for key, row in last.items():
            section, _, name = key.rpartition(".")
            (tree.setdefault(section, {}) if section else tree)[name] = row.value
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            found = {".".join(p for p in e["loc"] if isinstance(p, str)): e for e in error.errors()}
            name, row = next((name, row) for key, row in last.items() for name in found
                             if name == key or name.startswith(f"{key}."))  # fmt: skip
            option = next(o for o in options(cls) if o.key == row.key)
            if name != row.key:
                raise row.error(_nested(option, name, found[name])) from None
            raise row.error(_message(option, row.value, found[row.key])) from None


class Option(NamedTuple):
    """One field of a class of sections under its dotted key."""

    key: str
    kind: Kind
    field: FieldInfo

    @property
    def limits(self) -> str:
        """Where its number must lie, in words."""
        found = {k: v for m in self.field.metadata for k in ("ge", "gt", "le", "lt")
                 if (v := getattr(m, k, None)) is not None}  # fmt: skip
        low = found.get("ge", found.get("gt"))
        if "le" in found or "lt" in found:
            high = f"{found['le']}]" if "le" in found else f"{found['lt']})"
            return f"in {'[' if 'ge' in found else '('}{low}, {high}"
        return f"{low} or more" if "ge" in found else f"above {low}"


def options(cls: type[Section], prefix: str = "") -> Iterator[Option]:
    """Every option of a class, those of its sections too, in the order of the source."""
    for name, field in cls.model_fields.items():
        if kind := kind_of(field.annotation):
            yield Option(prefix + name, kind, field)
        else:
            yield from options(field.annotation, f"{prefix}{name}.")  # type: ignore[arg-type]


def _message(option: Option, value: Any, error: Mapping[str, Any]) -> str:
    if error["type"].startswith(("greater_than", "less_than")):
        return f"{option.key} is {error['input']}; it must be {option.limits}"
    value = error["input"] if isinstance(error["loc"][-1], int) else value  # the item of a list
    shown = "none" if value is None else repr(value)
    shown = shown if len(shown) <= 80 else f"{shown[:76]} ..."
    hint = nearest([value], option.kind.choices) if isinstance(value, str) else ""
    return f"{option.key} must be {option.kind.expected}, got {shown}{hint}"


def _nested(option: Option, name: str, error: Mapping[str, Any]) -> str:
    """Of a value inside a list of sections."""
    at = next(i for i, p in enumerate(error["loc"]) if isinstance(p, int))
    number = error["loc"][at] + 1
    own, what = name.removeprefix(f"{option.key}."), f"entry {number} of {option.key}"
    known = option.kind.scalar.model_fields
    if error["type"] == "missing" and own in known:
        return f"{what} has no {own}; give one"
    if own not in known:
        own, _, inside = own.partition(".")
    if own not in known:
        return f"{what}: unknown key {own}{nearest([own], known)}"
    if kind := kind_of(known[own].annotation):
        inner = Option(own, kind, known[own])
        if kind.sections and any(isinstance(p, int) for p in error["loc"][at + 1 :]):
            name = name.removeprefix(f"{option.key}.")
            return f"{what}: {_nested(inner, name, {**error, 'loc': error['loc'][at + 1 :]})}"
        return f"{what}: {_message(inner, error['input'], error)}"
    return f"{what}: {own} must hold texts under names, got {str(error['input'])[:80]}"


def nearest(names: Iterable[str], known: Iterable[str] | None) -> str:
    """ "; did you mean a or b?" for the known names most like one of `names`, else ""."""
    tails: dict[str, list[str]] = {}
    for k in known or ():
        tails.setdefault(k.rsplit(".", 1)[-1], []).append(k)
    whole, close = [k for tail in tails.values() for k in tail], []
    for name in (n[:100] for n in names):
        last = name.rsplit(".", 1)[-1]
        close += tails.get(last, [])
        close += difflib.get_close_matches(name, whole, n=2, cutoff=0.6)
        close += [k for t in difflib.get_close_matches(last, tails, 1, 0.75) for k in tails[t]]
    found = list(dict.fromkeys(close))[:3]
    return f"; did you mean {' or '.join(found)}?" if found else ""
