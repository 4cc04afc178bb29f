"""2,000 odd files through every reader; see fuzz.py, which runs any number of them."""

from __future__ import annotations

import re

from ranks import ROOT, run_ranks


def test_readers_answer_or_refuse():
    code, said = run_ranks(1, ROOT / "tests" / "fuzz.py", ["--cases", "2000"])
    assert code == 0, said[-6000:]
    assert int(re.findall(r"([0-9]+) cases in", said)[0]) >= 1990
