"""How long one query takes to each layer: the other side of what a shallow exit costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch

from mipic_llm.data.tokenise import TextEncoder, pad
from mipic_llm.model.backbone import layers_of
from mipic_llm.runtime.engine import Engine

QUERIES, UNTIMED = 50, 5  # asked at most; before them, so that nothing is done for the first time


def query_times(
    engine: Engine, encoder: TextEncoder, texts: Sequence[str], layers: Sequence[int], kind: str
) -> dict[int, float]:
    """layer -> median milliseconds from a text to the output of that layer (1-based), one text at
    a time, its tokenisation included. All ranks call; each has its own clock.

    Forwards of the whole model tell of all layers, by the clock at each layer's end, where the
    device is waited for. The last layer's time is that of the whole forward, final norm and pooling
    included, which for an inner layer are left out. At ZeRO-3 weights are gathered in that time.
    """
    backbone = engine.module.backbone
    stack, n_layers, training = layers_of(backbone.model), backbone.n_layers, engine.module.training
    taken: dict[int, list[float]] = {layer: [] for layer in layers}
    begun = 0.0

    def note(layer: int) -> None:
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        taken[layer].append(time.perf_counter() - begun)

    handles = [stack[layer - 1].register_forward_hook(lambda *_, layer=layer: note(layer))
               for layer in layers if layer != n_layers]  # fmt: skip
    engine.train(False)
    asked = list(texts)[:QUERIES]
    try:
        with torch.no_grad():
            for text in [*asked[:UNTIMED], *asked]:
                begun = time.perf_counter()
                ids = encoder.ids([text], kind)
                ids_1T, mask_1T = pad(ids, encoder.pad_id, encoder.padding_side,
                                      [encoder.skips.get(kind, 0)])  # fmt: skip
                engine.forward(ids_1T.to(engine.device), mask_1T.to(engine.device),
                               layers=(n_layers,))  # fmt: skip
                if n_layers in taken:
                    note(n_layers)
    finally:
        for handle in handles:
            handle.remove()
        engine.train(training)
    return {k: 1000 * statistics.median(times[-len(asked) :]) for k, times in taken.items()}
