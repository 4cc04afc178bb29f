"""What is tried on the user's own rows before the first step."""

from __future__ import annotations

import torch
from torch import nn

from mipic_llm.config import need
from mipic_llm.data.batch import build_step
from mipic_llm.data.chunks import prepare
from mipic_llm.data.token_cache import only
from mipic_llm.errors import UserError
from mipic_llm.runtime import checkpoint
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.ranks import say
from mipic_llm.training import selfcheck
from mipic_llm.training.run import LiveRun

# Relative difference of two vectors of one token: what rounding may do, and what it never does.
SAME, OTHER = 1e-6, 1e-2


def canary(run: LiveRun) -> None:
    """Refuse unlabelled text when both views of a text are the same vector."""
    if not run.data.unlabelled:
        return
    source = next(s for s in run.data.sources if s.traits.kind == "texts")
    batch = build_step(list(source.examples[:2]), run.data.encoder)
    piece = prepare(batch, 0).chunks[0].to(run.engine.device)
    run.engine.train(True)
    keep, last = checkpoint.rng_state(), (run.engine.module.backbone.n_layers,)
    with torch.no_grad():
        one, two = (run.engine.forward(piece.ids_ST, piece.mask_ST, layers=last) for _ in range(2))
    checkpoint.set_rng_state(keep)
    if not torch.equal(one, two):
        return
    key, modules = "model.dropout", run.engine.module.backbone.modules()
    need(
        run.config.model.dropout != 0 or not any(isinstance(m, nn.Dropout) for m in modules),
        f"data.train: unlabelled text trains on two views of each text, made by dropout, but "
        f"{key} is 0 (set by the {run.config.origins.get(key, 'preset')}); give --{key} 0.1",
    )
    raise UserError(
        "data.train: unlabelled text, but this backbone gives the same vector twice (it has no "
        "dropout), so the loss would learn nothing; give --model.view_noise 0.1"
    )


def check_sight(run: LiveRun) -> None:
    """Do tokens of a decoder see those after them, as its settings say? Two texts differ in their
    last token alone: does the first token's vector? All ranks call.

    UserError for a class that does not heed `is_causal: false` in its config.json, and where the
    first token is the vector and sees no other; a note for one that sees the whole text though
    nothing says so.
    """
    asked, name = getattr(run.source.config, "is_causal", None) is False, run.source.name
    if not asked and not run.source.is_decoder:
        return
    engine, backbone = run.engine, run.engine.module.backbone
    pooling, training = backbone.pooling, engine.module.training
    ids_ST = torch.tensor([[7, 8, 9, 10], [7, 8, 9, 11]], device=engine.device)
    backbone.pooling = "cls"
    engine.train(False)
    with torch.no_grad():
        one_D, two_D = engine.forward(ids_ST, torch.ones_like(ids_ST), layers=(backbone.n_layers,))[
            0
        ].double()
    backbone.pooling = pooling
    engine.train(training)
    apart = float((one_D - two_D).norm() / one_D.norm())
    need(
        not asked or apart > SAME,
        f"model.name: the config of {name} has is_causal false, but its class attends from left to "
        "right all the same; take that line out, or train a class of transformers that heeds it",
    )
    need(
        pooling != "cls" or apart > SAME,
        f"model.pooling is cls, and the first token of {name} sees none after it: its vector would "
        "say nothing of the rest of the text; use --model.pooling last or mean",
    )
    if run.source.is_decoder and apart > OTHER:
        say(f"note: {name} sees the whole text at every token, though its settings do not say so; "
            f"it is pooled by {pooling}")  # fmt: skip


def check_lora(run: LiveRun) -> None:
    """UserError where the model's code reads the weights of named layers past their LoRA, or does
    not use them: it would learn nothing. A note for `all-linear`, whose other layers learn, and for
    an adapter that is trained further. All ranks call.

    Layers that our own kernels compute are not asked. Of layers with one name (experts, say) one
    that is called is enough.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    engine, backbone = run.engine, run.engine.module.backbone
    layers = {name: m for name, m in backbone.named_modules() if isinstance(m, BaseTunerLayer)}
    if not layers or backbone.about_layers == "fused":
        return
    called, training = set[nn.Module](), engine.module.training
    hooks = [m.register_forward_pre_hook(lambda m, _: called.add(m)) for m in layers.values()]
    ids_ST = torch.tensor([[7, 8, 9, 10]], device=engine.device)
    engine.train(False)
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        engine.forward(ids_ST, torch.ones_like(ids_ST), layers=(backbone.n_layers,))
    engine.train(training)
    for hook in hooks:
        hook.remove()
    found = {_last_word(name): [] for name in layers}
    for name, layer in layers.items():
        found[_last_word(name)].append(layer in called)
    dead = [name for name, calls in found.items() if not any(calls)]
    alive = [name for name in found if name not in dead]
    if not dead:
        return
    what = (
        f"{run.source.name} reads the weights of {', '.join(dead)} past their LoRA, or not at all"
    )
    if run.source.adapter or (alive and list(run.config.lora.target_modules) == ["all-linear"]):
        say(f"note: {what}; this part of the adapter does and learns nothing")
        return
    advice = f"use --lora.target_modules {','.join(alive)}" if alive else "name other layers"
    raise UserError(f"lora.target_modules: {what}: it would learn nothing; {advice}")


def _last_word(name: str) -> str:
    """Of a module's dotted name, which may end in numbers."""
    return [word for word in name.split(".") if not word.isdigit()][-1]


def check_chunks(run: LiveRun) -> None:
    """The self-check of GradCache on the shortest rows of the batch that this rank has next, and of
    the first batch of each stage."""
    module, worst = run.engine.module, [0.0, 0.0]
    for stage in range(len(module.objectives)):
        module.enter(stage)
        worst = [max(pair) for pair in zip(worst, _check_chunks(run, stage), strict=True)]
    module.enter(0)
    say(f"self-check: a step in chunks equals a plain one (loss to {worst[0]:.0e}, gradients to "
        f"{worst[1]:.0e})")  # fmt: skip


def _check_chunks(run: LiveRun, stage: int) -> tuple[float, float]:
    data = run.data
    place = (stage, 0) if run.config.stages else data.plan.position(run.step)
    rows = data.plan.local(data.plan.batch(*place), dist.rank())
    source = rows[0][0]
    examples = [data.sources[s].examples[i] for s, i in rows]
    if most := data.sources[source].drawn:
        examples = only(examples, [range(min(most, len(e.negatives))) for e in examples])
    texts = [(e.anchor, e.positive or "", *e.negatives) for e in examples]
    chosen = selfcheck.shortest([sum(map(len, row)) for row in texts])
    labelled = examples[0].label is not None
    if labelled:  # any pairs will do
        examples = [e._replace(positive=e.anchor, label=None) for e in examples]
    batch = build_step([examples[b] for b in chosen], data.encoders[source], data.traits[source])
    batch = data.taught(batch._replace(groups=batch.keys) if labelled else batch)
    return selfcheck.selfcheck(run.engine, run.config, batch)
