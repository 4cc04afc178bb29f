"""A suite: several tasks, one encoding of all their texts, scores at every point.

The model is nothing but `encode`; how it is sharded over ranks is not known here.
Shape legend: N texts, L layers, D full width.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mipic_llm.errors import UserError
from mipic_llm.evaluation.tasks import StsTask
from mipic_llm.types import Point, Score

# (texts, kind) -> (N, L, D) raw readouts of the asked layers, float32, on CPU. kind: query or
# document, which decides the prompt.
Encode = Callable[[list[str], str], Tensor]

_UNTELLING = ("train", "validation", "test", "dev")  # stems that every data set has


def all_points(layers: Sequence[int], dims: Sequence[int]) -> list[Point]:
    """Every dim at every layer, layer by layer."""
    return [Point(layer, dim) for layer in layers for dim in dims]


def run_suite(
    tasks: Sequence[StsTask], encode: Encode, *, layers: Sequence[int], points: Sequence[Point]
) -> list[Score]:
    """Scores of all tasks at all points: task by task, points in their order.

    Each distinct text is encoded once per kind, all in one call, so that the encoder can sort by
    length over the whole suite. layers: those that `encode` gives, in its order.
    Raises ValueError for readouts of another shape than asked for, or a point outside of them.
    """
    rows: dict[str, dict[str, int]] = {}
    for task in tasks:
        row = rows.setdefault(task.kind, {})
        for text in task.texts():
            row.setdefault(text, len(row))
    readouts: dict[str, Tensor] = {}
    for kind, row in rows.items():
        readouts_NLD = encode(list(row), kind)
        if readouts_NLD.ndim != 3 or readouts_NLD.shape[:2] != (len(row), len(layers)):
            raise ValueError(
                f"{len(row)} texts at {len(layers)} layers were asked for, encode gave "
                f"{tuple(readouts_NLD.shape)}"
            )
        readouts[kind] = readouts_NLD
    scores = []
    for task in tasks:
        row, readouts_NLD = rows[task.kind], readouts[task.kind]
        own_N = torch.tensor([row[text] for text in task.texts()])
        if len(tasks) > 1:  # alone, its rows are all rows, in order: no copy
            readouts_NLD = readouts_NLD[own_N]
        scores += task.scores(readouts_NLD, layers, points)
    return scores


def load_tasks(specs: Sequence[str]) -> list[StsTask]:
    """One STS task per spec: a file, directory, glob, Hugging Face id, or `demo` (built in).

    Named after the file; after its folder too where the stem alone tells nothing (validation,
    test ..) or is shared: stsb/validation.jsonl is "stsb-validation".
    Raises UserError for data that cannot be read, or a spec given twice.
    """
    from mipic_llm.data.formats import read_scored_pairs

    pairs = [read_scored_pairs(spec)[0] for spec in specs]
    return [StsTask(name, p) for name, p in zip(_names(specs), pairs, strict=True)]


def _names(specs: Sequence[str]) -> list[str]:
    """A name per spec: as few trailing parts of its path as make it telling and unique."""
    parts = [_parts(spec) for spec in specs]
    for i, own in enumerate(parts):
        if own in parts[:i]:
            raise UserError(f"{specs[i]} is given twice as evaluation data; leave one out")
    # Unshareable stems first: a name made longer may meet another, so widen until nothing does.
    depth = [1 + (own[-1] in _UNTELLING) for own in parts]
    while True:
        names = ["-".join(own[-n:]) for own, n in zip(parts, depth, strict=True)]
        shared = [
            i for i, own in enumerate(parts) if names.count(names[i]) > 1 and depth[i] < len(own)
        ]
        if not shared:
            break
        for i in shared:
            depth[i] += 1
    for i, name in enumerate(names):
        if name in names[:i]:
            raise UserError(f"{specs[i]}: its name {name} is taken by another evaluation file; "
                            "rename the file")  # fmt: skip
    return names


def _parts(spec: str) -> list[str]:
    """Folders and stem, only of letters that a metric's name may have, wildcards left out."""
    from mipic_llm.data.formats import SUFFIXES

    path = Path(spec).expanduser()
    stem = path.name[:-3] if path.name.lower().endswith(".gz") else path.name
    is_file = Path(stem).suffix.lower() in SUFFIXES
    if is_file:
        stem = Path(stem).stem
    if is_file or path.exists():  # the folder's name counts even when the spec does not spell it
        path = Path(os.path.abspath(path))
    cleaned = (re.sub(r"[^A-Za-z0-9_.]+", "-", part) for part in (*path.parts[:-1], stem))
    return [part for part in (c.strip("-.") for c in cleaned) if part] or ["task"]
