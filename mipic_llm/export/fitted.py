"""A linear module fitted on training text that follows a finished model's pooling.

Shape legend: N texts, D width, L layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from glob import glob
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mipic_llm.config import Config
from mipic_llm.data.read.find import split_weight
from mipic_llm.data.tokenise import TextEncoder, pad
from mipic_llm.errors import UserError
from mipic_llm.evaluation.encode import progress_of_texts
from mipic_llm.evaluation.families import FAMILIES
from mipic_llm.evaluation.fitting import texts_for_pca
from mipic_llm.evaluation.read import load_tasks
from mipic_llm.evaluation.suite import run_suite
from mipic_llm.export.card import hub_id
from mipic_llm.model.backbone import Backbone
from mipic_llm.model.dense import Dense
from mipic_llm.report.scores import PREFIX
from mipic_llm.types import Point, Score


class Fitted(NamedTuple):
    """dense: the module. scores: of the model with it, on the run's validation. notes: what it
    gains, for the card."""

    dense: Dense
    scores: tuple[Score, ...]
    notes: list[str]


def text_to_fit(config: Config, specs: Sequence[str], most: int, what: str) -> list[str]:
    """At most so many distinct texts of `specs`, else of the run's training data. UserError where
    neither can be read."""
    own = [s for s in config.training if still_here(s if isinstance(s, str) else s.path)]
    if not (wanted := list(specs) or own):
        raise UserError(f"{what}: the run's training data are not here; give --pca_text FILE ..")
    return texts_for_pca(wanted, most, what, None if specs else config)


def judged_with(
    config: Config, backbone: Backbone, encoder: TextEncoder, layer: int, dims: Sequence[int],
    change: Callable[[Tensor], Tensor],
) -> tuple[tuple[Score, ...], list[str]]:  # fmt: skip
    """Scores on the run's validation data of a layer's readouts after `change`, and notes on what
    it gains at each of dims; both empty where that data is not here."""
    specs = [spec for spec in config.data.validation if still_here(spec)]
    if not specs:
        return (), []
    tasks, _ = load_tasks(specs, split="validation")
    found: list[list[Score]] = []
    for made in (lambda z_ND: z_ND, change):

        def vectors(texts: list[str], kind: str, made: Callable[[Tensor], Tensor] = made) -> Tensor:
            return made(read_texts(backbone, encoder, texts, kind, [layer])[0])[:, None]

        points = [Point(layer, d) for d in dims]
        found.append(run_suite(tasks, vectors, layers=[layer], points=points)[PREFIX])
    was, now = found
    notes = []
    for task, metric in dict.fromkeys((s.task, s.metric) for s in now):
        pairs = [(a, b) for a, b in zip(was, now, strict=True)
                 if (a.task, a.metric) == (task, metric)]  # fmt: skip
        notes.append(f"{metric} on {task} x 100, before -> after: " + ", ".join(
            f"{a.point.dim}: {100 * a.value:.2f} -> {100 * b.value:.2f}" for a, b in pairs
        ) + ".")  # fmt: skip
    return tuple(now), notes


def still_here(spec: str) -> bool:
    """Whether data of a run can be read again: not rows of a program, nor a file that is gone."""
    path = split_weight(spec)[0]
    return path in ("demo", FAMILIES) or Path(path).exists() or bool(glob(path)) or hub_id(path)


def read_texts(
    backbone: Backbone, encoder: TextEncoder, texts: Sequence[str], kind: str,
    layers: Sequence[int] = (), batch: int = 64,
) -> Tensor:  # fmt: skip
    """(L, N, D) float32 readouts of layers, ascending; none = of the last layer, (N, D). Texts of
    like length run together."""
    ids = encoder.ids(texts, kind)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    asked = list(layers) or [backbone.n_layers]
    out_LND = torch.empty(len(asked), len(ids), backbone.width)
    progress = progress_of_texts(len(ids), kind, True)
    for first in range(0, len(ids), batch):
        rows = order[first : first + batch]
        ids_ST, mask_ST = pad([ids[i] for i in rows], encoder.pad_id, encoder.padding_side,
                              [encoder.skips.get(kind, 0)] * len(rows))  # fmt: skip
        with torch.no_grad():
            encoded = backbone(ids_ST, mask_ST, asked, [])
        out_LND[:, rows] = encoded.readout_LSD.float()
        progress.update(first + len(rows), {})
    progress.close()
    return out_LND if layers else out_LND[0]
