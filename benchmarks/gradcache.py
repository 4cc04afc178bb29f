"""Suite `gradcache`: peak memory of a fresh process as the effective batch grows, chunk fixed.

Every process trains on the same fixed total of rows (so 256 takes 16 steps where 4,096 takes one)
with the quickstart weights, full fine-tuning, and reports its high-water mark. A first step of one
chunk builds the optimizer's state, which every step after it needs.
"""

from __future__ import annotations

from benchmarks import data, harness, models, results
from benchmarks.harness import Options
from benchmarks.results import Row

TARGET = 1.1
BATCHES, CHUNK, LENGTH = (256, 1024, 4096), 32, 32
QUICK_BATCHES, QUICK_CHUNK, QUICK_ROWS = (16, 32), 8, 32
TERMS = ("mrl", "mipic")


def peak(
    B: int,
    chunk: int,
    rows: int,
    terms: str,
    path: str | None,
    name: str = "quickstart",
    precision: str = "fp32",
) -> dict[str, float]:
    """Train `rows` rows in batches of B; -> peak and warm MiB, CPU ms and tokens per step."""
    from mipic_llm.data.batch import build_step
    from mipic_llm.evaluation.encode import make_encoder
    from mipic_llm.runtime.start import start

    start()
    examples, _ = data.triplets(path)
    more = ["--train.chunk_size", str(chunk), "--data.max_length", str(LENGTH)]
    made = models.trainee(name, models.flags(terms=terms, precision=precision, B=B, more=more))
    encoder = make_encoder(made.config, made.source)
    pairs = [e._replace(negatives=()) for e in examples]
    made.runner.run(build_step(pairs[: chunk // 2], encoder), 0)
    warm, samples, tokens = harness.peak_mib(), [], 0.0
    for step in range(max(1, rows // B)):
        batch = build_step(data.cycled(pairs, B, step * B), encoder)
        counted: list[float] = []
        samples.append(harness.timed(
            lambda b=batch, n=step, c=counted: c.append(made.runner.run(b, n + 1)["useful"])
        ))  # fmt: skip
        tokens = counted[0]
    timing = harness.summary(samples)
    return {"peak": harness.peak_mib(), "warm": warm, "ms": timing.median, "wall": timing.wall,
            "p10": timing.p10, "p90": timing.p90, "tokens": tokens}  # fmt: skip


def run(
    o: Options, suite: str = "gradcache", name: str = "quickstart", precision: str = "fp32"
) -> list[Row]:
    batches, chunk, total = BATCHES, CHUNK, o.rows
    if o.quick:
        batches, chunk, total = QUICK_BATCHES, QUICK_CHUNK, QUICK_ROWS
    source = data.triplets(o.data)[1]
    made = []
    for terms in TERMS:
        if o.case not in (None, terms):
            continue
        peaks: dict[int, float] = {}
        for B in batches:
            got = harness.in_child("benchmarks.gradcache:peak", B=B, chunk=chunk, rows=total,
                                   terms=terms, path=o.data, name=name,
                                   precision=precision, threads=o.threads)  # fmt: skip
            peaks[B] = got["peak"]
            judged: dict[str, object] = {"ratio": 1.0}
            if B != batches[0]:
                judged = {"ratio": peaks[B] / peaks[batches[0]]}
            if B == batches[-1] and not o.quick:
                judged = results.verdict(peaks[B] / peaks[batches[0]], TARGET, at_least=False)
            made.append(results.row(
                suite, f"{terms} chunk {chunk}", f"B={B}",
                harness.Timing(got["ms"], got["p10"], got["p90"], got["wall"]),
                model=name if name == "quickstart" else "bge-m3", mode="full", zero_stage=0,
                ranks=1, B=B, terms=terms,
                lengths=f"{source}, pairs cut at {LENGTH}", peak_mib=peaks[B],
                tokens_per_s=1e3 * got["tokens"] / got["ms"],
                note=f"{total} rows in all, {got['warm']:.0f} MiB after one chunk", **judged,
            ))  # fmt: skip
            print(made[-1]["case"], made[-1]["variant"], f"{peaks[B]:.0f} MiB", flush=True)
    return made
