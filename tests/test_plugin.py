"""Terms of other packages: what is not installed or misbehaves costs one line. Their gradients are
compared in test_terms.py."""

from __future__ import annotations

import pytest
import terms  # noqa: F401  (puts tests/plugin where packages are looked for)
from terms import setting

from mipic_llm.errors import UserError
from mipic_llm.objective.plugin import parse


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("hinges=1", "no installed package has the term hinges .*hinge.*did you mean hinge"),
        ("hinge=a", "'hinge=a' is not NAME or NAME=WEIGHT"),
        ("absent", "absent cannot be loaded from example_terms:absent"),
    ],
)
def test_what_cannot_be_had_is_said(given: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        setting("--objective.plugins", given)
    assert "\n" not in str(caught.value)


def test_what_a_plugin_gives_is_looked_at() -> None:
    objective = setting("--objective.name", "mrl", "--objective.plugins", "wrong")
    z, rows = terms.readouts(1)
    with pytest.raises(UserError, match=r"wrong gave a tensor of shape \(2,\) at dim 2"):
        terms.found(objective, z, rows)


def test_names_and_weights() -> None:
    assert parse("a") == ("a", 1.0) and parse("a=0.5") == ("a", 0.5)
