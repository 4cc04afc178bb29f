"""What a study's YAML says: conditions x methods x seeds, and how the models are scored."""

from __future__ import annotations

import itertools
import os
import re
from glob import glob
from pathlib import Path
from typing import Any, NamedTuple

from mipic_llm.config import nearest, need
from mipic_llm.config.files import find_file, legal_path, not_found
from mipic_llm.config.recipe import read_yaml
from mipic_llm.data.read.find import split_weight
from mipic_llm.errors import UserError, one_line

KEYS = ("name", "recipe", "settings", "conditions", "methods", "seeds", "evaluate", "averages",
        "baseline", "untrained", "max_length", "ranks", "ds_config", "data_from")  # fmt: skip
EVALUATE_KEYS = (
    "data", "suite", "layers", "dims", "pca_text", "lens_text", "bits", "bits_text", "centre",
    "asymmetric",
)  # fmt: skip
TEXTS = ("data", "pca_text", "lens_text", "bits_text")  # of an evaluation, that name files
UNTRAINED = "untrained"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


class Trial(NamedTuple):
    """One trained (method given) or untrained (seed None) model."""

    condition: str
    method: str
    seed: int | None

    def __str__(self) -> str:
        last = "" if self.seed is None else f"/seed{self.seed}"
        return f"{self.condition}/{self.method}{last}"


class Study(NamedTuple):
    """A study as read. settings, conditions, methods and evaluate hold flags by their names.
    max_length: tokens of a text in every evaluation; None = see `checks.one_length`. data_from:
    how its files are made, said where one cannot be read."""

    name: str
    recipe: str
    settings: dict[str, Any]
    conditions: dict[str, dict[str, Any]]
    methods: dict[str, dict[str, Any]]
    seeds: list[int]
    evaluate: list[dict[str, Any]]
    averages: dict[str, list[str]]
    baseline: str
    untrained: bool
    ranks: int
    ds_config: str | None
    max_length: int | None = None
    data_from: str = ""

    def trials(self) -> list[Trial]:
        """Seed by seed, so that a study that is cut short still compares every method."""
        found = [Trial(condition, UNTRAINED, None) for condition in self.conditions]
        every = itertools.product(self.seeds, self.conditions, self.methods)
        return found * self.untrained + [Trial(c, method, seed) for seed, c, method in every]

    def names(self) -> list[str]:
        """Of the methods in the order of tables and pictures, the untrained model first."""
        return [UNTRAINED] * self.untrained + list(self.methods)


def read_study(path: str | Path) -> Study:
    """Read a study's YAML: a file, or the name of a shipped one.

    Paths in it are relative to it or to the current directory, as in a suite's YAML. Raises
    UserError: unknown keys, wrong types, names that make no folder, a baseline that is no method.
    """
    path = find_file("studies", str(path)) or Path(path)
    where = f"study {path}"
    if not os.path.isfile(path):
        raise not_found("study", "studies", str(path))
    tree = read_yaml(path, where)
    need(isinstance(tree, dict), f"{where}: it must be a mapping with: {', '.join(KEYS)}")
    try:
        return _study(tree, path, where)
    except UserError:
        raise
    except Exception as error:  # one of a thousand wrong types
        raise UserError(f"{where}: a value of a wrong type: {one_line(error, 200)}") from None


def _study(tree: dict[str, Any], path: Path, where: str) -> Study:
    _known(tree, KEYS, where)
    methods = _flags(tree.get("methods"), f"{where}: methods")
    need(bool(methods), f"{where}: methods is empty; name at least one, with its settings")
    conditions = _flags(tree.get("conditions") or {"all": {}}, f"{where}: conditions")
    name = str(tree.get("name") or path.stem)
    for word in (name, *methods, *conditions):
        need(_NAME.fullmatch(word) is not None and word != UNTRAINED and len(word) < 100,
             f"{where}: {word!r} cannot name a folder; rename it")  # fmt: skip
    seeds = tree.get("seeds", [42])
    need(isinstance(seeds, list) and seeds != [] and all(type(s) is int for s in seeds),
         f"{where}: seeds is {seeds!r}; give a list of whole numbers")  # fmt: skip
    need(len(set(seeds)) == len(seeds), f"{where}: seeds is {seeds}; give each once")
    baseline = str(tree.get("baseline") or next(iter(methods)))
    need(baseline in methods,
         f"{where}: baseline {baseline} is no method{nearest([baseline], methods)}")  # fmt: skip
    length = tree.get("max_length")
    need(length is None or (type(length) is int and length >= 4),
         f"{where}: max_length is {length!r}; give a whole number of tokens, from 4")  # fmt: skip
    evaluations = tree.get("evaluate") or {"data": ["demo"]}
    evaluations = [evaluations] if isinstance(evaluations, dict) else evaluations
    settings = _flags({"settings": tree.get("settings")}, where)["settings"]
    return Study(
        name=name,
        recipe=str(tree.get("recipe") or "quickstart"),
        settings=_located(settings, path.parent),
        conditions={k: _located(v, path.parent) for k, v in conditions.items()},
        methods={k: _located(v, path.parent) for k, v in methods.items()},
        seeds=seeds,
        evaluate=[_evaluation(e, path.parent, where) for e in evaluations],
        averages={str(k): list(v) for k, v in (tree.get("averages") or {}).items()},
        baseline=baseline,
        untrained=bool(tree.get("untrained", True)),
        ranks=int(tree.get("ranks") or 1),
        ds_config=tree.get("ds_config"),
        max_length=length,
        data_from=str(tree.get("data_from") or ""),
    )


def _known(tree: dict[str, Any], keys: tuple[str, ...], where: str) -> None:
    for key in tree:
        need(key in keys, f"{where}: unknown key {key}{nearest([str(key)], keys)}")


def _flags(tree: Any, where: str) -> dict[str, dict[str, Any]]:
    need(isinstance(tree, dict), f"{where} must be a mapping of names to settings, got {tree!r}")
    for name, flags in tree.items():
        need(flags is None or isinstance(flags, dict),
             f"{where}.{name} must be a mapping such as objective.name: mrl")  # fmt: skip
    return {str(name): dict(flags or {}) for name, flags in tree.items()}


def _evaluation(tree: Any, folder: Path, where: str) -> dict[str, Any]:
    """Flags of one `mipic evaluate`."""
    need(isinstance(tree, dict), f"{where}: evaluate must hold mappings with data: [files]")
    _known(tree, EVALUATE_KEYS, f"{where}: evaluate")
    need(bool(tree.get("data") or tree.get("suite")),
         f"{where}: evaluate names no data; give data: [files] or suite: FILE")  # fmt: skip
    return _located(tree, folder)


def _located(flags: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The flags with data paths as the runs, started from here, will find them."""
    found = dict(flags)
    for key in ("data.train", "data.validation", *TEXTS, "suite"):
        if value := flags.get(key):
            texts = [value] if isinstance(value, str) else [str(v) for v in value]
            texts = [_locate(text, folder) for text in texts]
            found[key] = texts[0] if key == "suite" else texts
    return found


def _locate(text: str, folder: Path) -> str:
    """Beside the YAML if it is there, else as written (from here, or no path at all)."""

    def there(spec: str) -> bool:
        path = split_weight(spec)[0]
        return legal_path(path).exists() or bool(glob(path))

    beside = str(folder / text)
    return beside if there(beside) and not there(text) else text
