"""Which maths on which readouts: terms, their heads, and the module that DeepSpeed wraps."""

from mipic_llm.objective.module import EmbeddingModule
from mipic_llm.objective.objective import Objective, Part
from mipic_llm.objective.presets import build_objective
from mipic_llm.objective.seen import Seen
from mipic_llm.objective.term import Needs, Term, Value

__all__ = ["EmbeddingModule", "Needs", "Objective", "Part", "Seen", "Term", "Value",
           "build_objective"]  # fmt: skip
