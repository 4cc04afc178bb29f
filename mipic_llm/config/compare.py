"""May a run go on under another configuration? Each option is one of three kinds.

Of no matter: what the machine or this start decides. May change: takes effect from the next step on
and is recorded. All others decide what is trained, and must be equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from mipic_llm.config.fields import Section
from mipic_llm.config.schema import OPTIONS, Config, flatten
from mipic_llm.config.sources import SourceConfig
from mipic_llm.errors import UserError


def _keys(text: str) -> frozenset[str]:
    """Options by name; `section.*` names all of a section."""
    words = text.split()
    found = {key for key in OPTIONS for w in words if key == w or (
        w.endswith(".*") and key.startswith(w[:-1]))}  # fmt: skip
    assert all(w in OPTIONS or w.endswith(".*") for w in words), text
    return frozenset(found)


NO_MATTER = _keys("""
    recipe output_dir overwrite ds_config model.trust_remote_code data.cache_dir data.check
    data.stream data.token_cache
    train.resume train.selfcheck tracking.mlflow
""")
MAY_CHANGE = _keys("""
    model.attn model.fused model.liger data.validation data.balance_tokens
    train.chunk_size train.chunk_tokens train.batch_size sia.memory sia.kernels
    train.length_groups train.epochs train.max_steps train.learning_rate train.head_learning_rate
    train.min_learning_rate_ratio train.schedule train.decay_ratio train.warmup_ratio
    train.weight_decay train.max_grad_norm
    train.gradient_checkpointing train.compile train.save_every train.keep_checkpoints
    train.log_every eval.* export.* tracking.experiment tracking.run_name tracking.log_model
    tracking.register tracking.system_metrics
""") - {"eval.symmetric_prompt"}  # also before scored pairs
# What these say is compared by content: the rows that were read, the base's own files.
DATA = _keys("""
    data.train data.negatives data.positives data.on_bad_rows data.ignore_columns data.score_column
    data.label_column data.mixture_temperature data.validation_split
""")
BASE = _keys("model.name model.revision model.adapter")
TEACHER = _keys("teacher.name teacher.revision")


class Change(NamedTuple):
    """An option that has another value from now on."""

    key: str
    old: object
    new: object

    def __str__(self) -> str:
        return f"{self.key} {_shown(self.old)} -> {_shown(self.new)}"


def compare(old: Config, new: Config, same: dict[str, bool | None]) -> list[Change]:
    """What changes from an interrupted run's resolved configuration to this one's.

    same: whether "rows", "base" and "teacher" are those of then by content; None = not known, then
    their names are compared. Raises UserError naming every difference that may not be.
    """
    # Where rows lie is of no matter where they are known to be the same.
    before, now = map(settings_of if same["rows"] else flatten, (old, new))
    by_content = {"rows": DATA, "base": BASE, "teacher": TEACHER}
    known = frozenset().union(*(keys for k, keys in by_content.items() if same[k] is not None))
    found = [Change(k, before[k], now[k]) for k in OPTIONS if before[k] != now[k]]
    refused = [c for c in found if c.key not in NO_MATTER | MAY_CHANGE | known]
    wrong = [line for c in refused for line in _apart(*c)]
    names = {
        "rows": "data.train (other rows)",
        "base": "model.name (other files)",
        "teacher": "teacher.name (other vectors)",
    }
    wrong += [names[k] for k, equal in same.items() if equal is False]
    if wrong:
        raise UserError(
            f"train.resume: what is trained would change: {'; '.join(wrong)}; give the values of "
            "the checkpoint's config.yaml, or start anew in another output_dir"
        )
    return [c for c in found if c.key not in NO_MATTER]


def settings_of(config: Config) -> dict[str, Any]:
    """Every option by its name; of sources and stages what they say beside which rows they have."""
    row = flatten(config)
    stages = [stage.model_copy(update={"train": [], "sources": _settings(stage.sources)})
              for stage in row["stages"]]  # fmt: skip
    return row | {"data.sources": _settings(row["data.sources"]), "stages": stages}


def _settings(sources: Sequence[SourceConfig]) -> list[str]:
    """What they say beside which rows they have."""
    return [f"{one.name or ''} {one.changes()} {one.in_batch}" for one in sources]


def _apart(name: str, old: object, new: object) -> list[str]:
    """Where two values differ, a line for each place; name: of the option or of a part of it."""
    if old == new:
        return []
    if isinstance(old, Section) and isinstance(new, Section):
        parts = [(f"{name}: {k}", getattr(old, k), getattr(new, k)) for k in type(old).model_fields]
    elif isinstance(old, dict) and isinstance(new, dict):
        parts = [(f"{name}: {k}", old.get(k), new.get(k)) for k in {**old, **new}]
    elif name.endswith(("stages", "sources")) and isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            return [f"{name}: {len(old)} of them -> {len(new)}"]
        head, colon, last = name.rpartition(": ")
        pairs = zip(old, new, strict=True)
        parts = [(f"{head}{colon}entry {i} of {last}", *p) for i, p in enumerate(pairs, 1)]
    else:
        return [f"{name} {_shown(old)} -> {_shown(new)}"]
    return [line for part in parts for line in _apart(*part)]


def _shown(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}.."
