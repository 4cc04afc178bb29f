"""Reads any common row format from any common container, and says what it understood.

A format is detected from the columns of the first row; later rows of another shape are bad rows.
Extra columns are ignored. First match wins:

    premise, hypothesis, label      NLI; entailment/neutral/contradiction or 0/1/2. Each entailment
                                    is a row, contradictions of its premise are the negatives;
                                    no gold label (-1, -, null) counts as neutral, gives no row
    anchor, positive[, negative..]  sentence-transformers; also query, positive
    query, pos, neg                 FlagEmbedding
    query, positive_passages, ..    tevatron: {title, text} passages, read as "title text"
    query|question, pos_doc, ..     NeMo
    messages, positive_messages ..  ms-swift: a text is the contents of its messages, one per line
    query, response                 ms-swift pairs, negatives in rejected_response
    query|question, answer          pairs
    sentence1, sentence2            pairs, when there is no score
    text | sentence                 unlabelled, also any .txt: one text per line

A positive may be a list: each becomes a row of its own, with the same negatives. Negatives may
be a list or negative_1 .. negative_n, and ragged (null and, in csv, empty cells are absent).
"""

from __future__ import annotations

import csv
import difflib
import glob
import gzip
import json
import math
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mipic_llm.errors import UserError


class Example(NamedTuple):
    """One training row. positive None = unlabelled: the text is its own positive (two views).

    id is the row's place in its source's `examples`.
    """

    anchor: str
    positive: str | None
    negatives: tuple[str, ...]
    id: int


class ScoredPair(NamedTuple):
    """Two sentences and how alike a person found them (any scale, larger = more alike)."""

    sentence1: str
    sentence2: str
    score: float


class Source(NamedTuple):
    """What one spec of `data.train` gave. weight = passes over it per epoch in a mixture."""

    name: str
    examples: list[Example]
    weight: float


class ReadReport(NamedTuple):
    """What was understood of one file. rejected: (number of the line or row, reason)."""

    path: str
    kind: str
    n_rows: int
    n_kept: int
    rejected: list[tuple[int, str]]
    unit: str = "line"

    def __str__(self) -> str:
        text = f"read {self.n_rows:,} rows of {self.path} as {self.kind}"
        if self.n_kept != self.n_rows - len(self.rejected):
            text += f", giving {self.n_kept:,} examples"
        if self.rejected:
            shown = [f"{self.unit} {n}: {reason}" for n, reason in self.rejected[:3]]
            more = ["..."] if len(self.rejected) > 3 else []
            text += f" ({len(self.rejected):,} rejected: {'; '.join(shown + more)})"
        return text


class _BadRow(Exception):
    """This row cannot be used; the message is the reason."""


class _Shape(NamedTuple):
    kind: str
    anchor: str
    positive: str | None
    negative: str | None  # pattern of the columns that hold negatives


class _Rows(NamedTuple):
    path: str
    unit: str  # what the numbers count: lines of a text file, else rows
    rows: Iterator[tuple[int, Any]]  # a _BadRow in place of a row that cannot even be decoded


_NUMBERED = r"negatives?(_\d+)?"
_LABELLED = (
    ("anchor", "positive", _NUMBERED),
    ("query", "pos", "neg"),
    ("query", "positive", _NUMBERED),
    ("query", "positive_passages", "negative_passages"),
    ("query", "pos_doc", "neg_doc"),
    ("question", "pos_doc", "neg_doc"),
    ("messages", "positive_messages", "negative_messages"),
    ("query", "response", "rejected_response"),
    ("query", "answer", None),
    ("question", "answer", None),
    ("sentence1", "sentence2", None),
)
_MAYBE_SCORED = ("sentence2", "answer", "response", "positive_messages")
_SCORES = ("score", "label")
_NLI = ("premise", "hypothesis", "label")
_NLI_WORDS = {"entailment": 0, "neutral": 1, "contradiction": 2, "-": 1, "": 1}
_ACCEPTED = (
    "text | sentence | anchor, positive[, negative] | query, pos, neg | query, positive_passages | "
    "query, pos_doc | messages, positive_messages | query|question, answer | sentence1, sentence2 "
    "| premise, hypothesis, label"
)
_TYPES = {bool: "true/false", int: "a number", float: "a number", dict: "an object", list: "a list"}
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".txt")
_HUB_ID = re.compile(
    r"(?P<id>[\w.-]+(/[\w.-]+)?)(:(?P<config>[^@\[\]]+))?(@(?P<revision>[^@\[\]]+))?"
    r"(\[(?P<split>[^\[\]]+(\[[^\[\]]*\])?)\])?"  # the split may itself be a slice: train[:10%]
)


def read_training(
    specs: list[str], *, negatives: int, on_bad_rows: str = "error", cache_dir: str | None = None
) -> tuple[list[Source], list[ReadReport]]:
    """Reads the training text: one Source per spec, one report per file.

    A spec is a file, a directory (every data file below it), a glob, a Hugging Face id
    `id:config@revision[split]` (split train by default) or `demo`; `=weight` may follow.
    negatives: the most hard negatives kept per row (the first ones).
    on_bad_rows: error = stop at the first bad row, skip = leave it out and list it in the report.
    Raises UserError, one line: what, where, what to do.
    """
    if not specs:
        raise UserError("data.train names no data; give a file, a Hugging Face id or demo")
    sources, reports = [], []
    for spec in specs:
        name, weight = _split_weight(spec)
        found: list[tuple[str, str | None, tuple[str, ...]]] = []
        for part in _containers(name, "train", cache_dir):
            texts, report = _read_part(part, negatives, on_bad_rows == "skip")
            if found and (texts[0][1] is None) != (found[0][1] is None):
                raise UserError(
                    f"{part.path} ({report.kind}) and {reports[-1].path} ({reports[-1].kind}) are "
                    "one source, but unlabelled text and labelled rows cannot be mixed in one "
                    "source; give them as two entries of data.train"
                )
            found += texts
            reports.append(report)
        sources.append(Source(name, [Example(*row, i) for i, row in enumerate(found)], weight))
    return sources, reports


def read_scored_pairs(
    spec: str, *, cache_dir: str | None = None
) -> tuple[list[ScoredPair], ReadReport]:
    """Reads sentence1, sentence2 and a numeric score (or label), as in STS.

    Any container of `read_training`; a Hugging Face id without [split] means its validation
    split. Several files make one list and one report. Any bad row is a UserError.
    """
    pairs: list[ScoredPair] = []
    n_rows = 0
    for part in _containers(spec, "validation", cache_dir):

        def pick(columns: list[str], path: str = part.path) -> str:
            column = next((name for name in _SCORES if name in columns), None)
            if column is None or not {"sentence1", "sentence2"} <= set(columns):
                raise UserError(
                    f"{path}: found columns {', '.join(columns)}, but scored pairs need sentence1, "
                    "sentence2 and score (or label); rename the columns"
                )
            return column

        def parse(row: dict, column: str) -> ScoredPair:
            one, two = (_one_text(row, name) for name in ("sentence1", "sentence2"))
            return ScoredPair(one, two, _number(row.get(column), column))

        rows, n, _ = _collect(part, pick, parse, skip=False)
        pairs += rows
        n_rows += n
    if len({pair.score for pair in pairs}) < 2:
        raise UserError(
            f"{spec}: every pair has the same score, so no correlation can be computed; give pairs "
            "with different scores"
        )
    return pairs, ReadReport(spec, "sentence1/sentence2/score", n_rows, len(pairs), [])


# --- rows to examples ---------------------------------------------------------------------------


def _collect(
    part: _Rows, pick: Callable[[list[str]], Any], parse: Callable[[dict, Any], Any], skip: bool
) -> tuple[list[Any], int, list[tuple[int, str]]]:
    """parse(row, pick(first row's columns)) of all rows; -> (parsed, n_rows, rejected)."""
    parsed, rejected, shape, n_rows = [], [], None, 0
    for number, row in part.rows:
        n_rows += 1
        try:
            if isinstance(row, _BadRow):
                raise row
            if not isinstance(row, dict):
                raise _BadRow(f"{_type_name(row)} where an object with columns is expected")
            if shape is None:
                shape = pick([str(name) for name in row])
            parsed.append(parse(row, shape))
        except _BadRow as bad:
            if not skip:
                raise UserError(
                    f"{part.path}, {part.unit} {number}: {bad}; mend or delete that row (for "
                    "training data --data.on_bad_rows skip leaves such rows out)"
                ) from None
            rejected.append((number, str(bad)))
    if not n_rows:
        raise UserError(f"{part.path} is empty; give a file with at least one row")
    if not parsed:
        raise UserError(
            f"{part.path}: none of its {n_rows:,} rows can be used ({part.unit} {rejected[0][0]}: "
            f"{rejected[0][1]}); mend the file"
        )
    return parsed, n_rows, rejected


def _read_part(part: _Rows, negatives: int, skip: bool):
    """One file's (anchor, positive, negatives) rows and its report."""
    kind = ""

    def pick(columns: list[str]) -> _Shape:
        nonlocal kind
        shape = _detect(columns, part.path)
        kind = shape.kind
        return shape

    def parse(row: dict, shape: _Shape):
        if shape.negative == "label":
            texts = (_one_text(row, name) for name in _NLI[:2])
            return (*texts, _nli_label(row.get("label")))
        anchor = _one_text(row, shape.anchor)
        if shape.positive is None:
            return [(anchor, None, ())]
        hard = tuple(_negatives(row, shape.negative))[:negatives]
        return [(anchor, positive, hard) for positive in _column(row, shape.positive)]

    parsed, n_rows, rejected = _collect(part, pick, parse, skip)
    if kind == "/".join(_NLI):
        rows = _nli_rows(parsed, negatives)
        if not rows:
            raise UserError(f"{part.path} holds no entailment pair; training needs some")
    else:
        rows = [row for group in parsed for row in group]
    return rows, ReadReport(part.path, kind, n_rows, len(rows), rejected, part.unit)


def _detect(columns: list[str], path: str) -> _Shape:
    """The shape of a file whose first row has these columns."""
    have = set(columns)
    if have.issuperset(_NLI):
        return _Shape("/".join(_NLI), "premise", "hypothesis", "label")
    for anchor, positive, negative in _LABELLED:
        if not {anchor, positive} <= have:
            continue
        found = [name for name in columns if negative and re.fullmatch(negative, name)]
        score = next((name for name in _SCORES if name in have), None)
        if score and not found and positive in _MAYBE_SCORED:
            raise UserError(
                f"{path}: {anchor}, {positive}, {score} are scored pairs, which are for "
                "evaluation; use the file as data.validation, or for training keep only the pairs "
                f"that mean the same and drop the column {score}"
            )
        return _Shape("/".join([anchor, positive, *found[:1]]), anchor, positive, negative)
    for name in ("text", "sentence"):
        if name in have:
            return _Shape(name, name, None, None)
    raise UserError(
        f"{path}: found columns {', '.join(columns) or 'none'}; rename them to one of: {_ACCEPTED}"
    )


def _type_name(value: Any) -> str:
    return "null" if value is None else _TYPES.get(type(value), "text")


def _texts(value: Any, column: str) -> list[str]:
    """The texts a cell holds: a string, a passage, a chat, or a list of any of them."""
    if isinstance(value, str):
        if not value.strip():
            raise _BadRow(f"empty {column}")
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise _BadRow(f"{column} holds half a unicode character") from None
        return [value]
    if isinstance(value, dict):
        if isinstance(value.get("text"), str):  # a passage
            title = value.get("title")
            return _texts(f"{title} {value['text']}" if title else value["text"], column)
        if isinstance(value.get("content"), str):  # a message
            return _texts(value["content"], column)
        raise _BadRow(f"{column} is an object without a text")
    if isinstance(value, list):
        if not value:
            raise _BadRow(f"empty {column}")
        texts = [text for item in value for text in _texts(item, column)]
        chat = all(isinstance(item, dict) and "role" in item for item in value)
        return ["\n".join(texts)] if chat else texts
    raise _BadRow(f"{column} is {_type_name(value)}, text expected")


def _column(row: dict, column: str) -> list[str]:
    if column not in row:
        raise _BadRow(f"column {column} is missing (found {', '.join(map(str, row)) or 'none'})")
    return _texts(row[column], column)


def _one_text(row: dict, column: str) -> str:
    texts = _column(row, column)
    if len(texts) != 1:
        raise _BadRow(f"{column} holds {len(texts)} texts, one expected")
    return texts[0]


def _negatives(row: dict, pattern: str | None) -> Iterator[str]:
    """Hard negatives in the order of their columns' numbers; absent ones are left out."""
    names = [name for name in row if pattern and re.fullmatch(pattern, str(name))]
    for name in sorted(names, key=lambda name: int((re.findall(r"\d+", name) or ["0"])[0])):
        if row[name] not in (None, []):
            yield from _texts(row[name], name)


def _number(value: Any, column: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        shown = "null" if value is None else repr(value)[:40]
        raise _BadRow(f"{column} is {shown}, a number expected")
    return number


def _nli_label(value: Any) -> int:
    """0 entailment, 1 neutral or without gold label, 2 contradiction."""
    if value is None:
        return 1
    word = str(value).strip().lower()
    if word in _NLI_WORDS:
        return _NLI_WORDS[word]
    try:
        return {-1: 1, 0: 0, 1: 1, 2: 2}[float(word)]
    except (ValueError, KeyError):
        raise _BadRow(
            f"label is {value!r}, expected entailment, neutral, contradiction or 0, 1, 2"
        ) from None


def _nli_rows(labelled: list[tuple[str, str, int]], negatives: int):
    """Triplets from entailment and contradiction of one premise; a pair where none contradicts."""
    groups: dict[str, tuple[list[str], list[str]]] = {}
    for premise, hypothesis, label in labelled:
        if label != 1:
            groups.setdefault(premise, ([], []))[label // 2].append(hypothesis)
    rows = []
    for premise, (entailed, denied) in groups.items():
        for i, positive in enumerate(entailed):
            turn = i % len(denied) if denied else 0  # each entailment starts at another negative
            rows.append((premise, positive, tuple((denied[turn:] + denied[:turn])[:negatives])))
    return rows


# --- containers to rows -------------------------------------------------------------------------


def _split_weight(spec: str) -> tuple[str, float]:
    name, found, number = spec.rpartition("=")
    if not found or Path(spec).exists():
        return spec, 1.0
    try:
        weight = float(number)
    except ValueError:
        return spec, 1.0
    if not (math.isfinite(weight) and weight > 0):
        raise UserError(f"data.train: the weight of {name} is {number}; give a number above 0")
    return name, weight


def _containers(spec: str, split: str, cache_dir: str | None) -> list[_Rows]:
    """The files a spec names, ready to be read one after another."""
    if spec == "demo":
        from mipic_llm.data.demo import demo_path

        return [_file_rows(Path(demo_path(split)))]
    path = Path(spec).expanduser()
    if path.is_dir():
        # A saved datasets folder has JSON about itself beside its arrow files.
        saved = (path / "dataset_info.json").exists()
        files = [file for file in sorted(path.rglob("*.arrow" if saved else "*")) if _is_data(file)]
        if not files:
            raise UserError(f"{spec} holds no data file; accepted: {_suffix_list()}")
        return [_file_rows(file) for file in files]
    if path.exists():
        return [_file_rows(path)]
    named_as_file = _suffix(path) in SUFFIXES or spec.startswith((".", "~", "/"))
    if "*" in spec or "?" in spec or ("[" in spec and named_as_file):
        files = [
            file for file in sorted(glob.glob(str(path), recursive=True)) if Path(file).is_file()
        ]
        if not files:
            raise UserError(f"no file matches {spec}; check the pattern")
        return [_file_rows(Path(file)) for file in files]
    match = _HUB_ID.fullmatch(spec)
    if named_as_file or match is None:
        raise UserError(f"no such file: {spec}; {_nearest(path)}")
    return [_hub_rows(spec, match, split, cache_dir, _nearest(path))]


def _suffix(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _suffix_list() -> str:
    return f"{' '.join(SUFFIXES)}, text ones also with .gz"


def _is_data(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and _suffix(path) in SUFFIXES


def _nearest(path: Path) -> str:
    """What to do about a missing file, with the nearest name in its folder."""
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist either"
    names = [file.name for file in path.parent.iterdir()]
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    return f"did you mean {path.parent / near[0]}?" if near else "check the path"


def _file_rows(path: Path) -> _Rows:
    suffix = _suffix(path)
    if suffix not in SUFFIXES:
        raise UserError(
            f"{path}: unknown file type {suffix or path.name}; accepted: {_suffix_list()}"
        )
    if suffix in (".parquet", ".arrow"):
        return _Rows(str(path), "row", _guarded(path, _arrow))
    reader = {".txt": _txt, ".csv": _csv, ".tsv": _csv}.get(suffix, _json)
    unit = "row" if suffix == ".json" and _is_list(path) else "line"
    return _Rows(str(path), unit, _guarded(path, reader))


def _guarded(path: Path, reader: Callable[[Path], Iterator[tuple[int, Any]]]):
    """A reader whose failures of the file itself are the user's to mend."""
    try:
        yield from reader(path)
    except UnicodeDecodeError as bad:
        raise UserError(f"{path} is not UTF-8 text ({bad.reason}); convert it to UTF-8") from None
    except (OSError, EOFError, zlib.error, csv.Error) as bad:
        raise UserError(f"{path} cannot be read: {_one_line(bad)}; check the file") from None


def _open(path: Path):
    """Text, with or without gzip and BOM; line ends are left to the csv reader."""
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    return opener(path, "rt", encoding="utf-8-sig", newline="" if "sv" in _suffix(path) else None)


def _one_line(bad: Exception) -> str:
    return " ".join(str(bad).split())[:300] or type(bad).__name__


def _txt(path: Path) -> Iterator[tuple[int, Any]]:
    """Blank lines at the end of the file are no rows; elsewhere they are bad ones."""
    blank: list[int] = []
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                blank.append(number)
                continue
            yield from ((n, {"text": ""}) for n in blank)
            blank.clear()
            yield number, {"text": line.rstrip("\n")}


def _csv(path: Path) -> Iterator[tuple[int, Any]]:
    csv.field_size_limit(2**31 - 1)
    with _open(path) as file:
        # strict: a stray quote is an error, not a field that swallows the lines below it.
        reader = csv.DictReader(
            file, delimiter="\t" if _suffix(path) == ".tsv" else ",", strict=True
        )
        for row in reader:
            if None in row or None in row.values():
                expected = len(reader.fieldnames or ())
                yield reader.line_num, _BadRow(f"not {expected} cells, as in the header")
                continue
            # A cell cannot be null, so an empty negative is an absent one.
            cells = {k: v for k, v in row.items() if v or not re.fullmatch(r"neg.*|rejected.*", k)}
            yield reader.line_num, cells


def _is_list(path: Path) -> bool:
    """Is a .json file one list (else it is read as JSON lines)?"""
    try:
        with _open(path) as file:
            return file.read(4096).lstrip().startswith("[")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError):
        return False  # the reader will meet the same and say so


def _json(path: Path) -> Iterator[tuple[int, Any]]:
    if _suffix(path) == ".json" and _is_list(path):
        with _open(path) as file:
            try:
                rows = json.load(file)
            except json.JSONDecodeError as bad:
                raise UserError(
                    f"{path}, line {bad.lineno}: broken JSON ({bad.msg}); mend the file"
                ) from None
        yield from enumerate(rows, 1)
        return
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as bad:
                row = _BadRow(f"broken JSON ({bad.msg} at column {bad.colno})")
            yield number, row


def _arrow(path: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        if _suffix(path) == ".parquet":
            batches = pyarrow.parquet.ParquetFile(path).iter_batches()
        else:
            mapped = pyarrow.memory_map(str(path))
            try:
                batches = pyarrow.ipc.open_file(mapped).read_all().to_batches()
            except pyarrow.ArrowInvalid:  # not the file format: datasets writes streams
                batches = pyarrow.ipc.open_stream(mapped)
        for batch in batches:
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except pyarrow.ArrowException as bad:
        raise UserError(f"{path} cannot be read: {_one_line(bad)}; check the file") from None


def _hub_rows(spec: str, match: re.Match, split: str, cache_dir: str | None, near: str) -> _Rows:
    import datasets

    try:
        data = datasets.load_dataset(
            match["id"],
            match["config"],
            revision=match["revision"],
            split=match["split"] or split,
            cache_dir=cache_dir,
        )
    except Exception as bad:  # whatever fails in there is about the id or the network
        raise UserError(
            f"{spec} is no file here ({near}), and as a Hugging Face data set it cannot be loaded: "
            f"{_one_line(bad)}; check the name, config and split, or the network"
        ) from None
    return _Rows(spec, "row", iter(enumerate(data, 1)))
