"""One optimizer step over all ranks, in one pass or in chunks with exact GradCache.

GradCache (Gao et al. 2021, arXiv 2101.06983): the readouts of all chunks first, the gradient of the
cross-example terms at these readouts, then every chunk's backward of
    <readouts, their gradient> + per-example terms.
Without chunks the graphs of the first passes are kept, else each chunk is run again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mipic_llm.config import Config
from mipic_llm.data.batch import StepBatch
from mipic_llm.data.chunks import Chunk, Prepared, prepare
from mipic_llm.objective import Part
from mipic_llm.objective.objective import Drawn, Objective
from mipic_llm.runtime import ranks
from mipic_llm.runtime.engine import Engine
from mipic_llm.runtime.rows import agree
from mipic_llm.types import Reps

# What one more forward and backward pass of a length group costs beside its tokens, in padded
# tokens: launches on a GPU (132 ms for 28 layers of Qwen3 on an H200's host, in which it does some
# 20 thousand), Python on a CPU.
PASS_COST = {"cpu": 64, "cuda": 16384}
UNREAD = 16  # steps at most until somebody looks whether their figures were finite


class NotFinite(NamedTuple):
    """The first step (from 1) whose figures were not all finite, and which were not."""

    step: int
    names: list[str]


class StepRunner:
    """Runs steps for one configuration (already resolved)."""

    def __init__(self, engine: Engine, config: Config) -> None:
        self.engine, self.config = engine, config
        t = config.train
        self.cached = bool(t.chunk_size or t.chunk_tokens)
        self.packed = engine.module.backbone.packed
        kind = engine.device.type
        self.pass_cost = PASS_COST.get(kind, PASS_COST["cuda"]) if t.length_groups else 0
        self.unread: list[tuple[int, list[str], Tensor, float | Tensor]] = []

    @property
    def objective(self) -> Objective:
        """That of the stage."""
        return self.engine.module.objective

    def prepare(self, batch: StepBatch) -> Prepared:
        """The batch cut into this rank's passes, padded or packed, on the host; for any thread."""
        t = self.config.train
        return prepare(batch, t.chunk_size, t.chunk_tokens, self.pass_cost, self.packed)

    def run(
        self, batch: StepBatch | Prepared, step: int, wanted: bool = True, **counts: float
    ) -> dict[str, float]:  # fmt: skip
        """Forward, backward and update; all ranks call.

        -> the metrics of the step over all ranks: loss and its parts, grad_norm, how many tokens
        were `useful` and `padded`, and how many pairs of an anchor and a candidate were left out as
        `false_negatives` (with a margin, `false_negatives_near`), and the sums of `counts`; nothing
        where they are not wanted, which saves waiting for the device.
        """
        made = batch if isinstance(batch, Prepared) else self.prepare(batch)
        parts, passes, left_out = self.gradients(made, step, cached=self.cached)
        grad_norm = self.engine.step()
        self.objective.memory.keep()
        values = torch.stack([part.value.double() for part in parts])
        known = 0.0 if grad_norm is None else grad_norm
        self.unread.append((step + 1, [part.name for part in parts], values, known))
        if not wanted:
            return {}
        share = made.tokens(passes)
        counts |= {"useful": share.useful, "padded": share.padded, **left_out}
        row = metrics(parts, counts)
        return row | {"grad_norm": math.nan if grad_norm is None else float(grad_norm)}

    def not_finite(self) -> NotFinite | None:
        """The first of the steps since the last call whose loss on this rank or whose gradient was
        not finite. Waits for the device once; in between, figures stay on it."""
        unread, self.unread = self.unread, []
        if not unread:
            return None
        rows = [torch.cat([v, torch.as_tensor(n).to(v).reshape(1)]) for _, _, v, n in unread]
        flags = torch.isfinite(torch.cat(rows)).tolist()
        for step, names, _, _ in unread:
            own, flags = flags[: len(names) + 1], flags[len(names) + 1 :]
            if not all(own):
                labels = [*(f"loss/{name}" for name in names), "the gradient"]
                bad = [label for label, fine in zip(labels, own, strict=True) if not fine]
                return NotFinite(step, list(dict.fromkeys(bad)))
        return None

    def gradients(
        self, made: Prepared, step: int, *, cached: bool
    ) -> tuple[list[Part], int, dict[str, Tensor]]:
        """Forward and backward, without the update. -> (the parts of the loss, the passes, the
        false negatives of this rank by kind).

        cached: every chunk is run twice and only one has a graph; else all graphs are kept.
        """
        batch = made.batch
        rows = agree(batch.n_anchors, batch.n_negatives, len(made.chunks))
        pieces = [piece.to(self.engine.device) for piece in made.passes(rows.chunks)]
        drawn = self.objective.draw(step)
        sequences = rows.total / ranks.world_size()
        cached = cached and len(pieces) > 1
        whole = _Whole(len(batch.ids), self.objective.limits(drawn, rows), self.engine.device)
        states, kept, sums = [], [], 0.0
        for piece in pieces:
            states.append(_rng_state())
            with torch.set_grad_enabled(not cached):
                out = self._forward(piece, drawn, sequences)
            whole.put(out, piece)
            sums = sums + out.sums.double() * piece.weight
            kept.append(None if cached else out)
        del out
        known = made.known.each(lambda x: x.to(self.engine.device, non_blocking=True))
        grads, parts, left_out = self.objective.across(
            whole.outputs, whole.constants, known, rows, drawn, batch.source
        )
        parts += self.objective.local_parts(sums, drawn, sequences)
        after = _rng_state()

        def totals() -> Iterator[Tensor]:
            for piece, state, out in zip(pieces, states, kept, strict=True):
                if out is None:
                    _set_rng_state(state)  # the same dropout as in the first pass
                    out = self._forward(piece, drawn, sequences)
                yield whole.surrogate(out, grads, piece)

        if cached:
            self.engine.backward(totals(), len(pieces))
            _set_rng_state(after)
        else:
            self.engine.backward(iter([sum(totals())]), 1)
        return parts, len(pieces), left_out

    def _forward(self, piece: Chunk, drawn: Drawn, sequences: float) -> Reps:
        counted = sequences if piece.weight else math.inf
        return self.engine.forward(piece.ids_ST, piece.mask_ST, drawn, counted)


def metrics(parts: list[Part], counts: dict[str, float | Tensor]) -> dict[str, float]:
    """The loss and its parts by name, means over ranks, and sums of `counts`; all ranks call.

    loss: the sum of weight * part, the very weights that were descended.
    """
    values = torch.stack([part.value.double() for part in parts])
    scales = values.new_tensor([part.scale for part in parts])
    more = [torch.as_tensor(n).to(values) * ranks.world_size() for n in counts.values()]
    means = ranks.mean_over_ranks(torch.stack([*(values * scales), *more])).tolist()
    row: dict[str, float] = {"loss": 0.0}
    for part, value in zip(parts, means, strict=False):
        row[f"loss/{part.name}"] = row.get(f"loss/{part.name}", 0.0) + value
        row["loss"] += part.weight * value
    return row | dict(zip(counts, means[len(parts) :], strict=True))


Place = tuple[slice | Tensor, Tensor]  # rows of a chunk's output, and theirs in the step


class _Surrogate(torch.autograd.Function):
    """A chunk's own terms as a scalar, whose backward also brings each output its gradient among
    the step's rows: that of the whole loss. Nobody reads its value.

    A dummy's gradients are 0: under ZeRO-3 its backward is a collective too.
    """

    @staticmethod
    def forward(
        ctx: Any, local: Tensor, grads: list[Tensor], places: list[Place | None], *outputs: Tensor
    ) -> Tensor:
        ctx.grads, ctx.places = grads, places
        ctx.like = [(value.shape, value.dtype) for value in outputs]
        return local.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        found = []
        for grad, place, (shape, dtype) in zip(ctx.grads, ctx.places, ctx.like, strict=True):
            if place is None:
                found.append(grad.new_zeros(shape, dtype=dtype))
                continue
            here, there = place
            mine = (grad.index_select(0, there) * slope).to(dtype)
            whole = isinstance(here, slice)
            found.append(mine if whole else mine.new_zeros(shape).index_copy_(0, here, mine))
        return slope, None, None, *found


class _Whole:
    """The readouts of all chunks in the step's order of sequences, without graphs."""

    def __init__(self, n: int, limits: list[int], device: torch.device) -> None:
        self.n, self.limits, self.device = n, limits, device
        self.outputs: list[Tensor] = []
        self.constants: list[Tensor] = []
        self._places: dict[tuple[int, int], Place] = {}

    def put(self, out: Reps, piece: Chunk) -> None:
        """Put a chunk's readouts at their places; the first chunk makes room."""
        if not self.outputs:
            pairs = zip(out.outputs, self.limits, strict=True)
            self.outputs = [v.new_empty(rows, *v.shape[1:]) for v, rows in pairs]
            self.constants = [v.new_empty(self.n, *v.shape[1:]) for v in out.constants]
        if not piece.weight:
            return
        with torch.no_grad():
            for there, value in zip(
                (*self.outputs, *self.constants), (*out.outputs, *out.constants), strict=True
            ):
                here, at = self.place(piece, len(there))
                there[at] = value[here]

    def place(self, piece: Chunk, n: int) -> Place:
        """`Chunk.rows_within` on the device, asked once; a slice for all of a chunk's rows."""
        found = self._places.get((id(piece), n))
        if found is None:
            here, there = (x.to(self.device, non_blocking=True) for x in piece.rows_within(n))
            found = slice(None) if len(here) == len(piece.index_S) else here, there
            self._places[id(piece), n] = found
        return found

    def surrogate(self, out: Reps, grads: list[Tensor], piece: Chunk) -> Tensor:
        """See `_Surrogate`."""
        places = [self.place(piece, len(g)) if piece.weight else None for g in grads]
        return _Surrogate.apply(out.local, grads, places, *out.outputs)


def _rng_state() -> tuple:
    return torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None


def _set_rng_state(state: tuple) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1])
