"""The arrows of the house: which room may import which, read from the source, not from a run.

A room is the first part of a path under mipic_llm/; imports inside functions and for type checkers
count too. `python tests/test_imports.py` prints the graph with the lines of each room.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from ranks import run_ranks

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mipic_llm"

GROUND = {"types", "errors", "quiet", "disk", "launched", "hub"}
# Room -> the rooms of ours that it may import (its own is always allowed), from the ground up.
ALLOWED: dict[str, set[str]] = {
    "types": set(),
    "errors": set(),
    "quiet": set(),
    "disk": set(),
    "launched": {"errors"},
    "hub": {"launched"},
    "config": GROUND,
    "losses": set(),
    "model": GROUND | {"config"},
    "data": GROUND | {"config"},
    "tracking": GROUND | {"config"},
    "report": GROUND,
    "runtime": GROUND | {"config", "model", "data"},
}
ALLOWED["objective"] = ALLOWED["runtime"] | {"losses", "runtime"}
ALLOWED["evaluation"] = ALLOWED["objective"] | {"objective", "report", "tracking"}
ALLOWED["export"] = ALLOWED["evaluation"] | {"evaluation"}
ALLOWED["training"] = ALLOWED["export"] | {"export"}
ALLOWED["mining"] = ALLOWED["training"] | {"training"}
ALLOWED["api"] = ALLOWED["mining"] | {"mining"}
ALLOWED["plan"] = GROUND | {"config", "model"}
ALLOWED["study"] = ALLOWED["api"] | {"api", "__init__"}
ALLOWED["commands"] = ALLOWED["study"] | {"study", "plan", "__init__"}
ALLOWED["__main__"] = {"commands"}
ALLOWED["__init__"] = ALLOWED["api"] | {"api"}
# Heavy packages and the only places that may name them.
ONLY_IN = {
    "deepspeed": {
        "runtime/start.py",
        "runtime/engine.py",
        "runtime/optimizer.py",
        "runtime/ds_config.py",
        "runtime/reshape.py",
    },  # fmt: skip
    "mlflow": {"tracking/mlflow_remote.py", "tracking/mlflow_model.py"},
    # The last of these: mlflow.sentence_transformers, a module of MLflow.
    "sentence_transformers": {"export/verify.py", "mining/texts.py", "tracking/mlflow_model.py"},
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
    """Of a file: its folder or file under mipic_llm; any __main__.py is a command line."""
    if path.name == "__main__.py":
        return "__main__"
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = sorted(PACKAGE.rglob("*.py"))


def target(name: str) -> str | None:
    """The room that a dotted name of an import lies in; None where it is not ours."""
    parts = name.split(".")
    if parts[0] != "mipic_llm":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in ALLOWED else "__init__"


def graph() -> dict[str, set[str]]:
    """Room -> the rooms that it imports."""
    found: dict[str, set[str]] = {room(path): set() for path in FILES}
    for path in FILES:
        rooms = {target(name) for name, _ in imports(path)} - {None, room(path)}
        found[room(path)] |= rooms
    return found


def test_there_is_something_to_check():
    assert len(FILES) > 40
    assert any(name.startswith("torch") for name, _ in imports(PACKAGE / "losses" / "infonce.py"))
    assert {"config", "types"} <= graph()["runtime"] and graph()["losses"] == set()


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows_go_down(path):
    own = room(path)
    assert own in ALLOWED, f"{own} is a new room: say in ALLOWED what it may import"
    for name, line in imports(path):
        assert not name.startswith("launch"), f"{path}:{line} imports launch"
        other = target(name)
        if other not in (None, own):
            assert other in ALLOWED[own], f"{path}:{line}: {own} -> {name}"


def test_no_circle_between_rooms():
    order = list(TopologicalSorter(graph()).static_order())  # raises CycleError
    assert order.index("config") < order.index("training") < order.index("commands")
    assert {r for rooms in ALLOWED.values() for r in rooms} <= set(ALLOWED)
    TopologicalSorter(ALLOWED).prepare()  # nor does the table itself allow one


def test_plan_and_study_are_imported_by_commands_alone():
    for own, rooms in graph().items():
        assert own == "commands" or not rooms & {"plan", "study"}, own


def test_a_training_starts_without_plan_or_study(tmp_path):
    (tmp_path / "look.py").write_text(
        "import sys, mipic_llm.training.loop, mipic_llm.commands.train\n"
        "loaded = {name.split('.')[1] for name in sys.modules if name.startswith('mipic_llm.')}\n"
        "assert 'training' in loaded and not loaded & {'plan', 'study'}, sorted(loaded)\n"
    )
    code, said = run_ranks(1, tmp_path / "look.py", [])
    assert code == 0, said


FORKED = """
import json, os, sys, traceback, torch
assert 'torch._dynamo' not in sys.modules and 'TORCHDYNAMO_DISABLE' not in os.environ
for name, code in json.loads(sys.argv[1]).items():
    if not os.fork():
        sys.stderr = os.fdopen(os.dup(1), 'w')
        try:
            exec(code, {})
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(name, 'ended with', os.wait()[1], flush=True)
"""
UNCOMPILED = """
import os, sys, mipic_llm.quiet
mipic_llm.quiet.import_uncompiled({package!r})
assert {{{package!r}, 'torch._dynamo'}} <= sys.modules.keys()
assert 'torch._inductor.compile_fx' not in sys.modules
assert 'TORCHDYNAMO_DISABLE' not in os.environ
"""
# DeepSpeed asks of an optimizer whether it is Muon, by an import.
OPTIMIZER = """
import sys, torch
from mipic_llm.runtime.optimizer import make_optimizer
one = torch.nn.Parameter(torch.zeros(2))
make_optimizer([{'params': [one]}], {one: 'one'}, 'adamw', 1)
from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam
assert 'torch._inductor.compile_fx' not in sys.modules
"""
WITHOUT = {
    "bitsandbytes": UNCOMPILED.format(package="bitsandbytes"),
    "muon": UNCOMPILED.format(package="deepspeed.runtime.zero.muon.muon_optimizer"),
    "an optimizer": OPTIMIZER,
}


@pytest.fixture(scope="module")
def told() -> str:
    """How each of WITHOUT ended, forked from one new process that has imported torch alone."""
    env = {k: v for k, v in os.environ.items() if k != "TORCHDYNAMO_DISABLE"}
    done = subprocess.run(
        [sys.executable, "-c", FORKED, json.dumps(WITHOUT)], env=env | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


@pytest.mark.parametrize("name", WITHOUT)
def test_what_a_start_imports_comes_without_the_compiler(told, name):
    assert f"{name} ended with 0\n" in told, told[-4000:]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_packages_have_one_home(path):
    place = str(path.relative_to(PACKAGE))
    for name, line in imports(path):
        for package, homes in ONLY_IN.items():
            if name.split(".")[0] == package or f".{package}" in name:
                home = any(place == h or place.startswith((h + "/", h + ".py")) for h in homes)
                assert home or name.startswith("mipic_llm"), f"{place}:{line} imports {name}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "losses").rglob("*.py")), ids=lambda p: p.name)
def test_losses_are_torch_only(path):
    known = {"torch", "mipic_llm", "__future__", "typing", "math", "collections", "functools",
             "itertools"}  # fmt: skip
    if path.name in ("kernels.py", "tile.py"):  # imported by sia/choice.py, on a GPU alone
        known |= {"triton"}
    for name, line in imports(path):
        assert name.split(".")[0] in known, f"{path.name}:{line} imports {name}"


def test_losses_do_not_load_triton():
    code = "import sys, mipic_llm.losses, torch\n" + (
        "mipic_llm.losses.sia_about(torch.device('cpu'), torch.float32)\n"
        "kernels = [n for n in sys.modules if n.startswith('mipic_llm.losses.sia.kernels')]\n"
        "assert 'triton' not in sys.modules and not kernels"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("path", sorted((ROOT / "launch").glob("*.py")), ids=lambda p: p.name)
def test_launchers_are_thin(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line]) <= 5


def show() -> None:
    """Print the rooms from the ground up: their lines, files and what they import."""
    rooms = graph()
    sizes = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in FILES}
    print(f"{'room':<12}{'lines':>7}{'files':>7}  imports")
    for name in TopologicalSorter(rooms).static_order():
        own = [n for p, n in sizes.items() if room(p) == name]
        print(f"{name:<12}{sum(own):>7,}{len(own):>7}  {' '.join(sorted(rooms[name]))}")
    print(f"{'together':<12}{sum(sizes.values()):>7,}{len(sizes):>7}\nabove 250 lines:")
    for path, n in sorted(sizes.items(), key=lambda item: -item[1]):
        if n > 250:
            print(f"  {path.relative_to(ROOT)} {n}")


if __name__ == "__main__":
    show()
