"""Rows of other shapes as rows with the columns that are known, of Python's own values."""

from __future__ import annotations

import math
from typing import Any

from mipic_llm.data.read.cells import BadRow, negative_columns
from mipic_llm.data.read.readers import Numbered

ANCHORS = ("anchor", "query", "question")
LABELS = ("labels", "label")


def shaped(rows: Numbered) -> Numbered:
    """Numbered rows, those of another shape among them as they would be written with columns:

    [anchor, positive, negative ..]                 texts alone
    {"set": [text ..]}                              texts that mean the same
    {query, doc: [..], labels: [1, 0 ..]}           which texts are right; label, any name of doc
    """
    for number, row in rows:
        if type(row) is list and _texts(row) and len(row) > 1:
            anchor, positive, *negatives = row
            row = {"anchor": anchor, "positive": positive}
            row |= {"negatives": negatives} if negatives else {}
        elif type(row) is dict and _texts(row.get("set")):
            row = _from_set(row["set"])
        elif type(row) is dict and (name := next((n for n in LABELS if n in row), None)):
            row = _from_labels(row, name)
        yield number, row


def _from_set(texts: list[str]) -> Any:
    anchor, *positives = texts
    if not positives:
        return BadRow("set holds one text, two or more expected")
    return {"anchor": anchor, "positives": positives}


def _from_labels(row: dict, name: str) -> Any:
    """Where a list of numbers stands beside an anchor and one list of as many texts, which are not
    all negatives."""
    labels = row[name] if isinstance(row[name], list) else []
    beside = [key for key, cell in row.items() if _texts(cell) and len(cell) == len(labels)]
    anchor = next((key for key in ANCHORS if isinstance(row.get(key), str)), None)
    numbers = all(isinstance(label, int | float) for label in labels)
    if anchor is None or len(beside) != 1 or not numbers or negative_columns(row):
        return row
    if not {*labels} <= {0, 1}:
        return BadRow(
            f"{name} says by 0 and 1 which texts of {beside[0]} are right, not by "
            f"{str(max(labels))[:9]}; numbers of how well each one answers are scores"
        )
    texts = list(zip(row[beside[0]], labels, strict=True))
    right = [text for text, label in texts if label]
    if not right:
        return BadRow(f"{name}: none of the texts of {beside[0]} is right")
    wrong = [text for text, label in texts if not label]
    return {anchor: row[anchor], "positives": right, "negatives": wrong}


def _texts(cell: Any) -> bool:
    return isinstance(cell, list) and bool(cell) and all(isinstance(one, str) for one in cell)


def plain_row(row: Any) -> Any:
    """A row whose cells numpy or torch made (a formatted Dataset, `to_dict("records")` of pandas),
    as Python has it."""
    if isinstance(row, dict) and any(hasattr(cell, "tolist") for cell in row.values()):
        return {name: plain_cell(cell) for name, cell in row.items()}
    return row


def plain_cell(cell: Any) -> Any:
    """A cell of pandas as Python has it: arrays are lists, what is missing is None."""
    if type(cell).__name__ in ("NAType", "NaTType"):
        return None
    cell = cell.tolist() if hasattr(cell, "tolist") else cell
    return None if isinstance(cell, float) and math.isnan(cell) else cell
