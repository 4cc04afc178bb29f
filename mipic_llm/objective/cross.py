"""The terms of an objective that mix examples: functions of small readouts, over all ranks.

Each gives this rank's part, so that DeepSpeed's mean over ranks is the loss of the global batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from mipic_llm import losses
from mipic_llm.config.derive import narrow_dims
from mipic_llm.config.schema import Config, trained_dims
from mipic_llm.data.batch import StepBatch
from mipic_llm.objective.memory import Memory
from mipic_llm.objective.module import Sampled
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.rows import Rows
from mipic_llm.types import Reps, Terms


class Crossing:
    """Cross-example terms for one configuration (already resolved)."""

    def __init__(self, config: Config, n_links: int) -> None:
        self.config, self.n_links = config, n_links
        self.dims = trained_dims(config)
        self.name = config.objective.name
        self.pair = config.pic.positive == "pair"
        self.weights = config.objective.dim_weights if self.name in ("mrl", "mipic") else None
        if self.name == "mipic" and self.weights is None:
            wide = config.objective.wide_weight or 0.0
            self.weights = [wide if 2 * d > self.dims[-1] else 1.0 for d in self.dims]
        self.narrow = narrow_dims(config)
        self.memory = Memory(config.sia.memory or 0 if self.narrow else 0)

    def n_queries(self, batch: StepBatch) -> int:
        """How many sequences, the first ones, ask along the chain; negatives only answer a pair."""
        return 2 * batch.n_anchors if self.pair else len(batch.ids)

    def __call__(
        self,
        whole: Reps,
        batch: StepBatch,
        rows: Rows,
        sampled: Sampled,
        spend: Callable[[Tensor], Tensor] = lambda term: term,
    ) -> Terms:
        """Their weighted sum, and each by name (unweighted, detached).

        spend: gets each weighted term, in the same order on every rank; what it gives back is
        summed. GradCache runs the backward there, so that one term's graph is alive at a time.
        """
        o, parts = self.config.objective, {}
        everyone = self._gather(whole.z_SD, rows)  # the step's one gather with gradients
        dims = [sampled.dim, self.dims[-1]] if self.name == "2dmse" else self.dims
        per_dim = self._task(everyone, dims, batch, rows)
        parts |= {f"loss/mrl@{d}": v for d, v in zip(dims, per_dim.tolist(), strict=True)}
        task = per_dim.sum()
        if self.weights is not None:
            task = (per_dim * per_dim.new_tensor(self.weights)).sum()
        parts["loss/mrl"] = task.item()
        total = spend(o.alpha * task if self.name == "mipic" else task)
        del task, per_dim
        if self.name == "mipic":
            for term in self._mipic(whole, everyone, batch, rows, sampled, parts):
                total = total + spend(term)
        elif self.name == "ese":
            total = total + spend(self._ese(whole, everyone, batch, rows, sampled, parts))
        elif self.name == "2dmse":
            total = total + spend(self._two_d(whole, batch, rows, sampled, parts))
        return Terms(total, parts)

    @staticmethod
    def _gather(z_SD: Tensor, rows: Rows) -> Tensor:
        """Readouts of all ranks' sequences, in rank order."""
        return dist.gather_rows(z_SD.float(), rows.per_rank)

    def _task(self, everyone: Tensor, dims, batch: StepBatch, rows: Rows) -> Tensor:
        """InfoNCE of this rank's anchors at each dim, against positives and negatives of all ranks
        (Eq 1): (n_dims,)."""
        anchors, candidates = self._sides(everyone, batch, rows)
        return losses.mrl_per_dim(
            anchors, candidates, target_B=_targets(rows.anchors, len(anchors), everyone),
            dims=dims, tau=self.config.objective.tau,
        )  # fmt: skip

    @staticmethod
    def _sides(everyone: Tensor, batch: StepBatch, rows: Rows) -> tuple[Tensor, Tensor]:
        """This rank's anchors; the candidates: all positives, then all negatives."""
        _, positives, negatives = rows.columns(everyone.device)
        mine = everyone[_own(rows)][: batch.n_anchors]
        return mine, everyone.index_select(0, torch.cat([positives, negatives]))

    def _mipic(
        self, whole: Reps, everyone: Tensor, batch, rows: Rows, sampled: Sampled, parts: dict
    ) -> Iterator[Tensor]:
        """What Eq 18 adds across examples, weighted: each link, and the relation of sentences."""
        c, rest = self.config, 1 - self.config.objective.alpha
        if sampled.links:
            factor = self.n_links / len(sampled.links)
            factor /= self.n_links if c.objective.reduction == "mean" else 1
            parts["loss/chain"] = 0.0
            for i in range(len(whole.chain_S)):
                value = self._along(whole, i, everyone, batch, rows)
                parts["loss/chain"] += factor * value.item()
                yield rest * c.pic.weight * factor * value
        if self.narrow:
            value = self._sentences(everyone, rows)
            parts["loss/sentences"] = value.item()
            yield rest * c.sia.sentences * value

    def _sentences(self, everyone: Tensor, rows: Rows) -> Tensor:
        """SIA between sentences: among all texts of the step, whatever their column, and those
        kept of earlier steps, a narrow prefix should see the neighbours that the full width,
        detached, sees (losses/relation.py); reduced over prefixes as `objective.reduction` says."""
        o, mine = self.config.objective, everyone[_own(rows)]
        value = losses.neighbourhood_kl(
            mine, everyone, dims=self.narrow, tau=o.tau,
            own_B=_targets(rows.per_rank, len(mine), everyone), kept_MD=self.memory.look(everyone),
        )  # fmt: skip
        value = value * len(mine) * dist.world_size() / rows.total
        return value / len(self.narrow) if o.reduction == "mean" else value

    def _link(self, query: Tensor, candidates: Tensor, target_B: Tensor) -> Tensor:
        """One link's InfoNCE (Eq 16); `nested`: the mean over every prefix of its wider end."""
        tau, width = self.config.objective.tau, query.shape[1]
        dims = [width]
        if self.config.pic.widths == "nested":
            dims = [d for d in self.config.objective.dims or [] if d <= width]
        return losses.mrl_per_dim(query, candidates, target_B=target_B, dims=dims, tau=tau).mean()

    def _along(self, whole: Reps, i: int, everyone: Tensor, batch: StepBatch, rows: Rows) -> Tensor:
        """Link i of the sampled ones (Eq 17), its deeper side on all ranks and without gradients.

        `pair`: a shallow anchor should find its positive's deeper readout among all deeper
        candidates, and a shallow positive its anchor's. `self`: each sentence its own among those
        of its column.
        """
        projected = whole.chain_S[i].float()
        if self.config.pic.target == "last":
            deeper = everyone.detach()[:, : projected.shape[1]]
        else:
            deeper = self._gather(whole.target_S[i], rows)
        n, columns = batch.n_anchors, rows.columns(deeper.device)
        if self.pair:
            _, candidates = self._sides(deeper, batch, rows)
            target_B = _targets(rows.anchors, n, deeper)
            there = self._link(projected[:n], candidates, target_B)
            back = self._link(projected[n : 2 * n], deeper.index_select(0, columns[0]), target_B)
            return (there + back) / 2
        total = deeper.new_zeros(())
        bounds = ((0, n), (n, 2 * n), (2 * n, len(batch.ids)))
        counts = (rows.anchors, rows.anchors, rows.negatives)
        for (start, stop), column, count in zip(bounds, columns, counts, strict=True):
            if stop > start:
                target_B = _targets(count, stop - start, deeper)
                there = deeper.index_select(0, column)
                value = self._link(projected[start:stop], there, target_B)
                total = total + value * (stop - start) * dist.world_size() / rows.total
        return total

    def _ese(
        self, whole: Reps, everyone: Tensor, batch, rows: Rows, sampled: Sampled, parts: dict
    ) -> Tensor:
        """Learn to express and to compress at every layer (see losses/ese.py)."""
        e, k, own = self.config.ese, self.dims[0], _own(rows)
        share = len(batch.ids) * dist.world_size() / rows.total

        def compress(everyone: Tensor) -> Tensor:
            target = losses.pca_target(everyone.detach(), k, e.pca)[own]
            return share * losses.compress(everyone[own, :k], target, e.temperature)

        compressed = compress(everyone)
        expressed = torch.zeros_like(compressed)
        for layer, z_SD in zip(sampled.inner, whole.inner_S, strict=True):
            weight = losses.layer_weight(layer) / len(sampled.inner)
            there = self._gather(z_SD, rows)
            expressed = expressed + weight * self._task(there, [k], batch, rows)[0]
            compressed = compressed + weight * compress(there)
        parts |= {"loss/express": expressed.item(), "loss/compress": compressed.item()}
        return expressed + compressed

    def _two_d(self, whole: Reps, batch, rows: Rows, sampled: Sampled, parts: dict) -> Tensor:
        """A random shallower layer at a random and at full width, aligned with the last layer."""
        (z_SD,) = whole.inner_S
        dims = [sampled.dim, self.dims[-1]]
        inner = self._task(self._gather(z_SD, rows), dims, batch, rows).sum()
        share = len(batch.ids) * dist.world_size() / rows.total
        align = share * losses.alignment_kl(z_SD, whole.z_SD, self.config.ese.temperature)
        parts |= {"loss/express": inner.item(), "loss/align": align.item()}
        return inner + align


def _own(rows: Rows) -> slice:
    """This rank's sequences among the gathered ones."""
    start = sum(rows.per_rank[: dist.rank()])
    return slice(start, start + rows.per_rank[dist.rank()])


def _targets(counts: tuple[int, ...], n: int, like: Tensor) -> Tensor:
    """Where this rank's n rows stand among the gathered ones."""
    return sum(counts[: dist.rank()]) + torch.arange(n, device=like.device)
