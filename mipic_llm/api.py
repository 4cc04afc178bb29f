"""Python API: train, evaluate, compare, export and load, for programs and notebooks.

    import mipic_llm
    run = mipic_llm.train(dataset, model="BAAI/bge-base-en-v1.5", train={"epochs": 2})
    run.scores, run.plot(), run.encode(["a text"], dim=64)

Every function does what the command of its name does and prints the same lines. Bad input raises
UserError. Under a launcher (deepspeed, torchrun) all ranks call; without one there is one rank.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from mipic_llm.config import Config, from_settings, parse_point, read_record
from mipic_llm.config.fields import Row
from mipic_llm.config.files import check_file
from mipic_llm.config.merging import MergeFlags, check_merge
from mipic_llm.data.read.containers import NamedRows
from mipic_llm.data.read.find import check_files
from mipic_llm.data.read.training import as_list
from mipic_llm.errors import EXIT_STOPPED, UserError
from mipic_llm.model.files import exported
from mipic_llm.quiet import quiet
from mipic_llm.report.scores import Scores

if TYPE_CHECKING:
    import numpy as np

    from mipic_llm.report.versus import Comparisons

_VALIDATION = ("validation", "valid", "val", "dev")


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

        from mipic_llm.evaluation.encode import encode
        from mipic_llm.evaluation.tasks.base import DOCUMENT, QUERY, SYMMETRIC

        dim, layer = self.width if dim is None else dim, self.n_layers if layer is None else layer
        kinds = {None: SYMMETRIC, "query": QUERY, "document": DOCUMENT}
        for name, value, most in (("dim", dim, self.width), ("layer", layer, self.n_layers)):
            if not 1 <= value <= most:
                raise UserError(f"encode: {name} is {value}; this model has 1 to {most}")
        if kind not in kinds:
            raise UserError(f"encode: kind is {kind!r}; give query, document or None")
        listed = [texts] if isinstance(texts, str) else list(texts)
        batch_size = batch_size or self._batch_size
        readout_NLD = encode(self._opened.engine, self._opened.encoder, listed, [layer],
                             batch_size=batch_size, kind=kinds[kind])  # fmt: skip
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


def train(
    data: Any = None, *, model: Any = None, objective: Any = None, validation: Any = None,
    callbacks: Sequence[Any] = (), output_dir: str | Path | None = None,
    recipe: str | Path | None = None, ds_config: str | Path | None = None, **settings: Any,
) -> Run:  # fmt: skip
    """Train a model and export it. -> the finished Run.

    data: a path, glob or Hugging Face id as for --data.train; a list of dicts; a datasets.Dataset;
    a DatasetDict (train split; its validation split is evaluated); or a list of several of these.
    None: the recipe's (the built-in example). validation: the same, for evaluation. model: a
    directory or Hugging Face id. objective: mipic, mrl, simcse, ese, 2dmse. callbacks: objects
    with hooks of `Callback`. output_dir: None = a new directory outputs/run-N. settings: by the
    flags' names, a section as a dict, train={"epochs": 2}, or with dots,
    **{"train.epochs": 2}. Raises UserError for bad input, CallbackError for a callback's.
    """
    named = {
        "recipe": recipe,
        "ds_config": ds_config,
        "output_dir": output_dir,
        "model" if isinstance(model, Mapping) else "model.name": model,
        "objective" if isinstance(objective, Mapping) else "objective.name": objective,
    }
    flat = _flat(settings | {k: v for k, v in named.items() if v is not None})  # fmt: skip
    rows = None if data is None else [str(d) if isinstance(d, Path) else d for d in as_list(data)]
    tasks = _splits(rows or []) if validation is None else _tasks(validation)
    if _by_name(rows):
        flat["data.train"], rows = rows, None
    if _by_name(tasks):
        flat["data.validation"], tasks = tasks, None
    elif tasks is not None:
        flat.setdefault("data.validation", [])
    config = _config(flat)
    check_file("ds_config", "ds_configs", config.ds_config)
    check_files([*([] if rows else config.training_files), *config.data.validation])
    with _session():
        from mipic_llm.training.loop import train as run_training

        if output_dir is None:
            config = config.replace(output_dir=_new_directory())
        code = run_training(config, callbacks, rows=rows, validation=tasks)
    return Run(config.output_dir, stopped=code == EXIT_STOPPED)


def evaluate(
    model: Any, data: Any = None, *, suite: str | None = None, mteb: Sequence[str] = (),
    dims: Sequence[int] | None = None, layers: Sequence[int] | None = None,
    bits: Sequence[int] = (), output_dir: str | Path | None = None, **settings: Any,
) -> Scores:  # fmt: skip
    """Score a finished model at every layer and size. -> the scores.

    model: a Run, a Model, a directory or a Hugging Face id. data: as for `train`, with columns
    sentence1, sentence2, score | sentence1, sentence2, label | text, label | anchor, positive ..
    bits: 8
    (int8) and 1 (signs) beside float32. output_dir: where scores.jsonl goes; None =
    outputs/evaluation. Other arguments as the flags of `mipic evaluate`.
    """
    from mipic_llm.evaluation.judge import asked
    from mipic_llm.evaluation.judge import evaluate as judge

    flat = _flat(settings | ({} if output_dir is None else {"output_dir": output_dir}))
    config = _config(flat, asked(
        model=str(_model_path(model)), data=[] if data is None else _tasks(data), suite=suite,
        mteb=list(mteb), layers=layers and list(layers), dims=dims and list(dims), bits=list(bits),
    ))  # fmt: skip
    with _session():
        from mipic_llm.report import read_scores
        from mipic_llm.runtime import ranks

        judge(config)
        ranks.barrier()
    return Scores(read_scores(Path(output_dir or "outputs/evaluation") / "scores.jsonl"))


def compare(
    *models: Any, data: Any = None, suite: str | None = None, dims: Sequence[int] | None = None,
    layers: Sequence[int] | None = None, bits: Sequence[int] = (),
    output_dir: str | Path = "outputs/comparison", **settings: Any,
) -> Comparisons:  # fmt: skip
    """Compare each with the first one, at every size, with paired 95 % intervals. -> a list of
    comparisons that prints as a report.

    models: Runs (alone: after training against before), directories of `evaluate`, or, with data or
    a suite as for `evaluate`, Models, directories and Hugging Face ids, which are evaluated then.
    output_dir: of comparison.html, .md, .png and .json. Raises UserError.
    """
    config = _config(_flat(settings | {"output_dir": output_dir}), SimpleNamespace(
        data=[] if data is None else _tasks(data), suite=suite, layers=layers and list(layers),
        dims=dims and list(dims), bits=list(bits),
    ))  # fmt: skip
    with _session():
        from mipic_llm.evaluation.versus import compare as run_comparison
        from mipic_llm.report.versus import Comparisons

        names = [str(m.path if isinstance(m, Run) else m.name if isinstance(m, Model) else m)
                 for m in models]  # fmt: skip
        return Comparisons(run_comparison(config, names))


def export(
    run: Run | str | Path, *, merged: bool = False, point: str | None = None,
    checkpoint: str | Path = "auto", to: str | Path | None = None, bytes: int | None = None,
    data: Sequence[str] = (), lens: bool = False, rotate: str = "none",
    pca_text: Sequence[str] = (), onnx: bool = False, push: str | None = None, public: bool = False,
) -> Path:  # fmt: skip
    """Write a portable model from a run, and check it by loading it again. -> its directory.

    merged: base and adapter in one model. point: a model of this size, such as 64@6 (dim@layer).
    checkpoint: auto = the finished model, else the newest complete checkpoint. to: where to write;
    None = the run's directory. bytes, data, lens, rotate, pca_text, onnx, push, public: as the
    command's flags (`mipic export --help`). Raises UserError for a size that the model does not
    have, or a hub that refuses.
    """
    path = run.path if isinstance(run, Run) else Path(run)
    layer, dim = (None, None) if point is None else parse_point(point, "export: point: ")[:2]
    config = _config({"output_dir": path}, SimpleNamespace(
        checkpoint=str(checkpoint), merged=merged, to=to and str(to), layers=layer, dim=dim,
        bytes=bytes, data=list(data), lens=lens, rotate=rotate, pca_text=list(pca_text), onnx=onnx,
        push=push, public=public,
    ))  # fmt: skip
    with _session():
        from mipic_llm.export.run import export as write
        from mipic_llm.runtime import ranks

        folder = problem = None
        if ranks.rank() == 0:
            try:
                folder = write(config)
            except UserError as error:
                problem = str(error)
        folder, problem = ranks.from_first((folder, problem))
        if problem:
            raise UserError(problem)
    return folder


def merge(
    *runs: Run | str | Path, to: str | Path, how: str = "average",
    weights: Sequence[float] | None = None, scale: float | Sequence[float] = 1.0,
    rule: str = "mean", slack: float = 0.0, data: Sequence[str] = (),
) -> Path:  # fmt: skip
    """Scale what a finished run learnt, or merge several of one base. -> the directory `to`, which
    is like that of a run. One process.

    scale: one, or several of which the best on data (None = data.validation of the first run) is
    taken. how, weights, rule, slack: as the command's flags (`mipic merge --help`). Raises
    UserError.
    """
    values = {
        "runs": [str(r.path if isinstance(r, Run) else r) for r in runs], "to": str(to), "how": how,
        "weights": weights and list(weights), "rule": rule, "data": list(data), "slack": slack,
        "scale": [scale] if isinstance(scale, int | float) else list(scale),
    }  # fmt: skip
    own = MergeFlags.of(Row(key, value, f"merge: {key}") for key, value in values.items())
    check_merge(own)
    with _session():
        from mipic_llm.export.merge import merge as write

        return write(_config({}, own))


def mine(
    data: Any = None, *, model: Any = None, output: str | Path = "outputs/mined.jsonl",
    overwrite: bool = False, **settings: Any,
) -> Path:  # fmt: skip
    """Find hard negatives (or pairs) for rows. -> the file of rows; its report lies beside it.

    data, model: as for `train`. settings: the flags of `mipic mine` without their `mine.`, such as
    corpus=["passages.jsonl"], and those of a training that it reads. Raises UserError.
    """
    from mipic_llm.mining.settings import flags_of

    flags, others = flags_of({**settings, "output": str(output)}, model and str(_model_path(model)))
    rows = None if data is None else [str(d) if isinstance(d, Path) else d for d in as_list(data)]
    named = {"data.train": rows} if _by_name(rows) else {}
    config = _config(_flat(others | named | {"overwrite": overwrite}), flags)
    with _session():
        from mipic_llm.mining.run import mine as run_mining

        run_mining(config, None if named else rows)
    return Path(output)


def load(path: str | Path | Run, **settings: Any) -> Model:
    """Open a finished model: a run, an export, a sentence-transformers directory, a hub id."""
    config = _config(_flat(settings))
    with _session():
        from mipic_llm.evaluation.open import open_finished
        from mipic_llm.runtime.engine import start

        start()
        return Model(open_finished(config, str(_model_path(path))), config.eval.batch_size)


# ---------------------------------------------------------------- arguments to what commands take


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """{"train": {"epochs": 2}} and {"train.epochs": 2} as the latter."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        inner = value if isinstance(value, Mapping) else None
        flat |= {key: value} if inner is None else {f"{key}.{k}": v for k, v in inner.items()}
    return flat


def _config(flat: Mapping[str, Any], extra: Any = None) -> Config:
    config = from_settings(flat)
    return config.told(config, extra=extra)


def _by_name(found: list[Any] | None) -> bool:
    return bool(found) and all(isinstance(one, str) for one in found or ())


def _splits(sources: Sequence[Any]) -> list[NamedRows] | None:
    """The validation splits that DatasetDicts among the training data bring, if any."""
    found = []
    for n, source in enumerate(sources):
        split = next((s for s in _VALIDATION if isinstance(source, Mapping) and s in source), None)
        if split is None:
            continue
        from mipic_llm.evaluation.build import understood

        columns = list(next(iter(source[split]), {}))
        if understood(columns):
            found.append(NamedRows(f"{split}-{n}" if n else split, source[split]))
        elif os.environ.get("RANK", "0") == "0":
            print(f"note: data[{n}]: its {split} split has the columns {', '.join(columns)} and is "
                  "not used; evaluation understands none of them")  # fmt: skip
    return found or None


def _tasks(data: Any) -> list[Any]:
    """Evaluation data: names of files stay, rows in memory get a name; an empty list is none."""
    sources = [] if isinstance(data, list | tuple) and not data else as_list(data)
    return [
        str(d) if isinstance(d, str | Path) else NamedRows(f"rows[{n}]", d)
        for n, d in enumerate(sources)
    ]


def _model_path(model: Any) -> str | Path:
    if isinstance(model, Run):
        return model.model
    if isinstance(model, Model):
        return model.name
    path = Path(model)
    return Run(path).model if (path / "config.yaml").is_file() else str(model)


def _new_directory() -> str:
    """outputs/run-N, the first that does not exist; the same on every rank."""
    from mipic_llm.runtime import ranks
    from mipic_llm.runtime.engine import start

    start()
    number = 1
    while ranks.rank() == 0 and Path(f"outputs/run-{number}").exists():
        number += 1
    return f"outputs/run-{ranks.from_first(number)}"


@contextmanager
def _session() -> Iterator[None]:
    """As a command starts: quiet libraries. Afterwards the caller's random state is as it was, and
    what the run held is freed."""
    quiet()
    from mipic_llm.runtime import checkpoint

    kept = checkpoint.rng_state()
    try:
        yield
    finally:
        checkpoint.set_rng_state(kept)
        gc.collect()
