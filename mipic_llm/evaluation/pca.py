"""Post-hoc PCA: the baseline that needs no Matryoshka training.

Fitted on unit vectors of training text (the similarity is a cosine, so lengths carry nothing),
centred. The first d components of a larger fit are the fit of d, so one rotation serves every dim.
Shape legend: N texts, D full width, K components.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mipic_llm.errors import UserError
from mipic_llm.model.dense import Dense

MOSTLY_MEAN = 0.5  # share of the mean in the square length above which it is taken off


class Pca(NamedTuple):
    """mean_D: of the unit training vectors; axes_KD: principal axes, orthonormal rows, float64."""

    mean_D: Tensor
    axes_KD: Tensor

    @classmethod
    def fit(cls, train_ND: Tensor, n_components: int) -> Pca:
        """Axes of greatest variance, in falling order. UserError for as few texts as components."""
        unit_ND = normalize(train_ND.double(), dim=1)
        if len(unit_ND) <= n_components:
            raise UserError(
                f"pca_text: {len(unit_ND)} distinct texts cannot give {n_components} principal "
                f"components; give more than {n_components} texts, or smaller --dims"
            )
        mean_D = unit_ND.mean(0)
        centred_ND = unit_ND - mean_D
        _, axes_DD = torch.linalg.eigh(centred_ND.T @ centred_ND)  # rising variance, in columns
        return cls(mean_D, axes_DD.flip(1)[:, :n_components].T.contiguous())

    def turn(self, z_ND: Tensor) -> Tensor:
        """(N, K) float32: the coordinates of unit vectors on the axes."""
        unit_ND = normalize(z_ND.double(), dim=1)
        return ((unit_ND - self.mean_D) @ self.axes_KD.T).float()


def principal_axes(train_ND: Tensor, centred: bool = False) -> Tensor:
    """(D, D) float64 orthogonal matrix: in its rows, the axes on which unit vectors have the
    greatest mean square, in falling order. Turned by it, whole vectors keep every cosine exactly.

    Not centred: the first d coordinates keep as much of all inner products as any d can (Eckart and
    Young). centred: the direction of the mean is the last axis, and the others are those of the
    greatest variance at right angles to it, so that a prefix holds nothing of what all texts share.
    UserError for fewer texts than channels, which leave the last axes open.
    """
    unit_ND = normalize(train_ND.double(), dim=1)
    n, width = unit_ND.shape
    if n < width:
        raise UserError(f"pca_text: {n} distinct texts do not fix {width} axes; give more texts")
    square_DD = unit_ND.T @ unit_ND
    if centred:
        mean_D = normalize(unit_ND.mean(0), dim=0)
        rest_DD = torch.eye(width).double() - torch.outer(mean_D, mean_D)
        square_DD = rest_DD @ square_DD @ rest_DD - n * torch.outer(mean_D, mean_D)  # below all
    _, axes_DD = torch.linalg.eigh(square_DD)  # rising, in columns
    return axes_DD.flip(1).T.contiguous()


def mean_share(train_ND: Tensor) -> float:
    """The share of the mean in the mean square length of unit vectors, 0 to 1: 1 = all alike."""
    return float(normalize(train_ND.double(), dim=1).mean(0).square().sum())


def axes_module(train_ND: Tensor, centred: bool = False) -> tuple[Dense, str]:
    """`principal_axes` as what follows the pooling, and a few words about it.

    centred, where the mean is most of a vector, as in decoders that were not trained for
    embeddings: it is taken off too, since cosines of whole vectors say little there (SmolLM2-135M:
    nDCG@10 of the whole vector 28.4 -> 36.6, narrow prefixes as they were).
    """
    axes_DD, share = principal_axes(train_ND, centred), mean_share(train_ND)
    if not centred or share <= MOSTLY_MEAN:
        about = ", the direction of their mean last" if centred else ""
        return Dense(axes_DD.float(), None, "Identity"), about
    bias_D = -(axes_DD @ train_ND.double().mean(0))
    about = (f", the direction of their mean last and taken off: it is {100 * share:.0f} % of the "
             "square length of a vector")  # fmt: skip
    return Dense(axes_DD.float(), bias_D.float(), "Identity"), about
