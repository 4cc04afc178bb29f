"""Sources of more rows than memory holds: read in blocks into a directory on disk, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mipic_llm.config import SourceConfig
from mipic_llm.data import row_build
from mipic_llm.data.read.columns import Columns
from mipic_llm.data.read.containers import containers
from mipic_llm.data.read.find import files_of, split_weight
from mipic_llm.data.read.folders import PACKED
from mipic_llm.data.read.formats import no_entailment, read_part, settled
from mipic_llm.data.read.rows import ALL, ReadReport, Row, TextSource
from mipic_llm.data.read.training import constant_score, few_labels, mixed_kinds, renamed
from mipic_llm.data.row_store import StoredRows
from mipic_llm.errors import UserError, one_line

BLOCK = 20_000  # rows between two marks, after which a killed builder goes on
LARGE = 2**30  # bytes of text from which on `auto` streams; packed ones count more
_PACKED = dict.fromkeys((*PACKED, ".parquet"), 4)


class Reading(NamedTuple):
    """How the rows of a spec are read; the options are those of `read_training`."""

    spec: str | SourceConfig
    negatives: int
    on_bad_rows: str = "error"
    cache_dir: str | None = None
    ignore: Sequence[str] = ()
    score_column: str | None = None
    draw: bool = False
    label_column: str | None = None
    together: bool = False

    @property
    def path(self) -> str:
        return self.spec.path if isinstance(self.spec, SourceConfig) else split_weight(self.spec)[0]

    @property
    def most(self) -> int:
        """Negatives of a row."""
        own = self.spec.negatives if isinstance(self.spec, SourceConfig) else None
        return self.negatives if own is None else own

    @property
    def kept(self) -> int:
        """Negatives that are read of a row."""
        return ALL if self.draw and self.most else self.most

    @property
    def columns(self) -> dict[str, str]:
        return self.spec.columns if isinstance(self.spec, SourceConfig) else {}

    def key(self) -> str:
        """What names the rows that this gives."""
        files = files_of(self.path)
        if files is None:
            return row_build.name_of([], [*self._settings(), _revision(self.path)])
        return row_build.name_of(files.read, self._settings())

    def _settings(self) -> list[Any]:
        return [self.kept, self.on_bad_rows == "skip", sorted(self.ignore), self.score_column,
                sorted(self.columns.items()), self.label_column, self.together]  # fmt: skip

    def source(
        self, folder: Path, beside: Sequence[np.ndarray] = ()
    ) -> tuple[TextSource, list[ReadReport]]:
        """The rows that were written to a directory. beside: `known_pairs` of the other sources."""
        rows = StoredRows(folder)
        made, scored = rows.manifest, rows.manifest["scored"]
        if isinstance(self.spec, SourceConfig):
            name, weight = self.spec.name or self.spec.path, self.spec.weight
        else:
            name, weight = split_weight(self.spec)
        reports = [ReadReport.of(report) for report in made["reports"]]
        if scored and rows.same_score():
            raise constant_score(name, scored)
        if made["labels"][0] and made["labels"][1] < 2:
            raise few_labels(name, made["labels"][0], str(self.label_column))
        rows, n_false = rows.beside(np.unique(np.concatenate([np.zeros(0, np.int64), *beside])))
        reports[-1] = reports[-1]._replace(n_false=n_false, n_alone=made["n_alone"])
        drawn = self.most if self.draw and 0 < self.most < rows.negatives().max() else None
        return TextSource(name, rows, weight, scored, drawn), reports

    def build(self, folder: Path, told: Callable[[int, int | None], None]) -> None:
        """Write them. told: called with the rows that were read, and how many there are."""
        row_build.build(folder, lambda done: self._blocks(done, told), self.kept, self.together)

    def _blocks(
        self, done: dict[str, Any], told: Callable[[int, int | None], None]
    ) -> Iterator[tuple[list[Row], dict[str, Any]]]:
        """Blocks of rows after those that are done, and what is done after each."""
        reports = [ReadReport.of(report) for report in done.get("reports", [])]
        before = Columns.of(done["columns"]) if done else None
        parts = [list(part) for part in done.get("parts", [])]  # rows that are written, whether NLI
        total = self._total()
        for number, part in enumerate(containers(self.path, "train", self.cache_dir, stream=True)):
            if number < len(parts) - 1:
                continue
            rows, report, own = iter(renamed(part.rows, self.columns)), None, None
            if number == len(parts) - 1:
                own, report = before, reports.pop()
                next(islice(rows, report.n_rows, report.n_rows), None)
            else:
                parts.append([0, False])
            block = list(islice(rows, BLOCK))
            while block or report is None:
                texts, found, own = read_part(
                    part._replace(rows=iter(block)), self.kept, self.on_bad_rows == "skip",
                    self.ignore, self.score_column, own, self.label_column, block=True,
                )  # fmt: skip
                report = report.plus(found) if report else found
                block = list(islice(rows, BLOCK))
                if before and own and before.teaches != own.teaches:
                    raise mixed_kinds(part.path, found.kind, own, reports[-1], before)
                if not block:
                    report = settled(report, own, self.ignore, self.score_column)
                if own is None:  # nothing but bad rows so far
                    continue
                before, parts[-1] = own, [parts[-1][0] + len(texts), bool(own.nli)]
                done = {"parts": parts, "columns": own.plainly(), "scored": own.score,
                        "labelled": own.positive is not None, "label": own.label,
                        "reports": [*map(list, reports), list(report)]}  # fmt: skip
                told(sum(r.n_rows for r in reports) + report.n_rows, total)
                yield texts, done
            assert report is not None
            reports.append(report)
        kept = [report.n_kept for report, (_, nli) in zip(reports, parts, strict=True) if nli]
        if kept and not any(kept):
            raise no_entailment(self.path)

    def _total(self) -> int | None:
        """How many rows there are, where that is quickly known."""
        files = files_of(self.path)
        if files is None or files.beir:
            return None
        counts = [_count(path) for path in files.read]
        return None if None in counts else sum(n for n in counts if n)


def wanted(spec: Any, option: str) -> bool:
    """Whether `data.stream` reads a spec in this way; objects in memory never."""
    if option == "false" or not isinstance(spec, str | SourceConfig):
        return False
    path = spec.path if isinstance(spec, SourceConfig) else split_weight(spec)[0]
    files = None if path == "demo" else files_of(path)
    if option == "true":
        return path != "demo"
    return files is not None and sum(map(_size, files.read)) > LARGE


def _size(path: Path) -> int:
    return path.stat().st_size * _PACKED.get(path.suffix.lower(), 1)


def _count(path: Path) -> int | None:
    """Its rows, where that is quickly known; a damaged file is left to its reader."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        import pyarrow.parquet

        try:
            return pyarrow.parquet.read_metadata(path).num_rows
        except (OSError, pyarrow.ArrowException):
            return None
    if suffix not in (".jsonl", ".csv", ".tsv", ".txt"):  # a .json may be one list
        return None
    with path.open("rb") as file:
        return sum(int(np.count_nonzero(np.frombuffer(block, np.uint8) == 10))
                   for block in iter(lambda: file.read(1 << 24), b""))  # fmt: skip


def _revision(name: str) -> str:
    """The commit that a Hugging Face id stands for now. UserError without the hub."""
    from huggingface_hub import HfApi

    bare, _, revision = name.partition("[")[0].partition("@")
    try:
        found = HfApi().dataset_info(bare.partition(":")[0], revision=revision or None).sha
    except Exception as error:  # whatever fails in there is about the id or the network
        raise UserError(f"{name}: the hub does not say its commit ({one_line(error, 200)}); check "
                        "the name, or the network") from None  # fmt: skip
    return f"{name} {found}"
