"""What evaluation tasks are called: after their files."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from mipic_llm.config.files import legal_path
from mipic_llm.data.read.folders import SUFFIXES, packed_by, suffix_of
from mipic_llm.errors import UserError

_UNTELLING = ("train", "validation", "test", "dev")  # stems that every data set has


def name_specs(specs: Sequence[str]) -> list[str]:
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
    path = legal_path(spec)
    stem = path.name[: len(path.name) - len(packed_by(path))]
    is_file = suffix_of(path) in SUFFIXES
    if is_file:
        stem = Path(stem).stem
    if is_file or path.exists():  # the folder's name counts even when the spec does not spell it
        path = Path(os.path.abspath(path))
    cleaned = (re.sub(r"[^A-Za-z0-9_.]+", "-", part) for part in (*path.parts[:-1], stem))
    return [part for part in (c.strip("-.") for c in cleaned) if part] or ["task"]
