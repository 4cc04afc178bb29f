"""The model of a run as `mipic export` and `mipic merge` find it: finished, or in a checkpoint.

One process without a launcher: partitioned checkpoints are put together on CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mipic_llm.config import Config, flatten, load_config, need, resolve
from mipic_llm.data.tokenise import TextEncoder
from mipic_llm.errors import UserError
from mipic_llm.evaluation.encode import check_record, make_encoder
from mipic_llm.evaluation.tasks.base import SYMMETRIC
from mipic_llm.export.card import Facts, facts_of
from mipic_llm.export.fitted import read_texts
from mipic_llm.export.forms import Finished, demo_texts
from mipic_llm.export.live import PROBES, export_model
from mipic_llm.export.portable import make_spec
from mipic_llm.model.attention import padded
from mipic_llm.model.backbone import Backbone
from mipic_llm.model.dense import dense_in, make_dense
from mipic_llm.model.directory import open_source
from mipic_llm.model.files import exported, older_forms
from mipic_llm.model.load import about_weights, dtype_of, load_model, with_lora
from mipic_llm.model.source import Source
from mipic_llm.runtime import checkpoint
from mipic_llm.runtime.engine import consolidated
from mipic_llm.runtime.ranks import say


def settings_of(
    run: Path, record: Path, config: Config, flags: Sequence[str] = ()
) -> tuple[Config, Source]:
    """The settings of a run by a config.yaml of it, resolved, and its base. flags: options that a
    flag of this command overrules, beside the name of a base that was moved (it is the same)."""
    argv = ["--recipe", str(record), "--output_dir", str(run)]
    for key in ("model.name", "model.trust_remote_code", *flags):
        if config.origins.get(key) == "flag":
            argv += [f"--{key}", str(flatten(config)[key])]
    # The run was checked with its own ranks, not ours.
    own = load_config(argv, world_size=2, keep_recipe=True)
    source = open_source(own.model, run)
    return resolve(own, width=source.width, n_layers=source.n_layers), source


def of_run(config: Config, out: Path) -> tuple[Finished, bool]:
    """The run's model; one of a checkpoint is written to `out` first. -> it, and whether it was.

    Raises UserError for no run, and for one that has neither a model nor a whole checkpoint.
    """
    own, run = config.extra, Path(config.output_dir)
    folder = exported(run) if own.checkpoint == "auto" else None
    saved = None if folder else _checkpoint(own.checkpoint, run)
    record = (saved or run) / "config.yaml"
    need(record.is_file(), f"output_dir: {record} is missing, so {run} is no run of ours")
    told, source = settings_of(run, record, config)
    told = told.replace(**{"export.merged": own.merged})
    encoder, facts = make_encoder(told, source), facts_of(run)
    check_record(run, told, source, encoder)
    if saved:
        out.mkdir(parents=True, exist_ok=True)
        folder = _write(saved, out, told, source, encoder, facts)
    assert folder is not None
    spec = make_spec(told, source, encoder)._replace(facts=facts, dense=dense_in(folder))
    return Finished(told, spec, encoder, folder, demo_texts()), bool(saved)


def of_base(config: Config) -> Finished:
    """A model that no run of ours trained. UserError for an adapter."""
    source = open_source(config.model)
    need(source.adapter is None, f"model.name: {source.name} is an adapter; give a whole model")
    told = config.data.max_length if config.origins.get("data.max_length") == "flag" else None
    config = resolve(config, width=source.width, n_layers=source.n_layers)
    config = config.replace(**{
        "data.train": [], "data.validation": [], "data.max_length": told or source.max_length,
        "train.precision": source.precision,
    })  # fmt: skip
    encoder = make_encoder(config, source)
    spec = make_spec(config, source, encoder)._replace(objective="none")
    return Finished(config, spec, encoder, Path(source.backbone), demo_texts())


def _checkpoint(option: str, run: Path) -> Path:
    if option != "auto":
        if what := checkpoint.damage(Path(option)):
            raise UserError(f"checkpoint: {option} is no complete checkpoint ({what}); try auto")
        return Path(option)
    found = checkpoint.newest_complete(run / "checkpoints")
    if found is None:
        raise UserError(
            f"output_dir: {run} holds neither a finished model nor a complete checkpoint"
        )
    return found


def _write(
    saved: Path, out: Path, config: Config, source: Source, encoder: TextEncoder, facts: Facts
) -> Path:
    """Write and prove a checkpoint's model, its LoRA merged in too where export.merged says so."""
    say(f"exporting {saved}")
    backbone, probes = _restored(config, source, saved), demo_texts()[:PROBES]
    live_ND = read_texts(backbone, encoder.bare(), probes, SYMMETRIC, batch=1)
    state = {k: v.detach() for k, v in backbone.named_parameters()
             if v.requires_grad or not config.lora.rank}  # fmt: skip
    export_model(backbone.model, state, live_ND, probes, config=config, source=source,
                 encoder=encoder, out=out, facts=facts)  # fmt: skip
    kinds = ["adapter", "merged"][: 1 + config.export.merged] if config.lora.rank else ["merged"]
    for kind in kinds:
        say(f"{kind}: {out / kind} (reloaded and compared: {out / 'parity.json'})")
    if note := older_forms(out, kinds):
        say(note)
    return out / kinds[0]


def _restored(config: Config, source: Source, saved: Path) -> Backbone:
    """The checkpoint's backbone on CPU, with its own LoRA or its own whole weights."""
    lora, dtype = config.lora.rank > 0, dtype_of(config.train.precision)
    m = config.replace(**{"model.attn": padded(source.config)}).model  # others may need a GPU
    if line := about_weights(source):
        say(line)
    model = load_model(source, m, precision=config.train.precision, dropout=m.dropout or 0.0)
    if lora:
        model = with_lora(model, config, source)
    backbone = Backbone(model, pooling=source.pooling, inner_norm=config.model.inner_norm or "raw",
                        dense=make_dense(source.dense, dtype))  # fmt: skip
    prefix = "backbone."
    whole = consolidated(saved, trainable_only=lora)
    weights = {k.removeprefix(prefix): v for k, v in whole.items() if k.startswith(prefix)}
    missing, unexpected = backbone.load_state_dict(weights, strict=False)
    left = sorted({k for k, v in backbone.named_parameters() if v.requires_grad} & set(missing))
    if left or unexpected:
        raise UserError(
            f"checkpoint: {saved} does not fit its own config.yaml: {len(left)} weights missing, "
            f"{len(unexpected)} unknown, such as {(left or unexpected)[0]}"
        )
    return backbone.eval()
