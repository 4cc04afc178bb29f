"""A rotation onto the principal axes of training text: exact for whole vectors, better prefixes.

Shape legend: N texts, D full width, P pairs of texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from glob import glob
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mipic_llm.config import Config
from mipic_llm.data.tokenise import TextEncoder, pad
from mipic_llm.errors import UserError
from mipic_llm.evaluation.families import FAMILIES
from mipic_llm.evaluation.judge import PCA_TEXTS, texts_for_pca
from mipic_llm.evaluation.metrics import spearman
from mipic_llm.evaluation.pca import axes_module
from mipic_llm.evaluation.read import load_tasks
from mipic_llm.evaluation.suite import PREFIX, run_suite
from mipic_llm.evaluation.tasks.base import SYMMETRIC
from mipic_llm.export.card import hub_id
from mipic_llm.model.backbone import Backbone
from mipic_llm.model.dense import Dense
from mipic_llm.types import Point, Score

HELD_OUT = 200  # texts, at most a fifth; they do not fit the axes


class Turned(NamedTuple):
    """axes: what follows the pooling. scores: of the rotated model on the run's validation. notes:
    the gain per dim, for the card."""

    axes: Dense
    scores: tuple[Score, ...]
    notes: list[str]

    def turn(self, z_ND: Tensor) -> Tensor:
        """(N, D) float32: readouts as the rotated model gives them."""
        turned_ND = z_ND.double() @ self.axes.weight.double().T
        return (turned_ND if self.axes.bias is None else turned_ND + self.axes.bias).float()


def rotate(
    config: Config, backbone: Backbone, encoder: TextEncoder, point: Point, dims: Sequence[int],
    specs: Sequence[str], centred: bool = False,
) -> Turned:  # fmt: skip
    """Fit the axes on text of `specs` (else the run's training data), at the backbone's last layer,
    and say what they gain at each of dims. centred: see `axes_module`.
    UserError for text that cannot be read or is too little.
    """
    own = [s for s in config.training if still_here(s if isinstance(s, str) else s.path)]
    if not (wanted := list(specs) or own):
        raise UserError("rotate: the run's training data are not here; give --pca_text FILE ..")
    texts = texts_for_pca(wanted, PCA_TEXTS * backbone.width + HELD_OUT)
    every = max(5, len(texts) // HELD_OUT)
    fitted, kept = [t for i, t in enumerate(texts) if i % every], texts[::every]
    axes, about = axes_module(read_texts(backbone, encoder, fitted, SYMMETRIC), centred)
    turned = Turned(axes, (), [])
    kept_ND = read_texts(backbone, encoder, kept, SYMMETRIC)
    was, now = (_agreement(z_ND, dims) for z_ND in (kept_ND, turned.turn(kept_ND)))
    narrow = [d for d in dims if d < backbone.width]
    notes = [
        f"Turned onto the principal axes of {len(fitted):,} texts"
        f"{about}. " + ("Whole vectors keep their cosines: an orthogonal matrix."
                        if axes.bias is None else "Cosines of whole vectors change.") + (
            f" Rank correlation of the cosines of a prefix with those of the whole vector, "
            f"{len(kept)} other texts, before -> after: "
            + ", ".join(f"{d}: {was[d]:.3f} -> {now[d]:.3f}" for d in narrow) + "."
            if narrow else "")
    ]  # fmt: skip
    scores: list[Score] = []
    if specs := [spec for spec in config.data.validation if still_here(spec)]:
        tasks, _ = load_tasks(specs)
        found: dict[str, list[Score]] = {}
        for name in ("was", "now"):

            def vectors(texts: list[str], kind: str, turns: bool = name == "now") -> Tensor:
                z_ND = read_texts(backbone, encoder, texts, kind)
                return (turned.turn(z_ND) if turns else z_ND)[:, None]

            points = [Point(point.layer, d) for d in dims]
            found[name] = run_suite(tasks, vectors, layers=[point.layer], points=points)[PREFIX]
        scores = found["now"]
        for task, metric in dict.fromkeys((s.task, s.metric) for s in scores):
            pairs = [(a, b) for a, b in zip(found["was"], scores, strict=True)
                     if (a.task, a.metric) == (task, metric)]  # fmt: skip
            notes.append(f"{metric} on {task} x 100, before -> after: " + ", ".join(
                f"{a.point.dim}: {100 * a.value:.2f} -> {100 * b.value:.2f}" for a, b in pairs
            ) + ".")  # fmt: skip
    return turned._replace(scores=tuple(scores), notes=notes)


def still_here(spec: str) -> bool:
    """Whether data of a run can be read again: not rows of a program, nor a file that is gone."""
    return spec in ("demo", FAMILIES) or bool(glob(spec.split("=")[0])) or hub_id(spec)


def read_texts(
    backbone: Backbone, encoder: TextEncoder, texts: Sequence[str], kind: str, batch: int = 64
) -> Tensor:
    """(N, D) float32 readouts of the last layer; texts of like length run together."""
    ids = encoder.ids(texts, kind)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    out_ND = torch.empty(len(ids), backbone.width)
    for first in range(0, len(ids), batch):
        rows = order[first : first + batch]
        ids_ST, mask_ST = pad([ids[i] for i in rows], encoder.pad_id, encoder.padding_side,
                              [encoder.skips.get(kind, 0)] * len(rows))  # fmt: skip
        with torch.no_grad():
            encoded = backbone(ids_ST, mask_ST, [backbone.n_layers], [])
        out_ND[rows] = encoded.readout_LSD[0].float()
    return out_ND


def _agreement(z_ND: Tensor, dims: Sequence[int]) -> dict[int, float]:
    """Spearman correlation, over all pairs of texts, of prefix cosines with whole ones."""
    i_P, j_P = torch.triu_indices(len(z_ND), len(z_ND), 1)

    def cosines(d: int) -> Tensor:
        unit_ND = normalize(z_ND[:, :d].double(), dim=1)
        return (unit_ND @ unit_ND.T)[i_P, j_P]

    whole_P = cosines(z_ND.shape[1])
    return {d: spearman(cosines(d), whole_P) for d in dims}
