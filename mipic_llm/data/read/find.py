"""Which files a spec names: a file, folder, glob or `demo`, with `=weight` behind it, or a Hugging
Face id. Imports nothing slow: commands look here before they load anything."""

from __future__ import annotations

import difflib
import glob
import json
import math
import re
from pathlib import Path
from typing import NamedTuple

from mipic_llm.config.files import legal_path
from mipic_llm.errors import UserError

JSON = (".jsonl", ".json", ".ndjson")
PACKED = (".gz", ".bz2", ".xz", ".zst")
SUFFIXES = (*JSON, ".csv", ".tsv", ".parquet", ".arrow", ".txt")
ACCEPTED = f"{' '.join(SUFFIXES)}, text ones also with {' '.join(PACKED)}"
# Of files that hold data too, and are not read. A readme or a script beside the data is no news.
_OTHERS = {
    ".feather", ".orc", ".avro", ".xlsx", ".xls", ".ods", ".zip", ".tar", ".tgz", ".7z", ".rar",
    ".lz4", ".pkl", ".pickle", ".sqlite", ".db", ".mds", ".lance", ".msgpack", ".tfrecord", ".xml",
}  # fmt: skip
HUB_ID = re.compile(
    r"(?P<id>[\w.-]+(/[\w.-]+)?)(:(?P<config>[^@\[\]]+))?(@(?P<revision>[^@\[\]]+))?"
    r"(\[(?P<split>[^\[\]]+(\[[^\[\]]*\])?)\])?"  # the split may itself be a slice: train[:10%]
)


def split_weight(spec: str) -> tuple[str, float]:
    name, found, number = spec.rpartition("=")
    if not found or legal_path(spec).exists():
        return spec, 1.0
    try:
        weight = float(number)
    except ValueError:
        return spec, 1.0
    if not (math.isfinite(weight) and weight > 0):
        raise UserError(f"data.train: the weight of {name} is {number}; give a number above 0")
    return name, weight


class Files(NamedTuple):
    """The files of a spec that are read, those of a folder that belong to another split, and those
    of kinds that are not read at all. qrels: of a folder in BEIR's layout, whose other files say
    what the texts are."""

    read: list[Path]
    beside: tuple[str, ...] = ()
    strange: tuple[str, ...] = ()
    qrels: Path | None = None


def files_of(spec: str, split: str = "train") -> Files | None:
    """The files that a spec names: a file, a folder, a glob, `demo` or (of evaluation alone)
    `demo-families`; None for a Hugging Face id.

    Where names of a folder's or glob's files say their split (train-0.parquet, test/x.jsonl), those
    of the wanted one are read. Raises UserError where there are none. Imports nothing slow.
    """
    if spec in ("demo", "demo-families"):
        from mipic_llm.data.demo import demo_path

        return Files([Path(demo_path(split))])
    path = legal_path(spec)
    if path.is_dir():
        if found := qrels_of(path):
            return _beir(path, found, split)
        # A folder saved by datasets has JSON about itself, and caches, beside its arrow files.
        files = _saved(path) or [file for file in sorted(path.rglob("*")) if is_data(file)]
        if not files:
            raise UserError(f"{spec} holds no data file; accepted: {ACCEPTED}")
        found = _of_split(files, path, split)
        odd = sorted(str(file.relative_to(path)) for file in path.rglob("*") if _is_strange(file))
        return found._replace(strange=tuple(odd))
    if path.exists():
        return Files([path])
    named_as_file = suffix_of(path) in SUFFIXES or spec.startswith((".", "~", "/"))
    if "*" in spec or "?" in spec or ("[" in spec and named_as_file):
        files = [Path(f) for f in sorted(glob.glob(str(path), recursive=True)) if Path(f).is_file()]
        if not files:
            raise UserError(f"no file matches {spec}; check the pattern")
        fixed = next(n for n, part in enumerate(path.parts) if set(part) & set("*?["))
        return _of_split(files, Path(*path.parts[:fixed]), split)
    if named_as_file or HUB_ID.fullmatch(spec) is None:
        raise UserError(f"no such file: {spec}; {nearest_file(path)}")
    return None


def _saved(folder: Path) -> list[Path]:
    """The arrow files of a Dataset, or of every split of a DatasetDict, that save_to_disk wrote."""
    states = [folder / "state.json", *sorted(folder.glob("*/state.json"))]
    try:
        return [
            state.parent / file["filename"]
            for state in states
            if state.is_file()
            for file in json.loads(state.read_text("utf-8"))["_data_files"]
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # another's state.json


_SPLIT = re.compile(r"(?<![a-z])(train(?:ing)?|validation|valid|val|dev|eval|test)(?![a-z])")
_SAME = {"training": "train"} | dict.fromkeys(("valid", "val", "dev", "eval"), "validation")
_NEXT = {"train": ("train", ""), "validation": ("validation", "test", "", "train"),
         "test": ("test", "validation", "", "train")}  # fmt: skip


def _of_split(files: list[Path], folder: Path, split: str) -> Files:
    """Those of the wanted split, by the names below the folder; all where no name tells."""
    by_split: dict[str, list[Path]] = {}
    for file in files:
        found = _SPLIT.findall(str(file.relative_to(folder)).lower())
        by_split.setdefault(_SAME.get(found[-1], found[-1]) if found else "", []).append(file)
    chosen = next((name for name in _NEXT[split] if name in by_split), None)
    if chosen is None:
        raise UserError(
            f"{folder} has no files of the split {split}, only of {' and '.join(by_split)}; name "
            "the file itself if it is what you want"
        )
    others = [str(f.relative_to(folder)) for f in files if f not in by_split[chosen]]
    return Files(by_split[chosen], tuple(others))


def check_files(specs: list[str]) -> None:
    """Raise UserError for the first of these specs (`=weight` may follow) that names no file."""
    for spec in specs:
        for name in texts_within(split_weight(spec)[0]):
            files_of(name)


def packed_by(path: Path) -> str:
    """One of PACKED, or nothing."""
    suffix = path.suffix.lower()
    return suffix if suffix in PACKED else ""


def suffix_of(path: Path) -> str:
    """That of the file within, where it is packed."""
    return Path(path.name.lower().removesuffix(packed_by(path))).suffix


def _is_strange(path: Path) -> bool:
    found = suffix_of(path) in _OTHERS or (bool(packed_by(path)) and not is_data(path))
    return found and path.is_file() and not path.name.startswith(".")


def qrels_of(folder: Path) -> dict[str, Path]:
    """The judgements of a folder in BEIR's layout, by split; empty where it is no such folder."""
    found = sorted((folder / "qrels").glob("*.tsv"))
    return {_SAME.get(file.stem.lower(), file.stem): file for file in found}


def texts_within(spec: str) -> list[str]:
    """Corpus and queries of a folder in BEIR's layout, whatever was judged; else the spec."""
    folder = legal_path(spec)
    if not qrels_of(folder):
        return [spec]
    files = (beir_file(folder, name) for name in ("corpus", "queries"))
    return [str(file) for file in files if file]


def _beir(folder: Path, qrels: dict[str, Path], split: str) -> Files:
    if split not in qrels:
        raise UserError(
            f"{folder} is a folder in BEIR's layout without qrels/{split}.tsv (it has "
            f"{', '.join(file.name for file in qrels.values())}); a training learns from its own "
            "judgements, evaluations (--data.validation, mipic evaluate) read the others"
        )
    texts = (beir_file(folder, name) for name in ("queries", "corpus"))
    others = (f"qrels/{file.name}" for name, file in qrels.items() if name != split)
    return Files([qrels[split], *filter(None, texts)], tuple(others), qrels=qrels[split])


def beir_file(folder: Path, name: str) -> Path | None:
    """The file of a folder in BEIR's layout that holds its corpus or its queries."""
    names = [*(f"{name}.jsonl{packed}" for packed in ("", *PACKED)), f"{name}.parquet"]
    return next((folder / each for each in names if (folder / each).is_file()), None)


def is_data(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and suffix_of(path) in SUFFIXES


def nearest_file(path: Path) -> str:
    """What to do about a missing file, with the nearest name in its folder."""
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist either"
    names = [file.name for file in path.parent.iterdir()]
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    return f"did you mean {path.parent / near[0]}?" if near else "check the path"
