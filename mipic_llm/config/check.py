"""Rules that tie several options together, without looking at any model. Ranges of single options
are at the fields. Each refusal is one line: what, where, what to do."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

from mipic_llm import launched
from mipic_llm.config.fields import nearest
from mipic_llm.config.points import parse_ladder
from mipic_llm.config.presets import OBJECTIVES
from mipic_llm.config.schema import Config, flatten
from mipic_llm.config.sources import entry_of_stages
from mipic_llm.errors import UserError

# fmt: off

STORES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "file", "databricks",
          "databricks-uc", "uc")  # of MLflow's own; others are plug-ins of its


def need(ok: bool, message: str) -> None:
    """Raise UserError(message) unless ok."""
    if not ok:
        raise UserError(message)


def check_store(uri: str) -> None:
    """UserError for what is no tracking URI: MLflow would make a folder of that name."""
    need(uri == "databricks" or re.match(r"[./~]|[\w+.-]+:", uri) is not None, "tracking.mlflow: "
         f"{uri!r} is no tracking URI; give auto, off, or a URI such as http://host:5000 or "
         "sqlite:///runs.db")
    scheme = uri.partition("://")[0].partition("+")[0]
    known = [*STORES, *(plugin.name for plugin in entry_points(group="mlflow.tracking_store"))]
    need(scheme == uri or scheme in known, f"tracking.mlflow: {uri!r}: MLflow has no store of kind "
         f"{scheme}{nearest([scheme], known)}; there are: {', '.join(known)}")


def check_registered(name: str | None) -> None:
    """UserError for a name that MLflow's registry refuses."""
    need(name is None or (name.strip() != "" and not {"/", ":"} & set(name)), "tracking.register: "
         f"{name!r} can be no name in MLflow's registry; give one without '/' and ':'")  # fmt: skip


def validate(c: Config, world_size: int | None = None, *, stage: bool = False) -> None:
    """Refuse everything that can be refused without the model. Raises UserError.

    world_size: ranks of the run; None reads WORLD_SIZE (the launchers set it), else 1. stage: of
    a run that has others beside it.
    """
    validate_sizes(c)
    world = launched.world_size() if world_size is None else world_size
    m, e, lora, batch = c.model, c.eval, c.lora, c.train.batch_size
    need(batch * world >= 2, f"train.batch_size is {batch} on {world} rank: no other sentence in "
         "the batch, so no negatives; give --train.batch_size 2 or more")
    if c.tracking.mlflow not in ("auto", "off", ""):
        check_store(c.tracking.mlflow)
    check_registered(c.tracking.register)
    need(bool(c.output_dir), "output_dir is empty; give --output_dir DIRECTORY")
    need(bool(m.name), "model.name is empty; give a directory or a Hugging Face id")
    need(bool(c.training), "data.train is empty; give files, or demo for the built-in text")
    for i, one in enumerate(c.stages):
        need(bool(one.training), f"entry {i + 1} of stages has no data; give train or sources")
    need(not c.stages or not c.train.max_steps, "stages have steps of their own; give "
         "--train.max_steps 0")
    need(c.data.positives == "each" or c.data.negatives_draw == "first",
         "data.positives is averaged and data.negatives_draw random, which draws among what a row "
         "has beside its anchor; give --data.negatives_draw first")
    need(c.data.positives == "each" or not c.data.validation_split, "data.positives is averaged "
         "and data.validation_split set, which cuts rows off by their first positive; give a file "
         "as --data.validation")
    need(bool(c.data.token_cache), "data.token_cache is empty; give a directory, auto or off")
    need(not e.best or e.every > 0, "eval.best needs evaluations; give --eval.every STEPS too")
    need(not e.patience or bool(e.best),
         "eval.patience needs a figure to watch; give --eval.best TASK/METRIC@DIM@LAYER")
    cut = c.data.validation_split
    need(cut < 1 or cut == int(cut), f"data.validation_split is {cut:g}; give a share below 1, or "
         "a whole number of rows")
    need(not e.every or bool(c.data.validation) or cut > 0,
         f"eval.every is {e.every} and data.validation is empty; give files, or --eval.every 0")
    need(not lora.rank or bool(lora.target_modules),
         "lora.target_modules is empty; give all-linear, or --lora.rank 0 to train everything")
    need(m.quantization == "none" or lora.rank > 0, f"model.quantization is {m.quantization} and "
         "lora.rank is 0: 4-bit weights cannot be trained; give --lora.rank 16")
    need(not lora.use_dora or lora.rank > 0,
         "lora.use_dora is true and lora.rank is 0; give --lora.rank 16")
    ways = {"model.fused": m.fused == "true", "model.liger": m.liger == "true",
            "train.compile": c.train.compile}  # fmt: skip
    need(sum(ways.values()) < 2, f"{' and '.join(k for k, on in ways.items() if on)} are on, and "
         "each fuses the same layers: give one of them")
    need(not (c.tracking.log_model or c.tracking.register) or find_spec("sentence_transformers"),
         "tracking.log_model and tracking.register write a model that sentence-transformers loads, "
         "and it is not installed: pip install sentence-transformers")
    t = c.teacher
    need(bool(t.name), "teacher.name is empty; give base, a model, a file of vectors, or none")
    need(t.name != "none" or not t.vector, f"teacher.vector is {t.vector:g} and there is no "
         "teacher; give --teacher.name base, a model or a file of vectors")
    weights = (x.teacher for x in c.of_stages())
    need(t.name == "none" or stage or any(
        x.relation + x.vector + x.scores + x.margin > 0 for x in weights
    ), f"teacher.name is {t.name}, and all weights of its terms are 0; give --teacher.relation 20")
    need(not m.attn.startswith("flash") or c.train.precision != "fp32", f"model.attn is {m.attn}, "
         "which has no fp32 form; give --train.precision bf16 or --model.attn sdpa")
    for i, own in enumerate(c.of_stages() if c.stages else ()):
        alone = own.replace(**{"stages": [], "data.train": ["demo"]})
        with entry_of_stages(i):
            validate(alone, world_size, stage=True)
            _no_idle_options(alone, c.stages[i].options)


# Terms that read the options of a section, or an option.
_READERS = {
    "sia.": {"sia", "sentences"}, "sia.sentences": {"sentences"}, "pic.": {"pic"},
    "pic.ladder": {"pic", "starbucks"}, "pic.checkpoints": {"pic", "starbucks"},
    "ese.": {"ese"}, "ese.temperature": {"ese", "2dmse"}, "mic.": {"mic_tokens", "mic_texts"},
    "objective.alpha": {"sia"}, "objective.wide_weight": {"sia"},
}
# An option that says how something is done, and the one that says whether it is.
_OF = {
    "objective.false_negative_rule": "objective.false_negative_margin",
    "teacher.vector_loss": "teacher.vector", "teacher.relation_temperature": "teacher.relation",
    "teacher.relation_dims": "teacher.relation", "teacher.layers": "teacher.relation",
    "pic.links_per_step": "pic.enabled", "pic.weight": "pic.enabled", "pic.head": "pic.enabled",
    "eval.points": "eval.every",
}


def _no_idle_options(c: Config, asked: dict[str, Any]) -> None:
    """Refuse what a stage asks for and nothing in it would read."""
    for key, value in asked.items():
        why = _idle(c, key, value)
        need(not why, f"options has {key}, {why}" + (
            "; give teacher.name beside stages" if why.endswith("no teacher") else "; leave it out"
        ))  # fmt: skip


def _idle(c: Config, key: str, value: Any) -> str:
    """Why nothing reads an option, in words; empty where something does."""
    form, taught = OBJECTIVES[c.objective.name], c.teacher.name != "none"
    terms = set(form.terms)
    readers = _READERS.get(key) or _READERS.get(f"{key.partition('.')[0]}.", terms)
    ladder = key in ("pic.ladder", "pic.checkpoints") and taught and c.teacher.layers == "ladder"
    weighs = key != "objective.dim_weights" or form.widths == "all"
    if not (weighs and readers & terms or ladder):
        return f"which objective.name {c.objective.name} does not read"
    distils = key.startswith(("teacher.relation", "teacher.vector", "teacher.layers"))
    if distils and value and not taught:
        return "and there is no teacher"
    whether = _OF.get(key)
    asked = flatten(c)[whether] if whether else True
    return "" if asked else f"which says nothing while {whether} is {str(asked).lower()}"


def idle_flags(c: Config) -> list[str]:
    """A line for each flag that nothing in this run, or in any stage of it, reads. pic.ladder and
    pic.checkpoints say what is scored, whatever is trained; a teacher's relation reads sia.memory.
    """
    known, lines, stages = flatten(c), [], c.of_stages()
    read = ["pic.ladder", "pic.checkpoints", *["sia.memory"] * (c.teacher.name != "none")]
    for key, origin in c.origins.items():
        if origin != "flag" or key in read:
            continue
        whys = [_idle(own, key, known[key]) for own in stages]
        if all(whys):
            lines.append(f"--{key} changes nothing here: it is an option {whys[0]}"
                         if whys[0].startswith("which") else
                         f"--{key} changes nothing here, for there is no teacher (--teacher.name)")
    return lines


def validate_sizes(c: Config) -> None:
    """Check dims, layers, ratios and ladder against one another, as far as they are set."""
    o, s, terms = c.objective, c.sia, OBJECTIVES[c.objective.name].terms
    dims, weights, layers, ratios = o.dims, o.dim_weights, s.layers, s.ratios
    need(not o.tau_learnable or "mrl" in terms, f"objective.tau_learnable: {o.name} has no mrl "
         "term; leave it out")
    if dims is not None:
        _rising("objective.dims", dims)
        need(len(dims) > 1 or not {"sia", "pic", "2dmse", "mic_texts"} & set(terms),
             f"objective.dims is {dims}: {o.name} needs a narrower prefix too; give "
             f"--objective.dims {max(1, dims[-1] // 2)},{dims[-1]} or --objective.name simcse")
    if weights is not None:
        need(all(w >= 0 for w in weights) and sum(weights) > 0,
             f"objective.dim_weights is {weights}; weights are 0 or more, one above 0")
        need(dims is None or len(dims) == len(weights),
             f"objective.dim_weights has {len(weights)} values, objective.dims has "
             f"{len(dims or ())}; give as many, or --objective.dim_weights none for equal weights")
    known = ["query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"]
    need(set(o.directions) <= set(known) and "query_to_doc" in o.directions,
         f"objective.directions is {o.directions}; give query_to_doc and any of {known[1:]}")
    need("doc_to_doc" not in o.directions or "doc_to_query" in o.directions,
         "objective.directions has doc_to_doc, what a document finds among documents alone: it has "
         "no right answer there; add doc_to_query")
    if layers is not None:
        _rising("sia.layers", layers)
        need(s.layers_per_step <= len(layers), f"sia.layers_per_step is {s.layers_per_step}, "
             f"sia.layers has {len(layers)}; give 0 for all")
    if c.mic.layers is not None:
        _rising("mic.layers", c.mic.layers)
    if c.teacher.dims is not None:
        _rising("teacher.dims", c.teacher.dims)
        need(dims is None or c.teacher.dims[-1] <= dims[-1], f"teacher.dims has "
             f"{c.teacher.dims[-1]}, above the full width; give prefixes of objective.dims")
    if ratios is not None:
        need(all(0 < r <= 1 for r in ratios) and sorted(ratios) == ratios,
             f"sia.ratios is {ratios}; they must be in (0, 1] and never fall")
        need(dims is None or len(ratios) == len(dims) - 1,
             f"sia.ratios has {len(ratios)} values, objective.dims has {len(dims or [0]) - 1} "
             "truncated prefixes; give as many, or --sia.ratios none to derive them")
    points = parse_ladder(c.pic.ladder or [])  # refused in any case where it does not rise
    if c.pic.ladder is not None and "pic" in terms and c.pic.enabled:
        need(len(points) > 1, "pic.ladder needs two points or more; give --pic.ladder none to "
             "derive it or --pic.enabled false")
        strangers = " ".join(str(p) for p in points if dims and p.dim not in dims)
        need(not strangers, f"pic.ladder has {strangers}, not among objective.dims {dims}; give "
             "--pic.ladder none to derive it")
        need(c.pic.links_per_step < len(points), f"pic.links_per_step is {c.pic.links_per_step}, "
             f"the ladder has {len(points) - 1} links; give 0 for all")
    need("pic" not in terms or s.relation or s.geometry or c.pic.enabled, "sia.relation, "
         "sia.geometry and pic.enabled are all false: that is mrl; give --objective.name mrl")


def _rising(key: str, values: list[int]) -> None:
    ok = bool(values) and values[0] > 0 and all(a < b for a, b in pairwise(values))
    need(ok, f"{key} is {values}; give positive numbers in ascending order, each once")
