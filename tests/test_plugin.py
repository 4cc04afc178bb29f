"""Terms of other packages: what is not installed or misbehaves costs one line. Their gradients are
compared in test_terms.py."""

from __future__ import annotations

import pytest
import terms  # noqa: F401  (puts tests/plugin where packages are looked for)
import torch
from terms import setting

from mipic_llm.config import OBJECTIVES
from mipic_llm.errors import UserError
from mipic_llm.objective.plugin import OURS, parse


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("hinges=1", "no installed package has the term hinges .*hinge.*did you mean hinge"),
        ("hinge=a", "'hinge=a' is not NAME or NAME=WEIGHT"),
        ("hinge=-1", "'hinge=-1': a weight must be 0 or more"),
        ("hinge,hinge=2", "hinge is there twice; give it once"),
        ("align", "logs a value align of its own; give the entry point another name"),
        ("absent", "absent cannot be loaded from example_terms:absent"),
    ],
)
def test_what_cannot_be_had_is_said(given: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        setting("--objective.plugins", given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "told"),
    [(torch.ones(2), r"a tensor of shape \(2,\)"), (1.0, "1.0"),
     (torch.tensor(1.0), r"a tensor of shape \(\)")],  # a constant, of which nothing is learnt
)  # fmt: skip
def test_what_a_plugin_gives_is_looked_at(value, told: str, monkeypatch) -> None:
    objective = setting("--objective.name", "mrl", "--objective.plugins", "hinge")
    monkeypatch.setattr(objective.terms[-1], "function", lambda *_: value)
    z, rows = terms.readouts(1)
    with pytest.raises(UserError, match=f"hinge gave {told} at dim 2; it must give a scalar"):
        terms.found(objective, z, rows)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_terms_of_ours_log_is_known(name: str) -> None:
    teacher = [f"--teacher.{one}=1" for one in ("relation", "vector", "scores", "margin")]
    objective = setting("--objective.name", name, "--objective.gor", "1", "--scored.loss", "both",
                        "--teacher.name", "base", *teacher, "--sia.sentences", "1")  # fmt: skip
    names = {name for term in objective.terms for name, _ in term.local}
    objective.terms = [term for term in objective.terms if not term.local]
    z, rows = terms.readouts(1)
    for kind in ("taught", "scored"):
        logged, _ = terms.found(objective, z, rows, kind=kind)
        names |= {key.partition("/")[2].partition("@")[0] for key in logged if "loss/" in key}
    assert names and names <= OURS


def test_names_and_weights() -> None:
    assert parse("a") == ("a", 1.0) and parse("a=0.5") == ("a", 0.5)
