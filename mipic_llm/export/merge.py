"""`mipic merge`: what finished runs of one base learnt, scaled, averaged or added, as a new model.

What a run learnt is its weights less the base's. Of LoRA that is s B A for each layer, and a sum of
such products is one product of the stacked parts: adapters merge into an adapter, exactly. All
others (full fine-tuning, DoRA, both kinds together) merge into whole weights.
"""

from __future__ import annotations

import json
import math
import shutil
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor, nn

from mipic_llm.config import Config, flatten, load_config, need, resolve
from mipic_llm.errors import UserError
from mipic_llm.evaluation.encode import encode, make_encoder
from mipic_llm.evaluation.open import for_inference
from mipic_llm.evaluation.read import load_tasks
from mipic_llm.evaluation.suite import PREFIX, all_points, run_suite
from mipic_llm.export.card import facts_of
from mipic_llm.export.portable import make_spec, write_json
from mipic_llm.export.run import PROBES, demo_texts, parity, prover, tolerances
from mipic_llm.export.write import write_adapter, write_merged
from mipic_llm.model.attention import padded
from mipic_llm.model.backbone import base_of
from mipic_llm.model.dense import make_dense, trained
from mipic_llm.model.directory import Source, open_source, read_model
from mipic_llm.model.files import content_of
from mipic_llm.model.load import dtype_of, load_model, plain_layout, read_adapter
from mipic_llm.report import label, write_scores
from mipic_llm.report.tables import main_metrics, plain_table
from mipic_llm.runtime.engine import Engine, start
from mipic_llm.runtime.ranks import say, world_size
from mipic_llm.tracking import RECORD, follow, write_record
from mipic_llm.types import Score

State = dict[str, Tensor]


def factors(how: str, weights: Sequence[float], gram_NN: Tensor) -> list[float]:
    """What each of N differences is multiplied by. how: add (by its weight), average (by its share
    of the weights) or slerp (of two: Shoemake, SIGGRAPH 1985). gram_NN: their inner products."""
    share = [w / sum(weights) for w in weights] if how != "add" else list(weights)
    if how != "slerp" or len(gram_NN) != 2:
        return share
    cosine = float(gram_NN[0, 1] / (gram_NN[0, 0] * gram_NN[1, 1]).sqrt())
    angle = math.acos(max(-1.0, min(1.0, cosine))) if math.isfinite(cosine) else 0.0
    if math.sin(angle) < 1e-4:  # parallel, or one of them is zero: along the line
        return share
    return [math.sin(s * angle) / math.sin(angle) for s in share]


def difference(base: Mapping[str, Tensor], many: Sequence[Mapping[str, Tensor]], how: str,
               weights: Sequence[float]) -> State:  # fmt: skip
    """Tensor by tensor, the mixture of many models' differences from the base, in float32."""
    found = {}
    for name, start_ in base.items():
        deltas = [(one[name].float() - start_.float()).flatten() for one in many]
        gram_NN = torch.tensor([[float(a.double() @ b.double()) for b in deltas] for a in deltas])
        parts = zip(factors(how, weights, gram_NN), deltas, strict=True)
        found[name] = sum(f * delta for f, delta in parts).view_as(start_)
    return found


class _Finished(NamedTuple):
    """A run: its resolved settings, its base, and its model as written."""

    config: Config
    source: Source
    model: Source

    @property
    def lora(self) -> bool:
        """Whether what it learnt is plain low-rank products of linear layers."""
        if self.model.adapter is None:
            return False
        folder = Path(self.model.adapter)
        settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        with safe_open(folder / "adapter_model.safetensors", "pt") as file:
            matrices = all(len(file.get_slice(k).get_shape()) == 2 and "embedding" not in k
                           for k in file.keys())  # noqa: SIM118 # fmt: skip
        return matrices and not settings.get("use_dora")


def _read(folder: Path, config: Config) -> _Finished:
    place = next((folder / k for k in ("adapter", "merged") if (folder / k).is_dir()), None)
    settings = folder / "config.yaml"
    if place is None or not settings.is_file():
        raise UserError(
            f"runs: {folder} has no config.yaml and adapter/ or merged/, so it is no finished run "
            "(`mipic export` finishes one from its checkpoint)"
        )
    argv = ["--recipe", str(settings), "--output_dir", str(folder)]
    for key in ("model.name", "model.trust_remote_code", "eval.batch_size"):
        if config.origins.get(key) == "flag":
            argv += [f"--{key}", str(flatten(config)[key])]
    own = load_config(argv, world_size=2, keep_recipe=True)
    source = open_source(own.model, folder)
    own = resolve(own, width=source.width, n_layers=source.config.num_hidden_layers)
    base = source.backbone if place.name == "adapter" else None
    trust = own.model.trust_remote_code
    return _Finished(own, source, read_model(str(place), trust_remote_code=trust, base=base))


def _same_base(runs: Sequence[_Finished], names: Sequence[str]) -> None:
    def base(run: _Finished) -> dict[str, Any]:
        commit = getattr(run.source.config, "_commit_hash", None) or run.source.revision
        m = run.config.model
        dense = [d.weight.float().numpy().tobytes() for d in run.source.dense]
        return {"base": content_of(run.source.backbone, commit), "Dense modules": dense,
                "pooling": run.source.pooling,
                "model.inner_norm": m.inner_norm, "model.quantization": m.quantization}  # fmt: skip

    first = base(runs[0])
    for run, name in zip(runs[1:], names[1:], strict=True):
        for key, value in base(run).items():
            need(value == first[key], f"runs: {name} has another {key} than {names[0]}; only runs "
                 "that began with one model and read it in one way can be merged")  # fmt: skip


class _Mixture(ABC):
    """The runs' mixture as a live model that can be scaled, and written. scale(0) is the base."""

    def __init__(self, runs: Sequence[_Finished], how: str, weights: Sequence[float]) -> None:
        self.first, self.runs, self.how, self.weights = runs[0], runs, how, weights
        config, source = self.first.config, self.first.source
        self.dtype, self.factor = dtype_of(config.train.precision), 1.0
        self.attn = config.replace(**{"model.attn": padded(source.config)}).model
        # A Dense is trained whole, beside LoRA too.
        self.dense_base, *dense = (
            (make_dense(one.dense, torch.float32) or nn.Sequential()).state_dict()
            for one in (source, *(r.model for r in runs))
        )
        self.dense_delta = difference(self.dense_base, dense, how, weights)
        self.model = self._open()

    def _load(self, source: Source, precision: str) -> nn.Module:
        return load_model(source, self.attn, precision=precision, dropout=0.0)

    @abstractmethod
    def _open(self) -> nn.Module:
        """The transformer, with what the runs learnt beside it."""

    def scale(self, factor: float, engine: Engine) -> None:
        """Set the live model, the one in the engine, to base + factor * what was learnt."""
        self.factor = factor
        mixed = self.dense_state()
        if engine.module.backbone.dense is not None:
            engine.module.backbone.dense.load_state_dict(mixed)

    def dense_state(self) -> State:
        return {k: v + self.factor * self.dense_delta[k] for k, v in self.dense_base.items()}


class _Adapters(_Mixture):
    """All runs' adapters on one base, active together."""

    def _open(self) -> nn.Module:
        from peft import PeftModel
        from peft.tuners.lora import LoraLayer

        base = self._load(self.first.source, self.first.config.train.precision)
        found: Any = None
        for i, run in enumerate(self.runs):
            options = {"adapter_name": str(i), "autocast_adapter_dtype": False}
            if found is None:
                found = PeftModel.from_pretrained(base, run.model.adapter, **options)
            else:
                with warnings.catch_warnings():  # the first one left the pooler out already
                    warnings.filterwarnings("ignore", ".*exclude_modules.*")
                    found.load_adapter(run.model.adapter, **options)
        found.base_model.set_adapter([str(i) for i in range(len(self.runs))])
        plain_layout(found).requires_grad_(False)
        self.layers = {name: m for name, m in found.named_modules() if isinstance(m, LoraLayer)}
        self.trained = {}  # layer -> adapter -> its factor in the mixture
        for name, layer in self.layers.items():
            parts = {k: (layer.lora_B[k].weight.double() * layer.scaling[k],
                         layer.lora_A[k].weight.double()) for k in layer.lora_A}  # fmt: skip
            gram_NN = torch.tensor([[float(((B.T @ D) * (A @ C.T)).sum()) for D, C in
                                     parts.values()] for B, A in parts.values()])  # fmt: skip
            mine = [self.weights[int(k)] for k in parts]
            # A run that leaves this layer alone has learnt nothing here, and counts in an average.
            share = 1.0 if self.how == "add" else sum(mine) / sum(self.weights)
            each = factors(self.how, mine, gram_NN) if share else [0.0] * len(mine)
            self.trained[name] = {k: f * share * layer.scaling[k] for k, f in
                                  zip(parts, each, strict=True)}  # fmt: skip
        return found

    def scale(self, factor: float, engine: Engine) -> None:
        super().scale(factor, engine)
        for name, layer in self.layers.items():
            layer.scaling.update({k: factor * f for k, f in self.trained[name].items()})

    def stacked(self) -> tuple[State, Any]:
        """The same as one adapter: its weights by peft's live names, and its settings."""
        scaling = {name: layer.scaling for name, layer in self.layers.items()}
        values = {s for one in scaling.values() for s in one.values()}
        alone = values.pop() if len(values) == 1 else None  # into alpha: no weight is rounded
        state, ranks = {}, {}
        for name, layer in self.layers.items():
            keys = list(layer.lora_A)
            B = [layer.lora_B[k].weight for k in keys]
            B = B if alone else [b.float() * scaling[name][k] for b, k in zip(B, keys, strict=True)]
            parts = {"A": torch.cat([layer.lora_A[k].weight for k in keys]), "B": torch.cat(B, 1)}
            state |= {f"{name}.lora_{k}.default.weight": v.cpu() for k, v in parts.items()}
            ranks[name.removeprefix("base_model.model.")] = len(parts["A"])
        configs = [self.model.peft_config[str(i)] for i in range(len(self.runs))]
        found, told = copy(configs[0]), [c.target_modules for c in configs]
        lists = not any(isinstance(one, str) for one in told)
        found.target_modules = {x for one in told for x in one} if lists else set(ranks)
        found.r, scale = max(ranks.values()), alone or 1.0
        found.rank_pattern = {name: r for name, r in ranks.items() if r != found.r}
        found.lora_alpha, found.use_rslora = scale * found.r, False
        found.alpha_pattern = {name: scale * r for name, r in found.rank_pattern.items()}
        return state, found


class _Whole(_Mixture):
    """Base and difference as whole weights."""

    def _open(self) -> nn.Module:
        need(self.attn.quantization == "none", "runs: whole weights on a base in 4 bits are not "
             "merged; export the runs with --merged first")  # fmt: skip
        found = self._load(self.first.source, "fp32")
        self.base = {k: v.clone() for k, v in found.state_dict().items()}
        states = []
        for run in self.runs:
            model = self._load(run.model, "fp32")
            if run.model.adapter is not None:
                model = read_adapter(model, run.model.adapter, torch.float32).merge_and_unload()
            states.append(model.state_dict())
        self.delta = difference(self.base, states, self.how, self.weights)
        return found.to(self.dtype)

    def scale(self, factor: float, engine: Engine) -> None:
        super().scale(factor, engine)
        self.model.load_state_dict(
            {k: (v.float() + factor * self.delta[k]).to(v.dtype) for k, v in self.base.items()}
        )


def merge(config: Config) -> Path:
    """`mipic merge`. -> the directory written into. UserError for runs that are not finished, or do
    not fit together."""
    own, out = config.extra, Path(config.extra.to)
    runs = [_read(Path(folder), config) for folder in own.runs]
    _same_base(runs, own.runs)
    weights = own.weights or [1.0] * len(runs)
    start()
    need(world_size() == 1, "merge works in one process; start it without a launcher")
    mix = (_Adapters if all(r.lora for r in runs) else _Whole)(runs, own.how, weights)
    run, source = runs[0].config, runs[0].source
    encoder = make_encoder(run, source)
    spec = make_spec(run, source, encoder)
    alone = run.replace(ds_config=None)
    engine = for_inference(alone, source, spec.inner_norm, lambda _: mix.model)
    out.mkdir(parents=True, exist_ok=True)
    scale, notes, swept = own.scale[0], [_words(own, weights)], None
    if len(own.scale) > 1:
        swept = _sweep(mix, engine, encoder, run, own, out)
        scale = swept.best
        notes.append(f"The scale {scale:g} was chosen on validation data, so figures on these are "
                     "a little too good; test it on others.")  # fmt: skip
        if scale == 0:
            say("the base itself is best by this rule: nothing was written")
            _track(config, out, ["The base itself was best: no model was written."], swept)
            return out
    mix.scale(scale, engine)
    notes[0] += f" Scale of what was learnt: {scale:g}."
    texts = demo_texts()[:PROBES]
    live_ND = encode(engine, encoder.bare(), texts, [spec.n_layers], batch_size=1)[:, 0]
    spec = spec._replace(dense=trained(source.dense, mix.dense_state()), notes=tuple(notes),
                         facts=facts_of(out))  # fmt: skip
    parts: dict[str, Any] = {}
    tolerance, kind = tolerances(run)[0], "adapter" if isinstance(mix, _Adapters) else "merged"
    check = prover(run, spec, encoder, texts, live_ND, parts)(kind, tolerance)
    if isinstance(mix, _Adapters):
        write_adapter(out / kind, *mix.stacked(), spec, check)
    else:
        write_merged(out / kind, base_of(mix.model).cpu(), spec, check)
    shutil.copyfile(Path(own.runs[0]) / "config.yaml", out / "config.yaml")
    write_json(out / "parity.json", parity(run, texts, tolerance) | parts)
    write_json(out / "merge.json", {"runs": [str(Path(r).resolve()) for r in own.runs],
               "how": own.how, "weights": weights, "scale": scale, "scales": own.scale,
               "rule": own.rule})  # fmt: skip
    say(f"{kind}: {out / kind} (reloaded and compared: {out / 'parity.json'})")
    _track(config, out, notes, swept, out / kind / "README.md")
    return out


def _track(
    config: Config, out: Path, notes: Sequence[str], swept: _Swept | None, card: Path | None = None
) -> None:  # fmt: skip
    """The mixture's run in MLflow, below that of its first run that was tracked. The figures of the
    scales have 100 x scale for their step."""
    own = config.extra
    tracker = follow(config, "merge", own.runs, out, own.model_dump())
    lines = " ".join(notes)
    if swept is not None:
        for scale, scores in swept.found.items():
            tracker.evaluation({f"sweep/{s.task}/{s.metric}@{s.point}": s.value for s in scores},
                               round(100 * scale))  # fmt: skip
        tracker.evaluation({f"eval/{s.task}/{s.metric}@{s.point}": s.value
                            for s in swept.found[swept.best]}, 0)  # fmt: skip
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


class _Swept(NamedTuple):
    """The best scale, the scores of each (0 = the base), and a table of them."""

    best: float
    found: dict[float, list[Score]]
    table: str


def _sweep(
    mix: _Mixture, engine: Engine, encoder: Any, run: Config, own: Any, out: Path
) -> _Swept:  # fmt: skip
    """Score the base and each scale at every dim of the last layer; the best is so by own.rule.

    Writes sweep.jsonl, and scores.jsonl with the base's figures as before and the best one's as
    after."""
    specs = own.data or run.data.validation
    need(bool(specs), "data: the run has no data.validation; give files to score the scales on")
    tasks, lines = load_tasks(specs, split="validation")
    for line in lines:
        say(line)
    last = engine.module.backbone.n_layers
    points = all_points([last], run.objective.dims or [engine.module.backbone.width])
    found: dict[float, list[Score]] = {}
    for i, scale in enumerate(sorted({0.0, *own.scale})):
        mix.scale(scale, engine)
        found[scale] = run_suite(
            tasks, lambda texts, kind: encode(engine, encoder, texts, [last], kind=kind,
                                              batch_size=run.eval.batch_size),
            layers=[last], points=points,
        )[PREFIX]  # fmt: skip
        write_scores(out / "sweep.jsonl", found[scale], append=i > 0, stage=f"scale {scale:g}",
                     max_length=encoder.max_length)  # fmt: skip
    best, table = choose(found, own.rule, own.scale, own.slack)
    say(f"\n{table}\n")
    words = "the highest mean" if own.rule == "mean" else "the highest mean that lowers no family"
    say(f"scale {best:g}: {words} of {len(tasks)} task(s) and {len(points)} dim(s)")
    say("note: chosen on these very data, so its figures here are a little too good; test it on "
        "data that had no part in it")  # fmt: skip
    for stage, scale in (("before", 0.0), ("after", best)):
        write_scores(out / "scores.jsonl", found[scale], append=stage == "after", stage=stage,
                     max_length=encoder.max_length)  # fmt: skip
    return _Swept(best, found, table)


def choose(
    found: Mapping[float, Sequence[Score]], rule: str, asked: Sequence[float], slack: float = 0.0
) -> tuple[float, str]:
    """The best of the scales asked for, and two tables x 100: each task's main figure, mean over
    dims; and the mean over tasks at each dim.

    found: scale -> scores, 0 (the base) too. rule: mean = the highest mean over tasks; safe = that
    among those where no family, the tasks of one metric, is more than slack points below the base;
    if there is none, 0.
    """
    mains = main_metrics(s for scores in found.values() for s in scores)
    means: dict[float, dict[str, float]] = {}
    for scale, scores in found.items():
        values = {t: [s.value for s in scores if s[:2] == (t, metric) and math.isfinite(s.value)]
                  for t, metric in mains.items()}  # fmt: skip
        means[scale] = {t: sum(v) / len(v) if v else math.nan for t, v in values.items()}
    known = [t for t in mains if all(math.isfinite(one[t]) for one in means.values())]
    need(bool(known), "data: no figure can be had of any task; give others")
    families: dict[str, list[str]] = {}
    for task in known:
        families.setdefault(label(mains[task]), []).append(task)

    def mean(scale: float, tasks: Sequence[str]) -> float:
        return sum(means[scale][t] for t in tasks) / len(tasks)

    def safe(scale: float) -> bool:
        least = slack / 100 + 1e-9
        return all(mean(scale, some) >= mean(0.0, some) - least for some in families.values())

    fit = [s for s in sorted(set(asked)) if rule == "mean" or safe(s)]
    best = max(fit, key=lambda s: mean(s, known), default=0.0)
    rows = [["scale", *(f"{t} {label(mains[t])}" for t in known), "mean"]]
    for scale in sorted(means):
        values = [*(means[scale][t] for t in known), mean(scale, known)]
        marks = ("*" if scale == best else "") + ("" if safe(scale) else " -")
        rows.append([f"{scale:g}{marks}", *(f"{100 * v:.2f}" for v in values)])
    words = "x 100, mean over dims; * = best, - = a family is below the base (scale 0)"
    dims = sorted({s.point.dim for scores in found.values() for s in scores})
    sizes = [["scale", *map(str, dims)]]
    for scale in sorted(means):
        at = {d: [s.value for s in found[scale] if s.point.dim == d and s.task in known
                  and s.metric == mains[s.task]] for d in dims}  # fmt: skip
        sizes.append([f"{scale:g}", *(f"{100 * sum(v) / len(v):.2f}" for v in at.values())])
    return best, (f"{words}\n{plain_table(rows)}\n\nx 100, mean over tasks at each dim\n"
                  f"{plain_table(sizes)}")  # fmt: skip
