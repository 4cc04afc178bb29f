"""Distillation between texts: SIA's relation one level up.

Teacher: softmax over its similarities of a text to all others of the step, whatever their column,
and to those remembered of earlier steps; a constant. Student: the same at a prefix. Copies of the
text are no others.
    sum_i mean_b KL(softmax(cos(t_b, t) / tau) || softmax(cos(z_b[:d_i], z[:d_i]) / tau))
`sia.sentences`: the teacher t is the student's own full width, the prefixes are those up to a fifth
of it. `teacher.relation`: t are the vectors of another model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mipic_llm import losses
from mipic_llm.config import Config, narrow_dims, narrow_of, parse_ladder
from mipic_llm.objective.seen import Seen
from mipic_llm.objective.term import Needs, Term, Value, per_dim
from mipic_llm.types import Traits


def relation(
    seen: Seen, layer: int, dims: Sequence[int], tau: float, *, taught: bool, remember: bool = True,
    apart: bool = False,
) -> Tensor:  # fmt: skip
    """The mean over this rank's texts of the sum over dims, or of each dim apart. taught: by the
    teacher's vectors. remember: the readouts of earlier steps, of the last layer, count too."""
    mine, n, (kept_MD, key_M, kept_MK) = seen.mine(layer), seen.n_anchors, seen.remembered
    own_B = partner_B = seen.place(seen.rows.per_rank, len(mine))
    if not taught:  # unlabelled text has two views, and its own is what the other must be near to
        partner_B = torch.cat([own_B[n : 2 * n], own_B[:n], own_B[2 * n :]])
    if not remember:
        kept_MD, key_M, kept_MK = (None if x is None else x[:0] for x in seen.remembered)
    key_n = torch.cat([seen.key_N, key_M])
    out = losses.LeftOut(own_B, partner_B, seen.key_N[seen.own], key_n)
    teacher = None
    if taught:
        assert seen.teacher_NK is not None and kept_MK is not None
        teacher = losses.Teacher(seen.teacher_NK[seen.own], seen.teacher_NK, kept_MK)
    return losses.neighbourhood_kl(
        mine, seen.everyone(layer), dims=dims, tau=tau, left_out=out, kept_MD=kept_MD,
        teacher=teacher, per_dim=apart,
    )  # fmt: skip


class Sentences(Term):
    def __init__(self, config: Config, width: int, depth: int, weight: float) -> None:
        super().__init__(weight)
        self.dims, self.tau = narrow_dims(config), config.objective.tau
        self.parts, self.memory = len(self.dims), config.sia.memory or 0

    def takes(self, source: Traits) -> bool:
        return True  # it reads no label

    def across(self, seen: Seen, drawn: tuple[int, ...]) -> Iterator[Value]:
        value = relation(seen, seen.last, self.dims, self.tau, taught=False)
        yield Value("sentences", seen.part(value, len(seen.mine())))


class TeacherRelation(Term):
    """At the last layer, with `teacher.relation_dims: narrow` at its narrow prefixes alone (the
    narrowest where none is narrow). With `teacher.layers: ladder` at every prefix of the ladder's
    layers too, which are compared with the texts of the step alone."""

    def __init__(self, config: Config, width: int, depth: int, weight: float) -> None:
        super().__init__(weight)
        t = config.teacher
        dims, self.tau = t.dims or config.objective.dims or [width], t.relation_temperature
        ladder = parse_ladder(config.pic.ladder or []) if t.layers == "ladder" else ()
        self.inner = tuple(sorted({point.layer for point in ladder} - {depth}))
        last = narrow_of(dims, width) or dims[:1] if t.relation_dims == "narrow" else dims
        self.prefixes = {depth: last, **dict.fromkeys(self.inner, dims)}
        self.parts, self.memory = sum(map(len, self.prefixes.values())), config.sia.memory or 0

    def takes(self, source: Traits) -> bool:
        return True

    def needs(self, drawn: tuple[int, ...]) -> Needs:
        return Needs(gathered=self.inner)

    def across(self, seen: Seen, drawn: tuple[int, ...]) -> Iterator[Value]:
        for layer, dims in self.prefixes.items():
            last = layer == seen.last
            value_P = relation(seen, layer, dims, self.tau, taught=True, remember=last, apart=True)
            keys = [str(d) if last else f"{d}@{layer}" for d in dims]
            yield per_dim("teacher_relation", seen.part(value_P, len(seen.mine())), keys)
