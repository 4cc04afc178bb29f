"""`mipic merge`: what finished runs of one base learnt, scaled or put together, as a new model."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mipic_llm.config import Config, need
from mipic_llm.errors import UserError
from mipic_llm.evaluation.encode import check_record, encode, make_encoder
from mipic_llm.evaluation.open import for_inference
from mipic_llm.export.card import facts_of
from mipic_llm.export.forms import demo_texts
from mipic_llm.export.live import PROBES, Proof
from mipic_llm.export.mixture import Adapters, Trained, mixture
from mipic_llm.export.portable import make_spec, write_json
from mipic_llm.export.runs import settings_of
from mipic_llm.export.scales import Swept, sweep
from mipic_llm.export.write import write_adapter, write_merged
from mipic_llm.model.backbone import base_of
from mipic_llm.model.dense import trained
from mipic_llm.model.directory import read_model
from mipic_llm.model.files import KINDS, content_of, exported, forms_of
from mipic_llm.runtime.ranks import say, world_size
from mipic_llm.runtime.start import start
from mipic_llm.tracking import RECORD, follow, write_record


def merge(config: Config) -> Path:
    """`mipic merge`. -> the directory written into. UserError for runs that are not finished, or do
    not fit together."""
    own, out = config.extra, Path(config.extra.to)
    runs = [_read(Path(folder), config) for folder in own.runs]
    _same_base(runs, own.runs)
    weights = own.weights or [1.0] * len(runs)
    start()
    need(world_size() == 1, "merge works in one process; start it without a launcher")
    mix = mixture(runs, own.how, weights)
    run, source = runs[0].config, runs[0].source
    encoder = make_encoder(run, source)
    spec = make_spec(run, source, encoder)
    alone = run.replace(ds_config=None)
    engine = for_inference(alone, source, spec.inner_norm, lambda _: mix.model)
    out.mkdir(parents=True, exist_ok=True)
    scale, notes, swept = own.scale[0], [_words(own, weights)], None
    if len(own.scale) > 1:
        swept = sweep(mix, engine, encoder, run, own, out)
        scale = swept.best
        _clear(out, ["rows.npz"])
        notes.append(f"The scale {scale:g} was chosen on validation data, so figures on these are "
                     "a little too good; test it on others.")  # fmt: skip
        if scale == 0:
            _clear(out, (*KINDS, "config.yaml", "merge.json", "parity.json"))
            say("the base itself is best by this rule: nothing was written")
            _track(config, out, ["The base itself was best: no model was written."], swept)
            return out
    else:
        _clear(out, ["scores.jsonl", "sweep.jsonl", "rows.npz"])
    mix.scale(scale, engine)
    notes[0] += f" Scale of what was learnt: {scale:g}."
    texts = demo_texts()[:PROBES]
    live_ND = encode(engine, encoder.bare(), texts, [spec.n_layers], batch_size=1)[:, 0]
    spec = spec._replace(dense=trained(source.dense, mix.dense_state()), notes=tuple(notes),
                         facts=facts_of(out))  # fmt: skip
    proof = Proof(run, encoder, texts, live_ND)
    if isinstance(mix, Adapters):
        folder = out / "adapter"
        write_adapter(folder, *mix.stacked(), spec, proof.check(spec, folder.name))
    else:
        folder = out / "merged"
        write_merged(folder, base_of(mix.model).cpu(), spec, proof.check(spec, folder.name))
    _clear(out, [kind for kind in KINDS if kind != folder.name])
    shutil.copyfile(Path(own.runs[0]) / "config.yaml", out / "config.yaml")
    proof.write(out)
    write_json(out / "merge.json", {"runs": [str(Path(r).resolve()) for r in own.runs],
               "how": own.how, "weights": weights, "scale": scale, "scales": own.scale,
               "rule": own.rule})  # fmt: skip
    say(f"{folder.name}: {folder} (reloaded and compared: {out / 'parity.json'})")
    _track(config, out, notes, swept, folder / "README.md")
    return out


def _read(run: Path, config: Config) -> Trained:
    folder, record = exported(run), run / "config.yaml"
    if folder is None or not record.is_file():
        raise UserError(
            f"runs: {run} has no config.yaml and adapter/ or merged/, so it is no finished run "
            "(`mipic export` finishes one from its checkpoint)"
        )
    own, source = settings_of(run, record, config, ["eval.batch_size"])
    check_record(run, own, source, make_encoder(own, source))
    base = source.backbone if folder.name == "adapter" else None
    trust = own.model.trust_remote_code
    return Trained(own, source, read_model(str(folder), trust_remote_code=trust, base=base))


def _clear(out: Path, names: Sequence[str]) -> None:
    """Remove these, and what was cut, of an earlier mixture in `out`: other commands would take its
    model, and a card its figures."""
    for path in [*(out / name for name in names), *forms_of(out)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _same_base(runs: Sequence[Trained], names: Sequence[str]) -> None:
    def base(run: Trained) -> dict[str, Any]:
        source, m = run.source, run.config.model
        dense = [d.weight.float().numpy().tobytes() for d in source.dense]
        return {"base": content_of(source.backbone, source.commit), "Dense modules": dense,
                "pooling": source.pooling,
                "model.inner_norm": m.inner_norm, "model.quantization": m.quantization}  # fmt: skip

    first = base(runs[0])
    for run, name in zip(runs[1:], names[1:], strict=True):
        for key, value in base(run).items():
            need(value == first[key], f"runs: {name} has another {key} than {names[0]}; only runs "
                 "that began with one model and read it in one way can be merged")  # fmt: skip


def _track(
    config: Config, out: Path, notes: Sequence[str], swept: Swept | None, card: Path | None = None
) -> None:  # fmt: skip
    """The mixture's run in MLflow, below that of its first run that was tracked. The figures of the
    scales have 100 x scale for their step."""
    own = config.extra
    tracker = follow(config, "merge", own.runs, out, own.model_dump())
    lines = " ".join(notes)
    if swept is not None:
        for scale, scores in swept.found.items():
            tracker.evaluation({f"sweep/{s.name}": s.value for s in scores}, round(100 * scale))
        tracker.evaluation({f"eval/{s.name}": s.value for s in swept.found[swept.best]}, 0)
        lines += f"\n\n```\n{swept.table}\n```"
    tracker.describe(lines)
    files = ["merge.json", "parity.json"] * (card is not None)
    files += ["sweep.jsonl", "scores.jsonl"] * (swept is not None)
    for path in [*(out / name for name in files), *([card] if card else [])]:
        tracker.artifact(path)
    tracker.close()
    (out / RECORD).unlink(missing_ok=True)  # of an earlier mixture
    write_record(out, tracker)
    if line := tracker.where():
        say(line)


def _words(own: Any, weights: Sequence[float]) -> str:
    names, n = " and ".join(Path(r).resolve().name for r in own.runs), len(own.runs)
    if n == 1:
        return f"Made from the run {names} by `mipic merge`."
    told = f", weights {' '.join(f'{w:g}' for w in weights)}" if own.weights else ""
    return f"Made from the runs {names} by `mipic merge --how {own.how}`{told}."
