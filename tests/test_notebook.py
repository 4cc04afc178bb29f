"""The lines of docs/use/python.md, one per cell, in a real notebook kernel."""

from __future__ import annotations

import ast
import csv
import re

import nbformat
import pytest
from nbclient import NotebookClient
from ranks import ROOT

from mipic_llm.data.demo import demo_path
from mipic_llm.data.read.training import read_training

PAGE = (ROOT / "docs" / "use" / "python.md").read_text(encoding="utf-8")
(CODE,) = re.findall(r"```python\n([^`]*mipic_llm\.train.*?)```", PAGE, re.S)
LINES = [ast.unparse(statement) for statement in ast.parse(CODE).body]


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """The folder, and every cell's outputs as {mime type or stream name: text}."""
    folder = tmp_path_factory.mktemp("notebook")
    sources, _ = read_training(demo_path("train"), negatives=0)
    with (folder / "pairs.csv").open("w", newline="") as file:
        rows = [(e.anchor, e.positive) for e in sources[0].examples[:64]]
        csv.writer(file).writerows([("anchor", "positive"), *rows])
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(x) for x in LINES])
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=place).execute()
    found = []
    for cell in notebook.cells:
        found.append({})
        for output in cell.outputs:
            for kind, text in (output.get("data") or {output.name: output.text}).items():
                found[-1][kind] = found[-1].get(kind, "") + text
    return folder, found


def test_ten_lines_run(cells):
    folder, outputs = cells
    assert len(LINES) == len(outputs) >= 10
    assert {p.name for p in (folder / "outputs" / "mine").iterdir()} >= {"adapter", "shallow-3x64"}


def test_training_prints_the_lines_and_the_bar_of_the_command(cells):
    _, outputs = cells
    (trained,) = (output for line, output in zip(LINES, outputs, strict=True) if "train(" in line)
    assert "read 64 rows of Dataset[0] as anchor/positive" in trained["stdout"]
    assert "reloaded and compared" in trained["stdout"]
    assert "2/2" in trained["stderr"] and "Warning" not in trained["stderr"]


@pytest.mark.parametrize(
    ("line", "kind", "piece"),
    [
        ("run.scores", "text/html", "<th>before</th>"),
        ("run.plot()", "image/png", "iVBOR"),
        ("run.encode", "text/plain", "float32"),
        ("mipic_llm.evaluate", "text/html", "<th>dim</th>"),
        ("mipic_llm.export", "text/plain", "shallow-3x64"),
        ("mipic_llm.load", "text/plain", "array"),
    ],
)
def test_results_show(cells, line, kind, piece):
    (output,) = (o for text, o in zip(LINES, cells[1], strict=True) if text.startswith(line))
    assert piece in output[kind]
