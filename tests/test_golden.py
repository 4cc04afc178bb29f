"""Short trainings give the numbers that were recorded before; see tests/golden.py for all cases."""

from __future__ import annotations

import math

import golden
import pytest

RTOL, ATOL = 5e-5, 1e-6  # twice what other instructions of the CPU change

TRAINED = [case for case in golden.cases() if case.tested]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return golden.record(TRAINED, tmp_path_factory.mktemp("golden"))


def test_golden_json_holds_every_case() -> None:
    numbers = golden.read()
    assert list(numbers) == [c.name for w in golden.WORLDS for c in golden.cases() if c.world == w]
    for name, keys in numbers.items():
        assert {"loss", "loss/mrl", "grad_norm"} <= keys.keys(), name
        assert all(len(values) == golden.STEPS for values in keys.values()), name
        assert len(set(keys["loss"])) == golden.STEPS, name
        assert all(v is None or math.isfinite(v) for row in keys.values() for v in row), name


@pytest.mark.parametrize("case", [case.name for case in TRAINED])
def test_the_numbers_are_those_of_golden_json(trained, case: str) -> None:
    wanted = golden.read()[case]
    assert trained[case].keys() == wanted.keys()
    for key, values in wanted.items():
        gone = [v is None for v in values]
        assert [v is None for v in trained[case][key]] == gone, key
        found = [v for v in trained[case][key] if v is not None]
        present = [v for v in values if v is not None]
        assert found == pytest.approx(present, rel=RTOL, abs=ATOL), key
