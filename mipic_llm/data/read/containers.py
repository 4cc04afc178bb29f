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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mipic_llm.data.read.cells import BadRow
from mipic_llm.errors import UserError

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".txt")
_HUB_ID = re.compile(
    r"(?P<id>[\w.-]+(/[\w.-]+)?)(:(?P<config>[^@\[\]]+))?(@(?P<revision>[^@\[\]]+))?"
    r"(\[(?P<split>[^\[\]]+(\[[^\[\]]*\])?)\])?"  # the split may itself be a slice: train[:10%]
)


class Part(NamedTuple):
    """One file, one data set or one object in memory."""

    path: str
    unit: str  # what the numbers count: lines of a text file, else rows
    rows: Iterator[tuple[int, Any]]  # a BadRow in place of a row that cannot even be decoded


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
    if isinstance(spec, Mapping):
        if split not in spec:
            raise UserError(
                f"{name} is a {type(spec).__name__} without the split {split} (it has "
                f"{', '.join(map(str, spec)) or 'none'}); give one split of it, or a list of dicts"
            )
        spec = spec[split]
    if not isinstance(spec, (str, Path)):
        try:
            return [Part(name, "row", iter(enumerate(spec, 1)))]
        except TypeError:
            raise UserError(
                f"{name} is {type(spec).__name__}; give a path, a list of dicts or a Dataset"
            ) from None
    spec = str(spec)
    files = files_of(spec, split)
    if files is None:
        near = _nearest(Path(spec).expanduser())
        return [_hub_rows(spec, _HUB_ID.fullmatch(spec), split, cache_dir, near)]
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
            raise UserError(f"{spec} holds no data file; accepted: {_suffix_list()}")
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


def _suffix_list() -> str:
    return f"{' '.join(SUFFIXES)}, text ones also with .gz"


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
        raise UserError(
            f"{path}: unknown file type {suffix or path.name}; accepted: {_suffix_list()}"
        )
    if suffix in (".parquet", ".arrow"):
        return Part(str(path), "row", _guarded(path, _arrow))
    reader = {".txt": _txt, ".csv": _csv, ".tsv": _csv}.get(suffix, _json)
    unit = "row" if suffix == ".json" and _is_list(path) else "line"
    return Part(str(path), unit, _guarded(path, reader))


def _guarded(path: Path, reader: Callable[[Path], Iterator[tuple[int, Any]]]):
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


def _txt(path: Path) -> Iterator[tuple[int, Any]]:
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


def _csv(path: Path) -> Iterator[tuple[int, Any]]:
    csv.field_size_limit(2**31 - 1)
    with _open(path) as file:
        # strict: a stray quote is an error, not a field that swallows the lines below it.
        reader = csv.DictReader(
            file, delimiter="\t" if _suffix(path) == ".tsv" else ",", strict=True
        )
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
            return file.read(4096).lstrip().startswith("[")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError):
        return False  # the reader will meet the same and say so


def _json(path: Path) -> Iterator[tuple[int, Any]]:
    if _suffix(path) == ".json" and _is_list(path):
        with _open(path) as file:
            try:
                rows = json.load(file)
            except json.JSONDecodeError as bad:
                raise UserError(
                    f"{path}, line {bad.lineno}: broken JSON ({bad.msg}); mend the file"
                ) from None
        yield from enumerate(rows, 1)
        return
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as bad:
                row = BadRow(f"broken JSON ({bad.msg} at column {bad.colno})")
            yield number, row


def _arrow(path: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        if _suffix(path) == ".parquet":
            batches = pyarrow.parquet.ParquetFile(path).iter_batches()
        else:
            mapped = pyarrow.memory_map(str(path))
            try:
                batches = pyarrow.ipc.open_file(mapped).read_all().to_batches()
            except pyarrow.ArrowInvalid:  # not the file format: datasets writes streams
                batches = pyarrow.ipc.open_stream(mapped)
        for batch in batches:
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except pyarrow.ArrowException as bad:
        raise UserError(f"{path} cannot be read: {_one_line(bad)}; check the file") from None


def _hub_rows(spec: str, match: re.Match, split: str, cache_dir: str | None, near: str) -> Part:
    import datasets

    try:
        data = datasets.load_dataset(
            match["id"],
            match["config"],
            revision=match["revision"],
            split=match["split"] or split,
            cache_dir=cache_dir,
        )
    except Exception as bad:  # whatever fails in there is about the id or the network
        raise UserError(
            f"{spec} is no file here ({near}), and as a Hugging Face data set it cannot be loaded: "
            f"{_one_line(bad)}; check the name, config and split, or the network"
        ) from None
    return Part(spec, "row", iter(enumerate(data, 1)))
