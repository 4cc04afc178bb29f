"""Exports after the fact: from a checkpoint of any ZeRO stage, or from a finished run.

One process, no launcher: partitioned checkpoints are put together on CPU.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mipic_llm.config.read import load_config
from mipic_llm.config.schema import Config
from mipic_llm.data.read.formats import read_training
from mipic_llm.data.tokenise import TextEncoder, pad
from mipic_llm.errors import EXIT_DONE, UserError
from mipic_llm.export import EmbeddingSpec, merge_adapter, prove, reload_vectors, write_merged
from mipic_llm.model.backbone import Backbone, base_of, cut_layers, final_norm_of
from mipic_llm.model.load import Source, dtype_of, open_source
from mipic_llm.report import read_scores
from mipic_llm.runtime import checkpoint
from mipic_llm.runtime.engine import consolidated
from mipic_llm.runtime.ranks import say
from mipic_llm.training import finish, setup
from mipic_llm.training.feed import Data, make_encoder
from mipic_llm.training.run import LiveRun
from mipic_llm.types import Point, Score

TIMED_TEXTS, TIMED_RUNS = 64, 5


class _Whole:
    """A whole module in this process, with the face of `Engine` that an export needs."""

    stage, device = 0, torch.device("cpu")

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def train(self, mode: bool = True) -> None:
        self.module.train(mode)

    def state(self, trainable_only: bool) -> dict[str, Tensor]:
        return {k: v.detach().clone() for k, v in self.module.named_parameters()
                if v.requires_grad or not trainable_only}  # fmt: skip


def export(config: Config) -> int:
    """`mipic export`. UserError for a run without a model, or a size that it does not have."""
    own, run_dir = config.extra, Path(config.output_dir)
    finished = _finished(run_dir) if own.checkpoint == "auto" else None
    found = None if finished else _checkpoint(own.checkpoint, run_dir)
    settings = (found or run_dir) / "config.yaml"
    if not settings.is_file():
        raise UserError(f"output_dir: {settings} is missing, so {run_dir} is no run of ours")
    out = Path(own.to) if own.to else run_dir
    argv = ["--recipe", str(settings), "--output_dir", str(out)]
    if config.origins.get("model.name") == "flag":
        argv += ["--model.name", config.model.name]
    config = load_config(argv)
    config.ds_config, config.export.merged = None, own.merged
    source = open_source(config.model)
    config = setup.resolve_for(config, source)
    data = _probe_data(config, source)
    out.mkdir(parents=True, exist_ok=True)
    if found:
        say(f"exporting {found}")
        _from_checkpoint(config, source, data, found, out)
        finished = out / ("adapter" if config.lora.rank else "merged")
    assert finished is not None
    if own.layers or own.dim:
        _shallow(config, source, data, finished, run_dir, out, own.layers, own.dim)
    elif own.merged and not found:
        _merged(config, source, data, finished, out)
    elif not found:
        say(f"{finished} is written and proved already; ask for --merged, --layers or --dim")
    return EXIT_DONE


def _finished(run_dir: Path) -> Path | None:
    return next((p for p in (run_dir / "adapter", run_dir / "merged") if p.is_dir()), None)


def _checkpoint(option: str, run_dir: Path) -> Path:
    if option != "auto":
        if not checkpoint.is_complete(Path(option)):
            raise UserError(f"checkpoint: {option} is no complete checkpoint; try auto")
        return Path(option)
    found = checkpoint.newest_complete(run_dir / "checkpoints")
    if found is None:
        raise UserError(
            f"output_dir: {run_dir} holds neither a finished model nor a complete checkpoint"
        )
    return found


def _probe_data(config: Config, source: Source) -> Data:
    """Texts to compare vectors on: the built-in ones, since the run's data may be elsewhere."""
    sources, _ = read_training(["demo"], negatives=0, on_bad_rows="error", cache_dir=None)
    plan: Any = None
    return Data(sources, plan, make_encoder(config, source), [], False)


def _from_checkpoint(config: Config, source: Source, data: Data, found: Path, out: Path) -> None:
    module = setup.build_module(config, source, {"zero_optimization": {"stage": 0}}, False)
    weights = consolidated(found, trainable_only=config.lora.rank > 0)
    missing, unexpected = module.load_state_dict(weights, strict=False)
    asked = {k for k, v in module.named_parameters() if v.requires_grad}
    left = sorted(asked & set(missing))
    if left or unexpected:
        raise UserError(
            f"checkpoint: {found} does not fit its own config.yaml: {len(left)} weights missing, "
            f"{len(unexpected)} unknown, such as {(left or unexpected)[0]}"
        )
    engine: Any = _Whole(module)
    finish.export(LiveRun(config, source, data, engine, out, 0))
    kinds = ["adapter", "merged"] if config.lora.rank else ["merged"]
    for kind in kinds[: 1 + config.export.merged]:
        say(f"{kind}: {out / kind} (reloaded and compared: {out / 'parity.json'})")


def _whole_model(config: Config, finished: Path, spec: EmbeddingSpec) -> Any:
    from transformers import AutoModel

    dtype = dtype_of(config.train.precision)
    if finished.name == "adapter":
        return merge_adapter(spec.base_model, finished, dtype)
    return AutoModel.from_pretrained(finished, dtype=dtype)


def _texts(data: Data, n: int) -> list[str]:
    return list(dict.fromkeys(e.anchor for e in data.sources[0].examples))[:n]


def _merged(config: Config, source: Source, data: Data, finished: Path, out: Path) -> None:
    if finished.name == "merged":
        raise UserError(f"merged: {finished} is a merged model already (full fine-tuning)")
    spec = setup.make_spec(config, source, data.encoder)
    dtype, texts = dtype_of(config.train.precision), _texts(data, finish.PROBES)
    live = reload_vectors(finished, texts, spec, loader="automodel", dtype=dtype)
    write_merged(out / "merged", _whole_model(config, finished, spec), spec)
    allowed = config.export.tolerance or 0.0
    _prove(out / "merged", live, texts, spec, allowed if dtype == torch.float32 else 3 * allowed)


def _prove(
    folder: Path, live_ND: Tensor, texts: list[str], spec: EmbeddingSpec, allowed: float
) -> None:
    """Reload in every library that is here, compare, and leave parity.json in the folder."""
    dtype = torch.float32 if live_ND.dtype == torch.float32 and allowed <= 1e-4 else torch.bfloat16
    report: dict[str, Any] = {"tolerance": allowed, "texts": len(texts)}
    st = ["sentence-transformers"] if finish.installed("sentence_transformers") else []
    for loader in ("automodel", *st):
        found = prove(folder, live_ND, texts, spec, loader=loader, dtype=dtype, tolerance=allowed,
                      where=f"{folder.name} in {loader}")  # fmt: skip
        report |= {key.removeprefix(f"{folder.name} in "): value for key, value in found.items()}
    text = json.dumps(report, indent=2, sort_keys=True)
    (folder / "parity.json").write_text(text + "\n", encoding="utf-8")
    say(f"{folder.name}: {folder} (reloaded and compared: {folder / 'parity.json'})")


def _shallow(
    config: Config, source: Source, data: Data, finished: Path, run_dir: Path, out: Path,
    layers: int | None, dim: int | None,
) -> None:  # fmt: skip
    """A model that ends after `layers`, cut to `dim`: same vectors as point (layers, dim)."""
    spec = setup.make_spec(config, source, data.encoder)
    point = Point(layers or spec.n_layers, dim or spec.width)
    if not 1 <= point.layer <= spec.n_layers:
        raise UserError(f"layers: {point.layer} is not in 1..{spec.n_layers}, the model's layers")
    if not 1 <= point.dim <= spec.width:
        raise UserError(f"dim: {point.dim} is not in 1..{spec.width}, the model's width")
    model = _whole_model(config, finished, spec)
    inner_norm = config.model.inner_norm or "raw"
    if point.layer < spec.n_layers and final_norm_of(model) and inner_norm == "raw":
        raise UserError(
            "layers: this run read its inner layers before the final norm, which no model "
            "directory can express; train with --model.inner_norm final to cut"
        )
    texts = _texts(data, finish.PROBES)
    backbone = Backbone(model, pooling=source.pooling, inner_norm=inner_norm).eval()
    live_ND = torch.cat([_readout(backbone, data.encoder, [t], point.layer) for t in texts])
    before = _seconds(backbone, data)
    cut_layers(base_of(model), point.layer)
    shallow = Backbone(model, pooling=source.pooling, inner_norm=inner_norm).eval()
    speed = before / _seconds(shallow, data)
    scores = _scores(run_dir, point)
    notes = [f"Cut after layer {point.layer} of {spec.n_layers}, width {point.dim} of "
             f"{spec.width}: encodes {speed:.2f} times as fast as the whole model (CPU, "
             f"{TIMED_TEXTS} texts)."]  # fmt: skip
    notes += [f"{s.metric} on {s.task} at this size: {s.value:.4f} ({s.n} rows)." for s in scores]
    dims = tuple(sorted({d for d in spec.dims if d < point.dim} | {point.dim}))
    cut = spec._replace(
        n_layers=point.layer, dims=dims, notes=tuple(notes),
        truncate_dim=point.dim if point.dim < spec.width else None,
    )  # fmt: skip
    folder = out / f"shallow-{point.layer}x{point.dim}"
    write_merged(folder, model, cut)
    allowed = config.export.tolerance or 0.0
    _prove(folder, live_ND, texts, cut, allowed if allowed <= 1e-4 else 3 * allowed)
    for note in notes:
        say(note)


def _readout(backbone: Backbone, encoder: TextEncoder, texts: list[str], layer: int) -> Tensor:
    """(N, D) float32 readouts of texts without prompt, in one batch."""
    bare = TextEncoder(encoder.tokenizer, encoder.max_length, append_eos_id=encoder.append_eos_id,
                       prompts={}, padding_side=encoder.padding_side)  # fmt: skip
    ids_ST, mask_ST = pad(bare.ids(texts, "query"), bare.pad_id, bare.padding_side)
    with torch.no_grad():
        return backbone(ids_ST, mask_ST, [layer], []).readout_LSD[0].float()


def _seconds(backbone: Backbone, data: Data) -> float:
    """Median wall time of encoding the timed texts, after one untimed pass."""
    texts, times = _texts(data, TIMED_TEXTS), []
    for _ in range(TIMED_RUNS + 1):
        begun = time.perf_counter()
        _readout(backbone, data.encoder, texts, backbone.n_layers)
        times.append(time.perf_counter() - begun)
    return statistics.median(times[1:])


def _scores(run_dir: Path, point: Point) -> list[Score]:
    path = run_dir / "scores.jsonl"
    if not path.is_file():
        return []
    return [s for s in read_scores(path, stage="after") if s.point == point]
