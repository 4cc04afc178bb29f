"""The table of terms, and an objective made of those that its preset lists.

A new term is one file and one line here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mipic_llm.config import OBJECTIVES, Config, narrow_dims, trained_dims
from mipic_llm.objective.ese import Ese
from mipic_llm.objective.gor import Gor
from mipic_llm.objective.grid import Starbucks, ThreeD
from mipic_llm.objective.mic import MicTexts, MicTokens
from mipic_llm.objective.mrl import Mrl
from mipic_llm.objective.objective import Objective
from mipic_llm.objective.pic import Pic
from mipic_llm.objective.plugin import plugins
from mipic_llm.objective.relation import Sentences, TeacherRelation
from mipic_llm.objective.scored import Scored
from mipic_llm.objective.seen import Margin
from mipic_llm.objective.sia import Sia
from mipic_llm.objective.teacher import TeacherScores, TeacherVector
from mipic_llm.objective.term import Term
from mipic_llm.objective.twodmse import TwoDMse


class Row(NamedTuple):
    """make(config, width, depth, weight); whether and how much a resolved configuration asks for
    it; beside: it is added to any objective, outside of Eq 18's alpha; task: the same, but with the
    weight of the contrastive term, which it replaces for another kind of sources; taught: make also
    takes the width of the teacher's vectors."""

    make: Callable[..., Term]
    wanted: Callable[[Config], bool] = lambda c: True
    weight: Callable[[Config], float] = lambda c: 1.0
    beside: bool = False
    task: bool = False
    taught: bool = False


TERMS = {
    "mrl": Row(Mrl),
    "sia": Row(Sia, lambda c: (c.sia.relation or c.sia.geometry) and len(trained_dims(c)) > 1),
    "pic": Row(Pic, lambda c: c.pic.enabled, lambda c: c.pic.weight),
    "sentences": Row(Sentences, lambda c: bool(narrow_dims(c)), lambda c: c.sia.sentences),
    "ese": Row(Ese),
    "2dmse": Row(TwoDMse),
    "3dml": Row(ThreeD),
    "starbucks": Row(Starbucks),
    "mic_tokens": Row(MicTokens, weight=lambda c: c.mic.weight),
    "mic_texts": Row(MicTexts, weight=lambda c: c.mic.weight),
    "gor": Row(Gor, lambda c: c.objective.gor > 0, lambda c: c.objective.gor, beside=True),
    "scored": Row(Scored, weight=lambda c: c.scored.weight, task=True),
    "teacher_relation": Row(TeacherRelation, lambda c: _taught(c, c.teacher.relation),
                            lambda c: c.teacher.relation, beside=True),
    "teacher_vector": Row(TeacherVector, lambda c: _taught(c, c.teacher.vector),
                          lambda c: c.teacher.vector, beside=True, taught=True),
    "teacher_scores": Row(TeacherScores, lambda c: c.teacher.scores + c.teacher.margin > 0,
                          beside=True),
}  # fmt: skip


def _taught(config: Config, weight: float) -> bool:
    return config.teacher.name != "none" and weight > 0


def build_objective(config: Config, *, width: int, depth: int, teacher_width: int = 0) -> Objective:
    """The terms of `objective.name`, for a backbone of so many channels and layers.

    config: resolved. teacher_width: channels of the teacher's vectors, if there is one. Eq 18:
    alpha weighs the first, contrastive term, 1 - alpha the others.
    """
    o = config.objective
    form, terms = OBJECTIVES[o.name], []
    for name, row in TERMS.items():
        if not (row.beside or row.task or name in form.terms) or not row.wanted(config):
            continue
        weight = row.weight(config)
        if form.mixed and not row.beside:
            weight *= o.alpha if row.task or name == form.terms[0] else 1 - o.alpha
        more = (teacher_width,) if row.taught else ()
        terms.append(row.make(config, width, depth, weight, *more))
    terms += plugins(config)
    size = o.false_negative_margin
    margin = None if size is None else Margin(size, o.false_negative_rule == "relative")
    mean = o.reduction == "mean"
    return Objective(terms, last=depth, mean=mean, seed=config.seed, margin=margin)
