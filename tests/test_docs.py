"""What the pages of docs/ tell a user to type exists and is read as they say."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from ranks import ROOT
from test_readme import OWN

from mipic_llm.commands import export
from mipic_llm.config import load_config
from mipic_llm.config.evaluating import EvaluateFlags
from mipic_llm.config.merging import MergeFlags
from mipic_llm.config.read import ALIASES
from mipic_llm.config.schema import OPTIONS
from mipic_llm.data.read.training import read_training
from mipic_llm.mining.settings import MineFlags

DOCS = ROOT / "docs"
PAGES = sorted(p for p in DOCS.rglob("*.md") if "notes" not in p.parts)
FENCE = re.compile(r"```(\w+)\n(.*?)```", re.S)
BLOCKS = [(p.name, *found) for p in PAGES for found in FENCE.findall(p.read_text("utf-8"))]
COMMANDS = [line.split("  #")[0].strip() for _, kind, text in BLOCKS if kind == "sh"
            for line in text.replace("\\\n", " ").splitlines() if line.strip()]  # fmt: skip
# Flags of other programs: of MLflow's, and of other trainers in the tables that translate them.
THEIRS = {"train_group_size", "temperature", "negatives_cross_device", "task_type", "loss_type",
          "query_instruction_for_retrieval", "grad_cache", "gc_q_chunk_size", "pooling",
          "append_eos_token", "lora_r", "deepspeed", "env", "port",
          "query_prefix", "passage_prefix"}  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_flags_exist(page: Path) -> None:
    flags = set(re.findall(r"(?<![\w-])--([a-z_][\w.]*)", page.read_text("utf-8")))
    allowed = set(OPTIONS) | set(ALIASES) | OWN
    assert (
        not flags
        - allowed
        - (THEIRS if page.name in ("coming-from.md", "mlflow.md", "csv.md") else set())
    )


def test_commands_are_read(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text("seed: 1\n")
    extras = {"train": None, "evaluate": EvaluateFlags, "export": export.Flags,
              "merge": MergeFlags, "mine": MineFlags}  # fmt: skip
    seen = set()
    for command in COMMANDS:
        words = shlex.split(command)
        if words[:2] != ["mipic", *words[1:2]] or len(words) < 2:
            continue
        if words[1] not in extras:  # they have parsers of their own
            assert (ROOT / "mipic_llm" / "commands" / f"{words[1]}.py").is_file(), command
            continue
        seen.add(words[1])
        load_config(words[2:], extra=extras[words[1]])
    assert seen == set(extras)


def test_python_blocks_compile() -> None:
    found = [compile(text, name, "exec") for name, kind, text in BLOCKS if kind == "python"]
    assert len(found) > 1


def test_recipes_of_the_pages_are_recipes(tmp_path) -> None:
    texts = [text for _, kind, text in BLOCKS if kind == "yaml" and "{{" not in text]
    assert texts
    for text in texts:
        (tmp_path / "a.yaml").write_text(text)
        load_config(["--recipe", str(tmp_path / "a.yaml")])


def test_rows_of_the_table_are_read() -> None:
    text = (DOCS / "reference" / "formats.md").read_text("utf-8")
    rows = [json.loads(row) for row in re.findall(r"`(\{.*?\})` \|", text)]
    assert len(rows) > 8
    for row in rows:
        more = [row | {"score": 0.1}] if "score" in row else []
        (source,), _ = read_training([[row, *more]], negatives=1)
        assert source.examples


def test_the_site_is_built_without_a_warning(tmp_path) -> None:
    pytest.importorskip("mkdocs")
    env = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    words = ["build", "--strict", "--quiet", "-d", str(tmp_path / "site")]
    done = subprocess.run([sys.executable, "-m", "mkdocs", *words], cwd=ROOT, env=env,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    options = (tmp_path / "site" / "reference" / "options" / "index.html").read_text("utf-8")
    assert all(f"--{key}" in options for key in OPTIONS)
    python = (tmp_path / "site" / "reference" / "python" / "index.html").read_text("utf-8")
    assert "mipic_llm.api.train" in python
