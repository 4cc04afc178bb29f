"""The values that travel between the rooms of the house. Shapes only, no logic.

Shape legend (used as name suffixes everywhere):
    S sequences of a step (anchors, positives and negatives, in that order)
    T tokens of the longest sequence
    N tokens of a packed row: the sum of its sequences' lengths (or, see below, candidates)
    L captured layers
    D full width of the backbone
    V columns of the batch (anchor, positive, negatives)
    B anchors on this rank
    N candidates over all ranks
    P truncated prefixes (dims without D)
    K sum of the truncated prefix widths
Only tuples cross the wrapped module's boundary: ZeRO-3 walks outputs, and dicts with integer
keys crash it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


BITS = {32: "float32", 8: "int8", 1: "binary"}  # of a stored channel; sentence-transformers' names

TURNED = "turned"  # in a run's directory: the Dense module of `model.rotate` before training


class Point(NamedTuple):
    """One usable size of the model: the readout of `layer` (1-based) cut to its first `dim`, each
    channel stored in so many bits (a key of BITS)."""

    layer: int
    dim: int
    bits: int = 32

    @property
    def place(self) -> tuple[int, ...]:
        """(layer, dim), and the bits where they are not 32: its key in rows.npz."""
        return tuple(self) if self.bits != 32 else self[:2]

    @property
    def size(self) -> str:
        """Without its layer: 64, or 64 int8."""
        return f"{self.dim}" if self.bits == 32 else f"{self.dim} {BITS[self.bits]}"

    @property
    def bytes(self) -> int:
        """Of a stored vector."""
        return -(-self.dim * self.bits // 8)

    def __str__(self) -> str:
        return f"{self.dim}@{self.layer}" + ("" if self.bits == 32 else f" {BITS[self.bits]}")


class Judgement(NamedTuple):
    """Whether a trained model is better than before its training, for a registry.

    figure: what decides, such as sts/spearman@64@6; value: its value now, None where there is none;
    n: test rows. better: its 95 % interval lies above zero. words: the same for a person.
    """

    figure: str
    value: float | None
    n: int
    better: bool
    words: str


class Packing(NamedTuple):
    """S sequences one after another in one row of N tokens, without a pad.

    It stands where a padded batch has its mask_ST.
    cu_S1: (S + 1,) int32, where each sequence begins, and N.
    position_N: int64, each token's place in its own sequence, from 0.
    lengths: tokens of each sequence, on the host, where kernels want them without a stall.
    skip_S: int64, so many tokens at a sequence's begin are its prompt, which the pooling leaves
        out. None: it leaves none out.
    """

    cu_S1: Tensor
    position_N: Tensor
    lengths: tuple[int, ...]
    skip_S: Tensor | None = None

    def each(self, change: Callable[[Tensor], Tensor]) -> Packing:
        """The same with every tensor changed."""
        skip = None if self.skip_S is None else change(self.skip_S)
        return Packing(change(self.cu_S1), change(self.position_N), self.lengths, skip)

    def to(self, device: Any) -> Packing:
        return self.each(lambda x: x.to(device))


class Encoded(NamedTuple):
    """What the backbone gives for one chunk of sequences.

    tokens_STD: one (S, T, D) tensor per captured layer whose tokens were asked for; (N, D) packed.
    mask_ST: True at real tokens; the Packing of a packed batch.
    readout_LSD: the readouts of the captured layers, (L, S, D), in the order asked for.
    """

    tokens_STD: tuple[Tensor, ...]
    mask_ST: Tensor | Packing
    readout_LSD: Tensor


class Traits(NamedTuple):
    """What holds for all rows of a step, which are of one source.

    kind: pairs (anchor, positive, maybe negatives), texts (unlabelled: each stands twice) or scored
        (two texts and a number: how alike they are).
    scores: whether its rows say how well each text answers its anchor.
    in_batch: whether texts of other rows are negatives.
    several: whether a row may have more positives, among its negatives.
    """

    name: str = ""
    kind: Literal["pairs", "texts", "scored"] = "pairs"
    scores: bool = False
    in_batch: bool = True
    several: bool = False


class Known(NamedTuple):
    """What is known of each of a step's sequences beside its readout, in the step's order.

    key_S: int64, of its text, whatever its prompt: equal where texts are equal.
    score_S: float32, how well it answers its anchor (of a scored pair, at the positive's place);
        NaN where that is not known. None: the source has no scores.
    group_S: int64, of its label, where texts of one label are no negatives of one another.
    teacher_SK: float32, vectors of a model that is not trained. None: there is no teacher.
    row_S: int64, the row that it is of, different over all ranks. None: texts of other rows are
        negatives as well.
    whose_S: int64, which anchor of its own rank each belongs to. None: nobody said.
    also_S: int64, 1 where a negative is no negative, but a positive of its anchor too. None: none.
    """

    key_S: Tensor
    score_S: Tensor | None = None
    teacher_SK: Tensor | None = None
    row_S: Tensor | None = None
    group_S: Tensor | None = None
    whose_S: Tensor | None = None
    also_S: Tensor | None = None

    def each(self, change: Callable[[Tensor], Tensor]) -> Known:
        """The same with every tensor changed."""
        return Known(*(None if x is None else change(x) for x in self))


class Reps(NamedTuple):
    """What leaves the wrapped module: small readout vectors of a chunk's sequences.

    outputs: with gradients, (S, d) each: the readouts that the objective gathers, the last layer's
        first, then what its terms make with their heads.
    constants: gathered readouts without gradients, (S, D) each.
    local: the per-example terms of this chunk, weighted and scaled, a scalar.
    sums: their unweighted sums over the chunk's sequences, detached, for the log (n,).
    """

    outputs: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    local: Tensor
    sums: Tensor


class Score(NamedTuple):
    """One figure of an evaluation at one point; n = number of rows it was computed on."""

    task: str
    metric: str
    point: Point
    value: float
    n: int

    @property
    def name(self) -> str:
        """As eval.best and MLflow name it: sts/spearman@64@6."""
        return f"{self.task}/{self.metric}@{self.point}"


class Best(NamedTuple):
    """The best evaluation so far; worse: evaluations since then."""

    step: int
    value: float
    worse: int


class RunState(NamedTuple):
    """Everything a run needs beside the DeepSpeed checkpoint to go on as if never stopped.

    memory: of earlier steps, the state of objective/memory.py, the same on every rank.
    """

    step: int
    rng: dict[str, Any]
    mlflow_run_id: str | None = None
    best: Best | None = None
    memory: tuple[Any, ...] | None = None
