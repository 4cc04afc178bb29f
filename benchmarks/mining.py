"""Do mined negatives teach more than random ones, with and without masks? One process, one core.

  python benchmarks/mining.py --data DIR --out DIR [--rows 250] [--steps 30] [--seeds 1 2 3]

DIR holds wikiqa_train, nli, wikiqa_dev and trecqa_dev (query, pos, neg; triplets; two folders in
BEIR's layout). Each row is a question or premise, its first positive, and one negative from the
texts of all rows: random; the nearest below 0.95 x the positive; the nearest without a limit; that
one, with the mask of near candidates in training. Judged by nDCG@10 on the two folders, of the
second one with few documents. Prints means and 95 % intervals of the differences (paired bootstrap
over queries and seeds); what is done stays in OUT, and another start goes on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from mipic_llm.commands.run import dispatch
from mipic_llm.report.bootstrap import interval, resampled

ANY = ["--mine.sampling", "random", "--mine.range", "0:1000000", "--mine.relative", "none"]
SETS = {"random": ANY, "mined": [], "mined-no-limit": ["--mine.relative", "none"]}
METHODS = {  # -> the set, and flags of its training
    "random": ("random", []),
    "mined, limit": ("mined", []),
    "mined, no limit": ("mined-no-limit", []),
    "mined, no limit, mask": ("mined-no-limit", ["--objective.false_negative_margin", "0.05"]),
}
TASKS, DIMS = ("wikiqa_dev", "trecqa_dev"), (64, 384)


def lines(path: Path, n: int = 1 << 30) -> list[dict]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for _, line in zip(range(n), file, strict=False)]


def write(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def smaller(folder: Path, to: Path, n: int) -> None:
    """A retrieval folder with its judged documents and the first n others."""
    judgements = next(folder.glob("qrels/*.tsv")).read_text(encoding="utf-8")
    judged = {line.split("\t")[1] for line in judgements.splitlines()[1:]}
    corpus = lines(folder / "corpus.jsonl")
    others = [row for row in corpus if row["_id"] not in judged][:n]
    write(to / "corpus.jsonl", [row for row in corpus if row["_id"] in judged] + others)
    write(to / "queries.jsonl", lines(folder / "queries.jsonl"))
    (to / "qrels").mkdir(exist_ok=True)
    (to / "qrels" / "test.tsv").write_text(judgements, encoding="utf-8")


def judged(out: Path, model: str, data: list[str]) -> dict[tuple[str, int], np.ndarray]:
    """nDCG@10 of every query, by task and dim."""
    if not (out / "rows.npz").exists():
        dispatch(["evaluate", "--model", model, "--data", *data, "--layers", "6",
                  "--dims", *map(str, DIMS), "--output_dir", str(out)])  # fmt: skip
    rows = np.load(out / "rows.npz")
    return {(t, d): rows[f"prefix|{t}|ndcg@10|6|{d}"] for t in TASKS for d in DIMS}


def table(found: dict[str, list[dict]]) -> str:
    """Means x 100, and each method's difference from random, over the seeds that all have."""
    text = ["| task, dim | " + " | ".join(found) + " |", "|---" * (1 + len(found)) + "|"]
    seeds = len(found[list(found)[-1]])
    for task, dim in next(iter(found.values()))[0]:
        cells, draws = [f"{task}, {dim}"], {}
        for name, runs in found.items():
            values = [100 * run[task, dim] for run in runs[:seeds] or runs]
            draws[name] = [resampled("ndcg@10", value, None) for value in values]
            cells.append(f"{np.mean(values):.2f}")
            if name not in ("untrained", "random"):
                low, high = interval(draws[name], draws["random"])
                gap = np.mean(values) - np.mean([100 * r[task, dim] for r in found["random"]])
                cells[-1] += f" ({gap:+.2f} [{low:+.2f}, {high:+.2f}])"
        text.append("| " + " | ".join(cells) + " |")
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=250, help="of each of the two sets")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    args = parser.parse_args()
    data, out = args.data.resolve(), args.out.resolve()

    wiki = lines(data / "wikiqa_train" / "train.jsonl", args.rows)
    rows = [{"anchor": r["query"], "positive": r["pos"][0], "negatives": r["neg"]} for r in wiki]
    nli = lines(data / "nli" / "train_triplets.jsonl", args.rows)
    rows += [{"anchor": r["anchor"], "positive": r["positive"], "negatives": [r["negative"]]}
             for r in nli]  # fmt: skip
    write(out / "rows.jsonl", rows)
    smaller(data / "trecqa_dev", out / "trecqa_dev", 300)
    tasks = [str(data / "wikiqa_dev"), str(out / "trecqa_dev")]
    for name, flags in SETS.items():
        if not (out / f"{name}.jsonl").exists():
            dispatch(["mine", "--data.train", str(out / "rows.jsonl"), "--mine.negatives", "1",
                      "--mine.output", str(out / f"{name}.jsonl"), *flags])  # fmt: skip
    found = {"untrained": [judged(out / "untrained", "quickstart", tasks)]}
    for seed in args.seeds:
        for name, (negatives, flags) in METHODS.items():
            run = out / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
            if not (run / "adapter").exists():
                dispatch([
                    "train", "--data.train", str(out / f"{negatives}.jsonl"), "--data.validation",
                    "none", "--objective.name", "mrl", "--data.max_length", "48",
                    "--train.max_steps", str(args.steps), "--train.batch_size", "16",
                    "--train.learning_rate", "5e-4", "--seed", str(seed), "--export.rehearse",
                    "false", "--tracking.mlflow", "off", "--output_dir", str(run),
                    "--overwrite", "true", *flags,
                ])  # fmt: skip
            found.setdefault(name, []).append(judged(run / "scores", str(run / "adapter"), tasks))
        print(f"\nseeds {args.seeds[: args.seeds.index(seed) + 1]}, nDCG@10 x 100\n")
        print(table(found), flush=True)


if __name__ == "__main__":
    main()
