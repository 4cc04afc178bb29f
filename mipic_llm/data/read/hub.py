"""Data sets of a Hugging Face hub: rows, or the three tables of a search."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import chain
from typing import Any

from mipic_llm.config.files import legal_path
from mipic_llm.data.read.beir import JUDGED, Tables
from mipic_llm.data.read.find import HUB_ID, nearest_file
from mipic_llm.data.read.readers import Part
from mipic_llm.data.read.shapes import plain_row
from mipic_llm.errors import UserError, one_line
from mipic_llm.hub import ask_hub


def from_hub(
    spec: str, split: str, cache_dir: str | None = None, stream: bool = False
) -> Part | Tables:
    """Rows of `id:config@revision[split]`; where they are judgements in BEIR's layout (query-id,
    corpus-id, score), the tables with the texts too: the configs corpus and queries beside them, or
    of the id without "-qrels". stream: nothing is downloaded first.

    Raises UserError for what cannot be loaded.
    """
    match = HUB_ID.fullmatch(spec)
    assert match is not None, spec
    name, config, wanted = match["id"], match["config"], match["split"] or split
    ask_hub()

    def load(name: str, config: str | None, revision: str | None, **more: Any) -> Any:
        import datasets

        more |= {"streaming": True} if stream else {}
        return datasets.load_dataset(name, config, revision=revision, cache_dir=cache_dir, **more)

    def texts(table: str) -> list[Part]:
        """That of the same language: en-qrels goes with en-corpus."""
        kind = re.sub(r"-?(qrels|default)$", "", config or "")
        where = name.removesuffix("-qrels")
        own = f"{kind}-{table}" if kind else table
        found = load(where, own, match["revision"] if where == name else None)
        if isinstance(found, Mapping):
            found = found[wanted if wanted in found else next(iter(found))]
        return [_part(f"{where}:{own}", found)]

    try:
        try:
            data = load(name, config, match["revision"], split=wanted)
        except ValueError:
            if config or not _has_qrels(name, match["revision"]):
                raise
            data = load(name, "qrels", match["revision"], split=wanted)
        part = _part(spec, data)
        first = next(part.rows, None)
        part = part._replace(rows=chain([first] if first else [], part.rows))
        if not first or not set(JUDGED) <= first[1].keys():
            return part
        return Tables(texts("corpus"), texts("queries"), [part])
    except UserError:
        raise
    except Exception as bad:  # whatever fails in there is about the id or the network
        near = nearest_file(legal_path(spec))
        raise UserError(
            f"{spec} is no file here ({near}), and as a Hugging Face data set it cannot be loaded: "
            f"{one_line(bad)}; check the name, config and split (ID:CONFIG[SPLIT]), or the network"
        ) from None


def _part(name: str, data: Any) -> Part:
    return Part(name, "row", iter(enumerate(map(plain_row, data), 1)))


def _has_qrels(name: str, revision: str | None) -> bool:
    """Whether a data set without a default config has judgements. UserError where it has the texts
    of a search without any."""
    import datasets

    configs = set(datasets.get_dataset_config_names(name, revision=revision))
    texts = {"corpus", "queries"} <= configs
    if texts and not configs & {"qrels", "default"}:
        raise UserError(
            f"{name} has the texts of a search and no judgements; name the data set that has them "
            f"(BEIR's own: {name}-qrels), its texts are found"
        )
    return texts and "qrels" in configs
