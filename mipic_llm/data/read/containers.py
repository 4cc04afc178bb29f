"""Containers to rows: files, folders, globs, Hugging Face data sets, objects; one row at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mipic_llm.data.read.beir import tables_of, training_part
from mipic_llm.data.read.find import files_of
from mipic_llm.data.read.hub import from_hub
from mipic_llm.data.read.readers import Part, file_part
from mipic_llm.data.read.shapes import plain_cell, plain_row, shaped
from mipic_llm.errors import UserError


@dataclass(frozen=True)
class NamedRows:
    """Rows in memory (a list of dicts, a datasets.Dataset) and what messages call them."""

    name: str
    rows: Any

    def __str__(self) -> str:
        return self.name


def containers(
    spec: Any, split: str, cache_dir: str | None, name: str = "rows", stream: bool = False
) -> list[Part]:
    """The files a spec names, ready to be read one after another. stream: a Hugging Face data set
    is not downloaded first.

    spec: text or a path; or an object: a list of dicts, a datasets.Dataset, a DatasetDict (its
    `split`), a table of pandas, polars or pyarrow, or any iterable of dicts, called `name` in what
    is said about it. Rows of a shape without columns that are known are `shaped`.
    """
    parts = _parts(spec, split, cache_dir, name, stream)
    return [part._replace(rows=shaped(part.rows)) for part in parts]


def _parts(spec: Any, split: str, cache_dir: str | None, name: str, stream: bool) -> list[Part]:
    if isinstance(spec, NamedRows):
        spec, name = spec.rows, spec.name
    if isinstance(spec, Mapping):
        if split not in spec:
            raise UserError(
                f"{name} is a {type(spec).__name__} without the split {split} (it has "
                f"{', '.join(map(str, spec)) or 'none'}); give one split of it, or a list of dicts"
            )
        spec = spec[split]
    if not isinstance(spec, (str, Path)):
        spec = rows_of(spec, name)
        if not isinstance(spec, Iterable):
            what = f"{name} is {type(spec).__name__}"
            raise UserError(f"{what}; give a path, a list of dicts, a Dataset or a DataFrame")
        return [Part(name, "row", iter(enumerate(map(plain_row, spec), 1)))]
    files = files_of(str(spec), split)
    if files is None:
        found = from_hub(str(spec), split, cache_dir, stream)
        return [found if isinstance(found, Part) else training_part(found)]
    if files.beir:
        return [training_part(tables_of(files.beir))._replace(beside=files.beside)]
    first, *others = [file_part(file) for file in files.read]
    return [first._replace(beside=files.beside, strange=files.strange), *others]


def rows_of(table: Any, name: str = "rows") -> Iterable[Any]:
    """The rows of what is in memory: those of a table of pandas, polars or pyarrow as dicts, any
    other object as it is. UserError for a column that is there twice."""
    table = _unformatted(table)
    if hasattr(table, "to_pylist"):
        return table.to_pylist()
    if hasattr(table, "to_dicts"):
        return table.to_dicts()
    if not (hasattr(table, "itertuples") and hasattr(table, "columns")):
        return table
    names = [str(column) for column in table.columns]
    if twice := next((column for column in names if names.count(column) > 1), None):
        raise UserError(f"{name} has two columns {twice}; rename one")
    return ({column: plain_cell(cell) for column, cell in zip(names, row, strict=True)}
            for row in table.itertuples(index=False, name=None))  # fmt: skip


def _unformatted(data: Any) -> Any:
    """A Dataset whose format gives tables or arrays in place of rows of Python's own values,
    without it. A transform of the user's stays: it makes the rows."""
    told = getattr(data, "format", None)
    kind = told.get("type") if isinstance(told, Mapping) else None
    if kind in (None, "python", "custom"):
        return data
    return data.with_format(None, columns=told["columns"])
