"""Exports: of a live model at the end of its training, and after the fact by the export command,
from a checkpoint of any ZeRO stage or a finished run.

The command is one process without a launcher: partitioned checkpoints are put together on CPU.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from mipic_llm.config import Config, flatten, load_config, need, resolve
from mipic_llm.data.read.formats import read_training
from mipic_llm.data.tokenise import TextEncoder, pad
from mipic_llm.errors import UserError
from mipic_llm.evaluation.encode import make_encoder
from mipic_llm.export.budget import Fit, fit_bytes
from mipic_llm.export.card import Facts, facts_of
from mipic_llm.export.onnx import check_packages, write_onnx
from mipic_llm.export.portable import EmbeddingSpec, make_spec, write_json
from mipic_llm.export.push import check_name, push
from mipic_llm.export.rotate import rotate
from mipic_llm.export.verify import check_tokens, differences, prove, reload_vectors
from mipic_llm.export.write import (
    Check,
    ExportError,
    merge_adapter,
    write_adapter,
    write_merged,
)
from mipic_llm.model.attention import padded
from mipic_llm.model.backbone import Backbone, base_of, cut_layers, final_norm_of
from mipic_llm.model.dense import Dense, cut, make_dense, read_dense, trained
from mipic_llm.model.directory import Source, open_source
from mipic_llm.model.load import dtype_of, load_model, with_lora
from mipic_llm.report.judged import judged
from mipic_llm.runtime import checkpoint
from mipic_llm.runtime.engine import consolidated
from mipic_llm.runtime.ranks import say
from mipic_llm.tracking import MlflowTracker, Tracker, follow
from mipic_llm.types import Judgement, Point

PROBES = 16  # texts whose vectors are compared
TIMED_TEXTS, TIMED_RUNS = 64, 5
WHOLE = "adapter on the whole base"


def export_model(
    model: Any, state: dict[str, Tensor], live_ND: Tensor, texts: Sequence[str], *, config: Config,
    source: Source, encoder: TextEncoder, out: Path, rehearsal: bool = False,
    facts: Facts | None = None,
) -> None:  # fmt: skip
    """Write and prove adapter/ (LoRA) or merged/ (full fine-tuning), then merged/ of a LoRA run if
    export.merged asks for it; parity.json says how far the reloaded vectors differ. One process.

    model: the live transformers or peft model, of which only configurations are read. state: its
    trained parameters by name in a Backbone, whole, on CPU. live_ND: its vectors of texts, without
    prompts, one text at a time. rehearsal: nothing is said. facts: for the model card. Raises
    ExportError where a reload differs; nothing is left then.
    """
    spec, dtype = make_spec(config, source, encoder), dtype_of(config.train.precision)
    model_state, dense = (
        {k.removeprefix(part): v for k, v in state.items() if k.startswith(part)}
        for part in ("model.", "dense.")
    )
    spec = spec._replace(dense=trained(spec.dense, dense), facts=facts)
    parts: dict[str, Any] = {}

    check = prover(config, spec, encoder, texts, live_ND, parts, usage=not rehearsal)
    tolerance, rounded = tolerances(config)
    if config.lora.rank:
        adapter = out / "adapter"
        peft_config = model.peft_config["default"]
        write_adapter(adapter, model_state, peft_config, spec, check("adapter", tolerance))
        if spec.quantization != "none":
            found = _distance(adapter, live_ND, texts, spec, dtype)
            parts |= found
            if not rehearsal:
                worst, cosine = (max(found[WHOLE].values()), found[f"{WHOLE}: mean cosine"])
                say(f"adapter: trained on its base in 4 bits; on the whole base its vectors differ "
                    f"by at most {worst:.3f} in a channel (mean cosine {cosine:.4f})")  # fmt: skip
        if config.export.merged:
            whole = merge_adapter(spec, adapter, dtype)
            spec = spec._replace(quantization="none")
            check = prover(config, spec, encoder, texts, live_ND, parts, usage=not rehearsal)
            write_merged(out / "merged", whole, spec, check("merged", rounded))
    else:
        base = base_of(model)
        whole = type(base)._from_config(base.config, dtype=dtype)
        missing, unexpected = whole.load_state_dict(model_state, strict=False)
        assert not unexpected, unexpected
        left = [k for k in missing if "pooler" not in k and k in dict(whole.named_parameters())]
        assert not left, left
        if getattr(whole, "pooler", None) is not None:
            whole.pooler = None
        write_merged(out / "merged", whole, spec, check("merged", tolerance))
    write_json(out / "parity.json", parity(config, texts, tolerance) | parts)


def prover(
    config: Config, spec: EmbeddingSpec, encoder: TextEncoder, texts: Sequence[str],
    live_ND: Tensor, parts: dict[str, Any], *, usage: bool = True,
) -> Callable[[str, float], Check]:  # fmt: skip
    """(name, tolerance) -> a check that adapter/ or merged/ gives live_ND; it adds to `parts` what
    parity.json says. usage: run the card's Python too."""

    def check(name: str, tolerance: float) -> Check:
        options = {"name": name, "adapter": name == "adapter", "tolerance": tolerance,
                   "dtype": dtype_of(config.train.precision),
                   "usage": usage and spec.quantization == "none"}  # fmt: skip

        def proved(fresh: Path) -> None:
            check_tokens(fresh, encoder, texts, spec)
            parts.update(prove(fresh, live_ND, texts, spec, **options))

        return proved

    return check


def _distance(
    adapter: Path, live_ND: Tensor, texts: Sequence[str], spec: EmbeddingSpec, dtype: torch.dtype
) -> dict[str, Any]:
    """How far an adapter of a base in 4 bits lies from itself on the whole one, for parity.json."""
    whole_ND = reload_vectors(adapter, texts, spec._replace(quantization="none"),
                              loader="automodel", dtype=dtype)  # fmt: skip
    cosine = float(cosine_similarity(live_ND.float(), whole_ND).mean())
    found = differences(live_ND, whole_ND, spec.dims)
    return {WHOLE: found, f"{WHOLE}: mean cosine": cosine}


def tolerances(config: Config) -> tuple[float, float]:
    """Allowed for what was trained, and for a merged adapter: adding B A to a bf16 weight rounds
    it."""
    exact = config.train.precision == "fp32"
    tolerance = config.export.tolerance or (1e-5 if exact else 2e-2)
    return tolerance, tolerance if exact else 3 * tolerance


def parity(config: Config, texts: Sequence[str], tolerance: float) -> dict[str, Any]:
    """What parity.json says beside the differences."""
    dtype = str(dtype_of(config.train.precision)).removeprefix("torch.")
    return {"tolerance": tolerance, "texts": len(texts), "dtype": dtype}


# ------------------------------------------------------------------------------------- the command


def export(config: Config) -> Path:
    """`mipic export`. -> the directory of what was asked for. UserError for a run without a model,
    a size that it does not have, or a package that is missing."""
    own = config.extra
    need(
        not own.bytes or not (own.layers or own.dim or own.rotate != "none"),
        "bytes: it chooses the size by itself; leave out --point, --layers, --dim and --rotate",
    )
    need(not own.data or bool(own.bytes), "data: it goes with --bytes")
    if own.push:
        check_name(own.push)
    if own.onnx:
        check_packages()
    if config.origins.get("model.name") == "flag" and config.origins.get("output_dir") != "flag":
        return _turned_base(config)
    run_dir, told = Path(config.output_dir), config
    tracker = follow(config, "export", run_dir, run_dir, _flags(own), _size_of(own))
    logged = bool(config.tracking.log_model or config.tracking.register)
    need(not logged or isinstance(tracker, MlflowTracker), f"tracking: the run {run_dir} was not "
         "tracked, or its store is not here; name one with --tracking.mlflow URI")  # fmt: skip
    kinds = (run_dir / "adapter", run_dir / "merged")
    finished = next((p for p in kinds if p.is_dir()), None) if own.checkpoint == "auto" else None
    found = None if finished else _checkpoint(own.checkpoint, run_dir)
    settings = (found or run_dir) / "config.yaml"
    if not settings.is_file():
        raise UserError(f"output_dir: {settings} is missing, so {run_dir} is no run of ours")
    out = Path(own.to) if own.to else run_dir
    argv = ["--recipe", str(settings), "--output_dir", str(out)]
    for key in ("model.name", "model.trust_remote_code"):
        if config.origins.get(key) == "flag":
            argv += [f"--{key}", str(flatten(config)[key])]
    # The run was checked with its own ranks, not ours; a base that was moved is the same base.
    config = load_config(argv, world_size=2, keep_recipe=True)
    source = open_source(config.model, run_dir)
    config = resolve(config, width=source.width, n_layers=source.config.num_hidden_layers)
    config = config.replace(**{"export.merged": own.merged})
    encoder = make_encoder(config, source)
    facts = facts_of(run_dir)
    spec = make_spec(config, source, encoder)._replace(facts=facts)
    job = _Job(config, spec, encoder, encoder.bare(), demo_texts())
    out.mkdir(parents=True, exist_ok=True)
    if found:
        say(f"exporting {found}")
        backbone, probes = _restored(config, source, found), job.texts[:PROBES]
        live_ND = _readouts(backbone, job.bare, probes, backbone.n_layers)
        state = {k: v.detach() for k, v in backbone.named_parameters()
                 if v.requires_grad or not config.lora.rank}  # fmt: skip
        export_model(backbone.model, state, live_ND, probes, config=config, source=source,
                     encoder=encoder, out=out, facts=facts)  # fmt: skip
        written = ["adapter", "merged"] if config.lora.rank else ["merged"]
        for kind in written[: 1 + own.merged]:
            say(f"{kind}: {out / kind} (reloaded and compared: {out / 'parity.json'})")
        finished = out / written[0]
    assert finished is not None
    layers = [read_dense(path, str(finished)) for path in sorted(finished.glob("*_Dense"))]
    job = job._replace(spec=job.spec._replace(dense=tuple(layers)))
    folder, fit = finished, _fit(job, finished, own) if own.bytes else None
    if fit or own.layers or own.dim or own.rotate != "none":
        point = Point(own.layers or job.spec.n_layers, own.dim or job.spec.width)
        folder, spec = _point(job, finished, out, fit.point if fit else point, own, fit)
    elif own.merged and not found:
        if finished.name == "merged":
            raise UserError(f"merged: {finished} is a merged model already (full fine-tuning)")
        live_ND = reload_vectors(finished, job.texts[:PROBES], job.spec, loader="automodel",
                                 dtype=dtype_of(config.train.precision))  # fmt: skip
        job.write(out / "merged", job.whole(finished), job.spec, live_ND)
    elif not (found or own.onnx or own.push):
        say(f"{finished} is written and proved already; ask for --merged or --point")
    if own.merged and folder == finished:
        folder = out / "merged"
    if own.onnx:
        need(folder.name != "adapter", "onnx: ONNX is a whole model; add --merged or --point")
        spec = (job.spec if folder.name == "merged" else spec)._replace(quantization="none")
        found_by = write_onnx(folder, spec, job.bare, job.texts[:PROBES])
        say(f"onnx: {folder / 'onnx'} (in onnxruntime, largest difference of a channel "
            f"{max(found_by['onnx'].values()):.0e})")  # fmt: skip
    if own.push:
        say(f"pushed: {push(folder, own.push, job.spec, private=not own.public)}")
    _track(told, tracker, folder, spec, None if found or own.rotate != "none" else config)
    return folder


def _size_of(own: Any) -> str:
    """What was asked for, in a word or two: a part of a run's name."""
    cut = [str(x) for x in (own.dim, own.layers) if x]
    words = ["rotated"] * (own.rotate != "none") + ["merged"] * bool(own.merged)
    words += [f"{own.bytes} bytes"] * bool(own.bytes)
    return " ".join(["@".join(cut)] * bool(cut) + words)


def _flags(own: Any) -> dict[str, Any]:
    names = ("merged", "layers", "dim", "bytes", "rotate", "onnx", "push")
    return {name: getattr(own, name) for name in names}


def _track(
    told: Config, tracker: Tracker, folder: Path, spec: EmbeddingSpec, trained: Config | None
) -> None:  # fmt: skip
    """The export's run in MLflow. trained: the run's configuration, None where the figures of its
    comparison are not those of this model."""
    run_dir, options = Path(told.output_dir), told.tracking
    facts, size = spec.facts or Facts(), Point(spec.n_layers, spec.width)
    own = [s for s in facts.scores if folder.name in ("adapter", "merged") or s.point == size]
    figures = {f"eval/{s.task}/{s.metric}@{s.point}": s.value for s in own}
    tracker.evaluation(figures, 0)
    for path in (folder / "README.md", folder / "parity.json"):
        if path.is_file():
            tracker.artifact(path)
    if options.log_model or options.register:
        need(folder.name != "adapter", "tracking.register: a registered model is whole; add "
             "--merged or --point")  # fmt: skip
        point = None if folder.name == "merged" else size
        decision = Judgement("", None, 0, False, "this model was not compared with the one before")
        if trained is not None:
            decision = judged(run_dir, None if point else trained.eval.best, point)
        register = (options.register, decision) if options.register else None
        tracker.model(folder, figures, 0, register)
    tracker.close()
    if line := tracker.where():
        say(line)
    problems = getattr(tracker, "problems", [])
    need(
        not (problems and (options.log_model or options.register)), f"MLflow: {'; '.join(problems)}"
    )


def _turned_base(config: Config) -> Path:
    """A model that no run of ours trained, rotated: where a training may begin whose prefixes are
    principal components from the first step. -> its directory. UserError for anything else."""
    own = config.extra
    need(own.rotate != "none" and bool(own.pca_text) and bool(own.to),
         "export: --model.name without the --output_dir of a run rotates that model: add --rotate "
         "centred --pca_text FILE --to DIR")  # fmt: skip
    need(not (own.merged or own.layers or own.dim), "export: a model without a run is "
         "rotated whole: leave out --merged, --point, --layers and --dim")  # fmt: skip
    source = open_source(config.model)
    need(source.adapter is None, f"model.name: {source.name} is an adapter; give a whole model")
    config = resolve(config, width=source.width, n_layers=source.config.num_hidden_layers)
    stored = str(getattr(source.config, "dtype", None) or "")
    config = config.replace(**{
        "data.train": [], "data.validation": [], "data.max_length": source.max_length,
        "train.precision": "bf16" if stored.endswith("bfloat16") else "fp32",
    })  # fmt: skip
    encoder, out = make_encoder(config, source), Path(own.to)
    spec = make_spec(config, source, encoder)._replace(objective="none")
    job = _Job(config, spec, encoder, encoder.bare(), demo_texts())
    out.mkdir(parents=True, exist_ok=True)
    folder, spec = _point(job, Path(source.backbone), out, Point(spec.n_layers, spec.width), own)
    if own.onnx:
        write_onnx(folder, spec, job.bare, job.texts[:PROBES])
    if own.push:
        say(f"pushed: {push(folder, own.push, spec, private=not own.public)}")
    return folder


class _Job(NamedTuple):
    """A run's model to be written in another form. encoder: with prompts; bare: without. texts:
    built in, to compare and to time, since the run's data may be elsewhere."""

    config: Config
    spec: EmbeddingSpec
    encoder: TextEncoder
    bare: TextEncoder
    texts: list[str]

    def whole(self, finished: Path) -> Any:
        """The finished model, its adapter merged in."""
        from transformers import AutoModel

        dtype, spec = dtype_of(self.config.train.precision), self.spec
        if finished.name == "adapter":
            return merge_adapter(spec, finished, dtype)
        return AutoModel.from_pretrained(finished, dtype=dtype, **spec.hub)

    def write(self, folder: Path, model: Any, spec: EmbeddingSpec, live_ND: Tensor) -> None:
        """A whole model that must give live_ND, with a parity.json of its own."""
        config, texts = self.config, self.texts[:PROBES]
        spec = spec._replace(quantization="none")
        _, tolerance = tolerances(config)

        def check(fresh: Path) -> None:
            found = prove(fresh, live_ND, texts, spec, name="", adapter=False, tolerance=tolerance,
                          dtype=dtype_of(config.train.precision))  # fmt: skip
            write_json(fresh / "parity.json", parity(config, texts, tolerance) | found)

        write_merged(folder, model, spec, check)
        say(f"{folder.name}: {folder} (reloaded and compared: {folder / 'parity.json'})")


def _checkpoint(option: str, run_dir: Path) -> Path:
    if option != "auto":
        if what := checkpoint.damage(Path(option)):
            raise UserError(f"checkpoint: {option} is no complete checkpoint ({what}); try auto")
        return Path(option)
    found = checkpoint.newest_complete(run_dir / "checkpoints")
    if found is None:
        raise UserError(
            f"output_dir: {run_dir} holds neither a finished model nor a complete checkpoint"
        )
    return found


def demo_texts() -> list[str]:
    """Built-in texts, to compare and to time with."""
    sources, _ = read_training(["demo"], negatives=0, on_bad_rows="error", cache_dir=None)
    return list(dict.fromkeys(e.anchor for e in sources[0].examples))[:TIMED_TEXTS]


def _restored(config: Config, source: Source, found: Path) -> Backbone:
    """The checkpoint's backbone on CPU, with its own LoRA or its own whole weights."""
    lora = config.lora.rank > 0
    m = config.replace(**{"model.attn": padded(source.config)}).model  # others may need a GPU
    model = load_model(source, m, precision=config.train.precision, dropout=m.dropout or 0.0)
    if lora:
        model = with_lora(model, config, source)
    dense = make_dense(source.dense, dtype_of(config.train.precision))
    inner_norm = config.model.inner_norm or "raw"
    backbone = Backbone(model, pooling=source.pooling, inner_norm=inner_norm, dense=dense)
    prefix = "backbone."
    whole = consolidated(found, trainable_only=lora)
    weights = {k.removeprefix(prefix): v for k, v in whole.items() if k.startswith(prefix)}
    missing, unexpected = backbone.load_state_dict(weights, strict=False)
    left = sorted({k for k, v in backbone.named_parameters() if v.requires_grad} & set(missing))
    if left or unexpected:
        raise UserError(
            f"checkpoint: {found} does not fit its own config.yaml: {len(left)} weights missing, "
            f"{len(unexpected)} unknown, such as {(left or unexpected)[0]}"
        )
    return backbone.eval()


def _fit(job: _Job, finished: Path, own: Any) -> Fit:
    dense = make_dense(job.spec.dense, dtype_of(job.config.train.precision))
    whole = Backbone(job.whole(finished), pooling=job.spec.pooling, dense=dense,
                     inner_norm=job.spec.inner_norm).eval()  # fmt: skip
    return fit_bytes(job.config, whole, job.encoder, job.spec.dims, own.bytes, own.data)


def _point(
    job: _Job, finished: Path, out: Path, point: Point, own: Any, fit: Fit | None = None
) -> tuple[Path, EmbeddingSpec]:
    """A whole model that ends after the point's layer with its dim, rotated if asked for: the same
    vectors as the point. fit: how they are stored. -> its directory."""
    spec, probes = job.spec, job.texts[:PROBES]
    for name, value, most in (("layers", point.layer, spec.n_layers),
                              ("dim", point.dim, spec.width)):  # fmt: skip
        if not 1 <= value <= most:
            raise UserError(f"{name}: {value} is not in 1..{most}, the model's own")
    model = job.whole(finished)
    if point.layer < spec.n_layers and final_norm_of(model) and spec.inner_norm == "raw":
        raise UserError(
            "layers: this run read its inner layers before the final norm, which no model "
            "directory can express; train with --model.inner_norm final to cut"
        )
    dtype = dtype_of(job.config.train.precision)
    options = {"pooling": spec.pooling, "inner_norm": spec.inner_norm,
               "dense": make_dense(spec.dense, dtype)}  # fmt: skip
    whole = Backbone(model, **options).eval()
    live_ND = _readouts(whole, job.bare, probes, point.layer)
    before = _seconds(whole, job)
    cut_layers(base_of(model), point.layer)
    small, notes = Backbone(model, **options).eval(), []
    if point[:2] != (spec.n_layers, spec.width):
        times = before / _seconds(small, job)
        speed = (f": encodes {times:.2f} times as fast as the whole model (CPU, {len(job.texts)} "
                 "texts)") * (point.layer < spec.n_layers)  # fmt: skip
        notes += [f"Cut after layer {point.layer} of {spec.n_layers}, width {point.dim} of "
                  f"{spec.width}{speed}."]  # fmt: skip
    dims = tuple(sorted({d for d in spec.dims if d < point.dim} | {point.dim}))
    dense, facts = spec.dense, spec.facts or Facts()
    if own.rotate != "none":
        turned = rotate(
            job.config, small, job.encoder, point, dims, own.pca_text, own.rotate == "centred"
        )
        dense = (*dense, Dense(turned.axes_DD.float(), None, "Identity"))
        live_ND = (live_ND.double() @ turned.axes_DD.T).float()
        notes += turned.notes
        facts = facts._replace(scores=turned.scores, before=(), verdict=())
    notes += [f"{s.metric} on {s.task} at this size: {s.value:.4f} ({s.n} rows)."
              for s in facts.scores if s.point == Point(point.layer, point.dim)]  # fmt: skip
    own_notes = (*notes, *(fit.notes if fit else ()))
    spec = spec._replace(n_layers=point.layer, dims=dims, notes=own_notes, width=point.dim,
                         dense=cut(dense, spec.width, point.dim), facts=facts)  # fmt: skip
    name = f"shallow-{point.layer}x{point.dim}"
    name = f"rotated-{point.layer}x{point.dim}" if own.rotate != "none" else name
    try:
        job.write(out / name, model, spec, live_ND)
    except ExportError:
        raise
    except RuntimeError as error:  # transformers' word for weights that do not fit
        raise UserError(
            f"layers: {type(model).__name__} cut after layer {point.layer} cannot be loaded again: "
            f"{str(error).splitlines()[0]}"
        ) from error
    for note in notes:
        say(note)
    if fit:
        fit.write(out / name)
    return out / name, spec


def _readouts(backbone: Backbone, bare: TextEncoder, texts: Sequence[str], layer: int) -> Tensor:
    """(N, D) float32 readouts, one text at a time, as the reload does."""
    return torch.cat([_batch(backbone, bare, [text], layer) for text in texts])


def _batch(backbone: Backbone, bare: TextEncoder, texts: list[str], layer: int) -> Tensor:
    ids_ST, mask_ST = pad(bare.ids(texts), bare.pad_id, bare.padding_side)
    with torch.no_grad():
        return backbone(ids_ST, mask_ST, [layer], []).readout_LSD[0].float()


def _seconds(backbone: Backbone, job: _Job) -> float:
    """Median wall time of encoding the texts in one batch, after one untimed pass."""
    times = []
    for _ in range(TIMED_RUNS + 1):
        begun = time.perf_counter()
        _batch(backbone, job.bare, job.texts, backbone.n_layers)
        times.append(time.perf_counter() - begun)
    return statistics.median(times[1:])
