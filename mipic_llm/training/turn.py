"""`model.rotate`: a training that begins turned onto the principal axes of its own texts.

The same as `export --rotate` of the base before training, without writing the base anew: the axes
are one more Dense module after the pooling. It is trained and exported with the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mipic_llm.config import Config, need
from mipic_llm.data.read.rows import TextSource
from mipic_llm.evaluation.encode import encode, make_encoder
from mipic_llm.evaluation.fitting import PCA_TEXTS, spread
from mipic_llm.evaluation.open import for_inference, free, load_frozen
from mipic_llm.evaluation.pca import axes_module
from mipic_llm.evaluation.tasks.base import SYMMETRIC
from mipic_llm.model.dense import Dense, read_dense
from mipic_llm.model.source import Source
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.ranks import say
from mipic_llm.training.distinct import distinct
from mipic_llm.types import TURNED


def turn(
    config: Config, source: Source, data: Sequence[TextSource], kept: Path | None = None
) -> Source:
    """The source as `model.rotate` asks; all ranks call, and get the same axes. The model is
    loaded, reads some texts, and is gone afterwards.

    kept: directory of the run that is resumed, which has its axes. UserError for fewer distinct
    texts than channels.
    """
    if config.model.rotate == "none":
        return source
    problem, axes = None, None
    if kept is not None and dist.rank() == 0:
        try:
            axes = read_dense(kept / TURNED, str(kept))
        except Exception as error:  # a file that is gone or damaged: one line on every rank
            problem = f"train.resume: the axes of model.rotate in {kept / TURNED}: {error}"
    problem = dist.from_first(problem)
    need(problem is None, str(problem))
    if kept is None:
        axes = _axes(config, source, data)
        free()
    return source.turned(dist.from_first(axes))


def _axes(config: Config, source: Source, data: Sequence[TextSource]) -> Dense | None:
    """Fitted on the last layer's readouts; on rank 0, None elsewhere."""
    texts = distinct(data)
    n, width, how = len(texts.key_n), source.width, config.model.rotate
    need(n >= width, f"model.rotate: the training data have {n:,} distinct texts, and {width} axes "
         f"take {width} at least ({PCA_TEXTS * width:,} are better); add text to --data.train, or "
         "leave --model.rotate out")  # fmt: skip
    some = [texts.read(i) for i in spread(n, PCA_TEXTS * width)]  # in the order of their hashes
    say(f"model.rotate {how}: reading {len(some):,} of {n:,} training texts")
    inner_norm = config.model.inner_norm or "raw"
    engine = for_inference(config, source, inner_norm, partial(load_frozen, config))
    encoder = make_encoder(config, source)
    z_NLD = encode(engine, encoder, some, [source.n_layers],
                   batch_size=config.eval.batch_size, kind=SYMMETRIC)  # fmt: skip
    engine.close()
    if dist.rank():
        return None
    axes, about = axes_module(z_NLD[:, 0], how == "centred")
    say(f"turned onto their principal axes{about}")
    return axes
