"""2,000 odd files through every reader; see fuzz.py, which runs any number of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from ranks import ROOT


def test_readers_answer_or_refuse():
    command = [sys.executable, str(ROOT / "tests" / "fuzz.py"), "--cases", "2000"]
    env = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT))
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    assert int(re.findall(r"([0-9]+) cases in", done.stdout)[0]) >= 1990
