"""A cut model whose last layer says what the layers that were cut off would have said."""

from __future__ import annotations

from collections.abc import Sequence

from mipic_llm.config import Config
from mipic_llm.data.tokenise import TextEncoder
from mipic_llm.evaluation.fitting import LENS_TEXTS
from mipic_llm.evaluation.lens import HELD_OUT, fit_lens
from mipic_llm.evaluation.tasks.base import SYMMETRIC
from mipic_llm.export.fitted import Fitted, judged_with, read_texts, text_to_fit
from mipic_llm.model.backbone import Backbone


def make_lens(
    config: Config, whole: Backbone, encoder: TextEncoder, layer: int, dims: Sequence[int],
    specs: Sequence[str],
) -> Fitted:  # fmt: skip
    """The lens of a layer below the last one of the whole model, see `fit_lens`, on text of `specs`
    (else the run's training data), and what it gains at each of dims.
    UserError for text that cannot be read or is too little.
    """
    texts = text_to_fit(config, specs, LENS_TEXTS * whole.width + HELD_OUT, "lens")
    layers = [layer, whole.n_layers]
    lens = fit_lens(*read_texts(whole, encoder, texts, SYMMETRIC, layers))
    scores, gains = judged_with(config, whole, encoder, layer, dims, lens.dense.linear)
    about = (
        f"Layer {layer} is mapped onto what layer {whole.n_layers} gives, by least squares on "
        f"{len(texts):,} texts without labels (a tuned lens, ridge {lens.ridge:g}): "
        f"{100 * lens.known:.0f} % of its variance, of texts that were held out."
    )
    return Fitted(lens.dense, scores, [about, *gains])
