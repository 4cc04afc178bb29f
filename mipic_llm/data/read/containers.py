"""Containers to rows: files, folders, globs, Hugging Face data sets, objects; one row at a time."""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from mipic_llm.config.files import legal_path
from mipic_llm.data.read.cells import NEGATIVE, BadRow, nothing
from mipic_llm.data.read.find import (
    ACCEPTED,
    HUB_ID,
    JSON,
    SUFFIXES,
    files_of,
    nearest_file,
    suffix_of,
)
from mipic_llm.errors import UserError

Numbered = Iterator[tuple[int, Any]]  # a BadRow in place of a row that cannot even be decoded


@dataclass(frozen=True)
class NamedRows:
    """Rows in memory (a list of dicts, a datasets.Dataset) and what messages call them."""

    name: str
    rows: Any

    def __str__(self) -> str:
        return self.name


class Part(NamedTuple):
    """One file, one data set or one object in memory; unit: what the numbers of its rows count.
    beside: files of its folder that are of another split, and so are not read."""

    path: str
    unit: str
    rows: Numbered
    beside: tuple[str, ...] = ()


def containers(
    spec: Any, split: str, cache_dir: str | None, name: str = "rows", stream: bool = False
) -> list[Part]:
    """The files a spec names, ready to be read one after another. stream: a Hugging Face data set
    is not downloaded first.

    spec: text or a path; or an object: a list of dicts, a datasets.Dataset, a DatasetDict (its
    `split`) or any iterable of dicts, called `name` in what is said about it.
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
        if not isinstance(spec, Iterable):
            what = f"{name} is {type(spec).__name__}"
            raise UserError(f"{what}; give a path, a list of dicts or a Dataset")
        return [Part(name, "row", iter(enumerate(spec, 1)))]
    files = files_of(str(spec), split)
    if files is None:
        return [_hub_rows(str(spec), split, cache_dir, stream)]
    first, *others = [_file_rows(file) for file in files.read]
    return [first._replace(beside=files.beside), *others]


def _file_rows(path: Path) -> Part:
    suffix = suffix_of(path)
    if suffix not in SUFFIXES:
        raise UserError(f"{path}: unknown file type {suffix or path.name}; accepted: {ACCEPTED}")
    readers = {".parquet": _arrow, ".arrow": _arrow, ".txt": _txt, ".csv": _csv, ".tsv": _csv}
    by_line = suffix in (".txt", ".csv", ".tsv") or (suffix in JSON and not _is_list(path))
    rows = guarded(path, readers.get(suffix, _json))
    return Part(str(path), "line" if by_line else "row", rows)


def guarded(path: Path, reader: Callable[[Path], Numbered]) -> Numbered:
    """A reader whose failures of the file itself are the user's to mend."""
    try:
        yield from reader(path)
    except UnicodeDecodeError as bad:
        raise UserError(f"{path} is not UTF-8 text ({bad.reason}); convert it to UTF-8") from None
    except (OSError, EOFError, zlib.error, csv.Error) as bad:
        raise UserError(f"{path} cannot be read: {_one_line(bad)}; check the file") from None


def _open(path: Path):
    """Text, with or without gzip and BOM; line ends are left to the csv reader."""
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    return opener(path, "rt", encoding="utf-8-sig", newline="" if "sv" in suffix_of(path) else None)


def _one_line(bad: Exception) -> str:
    return " ".join(str(bad).split())[:300] or type(bad).__name__


def _txt(path: Path) -> Numbered:
    """Blank lines at the end of the file are no rows; elsewhere they are bad ones."""
    blank: list[int] = []
    with _open(path) as file:
        head = list(islice(file, 5))
        tabs = {line.count("\t") for line in head}
        looks = ".tsv" if len(head) > 1 and len(tabs) == 1 and 0 not in tabs else None
        looks = ".jsonl" if head and all(re.match(r'\{\s*"', line) for line in head) else looks
        if looks:
            raise UserError(
                f"{path}: a .txt file has one text per line, and this looks like {looks[1:]}; "
                f"rename it to {path.stem}{looks}"
            )
        file.seek(0)
        for number, line in enumerate(file, 1):
            if not line.strip():
                blank.append(number)
                continue
            yield from ((n, {"text": ""}) for n in blank)
            blank.clear()
            yield number, {"text": line.rstrip("\n")}


def _csv(path: Path) -> Numbered:
    """A .tsv has no quotes: they are text, and no field runs over a line end. A .csv has one mark
    between cells, of those below the one that its header has most of."""
    csv.field_size_limit(2**31 - 1)
    tsv = suffix_of(path) == ".tsv"
    with _open(path) as file:
        head = file.readline()
        marks = "\t" if tsv else ",;\t|"
        mark = max(marks, key=lambda m: len(next(csv.reader([head], delimiter=m), [])))
        # strict: a stray quote is an error, not a field that swallows the lines below it.
        reader = csv.reader(chain([head], file), delimiter=mark, strict=True,
                            quoting=csv.QUOTE_NONE if tsv else csv.QUOTE_MINIMAL)  # fmt: skip
        names, ends = None, False
        while not ends:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as bad:
                ends = "end of data" in str(bad)  # a quote that is never closed
                yield reader.line_num, BadRow(f"a quote where none can be ({bad})")
                continue
            if names is None and row:
                names = [name.strip() for name in row]
                _check_names(path, names)
            elif names and len(row) == len(names):
                yield reader.line_num, _cells(names, row)
            elif names and row:
                what = f"not {len(names)} cells, as in the header, but {len(row)}"
                hint = "; in a .tsv no text can run over a line end" if tsv else ""
                yield reader.line_num, BadRow(what + hint)


def _check_names(path: Path, names: list[str]) -> None:
    twice = {n for n in names if names.count(n) > 1 and n and not NEGATIVE.fullmatch(n)}
    if twice:
        raise UserError(f"{path}: two columns are named {min(twice)}; rename one of them")


def _cells(names: list[str], row: list[str]) -> dict[str, Any]:
    """Columns of negatives with one name are one list."""
    cells: dict[str, Any] = {}
    for name, cell in zip(names, row, strict=True):
        if NEGATIVE.fullmatch(name):
            cells.setdefault(name, []).append(None if nothing(cell) else cell)
        else:
            cells[name] = None if nothing(cell) else cell
    return cells


def _is_list(path: Path) -> bool:
    """Is a .json file one list (else it is read as JSON lines)?"""
    try:
        with _open(path) as file:
            return suffix_of(path) == ".json" and file.read(4096).lstrip().startswith("[")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError):
        return False  # the reader will meet the same and say so


def _json(path: Path) -> Numbered:
    with _open(path) as file:
        if _is_list(path):
            content = file.read()
            try:
                rows = json.loads(content)
            except json.JSONDecodeError as bad:
                what = f"{path}, line {bad.lineno}: broken JSON ({bad.msg})"
                raise UserError(f"{what}; mend the file") from None
            except (ValueError, RecursionError) as bad:
                raise UserError(f"{path}: {_odd_json(bad)}; mend the file") from None
            del content
            yield from enumerate(rows, 1)
            return
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as bad:
                    row = BadRow(f"broken JSON ({bad.msg} at column {bad.colno})")
                except (ValueError, RecursionError) as bad:
                    row = BadRow(_odd_json(bad))
                yield number, row


def _odd_json(bad: Exception) -> str:
    """What Python cannot read, though it is JSON."""
    deep = isinstance(bad, RecursionError)
    return "lists or objects too deep in one another" if deep else "a number of too many digits"


def _arrow(path: Path) -> Numbered:
    import pyarrow
    import pyarrow.parquet

    try:
        if suffix_of(path) == ".parquet":
            batches = pyarrow.parquet.ParquetFile(path).iter_batches()
        else:
            mapped = pyarrow.memory_map(str(path))
            try:
                batches = pyarrow.ipc.open_file(mapped).read_all().to_batches()
            except pyarrow.ArrowInvalid:  # not the file format: datasets writes streams
                batches = pyarrow.ipc.open_stream(mapped)
        yield from enumerate((row for batch in batches for row in batch.to_pylist()), 1)
    except pyarrow.ArrowException as bad:
        raise UserError(f"{path} cannot be read: {_one_line(bad)}; check the file") from None


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
            f"{_one_line(bad)}; check the name, config and split, or the network"
        ) from None
    return Part(spec, "row", iter(enumerate(data, 1)))
