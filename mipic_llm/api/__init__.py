"""Python API: train, evaluate, compare, export and load, for programs and notebooks.

    import mipic_llm
    run = mipic_llm.train(dataset, model="BAAI/bge-base-en-v1.5", train={"epochs": 2})
    run.scores, run.plot(), run.encode(["a text"], dim=64)

Every function does what the command of its name does and prints the same lines. Bad input raises
UserError. Under a launcher (deepspeed, torchrun) all ranks call; without one there is one rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from mipic_llm.api.arguments import (
    by_name,
    config_of,
    files_of,
    flat_settings,
    listed,
    session,
    splits_of,
    tasks_of,
)
from mipic_llm.api.run import Model, Run, model_path
from mipic_llm.config import parse_point
from mipic_llm.config.evaluating import OUTPUT, EvaluateFlags, evaluate_flags
from mipic_llm.config.fields import Row
from mipic_llm.config.files import check_file
from mipic_llm.config.merging import MergeFlags, check_merge
from mipic_llm.data.read.find import check_files
from mipic_llm.data.read.training import as_list
from mipic_llm.errors import EXIT_STOPPED, UserError
from mipic_llm.report.scores import Scores

if TYPE_CHECKING:
    from mipic_llm.report.versus import Comparisons


def train(
    data: Any = None, *, model: Any = None, objective: Any = None, validation: Any = None,
    callbacks: Sequence[Any] = (), output_dir: str | Path | None = None,
    recipe: str | Path | None = None, ds_config: str | Path | None = None, **settings: Any,
) -> Run:  # fmt: skip
    """Train a model and export it. -> the finished Run.

    data: a path, glob or Hugging Face id as for --data.train; a list of dicts; a datasets.Dataset;
    a DatasetDict (train split; its validation split is evaluated); a table of pandas, polars or
    pyarrow; or a list of several of these.
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
    flat = flat_settings(settings | {k: v for k, v in named.items() if v is not None})  # fmt: skip
    rows = None if data is None else [str(d) if isinstance(d, Path) else d for d in as_list(data)]
    tasks = splits_of(rows or []) if validation is None else tasks_of(validation)
    if by_name(rows):
        flat["data.train"], rows = rows, None
    if by_name(tasks):
        flat["data.validation"], tasks = tasks, None
    elif tasks is not None:
        flat.setdefault("data.validation", [])
    config = config_of(flat)
    check_file("ds_config", "ds_configs", config.ds_config)
    check_files([*([] if rows else config.training_files), *config.data.validation])
    with session():
        from mipic_llm.training.loop import train as run_training

        if output_dir is None:
            config = config.replace(output_dir=_new_directory())
        code = run_training(config, listed(callbacks), rows=rows, validation=tasks)
    return Run(config.output_dir, stopped=code == EXIT_STOPPED)


def evaluate(
    model: Any, data: Any = None, *, suite: str | None = None, mteb: Sequence[str] = (),
    dims: int | Sequence[int] | None = None, layers: int | Sequence[int] | None = None,
    bits: int | Sequence[int] = (), output_dir: str | Path | None = None, **settings: Any,
) -> Scores:  # fmt: skip
    """Score a finished model at every layer and size. -> the scores.

    model: a Run, a Model, a directory or a Hugging Face id. data: as for `train`, with columns
    sentence1, sentence2, score | sentence1, sentence2, label | text, label | anchor, positive ..
    bits: 8 (int8) and 1 (signs) beside float32. output_dir: where scores.jsonl goes; None =
    outputs/evaluation. Other arguments as the flags of `mipic evaluate`, such as pca_text=[..].
    """
    from mipic_llm.evaluation.judge import evaluate as judge

    own = {k: settings.pop(k) for k in [*settings] if k in EvaluateFlags.model_fields}
    flat = flat_settings(settings | ({} if output_dir is None else {"output_dir": output_dir}))
    config = config_of(flat, evaluate_flags(
        [] if data is None else tasks_of(data), model=str(model_path(model)), suite=suite,
        mteb=listed(mteb), layers=listed(layers) or None, dims=listed(dims) or None,
        bits=listed(bits), **own,
    ))  # fmt: skip
    with session():
        from mipic_llm.report import read_scores
        from mipic_llm.runtime import ranks

        judge(config)
        ranks.barrier()
    return Scores(read_scores(Path(output_dir or OUTPUT) / "scores.jsonl"))


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
    config = config_of(flat_settings(settings | {"output_dir": output_dir}), SimpleNamespace(
        data=[] if data is None else tasks_of(data), suite=suite,
        layers=listed(layers) or None, dims=listed(dims) or None, bits=listed(bits),
    ))  # fmt: skip
    with session():
        from mipic_llm.evaluation.versus import compare as run_comparison
        from mipic_llm.report.versus import Comparisons

        names = [str(m.path if isinstance(m, Run) else m.name if isinstance(m, Model) else m)
                 for m in models]  # fmt: skip
        return Comparisons(run_comparison(config, names))


def export(
    run: Run | str | Path, *, merged: bool = False, point: str | None = None,
    checkpoint: str | Path = "auto", to: str | Path | None = None, bytes: int | None = None,
    data: str | Path | Sequence[str | Path] = (), lens: bool = False, rotate: str = "none",
    pca_text: str | Path | Sequence[str | Path] = (), onnx: bool = False,
    push: str | None = None, public: bool = False,
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
    config = config_of({"output_dir": path}, SimpleNamespace(
        checkpoint=str(checkpoint), merged=merged, to=to and str(to), layers=layer, dim=dim,
        bytes=bytes, data=files_of("export: data", data), lens=lens, rotate=rotate,
        pca_text=files_of("export: pca_text", pca_text), onnx=onnx, push=push, public=public,
    ))  # fmt: skip
    with session():
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
    rule: str = "mean", slack: float = 0.0, data: str | Path | Sequence[str | Path] = (),
) -> Path:  # fmt: skip
    """Scale what a finished run learnt, or merge several of one base. -> the directory `to`, which
    is like that of a run. One process.

    scale: one, or several of which the best on data (None = data.validation of the first run) is
    taken. how, weights, rule, slack: as the command's flags (`mipic merge --help`). Raises
    UserError.
    """
    values = {
        "runs": [str(r.path if isinstance(r, Run) else r) for r in runs], "to": str(to), "how": how,
        "weights": listed(weights) or None, "rule": rule, "slack": slack,
        "data": files_of("merge: data", data), "scale": listed(scale),
    }  # fmt: skip
    own = MergeFlags.of(Row(key, value, f"merge: {key}") for key, value in values.items())
    check_merge(own)
    with session():
        from mipic_llm.export.merge import merge as write

        return write(config_of({}, own))


def mine(
    data: Any = None, *, model: Any = None, output: str | Path = "outputs/mined.jsonl",
    overwrite: bool = False, **settings: Any,
) -> Path:  # fmt: skip
    """Find hard negatives (or pairs) for rows. -> the file of rows; its report lies beside it.

    data, model: as for `train`. settings: the flags of `mipic mine` without their `mine.`, such as
    corpus=["passages.jsonl"], and those of a training that it reads. Raises UserError.
    """
    from mipic_llm.mining.settings import flags_of

    flags, others = flags_of({**settings, "output": str(output)}, model and str(model_path(model)))
    rows = None if data is None else [str(d) if isinstance(d, Path) else d for d in as_list(data)]
    named = {"data.train": rows} if by_name(rows) else {}
    config = config_of(flat_settings(others | named | {"overwrite": overwrite}), flags)
    with session():
        from mipic_llm.mining.run import mine as run_mining

        run_mining(config, None if named else rows)
    return Path(output)


def _new_directory() -> str:
    """outputs/run-N, the first that does not exist; the same on every rank."""
    from mipic_llm.runtime import ranks
    from mipic_llm.runtime.start import start

    start()
    number = 1
    while ranks.rank() == 0 and Path(f"outputs/run-{number}").exists():
        number += 1
    return f"outputs/run-{ranks.from_first(number)}"
