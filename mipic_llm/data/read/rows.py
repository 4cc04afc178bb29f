"""What reading gives: rows of training text, sources of them, and reports on files."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

from mipic_llm.types import Traits


class Example(NamedTuple):
    """One training row. positive None = unlabelled: the text is its own positive (two views).

    id is the row's place in its source's `examples`. scores: of the positive and of each negative,
    how well it answers the anchor; of a scored pair, the one number; empty where nothing is known.
    label: of labelled text, whose positive another text of that label is. also: so many of the
    negatives, the first ones, are no negatives but positives as well (`data.positives averaged`).
    """

    anchor: str
    positive: str | None
    negatives: tuple[str, ...]
    id: int
    scores: tuple[float, ...] = ()
    label: str | None = None
    also: int = 0

    @property
    def second(self) -> str:
        """What the anchor is to find: the positive, or the text itself where it is unlabelled."""
        return self.anchor if self.positive is None else self.positive

    @property
    def texts(self) -> list[str]:
        """Anchor, positive (of labelled rows) and negatives."""
        return [self.anchor, *([] if self.positive is None else [self.positive]), *self.negatives]

    def only(self, numbers: Sequence[int]) -> Example:
        """With these of its negatives, and their scores."""
        scores = self.scores and (self.scores[0], *(self.scores[1 + i] for i in numbers))
        return self._replace(negatives=tuple(self.negatives[i] for i in numbers), scores=scores)


# anchor, positive, negatives, scores (of the positive and each negative, or none); then, of
# labelled text alone, the label; of several positives in one row, None and `Example.also`
Row = tuple[Any, ...]
ALL = 1 << 30
SPARE = 8  # negatives read beyond those asked for, in place of those that prove to be positives


class TextSource(NamedTuple):
    """What one spec of `data.train` gave. weight = passes over it per epoch in a mixture; scored:
    the column that makes its rows scored pairs; drawn: so many of a row's hard negatives are in a
    step, others in each pass; None = all that were read."""

    name: str
    examples: Sequence[Example]
    weight: float
    scored: str | None = None
    drawn: int | None = None

    @property
    def labelled(self) -> bool:
        """Whether its rows are texts with a label."""
        return self.examples[0].label is not None

    @property
    def symmetric(self) -> bool:
        """Whether all texts take one prompt, that of STS."""
        return bool(self.scored or self.labelled)

    @property
    def traits(self) -> Traits:
        """What holds for all of its rows."""
        kind = "pairs"
        if self.scored:
            kind = "scored"
        elif self.examples[0].positive is None and not self.labelled:
            kind = "texts"
        scores = getattr(self.examples, "has_scores", None)  # of rows on disk
        if scores is None:
            scores = any(example.scores for example in self.examples)
        several = getattr(self.examples, "several", None)
        if several is None:
            several = any(example.also for example in self.examples)
        return Traits(self.name, kind, scores, several=several)


class ReadReport(NamedTuple):
    """What was understood of one file. rejected: (number of the line or row, reason). n_false: hard
    negatives that were left out, because they are the anchor or one of its positives. ignored:
    columns. beside: files of another split. n_scored: examples with scores of their texts.
    n_alone: texts that were left out, since no other has their label. whole: all scores of pairs
    are whole numbers. span: of these scores. strange: files of kinds that are not read. n_given:
    the most negatives of a row, where that is more than are used."""

    path: str
    kind: str
    n_rows: int
    n_kept: int
    rejected: list[tuple[int, str]]
    unit: str = "line"
    n_false: int = 0
    ignored: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    n_scored: int = 0
    n_alone: int = 0
    whole: bool = True
    span: tuple[float, ...] = ()
    strange: tuple[str, ...] = ()
    n_given: int = 0

    @classmethod
    def of(cls, values: Sequence[Any]) -> ReadReport:
        """From its values, as JSON gives them back."""
        made = cls(*values)
        rejected = [(number, reason) for number, reason in made.rejected]
        return made._replace(
            ignored=tuple(made.ignored), beside=tuple(made.beside), rejected=rejected,
            span=tuple(made.span), strange=tuple(made.strange),
        )  # fmt: skip

    def plus(self, more: ReadReport) -> ReadReport:
        """With what was understood of further rows of the same file."""
        both = self.span + more.span
        ignored = tuple(dict.fromkeys((*self.ignored, *more.ignored)))
        return self._replace(
            n_rows=self.n_rows + more.n_rows, n_kept=self.n_kept + more.n_kept, ignored=ignored,
            rejected=[*self.rejected, *more.rejected], n_scored=self.n_scored + more.n_scored,
            kind=self.kind or more.kind, whole=self.whole and more.whole,
            span=(min(both), max(both)) if both else (),
            n_given=max(self.n_given, more.n_given),
        )  # fmt: skip

    def __str__(self) -> str:
        text = f"read {self.n_rows:,} rows of {self.path} as {self.kind}"
        if self.n_kept != self.n_rows - len(self.rejected):
            text += f", giving {self.n_kept:,} examples"
        if self.n_scored:
            text += f", {self.n_scored:,} with scores"
        if self.rejected:
            shown = [f"{self.unit} {n}: {reason}" for n, reason in self.rejected[:3]]
            more = ["..."] if len(self.rejected) > 3 else []
            text += f" ({len(self.rejected):,} rejected: {'; '.join(shown + more)})"
        if self.ignored:
            text += f"; ignored: {_some([name or '(no name)' for name in self.ignored])}"
        if self.beside:
            text += f"; not read, being of another split: {_some(self.beside)}"
        if self.strange:
            text += f"; NOT READ, of other kinds: {_some(self.strange)}"
        if self.n_false:
            text += f"; {self.n_false:,} negatives left out, equal to their anchor or its positives"
        if self.n_given:
            text += f"; a row has up to {self.n_given:,} negatives, more than data.negatives uses"
        if self.n_alone:
            text += f"; {self.n_alone:,} texts left out, whose label no other has"
        return text


def _some(names: Sequence[str]) -> str:
    """The first eight, and how many more there are."""
    more = f" and {len(names) - 8:,} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more


def key_of(text: bytes) -> int:
    """A hash of 64 bits, signed: equal texts have equal keys on every rank."""
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little", signed=True)
