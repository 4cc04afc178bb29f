"""Tiles that short texts share: how they are cut, and the Triton kernels in Triton's interpreter.

The kernels need the package triton, which CUDA builds of torch bring along; `make install` puts one
aside for this test (.venv/triton), since DeepSpeed would start slower wherever it finds one.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ASIDE = Path(sys.prefix) / "triton"

pytestmark = pytest.mark.skipif(
    not (ASIDE / "triton").is_dir() and importlib.util.find_spec("triton") is None,
    reason="no package triton; make install brings one",
)


def python(*command: str, **variables: str) -> str:
    path = os.pathsep.join([str(HERE.parent), str(ASIDE), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": path} | variables
    done = subprocess.run([sys.executable, *command], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_kernels_equal_attention_text_by_text() -> None:
    found = json.loads(python(str(HERE / "short_attention_worker.py")).splitlines()[-1])
    assert found.pop("right") == [True, True, True]
    assert len(found) == 4
    for case, difference in found.items():
        assert difference < 3e-5, case


def test_tiles_hold_whole_texts() -> None:
    code = """
import torch
from mipic_llm.model.tiles import tiles
cut = tiles((70, 40, 65, 30, 30, 4, 60, 64, 1), torch.device("cpu"))
assert (cut.long_rows, cut.long_texts, cut.longest) == (175, 3, 70)  # up to the last long one
assert cut.start_t1.tolist() == [0, 64, 124, 188, 189]
cut = tiles((64,) * 3, torch.device("cpu"))
assert cut.start_t1.tolist() == [0, 64, 128, 192] and cut[1:4] == (0, 0, 0)
assert cut.wide_t1 is None and cut.far == (0, 0, 0)
assert tiles((10, 65), torch.device("cpu")) is None
lengths = (300, 129, 128, 70, 50, 90, 64, 3)  # 50 lies between two that are too long for a tile
cut = tiles(lengths, torch.device("cpu"), wide=True)
assert cut[1:4] == (767, 6, 300) and cut.start_t1.tolist() == [0, 64, 67]
assert cut.far == (429, 2, 300) and cut.wide_t1.tolist() == [429, 557, 677, 767]
cut = tiles(lengths, torch.device("cpu"))
assert cut.wide_t1 is None and cut.far == cut[1:4]
"""
    python("-c", code)
