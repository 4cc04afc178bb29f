"""Golden runs: losses, their parts and gradient norms of short trainings, kept in golden.json.

A change of the package that should not change a number must give these numbers again. A case is 5
optimizer steps in fp32 with one CPU thread: an objective, a model, one or two gloo ranks, a ZeRO
stage, and plain, chunked or packed forward passes.

    python tests/golden.py --check          trains every case and compares exactly: prints the
                                            largest relative difference of each case and key
    python tests/golden.py --write          trains every case and rewrites golden.json

Rewrite only on purpose, in a commit that says why the numbers change. Two recordings on one machine
agree to the last digit. Another CPU rounds otherwise: without AVX the largest relative difference
is 2.3e-5, at a gradient norm; tests/test_golden.py allows 5e-5.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from ranks import ROOT, run_ranks
from tiny_models import tiny_qwen3, tiny_xlmr

GOLDEN = ROOT / "tests" / "golden.json"
WORKER = ROOT / "tests" / "golden_worker.py"
STEPS = 5
ANCHORS = 8  # over all ranks
WORLDS = (1, 2)

# case -> key ("loss", "loss/mrl", "grad_norm" ...) -> one number per step
Numbers = dict[str, dict[str, list[float]]]

MODELS = {
    "quickstart": [
        "--model.name", "quickstart", "--objective.dims", "16,64,384", "--sia.layers", "2,4,6",
        "--pic.ladder", "16@2,64@4,384@6", "--data.max_length", "32", "--lora.rank", "8",
        "--train.learning_rate", "2e-4",
    ],
    "qwen3": ["--model.name", "{models}/qwen3"],
    "xlmr": ["--model.name", "{models}/xlmr"],
}  # fmt: skip
TINY = [
    "--objective.dims", "4,16,32", "--sia.layers", "1,2,4", "--pic.ladder", "4@1,16@2,32@4",
    "--data.max_length", "48", "--train.learning_rate", "5e-4",
]  # fmt: skip
OBJECTIVES = {
    "simcse": ["--objective.name", "simcse"],
    "mrl": ["--objective.name", "mrl", "--objective.dim_weights", "2,1,0.5"],
    "ese": ["--objective.name", "ese"],
    "2dmse": ["--objective.name", "2dmse"],
    "3dml": ["--objective.name", "3dml"],
    "starbucks": ["--objective.name", "starbucks"],
    "mic": ["--objective.name", "mic", "--mic.weight", "1"],
    "tau": ["--objective.name", "mrl", "--objective.tau_learnable", "true",
            "--train.head_learning_rate", "1e-2"],
    "balanced": [],
    "paper": ["--objective.preset", "paper"],
    "sampled": ["--sia.layers_per_step", "1", "--pic.links_per_step", "1"],
    "papersampled": ["--objective.preset", "paper", "--sia.layers_per_step", "2",
                     "--pic.links_per_step", "1", "--objective.alpha", "0.4"],
}  # fmt: skip
PASSES = {
    "plain": [],
    "onepass": ["--train.length_groups", "false"],
    "chunks": ["--train.chunk_size", "5"],
    "tokens": ["--train.chunk_tokens", "160", "--train.gradient_checkpointing", "true"],
    "packed": ["--model.attn", "varlen"],
    "packedchunks": ["--model.attn", "varlen", "--train.chunk_size", "7"],
    "dropout": ["--model.dropout", "0.1"],
    "dropoutchunks": ["--model.dropout", "0.1", "--train.chunk_size", "5"],
}
FULL, LORA = ["--lora.rank", "0"], ["--lora.rank", "4"]  # MODELS may say otherwise

# objective, model, full or LoRA (quickstart: LoRA always), passes, ZeRO stage on 1 and on 2 ranks
# (-: not trained on so many); * is trained by tests/test_golden.py too, on two ranks
TABLE = """
    simcse        quickstart  lora  plain          1  -
    mrl           quickstart  lora  chunks         -  1
    ese           quickstart  lora  plain          1  1
    2dmse         quickstart  lora  plain          0  -
    balanced      quickstart  lora  plain          1  1  *
    balanced      quickstart  lora  chunks         2  -
    balanced      quickstart  lora  packed         1  -
    paper         quickstart  lora  plain          1  -
    paper         quickstart  lora  tokens         -  2
    sampled       quickstart  lora  plain          1  3
    simcse        qwen3       full  chunks         1  2  *
    simcse        qwen3       lora  packed         0  1
    mrl           qwen3       full  plain          1  1
    mrl           qwen3       lora  packedchunks   1  3  *
    ese           qwen3       full  packed         1  0  *
    ese           qwen3       lora  chunks         2  1
    2dmse         qwen3       full  packedchunks   1  1
    balanced      qwen3       full  plain          1  1  *
    balanced      qwen3       full  onepass        1  -
    balanced      qwen3       full  packed         1  1
    balanced      qwen3       lora  packedchunks   1  3  *
    paper         qwen3       full  plain          0  1
    paper         qwen3       full  packed         1  -
    paper         qwen3       lora  chunks         1  1  *
    sampled       qwen3       full  chunks         1  2  *
    papersampled  qwen3       lora  packed         1  1  *
    simcse        xlmr        lora  dropoutchunks  1  1
    mrl           xlmr        full  packed         1  3
    mrl           xlmr        lora  tokens         2  1
    ese           xlmr        full  packedchunks   1  1
    2dmse         xlmr        lora  plain          1  1
    2dmse         xlmr        full  chunks         3  0  *
    balanced      xlmr        full  tokens         1  1  *
    balanced      xlmr        full  chunks         0  2
    balanced      xlmr        lora  plain          3  1
    balanced      xlmr        lora  dropout        1  1  *
    paper         xlmr        full  packedchunks   1  1  *
    paper         xlmr        lora  plain          1  0  *
    sampled       xlmr        full  packed         1  1  *
    papersampled  xlmr        full  plain          1  2
    3dml          qwen3       full  packedchunks   1  3  *
    starbucks     xlmr        lora  chunks         1  2
    mic           xlmr        full  packed         1  3  *
    mic           xlmr        full  chunks         1  0
    tau           qwen3       lora  chunks         2  3
"""


class Case(NamedTuple):
    """name: that in golden.json; world: number of ranks; flags: of the command line, {models} for
    the folder of the tiny models; tested: trained by tests/test_golden.py."""

    name: str
    world: int
    flags: list[str]
    tested: bool


def cases() -> list[Case]:
    """Every case of TABLE, on each number of ranks that it names."""
    found = []
    for row in TABLE.strip().splitlines():
        objective, model, tuning, passes, one, two, *star = row.split()
        for world, stage in zip(WORLDS, (one, two), strict=True):
            if stage == "-":
                continue
            flags = ["--recipe", "quickstart", "--ds_config", f"ds_configs/zero{stage}.json",
                     "--data.validation", "none", "--data.token_cache", "{models}/tokens",
                     "--data.balance_tokens", "false", "--train.precision", "fp32",
                     "--train.batch_size", str(ANCHORS // world),
                     *TINY, *(FULL if tuning == "full" else LORA), *MODELS[model],
                     *OBJECTIVES[objective], *PASSES[passes]]  # fmt: skip
            name = f"{objective}-{model}-{tuning}-{passes}-zero{stage}-ranks{world}"
            found.append(Case(name, world, flags, bool(star) and world == 2))
    assert len({case.name for case in found}) == len(found)
    return found


def record(chosen: list[Case], folder: Path) -> Numbers:
    """Trains these cases, those of one number of ranks in one process group."""
    tiny_qwen3(folder / "qwen3")
    tiny_xlmr(folder / "xlmr")
    found: Numbers = {}
    for world in WORLDS:
        flags = {
            case.name: [flag.replace("{models}", str(folder)) for flag in case.flags]
            for case in chosen
            if case.world == world
        }
        if not flags:
            continue
        asked, answers = folder / f"cases{world}.json", folder / f"answers{world}.json"
        asked.write_text(json.dumps(flags))
        code, output = run_ranks(world, WORKER, [str(asked), str(STEPS), str(answers)])
        assert code == 0, output[-6000:]
        for name, rows in json.loads(answers.read_text()).items():
            found[name] = columns(rows)
    return found


def columns(rows: list[dict[str, float]]) -> dict[str, list[float | None]]:
    """Losses and norms by key; None at a step that has not logged it (2dmse draws its dim)."""
    keys = dict.fromkeys(k for row in rows for k in row if k.startswith("loss") or k == "grad_norm")
    return {key: [row.get(key) for row in rows] for key in keys}


def read() -> Numbers:
    """golden.json."""
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


def write(numbers: Numbers) -> None:
    """golden.json, one line for each case and key, so that a diff shows what changed."""
    blocks = []
    for name, keys in numbers.items():
        lines = [f"  {json.dumps(key)}: {json.dumps(values)}" for key, values in keys.items()]
        blocks.append(f"{json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n }")
    GOLDEN.write_text("{\n " + ",\n ".join(blocks) + "\n}\n", encoding="utf-8")


def apart(found: list[float | None], wanted: list[float | None]) -> float:
    """Largest relative difference of two rows of numbers; infinite where one has a gap."""
    worst = 0.0
    for a, b in zip(found, wanted, strict=True):
        if a is None or b is None:
            worst = max(worst, 0.0 if a is b else float("inf"))
        elif a != b:
            difference = abs(a - b) / max(abs(a), abs(b))
            worst = max(worst, difference if difference == difference else float("inf"))
    return worst


def check(numbers: Numbers, wanted: Numbers) -> bool:
    """Prints what differs from golden.json at all. -> nothing does."""
    same = True
    for name in dict.fromkeys([*wanted, *numbers]):
        mine, theirs = numbers.get(name, {}), wanted.get(name, {})
        missing = sorted(mine.keys() ^ theirs.keys())
        gaps = {k: gap for k in mine if k in theirs and (gap := apart(mine[k], theirs[k]))}
        if missing or gaps:
            same = False
            print(name)
            for key in missing:
                print(f"    {key}: only {'trained' if key in mine else 'in golden.json'}")
            for key, gap in gaps.items():
                print(f"    {key}: {gap:.1e}")
    print(f"{len(numbers)} cases: {'equal to the last digit' if same else 'numbers differ'}")
    return same


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="rewrite golden.json")
    what.add_argument("--check", action="store_true", help="compare with golden.json exactly")
    parser.add_argument("--only", default="", help="cases whose name has this text (with --check)")
    args = parser.parse_args()
    if args.write and args.only:
        parser.error("--write rewrites all cases; --only goes with --check")
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        chosen = [case for case in cases() if args.only in case.name]
        numbers = record(chosen, Path(folder))
    print(f"trained {len(numbers)} cases in {time.monotonic() - start:.0f} s")
    if args.write:
        write(numbers)
        return 0
    return 0 if check(numbers, {k: v for k, v in read().items() if args.only in k}) else 1


if __name__ == "__main__":
    raise SystemExit(main())
