"""The losses: pure functions of tensors, computed in float32, gradients tested against float64."""

from mipic_llm.losses.cosent import cosent_per_dim
from mipic_llm.losses.distil import candidate_cosines, candidate_kl, margin_mse, vector_loss
from mipic_llm.losses.ese import alignment_kl, compress, layer_weight, pca_target
from mipic_llm.losses.gor import gor_per_dim
from mipic_llm.losses.infonce import FalseNegatives, false_negatives, mrl_per_dim, too_near
from mipic_llm.losses.mic import decorrelation, isotropy
from mipic_llm.losses.relation import LeftOut, Teacher, neighbourhood_kl
from mipic_llm.losses.sia.api import sia_per_example
from mipic_llm.losses.sia.choice import sia_about

__all__ = [
    "FalseNegatives",
    "LeftOut",
    "Teacher",
    "alignment_kl",
    "candidate_cosines",
    "candidate_kl",
    "compress",
    "cosent_per_dim",
    "decorrelation",
    "false_negatives",
    "gor_per_dim",
    "isotropy",
    "layer_weight",
    "margin_mse",
    "mrl_per_dim",
    "neighbourhood_kl",
    "pca_target",
    "sia_about",
    "sia_per_example",
    "too_near",
    "vector_loss",
]
