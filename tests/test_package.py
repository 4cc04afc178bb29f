"""The wheel: what is in it, and that it works outside the repository, as an installed user has it.

`make wheel-check` does the same in a new environment with the real dependencies.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from ranks import ROOT, free_port
from tiny_models import tiny_bert

from mipic_llm import __version__
from mipic_llm.commands.run import COMMANDS
from mipic_llm.config import files

PARTS = ["mipic_llm", "launch", "ds_configs", "pyproject.toml", "setup.py", "README.md", "LICENSE",
         "MANIFEST.in"]  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, so that what an earlier build left in build/ cannot get in."""
    copy = tmp_path_factory.mktemp("source")
    for name in PARTS:
        ignored = shutil.ignore_patterns("__pycache__")
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, copy / name)
    run(["-m", "build", "--wheel", "--no-isolation", "."], copy, dict(os.environ))
    (found,) = (copy / "dist").glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The unpacked wheel, as site-packages would hold it."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def outside(installed, tmp_path) -> dict[str, str]:
    """The environment of a user whose current directory is tmp_path, far from the repository."""
    ranks = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "PYTHONPATH")
    env = {k: v for k, v in os.environ.items() if k not in ranks}
    rows = [f"a small boat {i},a little ship {i}\n" for i in range(9)]
    (tmp_path / "x.csv").write_text("anchor,positive\n" + "".join(rows))
    return env | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def run(words: list[str], cwd: Path, env: dict[str, str], code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, *words], cwd=cwd, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code, (done.stdout + done.stderr)[-4000:]
    return done.stdout + done.stderr


def tracked(pattern: str) -> set[str]:
    return {p.name for p in ROOT.glob(pattern)}


def test_what_is_in_the_wheel(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    (table,) = re.findall(r"^SHIPPED = (\{.*?^\})", (ROOT / "setup.py").read_text(), re.M | re.S)
    home = ast.literal_eval(table)
    for kind, suffix in files.SUFFIXES.items():
        there = {Path(n).name for n in names if n.startswith(f"mipic_llm/{kind}/")}
        assert there == tracked(f"{home[f'mipic_llm.{kind}']}/*{suffix}") != set()
        assert files.shipped(kind) == ROOT / home[f"mipic_llm.{kind}"]
    ours = {str(p.relative_to(ROOT)) for p in (ROOT / "mipic_llm").rglob("*.py")}
    ours |= {"mipic_llm/py.typed"}
    ours |= {f"mipic_llm/data/demo/{n}" for n in ("train.jsonl", "validation.jsonl")}
    assert ours <= set(names)
    others = [n for n in names if not n.startswith(("mipic_llm/", f"mipic_llm-{__version__}."))]
    assert not others and not [n for n in names if "test" in n and "/suites/" not in n]
    assert f"mipic_llm-{__version__}.dist-info/licenses/LICENSE" in names


def test_an_index_would_take_it(wheel, tmp_path):
    run(["-m", "twine", "check", "--strict", str(wheel)], tmp_path, dict(os.environ))
    with zipfile.ZipFile(wheel) as archive:
        info = f"mipic_llm-{__version__}.dist-info"
        meta = archive.read(f"{info}/METADATA").decode()
        points = archive.read(f"{info}/entry_points.txt").decode()
    assert "License-Expression: Apache-2.0" in meta and "Classifier: " in meta
    for package in ("deepspeed", "transformers", "torch"):
        assert re.search(rf"^Requires-Dist: {package}<\d[\d.]*,>=", meta, re.M), package
    assert "mipic = mipic_llm.commands.run:run" in points


def test_test_tools_are_pinned():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = (ROOT / "constraints.txt").read_text().lower().replace("_", "-")
    for need in [*extras["dependencies"], *extras["optional-dependencies"]["test"]]:
        name = re.split(r"[<>=\[]", need)[0]
        assert re.search(rf"^{name}==", pinned, re.M), name


def test_the_lowest_versions_are_those_that_were_tested():
    accepted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    tested = dict(re.findall(r"^([\w-]+)==(.+)$", (ROOT / "tests/lowest.txt").read_text(), re.M))
    lowest = {n: v for need in accepted for n, v in re.findall(r"^(.+?)>=([\d.]+)", need)}
    assert lowest.pop("torch") == "2.10"
    assert set(lowest) == set(tested)
    for name, version in tested.items():
        assert re.fullmatch(rf"{re.escape(lowest[name])}(\.0)*", version), name


def test_commands_without_a_repository(outside, tmp_path):
    text = run(["-m", "mipic_llm"], tmp_path, outside)
    assert all(re.search(rf"^  {name} ", text, re.M) for name in COMMANDS)
    assert len(text.splitlines()) <= 24 and max(map(len, text.splitlines())) <= 100
    assert run(["-m", "mipic_llm", "--version"], tmp_path, outside).strip() == __version__
    text = run(["-m", "mipic_llm", "trian"], tmp_path, outside, code=2)
    assert text == "error: mipic has no command trian; did you mean train?\n"
    flags = ["--recipe", "qwen3-0.6b", "--gpu", "h200", "--ds_config", "zero3"]
    for command in (["mipic_llm", "plan"], ["mipic_llm.plan"]):
        assert "ZeRO-3*" in run(["-m", *command, *flags], tmp_path, outside)
    for command in COMMANDS:
        text = run(["-m", "mipic_llm", command, "--help"], tmp_path, outside)
        assert f"usage: mipic {command}" in text
    text = run(["-m", "mipic_llm", "train", "--ds_config", "zero9"], tmp_path, outside, code=2)
    assert text.startswith("error: ") and "zero3_offload" in text
    code = (
        "from mipic_llm.config.files import find_file, shipped; import mipic_llm\n"
        "from mipic_llm.study.spec import read_study\n"
        "assert str(shipped('recipes')).startswith(mipic_llm.__path__[0])\n"
        "study = read_study('nli'); suite = study.evaluate[0]['suite']\n"
        "assert find_file('suites', 'sts').samefile(suite), suite\n"
    )
    run(["-c", code], tmp_path, outside)


def test_training_on_two_ranks_without_a_repository(outside, tmp_path):
    tiny_bert(tmp_path / "base")
    short = ["--model.name", "base", "--objective.dims", "8", "32", "--train.max_steps", "2",
             "--train.batch_size", "4", "--data.validation", "none", "--tracking.mlflow", "off",
             "--data.train", "x.csv", "--export.rehearse", "false"]  # fmt: skip
    launcher = Path(sys.executable).with_name("deepspeed")
    ranks = [str(launcher), "--num_accelerators", "2", "--master_port", str(free_port())]
    flags = ["--module", "mipic_llm", "train", "--ds_config", "zero3", *short]
    text = run([*ranks, *flags, "--output_dir", "two"], tmp_path, outside)
    assert "ZeRO-3, 2 rank(s)" in text
    assert (tmp_path / "two" / "adapter" / "adapter_model.safetensors").is_file()


def test_a_study_without_a_repository(outside, tmp_path):
    """Its trials are `mipic train` on one rank and `mipic evaluate`."""
    tiny_bert(tmp_path / "base")
    (tmp_path / "small.yaml").write_text(
        "methods: {mrl: {objective.name: mrl}}\nuntrained: false\n"
        "settings: {model.name: base, objective.dims: [8, 32], train.max_steps: 1,\n"
        "           train.batch_size: 4, data.train: x.csv, data.validation: none}\n"
        "evaluate: {data: demo, layers: [4], dims: [8]}\n"
    )
    words = ["-m", "mipic_llm", "study", "--study", "small.yaml", "--output_dir", "study"]
    run([*words, "--mlflow", "off"], tmp_path, outside)
    assert "| mrl |" in (tmp_path / "study" / "study.md").read_text()


def test_answers_that_need_no_torch_import_nothing_slow(outside, tmp_path):
    """Their time is measured by `python benchmarks/run.py startup`; here: what they import."""
    slow = {"torch", "numpy", "pandas", "transformers", "tokenizers", "deepspeed", "peft", "mlflow",
            "datasets", "pyarrow", "sentence_transformers", "matplotlib", "requests",
            "huggingface_hub"}  # fmt: skip

    def told(words: list[str], code: int = 0) -> str:
        text = run(["-X", "importtime", "-m", "mipic_llm", *words], tmp_path, outside, code)
        lines = text.splitlines(keepends=True)
        times = [line for line in lines if line.startswith("import time:")]
        modules = {line.rpartition("|")[2].strip().partition(".")[0] for line in times}
        assert "pydantic" in modules and "mipic_llm" in modules
        assert not slow & modules
        return "".join(line for line in lines if not line.startswith("import time:"))

    assert "--data.train" in told(["train", "--help"])
    for missing in (["train", "--data.train", "y.csv"], ["train", "--data.validation", "y.csv"],
                    ["evaluate", "--data", "y.csv"]):  # fmt: skip
        assert told(missing, code=2) == "error: no such file: y.csv; did you mean x.csv?\n"
