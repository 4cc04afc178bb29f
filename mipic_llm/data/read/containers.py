"""Containers to rows: files, folders, globs, Hugging Face data sets, objects; one row at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mipic_llm.config.files import legal_path
from mipic_llm.data.read.beir import training_rows
from mipic_llm.data.read.find import (
    ACCEPTED,
    HUB_ID,
    JSON,
    SUFFIXES,
    files_of,
    nearest_file,
    suffix_of,
)
from mipic_llm.data.read.readers import READERS, Numbered, guarded, is_list, read_json
from mipic_llm.errors import UserError, one_line


@dataclass(frozen=True)
class NamedRows:
    """Rows in memory (a list of dicts, a datasets.Dataset) and what messages call them."""

    name: str
    rows: Any

    def __str__(self) -> str:
        return self.name


class Part(NamedTuple):
    """One file, one data set or one object in memory; unit: what the numbers of its rows count.
    beside: files of its folder that are of another split, strange: of kinds that are not read."""

    path: str
    unit: str
    rows: Numbered
    beside: tuple[str, ...] = ()
    strange: tuple[str, ...] = ()


def containers(
    spec: Any, split: str, cache_dir: str | None, name: str = "rows", stream: bool = False
) -> list[Part]:
    """The files a spec names, ready to be read one after another. stream: a Hugging Face data set
    is not downloaded first.

    spec: text or a path; or an object: a list of dicts, a datasets.Dataset, a DatasetDict (its
    `split`), a table of pandas, polars or pyarrow, or any iterable of dicts, called `name` in what
    is said about it.
    """
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
        return [Part(name, "row", iter(enumerate(map(_plain_row, spec), 1)))]
    files = files_of(str(spec), split)
    if files is None:
        return [_hub_rows(str(spec), split, cache_dir, stream)]
    if files.qrels:
        rows = training_rows(legal_path(str(spec)), files.qrels)
        return [Part(str(files.qrels), "query", rows, files.beside)]
    first, *others = [_file_rows(file) for file in files.read]
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
    return ({column: _plain(cell) for column, cell in zip(names, row, strict=True)}
            for row in table.itertuples(index=False, name=None))  # fmt: skip


def _plain_row(row: Any) -> Any:
    """A row whose cells numpy or torch made (a formatted Dataset, `to_dict("records")` of pandas),
    as Python has it."""
    if isinstance(row, dict) and any(hasattr(cell, "tolist") for cell in row.values()):
        return {name: _plain(cell) for name, cell in row.items()}
    return row


def _unformatted(data: Any) -> Any:
    """A Dataset whose format gives tables or arrays in place of rows of Python's own values,
    without it. A transform of the user's stays: it makes the rows."""
    told = getattr(data, "format", None)
    kind = told.get("type") if isinstance(told, Mapping) else None
    if kind in (None, "python", "custom"):
        return data
    return data.with_format(None, columns=told["columns"])


def _plain(cell: Any) -> Any:
    """A cell of pandas as Python has it: arrays are lists, what is missing is None."""
    if type(cell).__name__ in ("NAType", "NaTType"):
        return None
    cell = cell.tolist() if hasattr(cell, "tolist") else cell
    return None if isinstance(cell, float) and math.isnan(cell) else cell


def _file_rows(path: Path) -> Part:
    suffix = suffix_of(path)
    if suffix not in SUFFIXES:
        raise UserError(f"{path}: unknown file type {suffix or path.name}; accepted: {ACCEPTED}")
    by_line = suffix in (".txt", ".csv", ".tsv") or (suffix in JSON and not is_list(path))
    rows = guarded(path, READERS.get(suffix, read_json))
    return Part(str(path), "line" if by_line else "row", rows)


def _hub_rows(spec: str, split: str, cache_dir: str | None, stream: bool) -> Part:
    import datasets

    match = HUB_ID.fullmatch(spec)
    assert match is not None, spec
    try:
        data = datasets.load_dataset(
            match["id"], match["config"], revision=match["revision"], cache_dir=cache_dir,
            split=match["split"] or split, **({"streaming": True} if stream else {}),
        )  # fmt: skip
    except Exception as bad:  # whatever fails in there is about the id or the network
        near = nearest_file(legal_path(spec))
        raise UserError(
            f"{spec} is no file here ({near}), and as a Hugging Face data set it cannot be loaded: "
            f"{one_line(bad)}; check the name, config and split, or the network"
        ) from None
    return Part(spec, "row", iter(enumerate(map(_plain_row, data), 1)))
