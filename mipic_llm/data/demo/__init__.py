"""Demo text that ships with the package: hand-written triplets and graded pairs."""

from __future__ import annotations

from pathlib import Path

_FILES = {"train": "train.jsonl", "validation": "validation.jsonl"}


def demo_path(split: str) -> Path:
    """Return the path of the shipped demo file of ``split`` ("train" or "validation")."""
    try:
        name = _FILES[split]
    except KeyError:
        raise ValueError(f"unknown demo split {split!r}; choose from {sorted(_FILES)}") from None
    return Path(__file__).resolve().parent / name
