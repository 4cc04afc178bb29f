"""The end of a run: gather, write, reload, compare. A difference fails the run."""

from __future__ import annotations

import json

import torch

from mipic_llm.errors import UserError
from mipic_llm.evaluation.encode import encode
from mipic_llm.export import merge_adapter, prove, write_adapter, write_merged
from mipic_llm.model.backbone import base_of
from mipic_llm.model.load import dtype_of
from mipic_llm.runtime import ranks as dist
from mipic_llm.tracking import wait_for_import
from mipic_llm.training import setup
from mipic_llm.training.callbacks import emit
from mipic_llm.training.run import LiveRun

PROBES = 16  # texts whose vectors are compared


def export(run: LiveRun) -> None:
    """Adapter (LoRA) or merged model (full), then what was asked for, each proved on rank 0."""
    config, engine = run.config, run.engine
    lora = run.lora
    texts = _probe_texts(run)
    last = engine.module.backbone.n_layers
    # One text at a time, as the reload does: bf16 rounds differently in padded batches.
    live_ND = encode(engine, _bare(run), texts, [last], batch_size=1)[:, 0]
    state = engine.state(trainable_only=lora)
    problem = None
    # The tracker's thread may still be importing mlflow, and a reload imports the same large
    # packages: two threads inside one cycle of imports can meet half-made modules.
    wait_for_import()
    if dist.rank() == 0:
        assert state is not None
        try:
            report = _write(run, state, texts, live_ND)
            text = json.dumps(report, indent=2, sort_keys=True)
            (run.out / "parity.json").write_text(text + "\n", encoding="utf-8")
        except (RuntimeError, UserError, OSError) as error:
            problem = error
    if dist.from_first(None if problem is None else str(problem)):
        raise problem or RuntimeError("export failed on rank 0")
    written = ["parity.json", "adapter" if lora else "merged"]
    for name in written + ["merged"] * (lora and config.export.merged):
        emit(run, "on_save", run.out / name)


def _bare(run: LiveRun):
    """The run's tokenisation without prompts: exports are compared on plain text."""
    from mipic_llm.data.tokenise import TextEncoder

    own = run.data.encoder
    return TextEncoder(own.tokenizer, own.max_length, append_eos_id=own.append_eos_id, prompts={},
                       padding_side=own.padding_side)  # fmt: skip


def _probe_texts(run: LiveRun) -> list[str]:
    rows = [e.anchor for s in run.data.sources for e in s.examples[:PROBES]]
    return list(dict.fromkeys(rows))[:PROBES]


def _write(run: LiveRun, state, texts: list[str], live_ND: torch.Tensor) -> dict:
    config = run.config
    spec = setup.make_spec(config, run.source, run.data.encoder)
    dtype = dtype_of(config.train.precision)
    tolerance = config.export.tolerance or (1e-5 if dtype == torch.float32 else 2e-2)
    report: dict = {"tolerance": tolerance, "texts": len(texts)}

    def check(folder, loaders, allowed: float) -> None:
        for loader in loaders:
            report.update(prove(folder, live_ND, texts, spec, loader=loader, dtype=dtype,
                                tolerance=allowed, where=f"{folder.name} in {loader}"))  # fmt: skip

    st = ["sentence-transformers"] if installed("sentence_transformers") else []
    model = run.engine.module.backbone.model
    if config.lora.rank:
        backbone = {k.removeprefix("backbone.model."): v for k, v in state.items()
                    if k.startswith("backbone.")}  # fmt: skip
        write_adapter(run.out / "adapter", backbone, model.peft_config["default"], spec)
        check(run.out / "adapter", ["automodel", "peft", *st], tolerance)
        if config.export.merged:
            merged = merge_adapter(spec.base_model, run.out / "adapter", dtype)
            write_merged(run.out / "merged", merged, spec)
            # Adding B A to a bf16 weight rounds it: that much may differ, and no more.
            allowed = tolerance if dtype == torch.float32 else 3 * tolerance
            check(run.out / "merged", ["automodel", *st], allowed)
    else:
        from transformers import AutoModel

        whole = AutoModel.from_config(base_of(model).config, dtype=dtype)
        weights = {k.removeprefix("backbone.model."): v for k, v in state.items()
                   if k.startswith("backbone.")}  # fmt: skip
        missing, unexpected = whole.load_state_dict(weights, strict=False)
        assert not unexpected, unexpected
        left = [k for k in missing if "pooler" not in k and k in dict(whole.named_parameters())]
        assert not left, left
        if getattr(whole, "pooler", None) is not None:
            whole.pooler = None
        write_merged(run.out / "merged", whole, spec)
        check(run.out / "merged", ["automodel", *st], tolerance)
    return report


def installed(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None
