"""Suite `stream`: rows that memory need not hold, from a file of JSON lines to the first batch.

Made-up triplets. Times of: reading the rows into the store, tokenising them, the plan of the first
pass, and the first global batch; for each the largest anonymous memory of the process above what it
had when the imports were done (mapped files are the system's to keep or drop). The first batches of
the file's first rows are compared with those that are made in memory.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness, results
from benchmarks.harness import Options
from benchmarks.results import Row

LIMIT = 4 * 3600  # seconds
ROWS, COMPARED, BATCH, WORLD = 10_000_000, 100_000, 256, 8


def write(path: Path, rows: int) -> None:
    """Triplets of 6 to 14 made-up words; one anchor in ten has been there before."""
    rng, word = np.random.default_rng(0), np.array([f"word{i}" for i in range(20_000)])
    with path.open("w", encoding="utf-8") as file:
        for first in range(0, rows, 50_000):
            n = min(50_000, rows - first)
            lengths = rng.integers(6, 15, (n, 3))
            drawn = word[rng.integers(0, len(word), int(lengths.sum()))]
            texts = [" ".join(part) for part in np.split(drawn, lengths.cumsum()[:-1])]
            again = rng.random(n) < 0.1
            for i in range(n):
                a, p, neg = texts[3 * i : 3 * i + 3]
                a = texts[3 * int(rng.integers(i))] if again[i] and i else a
                file.write(f'{{"anchor": "{a}", "positive": "{p}", "negative": "{neg}"}}\n')


def anonymous() -> float:
    """MiB of memory of this process that no file stands behind."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc says nothing of RssAnon")


@contextmanager
def watched(found: dict[str, Any], name: str, base: float) -> Iterator[None]:
    """Seconds, and the largest memory above `base`, looked at 20 times a second."""
    peak, done = [anonymous()], threading.Event()

    def look() -> None:
        while not done.wait(0.05):
            peak[0] = max(peak[0], anonymous())

    thread, begun, used = threading.Thread(target=look), time.perf_counter(), time.process_time()
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        found[name] = {"seconds": time.perf_counter() - begun, "mib": peak[0] - base,
                       "cpu": time.process_time() - used}  # fmt: skip


def measure(path: str, folder: str, tokens: bool = True) -> dict[str, Any]:
    """All stages in this process, one rank of WORLD; without `tokens` (`--case plan`) rows and plan
    alone."""
    from mipic_llm.config import load_config
    from mipic_llm.data import stream, token_cache
    from mipic_llm.data.plan import BatchPlan
    from mipic_llm.data.read.training import read_training
    from mipic_llm.evaluation.encode import make_encoder
    from mipic_llm.model.directory import open_source
    from mipic_llm.training.setup import resolve_for

    config = load_config(["--data.max_length", "32"])
    model = open_source(config.model)
    encoder = make_encoder(resolve_for(config, model), model)
    base, found = anonymous(), dict[str, Any]()
    reading = stream.Reading(path, 1)
    with watched(found, "rows", base):
        reading.build(Path(folder) / "rows", lambda *_: None)
    source, _ = reading.source(Path(folder) / "rows")
    if tokens:
        with watched(found, "tokens", base):
            token_cache.build(Path(folder) / "tokens", source.examples, encoder)
    with watched(found, "plan", base):
        plan = BatchPlan([source], BATCH, WORLD, 1)
        first = plan.batch(0, 0)
    if tokens:
        stored = token_cache.StoredTokens(Path(folder) / "tokens")
        with watched(found, "batch", base):
            stored.rows([i for _, i in plan.local(first, 0)])
            [source.examples[i] for _, i in plan.local(first, 0)]
    small = Path(folder) / "small.jsonl"
    with open(path, encoding="utf-8") as file, small.open("w", encoding="utf-8") as head:
        head.writelines(line for _, line in zip(range(COMPARED), file, strict=False))
    reading = reading._replace(spec=str(small))
    reading.build(Path(folder) / "small", lambda *_: None)
    streamed, _ = reading.source(Path(folder) / "small")
    (whole,), _ = read_training(str(small), negatives=1)
    plans = [BatchPlan([one], BATCH, 1, 1) for one in (streamed, whole)]
    for index in range(3):
        numbers = [[i for _, i in plan.batch(0, index)] for plan in plans]
        assert numbers[0] == numbers[1]
        assert [streamed.examples[i] for i in numbers[0]] == [whole.examples[i] for i in numbers[1]]
    found["rows of the source"] = len(source.examples)
    return found


def run(o: Options) -> list[Row]:
    rows = 20_000 if o.quick else o.rows if o.rows != 4096 else ROWS
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write(path, rows)
        size = path.stat().st_size / 2**30
        call: Callable[..., Any] = harness.in_child
        got = call("benchmarks.stream:measure", timeout=LIMIT, path=str(path), folder=folder,
                   tokens=o.case != "plan", threads=o.threads)  # fmt: skip
    count = got.pop("rows of the source")
    return [
        results.row(
            "stream", f"{count:,} rows", stage, wall_ms=1e3 * one["seconds"], peak_mib=one["mib"],
            note=f"{size:.2f} GiB of JSON lines; {count / one['seconds']:,.0f} rows/s, "
            f"{one['cpu']:,.0f} s of one core; "
            f"first batches of {min(count, COMPARED):,} rows as in memory",
        )
        for stage, one in got.items()
    ]  # fmt: skip
