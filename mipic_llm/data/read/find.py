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
from mipic_llm.data.read.folders import (
    PACKED,
    SUFFIXES,
    Beir,
    Splits,
    beir_of,
    configs_of,
    is_data,
    packed_by,
    split_named,
    suffix_of,
)
from mipic_llm.errors import UserError

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
    of kinds that are not read at all. beir: the folder's tables, where it is in that layout and
    what was judged is read."""

    read: list[Path]
    beside: tuple[str, ...] = ()
    strange: tuple[str, ...] = ()
    beir: Beir | None = None


def files_of(spec: str, split: str = "train") -> Files | None:
    """The files that a spec names: a file, a folder, a glob, `demo` or (of evaluation alone)
    `demo-families`; None for a Hugging Face id.

    Where names of a folder's or glob's files say their split (train-0.parquet, test/x.jsonl), those
    of the wanted one are read. FOLDER:NAME is the data set (or FOLDER:NAME[SPLIT]) that a folder's
    README.md names. Raises UserError where there are none. Imports nothing slow.
    """
    if spec in ("demo", "demo-families"):
        from mipic_llm.data.demo import demo_path

        return Files([Path(demo_path(split))])
    path = legal_path(spec)
    if path.is_dir():
        if beir := beir_of(path):
            return _beir(path, beir, split)
        if len(configs := configs_of(path)) > 1:
            return _of_config(path, "default", configs, split)
        # A folder saved by datasets has JSON about itself, and caches, beside its arrow files.
        files = _saved(path) or [file for file in sorted(path.rglob("*")) if is_data(file)]
        if not files:
            raise UserError(f"{spec} holds no data file; accepted: {ACCEPTED}")
        found = _of_split(files, path, split)
        odd = sorted(str(file.relative_to(path)) for file in path.rglob("*") if _is_strange(file))
        return found._replace(strange=tuple(odd))
    if path.exists():
        return Files([path])
    named = _CONFIG.fullmatch(spec)
    if named and (folder := legal_path(named["folder"])).is_dir():
        return _of_config(folder, named["config"], configs_of(folder), split, named["split"])
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
_NEXT = {"train": ("train", ""), "validation": ("validation", "test", "", "train"),
         "test": ("test", "validation", "", "train")}  # fmt: skip
_CONFIG = re.compile(r"(?P<folder>.+):(?P<config>[^:/@\[\]]+)(\[(?P<split>[^\[\]]+)\])?")


def _of_split(files: list[Path], folder: Path, split: str) -> Files:
    """Those of the wanted split, by the names below the folder; all where no name tells."""
    by_split: Splits = {}
    for file in files:
        found = _SPLIT.findall(str(file.relative_to(folder)).lower())
        by_split.setdefault(split_named(found[-1]) if found else "", []).append(file)
    return _chosen(by_split, folder, _NEXT[split])


def _of_config(
    folder: Path, name: str, configs: dict[str, Splits], split: str, own: str | None = None
) -> Files:
    """The split of a data set of a folder; those whose names tell nothing are all for training.
    own: the one that the spec names."""
    if name not in configs:
        raise UserError(
            f"{folder} holds "
            + (f"the data sets {', '.join(configs)}; name one: {folder}:{next(iter(configs))}"
               if configs else f"no README.md that names a data set {name}; give {folder} alone")
            + ", or some of its files by a pattern"
        )  # fmt: skip
    if own:
        return _chosen(configs[name], folder, (split_named(own),))
    by_split: Splits = {}
    for key, files in configs[name].items():
        by_split.setdefault(key if key in _NEXT else "", []).extend(files)
    return _chosen(by_split, folder, _NEXT[split])


def _chosen(by_split: Splits, folder: Path, wanted: tuple[str, ...]) -> Files:
    """The files of the first of the wanted splits that is there."""
    chosen = next((name for name in wanted if name in by_split), None)
    if chosen is None:
        raise UserError(
            f"{folder} has no files of the split {wanted[0]}, only of {' and '.join(by_split)}; "
            "name the file itself if it is what you want"
        )
    files = [file for name, some in by_split.items() if name != chosen for file in some]
    return Files(by_split[chosen], tuple(str(file.relative_to(folder)) for file in files))


def check_files(specs: list[str]) -> None:
    """Raise UserError for the first of these specs (`=weight` may follow) that names no file."""
    for spec in specs:
        for name in texts_within(split_weight(spec)[0]):
            files_of(name)


def _is_strange(path: Path) -> bool:
    found = suffix_of(path) in _OTHERS or (bool(packed_by(path)) and not is_data(path))
    return found and path.is_file() and not path.name.startswith(".")


def texts_within(spec: str) -> list[str]:
    """Corpus and queries of a folder in BEIR's layout, whatever was judged; else the spec."""
    beir = beir_of(legal_path(spec))
    return [str(file) for file in (*beir.corpus, *beir.queries)] if beir else [spec]


def _beir(folder: Path, beir: Beir, split: str) -> Files:
    if split not in beir.qrels:
        raise UserError(
            f"{folder} is a folder in BEIR's layout without qrels/{split}.tsv (it has "
            f"{', '.join(file.name for files in beir.qrels.values() for file in files)}); a "
            "training learns from its own judgements, evaluations (--data.validation, mipic "
            "evaluate) read the others"
        )
    found = _chosen(beir.qrels, folder, (split,))
    return found._replace(read=[*found.read, *beir.queries, *beir.corpus],
                          beir=beir._replace(qrels={split: found.read}))  # fmt: skip


def nearest_file(path: Path) -> str:
    """What to do about a missing file, with the nearest name in its folder."""
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist either"
    names = [file.name for file in path.parent.iterdir()]
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    return f"did you mean {path.parent / near[0]}?" if near else "check the path"
