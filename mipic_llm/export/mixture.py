"""What finished runs of one base learnt, as one live model that can be scaled and written.

What a run learnt is its weights less the base's. Of LoRA that is s B A for each layer, and a sum of
such products is one product of the stacked parts: adapters merge into an adapter, exactly. All
others (full fine-tuning, DoRA, both kinds together) merge into whole weights.
"""

from __future__ import annotations

import json
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor, nn

from mipic_llm.config import Config, need
from mipic_llm.model.attention import padded
from mipic_llm.model.dense import make_dense
from mipic_llm.model.load import dtype_of, load_model, plain_layout, read_adapter
from mipic_llm.model.source import Source
from mipic_llm.runtime.engine import Engine

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


class Trained(NamedTuple):
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


class Mixture(ABC):
    """The runs' mixture as a live model that can be scaled, and written. scale(0) is the base."""

    def __init__(self, runs: Sequence[Trained], how: str, weights: Sequence[float]) -> None:
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


class Adapters(Mixture):
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


class Whole(Mixture):
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


def mixture(runs: Sequence[Trained], how: str, weights: Sequence[float]) -> Mixture:
    """Of adapters alone an adapter, else whole weights. how, weights: see `factors`."""
    return (Adapters if all(run.lora for run in runs) else Whole)(runs, how, weights)
