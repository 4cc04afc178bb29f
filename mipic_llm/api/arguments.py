"""Arguments of the API as what commands take, and the process around a call."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mipic_llm import launched
from mipic_llm.config import Config, from_settings
from mipic_llm.data.read.containers import NamedRows, rows_of
from mipic_llm.data.read.training import as_list
from mipic_llm.errors import UserError
from mipic_llm.quiet import quiet

_TURN = threading.RLock()
_VALIDATION = ("validation", "valid", "val", "dev")


def flat_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """{"train": {"epochs": 2}} and {"train.epochs": 2} as the latter."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        inner = value if isinstance(value, Mapping) else None
        flat |= {key: value} if inner is None else {f"{key}.{k}": v for k, v in inner.items()}
    return flat


def config_of(flat: Mapping[str, Any], extra: Any = None) -> Config:
    config = from_settings(flat)
    return config.told(config, extra=extra)


def listed(value: Any) -> list[Any]:
    """A sequence as a list; one name, number or object, as a list of it; None, as an empty one."""
    if value is None:
        return []
    single = isinstance(value, str | Path) or not isinstance(value, Iterable)
    return [value] if single else [*value]


def files_of(what: str, value: Any) -> list[str]:
    """Names of files, one or several. UserError for rows in memory."""
    found = listed(value)
    if strange := [one for one in found if not isinstance(one, str | Path)]:
        raise UserError(f"{what}: found {type(strange[0]).__name__}; give files or folders by name")
    return [str(one) for one in found]


def by_name(found: list[Any] | None) -> bool:
    return bool(found) and all(isinstance(one, str) for one in found or ())


def splits_of(sources: Sequence[Any]) -> list[NamedRows] | None:
    """The validation splits that DatasetDicts among the training data bring, if any."""
    found = []
    for n, source in enumerate(sources):
        split = next((s for s in _VALIDATION if isinstance(source, Mapping) and s in source), None)
        if split is None:
            continue
        from mipic_llm.evaluation.build import understood

        columns = list(next(iter(rows_of(source[split])), {}))
        if understood(columns):
            found.append(NamedRows(f"{split}-{n}" if n else split, source[split]))
        elif launched.first():
            print(f"note: data[{n}]: its {split} split has the columns {', '.join(columns)} and is "
                  "not used; evaluation understands none of them")  # fmt: skip
    return found or None


def tasks_of(data: Any) -> list[Any]:
    """Evaluation data: names of files stay, rows in memory get a name; an empty list is none."""
    sources = [] if isinstance(data, list | tuple) and not data else as_list(data)
    return [
        str(d) if isinstance(d, str | Path) else NamedRows(f"rows[{n}]", d)
        for n, d in enumerate(sources)
    ]


@contextmanager
def session() -> Iterator[None]:
    """As a command starts: quiet libraries. Afterwards the caller's random state is as it was, and
    what the run held is freed. Calls of several threads take turns: random states, the streams of
    output and the collectives are those of the process, and two runs would share them."""
    quiet()
    from mipic_llm.runtime import checkpoint

    if not _TURN.acquire(blocking=False):
        print("note: a call of mipic_llm is going on in another thread; this one waits for it "
              "(two at a time take two processes)", flush=True)  # fmt: skip
        _TURN.acquire()
    try:
        kept = checkpoint.rng_state()
        try:
            yield
        finally:
            checkpoint.set_rng_state(kept)
            gc.collect()
    finally:
        _TURN.release()
