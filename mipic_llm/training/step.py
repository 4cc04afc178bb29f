"""One optimizer step: Eq 18 over all ranks, in one pass or in chunks with exact GradCache.

Gradient contract: every term is written so that DeepSpeed's mean over ranks is the gradient of
the one-process loss on the global batch, whatever the number of ranks, chunks and negatives.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mipic_llm.config.schema import Config, trained_dims
from mipic_llm.data.batch import Chunk, StepBatch, chunks, n_chunks_of, padding
from mipic_llm.objective.cross import Crossing
from mipic_llm.objective.module import Sampled, sample
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.engine import Engine
from mipic_llm.runtime.rows import Rows, count_rows
from mipic_llm.types import Reps, Terms

# What one more forward and backward pass of a length group costs beside its tokens, in padded
# tokens (see NOTES.md): launches on a GPU, Python on a CPU.
PASS_COST = {"cpu": 64, "cuda": 4096}


class StepRunner:
    """Runs steps for one configuration (already resolved)."""

    def __init__(self, engine: Engine, config: Config) -> None:
        self.engine, self.config = engine, config
        module = engine.module
        self.n_layers, self.n_links = len(module.sia_layers), len(module.phis)
        self.depth = module.backbone.n_layers
        self.n_prefixes = len(trained_dims(config)) - 1
        self.mipic = config.objective.name == "mipic"
        self.cross = Crossing(config, self.n_links)
        t = config.train
        self.cached = bool(t.chunk_size or t.chunk_tokens)
        self.packed = module.backbone.packed
        self.pass_cost = PASS_COST.get(engine.device.type, 4096) if t.length_groups else 0

    def run(self, batch: StepBatch, step: int) -> tuple[dict[str, float], Tensor]:
        """Forward, backward and update. -> (metrics without 'step', useful and padded tokens)."""
        t = self.config.train
        parts, pieces = self.gradients(
            batch, step, chunk_size=t.chunk_size, chunk_tokens=t.chunk_tokens, cached=self.cached
        )
        parts["grad_norm"] = self.engine.step()
        self.cross.memory.keep()
        share = padding(pieces)
        return parts, torch.tensor([share.useful, share.padded], dtype=torch.float64)

    def gradients(
        self, batch: StepBatch, step: int, *, chunk_size: int, chunk_tokens: int, cached: bool
    ) -> tuple[dict[str, float], list[Chunk]]:
        """Forward and backward, without the update. -> (loss and its parts, the passes).

        cached: GradCache, a graph per chunk; else one graph over all of them.
        """
        wanted = n_chunks_of(batch, chunk_size, chunk_tokens, self.pass_cost, self.packed)
        rows = count_rows(batch, wanted)
        sampled = self._sample(step)
        pieces = chunks(batch, chunk_size, rows.chunks, chunk_tokens, self.packed)
        scale = self._local_scale(rows, sampled)
        if cached and len(pieces) > 1:
            reps, terms = self._cached(pieces, batch, rows, sampled, scale)
        else:
            reps = [self._forward(piece, sampled, scale) for piece in pieces]
            terms = self.cross(_assemble(reps, pieces, len(batch.ids)), batch, rows, sampled)
            total = terms.total
            for out, piece in zip(reps, pieces, strict=True):
                total = total + out.local
                if not piece.weight:  # a dummy: under ZeRO-3 its backward is a collective too
                    total = total + 0.0 * sum(v.float().sum() for v in _outputs(out))
            self.engine.backward(iter([total]), 1)
        return self._log_parts(terms, reps, pieces, rows, sampled), pieces

    def _sample(self, step: int) -> Sampled:
        c = self.config
        return sample(
            self.n_layers, self.n_links, c.sia.layers_per_step, c.pic.links_per_step,
            seed=c.seed, step=step, objective=c.objective.name, depth=self.depth,
            prefixes=(c.objective.dims or [])[:-1],
        )  # fmt: skip

    def _forward(self, piece: Chunk, sampled: Sampled, scale: float) -> Reps:
        device = self.engine.device
        return self.engine.forward(
            piece.ids_ST.to(device), piece.mask_ST.to(device), sampled, scale * piece.weight
        )

    def _cached(self, pieces, batch, rows, sampled, scale) -> tuple[list[Reps], Terms]:
        """GradCache (Gao et al. 2021): readouts without graph, their gradients, then each chunk."""
        states, scalars, whole = [], [], None
        for piece in pieces:
            states.append(_rng_state())
            with torch.no_grad():
                out = self._forward(piece, sampled, scale)
            whole = _place(whole, out, piece, len(batch.ids), self.cross.n_queries(batch))
            scalars.append(out._replace(z_SD=None, chain_S=(), target_S=(), inner_S=()))
        leaves = _Leaves(whole)
        del whole, out
        terms = self.cross(leaves.reps, batch, rows, sampled, leaves.spend)
        grads = leaves.grads()
        del leaves
        after = _rng_state()

        def surrogates():
            for piece, state in zip(pieces, states, strict=True):
                _set_rng_state(state)  # the same dropout as in the first pass
                out = self._forward(piece, sampled, scale)
                total = out.local
                for value, grad in zip(_outputs(out), grads, strict=True):
                    if piece.weight:
                        here, there_S = _rows_within(piece, len(grad), grad.device)
                        total = total + (value[here].float() * grad[there_S]).sum()
                    else:
                        total = total + 0.0 * value.float().sum()
                yield total

        self.engine.backward(surrogates(), len(pieces))
        _set_rng_state(after)
        return scalars, terms

    def _local_scale(self, rows: Rows, sampled: Sampled) -> float:
        """(1 - alpha) * world / S_global * (layers / sampled), and 1/(layers*prefixes) for mean."""
        if not sampled.layers or not self.mipic:
            return 0.0
        c = self.config
        scale = (1 - c.objective.alpha) * dist.world_size() / rows.total
        scale *= self.n_layers / len(sampled.layers)
        if c.objective.reduction == "mean":
            scale /= self.n_layers * self.n_prefixes
        return scale

    def _log_parts(self, terms, reps, pieces, rows, sampled) -> dict[str, float]:
        parts = dict(terms.parts)
        if self.mipic and sampled.layers:
            factor = self._local_scale(rows, sampled) / max(1e-30, 1 - self.config.objective.alpha)
            if self.config.objective.alpha == 1:
                factor = 0.0
            for name in ("relation", "geometry"):
                value = sum(
                    float(getattr(r, name)) * p.weight for r, p in zip(reps, pieces, strict=True)
                )
                parts[f"loss/{name}"] = factor * value
        names = list(parts)
        values = dist.mean_over_ranks(torch.tensor([parts[k] for k in names], dtype=torch.float64))
        parts = dict(zip(names, values.tolist(), strict=True))
        return {"loss": self._total(parts), **parts}

    def _total(self, parts: dict[str, float]) -> float:
        """The loss from its logged parts: Eq 18 for mipic, sums for the others."""
        c = self.config
        total = parts["loss/mrl"]
        if self.mipic:
            s, alpha = c.sia, c.objective.alpha
            weights = {"relation": s.relation_weight, "geometry": s.geometry_weight,
                       "chain": c.pic.weight, "sentences": s.sentences}  # fmt: skip
            inner = sum(w * parts.get(f"loss/{k}", 0.0) for k, w in weights.items())
            total = alpha * total + (1 - alpha) * inner
        return total + sum(parts.get(f"loss/{k}", 0.0) for k in ("express", "compress", "align"))


def _outputs(reps: Reps) -> tuple[Tensor, ...]:
    """What gradients flow back into; the chain's targets are constants."""
    return (reps.z_SD, *reps.chain_S, *reps.inner_S)


class _Leaves:
    """The step's readouts as leaves of the cross-example terms. Each link's are let go as soon as
    its gradient is there: memory holds the readouts or their gradients, never both for long."""

    def __init__(self, whole: Reps) -> None:
        self.reps = whole._replace(
            z_SD=whole.z_SD.requires_grad_(),
            chain_S=[c.requires_grad_() for c in whole.chain_S],
            target_S=list(whole.target_S),
            inner_S=tuple(c.requires_grad_() for c in whole.inner_S),
        )
        self._chain: list[Tensor | None] = [None] * len(whole.chain_S)

    def spend(self, term: Tensor) -> Tensor:
        """The backward of one term. A link is one term (see `Crossing`), so it is done with."""
        term.backward()
        for i, leaf in enumerate(self.reps.chain_S):
            if leaf is not None and leaf.grad is not None:
                self._chain[i] = leaf.grad
                self.reps.chain_S[i] = None
                if self.reps.target_S:  # none where all look for the last layer
                    self.reps.target_S[i] = None
        return term.detach()

    def grads(self) -> list[Tensor]:
        """In the order of `_outputs`."""
        return [self.reps.z_SD.grad, *self._chain, *(leaf.grad for leaf in self.reps.inner_S)]


def _rows_within(piece: Chunk, n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Which of a chunk's sequences are among the step's first n, and their places there."""
    index_S = piece.index_S.to(device)
    here = index_S < n
    return here, index_S[here]


def _place(whole: Reps | None, out: Reps, piece: Chunk, n: int, n_queries: int) -> Reps:
    """Puts a chunk's readouts at their place in the step's order; the first chunk makes room: for
    n sequences, along the chain for n_queries."""

    def room(values: tuple[Tensor, ...], rows: int = n) -> tuple[Tensor, ...]:
        return tuple(v.new_empty(rows, *v.shape[1:]) for v in values)

    if whole is None:
        (z_SD,) = room((out.z_SD,))
        whole = out._replace(
            z_SD=z_SD, chain_S=room(out.chain_S, n_queries), target_S=room(out.target_S),
            inner_S=room(out.inner_S),
        )  # fmt: skip
    if piece.weight:
        pairs = zip((*_outputs(whole), *whole.target_S), (*_outputs(out), *out.target_S),
                    strict=True)  # fmt: skip
        for there, value in pairs:
            here, there_S = _rows_within(piece, len(there), value.device)
            there[there_S] = value[here]
    return whole


def _assemble(reps: list[Reps], pieces, n: int) -> Reps:
    """Readouts of all chunks back in the step's order."""
    used = [(r, p) for r, p in zip(reps, pieces, strict=True) if p.weight]
    order = torch.cat([p.index_S for _, p in used])
    back = torch.empty_like(order)
    back[order] = torch.arange(n)

    def join(parts) -> Tensor:
        joined = torch.cat(list(parts))
        return joined[back.to(joined.device)]

    def join_each(name: str) -> tuple[Tensor, ...]:
        columns = zip(*(getattr(r, name) for r, _ in used), strict=True)
        return tuple(join(column) for column in columns)

    return reps[0]._replace(
        z_SD=join(r.z_SD for r, _ in used),
        chain_S=join_each("chain_S"),
        target_S=join_each("target_S"),
        inner_S=join_each("inner_S"),
    )


def _rng_state() -> tuple:
    return torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None


def _set_rng_state(state: tuple) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1])
