"""Texts to readouts with a live model, sharded over ranks, at any ZeRO stage."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mipic_llm.config import Config, need
from mipic_llm.data.tokenise import ENDOFTEXT, TextEncoder, pad, resolve_eos
from mipic_llm.errors import UserError
from mipic_llm.model.source import Source, prompts_by_kind
from mipic_llm.report.progress import PATIENCE, Progress
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.engine import Engine
from mipic_llm.runtime.ranks import say
from mipic_llm.runtime.shared import Shared


def make_encoder(config: Config, source: Source) -> TextEncoder:
    """The model's tokenisation of every kind of text, for training, evaluation and export alike."""
    option = config.model.append_eos
    # A portable directory's own tokenizer ends texts as its author wants; we add nothing to it.
    option = "none" if source.portable and option == "auto" else option
    eos = resolve_eos(source.tokenizer, option, source.is_decoder)
    if not source.is_decoder and source.tokenizer.padding_side == "left":
        if config.model.padding_side == "left":
            raise UserError(
                "model.padding_side: left padding shifts the positions of an encoder, so that a "
                "text's vector would depend on its batch; use right (left is for decoders)"
            )
        source.tokenizer.padding_side = "right"
        say("note: the tokenizer pads left; an encoder needs right, which is used and exported")
    prompts, longest = prompts_by_kind(source, config.data, config.eval.symmetric_prompt), 1 << 30
    need(
        config.data.max_length <= (source.positions or longest),
        f"data.max_length is {config.data.max_length}, and {source.name} has places for "
        f"{source.positions} tokens; give --data.max_length {source.positions}",
    )
    return TextEncoder(
        source.tokenizer, config.data.max_length, append_eos_id=eos,
        vocabulary=getattr(source.config, "vocab_size", None),
        prompts={kind: prompt for kind, prompt in prompts.items() if prompt},
        padding_side=source.tokenizer.padding_side, include_prompt=source.include_prompt,
    )  # fmt: skip


def rules_of(source: Source, encoder: TextEncoder) -> dict[str, str | None]:
    """What `auto` came to, by the names of the options: for environment.json."""
    eos = encoder.append_eos_id
    name = None if eos is None else source.tokenizer.convert_ids_to_tokens(eos)
    return {"pooling": source.pooling, "append_eos": name}


def check_record(run: Path, config: Config, source: Source, encoder: TextEncoder) -> None:
    """UserError where a run, by its environment.json, read texts in another way than this version
    does with the run's own settings: what `auto` means is a rule of the version."""
    try:
        told = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    vocabulary = source.tokenizer.get_vocab()
    now = then = rules_of(source, encoder)
    if "pooling" in told:
        then = {key: told.get(key) for key in now}
    elif "vectors" in told:  # until 28 November 2026 in this line alone, see Source.reading
        pooling = re.search(r"pooling (\w+)", told["vectors"])
        end = re.search(r"(\S+) ends each text", told["vectors"])
        found = {"pooling": pooling, "append_eos": end}
        then = now | {key: one[1] for key, one in found.items() if one}
    elif config.model.append_eos == "auto" and now["append_eos"] and ENDOFTEXT in vocabulary:
        then = now | {"append_eos": ENDOFTEXT}  # what auto was until 26 November 2026
    if differ := [key for key in now if now[key] != then[key]]:
        key = differ[0]
        raise UserError(
            f"model.{key}: {run} was trained with {then[key]}, and this version takes {now[key]} "
            f"by the same settings; its finished model is read as it was trained (mipic evaluate "
            f"--model {run}/adapter, or --model.adapter of a new run); for all else take the "
            "version that trained it"
        )


def encode(
    engine: Engine, encoder: TextEncoder, texts: Sequence[str], layers: Sequence[int], *,
    batch_size: int, kind: str = "query", show: bool = True,
) -> Tensor:  # fmt: skip
    """(N, L, D) float32 readouts on CPU, on every rank; all ranks must call. show: how far it is,
    once that takes a while.

    kind: symmetric, query or document, which decides the prompt. Batches are sorted by length; each
    rank runs the same number of them (dummies where it has none), since under ZeRO-3 every forward
    is a collective. The ranks of a machine share one copy (`Shared`): all layers of 100,000
    documents can be 12 GB. Raises UserError where there is no room for it, or a readout is not
    finite: a search that compares with nan would find every document in the first place.
    """
    ids = encoder.ids(list(texts), kind)
    order = sorted(range(len(ids)), key=lambda i: (-len(ids[i]), i))
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    world, rank = dist.world_size(), dist.rank()
    readout = Shared(len(layers), len(ids), engine.module.backbone.width)
    training, strange = engine.module.training, []
    progress = progress_of_texts(len(ids), kind, show and rank == 0)
    engine.train(False)
    with torch.no_grad():
        for first in range(0, len(batches), world):
            mine = batches[first + rank] if first + rank < len(batches) else []
            rows = [ids[i] for i in mine] or [ids[order[-1]]]
            ids_ST, mask_ST = pad(rows, encoder.pad_id, encoder.padding_side,
                                  [encoder.skips.get(kind, 0)] * len(rows))  # fmt: skip
            out_LSD = engine.forward(
                ids_ST.to(engine.device), mask_ST.to(engine.device), layers=tuple(layers)
            )
            if mine:
                readout.tensor[:, mine] = out_LSD = out_LSD.float().cpu()
                fine = out_LSD.isfinite().all(dim=2).all(dim=0).tolist()
                strange += [i for i, ok in zip(mine, fine, strict=True) if not ok]
            progress.update(min(len(ids), (first + world) * batch_size), {})
        engine.train(training)
        progress.close()
        readout.complete([[i for batch in batches[r::world] for i in batch] for r in range(world)])
    strange = [i for some in dist.gather_objects(strange) for i in some]
    need(
        not strange,
        f"the model gives {len(strange):,} of {len(ids):,} texts vectors that are not finite, such "
        f"as {strange and texts[strange[0]][:60]!r}; try --train.precision fp32, or another "
        "checkpoint of it",
    )
    return readout.tensor.transpose(0, 1)


def progress_of_texts(n: int, kind: str, enabled: bool) -> Progress:
    """Of n texts of one kind that are encoded; silent where that is soon done."""
    what = "encoded text" if kind == "symmetric" else f"encoded {kind}"
    return Progress(n, enabled=enabled, what=what, patience=PATIENCE)


def spread_over_ranks(jobs: Sequence[Callable[[], Any]]) -> list[Any]:
    """Every world-size-th job here, all results in order on every rank; all ranks must call."""
    rank, world = dist.rank(), dist.world_size()
    parts = dist.gather_objects([job() for job in jobs[rank::world]])
    found: list[Any] = [None] * len(jobs)
    for r, part in enumerate(parts):
        found[r::world] = part
    return found
