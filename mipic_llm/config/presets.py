"""Presets: the terms of each objective, and the values that a preset gives to unset options."""

from __future__ import annotations

from typing import Any, NamedTuple


class Objective(NamedTuple):
    """What `objective.name` stands for; the only place that knows an objective by name.

    terms: names in `mipic_llm.objective.presets.TERMS`, in order.
    widths: the prefixes under its contrastive loss: all of objective.dims, the full one, or ese.k
        and the full one.
    mixed: Eq 18, alpha * contrastive + (1 - alpha) * the other terms; else the plain sum.
    """

    terms: tuple[str, ...]
    widths: str = "all"
    mixed: bool = False


OBJECTIVES = {
    "simcse": Objective(("mrl",), widths="full"),
    "mrl": Objective(("mrl",)),
    "ese": Objective(("mrl", "ese"), widths="ese"),
    "2dmse": Objective(("2dmse",)),
    "3dml": Objective(("3dml",)),
    "starbucks": Objective(("starbucks",)),
    "mic": Objective(("mrl", "mic_tokens", "mic_texts")),
    "mipic": Objective(("mrl", "sia", "pic", "sentences"), mixed=True),
}

# Where the paper is silent or its letter misbehaves, options have names (METHOD.md 5). A preset
# fills only what the user left unset.
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {
        "model": {"inner_norm": "raw"},
        "objective": {"reduction": "sum", "wide_weight": 1.0},
        "sia": {
            "temperature": 0.05, "kl": "student_teacher", "detach_teacher": False,
            "lift_init": "linear", "sentences": 0.0, "memory": 0,
        },
        "pic": {"head": "mlp", "positive": "self", "widths": "point", "target": "next",
                "weight": 1.0},
    },
    "balanced": {
        "model": {"inner_norm": "final"},
        "objective": {"reduction": "mean", "wide_weight": 8.0},
        "sia": {
            "temperature": 1.0, "kl": "student_teacher", "detach_teacher": True,
            "lift_init": "fixed", "sentences": 3.0, "memory": 16384,
        },
        "pic": {"head": "residual", "positive": "pair", "widths": "nested", "target": "last",
                "weight": 3.0},
    },
}  # fmt: skip
