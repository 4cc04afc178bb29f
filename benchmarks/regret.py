"""Is a trained model anywhere worse than the one it began with? Four families of tasks, small.

    python benchmarks/regret.py --data DIR            # data/, then the study
    python benchmarks/regret.py --data DIR --only-data

DIR: a folder per set (stsb, sick, mrpc ..) with train, validation and test as .jsonl, folders in
BEIR's layout, and the sources of training text (TRAIN). What is cut out of it goes to
data/, for the suites families (no test row) and families-test and the study regret (launch/).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mipic_llm.data.read.cells import plain

# Files of the development suite: file -> rows taken, evenly spaced. Test rows are not read, but to
# take their texts out of the training data.
DEV = {
    "stsb/validation": 300,
    "sick/validation": 300,
    "scitail/validation": 300,
    "emotion/validation": 400,
    "tweeteval_emotion/validation": 374,
}
PROBES = {"emotion/train": 500, "tweeteval_emotion/train": 500}
HELD_OUT = {"mrpc/train": 400}  # has no validation: the last rows
TEST = [f"{name}/test" for name in ("stsb", "sick", "sts12", "sts14", "mrpc", "scitail",
                                    "emotion")]  # fmt: skip
FOREIGN = 700  # sentences of trecqa_dev's corpus that answer no question, beside all that do
TRAIN = {"nli": "nli/train_triplets", "texts": "paper_mix/train", "qa": "wikiqa_train/train"}
TRAIN_ROWS = 1600  # of each: a few minutes a trial on two cores


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def thin(rows: list[Any], n: int) -> list[Any]:
    return rows if len(rows) <= n else [rows[i * len(rows) // n] for i in range(n)]


def texts_of(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        for key in ("sentence1", "sentence2", "text", "anchor", "positive", "negative", "query"):
            if isinstance(row.get(key), str):
                yield plain(row[key])
        yield from map(plain, [*row.get("pos", ()), *row.get("neg", ())])


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def make(data: Path, out: Path) -> None:
    """Write out/<set>/<part>.jsonl, out/<retrieval set>/ and the sources of training text."""
    seen: set[str] = set()
    for name in (*DEV, *PROBES, *HELD_OUT):
        rows = rows_of(data / f"{name}.jsonl")
        n = (DEV | PROBES | HELD_OUT)[name]
        chosen = rows[-n:] if name in HELD_OUT else thin(rows, n)
        write(out / f"{name.replace('mrpc/train', 'mrpc/validation')}.jsonl", chosen)
        seen |= set(texts_of(chosen))
    for name in ("wikiqa_dev", "trecqa_dev"):
        seen |= retrieval(data / name, out / name)
    for name in TEST:
        rows = rows_of(data / f"{name}.jsonl")
        write(out / f"{name}.jsonl", rows)
        seen |= set(texts_of(rows))
    for name, file in TRAIN.items():
        rows = rows_of(data / f"{file}.jsonl")
        clean = [row for row in rows if not seen & set(texts_of([row]))]
        chosen = [{k: v for k, v in r.items() if k != "source"} for r in thin(clean, TRAIN_ROWS)]
        write(out / f"{name}.jsonl", chosen)
        print(f"{name}: {len(rows):,} rows, {len(rows) - len(clean):,} with a text of the "
              f"evaluations left out, {len(chosen):,} taken")  # fmt: skip


def retrieval(data: Path, out: Path) -> set[str]:
    """A BEIR folder with a smaller corpus: all that answers a question, some that does not."""
    qrels = next((data / "qrels").iterdir())
    right = {line.split("\t")[1] for line in qrels.read_text("utf-8").splitlines()[1:]
             if float(line.split("\t")[2]) > 0}  # fmt: skip
    corpus, queries = rows_of(data / "corpus.jsonl"), rows_of(data / "queries.jsonl")
    ids = {row["_id"] for row in thin([r for r in corpus if r["_id"] not in right], FOREIGN)}
    kept = [r for r in corpus if r["_id"] in right | ids or data.name != "trecqa_dev"]
    write(out / "corpus.jsonl", kept)
    write(out / "queries.jsonl", queries)
    (out / "qrels").mkdir(exist_ok=True)
    names = {r["_id"] for r in kept}
    lines = qrels.read_text("utf-8").splitlines()
    (out / "qrels" / qrels.name).write_text(
        "\n".join([lines[0], *(x for x in lines[1:] if x.split("\t")[1] in names)]) + "\n", "utf-8"
    )
    return set(texts_of([*kept, *queries]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of all sets")
    parser.add_argument("--only-data", action="store_true", help="cut the data out, and stop")
    args = parser.parse_args()
    make(args.data, Path("data"))
    if args.only_data:
        return
    study = ["study", "--study", "launch/studies/regret.yaml"]
    subprocess.run([sys.executable, "-m", "mipic_llm", *study], check=True)


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    main()
