"""The model card (README.md) of an export: what it is, how to use it, its figures at every size,
what it was trained on and by which command. Its head is made by huggingface_hub; the figures stand
there as a model-index. Nothing is written that the run did not record.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mipic_llm.errors import UserError
from mipic_llm.report import (
    before_and_after,
    families_of,
    families_table,
    index_of,
    label,
    markdown_table,
)
from mipic_llm.report.paired import kind_of
from mipic_llm.types import Point, Score

if TYPE_CHECKING:
    from mipic_llm.export.portable import EmbeddingSpec

_VERSIONS = ("mipic_llm", "python", "torch", "transformers", "peft", "tokenizers", "deepspeed",
             "sentence-transformers")  # fmt: skip
_TASKS = {"STS": "sentence-similarity", "retrieval": "text-retrieval",
          "classification": "text-classification", "pairs": "text-classification",
          "task": "feature-extraction"}  # fmt: skip
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
NOT_RUN = "<!-- not run -->"  # takes the place of the line that says that the snippet was run
PATH = "PATH"  # in the snippet, for wherever the model lies


class Facts(NamedTuple):
    """What a run recorded. name: of its directory. data: name, rows and digest of each source.
    scores and before: figures after and before training; verdict: sentences on the difference."""

    name: str = "model"
    command: str | None = None
    versions: tuple[tuple[str, str], ...] = ()
    data: tuple[dict[str, Any], ...] = ()
    scores: tuple[Score, ...] = ()
    before: tuple[Score, ...] = ()
    verdict: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()  # changes of families of tasks; new queries on old documents


def facts_of(run: Path) -> Facts:
    """From environment.json, scores.jsonl and comparison.json of an output directory, as far as
    they are there."""
    try:
        told = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        told = {}
    try:
        before, after = before_and_after(run / "scores.jsonl")
    except UserError:  # no validation, or rows that are no scores
        before, after = [], []
    try:
        (found,) = json.loads((run / "comparison.json").read_text(encoding="utf-8"))
        verdict = tuple(str(line) for line in [*found["verdict"], *found["notes"]])
        tables = families_table(families_of(found), markdown=True), index_of(run, markdown=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError):
        verdict, tables = (), ()
    versions = tuple((name, str(told[name])) for name in (*_VERSIONS, "commit") if told.get(name))
    return Facts(run.resolve().name, told.get("command"), versions, tuple(told.get("data") or ()),
                 tuple(after), tuple(before), verdict,
                 tuple(filter(None, tables)))  # fmt: skip


def interval(score: Score) -> tuple[float, float] | None:
    """95 % interval of a Spearman correlation of n independent pairs, by Fisher's z with the
    variance (1 + r^2 / 2) / (n - 3) of Bonett and Wright (2000). None for other metrics."""
    if not score.metric.endswith("spearman") or score.n < 10 or not abs(score.value) < 1:
        return None
    z, half = math.atanh(score.value), 1.96 * math.sqrt((1 + score.value**2 / 2) / (score.n - 3))
    return math.tanh(z - half), math.tanh(z + half)


def snippet(spec: EmbeddingSpec) -> str:
    """Python that loads the model from PATH and encodes; `run_snippet` of verify.py runs it."""
    options = ", trust_remote_code=True" if spec.trust_remote_code else ""
    kinds = [spec.prompts.get(kind, "") for kind in ("query", "document")]
    as_query, as_document = (f', prompt_name="{kind}"' * bool(any(kinds))
                             for kind in ("query", "document"))  # fmt: skip
    lines = [
        "from sentence_transformers import SentenceTransformer", "",
        f'model = SentenceTransformer("{PATH}"{options})',
        f'queries = model.encode(["How do I reset my password?"]{as_query})',
        'documents = model.encode(["Open the settings and choose a new password.",',
        f'                          "The train leaves at seven."]{as_document})',
        f"print(queries @ documents.T)  # cosines: vectors of {spec.width} channels, length 1",
    ]  # fmt: skip
    if small := [dim for dim in spec.dims if dim < spec.width]:
        lines += [
            "", "# Fewer channels. The cut comes after the model's own normalisation: ask for "
            "length 1 again.",
            'small = model.encode(["Open the settings and choose a new password."]'
            f"{as_document},",
            f"                     truncate_dim={small[0]}, normalize_embeddings=True)",
        ]  # fmt: skip
    return "\n".join(lines)


def model_card(spec: EmbeddingSpec) -> str:
    """README.md with its head. Depends on the spec alone, so that the same weights give the same
    bytes."""
    from huggingface_hub import EvalResult, ModelCardData

    facts = spec.facts or Facts()
    name, license_of_base = spec.base_name, _license(spec)
    scores = [s for s in facts.scores if _inside(s, spec) and math.isfinite(s.value)]
    datasets = [d["name"] for d in facts.data if hub_id(d["name"])]
    head = ModelCardData(
        model_name=facts.name, library_name="sentence-transformers",
        pipeline_tag="sentence-similarity", base_model=name, datasets=datasets or None,
        tags=["sentence-transformers", "sentence-similarity", "feature-extraction", "matryoshka",
              "mipic_llm"],
        eval_results=[EvalResult(
            task_type=_TASKS[kind_of(other.metric for other in scores if other.task == s.task)],
            dataset_type=s.task, dataset_name=s.task, metric_type=s.metric,
            metric_value=round(s.value, 6),
            metric_name=f"{label(s.metric)}, {s.point.dim} channels, layer {s.point.layer}",
            metric_args={"layer": s.point.layer, "dim": s.point.dim, "n": s.n} | (
                {"interval_95": [round(v, 6) for v in found]} if (found := interval(s)) else {}),
        ) for s in scores] or None,
        **license_of_base,
    )  # fmt: skip
    dims = ", ".join(map(str, spec.dims))
    about = f"It was trained with mipic_llm ({spec.objective}), starting from "
    if spec.objective == "none":
        about = "It was written by mipic_llm, without a training, from "
    about += f"[{name}](https://huggingface.co/{name})" if name else (
        f"a model directory named `{Path(spec.base_model).name}`")  # fmt: skip
    about += f" at {spec.commit}" if spec.commit else ""
    told = license_of_base.get("license")
    sections = [
        f"# {facts.name}\n\nA text-embedding model with {spec.n_layers} layers and vectors of "
        f"{spec.width} channels. Each of these prefixes of a vector is usable: {dims}. {about}.",
        f"## Use\n\n```python\n{snippet(spec)}\n```\n\n{PATH} is this directory, or the model's id "
        f"on the hub. {NOT_RUN}\nPooling: {spec.pooling}{_left_out(spec)}. Tokens read: "
        f"{spec.max_seq_length} at most." + _prompts(spec),
        *spec.notes,
        *_tables(spec, scores),
        *(["## Before and after\n\nOf the whole run, with 95 % intervals (paired bootstrap over "
           "the validation rows):\n\n" + "\n".join(f"- {line}" for line in facts.verdict)
           + "".join(f"\n\n{table}" for table in facts.tables)]
          if scores and facts.verdict else []),
        "## Training\n\n" + _training(facts),
        "## Licence\n\n" + (f"The base says: {told}." if told else "The base's files state none.")
        + " Whether the training data allows what you plan is for you to check.",
    ]  # fmt: skip
    return f"---\n{head.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n"


def hub_id(name: str) -> bool:
    """Whether a source's name is an id of the hub, not a file."""
    return bool(HUB_ID.fullmatch(name)) and not Path(name).exists() and "." not in name[-7:]


def _inside(score: Score, spec: EmbeddingSpec) -> bool:
    """Whether this model has the size."""
    return score.point.layer <= spec.n_layers and score.point.dim <= spec.width


def _license(spec: EmbeddingSpec) -> dict[str, str]:
    """What the base's own card says of its licence, where that card lies here."""
    from huggingface_hub import ModelCard, try_to_load_from_cache

    path: Any = Path(spec.base_model) / "README.md"
    if not Path(spec.base_model).is_dir():
        path = try_to_load_from_cache(spec.base_model, "README.md", revision=spec.revision)
    if not isinstance(path, str | Path) or not Path(path).is_file():
        return {}
    try:
        told = ModelCard.load(path, ignore_metadata_errors=True).data.to_dict()
    except Exception:  # a card of a form nobody writes
        return {}
    keys = ("license", "license_name", "license_link")
    return {key: str(told[key]) for key in keys if told.get(key)}


def _left_out(spec: EmbeddingSpec) -> str:
    if spec.include_prompt or not any(spec.prompts.values()):
        return ""
    return ", without the tokens of prompts (programs that pool all tokens give other vectors)"


def _prompts(spec: EmbeddingSpec) -> str:
    found = {name: text for name, text in spec.prompts.items() if text}
    if not found:
        return " No prompts."
    return "\n\nPrompts:\n\n" + "\n".join(f"- {k}: `{v!r}`" for k, v in found.items())


def _tables(spec: EmbeddingSpec, scores: Sequence[Score]) -> list[str]:
    """Layer x dim, x 100, for each task and metric; the change by training in brackets."""
    old = {s[:3]: s.value for s in (spec.facts or Facts()).before}
    blocks = []
    for task, metric in dict.fromkeys((s.task, s.metric) for s in scores):
        chosen = {s.point: s for s in scores if (s.task, s.metric) == (task, metric)}
        dims = sorted({point.dim for point in chosen})
        rows = [["layer", *(f"{dim} channels" for dim in dims)]]
        for layer in sorted({point.layer for point in chosen}):
            found = [chosen.get(Point(layer, d)) for d in dims]
            rows.append([str(layer), *(_cell(s, old) for s in found)])
        n = next(iter(chosen.values())).n
        blocks.append(f"### {task}: {label(metric)} x 100, {n:,} rows\n\n{markdown_table(rows)}")
    if not blocks:
        return []
    how = "After training"
    how += ", with the change by training in round brackets" if old else ""
    if any(interval(s) for s in scores):
        how += ("; in square brackets the 95 % interval of a figure by itself (Fisher's z). Sizes "
                "are scored on the same rows, so that differences are surer than that")  # fmt: skip
    return ["\n\n".join(["## Figures", how + ".", *blocks])]


def _cell(score: Score | None, old: dict[Any, float]) -> str:
    if score is None:
        return ""
    was, found = old.get(score[:3], math.nan), interval(score)
    change = f" ({100 * (score.value - was):+.2f})" if math.isfinite(was) else ""
    span = f" [{100 * found[0]:.1f}, {100 * found[1]:.1f}]" if found else ""
    return f"{100 * score.value:.2f}{change}{span}"


def _where(text: str) -> str:
    """Without the name of a user's home; a container's user may have none."""
    home = os.path.expanduser("~")
    return text if home in ("~", "/") else text.replace(f"{home}/", "~/")


def _training(facts: Facts) -> str:
    rows = [["data", "rows", "digest (BLAKE2b of all rows)"]]
    rows += [[_where(d["name"]), f"{d['rows']:,}", f"`{d['digest']}`"] for d in facts.data]
    parts = [markdown_table(rows, ":---")] if facts.data else ["The run recorded no data."]
    if facts.command:
        parts.append(f"```sh\n{_where(facts.command)}\n```")
    if facts.versions:
        parts.append(", ".join(f"{name} {version}" for name, version in facts.versions) + ".")
    return "\n\n".join(parts)
