"""`mipic compare`: runs, models and finished evaluations, each against the first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mipic_llm.config import Config
from mipic_llm.config.evaluating import evaluate_flags
from mipic_llm.errors import UserError
from mipic_llm.evaluation.judge import evaluate
from mipic_llm.evaluation.open import free
from mipic_llm.model.directory import read_model
from mipic_llm.model.files import exported
from mipic_llm.report import Evaluation, compare_two, read_evaluation, read_run
from mipic_llm.report.comparison import Comparison
from mipic_llm.report.versus import as_text, write_page
from mipic_llm.runtime import ranks as dist
from mipic_llm.runtime.ranks import say
from mipic_llm.runtime.start import start
from mipic_llm.tracking import follow


def compare(config: Config, things: Sequence[str]) -> list[Comparison]:
    """Each thing against the first one; a training run alone: after against before. All ranks call.

    things: output directories of training runs (their figures after training), of `mipic evaluate`,
    or models. With data (config.extra.data, .suite) runs and models are evaluated on it, all at one
    length. Files go to config.output_dir (comparison.md, .html, .png, .json), the evaluations of
    models below it. Raises UserError where there is nothing to compare, or rows differ.
    """
    flags, out = config.extra, Path(config.output_dir)
    fresh, names = bool(flags.data or flags.suite), _names(things)
    kinds = {thing: _kind(thing) for thing in things}
    for thing, kind in kinds.items():
        if kind == "model" and not fresh:
            raise UserError(
                f"{thing}: no finished run or evaluation (it has no scores.jsonl); to compare "
                "models name what to score them on: --data FILE_OR_FOLDER .., or --suite"
            )
    if len(things) == 1:
        if kinds[things[0]] != "run":
            raise UserError(
                f"{things[0]}: nothing to compare it with; give two or more of runs, evaluations "
                "and models (a training run alone: after against before)"
            )
        first, *others = read_run(things[0])
    else:
        live = [t for t in things if kinds[t] == "model" or (fresh and kinds[t] == "run")]
        told = config.origins.get("data.max_length") == "flag"
        length = config.data.max_length if told or not live else _length(config, live)
        first, *others = [
            _evaluated(config, thing, name, out / name, length) if thing in live
            else read_evaluation(thing, name, "after" if kinds[thing] == "run" else "")
            for thing, name in zip(things, names, strict=True)
        ]  # fmt: skip
    found = [_checked(compare_two(first, other)) for other in others]
    if dist.rank() == 0:
        write_page(found, [first, *others], out)
        _track(config, things, [first, *others], found, out)
    return found


def _track(
    config: Config, things: Sequence[str], of: Sequence[Evaluation], found: Sequence[Comparison],
    out: Path,
) -> None:  # fmt: skip
    """The differences, the page and the verdict to MLflow, below the training of the newest run
    that is compared: things after the first one, else that."""
    names = [str(e.about.get("model") or "") for e in of]  # what the evaluations are of
    pairs = [*zip(things, names, strict=False)]
    models = [place for pair in (*pairs[1:], *pairs[:1]) for place in pair if place]
    flags = config.extra
    told = {"compared": list(things), "data": list(map(str, flags.data))} | {
        key: getattr(flags, key) for key in ("suite", "layers", "dims", "bits")}  # fmt: skip
    tracker = follow(config, "compare", models, out, told)
    for one in found:
        group = "difference" if len(found) == 1 else f"difference {one.new}"
        tracker.evaluation({f"{group}/{d.name}": d.span.gap
                            for d in one.differences}, 0)  # fmt: skip
    tracker.describe(as_text(found, markdown=True))
    for name in ("html", "md", "png", "json"):
        tracker.artifact(out / f"comparison.{name}")
    tracker.close()
    if line := tracker.where():
        say(line)


def _names(things: Sequence[str]) -> list[str]:
    """As few last parts of each path as tell them apart, without adapter and merged, and of a
    study's trial without scores0: mipic/seed1 is one part."""
    ours = re.compile(r"(adapter|merged|scores\d+)?")
    whole = [re.sub(r"/(seed\d+)(?=/|$)", r"-\1", thing) for thing in things]
    parts = [[p for p in t.split("/") if not ours.fullmatch(p)] or [t] for t in whole]
    names = ["-".join(p[-1:]) for p in parts]
    for depth in range(2, max(map(len, parts)) + 1):
        names = ["-".join(p[-depth:]) if names.count(n) > 1 else n
                 for n, p in zip(names, parts, strict=True)]  # fmt: skip
    if len(set(names)) < len(names):
        names = [f"{n + 1}-{name}" for n, name in enumerate(names)]
    return [re.sub(r"[^\w.-]", "-", name) for name in names]


def _kind(thing: str) -> str:
    """run, evaluation or model. Raises UserError for an unfinished run."""
    path = Path(thing)
    scored = (path / "scores.jsonl").is_file()
    if not (path / "config.yaml").is_file():
        return "evaluation" if scored else "model"
    if scored or exported(path):
        return "run"
    raise UserError(f"{thing}: the run has no scores and no exported model yet")


def _export(run: Path) -> str:
    return str(exported(run) or run)


def _length(config: Config, things: Sequence[str]) -> int | None:
    """Tokens of a text for all of them: the fewest that one is made for."""
    m, found = config.model, {}
    for thing in things:
        source = read_model(_export(Path(thing)), revision=None,
                            trust_remote_code=m.trust_remote_code)  # fmt: skip
        found[thing] = source.max_length
    if len(set(found.values())) < 2:
        return None
    least = min(found.values())
    say(
        f"note: texts are cut at {least} tokens for all, the fewest of "
        + ", ".join(f"{n} ({t})" for t, n in found.items())
        + "; --data.max_length sets another"
    )
    return least


def _evaluated(config: Config, thing: str, name: str, out: Path, length: int | None) -> Evaluation:
    """The model, or a run's, scored now."""
    flags, values = config.extra, {"output_dir": str(out)}
    values |= {} if length is None else {"data.max_length": length}
    extra = evaluate_flags(flags.data, model=_export(Path(thing)), suite=flags.suite,
                           layers=flags.layers, dims=flags.dims, bits=flags.bits)  # fmt: skip
    start()
    changed = config.replace("flag", **values)
    evaluate(changed.told(changed, extra=extra))
    free()
    dist.barrier()
    return read_evaluation(out, name)


def _checked(found: Comparison) -> Comparison:
    """UserError where not one figure can be compared."""
    if not any(d.span.gap == d.span.gap for d in found.differences):
        why = "; ".join(found.notes) or "no task, metric and size is in both"
        raise UserError(f"{found.old} and {found.new} cannot be compared: {why}")
    return found
