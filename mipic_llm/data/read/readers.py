"""A file of each kind as its numbered rows, one at a time."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from mipic_llm.data.read.cells import NEGATIVE, NOTHING, BadRow
from mipic_llm.data.read.find import ACCEPTED
from mipic_llm.data.read.folders import JSON, SUFFIXES, packed_by, suffix_of
from mipic_llm.errors import UserError, one_line

Numbered = Iterator[tuple[int, Any]]  # a BadRow in place of a row that cannot even be decoded


class Part(NamedTuple):
    """One file, one data set or one object in memory; unit: what the numbers of its rows count.
    beside: files of its folder that are of another split, strange: of kinds that are not read."""

    path: str
    unit: str
    rows: Numbered
    beside: tuple[str, ...] = ()
    strange: tuple[str, ...] = ()


def file_part(path: Path) -> Part:
    """The rows of a file. UserError for a kind that is not read."""
    suffix = suffix_of(path)
    if suffix not in SUFFIXES:
        raise UserError(f"{path}: unknown file type {suffix or path.name}; accepted: {ACCEPTED}")
    by_line = suffix in (".txt", ".csv", ".tsv") or (suffix in JSON and not is_list(path))
    return Part(
        str(path), "line" if by_line else "row", guarded(path, READERS.get(suffix, read_json))
    )


def guarded(path: Path, reader: Callable[[Path], Numbered]) -> Numbered:
    """A reader whose failures of the file itself are the user's to mend."""
    try:
        yield from reader(path)
    except UnicodeDecodeError as bad:
        line = _line_of_bad_text(path)
        raise UserError(
            f"{path}, line {line}: not UTF-8 text ({bad.reason}); convert the file to UTF-8"
        ) from None
    except (OSError, EOFError, zlib.error, lzma.LZMAError, csv.Error) as bad:
        raise UserError(f"{path} cannot be read: {one_line(bad)}; check the file") from None


def _bytes(path: Path) -> Any:
    """The file within, read as bytes."""
    kind = packed_by(path)
    if kind == ".zst":
        import pyarrow

        return pyarrow.input_stream(str(path), compression="zstd")
    opener: Callable[..., Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}.get(
        kind, open)  # fmt: skip
    return opener(path, "rb")


def _line_of_bad_text(path: Path) -> int:
    """The first line that is not UTF-8: a decoder reads ahead, and cannot say."""
    with _bytes(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return number


def _open(path: Path):
    """Text, packed or not, with or without BOM; line ends are left to the csv reader."""
    newline = "" if "sv" in suffix_of(path) else None
    return io.TextIOWrapper(_bytes(path), encoding="utf-8-sig", newline=newline)


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
        for number, line in enumerate(chain(head, file), 1):
            if not line.strip():
                blank.append(number)
                continue
            yield from ((n, {"text": ""}) for n in blank)
            blank.clear()
            yield number, {"text": line.rstrip("\n")}


_CSV = "; name it .csv if its cells are in quotes (tabs between them are understood there too)"


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
                _check_names(path, names, tsv)
            elif tsv and any(map(_doubled, row)):
                yield reader.line_num, BadRow(f"quotes are doubled, and a .tsv has none{_CSV}")
            elif names and len(row) == len(names):
                yield reader.line_num, _cells(names, row)
            elif names and row:
                what = f"not {len(names)} cells, as in the header, but {len(row)}"
                hint = f"; in a .tsv no text can run over a line end{_CSV}" if tsv else ""
                yield reader.line_num, BadRow(what + hint)


def _doubled(cell: str) -> bool:
    """Whether a writer of csv made this cell: in quotes, and all quotes within are doubled."""
    inner = cell[1:-1]
    return cell[:1] == cell[-1:] == '"' and '""' in inner and '"' not in inner.replace('""', "")


def _check_names(path: Path, names: list[str], tsv: bool) -> None:
    if tsv and all(re.fullmatch('".+"', name) for name in names):
        raise UserError(f"{path}: its columns' names are in quotes, and a .tsv has none{_CSV}")
    twice = {n for n in names if names.count(n) > 1 and n and not NEGATIVE.fullmatch(n)}
    if twice:
        raise UserError(f"{path}: two columns are named {min(twice)}; rename one of them")


def _cells(names: list[str], row: list[str]) -> dict[str, Any]:
    """Columns of negatives with one name are one list."""
    cells: dict[str, Any] = {}
    for name, cell in zip(names, row, strict=True):
        value = None if cell in NOTHING else cell
        if NEGATIVE.fullmatch(name):
            cells.setdefault(name, []).append(value)
        else:
            cells[name] = value
    return cells


def is_list(path: Path) -> bool:
    """Is a .json file one list (else it is read as JSON lines)?"""
    try:
        with _open(path) as file:
            return suffix_of(path) == ".json" and file.read(4096).lstrip().startswith("[")
    except (OSError, EOFError, zlib.error, lzma.LZMAError, UnicodeDecodeError):
        return False  # the reader will meet the same and say so


def read_json(path: Path) -> Numbered:
    with _open(path) as file:
        if is_list(path):
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
        raise UserError(f"{path} cannot be read: {one_line(bad)}; check the file") from None


READERS = {
    ".parquet": _arrow,
    ".arrow": _arrow,
    ".txt": _txt,
    ".csv": _csv,
    ".tsv": _csv,
}  # others: JSON
