"""A training run and a finished model, as programs hold them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mipic_llm.api.arguments import config_of, flat_settings, listed, session
from mipic_llm.config import Config, read_record
from mipic_llm.errors import UserError
from mipic_llm.model.files import exported
from mipic_llm.report.scores import Scores

if TYPE_CHECKING:
    import numpy as np


class Model:
    """A finished model that encodes texts at any of its sizes; see `load`."""

    def __init__(self, opened: Any, batch_size: int) -> None:
        self._opened, self._batch_size = opened, batch_size
        self.name: str = opened.name
        self.n_layers: int = opened.n_layers
        self.width: int = opened.width
        self.dims: list[int] = list(opened.dims)

    def __repr__(self) -> str:
        return f"Model({self.name!r}, layers 1..{self.n_layers}, dims {self.dims})"

    def encode(
        self, texts: str | Sequence[str], dim: int | None = None, layer: int | None = None,
        kind: str | None = None, batch_size: int | None = None,
    ) -> np.ndarray:  # fmt: skip
        """(N, dim) float32 unit vectors, in the order of the texts; one text gives (dim,).

        dim: the first channels kept, None = all. layer: 1-based, None = the last. kind: query or
        document, for the model's own prompts; None = its default prompt, as sentence-transformers
        does. Raises UserError for a size or a kind that the model does not have.
        """
        from torch.nn.functional import normalize

        from mipic_llm.evaluation.tasks.base import DOCUMENT, QUERY, SYMMETRIC

        dim, layer = self.width if dim is None else dim, self.n_layers if layer is None else layer
        kinds = {None: SYMMETRIC, "query": QUERY, "document": DOCUMENT}
        for name, value, most in (("dim", dim, self.width), ("layer", layer, self.n_layers)):
            if not 1 <= value <= most:
                raise UserError(f"encode: {name} is {value}; this model has 1 to {most}")
        if kind not in kinds:
            raise UserError(f"encode: kind is {kind!r}; give query, document or None")
        texts_N = [texts] if isinstance(texts, str) else listed(texts)
        if strange := [i for i, text in enumerate(texts_N) if not isinstance(text, str)]:
            raise UserError(f"encode: text {strange[0]} is {type(texts_N[strange[0]]).__name__}, "
                            "not str")  # fmt: skip
        batch_size = batch_size or self._batch_size
        readout_NLD = self._opened.encode(texts_N, [layer], batch_size=batch_size, kind=kinds[kind])
        vectors_Nd = normalize(readout_NLD[:, 0, :dim].float(), dim=-1).numpy()
        return vectors_Nd[0] if isinstance(texts, str) else vectors_Nd


class Run:
    """A training run by its output directory: its scores, its plot, its model.

    path: the directory. config: the resolved configuration. stopped: True where a signal ended the
    run before its model was exported.
    """

    def __init__(self, path: str | Path, stopped: bool = False) -> None:
        self.path, self.stopped = Path(path).resolve(), stopped
        if not (self.path / "config.yaml").is_file():
            raise UserError(f"{path}: it holds no config.yaml, so it is no training run")
        self._model: Model | None = None

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}{', stopped' if self.stopped else ''})"

    @property
    def config(self) -> Config:
        return read_record(self.path / "config.yaml")

    @property
    def scores(self) -> Scores:
        """The figures after training, beside those before it."""
        from mipic_llm.report import before_and_after

        path = self.path / "scores.jsonl"
        before, after = before_and_after(path) if path.is_file() else ([], [])
        return Scores(after, before)

    @property
    def model(self) -> Path:
        """The exported model's directory. Raises UserError where the run has none (yet)."""
        if found := exported(self.path):
            return found
        raise UserError(
            f"{self.path}: the run ended before its model was exported; go on with "
            "train={'resume': 'auto'}, or export its newest checkpoint with mipic_llm.export"
        )

    def encode(
        self, texts: str | Sequence[str], dim: int | None = None, layer: int | None = None,
        kind: str | None = None, batch_size: int | None = None,
    ) -> np.ndarray:  # fmt: skip
        """`Model.encode` of the trained model, which is loaded at the first call."""
        if self._model is None:
            self._model = load(self.model)
        return self._model.encode(texts, dim, layer, kind, batch_size)

    def plot(self):
        """A matplotlib Figure of quality against size, before and after training; a notebook shows
        it. Raises UserError where the run has no scores."""
        import io

        from mipic_llm.report import comparison_plot

        scores, png = self.scores, io.BytesIO()
        figure = comparison_plot({"before training": scores.before, "after training": scores}, None)
        figure.savefig(png, dpi=110)
        figure._repr_png_ = png.getvalue  # for notebooks, without pyplot
        return figure


def load(path: str | Path | Run, **settings: Any) -> Model:
    """Open a finished model: a run, an export, a sentence-transformers directory, a hub id."""
    config = config_of(flat_settings(settings))
    with session():
        from mipic_llm.evaluation.open import open_finished
        from mipic_llm.runtime.start import start

        start()
        return Model(open_finished(config, str(model_path(path))), config.eval.batch_size)


def model_path(model: Any) -> str | Path:
    if isinstance(model, Run):
        return model.model
    if isinstance(model, Model):
        return model.name
    path = Path(model)
    return Run(path).model if (path / "config.yaml").is_file() else str(model)
