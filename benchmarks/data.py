"""Text, batches and lengths of the suites.

Lengths: `lengths.csv` holds how many tokens the texts of 26,477 NLI triplets have (column 0
anchors, 1 positives, 2 negatives; all-MiniLM-L6-v2's tokenizer, special tokens included).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import torch

from mipic_llm.data.batch import StepBatch
from mipic_llm.data.read.rows import Example, key_of
from mipic_llm.data.read.training import read_training

LENGTHS = Path(__file__).resolve().parent / "lengths.csv"


def triplets(path: str | None) -> tuple[list[Example], str]:
    """Rows with one negative each, and the name to record (never a path)."""
    (source,), _ = read_training([path or "demo"], negatives=1)
    rows = [row for row in source.examples if row.negatives and row.positive is not None]
    return rows, Path(path).name if path else "built-in text"


def cycled(rows: Sequence[Example], count: int, start: int = 0) -> list[Example]:
    """`count` rows from `start` on, from the top again where they end."""
    return [rows[(start + i) % len(rows)] for i in range(count)]


def step_batch(
    lengths: Sequence[Sequence[int]], vocab: int, seed: int = 1, side: str = "right", pad: int = 0
) -> StepBatch:
    """Random tokens of the given lengths: anchors, positives and (maybe) negatives."""
    generator = torch.Generator().manual_seed(seed)
    anchors, positives, negatives = lengths
    B = len(anchors)
    ids = [torch.randint(5, vocab, (n,), generator=generator).tolist()
           for n in (*anchors, *positives, *negatives)]  # fmt: skip
    keys = [key_of(repr(row).encode()) for row in ids]
    return StepBatch(ids, keys, B, len(negatives), pad, side)


def full(B: int, T: int) -> list[list[int]]:
    """Lengths of B pairs, every sequence of T tokens."""
    return [[T] * B, [T] * B, []]


def draw(B: int, seed: int = 1) -> list[list[int]]:
    """Lengths of B anchors, positives and negatives."""
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for column in range(3):
        length, count = zip(*histogram(column), strict=True)
        weights = torch.tensor(count, dtype=torch.float64)
        picked = torch.multinomial(weights, B, replacement=True, generator=generator)
        drawn.append([length[i] for i in picked.tolist()])
    return drawn


def word_triplets(B: int, vocab: int, seed: int = 1) -> list[Example]:
    """B triplets of words that a random model's tokenizer knows, as long as drawn lengths."""
    generator = torch.Generator().manual_seed(seed)

    def text(n: int) -> str:
        return " ".join(f"w{i}" for i in torch.randint(5, vocab, (n,), generator=generator))

    columns = [[text(n) for n in lengths] for lengths in draw(B, seed)]
    return [Example(a, p, (n,), i) for i, (a, p, n) in enumerate(zip(*columns, strict=True))]


def histogram(column: int) -> list[tuple[int, int]]:
    """(tokens, how many texts) of one column."""
    with LENGTHS.open(newline="") as file:
        return [(int(r["length"]), int(r["count"])) for r in csv.DictReader(file)
                if int(r["column"]) == column]  # fmt: skip
