"""Demo text that ships with the package: hand-written triplets and graded pairs."""

from __future__ import annotations

from pathlib import Path

SPLITS = ["train", "validation"]


def demo_path(split: str) -> Path:
    """The shipped file of a split. ValueError for one that there is not."""
    if split not in SPLITS:
        raise ValueError(f"unknown demo split {split!r}; choose from {SPLITS}")
    return Path(__file__).resolve().parent / f"{split}.jsonl"
