"""What a study's YAML says: conditions x methods x seeds, and how the models are scored."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mipic_llm.config.fields import nearest
from mipic_llm.config.files import find_file, not_found
from mipic_llm.errors import UserError

KEYS = ("name", "recipe", "settings", "conditions", "methods", "seeds", "evaluate", "averages",
        "baseline", "untrained", "ranks", "ds_config")  # fmt: skip
EVALUATE_KEYS = ("data", "suite", "layers", "dims", "pca_text")
UNTRAINED = "untrained"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


class Evaluation(NamedTuple):
    """The flags of one `mipic evaluate`; None = its default."""

    data: list[str]
    suite: str | None
    layers: list[int] | None
    dims: list[int] | None
    pca_text: list[str]


class Trial(NamedTuple):
    """One trained (method given) or untrained (seed None) model."""

    condition: str
    method: str
    seed: int | None

    def __str__(self) -> str:
        last = "" if self.seed is None else f"/seed{self.seed}"
        return f"{self.condition}/{self.method}{last}"


class Study(NamedTuple):
    """A study as read. settings, conditions and methods hold flags by dotted key."""

    name: str
    recipe: str
    settings: dict[str, Any]
    conditions: dict[str, dict[str, Any]]
    methods: dict[str, dict[str, Any]]
    seeds: list[int]
    evaluate: list[Evaluation]
    averages: dict[str, list[str]]
    baseline: str
    untrained: bool
    ranks: int
    ds_config: str | None

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
    try:
        tree = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise not_found("study", "studies", str(path)) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{where}: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{where}: it must be a mapping with: {', '.join(KEYS)}")
    _known(tree, KEYS, where)
    try:
        return _study(tree, path, where)
    except (TypeError, ValueError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{where}: a value of a wrong type: {error}") from None


def _study(tree: dict[str, Any], path: Path, where: str) -> Study:
    methods = _flags(tree.get("methods"), f"{where}: methods")
    if not methods:
        raise UserError(f"{where}: methods is empty; name at least one, with its settings")
    conditions = _flags(tree.get("conditions") or {"all": {}}, f"{where}: conditions")
    name = str(tree.get("name") or path.stem)
    named = [("the study's name", name), *(("method", m) for m in methods)]
    for kind, word in [*named, *(("condition", c) for c in conditions)]:
        if not _NAME.fullmatch(word) or word == UNTRAINED:
            raise UserError(f"{where}: {kind} {word!r} cannot name a folder; rename it")
    seeds = tree.get("seeds", [42])
    if not isinstance(seeds, list) or not seeds or not all(type(s) is int for s in seeds):
        raise UserError(f"{where}: seeds is {seeds!r}; give a list of whole numbers")
    if len(set(seeds)) < len(seeds):
        raise UserError(f"{where}: seeds is {seeds}; give each once")
    baseline = str(tree.get("baseline") or next(iter(methods)))
    if baseline not in methods:
        raise UserError(f"{where}: baseline {baseline} is no method{nearest([baseline], methods)}")
    evaluations = tree.get("evaluate") or [{"data": ["demo"]}]
    evaluations = [evaluations] if isinstance(evaluations, dict) else evaluations
    settings = _flags({"settings": tree.get("settings") or {}}, where)["settings"]
    return Study(
        name=name,
        recipe=str(tree.get("recipe") or "quickstart"),
        settings=_located(settings, path.parent),
        conditions={k: _located(v, path.parent) for k, v in conditions.items()},
        methods=methods,
        seeds=seeds,
        evaluate=[_evaluation(e, path, where) for e in evaluations],
        averages={str(k): list(v) for k, v in (tree.get("averages") or {}).items()},
        baseline=baseline,
        untrained=bool(tree.get("untrained", True)),
        ranks=int(tree.get("ranks") or 1),
        ds_config=tree.get("ds_config"),
    )


def _known(tree: dict[str, Any], keys: tuple[str, ...], where: str) -> None:
    for key in tree:
        if key not in keys:
            raise UserError(f"{where}: unknown key {key}{nearest([str(key)], keys)}")


def _flags(tree: Any, where: str) -> dict[str, dict[str, Any]]:
    if not isinstance(tree, dict):
        raise UserError(f"{where} must be a mapping of names to settings, got {tree!r}")
    for name, flags in tree.items():
        if flags is not None and not isinstance(flags, dict):
            raise UserError(f"{where}.{name} must be a mapping such as objective.name: mrl")
    return {str(name): dict(flags or {}) for name, flags in tree.items()}


def _evaluation(tree: Any, path: Path, where: str) -> Evaluation:
    if not isinstance(tree, dict):
        raise UserError(f"{where}: evaluate must hold mappings with data: [files]")
    _known(tree, EVALUATE_KEYS, f"{where}: evaluate")
    if not tree.get("data") and not tree.get("suite"):
        raise UserError(f"{where}: evaluate names no data; give data: [files] or suite: FILE")
    data, pca = ([_locate(t, path.parent) for t in _texts(tree.get(k))] for k in
                 ("data", "pca_text"))  # fmt: skip
    suite = _locate(tree["suite"], path.parent) if tree.get("suite") else None
    return Evaluation(data, suite, tree.get("layers"), tree.get("dims"), pca)


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(v) for v in value or []]


def _located(flags: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Data paths as the runs, started from here, will find them."""
    keys = ("data.train", "data.validation")
    return {k: [_locate(t, folder) for t in _texts(v)] if k in keys else v
            for k, v in flags.items()}  # fmt: skip


def _locate(text: str, folder: Path) -> str:
    """Beside the YAML if it is there, else as written (from here, or no path at all)."""
    beside = folder / text.partition("=")[0]
    return str(folder / text) if beside.exists() and not Path(text).exists() else text
