"""Other forms of a finished model: merged, cut to a point, rotated. Each is proved like the first.

Shape legend: N texts, D width of the vectors.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mipic_llm.config import Config, need
from mipic_llm.data.read.training import read_training
from mipic_llm.data.tokenise import TextEncoder
from mipic_llm.errors import UserError
from mipic_llm.evaluation.tasks.base import SYMMETRIC
from mipic_llm.export.budget import Fit, fit_bytes
from mipic_llm.export.card import Facts
from mipic_llm.export.fitted import read_texts
from mipic_llm.export.lens import make_lens
from mipic_llm.export.live import PROBES, Proof
from mipic_llm.export.portable import EmbeddingSpec
from mipic_llm.export.rotate import rotate
from mipic_llm.export.verify import reload_vectors
from mipic_llm.export.write import ExportError, merge_adapter, write_merged
from mipic_llm.model.backbone import Backbone, base_of, cut_layers, final_norm_of
from mipic_llm.model.dense import cut, make_dense
from mipic_llm.model.load import dtype_of
from mipic_llm.runtime.ranks import say
from mipic_llm.types import Point

TIMED_TEXTS, TIMED_RUNS = 64, 5


class Finished(NamedTuple):
    """A finished model in `folder`: adapter/, merged/, another form, or a base. encoder: with
    prompts. texts: built in, to compare and to time, since the run's data may be elsewhere."""

    config: Config
    spec: EmbeddingSpec
    encoder: TextEncoder
    folder: Path
    texts: list[str]

    @property
    def dtype(self) -> torch.dtype:
        return dtype_of(self.config.train.precision)

    def whole(self) -> Any:
        """Its transformer, an adapter merged in."""
        from transformers import AutoModel

        if self.folder.name == "adapter":
            return merge_adapter(self.spec, self.folder, self.dtype)
        return without_random(*AutoModel.from_pretrained(
            self.folder, dtype=self.dtype, output_loading_info=True, **self.spec.hub,
        ))  # fmt: skip

    def backbone(self, model: Any) -> Backbone:
        """The whole transformer with what pools its tokens."""
        spec = self.spec
        return Backbone(model, pooling=spec.pooling, inner_norm=spec.inner_norm,
                        dense=make_dense(spec.dense, self.dtype)).eval()  # fmt: skip

    def fit(self, most: int, specs: Sequence[str]) -> Fit:
        """The best size and precision in so many bytes, on the data of specs."""
        whole = self.backbone(self.whole())
        return fit_bytes(self.config, whole, self.encoder, self.spec.dims, most, specs)


def without_random(model: Any, report: Mapping[str, Any]) -> Any:
    """A loaded model without the pooler that its class makes up where the files have none, as
    after full fine-tuning: a form of it would keep the random numbers as if they were weights."""
    if any(key.startswith("pooler.") for key in report["missing_keys"]):
        model.pooler = None
    return model


def demo_texts() -> list[str]:
    """Built-in texts, to compare and to time with."""
    sources, _ = read_training(["demo"], negatives=0, on_bad_rows="error", cache_dir=None)
    return list(dict.fromkeys(e.anchor for e in sources[0].examples))[:TIMED_TEXTS]


def merged(model: Finished, folder: Path) -> Finished:
    """The adapter merged into its base. UserError for a model that is whole already."""
    need(model.folder.name == "adapter",
         f"merged: {model.folder} is a merged model already (full fine-tuning)")  # fmt: skip
    # Tokens of the run: files that an older version wrote cut texts at another length.
    live_ND = reload_vectors(model.folder, model.texts[:PROBES], model.spec, loader="automodel",
                             dtype=model.dtype, encoder=model.encoder)  # fmt: skip
    return _write(model, folder, model.whole(), model.spec, live_ND)


def at_point(
    model: Finished, out: Path, point: Point, turn: str = "none", pca_text: Sequence[str] = (),
    fit: Fit | None = None, lens: bool = False,
) -> Finished:  # fmt: skip
    """A whole model that ends after the point's layer with its dim: the same vectors as the point.

    lens: mapped onto the last layer, see `make_lens`. turn: none; pca or centred: rotated, see
    `rotate`. Both are fitted on pca_text. fit: how the vectors are stored.
    Raises UserError for a point that the model does not have or its class cannot express.
    """
    spec, texts, bare = model.spec, model.texts, model.encoder.bare()
    point, last = Point(point.layer, point.dim), Point(spec.n_layers, spec.width)
    for name, value, most in (("layers", point.layer, last.layer), ("dim", point.dim, last.dim)):
        need(1 <= value <= most, f"{name}: {value} is not in 1..{most}, the model's own")
    net = model.whole()
    need(
        point.layer == last.layer or not final_norm_of(net) or spec.inner_norm != "raw",
        "layers: this run read its inner layers before the final norm, which no model directory "
        "can express; train with --model.inner_norm final to cut",
    )
    whole = model.backbone(net)
    live_ND = read_texts(whole, bare, texts[:PROBES], SYMMETRIC, [point.layer], batch=1)[0]
    before = _seconds(whole, bare, texts)
    need(not lens or point.layer < last.layer, "lens: it maps an inner layer onto the last one; "
         f"give a --point below layer {last.layer}")  # fmt: skip
    dims = tuple(sorted({d for d in spec.dims if d < point.dim} | {point.dim}))
    facts, kind, fitted = spec.facts or Facts(), "shallow", []
    if lens:
        fitted = [make_lens(model.config, whole, model.encoder, point.layer, dims, pca_text)]
        spec, kind = spec._replace(dense=(*spec.dense, fitted[0].dense)), "lens"
    cut_layers(base_of(net), point.layer)
    small, notes = model._replace(spec=spec).backbone(net), []
    if point != last:
        with _cut_fits(net, point.layer):
            times = before / _seconds(small, bare, texts)
        speed = f": encodes {times:.2f} times as fast as the whole model (CPU, {len(texts)} texts)"
        notes += [f"Cut after layer {point.layer} of {last.layer}, width {point.dim} of {last.dim}"
                  f"{speed if point.layer < last.layer else ''}."]  # fmt: skip
    if turn != "none":
        centred = turn == "centred"
        turned = rotate(model.config, small, model.encoder, point, dims, pca_text, centred)
        spec, kind = spec._replace(dense=(*spec.dense, turned.dense)), "rotated"
        fitted.append(turned)
    for one in fitted:
        live_ND = one.dense.linear(live_ND)
        notes += one.notes
        facts = facts._replace(scores=one.scores, before=(), verdict=())
    notes += [f"{s.metric} on {s.task} at this size: {s.value:.4f} ({s.n} rows)."
              for s in facts.scores if s.point == point]  # fmt: skip
    spec = spec._replace(n_layers=point.layer, dims=dims, width=point.dim, facts=facts,
                         notes=(*notes, *(fit.notes if fit else ())),
                         dense=cut(spec.dense, spec.width, point.dim))  # fmt: skip
    folder = out / f"{kind}-{point.layer}x{point.dim}"
    with _cut_fits(net, point.layer):
        found = _write(model, folder, net, spec, live_ND)
    for note in notes:
        say(note)
    if point.layer < last.layer and not lens:
        say(
            "note: --lens maps the vectors of an inner layer onto those of the last one, which "
            "mostly serves better"
        )
    if fit:
        fit.write(folder)
    return found


@contextmanager
def _cut_fits(net: Any, n_layers: int) -> Iterator[None]:
    """UserError where what is left of a class cannot be run or loaded: the class' own words."""
    try:
        yield
    except (ExportError, UserError, OSError):
        raise
    except Exception as error:
        raise UserError(
            f"layers: {type(net).__name__} cut after layer {n_layers} cannot be run or loaded: "
            f"{(str(error).splitlines() or [type(error).__name__])[0]}"
        ) from error


def _write(
    model: Finished, folder: Path, net: Any, spec: EmbeddingSpec, live_ND: Tensor
) -> Finished:
    """A whole model that must give live_ND, with a parity.json of its own."""
    spec = spec._replace(quantization="none")
    proof = Proof(model.config, model.encoder, model.texts[:PROBES], live_ND)

    def check(fresh: Path) -> None:
        proof.check(spec, "", rounded=True)(fresh)
        proof.write(fresh, rounded=True)

    write_merged(folder, net, spec, check)
    say(f"{folder.name}: {folder} (reloaded and compared: {folder / 'parity.json'})")
    return model._replace(folder=folder, spec=spec)


def _seconds(backbone: Backbone, bare: TextEncoder, texts: list[str]) -> float:
    """Median wall time of encoding the texts in one batch, after one untimed pass."""
    times = []
    for _ in range(TIMED_RUNS + 1):
        begun = time.perf_counter()
        read_texts(backbone, bare, texts, SYMMETRIC, batch=len(texts))
        times.append(time.perf_counter() - begun)
    return statistics.median(times[1:])
