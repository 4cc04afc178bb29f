"""What README.md tells a user to type works: commands are run, flags and files exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from ranks import ROOT, run_command
from tiny_models import few

from mipic_llm.commands import compare, export
from mipic_llm.config.evaluating import EvaluateFlags
from mipic_llm.config.read import ALIASES
from mipic_llm.config.schema import OPTIONS
from mipic_llm.mining.settings import MineSettings

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.S)
COMMANDS = [
    line.split("#")[0].strip()
    for kind, block in BLOCKS
    if kind == "sh"
    for line in block.replace("\\\n", " ").splitlines()
    if line.split("#")[0].strip()
]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("benchmarks/*.md")])
LINKS = re.compile(r"\]\((?!https?:)([^()#\s]*)#?([^()\s]*)\)")
OWN = {"help", "study", "jobs", "print_config", "num_gpus", "num_accelerators", "hostfile",
       "output", "ranks", "module", "gpu", "sweep", "json", "keep", "write", "budget", "out",
       "mean_tokens", "runs", "how", "weights", "scale", "rule", "slack",
       *(name for kind in (EvaluateFlags, compare.Flags, export.Flags)
         for name in kind.model_fields),
       *(f"mine.{name}" for name in MineSettings.model_fields)}  # fmt: skip


def test_flags_exist():
    flags = {f.replace("-", "_") for f in re.findall(r"(?<![\w-])--([a-z_][\w.]*)", TEXT)}
    assert len(flags) > 10
    assert not flags - set(OPTIONS) - set(ALIASES) - OWN


def test_files_exist():
    text = "".join(p.read_text("utf-8") for p in PAGES if "notes" not in p.parts)
    named = re.findall(r"`((?:launch|ds_configs|mipic_llm|benchmarks|tests)/[\w./*-]*)`", text)
    assert len(named) > 8
    for name in named:
        assert list(ROOT.glob(name.rstrip("/"))), name


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(path):
    for name, anchor in LINKS.findall(path.read_text(encoding="utf-8")):
        page = path.parent / name if name else path
        assert page.exists(), f"{path.name}: {name}"
        if anchor:
            heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
            anchors = {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in heads}
            assert anchor in anchors, f"{path.name}: {name}#{anchor}"


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in COMMANDS:
        if command.startswith("make "):
            assert re.search(rf"^{command.split()[1]}:", makefile, re.M), command


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The README's training command, two steps and 60 graded pairs long, in its own directory."""
    out = tmp_path_factory.mktemp("readme") / "outputs" / "quickstart"
    (command,) = [c for c in COMMANDS if c == "deepspeed launch/train.py "
                  "--ds_config ds_configs/zero3.json"]  # fmt: skip
    short = ["--train.max_steps", "2", "--train.batch_size", "8", "--output_dir", str(out),
             "--data.validation", str(few(out.parent, "validation", 60)),
             "--tracking.mlflow", "off"]  # fmt: skip
    run([*shlex.split(command), *short])
    return out


def run(words: list[str]) -> str:
    """As typed, in the environment that runs the tests; GPU-free, as a fresh process."""
    ranks = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    env = {k: v for k, v in os.environ.items() if k not in ranks}
    here = str(Path(sys.executable).parent)
    env |= {"PATH": f"{here}{os.pathsep}{env['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def test_training_leaves_what_is_promised(trained):
    for name in ("adapter", "parity.json", "scores.jsonl", "metrics.jsonl", "table.txt", "rows.npz",
                 "rows-before.npz", "comparison.json", "quality.png", "loss.png", "config.yaml",
                 "environment.json"):  # fmt: skip
        assert (trained / name).exists(), name


LATER = tuple(f"python launch/{name}.py" for name in ("export", "evaluate", "compare"))


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith(LATER)])
def test_later_commands_run(trained, command, tmp_path):
    words = command.replace("outputs/quickstart", str(trained)).split()
    words = [w.replace("outputs/scores", str(trained.parent / "scores")) for w in words]
    assert str(trained) in " ".join(words)
    code, said = run_command(words[1:], ROOT, tmp_path / "log")  # not from nothing: `trained` was
    assert code == 0, said[-4000:]


def test_the_plan_answers():
    (command,) = [c for c in COMMANDS if c.startswith("python -m mipic_llm.plan")]
    assert "ZeRO-3" in run(command.split())


def test_the_installed_command_answers():
    found = [c.split() for c in COMMANDS if c.split()[0] == "mipic"]
    assert found
    for _, *words in found:
        training = ["--print_config"] if words[:1] == ["train"] else []
        shown = run([sys.executable, "-m", "mipic_llm", *words, *training])
        wanted = {"train": "mine.jsonl", "plan": "ZeRO-3"}
        assert wanted.get(words[0] if words else "", "evaluate") in shown, words


def test_snippet_runs(trained):
    (code,) = [b for kind, b in BLOCKS if kind == "python" and "SentenceTransformer" in b]
    names: dict = {}
    exec(code.replace("outputs/quickstart", str(trained)), names)
    assert names["vectors"].shape == (2, 64)
