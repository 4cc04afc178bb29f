"""The arrows of the house: which room may import which, read from the source, not from a run."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mipic_llm"

GROUND = {"types", "errors", "quiet"}
# Room -> the rooms of ours that it may import (its own is always allowed).
ALLOWED = {
    "types": set(),
    "errors": set(),
    "quiet": set(),
    "config": GROUND,
    "losses": set(),
    "model": GROUND | {"config"},
    "data": GROUND | {"config"},
    "report": GROUND,
    "tracking": GROUND | {"config"},
    "runtime": GROUND | {"config", "model", "data"},
    "objective": GROUND | {"config", "losses", "model", "data", "runtime"},
    "export": GROUND,
    "evaluation": GROUND
    | {"config", "data", "model", "objective", "report", "runtime", "training"},
    "training": GROUND
    | {"config", "data", "evaluation", "export", "model", "objective", "report", "runtime",
       "tracking"},
    "plan": GROUND | {"config"},
    "study": GROUND | {"config", "evaluation", "report", "tracking"},
}  # fmt: skip
# Heavy packages and the only places that may name them.
ONLY_IN = {
    "deepspeed": {"runtime/engine.py"},
    "mlflow": {"tracking/mlflow_run.py"},
    "sentence_transformers": {"export/verify.py"},
}


def imports(path: Path) -> list[tuple[str, int]]:
    """Dotted names imported anywhere in the file (inside functions too), with their lines."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            found += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return found


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = sorted(PACKAGE.rglob("*.py"))


def test_there_is_something_to_check():
    assert len(FILES) > 40
    assert any(name.startswith("torch") for name, _ in imports(PACKAGE / "losses" / "mrl.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows_go_down(path):
    own = room(path)
    if own == "__init__":
        return
    assert own in ALLOWED, f"{own} is a new room: say in ALLOWED what it may import"
    for name, line in imports(path):
        parts = name.split(".")
        if parts[0] == "launch":
            pytest.fail(f"{path}:{line} imports launch")
        if parts[0] == "mipic_llm" and len(parts) > 1 and parts[1] != own:
            assert parts[1] in ALLOWED[own] | {"__version__"}, f"{path}:{line}: {own} -> {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_packages_have_one_home(path):
    place = str(path.relative_to(PACKAGE))
    for name, line in imports(path):
        for package, homes in ONLY_IN.items():
            if name.split(".")[0] == package or f".{package}" in name:
                home = any(place == h or place.startswith((h + "/", h + ".py")) for h in homes)
                assert home or name.startswith("mipic_llm"), f"{place}:{line} imports {name}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "losses").glob("*.py")), ids=lambda p: p.name)
def test_losses_are_torch_only(path):
    known = {"torch", "mipic_llm", "__future__", "typing", "math", "collections", "functools"}
    for name, line in imports(path):
        assert name.split(".")[0] in known, f"{path.name}:{line} imports {name}"


@pytest.mark.parametrize("path", sorted((ROOT / "launch").glob("*.py")), ids=lambda p: p.name)
def test_launchers_are_thin(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 60
