"""Containers to rows: files, folders, globs, Hugging Face data sets, objects; one row at a time."""

from __future__ import annotations

import csv
import difflib
import glob
import gzip
import json
import math
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mipic_llm.data.read.cells import BadRow
from mipic_llm.errors import UserError

_JSON = (".jsonl", ".json")
SUFFIXES = (*_JSON, ".csv", ".tsv", ".parquet", ".arrow", ".txt")
ACCEPTED = f"{' '.join(SUFFIXES)}, text ones also with .gz"
_HUB_ID = re.compile(
    r"(?P<id>[\w.-]+(/[\w.-]+)?)(:(?P<config>[^@\[\]]+))?(@(?P<revision>[^@\[\]]+))?"
    r"(\[(?P<split>[^\[\]]+(\[[^\[\]]*\])?)\])?"  # the split may itself be a slice: train[:10%]
)


Numbered = Iterator[tuple[int, Any]]  # a BadRow in place of a row that cannot even be decoded


@dataclass(frozen=True)
class NamedRows:
    """Rows in memory (a list of dicts, a datasets.Dataset) and what messages call them."""

    name: str
    rows: Any

    def __str__(self) -> str:
        return self.name


class Part(NamedTuple):
    """One file, one data set or one object in memory; unit: what the numbers of its rows count."""

    path: str
    unit: str
    rows: Numbered


def split_weight(spec: str) -> tuple[str, float]:
    name, found, number = spec.rpartition("=")
    if not found or Path(spec).exists():
        return spec, 1.0
    try:
        weight = float(number)
    except ValueError:
        return spec, 1.0
    if not (math.isfinite(weight) and weight > 0):
        raise UserError(f"data.train: the weight of {name} is {number}; give a number above 0")
    return name, weight


def containers(spec: Any, split: str, cache_dir: str | None, name: str = "rows") -> list[Part]:
    """The files a spec names, ready to be read one after another.

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
        return [_hub_rows(str(spec), split, cache_dir)]
    return [_file_rows(file) for file in files]


def files_of(spec: str, split: str = "train") -> list[Path] | None:
    """The files that a spec names: a file, a folder, a glob or `demo`; None for a Hugging Face id.

    Raises UserError where there are none. Imports nothing slow.
    """
    if spec == "demo":
        from mipic_llm.data.demo import demo_path

        return [Path(demo_path(split))]
    path = Path(spec).expanduser()
    if path.is_dir():
        # A saved datasets folder has JSON about itself beside its arrow files.
        saved = (path / "dataset_info.json").exists()
        files = [file for file in sorted(path.rglob("*.arrow" if saved else "*")) if _is_data(file)]
        if not files:
            raise UserError(f"{spec} holds no data file; accepted: {ACCEPTED}")
        return files
    if path.exists():
        return [path]
    named_as_file = _suffix(path) in SUFFIXES or spec.startswith((".", "~", "/"))
    if "*" in spec or "?" in spec or ("[" in spec and named_as_file):
        files = [Path(f) for f in sorted(glob.glob(str(path), recursive=True)) if Path(f).is_file()]
        if not files:
            raise UserError(f"no file matches {spec}; check the pattern")
        return files
    if named_as_file or _HUB_ID.fullmatch(spec) is None:
        raise UserError(f"no such file: {spec}; {_nearest(path)}")
    return None


def check_files(specs: list[str]) -> None:
    """Raise UserError for the first of these specs (`=weight` may follow) that names no file."""
    for spec in specs:
        files_of(split_weight(spec)[0])


def _suffix(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _is_data(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and _suffix(path) in SUFFIXES


def _nearest(path: Path) -> str:
    """What to do about a missing file, with the nearest name in its folder."""
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist either"
    names = [file.name for file in path.parent.iterdir()]
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    return f"did you mean {path.parent / near[0]}?" if near else "check the path"


def _file_rows(path: Path) -> Part:
    suffix = _suffix(path)
    if suffix not in SUFFIXES:
        raise UserError(f"{path}: unknown file type {suffix or path.name}; accepted: {ACCEPTED}")
    readers = {".parquet": _arrow, ".arrow": _arrow, ".txt": _txt, ".csv": _csv, ".tsv": _csv}
    by_line = suffix in (".txt", ".csv", ".tsv") or (suffix in _JSON and not _is_list(path))
    rows = _guarded(path, readers.get(suffix, _json))
    return Part(str(path), "line" if by_line else "row", rows)


def _guarded(path: Path, reader: Callable[[Path], Numbered]) -> Numbered:
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
    return opener(path, "rt", encoding="utf-8-sig", newline="" if "sv" in _suffix(path) else None)


def _one_line(bad: Exception) -> str:
    return " ".join(str(bad).split())[:300] or type(bad).__name__


def _txt(path: Path) -> Numbered:
    """Blank lines at the end of the file are no rows; elsewhere they are bad ones."""
    blank: list[int] = []
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                blank.append(number)
                continue
            yield from ((n, {"text": ""}) for n in blank)
            blank.clear()
            yield number, {"text": line.rstrip("\n")}


def _csv(path: Path) -> Numbered:
    csv.field_size_limit(2**31 - 1)
    with _open(path) as file:
        # strict: a stray quote is an error, not a field that swallows the lines below it.
        mark = "\t" if _suffix(path) == ".tsv" else ","
        reader = csv.DictReader(file, delimiter=mark, strict=True)
        for row in reader:
            if None in row or None in row.values():
                expected = len(reader.fieldnames or ())
                yield reader.line_num, BadRow(f"not {expected} cells, as in the header")
                continue
            # A cell cannot be null, so an empty negative is an absent one.
            cells = {k: v for k, v in row.items() if v or not re.fullmatch(r"neg.*|rejected.*", k)}
            yield reader.line_num, cells


def _is_list(path: Path) -> bool:
    """Is a .json file one list (else it is read as JSON lines)?"""
    try:
        with _open(path) as file:
            return _suffix(path) == ".json" and file.read(4096).lstrip().startswith("[")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError):
        return False  # the reader will meet the same and say so


def _json(path: Path) -> Numbered:
    with _open(path) as file:
        if _is_list(path):
            try:
                yield from enumerate(json.load(file), 1)
            except json.JSONDecodeError as bad:
                what = f"{path}, line {bad.lineno}: broken JSON ({bad.msg})"
                raise UserError(f"{what}; mend the file") from None
            return
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except json.JSONDecodeError as bad:
                    yield number, BadRow(f"broken JSON ({bad.msg} at column {bad.colno})")


def _arrow(path: Path) -> Numbered:
    import pyarrow
    import pyarrow.parquet

    try:
        if _suffix(path) == ".parquet":
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


def _hub_rows(spec: str, split: str, cache_dir: str | None) -> Part:
    import datasets

    match = _HUB_ID.fullmatch(spec)
    assert match is not None, spec
    try:
        data = datasets.load_dataset(
            match["id"], match["config"], revision=match["revision"], cache_dir=cache_dir,
            split=match["split"] or split,
        )  # fmt: skip
    except Exception as bad:  # whatever fails in there is about the id or the network
        near = _nearest(Path(spec).expanduser())
        raise UserError(
            f"{spec} is no file here ({near}), and as a Hugging Face data set it cannot be loaded: "
            f"{_one_line(bad)}; check the name, config and split, or the network"
        ) from None
    return Part(spec, "row", iter(enumerate(data, 1)))
