"""Qwen3's layers in two nodes equal transformers' own, gradients too, in Triton's interpreter."""

from __future__ import annotations

import json

import pytest
from test_short_attention import HERE, pytestmark, python  # noqa: F401


@pytest.fixture(scope="module")
def found() -> dict[str, float]:
    return json.loads(python(str(HERE / "blocks_worker.py")).splitlines()[-1])


def test_layers_equal_transformers_with_gradients(found) -> None:
    assert found.pop("right") is True
    assert len(found) == 8
    for case, difference in found.items():
        assert difference < 1e-5, case
