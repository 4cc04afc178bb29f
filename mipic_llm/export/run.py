"""`mipic export`: what was asked for of a run's model, or of a base, written one after another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mipic_llm.config import Config, need
from mipic_llm.config.check import check_registered
from mipic_llm.export.card import Facts
from mipic_llm.export.forms import Finished, at_point, merged
from mipic_llm.export.live import PROBES
from mipic_llm.export.onnx import check_packages, write_onnx
from mipic_llm.export.push import check_name, push
from mipic_llm.export.runs import of_base, of_run
from mipic_llm.export.uses import OF_BASE
from mipic_llm.model.files import KINDS
from mipic_llm.report.judged import judged
from mipic_llm.runtime.ranks import say
from mipic_llm.tracking import MlflowTracker, Tracker, follow
from mipic_llm.types import Judgement, Point

# Recorded in MLflow.
_FLAGS = ("merged", "layers", "dim", "bytes", "lens", "rotate", "onnx", "push")


def export(config: Config) -> Path:
    """-> the directory of the last form that was asked for. UserError for a run without a model, a
    size that it does not have, or a package that is missing."""
    own = config.extra
    told = {k for k, origin in config.origins.items() if origin == "flag"}
    without_run = "model.name" in told and "output_dir" not in told
    if without_run:
        _check_base(own)
    elif idle := [f"--{key}" for key in OF_BASE if key in told]:
        say(f"note: {', '.join(idle)}: vectors are made as the run made them")
    cut = bool(own.layers or own.dim or own.rotate != "none")
    need(
        not (own.bytes and (cut or own.lens)), "bytes: it chooses the size by itself; leave out "
        "--point, --layers, --dim, --lens and --rotate",
    )  # fmt: skip
    need(not own.lens or bool(own.layers), "lens: it maps an inner layer onto the last one; add "
         "--point dim@layer")  # fmt: skip
    need(not own.data or bool(own.bytes), "data: it goes with --bytes")
    need(not own.pca_text or own.lens or own.rotate != "none", "pca_text: it goes with --rotate "
         "or --lens")  # fmt: skip
    need(not own.public or bool(own.push), "public: it goes with --push")
    if own.push:
        check_name(own.push)
    if own.onnx:
        check_packages()
    out = Path(own.to or config.output_dir)
    if without_run:
        tracker, model, new = None, of_base(config), False
    else:
        tracker = _tracker(config)
        model, new = of_run(config, out)
    first = model
    out.mkdir(parents=True, exist_ok=True)
    if own.merged and new:  # written with the adapter
        model = model._replace(folder=out / "merged", spec=model.spec._replace(quantization="none"))
    elif own.merged:
        model = merged(model, out / "merged")
    if own.bytes:
        fit = first.fit(own.bytes, own.data)
        model = at_point(first, out, fit.point, fit=fit)
    elif cut:
        size = Point(own.layers or first.spec.n_layers, own.dim or first.spec.width)
        model = at_point(first, out, size, own.rotate, own.pca_text, lens=own.lens)
    if own.onnx:
        _onnx(model)
    if own.push:
        say(f"pushed: {push(model.folder, own.push, model.spec, private=not own.public)}")
    if model is first and not (new or own.onnx or own.push):
        say(f"{model.folder} is written and proved already; ask for --merged or --point")
    if tracker:
        other = new or own.lens or own.rotate != "none"
        _track(config, tracker, model, None if other else model.config)
    return model.folder


def _check_base(own: Any) -> None:
    """UserError where a base is to be more than rotated (a training may begin with it whose
    prefixes are principal components from the first step) or cut through a lens."""
    need((own.lens or own.rotate != "none") and bool(own.pca_text) and bool(own.to),
         "export: --model.name without the --output_dir of a run rotates that model, or cuts it: "
         "add --rotate centred, or --point 64@3 --lens, and --pca_text FILE --to DIR")  # fmt: skip
    need(own.lens or not (own.layers or own.dim), "export: a model without a run is cut with "
         "--lens; leave out --point, --layers and --dim, or add it")  # fmt: skip
    need(not own.merged, "export: a model without a run is whole; leave --merged out")


def _onnx(model: Finished) -> None:
    folder = model.folder
    need(folder.name != "adapter", "onnx: ONNX is a whole model; add --merged or --point")
    found = write_onnx(folder, model.spec, model.encoder.bare(), model.texts[:PROBES])
    say(f"onnx: {folder / 'onnx'} (in onnxruntime, largest difference of a channel "
        f"{max(found['onnx'].values()):.0e})")  # fmt: skip


# ---------------------------------------------------------------- the export's own run in MLflow


def _tracker(config: Config) -> Tracker:
    """UserError where a model is to be logged and there is no store."""
    own, run, options = config.extra, Path(config.output_dir), config.tracking
    check_registered(options.register)
    words = [
        "@".join(str(x) for x in (own.dim, own.layers) if x),
        "lens" * own.lens,
        "rotated" * (own.rotate != "none"),
        "merged" * bool(own.merged),
        f"{own.bytes} bytes" * bool(own.bytes),
    ]
    flags = {name: getattr(own, name) for name in _FLAGS}
    tracker = follow(config, "export", run, run, flags, " ".join(filter(None, words)))
    logged = bool(options.log_model or options.register)
    need(not logged or isinstance(tracker, MlflowTracker), f"tracking: the run {run} was not "
         "tracked, or its store is not here; name one with --tracking.mlflow URI")  # fmt: skip
    return tracker


def _track(told: Config, tracker: Tracker, model: Finished, trained: Config | None) -> None:
    """trained: the run's configuration, None where the figures of its comparison are not those of
    this model."""
    options, folder = told.tracking, model.folder
    size = Point(model.spec.n_layers, model.spec.width)
    same = folder.name in KINDS  # as trained, at every size
    scores = (model.spec.facts or Facts()).scores
    figures = {f"eval/{s.name}": s.value for s in scores if same or s.point == size}
    tracker.evaluation(figures, 0)
    for path in (folder / "README.md", folder / "parity.json"):
        if path.is_file():
            tracker.artifact(path)
    if options.log_model or options.register:
        need(folder.name != "adapter", "tracking.register: a registered model is whole; add "
             "--merged or --point")  # fmt: skip
        decision = Judgement("", None, 0, False, "this model was not compared with the one before")
        if trained is not None:
            best = trained.eval.best if same else None
            decision = judged(Path(told.output_dir), best, None if same else size)
        register = (options.register, decision) if options.register else None
        tracker.model(folder, figures, 0, register)
    tracker.close()
    if line := tracker.where():
        say(line)
    problems = getattr(tracker, "problems", [])
    need(
        not (problems and (options.log_model or options.register)), f"MLflow: {'; '.join(problems)}"
    )
