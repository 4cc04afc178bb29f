"""The losses: pure functions of tensors, float32 inside, with gradients checked against float64."""

from mipic_llm.losses.cka import linear_cka
from mipic_llm.losses.ese import alignment_kl, compress, layer_weight, pca_target
from mipic_llm.losses.gor import gor_per_dim
from mipic_llm.losses.infonce import info_nce, mrl_per_dim
from mipic_llm.losses.mrl import mrl
from mipic_llm.losses.pic import pic, pic_per_link
from mipic_llm.losses.relation import decorrelation, neighbourhood_kl
from mipic_llm.losses.sia.api import sia, sia_per_example

__all__ = [
    "alignment_kl",
    "compress",
    "decorrelation",
    "gor_per_dim",
    "info_nce",
    "layer_weight",
    "linear_cka",
    "mrl",
    "mrl_per_dim",
    "neighbourhood_kl",
    "pca_target",
    "pic",
    "pic_per_link",
    "sia",
    "sia_per_example",
]
