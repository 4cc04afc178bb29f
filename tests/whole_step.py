"""A training step written down naively in float64, to compare the real one with (Eq 18).

    L = alpha * MRL + (1 - alpha) * (weights * (relation, geometry, chain, sentences))

One process, one padded batch of the texts of all ranks, loops over layers, prefixes, links and
sentences, explicit P_i, softmax, KL and Gram matrices; gradients by autograd. Nothing here is
folded, nested, chunked, gathered or scaled by hand.

Run by `ranks.run_ranks` on every rank (argv: JSON file with {case: {"flags", "steps"}}, file for
the answers): each step of a case runs for real, in fp32 on DeepSpeed, and rank 0 compares it with
the reference. `Training` and `Model` are all that knows the inside of the package.
"""

from __future__ import annotations

import copy
import json
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from ranks import set_apart
from torch import Tensor
from torch.nn.functional import normalize

from mipic_llm.config import load_config
from mipic_llm.runtime.start import start
from mipic_llm.training import setup
from mipic_llm.training.step import StepRunner

# ------------------------------------------------------------------------ the package, from outside


class Text(NamedTuple):
    """Token ids of one sequence; column: 0 anchor, 1 positive, 2 negative. (The models have no
    prompts, so equal texts have equal ids.) key: of the text, by which the memory is ordered."""

    ids: list[int]
    column: int
    key: int


def different(texts: list[Text], s: int, right: int, among: list[int]) -> list[int]:
    """The right one first, then those that have neither its text nor that of s."""
    known = texts[s].ids, texts[right].ids
    return [right, *(n for n in among if texts[n].ids not in known)]


# layer -> every sentence's real tokens (m, D), and all readouts (S, D)
Encoded = dict[int, tuple[list[Tensor], Tensor]]


class Training:
    """The real training of one configuration, step by step."""

    def __init__(self, flags: list[str]) -> None:
        self.config, source, self.data = setup.open_run(load_config(flags))
        self.engine = setup.open_engine(self.config, source, self.data, 10)
        self.runner = StepRunner(self.engine, self.config)
        self.engine.train(True)

    def texts(self, step: int) -> list[Text]:
        """This rank's sequences: its anchors, as many positives, its negatives."""
        batch = self.data.step((0, step))
        columns = [0] * batch.n_anchors + [1] * batch.n_anchors + [2] * batch.n_negatives
        told = zip(batch.ids, columns, batch.keys, strict=True)
        return [Text([int(i) for i in row], column, key) for row, column, key in told]

    def run(self, step: int) -> tuple[dict[str, float], dict[str, Tensor]]:
        """One whole step. -> what it logs, and the gradient of every trained parameter."""
        grads: dict[str, Tensor] = {}
        update = self.engine.step

        def keep_gradients() -> float:
            grads.update((name, grad.double().clone()) for name, grad in self.engine.gradients())
            return update()

        with mock.patch.object(self.engine, "step", keep_gradients):
            logged = self.runner.run(self.data.step((0, step)), step)
        return logged, grads

    def sampled(self, step: int) -> tuple[list[int], list[int]]:
        """Layers under SIA (1-based) and links (from 0) that this step looks at."""
        objective = self.runner.objective
        drawn = dict(zip([type(t).__name__ for t in objective.terms], objective.draw(step),
                         strict=True))  # fmt: skip
        layers = [self.config.sia.layers[k] for k in drawn.get("Sia", ())]
        return layers, list(drawn.get("Pic", ()))

    def model(self) -> Model:
        """The present weights in float64, apart from the training."""
        return Model(copy.deepcopy(self.engine.module).double().train(), self.config)


class Model:
    """A copy of the trained module: its backbone and its heads."""

    def __init__(self, module: Any, config: Any) -> None:
        self.module, self.config = module, config

    def parameters(self) -> dict[str, Tensor]:
        """Trained parameters by their names in `Training.run`."""
        return {k: p for k, p in self.module.named_parameters() if p.requires_grad}

    def encode(self, texts: list[Text], layers: list[int]) -> Encoded:
        """One padded batch, in the layers asked for (ascending)."""
        longest = max(len(text.ids) for text in texts)
        ids_ST, mask_ST = torch.zeros(2, len(texts), longest, dtype=torch.int64)
        for s, text in enumerate(texts):
            ids_ST[s, : len(text.ids)], mask_ST[s, : len(text.ids)] = torch.tensor(text.ids), 1
        backbone = self.module.backbone
        backbone.packed = False
        backbone.model.set_attn_implementation("eager")
        out = backbone(ids_ST, mask_ST, layers, layers)
        found = {}
        for i, layer in enumerate(layers):
            tokens = [out.tokens_STD[i][s, : len(text.ids)] for s, text in enumerate(texts)]
            found[layer] = (tokens, out.readout_LSD[i])
        return found

    def lifts(self, layer: int) -> list[Tensor]:
        """P_i of this layer, (d_i, D) each."""
        head = self.module.lifts[self.config.sia.layers.index(layer)]
        dims = self.config.objective.dims
        folded_KD = head(torch.eye(dims[-1], dtype=torch.float64)).T
        return list(folded_KD.split(dims[:-1]))

    def phi(self, link: int, z_Sd: Tensor) -> Tensor:
        """phi_i of this link, applied to shallow readouts cut to d_i."""
        return self.module.phis[link](z_Sd)


# --------------------------------------------------------------------------------- the naive terms


def info_nce(query: Tensor, candidates: Tensor, tau: float) -> Tensor:
    """One query (d,) and candidates (N, d), the right one first: cross-entropy of cosine / tau."""
    cosines = normalize(candidates, dim=1) @ normalize(query, dim=0)
    return -torch.log_softmax(cosines / tau, 0)[0]


def kl(p_log: Tensor, q_log: Tensor) -> Tensor:
    """KL(p || q) of two rows of log-probabilities."""
    return (p_log.exp() * (p_log - q_log)).sum()


def relation(query: Tensor, tokens: Tensor, lifts: list[Tensor], tau: float, detach: bool) -> Any:
    """Eq 4-6 of one sentence: sum over prefixes. tokens (m, D), P_i (d_i, D)."""
    D = len(query)
    teacher = torch.stack([query @ token for token in tokens]) / math.sqrt(D)
    teacher = teacher.detach() if detach else teacher
    total = 0.0
    for P_dD in lifts:
        d = len(P_dD)
        student = torch.stack([query @ (P_dD.T @ token[:d]) for token in tokens]) / math.sqrt(D)
        total = total + kl(torch.log_softmax(student / tau, 0), torch.log_softmax(teacher / tau, 0))
    return total


def cka(x_kd: Tensor, y_kD: Tensor) -> Tensor:
    """Eq 10-11: centred kernel alignment of two sets of k vectors."""
    k = len(x_kd)
    H_kk = torch.eye(k, dtype=x_kd.dtype) - 1 / k
    K_kk, L_kk = H_kk @ x_kd @ x_kd.T @ H_kk, H_kk @ y_kD @ y_kD.T @ H_kk
    return (K_kk * L_kk).sum() / (K_kk.norm() * L_kk.norm())


def geometry(query: Tensor, tokens: Tensor, dims: list[int], sia: Any) -> Any:
    """Eq 7-12 of one sentence: sum over the truncated prefixes `dims`."""
    m, scores = len(tokens), [float(query @ token) for token in tokens]
    ranked = sorted(range(m), key=lambda j: -scores[j])
    total = 0.0
    for d, ratio in zip(dims, sia.ratios, strict=True):
        k = min(m, max(sia.min_k, math.ceil(round(ratio * m, 6))))
        if k > 1:
            chosen = tokens[ranked[:k]]
            wide = chosen.detach() if sia.detach_teacher else chosen
            total = total + 1 - cka(chosen[:, :d], wide)
    return total


def mean(values: list[Any]) -> Any:
    return sum(values) / len(values)


def reference(
    model: Model,
    config: Any,
    texts: list[Text],
    layers: list[int],
    links: list[int],
    memory_MD: Tensor,
    remembered: list[Text],
) -> tuple[dict[str, Any], Tensor]:
    """The loss and its parts as they are logged, and the last layer's readouts.

    texts: those of all ranks, each rank's anchors, positives and negatives after one another.
    layers, links: what is sampled. memory_MD, remembered: readouts and texts of earlier steps.
    """
    o, sia, pic = config.objective, config.sia, config.pic
    dims, D, shared = o.dims, o.dims[-1], o.reduction == "mean"
    ladder = [tuple(map(int, point.split("@"))) for point in pic.ladder]  # (dim, layer)
    encoded = model.encode(texts, sorted({*layers, *(layer for _, layer in ladder)}))
    z_SD = encoded[ladder[-1][1]][1]
    columns = tuple([s for s, t in enumerate(texts) if t.column == column] for column in range(3))
    anchors, positives, negatives = columns
    assert len(anchors) == len(positives)
    parts: dict[str, Any] = {}

    for d in dims:
        values = [
            info_nce(z_SD[a, :d], z_SD[different(texts, a, p, positives + negatives), :d], o.tau)
            for a, p in zip(anchors, positives, strict=True)
        ]
        parts[f"loss/mrl@{d}"] = mean(values)
    weights = o.dim_weights or [1.0 if 2 * d <= D else o.wide_weight for d in dims]
    parts["loss/mrl"] = sum(w * parts[f"loss/mrl@{d}"] for w, d in zip(weights, dims, strict=True))

    pairs = [sia_of_layer(*encoded[layer], model.lifts(layer), dims[:-1], sia) for layer in layers]
    for name, values in zip(("relation", "geometry"), zip(*pairs, strict=True), strict=True):
        total = len(sia.layers) * mean(values)  # where some are sampled: what all would give
        parts[f"loss/{name}"] = total / (len(sia.layers) * len(dims[:-1])) if shared else total

    total = (len(ladder) - 1) * mean([
        link_of(model, i, ladder, encoded, texts, columns, config) for i in links
    ])  # fmt: skip
    parts["loss/chain"] = total / (len(ladder) - 1) if shared else total

    narrow = [d for d in dims if 5 * d <= D] if sia.sentences else []
    if narrow:
        total = sum(
            mean(
                [
                    neighbours(z_SD[s], z_SD[beside], memory_MD[before], d, o.tau)
                    for s, beside, before in others_of(texts, remembered, anchors, positives)
                ]
            )
            for d in narrow
        )
        parts["loss/sentences"] = total / len(narrow) if shared else total

    weights = {"relation": sia.relation_weight, "geometry": sia.geometry_weight,
               "chain": pic.weight, "sentences": sia.sentences}  # fmt: skip
    inner = sum(w * parts[f"loss/{k}"] for k, w in weights.items() if f"loss/{k}" in parts)
    parts["loss"] = o.alpha * parts["loss/mrl"] + (1 - o.alpha) * inner
    return parts, z_SD.detach()


def sia_of_layer(
    tokens: list[Tensor], readout_SD: Tensor, lifts: list[Tensor], dims: list[int], sia: Any
) -> tuple[Any, Any]:
    """Relation and geometry of one layer: means over its sentences."""
    relations, geometries = [], []
    for query, own in zip(readout_SD, tokens, strict=True):
        relations.append(relation(query, own, lifts, sia.temperature, sia.detach_teacher))
        geometries.append(geometry(query, own, dims, sia))
    return mean(relations), mean(geometries)


def link_of(
    model: Model, i: int, ladder: list, encoded: Encoded, texts: list[Text], columns: tuple,
    config: Any,
) -> Any:  # fmt: skip
    """Link i of the chain (Eq 15-16); `nested`: the mean over every prefix of both layers."""
    pic, dims = config.pic, config.objective.dims
    (d, shallow), (wider, deep) = ladder[i : i + 2]
    if pic.widths == "nested":
        d = wider = dims[-1]
    if pic.target == "last":
        deep = ladder[-1][1]
    query_Sd = model.phi(i, encoded[shallow][1][:, :d])
    answer_Sd = encoded[deep][1][:, :wider].detach()
    widths = [w for w in dims if w <= wider] if pic.widths == "nested" else [wider]
    return mean([
        link(query_Sd[:, :w], answer_Sd[:, :w], texts, columns, pic.positive, config.objective.tau)
        for w in widths
    ])  # fmt: skip


def link(
    query: Tensor, answer: Tensor, texts: list[Text], columns: tuple, positive: str, tau: float
) -> Any:
    """One link of the chain (Eq 16): `pair`, an anchor should find its positive among positives and
    negatives, a positive its anchor among anchors; `self`, each its own among its column."""
    anchors, positives, negatives = columns

    def find(asked: list[int], found: list[int], among: list[int]) -> Any:
        return mean([
            info_nce(query[s], answer[different(texts, s, right, among)], tau)
            for s, right in zip(asked, found, strict=True)
        ])  # fmt: skip

    if positive == "pair":
        there = find(anchors, positives, positives + negatives)
        return (there + find(positives, anchors, anchors)) / 2
    each = [len(column) * find(column, column, column) for column in columns if column]
    return sum(each) / len(texts)


def others_of(
    texts: list[Text], remembered: list[Text], anchors: list[int], positives: list[int]
) -> Any:
    """Every text s, and what it is compared with: those of the step with another text and its
    partner, and those in memory with another text."""
    partner = dict(zip(anchors + positives, positives + anchors, strict=True))
    for s, text in enumerate(texts):
        beside = [n for n in range(len(texts)) if n != s]
        beside = [n for n in beside if n == partner.get(s) or texts[n].ids != text.ids]
        yield s, beside, [m for m, old in enumerate(remembered) if old.ids != text.ids]


def neighbours(query_D: Tensor, beside_ND: Tensor, memory_MD: Tensor, d: int, tau: float) -> Tensor:
    """The relation between texts: KL from a text's neighbours at full width, without gradient, to
    those of its first d channels, among other texts and those in memory."""
    others_ND = torch.cat([beside_ND, memory_MD])

    def log_shares(query: Tensor, others: Tensor) -> Tensor:
        return torch.log_softmax(normalize(others, dim=1) @ normalize(query, dim=0) / tau, 0)

    teacher = log_shares(query_D, others_ND).detach()
    return kl(teacher, log_shares(query_D[:d], others_ND[:, :d]))


# ---------------------------------------------------------------------------------- the comparison


def everyone(mine: list[Text]) -> list[Text]:
    """The texts of all ranks, in rank order."""
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, mine)
    return [text for texts in found for text in texts]


def compare(flags: list[str], steps: int) -> list[dict[str, Any]]:
    """Of each step: {part: [real, reference]} and {parameter: [norm of the difference of gradients,
    norm of the reference's]}; rank 0 computes the reference."""
    set_apart()
    training, first = Training(flags), torch.distributed.get_rank() == 0
    config, found = training.config, []
    memory_MD = torch.zeros(0, config.objective.dims[-1], dtype=torch.float64)
    remembered: list[Text] = []
    for step in range(steps):
        texts = everyone(training.texts(step))
        model = training.model() if first else None
        logged, grads = training.run(step)
        if model is None:
            continue
        old = max(0, len(remembered) - config.sia.memory)
        kept = memory_MD[old:], remembered[old:]
        parts, z_SD = reference(model, config, texts, *training.sampled(step), *kept)
        order = sorted(range(len(texts)), key=lambda s: (texts[s].column, texts[s].key))
        memory_MD = torch.cat([memory_MD, z_SD[order]])
        remembered = [*remembered, *(texts[s] for s in order)]
        parameters = model.parameters()
        wanted = torch.autograd.grad(
            parts["loss"], list(parameters.values()), allow_unused=True, materialize_grads=True
        )
        assert parameters.keys() == grads.keys()
        found.append({
            "logged": {k: v for k, v in logged.items() if k.startswith("loss")},
            "parts": {k: float(v) for k, v in parts.items()},
            "gradients": {
                name: [float((grads[name] - want).norm()), float(want.norm())]
                for name, want in zip(parameters, wanted, strict=True)
            },
            "texts": [text.column for text in texts],
            "false_negatives": logged["false_negatives"],
            "copies": [sum(other.ids == text.ids for other in texts) for text in texts],
            "remembered": sum(any(was.ids == t.ids for was in kept[1]) for t in texts),
            "sampled": training.sampled(step),
        })  # fmt: skip
    return found


def main() -> None:
    start()
    torch.set_num_threads(1)
    cases = json.loads(Path(sys.argv[1]).read_text())
    answers = {name: compare(case["flags"], case["steps"]) for name, case in cases.items()}
    if torch.distributed.get_rank() == 0:
        Path(sys.argv[2]).write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
