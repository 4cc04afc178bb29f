"""What lies in a folder that is more than a heap of files: the data sets that its README.md names,
as on a Hugging Face hub, and tables in BEIR's layout. Imports nothing slow."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

JSON = (".jsonl", ".json", ".ndjson")
PACKED = (".gz", ".bz2", ".xz", ".zst")
SUFFIXES = (*JSON, ".csv", ".tsv", ".parquet", ".arrow", ".txt")
_MOST = 1 << 20  # letters of a README.md, which may be a stranger's
_SAME = {"training": "train"} | dict.fromkeys(("valid", "val", "dev", "eval"), "validation")
Splits = dict[str, list[Path]]


class Beir(NamedTuple):
    """The files of a folder in BEIR's layout (Thakur et al. 2021, arXiv 2104.08663); of its
    judgements by split. A table that is not there has none."""

    corpus: list[Path]
    queries: list[Path]
    qrels: Splits


def configs_of(folder: Path) -> dict[str, Splits]:
    """The data sets ("configs") that the YAML on top of a folder's README.md names, by split; those
    without files are left out. Source: huggingface.co/docs/hub/datasets-manual-configuration."""
    try:
        with (folder / "README.md").open(encoding="utf-8") as file:
            top = re.match(r"---\s*\n(.*?)\n---", file.read(_MOST), re.DOTALL)
        told = yaml.load(top[1], yaml.BaseLoader) if top else None  # `no` is a language
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    given = told.get("configs") if isinstance(told, dict) else None
    found = dict[str, Splits]()
    for one in given if isinstance(given, list) else []:
        if isinstance(one, dict) and (splits := _splits(folder, one.get("data_files"))):
            found[str(one.get("config_name", "default"))] = splits
    return found


def _splits(folder: Path, told: Any) -> Splits:
    """told: a pattern, several, or {split, path} for each split."""
    found: Splits = {}
    for one in told if isinstance(told, list) else [told]:
        one = one if isinstance(one, dict) else {"split": "train", "path": one}
        name, paths = split_named(str(one.get("split"))), one.get("path")
        for path in paths if isinstance(paths, list) else [paths]:
            inside = isinstance(path, str) and path and {"..", "/"}.isdisjoint(Path(path).parts)
            try:
                files = sorted(filter(is_data, folder.glob(path))) if inside else []
            except ValueError:  # no pattern: a**b
                files = []
            if files:
                found.setdefault(name, []).extend(files)
    return found


def beir_of(folder: Path) -> Beir | None:
    """The tables of a folder in BEIR's layout: qrels/SPLIT.tsv beside corpus.jsonl and
    queries.jsonl, or a hub's copy, whose tables are folders, or named in its README.md. None where
    nothing was judged."""
    qrels: Splits = {}
    files = sorted(filter(is_data, (folder / "qrels").glob("*")))
    for file in [f for f in files if f.suffix == ".tsv"] or files:
        stem = re.sub(r"-\d+-of-\d+$", "", file.name.partition(".")[0])
        qrels.setdefault(split_named(stem), []).append(file)
    configs = {} if qrels else configs_of(folder)
    texts = {name: [f for files in configs[name].values() for f in files]
             for name in ("corpus", "queries") if name in configs}  # fmt: skip
    if len(texts) == 2:
        qrels = configs.get("qrels") or configs.get("default") or {}
    if not qrels:
        return None
    return Beir(
        *(texts.get(name) or beir_texts(folder, name) for name in ("corpus", "queries")), qrels
    )


def beir_texts(folder: Path, name: str) -> list[Path]:
    """The files of a folder in BEIR's layout that hold its corpus or its queries."""
    names = [*(f"{name}.jsonl{packed}" for packed in ("", *PACKED)), f"{name}.parquet"]
    one = next((folder / each for each in names if (folder / each).is_file()), None)
    return [one] if one else sorted(filter(is_data, (folder / name).glob("*")))


def split_named(name: str) -> str:
    """train, validation or test where a split has another name for it, else its name."""
    return _SAME.get(name.lower(), name)


def packed_by(path: Path) -> str:
    """One of PACKED, or nothing."""
    suffix = path.suffix.lower()
    return suffix if suffix in PACKED else ""


def suffix_of(path: Path) -> str:
    """That of the file within, where it is packed."""
    return Path(path.name.lower().removesuffix(packed_by(path))).suffix


def is_data(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and suffix_of(path) in SUFFIXES
