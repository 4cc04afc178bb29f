"""Terms against naive references in float64: the whole gradient, on one rank and on real ranks.

A case is (flags, naive). naive(world: World) gives the loss of the global batch from all readouts,
without any of the package's maths; `judge` compares the value that is logged and the gradient of
every readout and head with what `Objective` finds on each rank. A new term needs one such function
and one line in CASES of tests/test_terms.py.

Run by `ranks.run_ranks`, this file judges all cases on every rank. argv: file for the answers.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from mipic_llm.config import load_config, resolve
from mipic_llm.objective import Objective, build_objective
from mipic_llm.objective.seen import Margin
from mipic_llm.objective.term import Inside
from mipic_llm.runtime import ranks
from mipic_llm.runtime.rows import Rows
from mipic_llm.training.step import metrics
from mipic_llm.types import Known, Traits

sys.path.insert(0, str(Path(__file__).with_name("plugin")))  # an installed package with terms

D, DEPTH, TAU, KEPT = 20, 3, 0.5, 7
FLAGS = ["--objective.dims", "2,4,20", "--sia.layers", "1,2,3", "--pic.ladder", "2@1,4@2,20@3",
         "--objective.tau", str(TAU), "--sia.ratios", "none"]  # fmt: skip
# (column, row) has the text of (column, row): columns 0 anchors, 1 positives, 2 negatives, over all
# ranks. One row's own anchor and positive, another row's of each, another rank's, a negative twice,
# a positive that is its own anchor, and two rows with one positive.
EQUAL = {(2, 0): (1, 0), (2, 1): (0, 2), (2, 3): (2, 2), (1, 1): (0, 1), (1, 4): (1, 3)}
KEPT_TEXT = [101, 1, 2, 108, 3, 4, 5]  # of the memory's rows; two are texts of the step
COUNTS = {1: [(5, 4)], 2: [(3, 1), (3, 4)]}  # (anchors, negatives) of each rank
WHOSE = {1: [[0, 0, 2, 4]], 2: [[1], [0, 0, 2, 2]]}  # the anchor of each negative on its rank
K = 12  # width of the teacher


class World(NamedTuple):
    """The global batch. z: layer -> (N, D) readouts, rank by rank; anchors, positives, negatives:
    their rows; kept: readouts of earlier steps; heads, drawn: of the objective; text, kept_text:
    numbers of the texts of all rows and of kept, equal where texts are equal; score: of all rows;
    taught, kept_taught: the teacher's vectors of all rows and of kept; whose: place of its anchor
    among anchors; judge: what the margin's cosines are of; alone: only a row's own negatives count.
    drawn: of the terms that take the case's source. also: negatives that are more positives."""

    z: dict[int, Tensor]
    anchors: list[int]
    positives: list[int]
    negatives: list[int]
    kept: Tensor
    heads: dict[str, torch.nn.ModuleList]
    drawn: tuple[tuple[int, ...], ...]
    text: list[int]
    kept_text: list[int]
    score: list[float]
    margin: Margin | None
    judge: Tensor
    taught: Tensor
    kept_taught: Tensor
    whose: list[int]
    alone: bool = False
    also: list[int] = []

    def row(self, i: int) -> int:
        """Which row of data a text is of: negatives are dealt to the anchors in turn."""
        for column in (self.anchors, self.positives):
            if i in column:
                return column.index(i)
        return self.negatives.index(i) % len(self.anchors)

    def near(self, i: int, j: int, right: int) -> bool:
        """Whether row j is too near row i to be its negative, where right is its positive."""
        if self.alone and self.row(i) != self.row(j):
            return True
        own = [n for n in self.also if i in self.anchors and self.anchors[self.whose[n]] == i]
        if self.text[j] in [self.text[n] for n in own]:
            return True
        if self.margin is None or right == i:
            return False
        unit = normalize(self.judge.detach(), dim=1)
        cosine = unit[i] @ unit[right]
        size = self.margin.size * (cosine.abs() if self.margin.relative else 1)
        return bool(unit[i] @ unit[j] > cosine - size)

    def others(self, i: int, rows: list[int]) -> list[int]:
        """Those of these rows that have another text than row i."""
        return [j for j in rows if self.text[j] != self.text[i]]

    def partner(self, i: int) -> int | None:
        """The other row of a pair of anchor and positive."""
        pairs = dict(zip(self.anchors, self.positives, strict=True))
        return (pairs | {p: a for a, p in pairs.items()}).get(i)


Naive = Callable[[World], Tensor]


def info_nce(
    world: World,
    query: Tensor,
    asked: list[int],
    z: Tensor,
    found: list[int],
    d: int,
    hardness: float = 0.0,
) -> Tensor:
    """Cross-entropy of cosines of the first d channels over TAU: row asked[b] of query should find
    row found[b] of z among the rows found, whose copies of either text do not count."""
    values = []
    for i, right in zip(asked, found, strict=False):
        wrong = [j for j in world.others(right, world.others(i, found))
                 if not world.near(i, j, right)]  # fmt: skip
        cosines = normalize(z[[right, *wrong], :d], dim=1) @ normalize(query[i, :d], dim=0)
        extra = hardness * cosines.detach() * (torch.arange(len(cosines)) > 0)
        values.append(cross_entropy(cosines / TAU + extra, torch.tensor(0)))
    return torch.stack(values).mean()


def task(world: World, z: Tensor, d: int, same: bool = False) -> Tensor:
    found = world.positives + world.negatives + world.anchors * same
    return info_nce(world, z, world.anchors, z, found, d)


def back(world: World, z: Tensor, d: int, same: bool = False) -> Tensor:
    """What positives find among anchors, and among positives too where same."""
    found = world.anchors + world.positives * same
    return info_nce(world, z, world.positives, z, found, d)


def setting(*flags: str) -> Objective:
    """The objective of these flags, its heads in float64 and its memory filled."""
    config = resolve(load_config([*FLAGS, *flags]), width=D, n_layers=DEPTH)
    torch.manual_seed(3)
    objective = build_objective(config, width=D, depth=DEPTH, teacher_width=K)
    for heads in objective.heads().values():
        heads.double()
        for parameter in heads.parameters():  # a residual head begins at zero: tell it apart
            torch.nn.init.normal_(parameter, std=0.2)
    if objective.memory.size:
        kept, taught = (torch.randn(KEPT, d, dtype=torch.float64) for d in (D, K))
        taught = taught if has_teacher(objective) else None
        objective.memory.look(kept, torch.tensor(KEPT_TEXT), taught)
        objective.memory.keep()
    return objective


def keys(rows: Rows) -> list[int]:
    """A number for the text of every row; those of EQUAL have the text of an earlier row."""
    found = list(range(100, 100 + rows.total))
    columns = [c.tolist() for c in rows.columns(torch.device("cpu"))]
    for (column, row), (other, at) in EQUAL.items():
        found[columns[column][row]] = found[columns[other][at]]
    return found


def readouts(world: int) -> tuple[dict[int, Tensor], Rows]:
    """Random readouts of every layer for the global batch, the same on every rank."""
    counts = COUNTS[world]
    rows = Rows(tuple(a for a, _ in counts), tuple(n for _, n in counts), 1)
    torch.manual_seed(5)
    return {layer: torch.randn(rows.total, D, dtype=torch.float64, requires_grad=True)
            for layer in range(1, DEPTH + 1)}, rows  # fmt: skip


def groups(rows: Rows) -> list[int]:
    """A label for every row of labelled text, that of its positive for an anchor."""
    found = [n % 3 for n in range(rows.total)]
    anchors, positives, _ = rows.columns(torch.device("cpu"))
    for a, p in zip(anchors.tolist(), positives.tolist(), strict=True):
        found[a] = found[p]
    return found


def facts(rows: Rows, kind: str) -> tuple[list[float], Tensor, list[int]]:
    """What is known of every row: its score (of a scored source some alike, of no meaning but at
    the positives; else NaN where it is not known), the teacher's vector, and whose it is."""
    torch.manual_seed(7)
    taught, score = torch.randn(rows.total, K, dtype=torch.float64), torch.randn(rows.total)
    anchors, _, negatives = (c.tolist() for c in rows.columns(torch.device("cpu")))
    score[[*anchors, negatives[-1]]] = math.nan  # with one rank the only one of its row
    whose: list[int] = []
    for rank, n in enumerate(rows.anchors):
        whose += [*range(n), *range(n), *WHOSE[len(rows.anchors)][rank]]
    alike = [float(n * 7 % 3) for n in range(rows.total)]
    return alike if kind == "scored" else score.tolist(), taught, whose


def more_positives(rows: Rows) -> list[int]:
    """The second and fourth negative of all ranks."""
    return rows.columns(torch.device("cpu"))[2][1::2].tolist()


def has_teacher(objective: Objective) -> bool:
    return any(type(term).__name__ in ("TeacherRelation", "TeacherVector") or
               getattr(term, "taught", False) for term in objective.terms)  # fmt: skip


def found(
    objective: Objective, z: dict[int, Tensor], rows: Rows, step: int = 0, kind: str = "pairs"
):
    """What `Objective` makes of this rank's rows of z: (logged row, surrogate to differentiate)."""
    first = sum(rows.per_rank[: ranks.rank()])
    own = slice(first, first + rows.per_rank[ranks.rank()])
    inside = Inside({layer: value[own] for layer, value in z.items()}, {}, torch.ones(1, 1))
    drawn = objective.draw(step)
    outputs, constants = objective.outputs(inside, drawn)
    limits = objective.limits(drawn, rows)
    outputs = [value[:n] for value, n in zip(outputs, limits, strict=True)]
    score, taught, whose = facts(rows, kind)
    teacher = taught if kind == "taught" or has_teacher(objective) else None
    known = Known(torch.tensor(keys(rows)), torch.tensor(score), teacher)
    known = known._replace(whose_S=torch.tensor(whose))
    if kind == "alone":
        columns = (c.tolist() for c in rows.columns(torch.device("cpu")))
        rows_of = World(z, *columns, *[None] * 11).row  # type: ignore[arg-type]
        known = known._replace(row_S=torch.tensor([rows_of(i) for i in range(rows.total)]))
    if kind == "several":
        also = torch.zeros(rows.total, dtype=torch.int64)
        also[more_positives(rows)] = 1
        known = known._replace(also_S=also)
    if kind == "labelled":
        known = known._replace(group_S=torch.tensor(groups(rows)))
    kind = kind if kind == "scored" else "pairs"
    by_rows = any(not getattr(term, "taught", True) for term in objective.terms)
    traits = Traits(kind=kind, scores=kind == "scored" or by_rows)
    grads, parts, left_out = objective.across(
        [v.detach() for v in outputs], constants, known.each(lambda x: x[own]), rows, drawn, traits
    )
    surrogate = sum((v * g).sum() for v, g in zip(outputs, grads, strict=True))
    return metrics(parts, left_out), surrogate


def judge(flags: list[str], naive: Naive, step: int = 0, kind: str = "pairs") -> dict[str, float]:
    """-> largest relative errors: of the loss, of the gradients; and the size of the gradient."""
    size = ranks.world_size()
    objective = setting(*flags)
    # Terms inside texts want a backbone: tests/test_whole_step.py has them.
    objective.terms = [term for term in objective.terms if not term.local]
    z, rows = readouts(size)
    heads = objective.heads()
    columns = [c.tolist() for c in rows.columns(torch.device("cpu"))]
    kept = objective.memory.state()
    kept_z, _, kept_text, *kept_taught = kept or (z[1][:0], 0, torch.tensor([]))
    drawn = zip(objective.terms, objective.draw(step), strict=True)
    score, taught, whose = facts(rows, kind)
    firsts = [sum(rows.anchors[:r]) for r, n in enumerate(rows.per_rank) for _ in range(n)]
    world = World(
        z, *columns, kept_z, heads, tuple(d for t, d in drawn if t.takes(Traits(kind=kind))),
        groups(rows) if kind == "labelled" else keys(rows), kept_text.tolist(), score,
        objective.margin, taught if kind == "taught" else z[DEPTH], taught,
        kept_taught[0] if kept_taught else taught,
        [a + b for a, b in zip(firsts, whose, strict=True)], kind == "alone",
        more_positives(rows) if kind == "several" else [],
    )  # fmt: skip
    wanted = naive(world)
    leaves = [*z.values(), *(p for h in heads.values() for p in h.parameters())]
    want = torch.autograd.grad(wanted, leaves, allow_unused=True)
    row, surrogate = found(objective, z, rows, step, kind)
    have = torch.autograd.grad(surrogate, leaves, allow_unused=True)
    error, largest = 0.0, 0.0
    for w, h in zip(want, have, strict=True):
        h = torch.zeros(()) if h is None else ranks.mean_over_ranks(h)  # as DeepSpeed does
        w = torch.zeros(()) if w is None else w
        error = max(error, float((h - w).abs().max()))
        largest = max(largest, float(w.abs().max()))
    gap = abs(row["loss"] - wanted.item()) / abs(wanted.item())
    left_out, near = row["false_negatives"], row.get("false_negatives_near", 0.0)
    pairs = [] if kind == "scored" else zip(world.anchors, world.positives, strict=True)
    for i, right in pairs:
        left_out -= kind == "labelled" and len(world.positives + world.negatives) - 1
        wrong = world.others(right, world.others(i, world.positives + world.negatives))
        left_out += len(wrong) if kind == "labelled" else 0
        near -= 0 if kind in ("alone", "several") else sum(world.near(i, j, right) for j in wrong)
    assert near == 0, f"{near} more counted as near than are"
    return {"loss": gap, "gradient": error / largest, "size": largest, "left_out": left_out}


def main() -> None:
    from test_terms import CASES

    from mipic_llm.runtime.start import start

    start()
    answers = {name: judge(*case) for name, case in CASES.items()}
    if ranks.rank() == 0:
        Path(sys.argv[1]).write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
