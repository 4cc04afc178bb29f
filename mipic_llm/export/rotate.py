"""A rotation onto the principal axes of training text: exact for whole vectors, better prefixes.

Shape legend: N texts, D full width, P pairs of texts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mipic_llm.config import Config
from mipic_llm.data.tokenise import TextEncoder
from mipic_llm.evaluation.fitting import PCA_TEXTS
from mipic_llm.evaluation.lens import HELD_OUT
from mipic_llm.evaluation.metrics import spearman
from mipic_llm.evaluation.pca import axes_module
from mipic_llm.evaluation.tasks.base import SYMMETRIC
from mipic_llm.export.fitted import Fitted, judged_with, read_texts, text_to_fit
from mipic_llm.model.backbone import Backbone
from mipic_llm.types import Point


def rotate(
    config: Config, backbone: Backbone, encoder: TextEncoder, point: Point, dims: Sequence[int],
    specs: Sequence[str], centred: bool = False,
) -> Fitted:  # fmt: skip
    """Fit the axes on text of `specs` (else the run's training data), at the backbone's last layer,
    and say what they gain at each of dims. centred: see `axes_module`.
    UserError for text that cannot be read or is too little.
    """
    texts = text_to_fit(config, specs, PCA_TEXTS * backbone.width + HELD_OUT, "rotate")
    every = max(5, len(texts) // HELD_OUT)
    fitted, kept = [t for i, t in enumerate(texts) if i % every], texts[::every]
    axes, about = axes_module(read_texts(backbone, encoder, fitted, SYMMETRIC), centred)
    kept_ND = read_texts(backbone, encoder, kept, SYMMETRIC)
    was, now = (_agreement(z_ND, dims) for z_ND in (kept_ND, axes.linear(kept_ND)))
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
    scores, gains = judged_with(config, backbone, encoder, point.layer, dims, axes.linear)
    return Fitted(axes, scores, notes + gains)


def _agreement(z_ND: Tensor, dims: Sequence[int]) -> dict[int, float]:
    """Spearman correlation, over all pairs of texts, of prefix cosines with whole ones."""
    i_P, j_P = torch.triu_indices(len(z_ND), len(z_ND), 1)

    def cosines(d: int) -> Tensor:
        unit_ND = normalize(z_ND[:, :d].double(), dim=1)
        return (unit_ND @ unit_ND.T)[i_P, j_P]

    whole_P = cosines(z_ND.shape[1])
    return {d: spearman(cosines(d), whole_P) for d in dims}
