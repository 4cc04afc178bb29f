"""One optimizer step: Eq 18 over all ranks, in one pass or in chunks with exact GradCache.

Gradient contract: every term is written so that DeepSpeed's mean over ranks is the gradient of
the one-process loss on the global batch, whatever the number of ranks, chunks and negatives.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mipic_llm import losses
from mipic_llm.config import Config, trained_dims
from mipic_llm.data.collate import StepBatch, chunks, n_chunks_of, padding
from mipic_llm.model.objective import Sampled, sample
from mipic_llm.training import distributed as dist
from mipic_llm.training.engine import Engine
from mipic_llm.types import Reps, Terms


class Rows(NamedTuple):
    """How many sequences each rank holds, per column."""

    anchors: tuple[int, ...]
    negatives: tuple[int, ...]
    chunks: int

    @property
    def total(self) -> int:
        return 2 * sum(self.anchors) + sum(self.negatives)


def count_rows(batch: StepBatch, chunk_size: int) -> Rows:
    anchors, negatives, n_chunks = dist.all_counts(
        batch.n_anchors, batch.n_negatives, n_chunks_of(batch, chunk_size)
    )
    return Rows(anchors, negatives, max(n_chunks))


class StepRunner:
    """Runs steps for one configuration (already resolved)."""

    def __init__(self, engine: Engine, config: Config) -> None:
        self.engine, self.config = engine, config
        self.dims = trained_dims(config)
        module = engine.module
        self.n_layers, self.n_links = len(module.sia_layers), len(module.phis)
        self.mipic = config.objective.name == "mipic"

    def run(self, batch: StepBatch, step: int) -> tuple[dict[str, float], Tensor]:
        """Forward, backward and update. -> (metrics without 'step', useful and padded tokens)."""
        c = self.config
        rows = count_rows(batch, c.train.chunk_size)
        sampled = Sampled(*sample(
            self.n_layers, self.n_links, c.sia.layers_per_step, c.pic.links_per_step,
            seed=c.seed, step=step,
        ))  # fmt: skip
        pieces = chunks(batch, c.train.chunk_size, rows.chunks)
        scale = self._local_scale(rows, sampled)
        if len(pieces) == 1:
            reps = [self._forward(pieces[0], sampled, scale)]
            whole = _assemble(reps, pieces, len(batch.ids))
            terms = self._cross(whole, batch, rows, sampled)
            self.engine.backward(iter([terms.total + reps[0].local]), 1)
        else:
            reps, terms = self._cached(pieces, batch, rows, sampled, scale)
        parts = self._log_parts(terms, reps, pieces, rows, sampled)
        parts["grad_norm"] = self.engine.step()
        share = padding(pieces)
        return parts, torch.tensor([share.useful, share.padded], dtype=torch.float64)

    def _forward(self, piece, sampled: Sampled, scale: float) -> Reps:
        device = self.engine.device
        return self.engine.forward(
            piece.ids_ST.to(device), piece.mask_ST.to(device), sampled, scale * piece.weight
        )

    def _cached(self, pieces, batch, rows, sampled, scale) -> tuple[list[Reps], Terms]:
        """GradCache (Gao et al. 2021): readouts without graph, their gradients, then each chunk."""
        states, reps = [], []
        for piece in pieces:
            states.append(_rng_state())
            with torch.no_grad():
                reps.append(self._forward(piece, sampled, scale))
        whole = _assemble(reps, pieces, len(batch.ids))
        leaves = whole._replace(
            z_SD=whole.z_SD.detach().requires_grad_(),
            chain_S=tuple(c.detach().requires_grad_() for c in whole.chain_S),
        )
        terms = self._cross(leaves, batch, rows, sampled)
        terms.total.backward()
        grads = [leaves.z_SD.grad, *(c.grad for c in leaves.chain_S)]
        after = _rng_state()

        def surrogates():
            for piece, state in zip(pieces, states, strict=True):
                _set_rng_state(state)  # the same dropout as in the first pass
                out = self._forward(piece, sampled, scale)
                total = out.local
                for value, grad in zip((out.z_SD, *out.chain_S), grads, strict=True):
                    if piece.weight:
                        total = total + (value.float() * grad[piece.index_S.to(grad.device)]).sum()
                    else:
                        total = total + 0.0 * value.float().sum()
                yield total

        self.engine.backward(surrogates(), len(pieces))
        _set_rng_state(after)
        return reps, terms

    def _local_scale(self, rows: Rows, sampled: Sampled) -> float:
        """(1 - alpha) * world / S_global * (layers / sampled), and 1/(layers*prefixes) for mean."""
        if not sampled.layers or not self.mipic:
            return 0.0
        c = self.config
        scale = (1 - c.objective.alpha) * dist.world_size() / rows.total
        scale *= self.n_layers / len(sampled.layers)
        if c.objective.reduction == "mean":
            scale /= self.n_layers * (len(self.dims) - 1)
        return scale

    def _cross(self, whole: Reps, batch: StepBatch, rows: Rows, sampled: Sampled) -> Terms:
        """The terms that mix examples: MRL (Eq 1) and PIC (Eq 16-17), of this rank's rows."""
        c = self.config
        n, offset = batch.n_anchors, sum(rows.anchors[: dist.rank()])
        z = whole.z_SD.float()
        candidates = torch.cat(
            [
                dist.gather_rows(z[n : 2 * n], rows.anchors),
                dist.gather_rows(z[2 * n :], rows.negatives),
            ]
        )
        target_B = offset + torch.arange(n, device=z.device)
        per_dim = losses.mrl_per_dim(
            z[:n], candidates, target_B=target_B, dims=self.dims, tau=c.objective.tau
        )
        weights = per_dim.new_tensor(c.objective.dim_weights or [1.0] * len(self.dims))
        mrl = (per_dim * weights).sum()
        parts = {f"loss/mrl@{d}": v for d, v in zip(self.dims, per_dim.tolist(), strict=True)}
        parts["loss/mrl"] = mrl.item()
        if not self.mipic:
            return Terms(mrl, parts)
        total = c.objective.alpha * mrl
        if sampled.links:
            chain = self._chain(whole, batch, rows)
            factor = self.n_links / len(sampled.links)
            factor /= self.n_links if c.objective.reduction == "mean" else 1
            parts["loss/chain"] = chain.item() * factor
            total = total + (1 - c.objective.alpha) * factor * chain
        return Terms(total, parts)

    def _chain(self, whole: Reps, batch: StepBatch, rows: Rows) -> Tensor:
        """Sum over sampled links; each column of sentences is contrasted with itself."""
        n, total = batch.n_anchors, whole.z_SD.new_zeros((), dtype=torch.float32)
        columns = [(0, n, rows.anchors), (n, 2 * n, rows.anchors),
                   (2 * n, len(batch.ids), rows.negatives)]  # fmt: skip
        for start, stop, counts in columns:
            if sum(counts) == 0:
                continue
            targets = [dist.gather_rows(t[start:stop].float(), counts) for t in whole.target_S]
            if stop == start:
                continue
            offset = sum(counts[: dist.rank()])
            target = offset + torch.arange(stop - start, device=whole.z_SD.device)
            projected = [p[start:stop].float() for p in whole.chain_S]
            value = losses.pic(projected, targets, target_B=target, tau=self.config.objective.tau)
            total = total + value * (stop - start) * dist.world_size() / rows.total
        return total

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
        alpha = self.config.objective.alpha
        inner = sum(parts.get(f"loss/{k}", 0.0) for k in ("relation", "geometry", "chain"))
        mixed = alpha * parts["loss/mrl"] + (1 - alpha) * inner
        return {"loss": mixed if self.mipic else parts["loss/mrl"], **parts}


def _assemble(reps: list[Reps], pieces, n: int) -> Reps:
    """Readouts of all chunks back in the step's order."""
    used = [(r, p) for r, p in zip(reps, pieces, strict=True) if p.weight]
    order = torch.cat([p.index_S for _, p in used])
    back = torch.empty_like(order)
    back[order] = torch.arange(n)

    def join(parts) -> Tensor:
        joined = torch.cat(list(parts))
        return joined[back.to(joined.device)]

    first = reps[0]
    return first._replace(
        z_SD=join(r.z_SD for r, _ in used),
        chain_S=tuple(join(r.chain_S[i] for r, _ in used) for i in range(len(first.chain_S))),
        target_S=tuple(join(r.target_S[i] for r, _ in used) for i in range(len(first.target_S))),
    )


def _rng_state() -> tuple:
    return torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None


def _set_rng_state(state: tuple) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1])
