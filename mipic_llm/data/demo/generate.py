"""Write the demo files from the hand-written frames, deterministically.

Run ``python -m mipic_llm.data.demo.generate`` to write both files, and add ``--check`` to compare
the shipped files with what the generator makes (exit status 1 if they differ).
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

from mipic_llm.data.demo import demo_path
from mipic_llm.data.demo.frames_train import FRAMES
from mipic_llm.data.demo.frames_validation import SCENARIOS

SEED = 20260
# How many pairs of each grade are drawn from the lexically tricky validation scenarios. All pairs
# of the plain scenarios are kept, and pairs of first sentences from two domains that share no
# content word (grade 0) fill the set up to VALIDATION_ROWS.
VALIDATION_ROWS = 400
TRICKY_QUOTA = {
    0.0: 10, 0.5: 10, 1.0: 16, 1.5: 20, 2.0: 38, 2.5: 14,
    3.0: 28, 3.5: 4, 4.0: 19, 4.5: 18, 5.0: 14,
}  # fmt: skip
# (row of slot fillers, anchor, positive, negative); wordings are 0 = the "a" line, 1 and 2 = the
# "p" lines; negatives are 0 and 1. Each frame yields these five triplets.
PLAN = ((0, 0, 1, 0), (1, 2, 0, 1), (2, 0, 2, 0), (3, 1, 0, 1))
EXTRA = (1, 2, 1)
STOP_WORDS = frozenset(
    "a an and are as at be been but by could for from had has have he her his i in is it its my no "
    "not of on or our she so that the their them they this to too was we were what when which who "
    "with you your me us every".split()
)


@dataclass
class Frame:
    """One frame: three wordings of the same meaning, two of another, and the slot fillers."""

    domain: str
    wordings: list[str]
    negatives: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)


def _lines(text: str) -> Iterator[str]:
    """Yield the logical lines of ``text``: continuation lines joined, empty lines dropped."""
    pending = ""
    for line in text.splitlines():
        if line.startswith("  "):
            pending += " " + line.strip()
            continue
        if pending:
            yield pending
        pending = line.strip()
    if pending:
        yield pending


def parse_frames(text: str = FRAMES) -> list[Frame]:
    """Parse the training frames and check their shape."""
    frames: list[Frame] = []
    domain = ""
    for line in _lines(text):
        mark, rest = line.split(" ", 1)
        if mark == "#":
            domain = rest
        elif mark == "a":
            frames.append(Frame(domain, [rest]))
        elif mark == "p":
            frames[-1].wordings.append(rest)
        elif mark == "n":
            frames[-1].negatives.append(rest)
        elif mark == "-":
            frames[-1].rows.append([cell.strip() for cell in rest.split(" / ")])
        else:
            raise ValueError(f"bad frame line: {line!r}")
    for frame in frames:
        if (len(frame.wordings), len(frame.negatives), len(frame.rows)) != (3, 2, 4):
            raise ValueError(f"frame of the wrong shape: {frame.wordings[0]!r}")
    return frames


def fill(template: str, row: list[str]) -> str:
    """Put the fillers of ``row`` into ``template`` and capitalise the sentence starts."""
    text = re.sub(r"\{(\d)\}", lambda match: row[int(match.group(1)) - 1], template)
    if text[-1] not in ".?!":
        return text
    return re.sub(r"(^|[.?!] )([a-z])", lambda m: m.group(1) + m.group(2).upper(), text)


def make_train() -> list[dict[str, str]]:
    """Return the training triplets in their shipped order."""
    triplets = []
    for number, frame in enumerate(parse_frames()):
        plan = [*PLAN, ((0, 2)[number % 2], *EXTRA)]
        for row_number, anchor, positive, negative in plan:
            row = frame.rows[row_number]
            triplets.append(
                {
                    "anchor": fill(frame.wordings[anchor], row),
                    "positive": fill(frame.wordings[positive], row),
                    "negative": fill(frame.negatives[negative], row),
                    "domain": frame.domain,
                }
            )
    random.Random(SEED).shuffle(triplets)
    return triplets


def parse_scenarios(
    text: str = SCENARIOS,
) -> tuple[list[tuple[str, str]], list[dict], list[dict]]:
    """Parse the scenarios: (domain, first sentence) list, tricky graded pairs, plain ones."""
    bases: list[tuple[str, str]] = []
    tricky: list[dict] = []
    plain: list[dict] = []
    domain = kind = ""
    for line in _lines(text):
        mark, rest = line.split(" ", 1)
        if mark == "#":
            domain = rest
        elif mark in ("=", "+"):
            kind = mark
            bases.append((domain, rest))
        else:
            row = {
                "sentence1": bases[-1][1],
                "sentence2": rest,
                "score": float(mark),
                "domain": domain,
            }
            (tricky if kind == "=" else plain).append(row)
    return bases, tricky, plain


def _content_words(sentence: str) -> set[str]:
    return set(re.findall(r"[a-z]+", sentence.lower())) - STOP_WORDS


def make_validation() -> list[dict]:
    """Return the graded validation pairs in their shipped order."""
    bases, tricky, kept = parse_scenarios()
    rng = random.Random(SEED)
    for score, quota in TRICKY_QUOTA.items():
        of_grade = [pair for pair in tricky if pair["score"] == score]
        rng.shuffle(of_grade)
        kept += of_grade[:quota]
    missing = VALIDATION_ROWS - len(kept)
    order = list(bases)
    rng.shuffle(order)
    while missing and len(order) > 1:
        domain, first = order.pop()
        for index, (other_domain, second) in enumerate(order):
            if other_domain != domain and not _content_words(first) & _content_words(second):
                order.pop(index)
                kept.append(
                    {"sentence1": first, "sentence2": second, "score": 0.0, "domain": domain}
                )
                missing -= 1
                break
    for pair in kept:
        if rng.random() < 0.5:
            pair["sentence1"], pair["sentence2"] = pair["sentence2"], pair["sentence1"]
    rng.shuffle(kept)
    return kept


def render() -> dict[str, str]:
    """Return the text of both files, by split."""
    rows = {"train": make_train(), "validation": make_validation()}
    return {
        split: "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in items)
        for split, items in rows.items()
    }


def main(argv: list[str] | None = None) -> int:
    """Write the files, or compare them with ``--check``; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--check", action="store_true", help="only compare; exit 1 if a file differs"
    )
    options = parser.parse_args(argv)
    status = 0
    for split, text in render().items():
        path = demo_path(split)
        if not options.check:
            path.write_bytes(text.encode("ascii"))
            print(f"{path.name}: {text.count(chr(10))} rows")
        elif not path.is_file() or path.read_bytes() != text.encode("ascii"):
            print(f"{path.name} differs from what the generator makes", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
