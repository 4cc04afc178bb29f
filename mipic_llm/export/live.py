"""A live model, at the end of its training or merged, written and proved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from mipic_llm.config import Config
from mipic_llm.data.tokenise import TextEncoder
from mipic_llm.export.card import Facts
from mipic_llm.export.portable import EmbeddingSpec, make_spec, write_json
from mipic_llm.export.verify import (
    ROUNDING,
    UNSTEADY,
    check_tokens,
    differences,
    prove,
    reload_vectors,
    settle_tokens,
)
from mipic_llm.export.write import Check, merge_adapter, write_adapter, write_merged
from mipic_llm.model.backbone import base_of
from mipic_llm.model.dense import trained
from mipic_llm.model.load import dtype_of
from mipic_llm.model.source import Source
from mipic_llm.runtime.ranks import say

PROBES = 16  # texts whose vectors are compared
WHOLE = "adapter on the whole base"


@dataclass
class Proof:
    """The vectors that every form of a model must give, and what reloading each form found.

    live_ND: of texts, without prompts, one text at a time. usage: run the card's Python too. found:
    for parity.json. limits: the widest so far, see `prove`.
    """

    config: Config
    encoder: TextEncoder
    texts: Sequence[str]
    live_ND: Tensor
    usage: bool = True
    found: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)

    @property
    def dtype(self) -> torch.dtype:
        return dtype_of(self.config.train.precision)

    def tolerance(self, rounded: bool = False) -> float:
        """Allowed for what was trained, and (rounded) for an adapter that was added to the weights:
        adding B A to a bf16 weight rounds it."""
        exact = self.dtype == torch.float32
        tolerance = self.config.export.tolerance or (1e-5 if exact else 2e-2)
        return 3 * tolerance if rounded and not exact else tolerance

    def check(self, spec: EmbeddingSpec, name: str, *, rounded: bool = False) -> Check:
        """That the files of `name` (adapter, merged, or none) give live_ND; raises ExportError."""

        def proved(fresh: Path) -> None:
            settle_tokens(fresh, self.texts, spec)
            check_tokens(fresh, self.encoder, self.texts, spec)
            self.found.update(prove(
                fresh, self.live_ND, self.texts, spec, name=name, adapter=name == "adapter",
                tolerance=self.tolerance(rounded), dtype=self.dtype, seen=self.limits,
                usage=self.usage and spec.quantization == "none",
            ))  # fmt: skip

        return proved

    def moved(self) -> float:
        """By how much of its length rounding was seen to move a vector, where it was much."""
        widest = max(self.limits.values(), default=0.0)
        return widest / ROUNDING if widest > self.tolerance(rounded=True) else 0.0

    def write(self, folder: Path, *, rounded: bool = False) -> None:
        """parity.json."""
        about = {"tolerance": self.tolerance(rounded), "texts": len(self.texts),
                 "dtype": str(self.dtype).removeprefix("torch.")}  # fmt: skip
        write_json(folder / "parity.json", about | self.found)


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
    weights, dense = (
        {k.removeprefix(part): v for k, v in state.items() if k.startswith(part)}
        for part in ("model.", "dense.")
    )
    spec = make_spec(config, source, encoder)
    spec = spec._replace(dense=trained(spec.dense, dense), facts=facts)
    proof = Proof(config, encoder, texts, live_ND, usage=not rehearsal)
    if not config.lora.rank:
        whole = _whole(base_of(model), weights, proof.dtype)
        write_merged(out / "merged", whole, spec, proof.check(spec, "merged"))
    else:
        adapter = out / "adapter"
        settings = model.peft_config["default"]
        write_adapter(adapter, weights, settings, spec, proof.check(spec, "adapter"))
        if spec.quantization != "none":
            _compare_bases(adapter, spec, proof, quiet=rehearsal)
        if config.export.merged:
            whole = merge_adapter(spec, adapter, proof.dtype)
            spec = spec._replace(quantization="none")
            check = proof.check(spec, "merged", rounded=True)
            write_merged(out / "merged", whole, spec, check)
    if rehearsal and (moved := proof.moved()) >= UNSTEADY:
        say(f"note: {config.train.precision} moves this model's vectors by up to {moved:.2f} of "
            "their length, and by other amounts in every library and on every device; "
            "--train.precision fp32 does not")  # fmt: skip
    proof.write(out)


def _whole(base: Any, weights: dict[str, Tensor], dtype: torch.dtype) -> Any:
    """A fresh model of the live one's class with these weights, on CPU, without a pooler."""
    whole = type(base)._from_config(base.config, dtype=dtype)
    missing, unexpected = whole.load_state_dict(weights, strict=False)
    assert not unexpected, unexpected
    left = [k for k in missing if "pooler" not in k and k in dict(whole.named_parameters())]
    assert not left, left
    if getattr(whole, "pooler", None) is not None:
        whole.pooler = None
    return whole


def _compare_bases(adapter: Path, spec: EmbeddingSpec, proof: Proof, *, quiet: bool) -> None:
    """How far an adapter of a base in 4 bits lies from itself on the whole one."""
    whole_ND = reload_vectors(adapter, proof.texts, spec._replace(quantization="none"),
                              loader="automodel", dtype=proof.dtype)  # fmt: skip
    cosine = float(cosine_similarity(proof.live_ND.float(), whole_ND).mean())
    found = differences(proof.live_ND, whole_ND, spec.dims)
    proof.found |= {WHOLE: found, f"{WHOLE}: mean cosine": cosine}
    if not quiet:
        say(f"adapter: trained on its base in 4 bits; on the whole base its vectors differ by at "
            f"most {max(found.values()):.3f} in a channel (mean cosine {cosine:.4f})")  # fmt: skip
