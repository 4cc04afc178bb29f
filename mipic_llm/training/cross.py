"""The terms of an objective that mix examples: functions of small readouts, over all ranks.

Each gives this rank's part, so that DeepSpeed's mean over ranks is the loss of the global batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from mipic_llm import losses
from mipic_llm.config import Config, trained_dims
from mipic_llm.data.collate import StepBatch
from mipic_llm.model.objective import Sampled
from mipic_llm.training import distributed as dist
from mipic_llm.training.rows import Rows
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
        self.narrow = [d for d in self.dims if 5 * d <= self.dims[-1]]

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
        dims = [sampled.dim, self.dims[-1]] if self.name == "2dmse" else self.dims
        per_dim = self._task(whole.z_SD, dims, batch, rows)
        parts |= {f"loss/mrl@{d}": v for d, v in zip(dims, per_dim.tolist(), strict=True)}
        task = per_dim.sum()
        if self.weights is not None:
            task = (per_dim * per_dim.new_tensor(self.weights)).sum()
        parts["loss/mrl"] = task.item()
        total = spend(o.alpha * task if self.name == "mipic" else task)
        del task, per_dim
        if self.name == "mipic":
            for term in self._mipic(whole, batch, rows, sampled, parts):
                total = total + spend(term)
        elif self.name == "ese":
            total = total + spend(self._ese(whole, batch, rows, sampled, parts))
        elif self.name == "2dmse":
            total = total + spend(self._two_d(whole, batch, rows, sampled, parts))
        for term in self._extras(whole, batch, rows, parts):
            total = total + spend(term)
        return Terms(total, parts)

    def _task(self, z_SD: Tensor, dims, batch: StepBatch, rows: Rows) -> Tensor:
        """InfoNCE of this rank's anchors at each dim, against positives and negatives of all ranks
        (Eq 1): (n_dims,)."""
        anchors, candidates = self._sides(z_SD, batch, rows)
        return losses.mrl_per_dim(
            anchors, candidates, target_B=_targets(rows.anchors, len(anchors), z_SD),
            dims=dims, tau=self.config.objective.tau,
        )  # fmt: skip

    @staticmethod
    def _sides(z_SD: Tensor, batch: StepBatch, rows: Rows) -> tuple[Tensor, Tensor]:
        n, z = batch.n_anchors, z_SD.float()
        positives = dist.gather_rows(z[n : 2 * n], rows.anchors)
        negatives = dist.gather_rows(z[2 * n :], rows.negatives)
        return z[:n], torch.cat([positives, negatives])

    def _mipic(
        self, whole: Reps, batch, rows: Rows, sampled: Sampled, parts: dict
    ) -> Iterator[Tensor]:
        """What Eq 18 adds across examples, weighted: each link, and the relation of sentences."""
        c, rest = self.config, 1 - self.config.objective.alpha
        if sampled.links:
            factor = self.n_links / len(sampled.links)
            factor /= self.n_links if c.objective.reduction == "mean" else 1
            parts["loss/chain"] = 0.0
            for value in (self._paired if self.pair else self._chain)(whole, batch, rows):
                parts["loss/chain"] += factor * value.item()
                yield rest * c.pic.weight * factor * value
        if c.sia.sentences and self.narrow:
            value = self._sentences(whole.z_SD, rows)
            parts["loss/sentences"] = value.item()
            yield rest * c.sia.sentences * value

    def _sentences(self, z_SD: Tensor, rows: Rows) -> Tensor:
        """SIA between sentences: among all texts of the step, whatever their column, a narrow
        prefix should see the neighbours that the full width, detached, sees (losses/extra.py);
        reduced over prefixes as `objective.reduction` says."""
        o, n, counts = self.config.objective, len(z_SD), rows.per_rank
        everyone = dist.gather_rows(z_SD.float(), counts)
        value = losses.neighbourhood_kl(z_SD.float(), everyone, dims=self.narrow, tau=o.tau,
                                        own_B=_targets(counts, n, z_SD))  # fmt: skip
        value = value * n * dist.world_size() / rows.total
        return value / len(self.narrow) if o.reduction == "mean" else value

    def _link(self, query: Tensor, candidates: Tensor, target_B: Tensor) -> Tensor:
        """One link's InfoNCE (Eq 16); `nested`: the mean over every prefix of its wider end."""
        tau, width = self.config.objective.tau, query.shape[1]
        dims = [width]
        if self.config.pic.widths == "nested":
            dims = [d for d in self.config.objective.dims or [] if d <= width]
        return losses.mrl_per_dim(query, candidates, target_B=target_B, dims=dims, tau=tau).mean()

    def _chain(self, whole: Reps, batch: StepBatch, rows: Rows) -> Iterator[Tensor]:
        """The sampled links (Eq 17); each column of sentences is contrasted with itself."""
        n = batch.n_anchors
        columns = [(0, n, rows.anchors), (n, 2 * n, rows.anchors),
                   (2 * n, len(batch.ids), rows.negatives)]  # fmt: skip
        for projected, target in zip(whole.chain_S, whole.target_S, strict=True):
            total = whole.z_SD.new_zeros((), dtype=torch.float32)
            for start, stop, counts in columns:
                if sum(counts) == 0:
                    continue
                everyone = dist.gather_rows(target[start:stop].float(), counts)
                if stop > start:  # else this rank only lends itself to the gathering
                    target_B = _targets(counts, stop - start, whole.z_SD)
                    value = self._link(projected[start:stop].float(), everyone, target_B)
                    total = total + value * (stop - start) * dist.world_size() / rows.total
            yield total

    def _paired(self, whole: Reps, batch: StepBatch, rows: Rows) -> Iterator[Tensor]:
        """The links across the pair: a shallow anchor should find its positive's deeper readout
        among all deeper candidates, and a shallow positive its anchor's."""
        n = batch.n_anchors
        target_B = _targets(rows.anchors, n, whole.z_SD)
        for projected, target in zip(whole.chain_S, whole.target_S, strict=True):
            _, candidates = self._sides(target, batch, rows)
            anchors = dist.gather_rows(target[:n].float(), rows.anchors)
            there = self._link(projected[:n].float(), candidates, target_B)
            back = self._link(projected[n : 2 * n].float(), anchors, target_B)
            yield (there + back) / 2

    def _ese(self, whole: Reps, batch, rows: Rows, sampled: Sampled, parts: dict) -> Tensor:
        """Learn to express and to compress at every layer (see losses/ese.py)."""
        e, k = self.config.ese, self.dims[0]
        counts = rows.per_rank
        own = slice(sum(counts[: dist.rank()]), sum(counts[: dist.rank() + 1]))
        share = len(batch.ids) * dist.world_size() / rows.total

        def compress(z_SD: Tensor) -> Tensor:
            everyone = dist.gather_rows(z_SD.detach().float(), counts)
            target = losses.pca_target(everyone, k, e.pca)[own]
            return share * losses.compress(z_SD[:, :k].float(), target, e.temperature)

        compressed = compress(whole.z_SD)
        expressed = torch.zeros_like(compressed)
        for layer, z_SD in zip(sampled.inner, whole.inner_S, strict=True):
            weight = losses.layer_weight(layer) / len(sampled.inner)
            expressed = expressed + weight * self._task(z_SD, [k], batch, rows)[0]
            compressed = compressed + weight * compress(z_SD)
        parts |= {"loss/express": expressed.item(), "loss/compress": compressed.item()}
        return expressed + compressed

    def _two_d(self, whole: Reps, batch, rows: Rows, sampled: Sampled, parts: dict) -> Tensor:
        """A random shallower layer at a random and at full width, aligned with the last layer."""
        (z_SD,) = whole.inner_S
        dims = [sampled.dim, self.dims[-1]]
        inner = self._task(z_SD, dims, batch, rows).sum()
        share = len(batch.ids) * dist.world_size() / rows.total
        align = share * losses.alignment_kl(z_SD, whole.z_SD, self.config.ese.temperature)
        parts |= {"loss/express": inner.item(), "loss/align": align.item()}
        return inner + align

    def _extras(self, whole: Reps, batch, rows: Rows, parts: dict) -> Iterator[Tensor]:
        """Optional research terms (losses/extra.py)."""
        o = self.config.objective
        prefixes = (o.dims or [])[:-1]
        if o.neighbourhood:
            anchors, candidates = self._sides(whole.z_SD, batch, rows)
            value = losses.neighbourhood_kl(anchors, candidates, dims=prefixes, tau=o.tau)
            parts["loss/neighbourhood"] = value.item()
            yield o.neighbourhood * value
        if o.decorrelation:
            everyone = dist.gather_rows(whole.z_SD.float(), rows.per_rank)
            value = losses.decorrelation(everyone, dims=prefixes)
            parts["loss/decorrelation"] = value.item()
            yield o.decorrelation * value


def _targets(counts: tuple[int, ...], n: int, like: Tensor) -> Tensor:
    """Where this rank's n rows stand among the gathered ones."""
    return sum(counts[: dist.rank()]) + torch.arange(n, device=like.device)
